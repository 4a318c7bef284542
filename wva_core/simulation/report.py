"""
What a simulation leaves behind: the facts it ran on, the result of each contender, and `report.json` made of both.

The document is plain JSON with a format name and a version; its keys are snake_case and carry their unit. Whatever is
not known (NaN, and an infinity, which JSON has no word for) is `null`. The page for people, `report.html`, is made from
the document alone (`wva_core.simulation.report_page`), so a stored document can be drawn again.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from wva_core import __version__
from wva_core.domain.arrays import FloatArray, floats
from wva_core.errors import EnvironmentFault, InputError, ParameterError
from wva_core.simulation.report_numbers import UNKNOWN, fixed, percent, significant
from wva_core.simulation.report_page import render_page

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "VALIDATION_LIMIT_PCT",
    "ContenderResult",
    "Percentiles",
    "ScenarioFacts",
    "Series",
    "TraceFacts",
    "ValidationRow",
    "VariantFacts",
    "VariantSeries",
    "best_in",
    "headline",
    "load_report",
    "report_document",
    "write_report",
]

FORMAT: Final = "wva-simulation-report"
FORMAT_VERSION: Final = 1

VALIDATION_LIMIT_PCT: Final = 5.0
"""How far the simulated time per output token may be from the closed formula before the ranking is in doubt."""

Percentiles: TypeAlias = tuple[float, float, float]
"""The 50th, 95th and 99th percentile."""

# Contenders whose attainment differs by less than this share of requests are told apart by cost. Own choice: in a trace
# of 20,000 requests it is 200 of them, about what a few seconds of start-up delay decide.
_CLOSE = 0.01
_WORTH_NAMING = 0.01  # of the cost; own choice


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """
    Where the requests came from.

    Attributes:
        name: file or law of arrival.
        kind: `recorded`, `profile`, `realised` or `synthetic`.
        requests: how many arrive.
        span_s: seconds from the first to the last.
        attribution: source, licence and citation, as the licence wants them shown; empty if nobody is owed one.
        scaling_note: how the load was fitted to the fleet, a sentence.
    """

    name: str
    kind: str
    requests: int
    span_s: float
    attribution: str
    scaling_note: str


@dataclass(frozen=True, slots=True)
class VariantFacts:
    """
    One way of serving the model in this scenario.

    Attributes:
        key: `namespace/name`, as in the series.
        model: name of the model.
        accelerator: name of the accelerator.
        gpus_per_replica: accelerators of one replica.
        cost_usd_per_h: price of one replica.
        min: fewest replicas allowed.
        max: most replicas allowed.
        startup: how long a replica takes to serve, in words.
    """

    key: str
    model: str
    accelerator: str
    gpus_per_replica: int
    cost_usd_per_h: float
    min: int
    max: int
    startup: str


@dataclass(frozen=True, slots=True)
class ScenarioFacts:
    """
    What all contenders had in common.

    Attributes:
        name: of the scenario.
        description: one or two sentences; may be empty.
        source: file it was read from.
        trace: the requests.
        seed: of every random draw.
        interval_s: seconds between two samples of the series.
        warmup_s: seconds at the start that are not scored.
        ttft_objective_s: seconds to the first token.
        tpot_objective_s: seconds per output token after the first.
        rule: when a request counts as served in time, a sentence.
        variants: the fleet.
    """

    name: str
    description: str
    source: str
    trace: TraceFacts
    seed: int
    interval_s: float
    warmup_s: float
    ttft_objective_s: float
    tpot_objective_s: float
    rule: str
    variants: tuple[VariantFacts, ...]


@dataclass(frozen=True, slots=True)
class ValidationRow:
    """
    The simulator beside the closed formula, at one batch size.

    Attributes:
        profile: the performance profile, in words.
        batch: requests kept in flight.
        predicted_ms: milliseconds per output token by the formula.
        simulated_ms: milliseconds per output token in the simulator.
        error_pct: how far the second is from the first, percent of the first, signed.
        fit_error_pct: mean error of the profile against its measurements, percent; NaN if its source states none.
    """

    profile: str
    batch: int
    predicted_ms: float
    simulated_ms: float
    error_pct: float
    fit_error_pct: float


@dataclass(frozen=True, slots=True, eq=False)
class VariantSeries:
    """
    Replicas of one variant over the time of its `Series`; each (T,).

    Attributes:
        current: replicas that exist and are paid for.
        ready: replicas that serve.
        desired: replicas asked for by whoever decides last.
    """

    current: FloatArray
    ready: FloatArray
    desired: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """
    What one contender's world looked like, sample by sample; all columns (T,), NaN where nothing is known.

    Attributes:
        time_s: seconds since the start, ascending.
        demand_rps: requests that arrived per second since the sample before.
        queue: requests that wait for a place in a batch.
        attainment: share of the requests judged since the sample before that met both objectives; NaN without any.
        variants: by the key of the variant.
    """

    time_s: FloatArray
    demand_rps: FloatArray
    queue: FloatArray
    attainment: FloatArray
    variants: Mapping[str, VariantSeries]


@dataclass(frozen=True, slots=True, eq=False)
class ContenderResult:
    """
    How one contender did.

    Attributes:
        name: unique in a report.
        kind: what scales: `wva`, `hpa`, `static`, ….
        description: one sentence; may be empty.
        attainment: share of the scored requests that met the rule, 0 to 1.
        cost_usd: of all replicas from scheduling to release.
        gpu_hours: of the same.
        requests_in: requests that arrived; the sum of the next three.
        done: requests answered in full.
        failed: requests dropped.
        in_flight: requests still inside at the end.
        ttft_s: time to first token, seconds.
        tpot_s: time per output token after the first, seconds.
        scale_actions: changes of a desired number.
        reversals_per_hour: changes of direction among them, per hour.
        partial: the run ended before the trace did; such a contender is not ranked.
        notices: what a reader must know to judge the numbers, sentences.
        series: what happened over time.
    """

    name: str
    kind: str
    description: str
    attainment: float
    cost_usd: float
    gpu_hours: float
    requests_in: int
    done: int
    failed: int
    in_flight: int
    ttft_s: Percentiles
    tpot_s: Percentiles
    scale_actions: int
    reversals_per_hour: float
    partial: bool
    notices: tuple[str, ...]
    series: Series


def report_document(
    facts: ScenarioFacts,
    validation: Sequence[ValidationRow],
    results: Sequence[ContenderResult],
    *,
    partial: bool = False,
) -> dict[str, Any]:
    """
    The content of `report.json`: dictionaries, lists, strings, numbers, truth values and None, nothing else.

    Args:
        facts: what the contenders had in common.
        validation: the simulator beside the closed formula.
        results: one per contender, in the order they are shown.
        partial: the simulation was interrupted; implied if a contender is partial.

    Raises:
        ParameterError: two contenders of one name, or a series whose columns differ in length.
    """
    _check(results)
    best = best_in(results)
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "generator": f"wva-core {__version__}",
        "partial": partial or any(result.partial for result in results),
        "headline": headline(results),
        "scenario": _scenario(facts),
        "validation": {
            "limit_pct": VALIDATION_LIMIT_PCT,
            "rows": [
                {
                    "profile": row.profile,
                    "batch": row.batch,
                    "predicted_ms": _number(row.predicted_ms),
                    "simulated_ms": _number(row.simulated_ms),
                    "error_pct": _number(row.error_pct),
                    "fit_error_pct": _number(row.fit_error_pct),
                }
                for row in validation
            ],
        },
        "contenders": [
            _contender(result, best=[key for key, names in best.items() if result.name in names]) for result in results
        ],
    }


def write_report(
    directory: Path,
    facts: ScenarioFacts,
    validation: Sequence[ValidationRow],
    results: Sequence[ContenderResult],
    *,
    partial: bool = False,
) -> tuple[Path, Path]:
    """
    Paths of `report.json` and `report.html` in `directory`, which is made if it is not there.

    Each file appears whole or not at all: it is written under another name and then renamed.

    Raises:
        ParameterError: as for `report_document`.
        EnvironmentFault: the directory or a file cannot be written.
    """
    document = report_document(facts, validation, results, partial=partial)
    json_path, html_path = directory / "report.json", directory / "report.html"
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    _write(json_path, text + "\n")
    _write(html_path, render_page(document))
    return json_path, html_path


def load_report(path: Path) -> dict[str, Any]:
    """
    The document of a `report.json`, as `report_document` made it.

    Raises:
        InputError: the file cannot be read, is no JSON, or is not a report of this version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError(
            f"cannot be read: {exc.strerror}", object=str(path), remedy="give the path of a report.json"
        ) from exc
    except ValueError as exc:
        raise InputError(f"is not JSON: {exc}", object=str(path), remedy="run the simulation again") from exc
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise InputError(
            "is not a report of a simulation",
            object=str(path),
            key="format",
            value=found,
            remedy="give a report.json that `wva simulate` wrote",
        )
    if document.get("version") != FORMAT_VERSION:
        raise InputError(
            f"is not version {FORMAT_VERSION}",
            object=str(path),
            key="version",
            value=document.get("version"),
            remedy="run the simulation again with this release",
        )
    return dict(document)


