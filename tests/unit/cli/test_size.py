"""
`wva size`: the logged runs of the original controller, the published examples, and what it refuses.
"""

import json
import math
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import birth_death_loop as loop
from wva_core.cli.quantities import minutely_rate, minutely_rates, number, seconds, whole_number
from wva_core.cli.size import _rounded_up
from wva_core.errors import InputError

PAGE = (Path(__file__).parents[3] / "docs/user-guide/sizing.md").read_text(encoding="utf-8")

G0 = {"model": "g0", "alpha": "20.58ms", "beta": "0.41ms", "max-batch": 4, "tokens": 178, "rate": "40/min"}
LOGGED = {**G0, "slo-itl": "24ms", "slo-wait": "500ms", "unit-cost": 40, "current": "A100:1"}
G1 = {
    "model": "g1",
    "alpha": "20.58ms",
    "beta": "0.41ms",
    "gamma": "5.2ms",
    "delta": "0.1ms",
    "max-batch": 4,
    "input-tokens": 128,
    "output-tokens": 128,
    "rate": "30/min",
}
G2 = {
    "model": "g2",
    "alpha": "5ms",
    "beta": "0.2ms",
    "gamma": "0.015ms",
    "max-batch": 16,
    "input-tokens": 100,
    "output-tokens": 200,
    "rate": "60/min",
    "slo-ttft": "2s",
    "slo-itl": "500ms",
    "unit-cost": 100,
}


def arguments(options):
    """`--option value` for each; a list gives an option several times, None leaves it out, True takes no value."""
    found = ["size"]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                found.append(f"--{name}")
            elif one is not None:
                found += [f"--{name}", one]
    return found


@pytest.fixture
def sized(wva):
    """Runs `wva size --output json` with options and returns what it printed."""

    def run(options=(), **changes):
        changed = {name.replace("_", "-"): value for name, value in changes.items()}
        result = wva(*arguments({**dict(options), **changed}), "--output", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return run


@pytest.fixture
def refused(wva):
    """Runs `wva size` with options that it does not take and returns the line on standard error."""

    def run(options=(), **changes):
        changed = {name.replace("_", "-"): value for name, value in changes.items()}
        result = wva(*arguments({**dict(options), **changed}))
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        (line,) = result.stderr.splitlines()
        return line.removeprefix("error: ")

    return run


def test_a7_run_1_needs_a_second_replica(sized):
    told = sized(LOGGED)
    assert (told["replicas"], told["cost"], told["value"]) == (2, 80, 40)
    assert told["service_time_ms"] == pytest.approx(21.49347, rel=1e-6)
    assert told["wait_time_ms"] == pytest.approx(69.7666, rel=1e-5)  # the log is a difference of singles
    assert told["rho"] == pytest.approx(0.71789724, rel=1e-6)
    assert told["max_rate_per_min"] == pytest.approx(25.31145, rel=1e-6)


def test_a7_run_2_gives_a_replica_back(sized):
    told = sized(LOGGED, rate="1.33/min", tokens=0, current="A100:2")
    assert (told["replicas"], told["cost"], told["value"]) == (1, 40, -40)
    assert told["service_time_ms"] == pytest.approx(20.99, rel=1e-9)
    assert (told["wait_time_ms"], told["rho"]) == (0, 0)
    assert told["max_rate_per_min"] == pytest.approx(10801.08, rel=1e-6)


def test_a_log_without_change_has_no_value(sized):
    assert sized(LOGGED, current="A100:2")["value"] == 0


def test_g0_has_only_the_keys_it_knows(sized):
    assert list(sized(LOGGED)) == [
        "rate_per_min",
        "replicas",
        "cost",
        "value",
        "service_time_ms",
        "wait_time_ms",
        "rho",
        "max_rate_per_min",
    ]


def test_a8_g1_at_a_rate(sized):
    told = sized(G1, slo_ttft="500ms", slo_itl="24ms")
    assert told["replicas"] == 1
    assert told["max_rate_per_min"] == pytest.approx(60 * 0.815596, rel=3e-6)
    assert told["itl_ms"] == told["service_time_ms"] == pytest.approx(21.5325, rel=3e-6)
    assert (told["ttft_ms"], told["rho"]) == pytest.approx((104.267, 0.346195), rel=5e-6)
    assert told["throughput_rps"] == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "replicas", "cost", "figures"),
    [
        # TTFT and ITL are those of upstream; its sizing counts a decode step more, which moves no figure here.
        pytest.param({"rate": "30/min"}, 1, 100, (17.26208, 32.25136, 0.1088957), id="B7-1"),
        pytest.param({}, 1, 100, (33.79261, 224.77717, 0.4254672), id="B7-2"),
        pytest.param({"rate": "120/min"}, 2, 200, (33.79261, 224.77717, 0.4254672), id="B7-3"),
        pytest.param({"rate": "360/min"}, 6, 600, (33.79261, 224.77717, 0.4254672), id="B7-4"),
        pytest.param({"max-batch": 12}, 1, 100, (32.67458, 725.72812, 0.5485943), id="B7-5"),
    ],
)
def test_g2_gives_the_published_allocation(sized, changes, replicas, cost, figures):
    told = sized({**G2, **changes})
    assert (told["replicas"], told["cost"]) == (replicas, cost)
    assert (told["itl_ms"], told["ttft_ms"], told["rho"]) == pytest.approx(figures, rel=1e-5)


