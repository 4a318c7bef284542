"""The parts put together: what a contender's run tells besides its numbers, and the facts of a report."""

from __future__ import annotations

import copy

import pytest
import structlog
import yaml

from tests.unit.ladder import LADDER
from wva_core import app
from wva_core.errors import PolicyError, UnknownPluginError
from wva_core.simulation.scenario import read_scenario


@pytest.fixture
def ladder(tmp_path):
    """A scenario whose replicas are always saturated, with some of its top-level keys changed."""

    def make(*, variant=None, wva=None, **top):
        document = {**copy.deepcopy(LADDER), **top}
        document["models"][0]["variants"][0] |= variant or {}
        document["contenders"][0]["wva"] |= wva or {}
        path = tmp_path / "ladder.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return read_scenario(path)

    return make


def ran(scenario, records=None):
    return app.run_contender(scenario, scenario.contenders[0], records=records)


def test_maximum_in_the_way_of_growth_is_told(ladder):
    result = ran(ladder())
    # 1 at 0 s, 2 at once, ready at 30 s, 3 then, ready at 60 s: from there to 600 s it is at its maximum
    assert result.series.variants["default/a"].desired.max() == 3
    assert result.notices == ("default/a was at its maximum and was to grow (first at 60 s, 37 times)",)


def test_gpus_in_the_way_of_growth_are_told(ladder):
    result = ran(ladder(gpus={"L4": 2}))
    assert result.series.variants["default/a"].desired.max() == 2
    assert len(result.notices) == 1
    assert result.notices[0].startswith("default/a was to grow, but GPUs of type L4 are used up (first at 30 s, ")


def test_stall_is_told(ladder):
    # the second replica takes longer than settleSeconds, 300 s
    result = ran(ladder(startUp={"law": "constant", "meanSeconds": 3000}))
    assert result.notices[0].startswith(
        "default/a stalled: its target was not reached, or a replica stayed pending, for longer than settleSeconds ("
    )


@pytest.mark.parametrize("mode", ["advise", "observe"])
def test_policy_that_does_not_act_is_told(ladder, mode):
    result = ran(ladder(wva={"policy": {"mode": mode}}))
    assert result.scale_actions == 0
    assert result.notices[0] == f"policy says mode {mode}: with no HPA behind it, nothing carries its plans out"


def test_policy_that_publishes_nothing_to_its_autoscaler_is_told(ladder):
    result = ran(ladder(wva={"hpa": True, "policy": {"mode": "observe"}}))
    assert result.scale_actions == 0
    assert "policy says mode observe: nothing is published, and the HPA behind it does nothing" in result.notices


def test_autoscaler_follows_the_published_advice(ladder):
    result = ran(ladder(wva={"hpa": {"tolerance": 0.0}}))
    assert result.series.variants["default/a"].desired.max() == 3


def test_records_that_cannot_be_written_are_told_and_the_run_goes_on(ladder, tmp_path):
    (tmp_path / "file").write_text("")
    result = ran(ladder(), records=tmp_path / "file" / "records")
    assert not result.partial
    faults = [notice for notice in result.notices if notice.startswith(str(tmp_path / "file" / "records"))]
    assert len(faults) == 1
    assert ": cycle 0: cannot be written: Not a directory; free space, or make the directory writable" in faults[0]


def test_unusable_contender_keeps_all_from_running(ladder, tmp_path):
    bad = {"name": "late", "wva": {"profile": "nope"}}
    scenario = ladder(contenders=[*copy.deepcopy(LADDER["contenders"]), bad])
    with pytest.raises(PolicyError, match="contender late: profile: is not a profile"):
        next(app.run_scenario(scenario, records=tmp_path / "records"))
    assert not (tmp_path / "records").exists()


def test_unknown_plugin_is_refused_before_anything_runs(ladder):
    with pytest.raises(UnknownPluginError, match="nope"):
        app.check_contenders(ladder(wva={"policy": {"optimizer": {"type": "nope"}}}))


