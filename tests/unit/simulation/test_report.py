"""The report of a simulation: its document, its sentences and its page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wva_core.errors import EnvironmentFault, InputError, ParameterError
from wva_core.simulation.report import (
    FORMAT,
    FORMAT_VERSION,
    ContenderResult,
    ScenarioFacts,
    Series,
    TraceFacts,
    ValidationRow,
    VariantFacts,
    VariantSeries,
    best_in,
    headline,
    load_report,
    report_document,
    write_report,
)
from wva_core.simulation.report_numbers import fixed, percent, significant
from wva_core.simulation.report_page import MAX_POINTS_PER_LINE, _line, _thin, render_page

NAN = math.nan
VARIANT = "default/llama-h100"

FACTS = ScenarioFacts(
    name="An hour of conversations",
    description="Chat traffic on a fleet sized for ten replicas.",
    source="azure-hour.yaml",
    trace=TraceFacts(
        name="azure_2023_conv",
        kind="recorded",
        requests=19366,
        span_s=3480.0,
        attribution="Azure Public Dataset, CC-BY 4.0; Patel et al., Splitwise, ISCA 2024.",
        scaling_note="Two copies, the second shifted by half the span.",
    ),
    seed=7,
    interval_s=15.0,
    warmup_s=300.0,
    ttft_objective_s=1.0,
    tpot_objective_s=0.04,
    rule="A request is in time if its first token comes within 1 s and each further one within 40 ms on average.",
    variants=(VariantFacts(VARIANT, "Llama 3.1 8B", "H100-80GB", 1, 3.9, 1, 14, "about 120 s"),),
)
VALIDATION = (
    ValidationRow("Llama 3.1 8B on H100", 1, 7.84, 7.84, -0.003, NAN),
    ValidationRow("Llama 3.1 8B on H100", 64, 12.41, 12.19, -1.77, 3.4),
)


def series(
    samples: int = 241, *, interval_s: float = 15.0, keys: tuple[str, ...] = (VARIANT,), seed: int = 1
) -> Series:
    """A noisy world: every column changes at almost every sample."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) * interval_s
    attainment = rng.random(samples)
    attainment[rng.random(samples) < 0.05] = NAN
    return Series(
        time_s=time,
        demand_rps=np.random.default_rng(0).poisson(150, samples) / interval_s,  # the same for every contender
        queue=rng.poisson(40, samples).astype(float),
        attainment=attainment,
        variants={key: VariantSeries(*(rng.integers(1, 14, samples).astype(float) for _ in range(3))) for key in keys},
    )


def contender(name: str = "saturation-v1", **changes: object) -> ContenderResult:
    result = ContenderResult(
        name=name,
        kind="wva",
        description="One step a cycle.",
        attainment=0.985,
        cost_usd=41.2,
        gpu_hours=10.5,
        requests_in=100,
        done=97,
        failed=1,
        in_flight=2,
        ttft_s=(0.18, 0.9, 2.5),
        tpot_s=(0.018, 0.029, 0.039),
        scale_actions=12,
        reversals_per_hour=3.0,
        partial=False,
        notices=(),
        series=series(),
    )
    return replace(result, **changes)


def three() -> list[ContenderResult]:
    return [
        contender(),
        contender("HPA on queue length", kind="hpa", attainment=0.912, cost_usd=38.05, ttft_s=(0.2, 3.0, 9.0)),
        contender("static fleet", kind="static", attainment=0.993, cost_usd=66.6, ttft_s=(0.18, 0.4, 0.8)),
    ]