def test_a_throughput_objective_adds_to_the_load_and_does_not_take_its_place(sized):
    # B7-6 has upstream plan for 2 / 200 requests/s in place of 1; 600 tokens/s are 3 requests/s, for 1.15 a replica.
    few, many = sized(G2, slo_tps=2), sized(G2, slo_tps="600/s")
    assert few["itl_ms"] == sized(G2)["itl_ms"]
    assert many["replicas"] == math.ceil(3 / (many["max_rate_per_min"] / 60)) == 3
    assert many["throughput_rps"] == pytest.approx(1 / 3, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "figures"),
    [
        pytest.param({}, (1, 33.79261, 224.77717, 0.4254672, 69.2175), id="B7-2"),
        pytest.param({"max-batch": 12}, (1, 32.67458, 725.72812, 0.5485943, 64.7398), id="B7-5"),
        pytest.param({"slo-tps": 2}, (1, 11.59235, 26.57735, 0.001465655, 69.2175), id="B7-6"),
    ],
)
def test_compat_has_the_highest_rate_and_the_throughput_of_upstream(sized, changes, figures):
    told = sized({**G2, **changes, "compat": True})
    names = ("replicas", "itl_ms", "ttft_ms", "rho", "max_rate_per_min")
    assert tuple(told[name] for name in names) == pytest.approx(figures, rel=1e-5)


def test_b7_7_what_cannot_be_kept_is_refused(refused):
    assert refused(G2, rate="1200/min", slo_ttft="1ms", slo_itl="0.1ms").startswith(
        "--slo-ttft: cannot be kept, however many replicas there are: "
    )


@pytest.mark.parametrize(
    ("changes", "figures"),
    [
        pytest.param({}, (1, 100, 5.2, 5.2, 71641.8), id="B5-g2-1"),
        pytest.param({"beta": "2ms", "gamma": "0ms", "min-replicas": 2}, (2, 200, 7, 7, 16 / 44 * 60000), id="B5-g2-2"),
        pytest.param(
            {"alpha": "3ms", "beta": "1ms", "gamma": "0ms", "max-batch": 8}, (1, 100, 4, 4, 32000), id="B5-g2-3"
        ),
    ],
)
def test_no_load_has_the_published_figures(sized, changes, figures):
    for none in ({"rate": "0/min"}, {"output-tokens": 0}):
        told = sized({**G2, **changes, **none})
        assert (told["replicas"], told["cost"]) == figures[:2]
        assert (told["itl_ms"], told["ttft_ms"], told["max_rate_per_min"]) == pytest.approx(figures[2:], rel=1e-6)


def test_no_load_may_have_no_replica(sized):
    told = sized(LOGGED, rate="0/min", min_replicas=0, current="A100:2")
    assert (told["replicas"], told["cost"], told["max_rate_per_min"]) == (0, 0, 0)
    assert told["value"] == pytest.approx(0.1 * 80 - 80)  # B.6: from A100 to none


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"current": None}, 1.1 * 80),  # from nothing
        ({"accelerator": "H100", "current": "A100:3:20"}, 0.1 * (60 + 80) + 80 - 60),
        ({"accelerator": "A100", "current": "A100:3:20"}, 80 - 60),
        ({"unit-cost": None}, None),
    ],
    ids=["fresh", "other-accelerator", "other-price", "no-price"],
)
def test_the_value_of_a_transition(sized, changes, value):
    told = sized({**LOGGED, **changes})["value"]
    assert told == (None if value is None else pytest.approx(value))


def test_a_minimum_is_kept(sized):
    assert sized(LOGGED, min_replicas=5)["replicas"] == 5


def test_several_rates_give_a_row_each(sized):
    rows = sized(LOGGED, rate=["0/min", "10/min..50/min..20/min", "1/s"])["rates"]
    assert [row["rate_per_min"] for row in rows] == [0, 10, 30, 50, 60]
    assert [row["replicas"] for row in rows] == [1, 1, 2, 2, 3]  # 25.31145 a replica


def test_the_units_of_a_rate_mean_the_same(sized):
    assert sized(LOGGED, rate="1/s") == sized(LOGGED, rate="60/min") == sized(LOGGED, rate="3600/h")


