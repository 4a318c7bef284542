"""Phases of replicas, GPUs, routing, time-outs, billing and conservation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wva_core.errors import ParameterError
from wva_core.simulation.cluster import Cluster, Deployment, Phase, StartUp
from wva_core.simulation.profiles import ServerProfile
from wva_core.simulation.workload import Trace, poisson

# One token per second and sequence, prompts free: an answer of n tokens takes n seconds, whoever else is inside.
CLOCK = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=10_000)


def trace(*rows: tuple[float, int, int]) -> Trace:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Trace(columns[:, 0], columns[:, 1].astype(np.int64), columns[:, 2].astype(np.int64))


def deployment(variant: str = "ns/a", **settings: object) -> Deployment:
    values = {"model": "m", "profile": CLOCK, "accelerator": "H100", "start_up": StartUp("constant", mean_s=60.0)}
    return Deployment(variant, **(values | settings))


def phases(cluster: Cluster) -> list[Phase]:
    return [replica.phase for replica in cluster.replicas]


def test_replica_becomes_ready_after_its_start_up():
    cluster = Cluster([deployment()])
    cluster.scale("ns/a", 1, now=10.0)
    cluster.advance(69.9)
    assert phases(cluster) == [Phase.STARTING]
    cluster.advance(70.0)
    assert phases(cluster) == [Phase.READY]
    assert cluster.replicas[0].pod == "a-0"


@pytest.mark.parametrize(
    ("law", "mean", "deviation"),
    [
        (StartUp("constant", mean_s=90.0), 90.0, 0.0),
        (StartUp("lognormal", mean_s=90.0, cv=0.5), 90.0, 45.0),
        (StartUp("uniform", low_s=60.0, high_s=120.0), 90.0, 60.0 / math.sqrt(12)),
    ],
)
def test_start_up_times_follow_their_law(law, mean, deviation):
    rng = np.random.default_rng(1)
    drawn = np.array([law.draw(rng) for _ in range(20_000)])
    assert drawn.mean() == pytest.approx(mean, rel=0.02)  # 4.5 standard errors of the widest law
    assert drawn.std() == pytest.approx(deviation, rel=0.05)


def test_start_up_of_a_replica_does_not_depend_on_other_variants():
    def ready_time(others: int) -> float:
        law = StartUp("lognormal", mean_s=100.0, cv=1.0)
        cluster = Cluster([deployment("ns/b", start_up=law), deployment("ns/a", start_up=law)], seed=7)
        cluster.scale("ns/b", others)
        cluster.scale("ns/a", 1)
        cluster.advance(1e6)
        return cluster.ready_replicas("ns/a")[0].ready_s

    assert ready_time(0) == ready_time(5)


def test_replica_without_free_gpus_is_pending_and_not_billed_until_they_are_free():
    cluster = Cluster(
        [deployment("ns/a", gpus_per_replica=4, initial_replicas=1), deployment("ns/b", gpus_per_replica=4)],
        {"m": trace((90.0, 1, 30))},
        gpus={"H100": 6},
    )
    cluster.scale("ns/b", 1, now=20.0)
    counts = cluster.counts("ns/b")
    assert (counts.current, counts.ready, counts.pending, counts.unschedulable) == (1, 0, 1, 1)
    cluster.scale("ns/a", 0, now=100.0)  # busy until 120
    assert cluster.gpu_used == {"H100": 4}
    cluster.advance(119.0)
    assert cluster.counts("ns/b").unschedulable == 1
    assert cluster.billed_s("ns/b") == 0.0
    cluster.advance(150.0)
    assert cluster.replicas[1].scheduled_s == 120.0
    assert cluster.billed_s("ns/b") == 30.0
    cluster.advance(200.0)
    assert cluster.replicas[1].ready_s == 180.0


def test_gpus_that_a_drain_frees_start_a_replica_in_the_middle_of_a_run():
    # a is busy until 120, b starts then and is ready at 180; the request of 185 finds it, within one call of advance.
    cluster = Cluster(
        [deployment("ns/a", initial_replicas=1), deployment("ns/b")],
        {"m": trace((90.0, 1, 30), (150.0, 1, 2), (185.0, 1, 2))},
        gpus={"H100": 1},
    )
    cluster.scale("ns/b", 1)
    cluster.scale("ns/a", 0, now=100.0)
    cluster.advance(1000.0)
    assert cluster.requests().first_token_s.tolist() == [91.0, 181.0, 186.0]


def test_small_replica_passes_a_pending_one_that_does_not_fit():
    cluster = Cluster(
        [deployment("ns/big", gpus_per_replica=4), deployment("ns/small", gpus_per_replica=1)], gpus={"H100": 2}
    )
    cluster.scale("ns/big", 1)
    cluster.scale("ns/small", 1)
    assert phases(cluster) == [Phase.PENDING, Phase.STARTING]


def test_scale_down_removes_pending_then_starting_then_ready_newest_first():
    cluster = Cluster([deployment(initial_replicas=2)], gpus={"H100": 4})
    cluster.scale("ns/a", 5)
    assert phases(cluster) == [Phase.READY, Phase.READY, Phase.STARTING, Phase.STARTING, Phase.PENDING]
    removed = []
    for replicas in range(4, -1, -1):
        before = phases(cluster)
        cluster.scale("ns/a", replicas)
        removed += [index for index, phase in enumerate(phases(cluster)) if phase is not before[index]]
    assert removed == [4, 3, 2, 1, 0]


def test_removed_starting_replica_never_becomes_ready_and_is_billed_until_removal():
    cluster = Cluster([deployment()])
    cluster.scale("ns/a", 1, now=0.0)
    cluster.scale("ns/a", 0, now=25.0)
    cluster.advance(1000.0)
    assert phases(cluster) == [Phase.GONE]
    assert cluster.billed_s("ns/a") == 25.0


def test_draining_replica_finishes_what_runs_and_what_waits():
    # Five requests of 10 tokens on one replica with four slots; the fifth waits until 10 and ends at 20.
    rows = [(0.0, 1, 10)] * 5
    cluster = Cluster([deployment(initial_replicas=1)], {"m": trace(*rows, (5.0, 1, 10))})
    cluster.scale("ns/a", 0, now=3.0)
    assert phases(cluster) == [Phase.DRAINING]
    assert cluster.counts("ns/a").current == 0
    assert cluster.counts("ns/a").draining == 1
    cluster.advance(100.0)
    log = cluster.requests()
    assert log.finish_s[:5].tolist() == [10.0] * 4 + [20.0]
    assert log.replica.tolist() == [0] * 5 + [-1]  # the one that came while draining is in the gateway
    assert cluster.replicas[0].released_s == 20.0
    assert cluster.billed_s("ns/a") == 20.0
    assert cluster.queue("m") == (1, 4)


def test_drain_timeout_fails_what_is_left():
    cluster = Cluster([deployment(initial_replicas=1, drain_timeout_s=5.0)], {"m": trace((0.0, 1, 4), (0.0, 1, 100))})
    cluster.scale("ns/a", 0, now=2.0)
    cluster.advance(100.0)
    log = cluster.requests()
    assert log.failed.tolist() == [False, True]
    assert log.finish_s[0] == 4.0
    assert cluster.replicas[0].released_s == 7.0
    assert cluster.in_flight() == 0


def test_requests_wait_in_the_gateway_until_a_replica_is_ready():
    cluster = Cluster([deployment()], {"m": trace((1.0, 100, 2), (2.0, 50, 2))})
    cluster.scale("ns/a", 1, now=0.0)
    cluster.advance(30.0)
    assert cluster.queue("m") == (2, 600)  # 150 prompt tokens at 4 bytes
    assert cluster.dispatched("m") == 0
    cluster.advance(100.0)
    assert cluster.queue("m") == (0, 0)
    assert cluster.requests().first_token_s.tolist() == [61.0, 61.0]
    # The engine counts its time to first token from when it was given the request.
    assert cluster.replicas[0].server.ttft_sum == 2.0


def test_request_goes_to_the_least_loaded_replica_and_ties_to_the_lowest_slot():
    rows = [(0.0, 1, 10), (0.1, 1, 2), (0.2, 1, 10), (0.3, 1, 10), (4.5, 1, 10)]
    cluster = Cluster([deployment(initial_replicas=3)], {"m": trace(*rows)})
    cluster.advance(100.0)
    # The fourth finds one request everywhere; by 4.5 the second has left.
    assert cluster.requests().replica.tolist() == [0, 1, 2, 0, 1]


def test_routing_spans_the_deployments_of_a_model_and_no_others():
    cluster = Cluster(
        [deployment("ns/a", initial_replicas=1), deployment("ns/b", initial_replicas=1), deployment("ns/c", model="n")],
        {"m": trace((0.0, 1, 5), (0.0, 1, 5)), "n": trace((0.0, 1, 5))},
    )
    cluster.scale("ns/c", 1, now=0.0)
    cluster.advance(100.0)
    log = cluster.requests()
    assert [log.variants[variant] for variant in log.variant] == ["ns/a", "ns/b", "ns/c"]
    assert [log.models[model] for model in log.model] == ["m", "m", "n"]
    assert log.first_token_s.tolist() == [1.0, 1.0, 61.0]


def test_sticky_router_fills_one_replica_before_the_next():
    rows = [(0.01 * i, 1, 50) for i in range(10)]
    cluster = Cluster([deployment(initial_replicas=2)], {"m": trace(*rows)}, router="sticky")
    cluster.advance(1.0)
    assert cluster.requests().replica.tolist() == [0] * 4 + [1] * 4 + [0, 1]


def test_waiting_request_times_out_and_a_running_one_does_not():
    # Four slots are taken for 50 s; the fifth and sixth wait. The first token of the others came long before 10 s.
    rows = [(0.0, 1, 50)] * 4 + [(1.0, 1, 1), (30.0, 1, 1)]
    cluster = Cluster([deployment(initial_replicas=1)], {"m": trace(*rows)}, request_timeout_s=30.0)
    cluster.advance(100.0)
    log = cluster.requests()
    assert log.failed.tolist() == [False] * 4 + [True, False]
    assert log.first_token_s[5] == 51.0
    assert cluster.in_flight() == 0


def test_request_times_out_in_the_gateway():
    cluster = Cluster([deployment()], {"m": trace((1.0, 10, 1), (40.0, 10, 1))}, request_timeout_s=30.0)
    cluster.scale("ns/a", 1, now=0.0)
    cluster.advance(31.0)
    assert cluster.queue("m") == (1 - 1, 0)
    cluster.advance(100.0)
    assert cluster.requests().failed.tolist() == [True, False]


def test_time_out_of_the_blocked_head_lets_the_next_one_in_at_once():
    # Cache 20; request 0 (10 prompt tokens) decodes until 12. Request 1 (12 tokens) blocks request 2 (1 token) from 1.5
    # until it times out at 4.5; request 2 is admitted at the boundary 5 and has its token at 6.
    profile = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=23)
    rows = [(0.0, 10, 12), (1.5, 12, 1), (3.0, 1, 1)]
    cluster = Cluster([deployment(profile=profile, initial_replicas=1)], {"m": trace(*rows)}, request_timeout_s=3.0)
    cluster.advance(100.0)
    log = cluster.requests()
    assert log.failed.tolist() == [False, True, False]
    assert log.finish_s.tolist()[::2] == [12.0, 6.0]


def test_stopping_on_the_way_changes_nothing():
    load = poisson(3, 3.0, 200.0, (50, 8))
    straight = Cluster([deployment(initial_replicas=3)], {"m": load})
    straight.advance(400.0)
    stepwise = Cluster([deployment(initial_replicas=3)], {"m": load})
    for t in np.arange(0.0, 400.0, 0.7):
        stepwise.advance(float(t))
    stepwise.advance(400.0)
    for column in ("first_token_s", "finish_s", "replica"):
        np.testing.assert_array_equal(getattr(straight.requests(), column), getattr(stepwise.requests(), column))


MIXED = ServerProfile(0.02, 0.001, 0.01, 0.0002, max_batch=6, kv_capacity_tokens=700, max_batched_tokens=64)


def busy_life(seed: int, steps: list[tuple[int, int]], router: str = "least-loaded") -> Cluster:
    """Two models, three variants, few GPUs, tight caches, time-outs, and a random walk of scale calls."""
    law = StartUp("lognormal", mean_s=6.0, cv=0.5)
    settings = {"profile": MIXED, "start_up": law, "drain_timeout_s": 4.0}
    cluster = Cluster(
        [
            deployment("ns/a", gpus_per_replica=2, initial_replicas=1, cost_usd_per_h=2.0, **settings),
            deployment("ns/b", gpus_per_replica=1, **settings),
            deployment("ns/c", gpus_per_replica=1, model="n", **settings),
        ],
        {"m": poisson(seed, 12.0, 60.0, (60, 20)), "n": poisson(seed + 1, 5.0, 60.0, (200, 40))},
        gpus={"H100": 6},
        seed=seed,
        router=router,
        request_timeout_s=5.0,
    )
    for step, (variant, replicas) in enumerate(steps):
        cluster.scale(("ns/a", "ns/b", "ns/c")[variant], replicas, now=60.0 * step / len(steps))
        assert_consistent(cluster)
    cluster.advance(90.0)
    assert_consistent(cluster)
    return cluster


def assert_consistent(cluster: Cluster) -> None:
    log = cluster.requests()
    done = np.isfinite(log.finish_s)
    assert not (done & log.failed).any()
    assert len(log) == done.sum() + log.failed.sum() + cluster.in_flight()
    for variant in cluster.deployments:
        lives = [replica for replica in cluster.replicas if replica.deployment.variant == variant]
        spans = [max(0.0, min(replica.released_s, cluster.now) - replica.scheduled_s) for replica in lives]
        assert cluster.billed_s(variant) == pytest.approx(sum(spans), abs=1e-9)
        counts = cluster.counts(variant)
        assert counts.current == counts.ready + counts.pending
    holding = (Phase.STARTING, Phase.READY, Phase.DRAINING)
    used = sum(r.deployment.gpus_per_replica for r in cluster.replicas if r.phase in holding)
    assert cluster.gpu_used["H100"] == used <= 6
    ready = [replica for replica in cluster.replicas if replica.phase is Phase.READY]
    for pool in cluster._pools:
        # The router's sets of replicas by load agree with the replicas.
        assert sum(bits.bit_count() for bits in pool.mask) == len(pool.by_bit)
        for replica in ready:
            if replica.server.pool is pool:
                assert pool.mask[replica.server.load] & replica.server.bit
                assert replica.server.load >= pool.low


@settings(max_examples=40)
@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=20),
    st.sampled_from(["least-loaded", "sticky"]),
)
def test_nothing_is_lost_and_gpus_and_bills_add_up(seed, steps, router):
    busy_life(seed, steps, router)


def test_same_seed_gives_the_same_run_to_the_bit():
    steps = [(0, 2), (1, 3), (2, 1), (0, 0), (1, 1), (2, 2)]
    one, two, other = busy_life(5, steps), busy_life(5, steps), busy_life(6, steps)
    for column in ("first_token_s", "finish_s", "failed", "replica"):
        np.testing.assert_array_equal(getattr(one.requests(), column), getattr(two.requests(), column))
    assert one.requests().finish_s.tobytes() == two.requests().finish_s.tobytes()
    assert one.replicas[1].ready_s != other.replicas[1].ready_s


def test_slots_are_used_again():
    cluster = Cluster([deployment(initial_replicas=1)], {"m": poisson(1, 1.0, 3000.0, (5, 5))})
    for cycle in range(20):
        cluster.scale("ns/a", 2, now=cycle * 150.0)
        cluster.scale("ns/a", 1, now=cycle * 150.0 + 100.0)
    assert len(cluster._slots) == 2
    assert [replica.pod for replica in cluster.replicas][-1] == "a-20"


def test_variant_that_is_not_deployed_is_refused():
    with pytest.raises(ParameterError) as caught:
        Cluster([deployment()]).scale("ns/z", 1)
    assert str(caught.value) == "variant ns/z: is not deployed here; name one of ns/a"


def test_past_is_refused():
    cluster = Cluster([deployment()])
    cluster.advance(10.0)
    with pytest.raises(ParameterError, match="lies before the present"):
        cluster.advance(9.0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"deployments": [deployment(), deployment()]}, "is deployed twice"),
        ({"deployments": [deployment()], "traces": {"x": trace((0.0, 1, 1))}}, "has a trace but no deployment"),
        ({"deployments": [deployment(initial_replicas=3)], "gpus": {"H100": 2}}, "more GPUs than there are"),
        ({"deployments": [deployment()], "router": "random"}, "is no router"),
        ({"deployments": [deployment()], "request_timeout_s": 0.0}, "must be positive"),
    ],
)
def test_impossible_cluster_is_refused(arguments, problem):
    with pytest.raises(ParameterError, match=problem):
        Cluster(**arguments)


@pytest.mark.parametrize("changes", [{"mean_s": -1.0}, {"low_s": 200.0}, {"cv": math.nan}])
def test_impossible_start_up_is_refused(changes):
    with pytest.raises(ParameterError):
        StartUp("uniform", **changes)