def test_facts_say_what_the_numbers_rest_on(ladder):
    facts = app.facts(ladder(warmupSeconds=60))
    assert (facts.name, facts.source, facts.seed, facts.interval_s, facts.warmup_s) == (
        "ladder",
        "ladder.yaml",
        1,
        15.0,
        60.0,
    )
    assert (facts.trace.name, facts.trace.requests, facts.trace.span_s) == ("no traffic", 0, 600.0)
    assert facts.rule.endswith(" Cost and scale actions count from the end of the warm-up to the end of the traffic.")
    (variant,) = facts.variants
    assert (variant.key, variant.accelerator, variant.min, variant.max) == ("default/a", "L4", 1, 3)


@pytest.mark.parametrize(
    ("law", "text"),
    [
        ({"law": "constant", "meanSeconds": 90}, "90 s"),
        ({"law": "uniform", "lowSeconds": 60, "highSeconds": 90}, "60 to 90 s"),
        ({"law": "lognormal", "meanSeconds": 120, "cv": 0.3}, "120 s on average, lognormal with cv 0.3"),
    ],
)
def test_facts_word_the_start_up(ladder, law, text):
    assert app.facts(ladder(startUp=law)).variants[0].startup == text


def test_without_a_warm_up_cost_counts_from_the_start(ladder):
    assert app.facts(ladder()).rule.endswith(" Cost and scale actions count from the start to the end of the traffic.")


def test_validation_has_the_profile_of_every_variant_once(ladder):
    rows = app.validation(ladder())
    assert [row.batch for row in rows] == [1, 8]  # the cache of an L4 holds no 32 of these
    assert {row.profile for row in rows} == {"meta-llama/Llama-3.1-8B-Instruct on L4 TP 1 (bf16, vllm, derived)"}
    assert all(abs(row.error_pct) < 5 for row in rows)


HALF = {"analyzers": [{"type": "saturation-v1", "parameters": {"kvCacheThreshold": 1.0, "kvSpareTrigger": 0.01}}]}


def test_a_policy_change_swaps_the_brain_between_two_cycles(ladder):
    # Replicas report 0.95. At 0.80 the fleet climbs: 2 at once, 3 when the second is ready at 30 s. Under a threshold
    # of 1.0 and a trigger of 0.01 the spare of 0.05 is enough, and one replica fewer would be over the threshold.
    changed = ladder(wva={"policyChanges": [{"atSeconds": 15, "policy": {**HALF, "optimizer": {"type": "stepwise"}}}]})
    assert ran(changed).series.variants["default/a"].desired.max() == 2
    assert ran(ladder()).series.variants["default/a"].desired.max() == 3


def test_records_tell_which_policy_a_cycle_ran_under(ladder, tmp_path):
    changed = ladder(wva={"policyChanges": [{"atSeconds": 300, "policy": {**HALF, "optimizer": {"type": "stepwise"}}}]})
    ran(changed, tmp_path / "records")
    cycles = list(app.replay_records(tmp_path / "records"))
    thresholds = [cycle.record.policy["analyzers"][0]["parameters"]["kvCacheThreshold"] for cycle in cycles]
    assert thresholds == [0.8] * 20 + [1.0] * 21  # cycles at 0, 15, ... 285 s, then 300 ... 600 s
    assert all(cycle.is_identical for cycle in cycles)


def test_a_policy_change_that_cannot_be_used_is_refused_before_anything_runs(ladder):
    with pytest.raises(PolicyError, match=r"contender wva from 60 s: policy: .*settleSecond"):
        app.check_contenders(
            ladder(wva={"policyChanges": [{"atSeconds": 60, "policy": {"bounds": {"settleSecond": 1}}}]})
        )


def test_a_log_tells_each_change_once(ladder):
    with structlog.testing.capture_logs() as lines:
        app.run_contender(ladder(), ladder().contenders[0], log=structlog.get_logger())
    changes = [(line["current"], line["desired"]) for line in lines if line["event"] == "decision_changed"]
    assert changes == [(1, 2), (2, 3)]