def test_a_percentile_is_kept_and_shown(sized):
    told = sized(G1, slo_ttft="500ms", percentile=95)
    mean = sized(G1, slo_ttft="500ms")
    assert told["max_rate_per_min"] < mean["max_rate_per_min"]
    full = sized(G1, slo_ttft="500ms", percentile=95, rate=f"{told['max_rate_per_min'] * 0.9999}/min")
    parameters = {"alpha": 0.02058, "beta": 0.00041, "gamma": 0.0052, "delta": 0.0001}
    mu = loop.rates("g1", 4, **parameters, tokens_in=128, tokens_out=128)
    wait = (full["ttft_percentile_ms"] - (full["ttft_ms"] - full["wait_time_ms"])) / 1e3
    assert full["ttft_percentile_ms"] == pytest.approx(500, rel=1e-2)
    assert loop.wait_exceedance(full["rate_per_min"] / 60, mu, 44, wait) == pytest.approx(0.05, rel=1e-5)


def test_the_table_shows_every_figure_whole(wva):
    result = wva(*arguments({**G1, "slo-ttft": "500ms", "percentile": 95, "unit-cost": 123456, "current": "A100:2"}))
    header, row = (re.split(r"\s\s+", line.strip()) for line in result.stdout.splitlines())
    assert header == [
        "rate/min",
        "replicas",
        "cost",
        "value",
        "ITL ms",
        "TTFT ms",
        "tail ms",
        "rho",
        "max/min",
    ]
    assert row[:4] == ["30", "1", "1.2346e+05", "-1.2346e+05"]


def test_the_table_of_g0_shows_the_wait_and_no_value_without_current(wva):
    result = wva(*arguments({**LOGGED, "current": None, "rate": ["0/min", "40/min"]}))
    header, none, row = (line.split("  ") for line in result.stdout.splitlines())
    assert [name.strip() for name in header if name] == [
        *("rate/min", "replicas", "cost", "ITL ms", "wait ms", "rho", "max/min")
    ]
    assert "69.767" in " ".join(row)
    assert "20.99" in " ".join(none)


def test_figures_nobody_gave_a_price_for_are_left_out_of_the_table(wva):
    assert "cost" not in wva(*arguments({**LOGGED, "unit-cost": None})).stdout


