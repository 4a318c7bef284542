"""
The page of a simulation: `report.html`, one file that needs no network, made from the document of `report.json`.

Sentences and tables are written here and stand without scripts; the charts are drawn by the small script inside
`report.html`, the template beside this module, from a copy of the series that is thinned to what a screen can show.
"""

from __future__ import annotations

import functools
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import numpy as np

from wva_core.domain.arrays import FloatArray, floats
from wva_core.simulation.report_numbers import UNKNOWN, fixed, percent, significant

__all__ = ["MAX_POINTS_PER_LINE", "render_page"]

MAX_POINTS_PER_LINE: Final = 1000
"""Points of one line in the page; a chart is seldom wider in pixels."""

# All lines of the page together: about eight characters a point keep the file well under a megabyte.
_MAX_POINTS = 72_000
_MIN_POINTS_PER_LINE = 60

_COLOURS = 6  # --c0 … --c5 of the template

# One mark per contender, so that colour is never alone: circle, square, triangle, diamond, cross. Drawn around (0, 0).
_MARKS = (
    "M-5.5 0A5.5 5.5 0 1 0 5.5 0A5.5 5.5 0 1 0-5.5 0Z",
    "M-5-5H5V5H-5Z",
    "M0-6.2L6 4.6H-6Z",
    "M0-6.8L6.8 0L0 6.8L-6.8 0Z",
    "M-6-2H-2V-6H2V-2H6V2H2V6H-2V2H-6Z",
)

_OPEN_NOTICES = 5
_ALL_NOTICES = 100

_UNKNOWN_HTML = f'<span class="unknown" title="not known">{UNKNOWN}<span class="sr"> not known</span></span>'


def render_page(document: Mapping[str, Any]) -> str:
    """
    The HTML of `report.html`.

    Args:
        document: as `wva_core.simulation.report.report_document` makes it or `load_report` reads it.

    Every text of the document is escaped; the page forbids itself, by a content security policy, to load anything.

    Cost: about 0.1 s and 170 kB for a day of noisy samples every 15 s and four contenders; 430 kB for 30 variants.
    """
    scenario = document["scenario"]
    contenders = document["contenders"]
    parts = {
        "title": _text(scenario["name"]),
        "description": f'<p class="lede">{_text(scenario["description"])}</p>' if scenario["description"] else "",
        "banner": _banner(document),
        "headline": _headline(document),
        "facts": _facts(scenario),
        "check": _check_sentence(document["validation"]),
        "validation": _validation_table(document["validation"]),
        "ranking": _ranking_table(contenders),
        "requests": _requests_table(contenders),
        "columns": str({1: 1, 2: 2, 4: 2}.get(len(contenders), 3)),
        "reading": _reading(document),
        "panels": "\n".join(_panel(index, contender) for index, contender in enumerate(contenders)),
        "fleet": _fleet_table(scenario["variants"]),
        "method": _method(document),
        "data": _embedded(_payload(document)),
    }
    return re.sub(r"<!--\{(\w+)\}-->", lambda match: parts[match[1]], _template())


@functools.cache
def _template() -> str:
    return resources.files("wva_core.simulation").joinpath("report.html").read_text(encoding="utf-8")


def _text(value: object) -> str:
    return html.escape(str(value))


def _embedded(value: object) -> str:
    # Inside <script> only "<" can end the block or open a comment.
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


# ---------------------------------------------------------------------------------------------------------------------
# Words


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    for unit, length, above in (("d", 86_400, 3 * 86_400), ("h", 3600, 3 * 3600), ("min", 60, 120)):
        if seconds >= above:
            return f"{_plain(seconds / length, 1)} {unit}"
    return f"{_plain(seconds, 1)} s"


def _plain(value: float | None, decimals: int) -> str:
    if value is None:
        return "not known"
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


# ---------------------------------------------------------------------------------------------------------------------
# Sentences


