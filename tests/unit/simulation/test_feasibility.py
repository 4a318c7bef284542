"""Demand against the largest allowed fleet."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wva_core.errors import InfeasibleError
from wva_core.simulation.cluster import Cluster, Deployment
from wva_core.simulation.feasibility import check_demand, requests_per_second
from wva_core.simulation.profiles import ServerProfile
from wva_core.simulation.workload import Trace

# A step takes 1 s whoever is inside and prompts are free, so b requests of n tokens take n s: b/n requests/s.
CLOCK = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=10_000)
FULL = ServerProfile(0.01, 0.0005, 0.0001, 0.0001, max_batch=32, kv_capacity_tokens=50_000)


def steady(rate: float, tokens: int = 10, span: float = 600.0, begin: float = 0.0) -> Trace:
    arrival = begin + np.arange(round(rate * span)) / rate
    return Trace(arrival, np.zeros(len(arrival), dtype=np.int64), np.full(len(arrival), tokens))


def deployment(name: str = "a", kind: str = "L4", model: str = "m", profile: ServerProfile = CLOCK, size: int = 1):
    return Deployment(f"ns/{name}", model, profile, accelerator=kind, gpus_per_replica=size)


def check(traces, deployments, most=None, gpus=None, duration=600.0):
    limits = {one.variant: None for one in deployments} | (most or {})
    return check_demand("s.yaml", duration, traces, deployments, limits, gpus or {})


def test_throughput_is_that_of_the_fullest_batch():
    assert requests_per_second(CLOCK, 0, 10) == pytest.approx(0.4)


def test_throughput_is_bounded_by_the_cache():
    small = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=100, kv_capacity_tokens=210)
    assert requests_per_second(small, 100, 10) == pytest.approx(2 / 10)  # two of 100 + 10/2 tokens fit


def test_simulated_engine_does_not_beat_the_bound():
    # 400 requests at once on one engine: how long it takes to answer them all
    load = Trace(np.zeros(400), np.full(400, 500), np.full(400, 100))
    cluster = Cluster([Deployment("ns/a", "m", FULL, initial_replicas=1)], {"m": load})
    while cluster.in_flight() or not cluster.now:
        cluster.advance(cluster.now + 1.0)
    assert 400 / np.nanmax(cluster.requests().finish_s) <= requests_per_second(FULL, 500, 100)


@pytest.mark.parametrize(("rate", "served"), [(0.79, True), (0.81, False)])
def test_maximum_of_the_variant_limits(rate, served):
    arguments = {"m": steady(rate)}, [deployment()], {"ns/a": 2}  # two replicas of 0.4/s
    if served:
        assert check(*arguments) == ()
    else:
        with pytest.raises(InfeasibleError, match=r"model m: needs 0\.81.* throughout, .* serves 0\.8;"):
            check(*arguments)


@pytest.mark.parametrize(("gpus", "served"), [(4, True), (3, False)])
def test_gpus_limit_in_whole_replicas(gpus, served):
    arguments = {"m": steady(0.79)}, [deployment(size=2)], None, {"L4": gpus}
    if served:
        assert check(*arguments) == ()
    else:
        with pytest.raises(InfeasibleError, match=r"serves 0\.4;"):
            check(*arguments)


def test_types_without_a_limit_serve_anything():
    assert check({"m": steady(100.0)}, [deployment(), deployment("b", "H100")], None, {"L4": 0}) == ()


def test_variants_on_one_type_share_it():
    two = [deployment(), deployment("b", profile=ServerProfile(0.5, 0.0, 0.0, 0.0, 4, 10_000))]
    # three GPUs on the faster variant serve 3 x 0.8; 2.5/s are beyond any split of them
    assert check({"m": steady(2.3)}, two, None, {"L4": 3}) == ()
    with pytest.raises(InfeasibleError):
        check({"m": steady(2.5)}, two, None, {"L4": 3})


def test_two_sizes_on_one_type_are_never_judged_too_small():
    # 8 GPUs: two replicas of 4 GPUs serve 0.8/s, though one of 5 GPUs serves more per GPU
    big = ServerProfile(4 / 5.01, 0.0, 0.0, 0.0, 4, 10_000)
    pair = [deployment("a", size=4), deployment("b", profile=big, size=5)]
    assert check({"m": steady(0.79)}, pair, None, {"L4": 8}) == ()


def test_windows_without_requests_do_not_count_as_served():
    late = steady(1.0, begin=300.0, span=300.0)
    with pytest.raises(InfeasibleError):
        check({"m": late}, [deployment()], {"ns/a": 1})


def test_part_of_the_time_is_a_warning():
    both = np.concatenate((steady(0.1, span=300.0).arrival_s, steady(1.0, begin=300.0, span=300.0).arrival_s))
    trace = Trace(both, np.zeros(len(both), dtype=np.int64), np.full(len(both), 10))
    (warning,) = check({"m": trace}, [deployment()], {"ns/a": 1})
    assert warning.startswith("model m: demand is beyond the largest allowed fleet in 1 of 2 windows of 300 s")


def test_last_window_may_be_short():
    assert check({"m": steady(0.39, span=310.0)}, [deployment()], {"ns/a": 1}, duration=310.0) == ()


def test_models_are_added_up_where_they_share_gpus():
    two = [deployment("a", model="m"), deployment("b", model="n")]
    traces = {"m": steady(0.7), "n": steady(0.7)}  # 1.75 GPUs each
    assert check(traces, two, None, {"L4": 4}) == ()
    with pytest.raises(InfeasibleError, match=r"all models together need at least 3\.5 GPUs throughout, .* are 3;"):
        check(traces, two, None, {"L4": 3})


def test_pinned_signals_need_no_capacity():
    pinned = Deployment("ns/a", "m", CLOCK, accelerator="L4", pinned_signals={"kv_usage": 0.9})
    assert check({"m": steady(50.0)}, [pinned], {"ns/a": 1}) == ()
    assert math.isfinite(requests_per_second(CLOCK, 0, 0))