@pytest.mark.parametrize(
    ("base", "changes", "line"),
    [
        (LOGGED, {"rate": "40"}, "--rate: has no unit (got '40'); write a number and a unit, such as 40/min, 0.5/s"),
        (LOGGED, {"rate": "40/day"}, "--rate: has the unit /day, which is not known here (got '40/day'); write"),
        (LOGGED, {"rate": "-1/min"}, "--rate: is below 0 (got '-1/min'); write"),
        (LOGGED, {"rate": "fast"}, "--rate: is not a quantity (got 'fast'); write"),
        (LOGGED, {"rate": "1e999/min"}, "--rate: is too large (got '1e999/min'); write"),
        (LOGGED, {"rate": "1/min..2/min"}, "--rate: is not a range of rates (got '1/min..2/min'); write first, last"),
        (LOGGED, {"rate": "2/min..1/min..1/min"}, "--rate: is a range that goes nowhere (got"),
        (LOGGED, {"rate": "1/min..2/min..0/min"}, "--rate: is a range that goes nowhere (got"),
        (LOGGED, {"rate": "0/min..2/s..0.1/min"}, "--rate: has more than 1000 rates (got"),
        (LOGGED, {"alpha": "20.58"}, "--alpha: has no unit (got '20.58'); write a number and a unit, such as 24ms"),
        (LOGGED, {"alpha": "0ms", "beta": "0ms"}, "--alpha: makes serving a request take no time (got '0ms'); give"),
        (LOGGED, {"slo-itl": "0ms"}, "--slo-itl: is not above 0 (got '0ms'); give a positive one, or leave"),
        (LOGGED, {"slo-itl": "-1ms"}, "--slo-itl: is not above 0 (got '-1ms')"),
        (LOGGED, {"slo-itl": "20ms"}, "--slo-itl: cannot be kept, however many replicas there are: a replica with"),
        (LOGGED, {"slo-ttft": "1s"}, "--slo-ttft: is nothing to the latency model g0 (got '1s'); leave it out, or"),
        (LOGGED, {"gamma": "1ms"}, "--gamma: is nothing to the latency model g0 (got '1ms'); leave it out, or use"),
        (LOGGED, {"tokens": None}, "--tokens: is missing, and the latency model g0 needs it; give --tokens"),
        (LOGGED, {"tokens": "many"}, "--tokens: is not a number (got 'many'); give the mean number of tokens"),
        (LOGGED, {"tokens": -5}, "--tokens: is out of range (got '-5'); give the mean number of tokens"),
        (LOGGED, {"max-batch": 0}, "--max-batch: is out of range (got '0'); give a whole number from 1"),
        (LOGGED, {"max-batch": 2.5}, "--max-batch: is not a whole number of this size (got '2.5'); give a whole"),
        (LOGGED, {"min-replicas": -1}, "--min-replicas: is out of range (got '-1'); give a whole number from 0"),
        (LOGGED, {"unit-cost": "free"}, "--unit-cost: is not a number (got 'free'); give the cost of one replica"),
        (LOGGED, {"current": "A100"}, "--current: does not say what runs (got 'A100'); write accelerator and"),
        (LOGGED, {"current": "A100:x"}, "--current: is not a number (got 'x'); give a whole number from 0"),
        (LOGGED, {"accelerator": "H100"}, "--current: does not say what a replica costs on another accelerator"),
        (LOGGED, {"slo-tps": "0/s"}, "--slo-tps: is not above 0 (got '0/s'); give tokens per second above 0"),
        (G1, {"slo-wait": "1s"}, "--slo-wait: is nothing to the latency model g1 (got '1s'); leave it out, or"),
        (G1, {"delta": None}, "--delta: is missing, and the latency model g1 needs it; give --gamma, --delta"),
        (G1, {"output-tokens": 0.5}, "--output-tokens: is less than one token (got '0.5'); give at least 1, or 0"),
        (G1, {"percentile": 95}, "--percentile: is of no objective (got '95'); give --slo-ttft, or leave it out"),
        (G1, {"slo-ttft": "1s", "percentile": 100}, "--percentile: is out of range (got '100'); give a number"),
        (G2, {"delta": "1ms"}, "--delta: is nothing to the latency model g2 (got '1ms'); leave it out, or use"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_remedy(refused, base, changes, line):
    told = refused({**base, **changes})
    assert told.startswith(line)
    assert "; " in told


@pytest.mark.parametrize(
    ("base", "option", "value"),
    [
        (LOGGED, "slo-itl", "1ms"),
        (LOGGED, "slo-wait", "1e-15ms"),
        (G1, "slo-ttft", "1ms"),
        (G1, "slo-itl", "1us"),
        (G2, "slo-ttft", "1ms"),
        ({**G1, "percentile": 99.9, "max-batch": 1}, "slo-ttft", "1ms"),
    ],
)
def test_the_nearest_objective_that_can_be_kept_is_named(refused, sized, base, option, value):
    told = refused({**base, option: value})
    nearest = re.fullmatch(r"--.*\(got .*\); give at least (\S+ms)", told)[1]
    assert sized({**base, option: nearest})["replicas"] > 0


@given(st.floats(1e-6, 1e6))
def test_a_suggestion_is_never_too_small_and_hardly_too_large(milliseconds):
    shown = float(_rounded_up(milliseconds))
    assert milliseconds * (1 - 1e-15) <= shown <= milliseconds * 1.0002


@pytest.mark.parametrize(
    ("text", "expected"),
    [("24ms", 0.024), ("0.5s", 0.5), (".5 s", 0.5), ("410us", 410e-6), ("410µs", 410e-6), ("2e1ms", 0.02), ("0s", 0)],
)
def test_durations(text, expected):
    assert seconds("--x", text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(("text", "expected"), [("40/min", 40), ("0.5/s", 30), ("90/h", 1.5), ("0/min", 0)])
def test_rates(text, expected):
    assert minutely_rate("--x", text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("text", ["", "ms", "1", "1m", "1 h", "1ms2", "0x1ms", "nanms", "infms", "1,5ms", "--1ms"])
def test_what_is_no_duration(text):
    with pytest.raises(InputError, match=r"^--x: "):
        seconds("--x", text)


def test_a_range_of_rates_has_both_ends():
    assert minutely_rates("--x", "0.1/min..0.7/min..0.1/min") == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert minutely_rates("--x", "1/min..2/min..5/min") == [1]


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e400", "1_0", "٣"])
def test_what_is_no_number(text):
    with pytest.raises(InputError):
        number("--x", text, 0, "give one")
    with pytest.raises(InputError):
        whole_number("--x", text, 0)


@pytest.mark.parametrize("shown", re.findall(r"^```console\n\$ (wva .*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
def test_the_page_shows_what_its_commands_print(wva, shown):
    command, _, output = shown.partition("\n")
    assert wva(*shlex.split(command)[1:]).stdout == output


def test_the_page_explains_every_key(sized):
    explained = re.findall(r"^\| `([a-z_]+)` \|", PAGE, re.MULTILINE)
    assert sorted(explained) == sorted({*sized(LOGGED), *sized(G1, slo_ttft="500ms", percentile=95)})


def test_the_page_shows_the_refusal(refused):
    assert f"error: {refused(LOGGED, slo_itl='20ms')}\n" in PAGE