def _banner(document: Mapping[str, Any]) -> str:
    if not document["partial"]:
        return ""
    names = [contender["name"] for contender in document["contenders"] if contender["partial"]]
    if not names:
        which = "Contenders that had not begun are missing."
    elif len(names) == 1:
        which = f"{_text(names[0])} was stopped before the end and is not ranked."
    else:
        which = f"{_text(', '.join(names))} were stopped before the end and are not ranked."
    return f'<p class="banner" role="note"><strong>Partial.</strong> The simulation was interrupted. {which}</p>'


def _headline(document: Mapping[str, Any]) -> str:
    """The headline with the names of contenders set off, each with its mark."""
    index_of = {contender["name"]: index for index, contender in enumerate(document["contenders"])}
    if not index_of:
        return _text(document["headline"])
    longest_first = sorted(index_of, key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first))
    pieces: list[str] = []
    end = 0
    for match in pattern.finditer(document["headline"]):
        pieces += [_text(document["headline"][end : match.start()]), _name(index_of[match[0]], match[0])]
        end = match.end()
    return "".join([*pieces, _text(document["headline"][end:])])


def _name(index: int, name: str) -> str:
    first, space, rest = name.partition(" ")  # no line may end with the mark
    marked = f'<span class="keep">{_mark(index)}{_text(first)}</span>{_text(space + rest)}'
    return f'<b class="name c{index % _COLOURS}">{marked}</b>'


def _mark(index: int) -> str:
    path = _MARKS[index % len(_MARKS)]
    return f'<svg class="mark" viewBox="-8 -8 16 16" aria-hidden="true"><path d="{path}"/></svg>'


def _facts(scenario: Mapping[str, Any]) -> str:
    trace = scenario["trace"]
    objectives = (
        f"first token within {_plain(scenario['ttft_objective_s'], 3)} s, "
        f"then {_plain(_times(scenario['tpot_objective_s'], 1000), 1)} ms per token"
    )
    fleet = ", ".join(
        f"{variant['accelerator']} {variant['min_replicas']}–{variant['max_replicas']}"
        for variant in scenario["variants"]
    )
    pairs = (
        ("Load", f"{_count(trace['requests'], 'request')} in {_duration(trace['span_s'])} ({trace['kind']})"),
        ("Objectives", objectives),
        ("Fleet, replicas allowed", fleet or "none"),
        ("Samples", f"every {_duration(scenario['interval_s'])}, seed {scenario['seed']}"),
    )
    return "".join(f"<div><dt>{_text(term)}</dt><dd>{_text(value)}</dd></div>" for term, value in pairs)


def _reading(document: Mapping[str, Any]) -> str:
    seconds = document["scenario"]["warmup_s"]
    samples = max((len(contender["series"]["time_s"]) for contender in document["contenders"]), default=0)
    sentences = []
    if seconds:
        sentences.append(f"The grey band is the warm-up of {_text(_duration(seconds))}, which is not scored.")
    if samples > _points_per_line(document["contenders"]):
        sentences.append("Lines are thinned to their highs and lows; report.json has every sample.")
    return " ".join(sentences)


def _check_sentence(validation: Mapping[str, Any]) -> str:
    errors = [row["error_pct"] for row in validation["rows"]]
    limit = _plain(validation["limit_pct"], 1)
    if not errors:
        return (
            '<p class="check bad"><strong>Not checked.</strong> The simulator was not compared with the closed '
            "formula; read the ranking with care.</p>"
        )
    if None in errors:
        return (
            '<p class="check bad"><strong>Check failed.</strong> How far the simulator departs from the closed formula '
            f"is not known in {errors.count(None)} of {_count(len(errors), 'case')}. "
            "Do not trust the ranking below.</p>"
        )
    worst = max(abs(error) for error in errors)
    if worst > validation["limit_pct"]:
        return (
            '<p class="check bad"><strong>Check failed.</strong> The simulator departs from the closed formula '
            f"by up to {worst:.2f} %, more than the {limit} % allowed. Do not trust the ranking below.</p>"
        )
    return (
        '<p class="check good"><strong>Check passed.</strong> In a closed loop the simulator is within '
        f"{worst:.2f} % of the closed formula ({limit} % allowed).</p>"
    )


