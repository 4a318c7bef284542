"""One contender's world: the order of what happens, what it costs, what is counted, and what is told of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from wva_core.domain import Fleet, Variant
from wva_core.errors import ParameterError
from wva_core.numerics.scaling_behavior import Behavior, ScalingRules
from wva_core.simulation.accounting import SloRule
from wva_core.simulation.cluster import Deployment, StartUp
from wva_core.simulation.profiles import ServerProfile
from wva_core.simulation.scenario import HpaContender, Scenario, StaticContender, WvaContender
from wva_core.simulation.workload import Trace
from wva_core.simulation.world import DRAIN_LIMIT_S, World

# One token per second and sequence, prompts free: an answer of n tokens takes n seconds, whoever else is inside.
CLOCK = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=10_000)
UNDAMPED = Behavior(ScalingRules(), ScalingRules())


def trace(*rows: tuple[float, int]) -> Trace:
    """Requests without a prompt: (arrival, answer tokens)."""
    columns = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return Trace(columns[:, 0], np.zeros(len(columns), dtype=np.int64), columns[:, 1].astype(np.int64))


def deployment(key: str = "ns/a", model: str = "ns/m", **settings: object) -> Deployment:
    values = {
        "profile": CLOCK,
        "accelerator": "L4",
        "cost_usd_per_h": 2.0,
        "start_up": StartUp("constant", mean_s=30.0),
        "initial_replicas": 1,
    }
    return Deployment(key, model, **(values | settings))


def scenario(contender, *deployments: Deployment, traces=None, duration=300.0, warmup=0.0, **settings) -> Scenario:
    deployments = deployments or (deployment(),)
    keys = [one.variant for one in deployments]
    values = {
        "min_replicas": dict.fromkeys(keys, 1),
        "max_replicas": dict.fromkeys(keys, 10),
        "gpus": {},
        "router": "least-loaded",
        "request_timeout_s": math.inf,
        "scrape_s": 15.0,
    }
    return Scenario(
        name="s",
        description="",
        source="s.yaml",
        seed=1,
        duration_s=duration,
        traces=traces or {},
        trace_notes={},
        deployments=deployments,
        fleet=Fleet(
            Variant(one.variant.partition("/")[0], one.name, one.model.partition("/")[2], one.accelerator)
            for one in deployments
        ),
        rule=SloRule(5.0, 2.0, warmup_s=warmup),
        contenders=(contender,),
        **(values | settings),
    )


ADVISED = WvaContender("wva", "", "saturation-v1", None, {}, UNDAMPED)
ALONE = WvaContender("wva", "", "saturation-v1", None, {}, None)


def static(**replicas: int) -> StaticContender:
    return StaticContender("static", "", {f"ns/{name}": count for name, count in replicas.items()})


def world(contender, *deployments, **settings) -> World:
    return World(scenario(contender, *deployments, **settings), contender)


def scaled_at(made: World, plan: dict[float, int], variant: str = "ns/a") -> World:
    """Gives a world a controller that sets a variant at given times."""

    def cycle() -> None:
        if made.clock.now() in plan:
            made.scale(variant, plan[made.clock.now()])

    made.cycle = cycle
    return made


# --------------------------------------------------------------------------------------------------------------------
# Order


def test_one_instant_is_traffic_then_scrape_then_cycle_then_autoscaler():
    made = world(ADVISED, traces={"ns/m": trace((15.0, 10))})
    seen: list[tuple[str, float, int]] = []
    made.advice = lambda: seen.append(("advice", made.cluster.now, made.cluster.in_flight())) or {"ns/a": 1.0}
    made.cycle = lambda: seen.append(("cycle", made.clock.now(), len(made.scraper.series().t)))
    made.run(lambda now: seen.append(("told", now, made.wanted["ns/a"])))
    second = [one for one in seen if one[1] == 15.0]
    # the request of that instant is inside when the scrape comes; the cycle sees two scrapes
    assert second == [("advice", 15.0, 1), ("cycle", 15.0, 2), ("told", 15.0, 1)]


def test_autoscaler_acts_on_the_advice_of_the_cycle_before():
    made = world(ADVISED)
    advised = {"ns/a": 1.0}
    made.advice = lambda: dict(advised)

    def cycle() -> None:
        if made.clock.now() == 60.0:
            advised["ns/a"] = 4.0

    made.cycle = cycle
    wanted: dict[float, int] = {}
    made.run(lambda now: wanted.update({now: made.wanted["ns/a"]}))
    assert [wanted[now] for now in (45.0, 60.0, 75.0)] == [1, 1, 4]


def test_without_advice_the_autoscaler_holds():
    made = world(ADVISED, deployment(initial_replicas=3))
    made.advice = dict
    made.run()
    assert made.wanted == {"ns/a": 3}


def test_control_cycle_has_an_interval_of_its_own():
    made = world(ALONE, duration=100.0)
    made.interval_s = 20.0
    times: list[float] = []
    made.cycle = lambda: times.append(made.clock.now())
    told: list[float] = []
    made.run(told.append)
    assert times == [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    assert told == [0.0, 15.0, 20.0, 30.0, 40.0, 45.0, 60.0, 75.0, 80.0, 90.0, 100.0]


# --------------------------------------------------------------------------------------------------------------------
# Autoscalers on metrics


def test_queue_metric_adds_up_engines_and_gateway():
    # four run, six wait: at a target of 2 that is 3 replicas
    contender = HpaContender("hpa", "", "waiting", 2.0, UNDAMPED, 0.0)
    made = world(contender, traces={"ns/m": trace(*((1.0, 500) for _ in range(10)))}, duration=15.0)
    made.run()
    assert made.wanted == {"ns/a": 3}


def test_running_metric_counts_sequences_in_batches():
    contender = HpaContender("hpa", "", "running", 2.0, UNDAMPED, 0.0)
    made = world(contender, traces={"ns/m": trace(*((1.0, 500) for _ in range(4)))}, duration=15.0)
    made.run()
    assert made.wanted == {"ns/a": 2}


def test_autoscaler_sees_pinned_signals():
    # 0.95 of each ready replica against a target of 0.5: 2, then 4 of two ready ones
    contender = HpaContender("hpa", "", "kvUsage", 0.5, UNDAMPED, 0.0)
    made = world(contender, deployment(pinned_signals={"kv_usage": 0.95}), duration=45.0)
    wanted: dict[float, int] = {}
    made.run(lambda now: wanted.update({now: made.wanted["ns/a"]}))
    assert wanted == {0.0: 2, 15.0: 2, 30.0: 4, 45.0: 4}


def test_each_variant_has_an_autoscaler_of_its_own():
    made = world(ADVISED, deployment("ns/a"), deployment("ns/b"))
    made.advice = lambda: {"ns/a": 3.0, "ns/b": 2.0}
    made.run()
    assert made.wanted == {"ns/a": 3, "ns/b": 2}


def test_autoscaler_never_goes_to_zero_and_says_so():
    made = world(ADVISED, min_replicas={"ns/a": 0})
    made.advice = lambda: {"ns/a": 0.0}
    made.run()
    assert made.wanted == {"ns/a": 1}
    assert made.result().notices == ("ns/a may have no replicas, but an HPA keeps at least one",)


def test_autoscaler_leaves_a_variant_without_replicas_alone_and_says_so():
    made = world(ADVISED, deployment(initial_replicas=0))
    made.advice = lambda: {"ns/a": 3.0}
    made.run()
    assert made.wanted == {"ns/a": 0}
    assert made.result().notices == ("ns/a has no replica to begin with, and an HPA leaves it at that",)


def test_autoscaler_at_its_maximum_says_so():
    made = world(ADVISED, max_replicas={"ns/a": 2}, duration=30.0)
    made.advice = lambda: {"ns/a": 3.0}
    made.run()
    assert made.wanted == {"ns/a": 2}
    # the first sync goes to the maximum, the two after it would go on
    assert made.result().notices == ("ns/a was at maxReplicas, and its HPA wanted more (first at 0 s, 3 times)",)


# --------------------------------------------------------------------------------------------------------------------
# Cost


def test_cost_counts_from_the_end_of_the_warm_up_to_the_end_of_the_traffic():
    # One replica throughout; a second from 60 s, billed from its scheduling; a third from 120 to 180 s, still starting
    # up when it goes at 135 s. After a warm-up of 100 s: 200 + 200 + 15 replica-seconds.
    made = scaled_at(world(ALONE, warmup=100.0), {60.0: 2, 120.0: 3, 135.0: 2})
    made.run()
    result = made.result()
    assert result.cost_usd == pytest.approx(2.0 * 415 / 3600)
    assert result.gpu_hours == pytest.approx(415 / 3600)


def test_warm_up_may_end_between_two_instants_and_after_the_last():
    for warmup in (7.5, 299.0):
        made = world(static(a=1), warmup=warmup)
        made.run()
        assert made.result().gpu_hours == pytest.approx((300.0 - warmup) / 3600)


def test_run_that_ends_before_its_warm_up_has_cost_nothing():
    made = world(static(a=1), warmup=100.0)

    def interrupt(now: float) -> None:
        if now == 60.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.run(interrupt)
    result = made.result(partial=True)
    assert (result.cost_usd, result.gpu_hours) == (0.0, 0.0)
    assert math.isnan(result.reversals_per_hour)


def test_gpus_and_prices_of_variants_add_up():
    a, b = deployment("ns/a", gpus_per_replica=2, cost_usd_per_h=3.0), deployment("ns/b", cost_usd_per_h=5.0)
    made = world(static(a=2, b=1), a, b, duration=3600.0)
    made.run()
    result = made.result()
    assert result.cost_usd == pytest.approx(2 * 3.0 + 5.0)
    assert result.gpu_hours == pytest.approx(2 * 2 + 1)


def test_what_drains_after_the_end_is_not_billed_and_is_still_answered():
    # The request comes 10 s before the end and takes 60 s.
    made = world(static(a=1), traces={"ns/m": trace((290.0, 60))})
    made.run()
    result = made.result()
    assert (result.requests_in, result.done, result.in_flight) == (1, 1, 0)
    assert result.gpu_hours == pytest.approx(300 / 3600)
    assert made.cluster.now >= 350.0


def test_draining_replica_is_billed_until_it_is_released():
    # Both replicas work on 100 s from 10 s on; one is taken away at 30 s and goes at 110 s.
    made = scaled_at(
        world(ALONE, deployment(initial_replicas=2), traces={"ns/m": trace((10.0, 100), (10.0, 100))}), {30.0: 1}
    )
    made.run()
    assert made.result().gpu_hours == pytest.approx((300 + 110) / 3600)


def test_what_is_never_answered_is_told():
    # No replica is ready before the drain limit is over.
    late = deployment(start_up=StartUp("constant", mean_s=10_000.0), initial_replicas=0)
    made = scaled_at(world(ALONE, late, traces={"ns/m": trace((1.0, 10))}), {0.0: 1})
    made.run()
    result = made.result()
    assert (result.requests_in, result.done, result.failed, result.in_flight) == (1, 0, 0, 1)
    assert result.attainment == 0.0
    assert made.cluster.now == 300.0 + DRAIN_LIMIT_S
    assert result.notices == ("1 request had no answer 30 minutes after the end of the traffic; that counts as missed",)


def test_failed_requests_are_told():
    made = world(static(a=1), traces={"ns/m": trace(*((0.0, 100) for _ in range(5)))}, request_timeout_s=10.0)
    made.run()
    result = made.result()
    assert (result.done, result.failed) == (4, 1)
    assert result.notices == ("1 request failed: refused, timed out or lost; that counts as missed",)


# --------------------------------------------------------------------------------------------------------------------
# What is counted


def test_scale_actions_and_reversals_are_counted():
    # up, up, down, up: four changes, two changes of direction, in 300 s
    made = scaled_at(world(ALONE), {15.0: 2, 45.0: 3, 60.0: 1, 90.0: 2, 105.0: 2})
    made.run()
    result = made.result()
    assert result.scale_actions == 4
    assert result.reversals_per_hour == pytest.approx(2 * 12)


def test_changes_of_the_warm_up_are_not_counted():
    made = scaled_at(world(ALONE, warmup=150.0), {15.0: 2, 45.0: 1, 150.0: 3, 180.0: 2})
    made.run()
    result = made.result()
    assert result.scale_actions == 2
    assert result.reversals_per_hour == pytest.approx(1 * 24)


def test_one_variant_up_and_another_down_is_no_reversal():
    made = world(ALONE, deployment("ns/a"), deployment("ns/b", initial_replicas=2))

    def cycle() -> None:
        if made.clock.now() == 30.0:
            made.scale("ns/a", 2)
            made.scale("ns/b", 1)

    made.cycle = cycle
    made.run()
    result = made.result()
    assert (result.scale_actions, result.reversals_per_hour) == (2, 0.0)


@pytest.mark.parametrize("stop", [0.0, 45.0, 300.0])
def test_requests_are_conserved_also_in_a_partial_result(stop):
    arrivals = [(7.0 * number, 20 + number) for number in range(40)]
    made = world(static(a=1), traces={"ns/m": trace(*arrivals)}, request_timeout_s=50.0)

    def interrupt(now: float) -> None:
        if now == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.run(interrupt)
    result = made.result(partial=True)
    assert result.partial
    assert result.requests_in == sum(arrival <= stop for arrival, _ in arrivals)
    assert result.in_flight == made.cluster.in_flight()
    assert result.requests_in == result.done + result.failed + result.in_flight
    assert len(result.series.time_s) == stop // 15 + 1


def test_waiting_for_gpus_is_told():
    made = scaled_at(world(ALONE, gpus={"L4": 1}, duration=60.0), {15.0: 2})
    made.run()
    assert made.result().notices == ("a replica of ns/a waited for free L4 GPUs (first at 30 s, 3 times)",)


# --------------------------------------------------------------------------------------------------------------------
# Series


def test_series_have_one_sample_per_scrape_and_show_what_was_there_before_the_cycle():
    made = scaled_at(world(ALONE, duration=75.0), {30.0: 2})
    made.run()
    series = made.result().series
    assert series.time_s.tolist() == [0.0, 15.0, 30.0, 45.0, 60.0, 75.0]
    assert series.variants["ns/a"].desired.tolist() == [1, 1, 1, 2, 2, 2]
    assert series.variants["ns/a"].current.tolist() == [1, 1, 1, 2, 2, 2]
    assert series.variants["ns/a"].ready.tolist() == [1, 1, 1, 1, 2, 2]  # 30 s of start-up


def test_series_follow_demand_queue_and_attainment():
    # three at once that are answered in time, then eight more than fit: four of them wait 20 s for the others
    arrivals = [(1.0, 10)] * 3 + [(31.0, 20)] * 8
    made = world(static(a=1), traces={"ns/m": trace(*arrivals)}, duration=60.0)
    made.run()
    series = made.result().series
    assert np.isnan(series.demand_rps[0])
    assert series.demand_rps[1:].tolist() == pytest.approx([3 / 15, 0.0, 8 / 15, 0.0])
    assert series.queue.tolist() == [0, 0, 0, 4, 0]
    assert series.attainment[[1, 3]].tolist() == [1.0, 0.5]
    assert np.isnan(series.attainment[[0, 2, 4]]).all()


def test_models_of_several_namespaces_have_their_own_traffic_and_series():
    deployments = (deployment("chat/a", "chat/m"), deployment("code/a", "code/m"))
    contender = StaticContender("static", "", {"chat/a": 1, "code/a": 2})
    made = World(
        scenario(contender, *deployments, traces={"chat/m": trace((1.0, 10)), "code/m": trace((2.0, 10), (3.0, 10))}),
        contender,
    )
    made.run()
    result = made.result()
    assert (result.requests_in, result.done) == (3, 3)
    assert set(result.series.variants) == {"chat/a", "code/a"}
    assert result.series.variants["code/a"].current.tolist() == [2] * 21
    log = made.cluster.requests()
    assert [log.variants[row] for row in log.variant] == ["chat/a", "code/a", "code/a"]


# --------------------------------------------------------------------------------------------------------------------
# Contenders


def test_static_fleet_replaces_the_initial_one_and_never_changes():
    made = world(static(a=3))
    made.run()
    result = made.result()
    assert (result.kind, result.scale_actions) == ("static", 0)
    assert set(result.series.variants["ns/a"].desired.tolist()) == {3.0}


def test_contenders_meet_the_same_traffic_and_the_same_start_up_times():
    law = StartUp("lognormal", mean_s=30.0, cv=0.5)
    load = trace(*((3.0 * number, 10) for number in range(90)))
    logs, ready = [], []
    for plan in ({15.0: 2}, {45.0: 2}):
        made = scaled_at(world(ALONE, deployment(start_up=law), traces={"ns/m": load}), plan)
        made.run()
        logs.append(made.cluster.requests())
        ready.append(made.cluster.replicas[1].ready_s - made.cluster.replicas[1].scheduled_s)
    assert logs[0].arrival_s.tolist() == logs[1].arrival_s.tolist()
    assert ready[0] == pytest.approx(ready[1])


def test_scaling_an_unknown_variant_is_refused():
    with pytest.raises(ParameterError, match=r"^variant ns/b: is not deployed here; name one of ns/a$"):
        world(ALONE).scale("ns/b", 1)


def test_scenario_is_left_as_it_was():
    contender = static(a=3)
    before = scenario(contender)
    made = World(before, contender)
    made.run()
    assert before.deployments[0].initial_replicas == 1
    assert replace(before).deployments == before.deployments