# What is compared in the table of contenders: its name in the document, the value as it is shown, and whether more is
# better.
_COMPARED: tuple[tuple[str, Callable[[ContenderResult], str], bool], ...] = (
    ("attainment", lambda result: percent(result.attainment), True),
    ("cost_usd", lambda result: fixed(result.cost_usd, 2), False),
    ("gpu_hours", lambda result: fixed(result.gpu_hours, 1), False),
    ("ttft_s.p50", lambda result: significant(result.ttft_s[0]), False),
    ("ttft_s.p95", lambda result: significant(result.ttft_s[1]), False),
    ("ttft_s.p99", lambda result: significant(result.ttft_s[2]), False),
    ("tpot_s.p50", lambda result: significant(result.tpot_s[0]), False),
    ("tpot_s.p95", lambda result: significant(result.tpot_s[1]), False),
    ("tpot_s.p99", lambda result: significant(result.tpot_s[2]), False),
)


def best_in(results: Sequence[ContenderResult]) -> dict[str, frozenset[str]]:
    """
    Who has the best value of each compared quantity: names of contenders by key of the document, such as `ttft_s.p95`.

    Values that are shown alike share the place. Partial contenders and unknown values do not compete. Nobody is best
    where fewer than two compete or all are equal. Scale actions are not among the quantities: a fleet that never scales
    would win by doing nothing.
    """
    best: dict[str, frozenset[str]] = {}
    for key, shown, more_is_better in _COMPARED:
        values = {
            result.name: float(text.replace(",", ""))
            for result in results
            if not result.partial and (text := shown(result)) != UNKNOWN
        }
        if len(set(values.values())) < 2:
            best[key] = frozenset()
            continue
        top = max(values.values()) if more_is_better else min(values.values())
        best[key] = frozenset(name for name, value in values.items() if value == top)
    return best


