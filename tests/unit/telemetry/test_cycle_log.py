"""The engine's log: what is said, at which level, and that it is said once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import structlog
from structlog.testing import LogCapture

from tests.unit.telemetry.made_results import POLICY, failure, result
from wva_core.domain import Assessment, Notice, Reason
from wva_core.engine.loop import PolicyRefused
from wva_core.errors import PolicyError, WvaError
from wva_core.hooks import ActuationReport
from wva_core.telemetry.cycle_log import CycleLog
from wva_core.telemetry.names import Event
from wva_core.testing.builders import vote

MACHINE = {Event.ANALYZER_RESULT, Event.SCALING_DECISION}


class Told:
    """A log and what it has been told to write."""

    def __init__(self, level=20):
        self.capture = LogCapture()
        logger = structlog.wrap_logger(
            None, processors=[self.capture], wrapper_class=structlog.make_filtering_bound_logger(level)
        )
        self.log = CycleLog(logger)

    def __call__(self, *results, machine=False):
        """Lines that come of these results; without the machine-readable ones, unless asked for."""
        self.capture.entries.clear()
        for each in results:
            self.log(each)
        return [line for line in self.capture.entries if machine or line["event"] not in MACHINE]


@pytest.fixture
def told():
    return Told()


def events(lines):
    return [line["event"] for line in lines]


# ---- decisions


def test_a_changed_decision_is_told_for_each_variant_with_its_reason(told):
    variants = [
        {"name": "up", "current": 2, "target": 2},
        {"name": "still", "current": 3, "target": 3},
        {"name": "down", "current": 4, "target": 5, "model": "other"},
    ]
    lines = told(result(variants, {"up": 3, "down": 4}, reason=Reason.BOUND_RATE))
    assert [(line["variant"], line["current"], line["before"], line["desired"]) for line in lines] == [
        ("ns/down", 4, 5, 4),
        ("ns/up", 2, 2, 3),
    ]
    assert {(line["event"], line["log_level"], line["code"], line["reason"]) for line in lines} == {
        ("decision_changed", "info", "bound_rate", "a rate policy decides")
    }
    assert lines[0] | {"cycle": 7, "time": 1_000.0, "model": "other"} == lines[0]


def test_the_first_decision_is_a_change_if_it_is_not_what_is_there(told):
    assert events(told(result([{"name": "v", "current": 2}], {"v": 3}))) == ["decision_changed"]
    assert told(result([{"name": "v", "current": 2}], {"v": 2})) == []
    line = told(result([{"name": "v", "current": math.nan}], {"v": 3}))[0]
    assert (line["current"], line["before"], line["desired"]) == (None, None, 3)


def test_a_target_that_is_not_known_is_no_change(told):
    assert told(result([{"name": "v", "current": 2, "target": 3}], {"v": math.nan})) == []


def test_a_target_that_is_not_reached_yet_is_not_told_again(told):
    assert told(*[result([{"name": "v", "current": 2, "target": 5}], {"v": 5})] * 3, machine=True) == []


# ---- machine-readable lines


def test_models_with_a_change_get_the_two_lines_of_upstream_at_info(told):
    variants = [
        {"name": "cheap", "model": "m", "current": 2, "target": 2, "role": "decode"},
        {"name": "dear", "model": "m", "current": 1, "target": 1, "role": "prefill"},
        {"name": "quiet", "model": "n", "current": 1, "target": 1},
    ]

    def judged(seen):
        # scopes sort as (m, decode), (m, prefill), (n)
        return vote(
            seen,
            analyzer="saturation",
            capacity={"cheap": 10.0, "quiet": 5.0},
            demand=[18.0, 2.0, 1.0],
            supply=[20.0, 5.0, 5.0],
            required=[2.5, 0.0, 0.0],
            spare=[0.0, 1.0, 0.0],
        )

    def answer(seen):
        return Assessment.of(
            seen.fleet,
            unit="requests",
            capacity=[10.0, math.nan, 5.0],
            capacity_reason=[1, 0, 0],
            reasons=("", "learned from {days} days"),
        )

    lines = told(result(variants, {"cheap": 4}, votes=[judged], assessments={"saturation": answer}), machine=True)
    assert {line["log_level"] for line in lines} == {"info"}
    assert events(lines) == ["analyzer-result", "scaling-decision", "decision_changed"]
    named = {"cycle": 7, "time": 1_000.0, "log_level": "info", "modelID": "m", "namespace": "ns"}
    assert lines[0] == named | {
        "event": "analyzer-result",
        "analyzer": "saturation",
        "supply": 25,
        "demand": 20,
        "util": 0.8,  # 20 of 25
        "rc": 2.5,
        "sc": 1,
        "scaleUpThreshold": None,
        "scaleDownBoundary": None,
        "variants": [
            {"name": "cheap", "prc": 10, "role": "decode", "reason": "learned from {days} days"},
            {"name": "dear", "prc": None, "role": "prefill", "reason": "no-data"},
        ],
    }
    assert lines[1] == named | {
        "event": "scaling-decision",
        "decisions": [
            {"name": "cheap", "curr": 2, "tgt": 4, "action": "scale-up"},
            {"name": "dear", "curr": 1, "tgt": 1, "action": "no-change"},
        ],
    }


def test_models_without_a_change_get_them_at_debug_only():
    told = Told(level=10)
    variants = [{"name": "a", "model": "m", "current": 2, "target": 2}, {"name": "b", "model": "n", "target": 1}]
    lines = told(result(variants, {"b": 2}), machine=True)
    levels = {(line["event"], line["modelID"]): line["log_level"] for line in lines if "modelID" in line}
    assert levels == {
        ("analyzer-result", "m"): "debug",
        ("scaling-decision", "m"): "debug",
        ("analyzer-result", "n"): "info",
        ("scaling-decision", "n"): "info",
    }


def test_an_analyzer_that_failed_is_an_error_in_its_line(told):
    def nothing(seen):
        return vote(seen, analyzer="latency", capacity={})

    lines = told(result([{"name": "v", "current": 1}], {"v": 2}, votes=[nothing]), machine=True)
    assert lines[0]["variants"] == [{"name": "v", "prc": None, "role": "both", "reason": "error"}]
    assert lines[0]["demand"] is lines[0]["supply"] is lines[0]["util"] is None


def test_a_decision_down_is_called_so(told):
    lines = told(result([{"name": "v", "current": 3}], {"v": 1}), machine=True)
    assert lines[1]["decisions"] == [{"name": "v", "curr": 3, "tgt": 1, "action": "scale-down"}]


# ---- cycles


def test_a_quiet_cycle_is_one_line_at_debug():
    told = Told(level=10)
    variants = [{"name": name, "current": 1, "target": 1} for name in "abc"]
    (line,) = told(result(variants, reports={"actuator gauge": ActuationReport(3)}))
    assert line == {
        "event": "cycle_finished",
        "log_level": "debug",
        "cycle": 7,
        "time": 1_000.0,
        "mode": "act",
        "status": "feasible",
        "degraded": False,
        "models": 1,
        "variants": 3,
        "changed": 0,
        "stalled": 0,
        "failed": [],
        "written": 3,
    }


def test_a_quiet_cycle_says_nothing_at_info(told):
    assert told(result(), machine=True) == []


# ---- policy


def test_a_new_policy_is_told_with_what_it_is_made_of(told):
    (line,) = told(result(policy_changed=True))
    assert line == {
        "event": "policy_changed",
        "log_level": "info",
        "cycle": 7,
        "time": 1_000.0,
        "mode": "act",
        "interval": 15.0,
        "analyzers": ["latency"],
        "optimizer": "cost-aware",
    }
    assert told(result(policy=POLICY)) == []


def test_a_refused_policy_is_told_once_until_it_is_another_or_one_is_accepted(told):
    wrong = PolicyError("is not a share", object="policy.yaml", key="a.b", value=2, remedy="give 0 to 1")
    other = PolicyError("is missing", object="policy.yaml")
    lines = told(PolicyRefused(wrong), PolicyRefused(wrong), result(), PolicyRefused(wrong))
    assert lines == [
        {
            "event": "policy_refused",
            "log_level": "error",
            "error": "policy.yaml: a.b: is not a share (got 2); give 0 to 1",
            "object": "policy.yaml",
            "key": "a.b",
            "remedy": "give 0 to 1",
        }
    ]
    assert events(told(PolicyRefused(other))) == ["policy_refused"]
    assert events(told(result(policy_changed=True), PolicyRefused(other))) == ["policy_changed", "policy_refused"]


# ---- plugins


def test_a_failing_plugin_is_told_once_and_once_more_when_it_is_back(told):
    bad = result(failures={"analyzer latency": failure()})
    lines = told(bad, bad, bad)
    assert events(lines) == ["plugin_failed"]
    assert (
        lines[0]
        | {
            "log_level": "warning",
            "kind": "analyzer",
            "plugin": "latency",
            "problem": "late",
            "error": "analyzer latency: assess: did not answer within 7.5 s; make it faster",
            "exc_info": None,
        }
        == lines[0]
    )
    back = told(result(seconds={"analyzer latency": 0.1}), result(seconds={"analyzer latency": 0.1}))
    assert [(line["event"], line["log_level"], line["plugin"]) for line in back] == [
        ("plugin_recovered", "info", "latency")
    ]
    assert events(told(bad)) == ["plugin_failed"]


def test_late_quarantined_and_late_again_are_one_failure(told):
    late = result(failures={"analyzer latency": failure()})
    quarantined = result(failures={"analyzer latency": failure("is quarantined: its call has still not come back")})
    assert events(told(late, quarantined, quarantined, late)) == ["plugin_failed"]


def test_another_kind_of_failure_is_told(told):
    raised = failure("raised ZeroDivisionError", cause=ZeroDivisionError())
    lines = told(result(failures={"analyzer latency": failure()}), result(failures={"analyzer latency": raised}))
    assert [line["problem"] for line in lines] == ["late", "raised"]


def test_what_a_plugin_raised_is_told_with_its_traceback_unless_it_was_meant(told):
    accident, purpose = ZeroDivisionError(), WvaError("is down")
    lines = told(
        result(
            failures={
                "collector a": failure("raised ZeroDivisionError", cause=accident),
                "collector b": failure("raised is down", cause=purpose),
            }
        )
    )
    assert [line["exc_info"] for line in lines] == [accident, None]


@pytest.mark.parametrize("label", ["analyzer latency", "optimizer mine", "actuator direct", "subscriber tell"])
def test_what_left_service_does_not_recover(told, label):
    assert events(told(result(failures={label: failure()}), result())) == ["plugin_failed"]


@pytest.mark.parametrize(
    ("label", "evidence"),
    [
        ("collector prometheus", {}),
        ("optimizer mine", {"seconds": {"optimizer mine": 0.1}}),
        ("actuator direct", {"reports": {"actuator direct": ActuationReport()}}),
    ],
)
def test_what_had_its_say_recovers(told, label, evidence):
    lines = told(result(failures={label: failure()}), result(**evidence))
    assert events(lines) == ["plugin_failed", "plugin_recovered"]


def test_a_variant_that_cannot_be_written_is_told_once(told):
    bad = [result(reports={"actuator direct": ActuationReport(0, {"ns/v": f"conflict {n}"})}) for n in range(3)]
    good = result(reports={"actuator direct": ActuationReport(1)})
    lines = told(*bad, good, good)
    assert [(line["event"], line["plugin"], line["variant"]) for line in lines] == [
        ("write_failed", "direct", "ns/v"),
        ("write_recovered", "direct", "ns/v"),
    ]
    assert lines[0]["error"] == "conflict 0"


def test_overrides_that_clash_are_told_once(told):
    clash = result(notices=[Notice("overrides_clash", "latency", "overrides[2]: too much")])
    lines = told(clash, clash, result())
    assert [(line["event"], line["log_level"]) for line in lines if line["event"] == "overrides_clash"] == [
        ("overrides_clash", "warning")
    ]


def test_a_silent_analyzer_is_told_once_and_once_more_when_it_is_heard(told):
    texts = ["analyzer latency has not judged ns/m for over 45 s", "analyzer latency has not judged ns/m and 1 more"]
    silent = [
        result(notices=[Notice("analyzer_silent", "latency", text)], seconds={"analyzer latency": 0.1})
        for text in (texts[0], texts[0], texts[1])
    ]
    heard = result(seconds={"analyzer latency": 0.1})
    lines = told(*silent, heard, heard)
    assert [(line["event"], line["log_level"], line.get("text")) for line in lines] == [
        ("analyzer_silent", "warning", texts[0]),
        ("analyzer_silent", "warning", texts[1]),
        ("analyzer_heard", "info", None),
    ]


# ---- stalls


def test_a_stall_is_told_when_it_begins_and_when_it_ends(told):
    variants = [{"name": name, "current": 1, "target": 3} for name in "abc"]
    one, two, none = (result(variants, stalled=which) for which in ("b", "bc", ""))
    lines = told(one, one, two, none, none)
    assert [(line["event"], line["log_level"], line["variant"]) for line in lines] == [
        ("variant_stalled", "warning", "ns/b"),
        ("variant_stalled", "warning", "ns/c"),
        ("variant_unstalled", "info", "ns/b"),
        ("variant_unstalled", "info", "ns/c"),
    ]
    assert (lines[0]["current"], lines[0]["desired"]) == (1, 3)
    assert "settleSeconds" in lines[0]["text"]


def test_a_stall_lasts_while_other_variants_come_and_go(told):
    stalled = {"name": "b", "current": 1, "target": 3}
    others = [{"name": "a", "current": 1, "target": 1}, stalled]
    assert events(told(result([stalled], stalled="b"), result(others, stalled="b"))) == ["variant_stalled"]


def test_a_stalled_variant_that_is_gone_has_not_recovered(told):
    lines = told(result([{"name": "b", "target": 1}], stalled="b"), result([{"name": "a", "target": 1}]))
    assert events(lines) == ["variant_stalled"]


def test_ten_thousand_variants_without_a_change_say_nothing(told):
    rows = [{"name": f"v{row:05d}", "model": f"m{row // 4}", "current": 2, "target": 2} for row in range(10_000)]
    quiet = result(rows)
    assert told(quiet, quiet, machine=True) == []
    assert not np.any(quiet.plan.stalled)