def _method(document: Mapping[str, Any]) -> str:
    scenario = document["scenario"]
    trace = scenario["trace"]
    pairs = (
        ("In time", scenario["rule"]),
        ("Trace", f"{trace['name']} ({trace['kind']})"),
        ("How the load was scaled", trace["scaling_note"]),
        ("Attribution and licence", trace["attribution"]),
        ("Scenario file", scenario["source"]),
        ("Random seed", scenario["seed"]),
        ("Made by", document["generator"]),
    )
    return "".join(f"<dt>{_text(term)}</dt><dd>{_text(value)}</dd>" for term, value in pairs if str(value))


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _table(caption: str, head: str, *bodies: Iterable[str], label: str, klass: str = "") -> str:
    # The box scrolls, not the page; a box that scrolls has to be reachable by keyboard and to have a name.
    groups = "".join("<tbody>" + "\n".join(f"<tr>{row}</tr>" for row in rows) + "</tbody>" for rows in bodies)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(label)}"><table class="{klass}">'
        f"<caption>{caption}</caption><thead>{head}</thead>{groups}</table></div>"
    )


def _head(*names: str, words: tuple[int, ...] = ()) -> str:
    klass = ['class="words" ' if column in words else "" for column in range(len(names))]
    return (
        "<tr>" + "".join(f'<th {klass[column]}scope="col">{name}</th>' for column, name in enumerate(names)) + "</tr>"
    )


def _cells(*values: str, best: Sequence[bool] = ()) -> str:
    marked = best or [False] * len(values)
    return "".join(
        f'<td class="best">{value}<span class="star" aria-hidden="true">★</span><span class="sr"> best</span></td>'
        if is_best
        else f"<td>{_UNKNOWN_HTML if value == UNKNOWN else value}</td>"
        for value, is_best in zip(values, marked, strict=True)
    )


def _validation_table(validation: Mapping[str, Any]) -> str:
    bodies: dict[str, list[str]] = {}  # one per profile, headed by its name
    for row in validation["rows"]:
        profile = row["profile"]
        rows = bodies.setdefault(profile, [f'<th scope="rowgroup" colspan="5">{_text(profile)}</th>'])
        error = UNKNOWN if row["error_pct"] is None else f"{row['error_pct']:+z.2f}".replace("-", "−")  # z: no −0.00
        rows.append(
            f'<th scope="row">{row["batch"]:,}</th>'
            + _cells(
                fixed(row["predicted_ms"], 2), fixed(row["simulated_ms"], 2), error, fixed(row["fit_error_pct"], 1)
            )
        )
    if not bodies:
        return ""
    return _table(
        "Time per output token with a fixed number of requests in flight. “Fit error” is how far the profile itself is "
        "from the measurements it was fitted to.",
        _head("In flight", "Formula, ms", "Simulated, ms", "Deviation, %", "Fit error, %"),
        *bodies.values(),
        label="Simulator beside the closed formula",
        klass="validation",
    )


_RANKING_HEAD = (
    '<tr><th scope="col" rowspan="2">Contender</th><th scope="col" rowspan="2">In time, %</th>'
    '<th scope="col" rowspan="2">Cost, USD</th><th scope="col" rowspan="2">GPU-hours</th>'
    '<th scope="colgroup" colspan="3" class="group">Time to first token, s</th>'
    '<th scope="colgroup" colspan="3" class="group">Time per output token, ms</th>'
    '<th scope="col" rowspan="2">Scale actions</th><th scope="col" rowspan="2">Reversals per hour</th></tr>'
    "<tr>" + ('<th scope="col">p50</th><th scope="col">p95</th><th scope="col">p99</th>' * 2) + "</tr>"
)
_COMPARED = (
    "attainment",
    "cost_usd",
    "gpu_hours",
    *(f"{name}.p{p}" for name in ("ttft_s", "tpot_s") for p in (50, 95, 99)),
)