def headline(results: Sequence[ContenderResult]) -> str:
    """
    Who kept the objectives and at what cost, one or two sentences.

    Contenders within one point of the best attainment count as close, and the cheapest of them is named first if it
    saves a percent or more. Partial contenders, and those whose attainment or cost is not known, are left out.
    """
    ranked = [
        result
        for result in results
        if not result.partial and math.isfinite(result.attainment) and math.isfinite(result.cost_usd)
    ]
    if not ranked:
        return "No contender finished, so there is nothing to rank."
    best = min(ranked, key=lambda result: (-result.attainment, result.cost_usd))
    cheapest = min(ranked, key=lambda result: (result.cost_usd, -result.attainment))
    if len(ranked) == 1:
        return f"{best.name} met the objectives for {_percent(best)} of requests at {_usd(best)}."
    if best is cheapest:
        second = min((result for result in ranked if result is not best), key=lambda result: -result.attainment)
        return (
            f"{best.name} met the objectives for {_percent(best)} of requests at {_usd(best)}, no other contender more "
            f"and none for less. Next is {second.name}: {_percent(second)} at {_usd(second)}."
        )
    close = [
        result
        for result in ranked
        if result is best
        or (result.attainment >= best.attainment - _CLOSE and result.cost_usd <= best.cost_usd * (1 - _WORTH_NAMING))
    ]
    choice = min(close, key=lambda result: (result.cost_usd, -result.attainment))
    if choice is best:
        return (
            f"{best.name} met the objectives for {_percent(best)} of requests at {_usd(best)}. "
            f"{cheapest.name} cost the least, {_usd(cheapest)}, but met them for {_percent(cheapest)}."
        )
    text = (
        f"{choice.name} met the objectives for {_percent(choice)} of requests at {_usd(choice)}, "
        f"{_saving(choice, best)} less than {best.name}, which reached {_percent(best)}."
    )
    if cheapest is not choice:
        text += f" {cheapest.name} cost the least, {_usd(cheapest)}, but met them for {_percent(cheapest)}."
    return text