class Page(HTMLParser):
    """What a test asks a page: its tags with their attributes, and its text without scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in {"script", "style"} else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def page(results: list[ContenderResult], facts: ScenarioFacts = FACTS, **options: object) -> str:
    return render_page(report_document(facts, options.pop("validation", VALIDATION), results, **options))


def table_rows(html: str, label: str) -> list[list[str]]:
    """Cells of the body of the table in the box so labelled, as text."""
    body = re.search(rf'aria-label="{label}">.*?<tbody>(.*?)</tbody>', html, re.DOTALL)[1]
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The document


def keys_of(value: object) -> object:
    """The shape of a document: its keys, and the shape of the first element of its lists of objects."""
    if isinstance(value, dict):
        return {key: keys_of(inner) for key, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [keys_of(value[0])]
    return None


def test_document_has_the_documented_keys():
    percentiles = dict.fromkeys(("p50", "p95", "p99"))
    assert keys_of(report_document(FACTS, VALIDATION, three())) == {
        **dict.fromkeys(("format", "version", "generator", "partial", "headline")),
        "scenario": {
            **dict.fromkeys(("name", "description", "source", "seed", "interval_s", "warmup_s")),
            **dict.fromkeys(("ttft_objective_s", "tpot_objective_s", "rule")),
            "trace": dict.fromkeys(("name", "kind", "requests", "span_s", "attribution", "scaling_note")),
            "variants": [
                dict.fromkeys(
                    (
                        *("key", "model", "accelerator", "gpus_per_replica"),
                        *("cost_usd_per_h", "min_replicas", "max_replicas", "startup"),
                    )
                )
            ],
        },
        "validation": {
            "limit_pct": None,
            "rows": [dict.fromkeys(("profile", "batch", "predicted_ms", "simulated_ms", "error_pct", "fit_error_pct"))],
        },
        "contenders": [
            {
                **dict.fromkeys(("name", "kind", "description", "partial", "attainment", "cost_usd", "gpu_hours")),
                "requests": dict.fromkeys(("in", "done", "failed", "in_flight")),
                "ttft_s": percentiles,
                "tpot_s": percentiles,
                **dict.fromkeys(("scale_actions", "reversals_per_hour", "best_in", "notices")),
                "series": {
                    **dict.fromkeys(("time_s", "demand_rps", "queue_requests", "attainment")),
                    "variants": {VARIANT: dict.fromkeys(("current_replicas", "ready_replicas", "desired_replicas"))},
                },
            }
        ],
    }


def test_document_holds_every_sample():
    result = contender(series=series(samples=5000))
    stored = report_document(FACTS, (), [result])["contenders"][0]["series"]
    np.testing.assert_allclose(stored["time_s"], result.series.time_s)
    np.testing.assert_allclose(stored["demand_rps"], result.series.demand_rps, atol=5e-7)
    assert stored["variants"][VARIANT]["ready_replicas"] == result.series.variants[VARIANT].ready.tolist()


def test_unknown_and_infinite_numbers_become_null():
    unknown = contender(attainment=NAN, ttft_s=(0.1, math.inf, NAN), series=series(samples=3))
    unknown.series.attainment[:] = [NAN, 0.0, 0.5]
    document = report_document(FACTS, VALIDATION, [unknown])
    stored = document["contenders"][0]
    assert stored["attainment"] is None
    assert stored["ttft_s"] == {"p50": 0.1, "p95": None, "p99": None}
    assert stored["series"]["attainment"] == [None, 0, 0.5]
    assert document["validation"]["rows"][0]["fit_error_pct"] is None
    json.dumps(document, allow_nan=False)  # raises if one was overlooked


def test_document_is_partial_if_a_contender_is():
    assert report_document(FACTS, (), three())["partial"] is False
    assert report_document(FACTS, (), three(), partial=True)["partial"] is True
    assert report_document(FACTS, (), [contender(partial=True)])["partial"] is True


def test_two_contenders_of_one_name_are_refused():
    with pytest.raises(ParameterError) as refused:
        report_document(FACTS, (), [contender(), contender()])
    assert str(refused.value) == ("contenders: name: appears twice (got 'saturation-v1'); give each its own name")


def test_a_column_of_another_length_is_refused():
    short = replace(series(), queue=np.zeros(3))
    with pytest.raises(ParameterError) as refused:
        report_document(FACTS, (), [contender(series=short)])
    assert str(refused.value) == (
        "series of saturation-v1: queue: has 3 samples where time_s has 241; "
        "give one value per sample, NaN where nothing is known"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Files


def test_written_report_loads_as_the_same_document_and_draws_the_same_page(tmp_path: Path):
    json_path, html_path = write_report(tmp_path / "new" / "out", FACTS, VALIDATION, three())
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["report.html", "report.json"]
    document = load_report(json_path)
    assert document == report_document(FACTS, VALIDATION, three())
    assert (document["format"], document["version"]) == (FORMAT, FORMAT_VERSION)
    assert html_path.read_text(encoding="utf-8") == render_page(document)


def test_a_directory_that_is_a_file_is_named(tmp_path: Path):
    (tmp_path / "out").write_text("here already")
    with pytest.raises(EnvironmentFault) as fault:
        write_report(tmp_path / "out", FACTS, VALIDATION, three())
    assert str(fault.value) == (
        f"{tmp_path}/out/report.json: cannot be written: File exists; choose another directory with --out"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "format: is not a report of a simulation (got None); give a report.json that `wva simulate` wrote"),
        (
            json.dumps({"format": FORMAT, "version": 99}),
            "version: is not version 1 (got 99); run the simulation again with this release",
        ),
        ("", "is not JSON: Expecting value: line 1 column 1 (char 0); run the simulation again"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str, message: str):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(InputError) as refused:
        load_report(path)
    assert str(refused.value) == f"{path}: {message}"


def test_a_missing_report_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        load_report(tmp_path / "report.json")


# ---------------------------------------------------------------------------------------------------------------------
# Sentences and comparison


def test_headline_names_the_cheapest_of_those_close_to_the_best():
    # 98.50 % is within a point of 99.30 %; 41.20 is 38.1 % less than 66.60. The cheapest of all is farther off.
    assert headline(three()) == (
        "saturation-v1 met the objectives for 98.50 % of requests at 41.20 USD, 38 % less than static fleet, "
        "which reached 99.30 %. HPA on queue length cost the least, 38.05 USD, but met them for 91.20 %."
    )


def test_headline_names_the_best_if_nobody_is_close():
    results = [contender("a", attainment=0.97, cost_usd=50.0), contender("b", attainment=0.99, cost_usd=1234.5)]
    assert headline(results) == (
        "b met the objectives for 99.00 % of requests at 1,234.50 USD. a cost the least, 50.00 USD, "
        "but met them for 97.00 %."
    )


def test_headline_says_when_one_is_best_and_cheapest():
    results = [contender("a", attainment=0.97, cost_usd=50.0), contender("b", attainment=0.99, cost_usd=40.0)]
    assert headline(results) == (
        "b met the objectives for 99.00 % of requests at 40.00 USD, no other contender more and none for less. "
        "Next is a: 97.00 % at 50.00 USD."
    )


def test_a_saving_of_less_than_a_percent_does_not_lead():
    results = [contender("a", attainment=0.985, cost_usd=49.8), contender("b", attainment=0.99, cost_usd=50.0)]
    assert headline(results).startswith("b met the objectives for 99.00 % of requests at 50.00 USD.")


def test_partial_contenders_are_not_ranked():
    cheap = contender("stopped", attainment=1.0, cost_usd=1.0, partial=True)
    assert headline([contender(), cheap]) == "saturation-v1 met the objectives for 98.50 % of requests at 41.20 USD."
    assert headline([cheap]) == "No contender finished, so there is nothing to rank."
    assert "stopped" not in frozenset().union(*best_in([*three(), cheap]).values())


def test_best_values_are_those_shown_as_best():
    best = best_in(three())
    assert best["attainment"] == {"static fleet"}
    assert best["cost_usd"] == {"HPA on queue length"}
    assert best["ttft_s.p50"] == {"saturation-v1", "static fleet"}  # 0.18 both
    assert best["ttft_s.p99"] == {"static fleet"}
    assert best["gpu_hours"] == best["tpot_s.p50"] == frozenset()  # all equal: nobody is better


def test_best_ignores_what_is_not_known():
    assert best_in([contender("a", cost_usd=NAN), contender("b")])["cost_usd"] == frozenset()


@pytest.mark.parametrize(
    ("share", "text"),
    # 0.57 * 1e4 is 5699.999… in binary; one miss in 20,000 is 99.995 % and must not read 100.
    [(1.0, "100.00"), (0.99995, "99.99"), (0.57, "57.00"), (0.0, "0.00"), (NAN, "–"), (None, "–")],
)
def test_percent_is_cut(share: float | None, text: str):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (0.9996, "1.00"), (18.04, "18.0"), (104.2, "104"), (1234.0, "1,230"), (NAN, "–")],
)
def test_significant_has_three_digits_and_no_exponent(value: float, text: str):
    assert significant(value) == text


def test_fixed_separates_thousands():
    assert [fixed(1234.5, 2), fixed(math.inf, 1), fixed(None, 1)] == ["1,234.50", "–", "–"]


# ---------------------------------------------------------------------------------------------------------------------
# The page


def test_page_loads_nothing():
    html = page(three())
    parsed = Page(html)
    assert "default-src 'none'" in next(
        attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    for _, attrs in parsed.tags:
        for name in ("src", "href", "srcset", "xlink:href", "poster", "action", "data"):
            assert name not in attrs or attrs[name].startswith(("data:", "#"))
    assert not re.search(r"https?://|@import|url\((?!#)|\bfetch\b|XMLHttpRequest|import\(|WebSocket|sendBeacon", html)
    assert {tag for tag, _ in parsed.tags} & {"iframe", "object", "embed", "img", "base", "form"} == set()


def test_every_text_is_escaped():
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"
    variant = replace(FACTS.variants[0], key=evil, model=evil, accelerator=evil, startup=evil)
    trace = replace(FACTS.trace, name=evil, kind=evil, attribution=evil, scaling_note=evil)
    facts = replace(
        FACTS, name=evil, description=evil, source=evil, rule=evil, trace=trace, variants=(variant, FACTS.variants[0])
    )
    result = contender(evil, kind=evil, description=evil, notices=(evil,), partial=True, series=series(keys=(evil,)))
    other = contender("other", attainment=0.2)
    html = page([result, other], facts, validation=[ValidationRow(evil, 1, 1.0, 1.0, 0.0, 0.0)])
    parsed, plain = Page(html), Page(page(three()))
    count = lambda parsed, tag: sum(found == tag for found, _ in parsed.tags)  # noqa: E731  # short and local
    assert count(parsed, "script") == count(plain, "script") == 2
    assert count(parsed, "img") == 0
    assert parsed.text.count(evil) >= 10  # shown to the reader as it was written
    embedded = json.loads(parsed.scripts[0])
    assert embedded["contenders"][0]["name"] == evil
    assert "<" not in parsed.scripts[0]


def test_a_name_in_the_headline_is_marked_with_its_colour():
    html = page(three())
    line = re.search(r'<p class="headline">(.*?)</p>', html)[1]
    assert re.sub(r"<[^>]+>", "", line) == headline(three())
    assert re.findall(r'<b class="name (c\d)">', line) == ["c0", "c2", "c1"]


def test_partial_run_carries_a_banner():
    results = [*three()[:2], replace(three()[2], partial=True)]
    assert "Partial. The simulation was interrupted. static fleet was stopped before the end and is not ranked." in (
        Page(page(results)).text
    )
    assert "Contenders that had not begun are missing." in Page(page(three()[:1], partial=True)).text
    assert 'class="banner" role="note"' not in page(three())


def test_validation_comes_before_the_ranking():
    html = page(three())
    assert html.index('id="validation"') < html.index('id="ranking"') < html.index('id="time"')
    assert table_rows(html, "Simulator beside the closed formula") == [
        ["Llama 3.1 8B on H100"],
        ["1", "7.84", "7.84", "+0.00", "– not known"],
        ["64", "12.41", "12.19", "−1.77", "3.4"],
    ]
    assert "Check passed. In a closed loop the simulator is within 1.77 %" in Page(html).text


@pytest.mark.parametrize(
    ("errors_pct", "sentence"),
    [
        ((), "Not checked. The simulator was not compared with the closed formula"),
        (
            (-5.1,),
            "Check failed. The simulator departs from the closed formula by up to 5.10 %, more than the 5 % allowed.",
        ),
        (
            (1.0, NAN),
            "Check failed. How far the simulator departs from the closed formula is not known in 1 of 2 cases.",
        ),
    ],
)
def test_a_failed_or_missing_check_is_said(errors_pct: tuple[float, ...], sentence: str):
    rows = [replace(VALIDATION[0], error_pct=error) for error in errors_pct]
    assert sentence in Page(page(three(), validation=rows)).text


def test_ranking_table_shows_every_contender_with_the_best_marked_in_words():
    rows = table_rows(page(three()), "Contenders compared")
    assert rows[0] == [
        "saturation-v1",
        *("98.50", "41.20", "10.5"),
        *("0.180★ best", "0.900", "2.50"),
        *("18.0", "29.0", "39.0"),
        *("12", "3.0"),
    ]
    assert [row[1:3] for row in rows[1:]] == [["91.20", "38.05★ best"], ["99.30★ best", "66.60"]]


def test_unknown_results_are_said_to_be_unknown():
    unknown = contender("b", attainment=NAN, cost_usd=NAN, ttft_s=(NAN, NAN, NAN), reversals_per_hour=NAN)
    row = table_rows(page([contender(), unknown]), "Contenders compared")[1]
    assert row[1] == row[2] == row[4] == row[-1] == "– not known"


def test_requests_are_accounted_for():
    rows = table_rows(page([contender(requests_in=19366)]), "Requests by outcome")
    assert rows == [["saturation-v1", "19,366", "97", "1", "2"]]


def test_page_states_rule_attribution_and_scaling():
    text = Page(page(three())).text
    for sentence in (FACTS.rule, FACTS.trace.attribution, FACTS.trace.scaling_note, FACTS.source):
        assert sentence in text
    assert "19,366 requests in 58 min (recorded)" in text
    assert "first token within 1 s, then 40 ms per token" in text
    assert "The grey band is the warm-up of 5 min, which is not scored." in text


def test_many_notices_are_folded_away_and_none_is_lost_unsaid():
    html = page([contender(notices=tuple(f"Notice {number}." for number in range(120)))])
    opened, folded = html.split("<details", 1)
    assert re.findall(r"<li>(.*?)</li>", opened) == [f"Notice {number}." for number in range(5)]
    assert "<summary>115 further notices</summary>" in folded
    assert re.findall(r"<li>(.*?)</li>", folded)[-2:] == ["Notice 99.", "20 more in report.json"]
    assert "<details" not in page([contender(notices=("One.",))])


def test_page_can_be_read_by_machines_that_read_aloud():
    html = page(three())
    parsed = Page(html)
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("h1") == 1
    assert tags.count("table") == tags.count("caption") == 4
    assert dict(parsed.tags)["html"] == {"lang": "en"}
    for tag, attrs in parsed.tags:
        if tag == "th":
            assert "scope" in attrs
        if attrs.get("class") in {"scroll", "chart"}:
            assert attrs["tabindex"] == "0"
            assert attrs["aria-label"]
    ids = {attrs["id"] for _, attrs in parsed.tags if "id" in attrs}
    assert {attrs["aria-labelledby"] for _, attrs in parsed.tags if "aria-labelledby" in attrs} <= ids


def test_a_run_without_contenders_has_a_page():
    assert "No contender finished, so there is nothing to rank." in Page(page([], partial=True)).text


def test_a_contender_without_samples_has_a_page():
    nothing = np.array([])
    empty = Series(nothing, nothing, nothing, nothing, {VARIANT: VariantSeries(nothing, nothing, nothing)})
    payload = json.loads(Page(page([contender(series=empty, partial=True)])).scripts[0])
    assert payload["span"] == [0, 0]
    assert payload["lines"] == [{"t": [], "v": []}]


@pytest.mark.parametrize(
    ("samples", "interval_s", "variants"),
    [(241, 15.0, 1), (5761, 15.0, 1), (5761, 15.0, 8)],
    ids=["hour", "day", "day-of-eight-variants"],
)
def test_page_of_four_contenders_stays_below_a_megabyte(samples: int, interval_s: float, variants: int):
    keys = tuple(f"default/variant-{number}" for number in range(variants))
    results = [
        contender(f"contender {number}", series=series(samples, interval_s=interval_s, keys=keys, seed=number))
        for number in range(4)
    ]
    assert len(page(results).encode()) < 1_000_000


# ---------------------------------------------------------------------------------------------------------------------
# Series of the page


def drawn(line: dict[str, list[float]]) -> tuple[list[float], list[float | None]]:
    """Times in seconds and values, as the script in the page reads a line."""
    return (np.cumsum(line["t"]) / 10).tolist(), line["v"]


def test_demand_that_all_share_is_stored_once():
    results = [contender(name, series=series(seed=seed)) for seed, name in enumerate("abc")]
    payload = json.loads(Page(page(results)).scripts[0])
    assert len({drawn["demand"] for drawn in payload["contenders"]}) == 1
    assert len({drawn["queue"] for drawn in payload["contenders"]}) == 3


def test_line_reads_back_as_steps():
    # 1 1 1 2 – – 2: the inner 1 and nothing else can go.
    values = np.array([1, 1, 1, 2, NAN, NAN, 2])
    times, stored = drawn(_line(np.arange(7) * 15.0, values, limit=100))
    assert times == [0, 30, 45, 60, 75, 90]
    assert stored == [1, 1, 2, None, None, 2]


finite_or_unknown = st.one_of(st.just(NAN), st.integers(0, 5).map(float), st.floats(0, 1e6))


@given(arrays(float, st.integers(0, 400), elements=finite_or_unknown), st.integers(10, 60))
def test_thinning_keeps_ends_extremes_and_gaps_within_the_limit(values: np.ndarray, limit: int):
    kept = _thin(values, limit)
    assert len(kept) <= limit
    assert np.all(np.diff(kept) > 0)
    if len(values):
        assert kept[0] == 0
        assert kept[-1] == len(values) - 1
    known = values[~np.isnan(values)]
    if len(known):
        assert np.nanmax(values[kept]) == known.max()
        assert np.nanmin(values[kept]) == known.min()
    assert np.isnan(values[kept]).any() == np.isnan(values).any()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=20))
def test_thinning_of_few_steps_loses_nothing(runs: list[tuple[int, int]]):
    values = np.array([value for value, length in runs for _ in range(length)], dtype=float)
    kept = _thin(values, MAX_POINTS_PER_LINE)
    # A sample holds until the next kept one.
    last = kept[np.searchsorted(kept, np.arange(len(values)), side="right") - 1]
    np.testing.assert_array_equal(values[last], values)