def _ranking_table(contenders: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for index, contender in enumerate(contenders):
        ttft, tpot = contender["ttft_s"], contender["tpot_s"]
        tag = ' <span class="tag">partial</span>' if contender["partial"] else ""
        rows.append(
            f'<th scope="row">{_name(index, contender["name"])}{tag}</th>'
            + _cells(
                percent(contender["attainment"]),
                fixed(contender["cost_usd"], 2),
                fixed(contender["gpu_hours"], 1),
                *(significant(ttft[p]) for p in ("p50", "p95", "p99")),
                *(significant(_times(tpot[p], 1000)) for p in ("p50", "p95", "p99")),
                f"{contender['scale_actions']:,}",
                fixed(contender["reversals_per_hour"], 1),
                best=[*(key in contender["best_in"] for key in _COMPARED), False, False],
            )
        )
    starred = any(contender["best_in"] for contender in contenders)
    caption = "“In time” is the share of requests that met both objectives."
    if starred:
        caption += ' <span aria-hidden="true">★</span><span class="sr">A star</span> marks the best value of a column.'
    if any(contender["partial"] for contender in contenders):
        caption += " Partial contenders are not compared."
    return _table(caption, _RANKING_HEAD, rows, label="Contenders compared", klass="ranking")


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _requests_table(contenders: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        "“In flight” requests were not finished when the run ended.",
        _head("Contender", "Arrived", "Answered", "Failed", "In flight"),
        (
            f'<th scope="row">{_name(index, contender["name"])}</th>'
            + _cells(*(f"{contender['requests'][key]:,}" for key in ("in", "done", "failed", "in_flight")))
            for index, contender in enumerate(contenders)
        ),
        label="Requests by outcome",
    )


def _fleet_table(variants: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        "Variants every contender had. Costs are per replica.",
        _head("Variant", "Model", "Accelerator", "GPUs", "USD per hour", "Replicas", "Start-up", words=(1, 2, 6)),
        (
            f'<th scope="row">{_text(variant["key"])}</th>'
            f'<td class="words">{_text(variant["model"])}</td><td class="words">{_text(variant["accelerator"])}</td>'
            f"<td>{variant['gpus_per_replica']:,}</td><td>{fixed(variant['cost_usd_per_h'], 2)}</td>"
            f"<td>{variant['min_replicas']:,}–{variant['max_replicas']:,}</td>"
            f'<td class="words">{_text(variant["startup"])}</td>'
            for variant in variants
        ),
        label="Variants of the fleet",
        klass="fleet",
    )


def _panel(index: int, contender: Mapping[str, Any]) -> str:
    description = f"<p>{_text(contender['description'])}</p>" if contender["description"] else ""
    return (
        f'<article class="panel c{index % _COLOURS}" aria-labelledby="panel-{index}">'
        f'<header><h3 id="panel-{index}">{_mark(index)}{_text(contender["name"])}'
        f' <span class="tag">{_text(contender["kind"])}</span>'
        + (' <span class="tag">partial</span>' if contender["partial"] else "")
        + f"</h3>{description}</header>"
        f'<div class="chart" data-contender="{index}" tabindex="0" role="group" '
        f'aria-label="{_text(contender["name"])} over time; left and right arrow keys move the cursor"></div>'
        f"<div>{_notices(contender['notices'])}</div>"
        "</article>"
    )


def _notices(notices: Sequence[str]) -> str:
    """The first few as they are, more of them folded away, the rest counted."""

    def items(some: Sequence[str]) -> str:
        return '<ul class="notices">' + "".join(f"<li>{_text(notice)}</li>" for notice in some) + "</ul>"

    shown, folded, rest = notices[:_OPEN_NOTICES], notices[_OPEN_NOTICES:_ALL_NOTICES], len(notices[_ALL_NOTICES:])
    text = items(shown) if shown else ""
    if folded:
        left = items([*folded, *([f"{rest:,} more in report.json"] if rest else [])])
        summary = f"<summary>{_count(len(folded) + rest, 'further notice')}</summary>"
        text += f'<details class="notices">{summary}{left}</details>'
    return text


# ---------------------------------------------------------------------------------------------------------------------
# Series


def _points_per_line(contenders: Sequence[Mapping[str, Any]]) -> int:
    count = sum(3 + 3 * len(contender["series"]["variants"]) for contender in contenders)
    return min(MAX_POINTS_PER_LINE, max(_MIN_POINTS_PER_LINE, _MAX_POINTS // max(1, count)))


def _payload(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the script draws; lines that are equal, such as the demand all contenders share, are stored once."""
    contenders = document["contenders"]
    limit = _points_per_line(contenders)
    lines: list[dict[str, Any]] = []
    place: dict[str, int] = {}

    def line(time: FloatArray, values: Sequence[float | None]) -> int:
        made = _line(time, floats(values), limit)
        key = json.dumps(made)
        if key not in place:
            place[key] = len(lines)
            lines.append(made)
        return place[key]

    drawn = []
    times: list[float] = []
    for index, contender in enumerate(contenders):
        series = contender["series"]
        time = floats(series["time_s"])
        times += [float(time[0]), float(time[-1])] if len(time) else []
        drawn.append(
            {
                "name": contender["name"],
                "colour": index % _COLOURS,
                "mark": _MARKS[index % len(_MARKS)],
                "partial": contender["partial"],
                "attainment": contender["attainment"],
                "cost": contender["cost_usd"],
                "gpuHours": contender["gpu_hours"],
                "ttft95": contender["ttft_s"]["p95"],
                "demand": line(time, series["demand_rps"]),
                "queue": line(time, series["queue_requests"]),
                "inTime": line(time, series["attainment"]),
                "variants": [
                    {
                        "key": key,
                        "current": line(time, variant["current_replicas"]),
                        "ready": line(time, variant["ready_replicas"]),
                        "desired": line(time, variant["desired_replicas"]),
                    }
                    for key, variant in series["variants"].items()
                ],
            }
        )
    return {
        "span": [min(times, default=0.0), max(times, default=0.0)],
        "interval": document["scenario"]["interval_s"],
        "warmup": document["scenario"]["warmup_s"] or 0,
        "contenders": drawn,
        "lines": lines,
    }


def _line(time: FloatArray, values: FloatArray, limit: int) -> dict[str, list[float | int | None]]:
    """A thinned line: times as differences in tenths of a second, values to four significant digits."""
    kept = _thin(values, limit)
    tenths = np.rint(time[kept] * 10).astype(int)
    shown = [None if math.isnan(value) else float(f"{value:.4g}") for value in values[kept].tolist()]
    return {
        "t": np.diff(tenths, prepend=0).tolist(),
        "v": [int(value) if value is not None and value.is_integer() else value for value in shown],
    }


def _thin(values: FloatArray, limit: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """
    Rows of a line worth drawing, ascending, at most `limit`.

    First the rows that lie inside a run of equal values go, which loses nothing, drawn as steps or as straight lines.
    If that is not enough, of each of `limit / 3` stretches its least, its greatest and its first unknown value stay, so
    a peak is never lost and a gap never bridged.
    """
    n = len(values)
    unknown = np.isnan(values)
    same = (values[1:] == values[:-1]) | (unknown[1:] & unknown[:-1])
    inside = np.zeros(n, dtype=bool)
    inside[1:-1] = same[:-1] & same[1:]
    rows = np.flatnonzero(~inside)
    if len(rows) <= limit:
        return rows
    kept: set[int] = {0, n - 1}
    for stretch in np.array_split(rows, max(1, (limit - 2) // 3)):
        known = stretch[~unknown[stretch]]
        if len(known):
            kept |= {int(known[np.argmin(values[known])]), int(known[np.argmax(values[known])])}
        if len(known) < len(stretch):
            kept.add(int(stretch[unknown[stretch]][0]))
    return np.array(sorted(kept), dtype=np.intp)
