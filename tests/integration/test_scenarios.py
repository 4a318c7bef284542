"""The example scenarios, run in full: what each of them is there to show, and that a run can be told again."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from tests.integration.conftest import EXAMPLES, run
from wva_core import app
from wva_core.domain import Memory, Reason
from wva_core.engine.brain import Brain
from wva_core.engine.cycle import decide
from wva_core.engine.replay import same_plan
from wva_core.hooks.runtime import Runtime
from wva_core.policy.layers import Layer
from wva_core.simulation.report import report_document
from wva_core.simulation.scenario import read_scenario
from wva_core.simulation.world import World
from wva_core.telemetry.record_reader import RecordReader

NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
DEMO = "azure-conv-demo"
ADVISED = "saturation-v1 through an HPA"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def test_the_promised_scenarios_are_there():
    recorded = [DEMO, "azure-conv-slo", "azure-conv-two-accelerators"]
    made_up = ["gamma", "hot-and-cold", "kv-ladder", "ramp", "spike", "steady"]
    assert sorted(recorded + made_up) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_example_runs_and_conserves_its_requests(ran, name):
    scenario, results, _ = ran(name)
    assert list(results) == [contender.name for contender in scenario.contenders]
    for result in results.values():
        assert not result.partial
        assert result.requests_in == sum(len(trace) for trace in scenario.traces.values())
        assert result.requests_in == result.done + result.failed + result.in_flight
        assert not any("raised" in notice for notice in result.notices)
        for key, series in result.series.variants.items():
            assert (series.ready <= series.current).all()
            assert series.desired.min() >= scenario.min_replicas[key]
            assert series.desired.max() <= scenario.max_replicas[key]


@pytest.mark.parametrize("name", NAMES)
def test_contenders_meet_the_same_traffic(ran, name):
    demands = [result.series.demand_rps for result in ran(name).results.values()]
    for demand in demands[1:]:
        np.testing.assert_array_equal(demands[0], demand)


@pytest.mark.parametrize("name", NAMES)
def test_replaying_the_records_gives_identical_plans(ran, name):
    done = ran(name)
    for contender in done.scenario.contenders:
        if contender.kind == "wva":
            again = list(app.replay_records(done.folder(contender.name)))
            assert len(again) == np.ceil((done.scenario.duration_s + 1) / 15)  # one cycle each 15 s, both ends included
            assert all(cycle.is_identical for cycle in again)


# --------------------------------------------------------------------------------------------------------------------
# Latency objectives


def test_told_the_objectives_it_keeps_them_for_the_share_it_promises(ran):
    results = ran("azure-conv-slo").results
    assert results["slo"].attainment >= 0.99
    assert results["slo"].attainment > results["saturation-v1 through an HPA"].attainment


def test_with_a_choice_of_cards_it_moves_to_the_cheaper_ones_and_keeps_the_objectives_on_the_way(ran):
    done = ran("azure-conv-two-accelerators")
    slo = done.results["slo"]
    assert slo.attainment >= 0.99
    # a fleet of L4 alone needs about ten of them, 0.80 USD an hour each; L40S do with two or three
    assert slo.cost_usd < 0.7 * ran("azure-conv-slo").results["slo"].cost_usd
    assert slo.series.variants["chat/llama-8b-l4"].current[-1] <= 1
    stays = done.results["slo without replacing"]
    assert stays.attainment >= 0.99  # a mixed fleet behind one router
    assert stays.cost_usd > slo.cost_usd


# --------------------------------------------------------------------------------------------------------------------
# kv-ladder


def test_ladder_climbs_one_step_per_settled_replica_and_stays(ran):
    done = ran("kv-ladder")
    seen = done.results["saturation-v1"].series
    series = seen.variants["default/ladder"]
    assert [int(step) for step, _ in itertools.groupby(series.desired)] == list(range(1, 11))
    # a step is only taken when all that was asked for before is ready
    climbs = np.flatnonzero(np.diff(series.desired))
    assert (series.ready[climbs] == series.desired[climbs]).all()
    assert (series.desired[climbs[-1] + 1 :] == 10).all()
    assert seen.time_s[-1] - seen.time_s[climbs[-1]] > 600.0


# --------------------------------------------------------------------------------------------------------------------
# hot-and-cold: the published vectors A10 to A12 at work


def test_cold_pod_hides_hot_ones(ran):
    # K = 0.80, ks = 0.10: growth only when no pod is below saturation, or the mean of those that are is above 0.70
    hidden = 0
    for record in ran("hot-and-cold").cycles("saturation-v1"):
        kv = record.observation.replicas["kv_usage"]
        waiting = record.observation.replicas["waiting"]
        hot = (kv >= 0.80) | (waiting >= 5)
        cold = kv[~hot]
        grows = record.plan.reason[0] == Reason.GROW
        if hot.any() and cold.size and cold.mean() <= 0.70:
            assert not grows
            hidden += 1
        elif grows:
            assert hot.any()
    assert hidden >= 60  # half of the 121 cycles


def test_cold_pods_are_removed_beside_a_hot_one_until_one_is_left(ran):
    shrinks = []
    for record in ran("hot-and-cold").cycles("saturation-v1"):
        kv = record.observation.replicas["kv_usage"]
        waiting = record.observation.replicas["waiting"]
        hot = (kv >= 0.80) | (waiting >= 5)
        if record.plan.reason[0] == Reason.SHRINK and hot.any():
            shrinks.append((~hot).sum())
    assert shrinks
    assert min(shrinks) >= 2


# --------------------------------------------------------------------------------------------------------------------
# The demo, told again


def test_replay_may_begin_in_the_middle(ran):
    again = list(app.replay_records(ran(DEMO).folder(ADVISED), start=1800.0))
    assert again[-1].record.time == 3495.0
    assert sum(cycle.record.time >= 1800.0 for cycle in again) == 114  # 1800, 1815, … 3495
    assert all(cycle.is_identical for cycle in again)


def test_replay_is_the_same_across_a_restart_from_the_checkpoint(ran):
    records = ran(DEMO).cycles(ADVISED)
    half = len(records) // 2
    memory = records[0].memory
    assert memory is not None
    for part in (records[:half], records[half:]):
        brain = Brain.build([Layer("record", records[0].policy)])  # a process of its own: plugins made anew
        brain.start(Runtime(Stopped()))
        for record in part:
            decision = decide(record.observation, brain, memory, absent=record.failures)
            assert same_plan(record.plan, decision.plan)
            memory = decision.memory
        brain.stop()
        memory = Memory.from_bytes(memory.to_bytes())


def test_records_in_the_middle_carry_the_memory_a_restart_would_have_written(ran):
    # every full block has a checkpoint: deciding from it alone gives the same plans
    folder = ran(DEMO).folder(ADVISED)
    starts = [record.memory for record in RecordReader(folder).read() if record.memory is not None]
    assert starts
    assert all(Memory.from_bytes(memory.to_bytes()).to_bytes() == memory.to_bytes() for memory in starts)


class Stopped:
    def now(self):
        raise AssertionError("a replay asked for the time")


def test_engine_continues_from_a_checkpoint_as_if_it_had_never_stopped():
    scenario = read_scenario(EXAMPLES / "ramp.yaml", only=("saturation-v1",))
    (contender,) = scenario.contenders

    def run_with_restart_at(restart):
        world = World(scenario, contender)
        engine = app.engine_for(world, contender)
        engine.start()
        plans = []
        engine.subscribers.append(lambda result: plans.append(result.plan))

        def replaced(now):
            nonlocal engine
            if now == restart:
                engine.stop()
                engine = app.engine_for(world, contender, Memory.from_bytes(engine.memory.to_bytes()))
                engine.start()
                engine.subscribers.append(lambda result: plans.append(result.plan))

        world.run(replaced)
        engine.stop()
        return plans

    whole, restarted = run_with_restart_at(None), run_with_restart_at(900.0)
    assert len(whole) == len(restarted) == 121
    assert all(same_plan(one, other) for one, other in zip(whole, restarted, strict=True))


# --------------------------------------------------------------------------------------------------------------------
# The same and the permuted


def report(scenario, results):
    """The content of report.json."""
    document = report_document(app.facts(scenario), app.validation(scenario), list(results.values()))
    return json.dumps(document, sort_keys=True)


def test_same_seed_gives_the_same_report(ran, tmp_path):
    first = ran(DEMO)
    again = run(read_scenario(EXAMPLES / f"{DEMO}.yaml"), tmp_path)
    assert report(again.scenario, again.results) == report(first.scenario, first.results)


def test_another_seed_gives_another_report(ran, tmp_path):
    first = ran("gamma")
    other = run(read_scenario(EXAMPLES / "gamma.yaml", seed=2), tmp_path)
    assert report(other.scenario, other.results) != report(first.scenario, first.results)


def two_models(order=1):
    """Two models of two variants each on shared GPUs, written forwards or backwards."""
    models = [
        {
            "model": LLAMA,
            "namespace": namespace,
            "arrivals": {"law": "gamma", "cv": 2.0, "rate": rate, "durationSeconds": 900, "outputTokens": 100},
            "variants": [
                {
                    "name": f"on-{kind.lower()}",
                    "profile": {"accelerator": kind, "kind": "derived"},
                    "maxReplicas": 6,
                    "initialReplicas": 2,
                    "startUp": {"law": "lognormal", "meanSeconds": 60, "cv": 0.4},
                }
                for kind in ("L4", "L40S")
            ][::order],
        }
        for namespace, rate in (("chat", 1.5), ("code", 3.0))
    ][::order]
    contenders = [
        {"name": "wva", "wva": {"profile": "saturation-v1"}},
        {"name": "advised", "wva": {"profile": "saturation-v1", "hpa": True}},
        {"name": "hpa", "hpa": {"metric": "running", "target": 8}},
        {"name": "static", "static": {"replicas": {"chat/on-l4": 3, "code/on-l40s": 2}}},
    ]
    return {
        "name": "two models",
        "objectives": {"ttftSeconds": 5.0, "tpotSeconds": 0.15},
        "gpus": {"L4": 8, "L40S": 8},
        "models": models,
        "contenders": contenders,
    }


def test_order_in_which_models_and_variants_are_written_changes_nothing(written, tmp_path):
    forwards, backwards = (
        run(read_scenario(written(two_models(order), f"{order}.yaml")), tmp_path / str(order)) for order in (1, -1)
    )
    for name, one in forwards.results.items():
        other = backwards.results[name]
        assert one.requests_in > 3000
        assert (one.attainment, one.cost_usd, one.scale_actions, one.ttft_s) == (
            other.attainment,
            other.cost_usd,
            other.scale_actions,
            other.ttft_s,
        )
        assert set(one.series.variants) == {"chat/on-l4", "chat/on-l40s", "code/on-l4", "code/on-l40s"}
        for key, series in one.series.variants.items():
            np.testing.assert_array_equal(series.desired, other.series.variants[key].desired)
            np.testing.assert_array_equal(series.ready, other.series.variants[key].ready)


def test_two_models_replay_to_identical_plans(written, tmp_path):
    done = run(read_scenario(written(two_models()), only=("wva", "advised")), tmp_path)
    for name in ("wva", "advised"):
        again = list(app.replay_records(done.folder(name)))
        assert len(again) == 61
        assert all(cycle.is_identical for cycle in again)
