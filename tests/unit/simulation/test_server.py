"""The engine against a naive step-by-step simulator, hand-worked cases and queueing theory."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.naive_server import NaiveProfile, simulate
from wva_core.simulation.cluster import Cluster, Deployment
from wva_core.simulation.profiles import ServerProfile
from wva_core.simulation.server import RequestTable, Server
from wva_core.simulation.workload import Trace

LONG = 1e9  # everything is over by then


def cluster_of(profile: ServerProfile, arrivals: list[tuple[float, int, int]], replicas: int = 1) -> Cluster:
    columns = np.array(arrivals, dtype=np.float64).reshape(-1, 3)
    trace = Trace(columns[:, 0], columns[:, 1].astype(np.int64), columns[:, 2].astype(np.int64))
    return Cluster([Deployment("ns/a", "m", profile, initial_replicas=replicas)], {"m": trace})


def compare_with_naive(profile: NaiveProfile, arrivals: list[tuple[float, int, int]], replicas: int) -> int:
    """Assert equality of everything observable; returns the number of preemptions."""
    expected, servers = simulate([profile] * replicas, arrivals, LONG)
    fast = ServerProfile(
        base_s=profile.base,
        per_seq_s=profile.per_seq,
        per_1k_kv_s=profile.per_kv_token * 1000,
        per_prefill_token_s=profile.per_prefill_token,
        max_batch=profile.max_batch,
        kv_capacity_tokens=profile.kv_capacity,
        max_batched_tokens=profile.token_budget,
    )
    cluster = cluster_of(fast, arrivals, replicas)
    cluster.advance(LONG)
    log = cluster.requests()
    served = [request for request in expected if not request.failed]
    first = np.array([request.token_times[0] if not request.failed else math.nan for request in expected])
    finish = np.array([request.token_times[-1] if not request.failed else math.nan for request in expected])
    np.testing.assert_allclose(log.first_token_s, first, rtol=0, atol=1e-9)
    np.testing.assert_allclose(log.finish_s, finish, rtol=0, atol=1e-9)
    assert log.failed.tolist() == [request.failed for request in expected]
    assert log.replica.tolist() == [request.replica for request in expected]
    engines = [replica.server for replica in cluster.ready_replicas("ns/a")]
    gaps = [gap for request in served for gap in np.diff(request.token_times)]
    assert sum(engine.itl_count for engine in engines) == len(gaps)
    assert sum(engine.itl_sum for engine in engines) == pytest.approx(sum(gaps), abs=1e-7)
    assert sum(engine.generation_tokens for engine in engines) == sum(request.output for request in served)
    assert cluster.preemptions == sum(server.preemptions for server in servers)
    assert cluster.in_flight() == 0
    return cluster.preemptions


@st.composite
def engines(draw: st.DrawFn) -> NaiveProfile:
    max_batch = draw(st.sampled_from([1, 2, 4, 8, 32]))
    return NaiveProfile(
        base=draw(st.floats(0.001, 0.02)),
        per_seq=draw(st.floats(0.0, 0.002)),
        per_kv_token=draw(st.sampled_from([0.0, 1e-5, 1e-3])),
        per_prefill_token=draw(st.floats(0.0, 0.0005)),
        max_batch=max_batch,
        kv_capacity=draw(st.sampled_from([60, 150, 400, 5000])),
        token_budget=max(max_batch, draw(st.sampled_from([8, 16, 64, 256, 8192]))),
    )


@st.composite
def workloads(draw: st.DrawFn) -> list[tuple[float, int, int]]:
    # The gaps come from a seeded generator: shrinking them to equal numbers makes ties that rounding decides.
    rng = random.Random(draw(st.integers(0, 2**32)))
    rate = draw(st.sampled_from([1.0, 8.0, 40.0]))
    longest_prompt, longest_answer = draw(st.sampled_from([5, 60, 200])), draw(st.sampled_from([1, 10, 80]))
    t, rows = 0.0, []
    for _ in range(draw(st.integers(1, 60))):
        if rng.random() < 0.8:  # a fifth arrives together with the one before
            t += rng.expovariate(rate)
        rows.append((t, rng.randint(1, longest_prompt), rng.randint(1, longest_answer)))
    return rows


@settings(max_examples=150)
@given(engines(), workloads(), st.sampled_from([1, 2, 4]))
def test_equals_the_naive_simulator(profile, arrivals, replicas):
    compare_with_naive(profile, arrivals, replicas)


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_naive_simulator_under_cache_pressure(seed):
    rng = random.Random(seed)
    t, rows = 0.0, []
    for _ in range(80):
        if rng.random() < 0.6:  # the others come together with the one before
            t += rng.expovariate(20.0)
        rows.append((t, rng.randint(1, 40), rng.randint(1, 80)))
    profile = NaiveProfile(0.005, 0.0003, 1e-5, 0.0002, max_batch=16, kv_capacity=200, token_budget=32)
    assert compare_with_naive(profile, rows, 2) > 10


def test_chunked_prompt_by_hand():
    # One step = 1 s + 0.1 s per prompt token, budget 4. Request 0: 10 prompt tokens, 2 answer tokens.
    # Steps: 4 tokens (1.4), 4 tokens (2.8), 2 tokens (4.0: first token), one decode (5.0: done).
    # Request 1 (2 prompt tokens, 1 answer token) arrives at 1.5: the step [1.4, 2.8] is full; the step [2.8, 4.0] would
    # have taken 2 tokens of request 0 and takes 2 of request 1 as well: 1.4 s, so both have a token at 4.2.
    profile = ServerProfile(1.0, 0.0, 0.0, 0.1, max_batch=4, kv_capacity_tokens=100, max_batched_tokens=4)
    cluster = cluster_of(profile, [(0.0, 10, 2), (1.5, 2, 1)])
    cluster.advance(100.0)
    log = cluster.requests()
    assert log.first_token_s.tolist() == pytest.approx([4.2, 4.2])
    assert log.finish_s.tolist() == pytest.approx([5.2, 4.2])


def test_preemption_by_hand():
    # One step = 1 s whatever it holds; cache of 8 tokens; both requests have 3 prompt and 4 answer tokens.
    # Step 1 [0,1]: both admitted (3 + 3 + 0 <= 8), both emit token 1; cache 6.
    # Step 2 [1,2]: 6 + 2 <= 8, both emit token 2; cache 8.
    # Boundary 2: 8 + 2 > 8, request 1 goes (cache 4); request 0 emits 3 at 3 and 4 at 4 and is done.
    # Meanwhile request 1 needs 3 + 2 = 5: 5 + 4 + 1 > 8, so it waits until 4, processes 5 tokens in [4,5] and emits
    # token 3 at 5, token 4 at 6.
    profile = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=8)
    cluster = cluster_of(profile, [(0.0, 3, 4), (0.0, 3, 4)])
    cluster.advance(100.0)
    log = cluster.requests()
    assert log.first_token_s.tolist() == [1.0, 1.0]
    assert log.finish_s.tolist() == [4.0, 6.0]
    assert cluster.preemptions == 1
    # Gaps: request 0 has three of 1 s; request 1 has 1 s, then 3 s over the preemption, then 1 s.
    counters = cluster.ready_replicas("ns/a")[0].server.counters(6.0)
    assert (counters.itl_sum, counters.itl_count) == (8.0, 6)


def test_request_that_can_never_fit_is_refused_on_arrival():
    profile = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=8)
    cluster = cluster_of(profile, [(0.0, 5, 4), (0.0, 5, 3)])
    cluster.advance(100.0)
    log = cluster.requests()
    assert log.failed.tolist() == [True, False]
    assert math.isnan(log.first_token_s[0])


def test_blocked_head_of_the_queue_lets_nobody_pass():
    # Cache 20: request 0 holds 10; request 1 needs 12 and waits; request 2 needs 1 and would fit, but stands behind it.
    profile = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=20)
    cluster = cluster_of(profile, [(0.0, 10, 4), (0.5, 12, 1), (0.5, 1, 1)])
    cluster.advance(100.0)
    log = cluster.requests()
    assert log.finish_s[0] == 4.0
    assert log.first_token_s[1:].tolist() == [5.0, 5.0]


def test_request_that_joins_a_composed_step_leaves_room_for_the_decoding_ones():
    # Cache 12. Request 0 (4 prompt tokens) decodes from 1 and holds 5 at the boundary 2; the next step takes it
    # to 6. Both others arrive at 1.5: the first needs 3 and brings the cache to 9; the second needs 4, which fits
    # beside the 5 and 3 but not beside the 6 and 3. It waits until the first, with one token to answer, is done at 3.
    profile = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=8, kv_capacity_tokens=12)
    cluster = cluster_of(profile, [(0.0, 4, 6), (1.5, 3, 1), (1.5, 4, 1)])
    cluster.advance(100.0)
    assert cluster.requests().finish_s.tolist() == [6.0, 3.0, 4.0]


def test_counters_between_events_count_whole_steps():
    # Two answers of 101 tokens, cost per step 1 s + 0.01 s per cached token: at time t the tokens emitted are those of
    # whole steps. First step 1 s (both prompts of 5), then decode step j = 1, 2, … costs 1 + 0.01 (10 + 2 (j - 1)).
    profile = ServerProfile(1.0, 0.0, 10.0, 0.0, max_batch=4, kv_capacity_tokens=1000)
    requests = RequestTable([5, 5], [101, 101], [0.0, 0.0])
    server = Server(profile, requests, [])
    server.arrive(0, 0.0)
    server.arrive(1, 0.0)
    server.step()
    for t in (1.5, 2.2, 7.9, 33.3):
        steps, clock = 0, 1.0
        while clock + 1.1 + 0.02 * steps <= t:
            clock += 1.1 + 0.02 * steps
            steps += 1
        counters = server.counters(t)
        assert counters.itl_count == 2 * steps
        assert counters.itl_sum == pytest.approx(2 * (clock - 1.0))
        assert counters.kv_usage == pytest.approx((10 + 2 * steps) / 1000)
        assert (counters.running, counters.waiting) == (2, 0)


def test_stop_returns_everybody_inside():
    profile = ServerProfile(1.0, 0.0, 0.0, 0.1, max_batch=2, kv_capacity_tokens=100, max_batched_tokens=4)
    server = Server(profile, RequestTable([3, 9, 2], [5, 5, 5], [0.0] * 3), [])
    server.arrive(0, 0.0)  # prefilling
    server.arrive(1, 0.0)  # its prompt is cut
    server.arrive(2, 0.0)  # waits for a slot
    assert server.stop() == [0, 1, 2]
    assert server.end == math.inf


# ---------------------------------------------------------------------------------------------------------------------
# Queueing theory. With a fixed step s, no prefill cost and geometric answers of mean 1000 tokens, service is geometric
# with mean 1000 s, exponential up to one step in a thousand; admission waits for a boundary, at most one step.

STEP = 0.001
MEAN_TOKENS = 1000
Z_999 = 3.88  # two-sided 99.9 % quantile of Student's t with 19 degrees of freedom


def exponential_load(seed: int, rate: float, size: int) -> list[tuple[float, int, int]]:
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, size))
    output = rng.geometric(1 / MEAN_TOKENS, size)
    return list(zip(arrival.tolist(), [1] * size, output.tolist(), strict=True))


def mean_sojourn(profile: ServerProfile, load: list[tuple[float, int, int]]) -> tuple[float, float]:
    """Mean time inside and the half width of its 99.9 % interval, by 20 batch means after a tenth as warm-up."""
    cluster = cluster_of(profile, load)
    cluster.advance(LONG)
    log = cluster.requests()
    inside = (log.finish_s - log.arrival_s)[len(log) // 10 :]
    means = np.array([batch.mean() for batch in np.array_split(inside, 20)])
    return float(means.mean()), Z_999 * float(means.std(ddof=1)) / math.sqrt(20)


def test_single_slot_is_m_m_1():
    lam, mu = 0.6, 1 / (MEAN_TOKENS * STEP)
    profile = ServerProfile(STEP, 0.0, 0.0, 0.0, max_batch=1, kv_capacity_tokens=10**9)
    mean, half_width = mean_sojourn(profile, exponential_load(1, lam, 150_000))
    expected = 1 / (mu - lam)  # Kleinrock, Queueing Systems I, 3.2
    assert half_width < 0.06 * expected
    assert abs(mean - expected) < half_width + STEP


def test_c_slots_of_one_engine_are_m_m_c():
    # A step that costs the same whatever it holds serves every slot at its own full speed, from one queue in order of
    # arrival: c servers and a central queue.
    c, lam, mu = 4, 3.2, 1 / (MEAN_TOKENS * STEP)
    profile = ServerProfile(STEP, 0.0, 0.0, 0.0, max_batch=c, kv_capacity_tokens=10**9)
    mean, half_width = mean_sojourn(profile, exponential_load(2, lam, 400_000))
    a = lam / mu
    tail = a**c / math.factorial(c) * c / (c - a)
    waits = tail / (sum(a**k / math.factorial(k) for k in range(c)) + tail)  # Erlang C
    expected = 1 / mu + waits / (c * mu - lam)
    assert half_width < 0.06 * expected
    assert abs(mean - expected) < half_width + STEP


def test_step_per_sequence_is_processor_sharing():
    # A step of s per sequence inside gives each of n requests a token every n s: the speed is shared. The first token
    # comes with the prompt, at no cost to itself, so the size of a request is (answer - 1) s.
    lam = 0.6
    profile = ServerProfile(0.0, STEP, 0.0, 0.0, max_batch=1000, kv_capacity_tokens=10**9, max_batched_tokens=8192)
    mean, half_width = mean_sojourn(profile, exponential_load(3, lam, 150_000))
    size = (MEAN_TOKENS - 1) * STEP
    expected = size / (1 - lam * size)  # M/G/1 processor sharing, Kleinrock, Queueing Systems II, 4.4
    assert half_width < 0.06 * expected
    assert abs(mean - expected) < half_width + 2 * STEP