def _percent(result: ContenderResult) -> str:
    return f"{percent(result.attainment)} %"


def _usd(result: ContenderResult) -> str:
    return f"{fixed(result.cost_usd, 2)} USD"


def _saving(cheaper: ContenderResult, dearer: ContenderResult) -> str:
    return f"{100 * (1 - cheaper.cost_usd / dearer.cost_usd):.0f} %"


def _check(results: Sequence[ContenderResult]) -> None:
    seen: set[str] = set()
    for result in results:
        if result.name in seen:
            raise ParameterError(
                "appears twice", object="contenders", key="name", value=result.name, remedy="give each its own name"
            )
        seen.add(result.name)
        series = result.series
        columns = {"demand_rps": series.demand_rps, "queue": series.queue, "attainment": series.attainment}
        for key, variant in series.variants.items():
            columns |= {f"{key} {name}": getattr(variant, name) for name in ("current", "ready", "desired")}
        for name, column in columns.items():
            if len(column) != len(series.time_s):
                raise ParameterError(
                    f"has {len(column)} samples where time_s has {len(series.time_s)}",
                    object=f"series of {result.name}",
                    key=name,
                    remedy="give one value per sample, NaN where nothing is known",
                )


def _scenario(facts: ScenarioFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "description": facts.description,
        "source": facts.source,
        "trace": {
            "name": facts.trace.name,
            "kind": facts.trace.kind,
            "requests": facts.trace.requests,
            "span_s": _number(facts.trace.span_s),
            "attribution": facts.trace.attribution,
            "scaling_note": facts.trace.scaling_note,
        },
        "seed": facts.seed,
        "interval_s": _number(facts.interval_s),
        "warmup_s": _number(facts.warmup_s),
        "ttft_objective_s": _number(facts.ttft_objective_s),
        "tpot_objective_s": _number(facts.tpot_objective_s),
        "rule": facts.rule,
        "variants": [
            {
                "key": variant.key,
                "model": variant.model,
                "accelerator": variant.accelerator,
                "gpus_per_replica": variant.gpus_per_replica,
                "cost_usd_per_h": _number(variant.cost_usd_per_h),
                "min_replicas": variant.min,
                "max_replicas": variant.max,
                "startup": variant.startup,
            }
            for variant in facts.variants
        ],
    }


def _contender(result: ContenderResult, *, best: list[str]) -> dict[str, Any]:
    series = result.series
    return {
        "name": result.name,
        "kind": result.kind,
        "description": result.description,
        "partial": result.partial,
        "attainment": _number(result.attainment),
        "cost_usd": _number(result.cost_usd),
        "gpu_hours": _number(result.gpu_hours),
        "requests": {
            "in": result.requests_in,
            "done": result.done,
            "failed": result.failed,
            "in_flight": result.in_flight,
        },
        "ttft_s": dict(zip(("p50", "p95", "p99"), map(_number, result.ttft_s), strict=True)),
        "tpot_s": dict(zip(("p50", "p95", "p99"), map(_number, result.tpot_s), strict=True)),
        "scale_actions": result.scale_actions,
        "reversals_per_hour": _number(result.reversals_per_hour),
        "best_in": best,
        "notices": list(result.notices),
        "series": {
            "time_s": _column(series.time_s),
            "demand_rps": _column(series.demand_rps),
            "queue_requests": _column(series.queue),
            "attainment": _column(series.attainment),
            "variants": {
                key: {
                    "current_replicas": _column(variant.current),
                    "ready_replicas": _column(variant.ready),
                    "desired_replicas": _column(variant.desired),
                }
                for key, variant in series.variants.items()
            },
        },
    }


def _number(value: float) -> float | int | None:
    """`value` as JSON writes it: None if not known, an integer if it is one."""
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


def _column(values: FloatArray) -> list[float | int | None]:
    # Six decimals are a microsecond or a request in a million: finer is noise, and a third of the file.
    return [_number(value) for value in np.round(floats(values), 6).tolist()]


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise EnvironmentFault(
            f"cannot be written: {exc.strerror}", object=str(path), remedy="choose another directory with --out"
        ) from exc
