"""Fleets that share their load: against balance equations, queues played through event by event, and whole engines."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from wva_analyzers.queueing_model.serving import (
    Engines,
    Goals,
    highest_rate,
    late_shares,
    latencies,
    rate_bounds,
)
from wva_core.simulation.cluster import Cluster, Deployment
from wva_core.simulation.profiles import ServerProfile
from wva_core.simulation.workload import Lengths, poisson


def engine(batch=32.0, input_tokens=1024.0, output_tokens=256.0, alpha=0.007, beta=3e-5, gamma=4e-7):
    numbers = (alpha, beta, gamma, batch, input_tokens, output_tokens)
    return Engines(*(np.array([float(number)]) for number in numbers))


def goals(ttft=math.nan, itl=math.nan, quantile=math.nan, count=1):
    return Goals(*(np.full(count, float(one)) for one in (ttft, itl, quantile)))


def fleet(size):
    return np.array([float(size)])


def work(one):
    """Seconds b of a request's steps and s by which each request beside it makes them longer, from what they are."""
    i, o = one.input_tokens[0], one.output_tokens[0]
    return o * one.alpha[0], one.beta[0] * (i + o - 1) + one.gamma[0] * o * (i + o / 2)


def chain_of_one(one, rate):
    """Balance equations lam w[k-1] = mu[k] w[k] of one replica, mu[k] = n / (b + s n), n = min(k, N), k up to 11 N."""
    b, s = work(one)
    batch = int(one.batch[0])
    weights = [1.0]
    for k in range(1, 11 * batch + 1):
        n = min(k, batch)
        weights.append(weights[-1] * rate * (b + s * n) / n)
    total = math.fsum(weights)
    share = [weight / total for weight in weights]
    in_service = math.fsum(p * min(k, batch) for k, p in enumerate(share))
    waiting = math.fsum(p * max(k - batch, 0) for k, p in enumerate(share))
    return in_service, waiting / (rate * (1 - share[-1]))


@pytest.mark.parametrize("load", [0.05, 0.3, 0.8, 0.95, 1.5])
@pytest.mark.parametrize("batch", [1, 4, 32])
def test_one_replica_is_its_chain(batch, load):
    one = engine(batch)
    b, s = work(one)
    rate = load * batch / (b + s * batch)
    in_service, wait = chain_of_one(one, rate)
    seen = latencies(one, np.array([rate]), fleet(1))
    # beyond saturation the few states below it are kept as they are there
    assert seen.in_service[0] == pytest.approx(in_service, rel=1e-9 if load < 1 else 0.02)
    assert seen.wait[0] == pytest.approx(wait, rel=1e-6 if load < 1 else 0.02, abs=1e-12)


def shortest_queues(one, rate, size, arrivals, seed):
    """Mean requests in a replica: Poisson arrivals that join the emptiest of `size` queues, exponential departures."""
    b, s = work(one)
    rng = np.random.default_rng(seed)
    inside = [0] * size
    leave = [0.0] * size
    area = now = 0.0
    arrived = 0
    while arrived < arrivals:
        total = rate * size + math.fsum(leave)
        step = rng.exponential(1 / total)
        area += step * sum(inside)
        now += step
        pick = rng.uniform(0, total)
        if pick < rate * size:
            arrived += 1
            least = min(inside)
            which = int(rng.choice([k for k, n in enumerate(inside) if n == least]))
            inside[which] += 1
        else:
            pick -= rate * size
            which = 0
            while pick >= leave[which] and which < size - 1:
                pick -= leave[which]
                which += 1
            inside[which] -= 1
        leave[which] = inside[which] / (b + s * inside[which])
    return area / now / size


@pytest.mark.parametrize("load", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("size", [3, 8])
def test_a_fleet_holds_as_many_requests_as_queues_that_are_joined_where_they_are_shortest(size, load):
    one = engine(batch=200.0)
    _, s = work(one)
    rate = load / s
    simulated = shortest_queues(one, rate, size, 12_000, seed=size)
    seen = latencies(one, np.array([rate]), fleet(size))
    assert seen.in_service[0] == pytest.approx(simulated, rel=0.08)


def test_without_load_a_request_takes_its_own_steps():
    # 10 ms a step; 1000 prompt tokens of 0.1001 ms; reading 1100 tokens adds 0.11 ms to a step, computing one 0.1 ms
    one = engine(batch=64, input_tokens=1000, output_tokens=200, alpha=0.01, beta=1e-4, gamma=1e-7)
    seen = latencies(one, np.array([1e-6]), fleet(1))
    assert seen.ttft[0] == pytest.approx(0.01 + 0.1001 + 0.00011 + 0.0001, rel=1e-3)
    assert seen.itl[0] == pytest.approx(0.01 + 0.00011 + 0.0001, rel=5e-3)
    assert seen.wait[0] == pytest.approx(0.0, abs=1e-9)


PROFILE = ServerProfile(
    base_s=0.02, per_seq_s=2e-4, per_1k_kv_s=2e-4, per_prefill_token_s=1e-4, max_batch=64, kv_capacity_tokens=400_000
)


def of_profile(lengths):
    """The three parameters that say the same as the four terms of the profile: see the page on the model's accuracy."""
    i, o = lengths
    more = o * PROFILE.per_seq_s + o * PROFILE.per_1k_kv_s * (i + o / 2) / 1000 + PROFILE.per_prefill_token_s * i
    gamma = max((more - PROFILE.per_prefill_token_s * (i + o - 1)) / (o * (i + o / 2) - (i + o - 1)), 0.0)
    beta = (more - gamma * o * (i + o / 2)) / (i + o - 1)
    return engine(PROFILE.max_batch, i, o, PROFILE.base_s, beta, gamma)


def served(size, rate, lengths: Lengths, requests=6000):
    """(N,) seconds to the first token and between tokens of requests that simulated engines served."""
    trace = poisson(3, rate * size, requests / (rate * size), lengths)
    cluster = Cluster([Deployment("ns/engine", "model", PROFILE, initial_replicas=size)], {"model": trace})
    cluster.advance(trace.duration_s + 120.0)
    log = cluster.requests()
    counted = log.arrival_s > 0.1 * trace.duration_s
    first = (log.first_token_s - log.arrival_s)[counted]
    answer, gaps = (log.finish_s - log.first_token_s)[counted], log.output_tokens[counted] - 1
    return first, answer.sum() / gaps.sum(), (answer / np.maximum(gaps, 1))[gaps >= 15]  # one foreign prompt is no mean


@pytest.fixture(scope="module")
def exponential():
    """A trace from which prompts and answers of exponential length are drawn."""
    rng = np.random.default_rng(5)
    trace = poisson(9, 100.0, 100.0, (1, 1))
    lengths = {
        name: np.maximum(rng.exponential(mean, len(trace)), 1).astype(np.int64)
        for name, mean in (("input_tokens", 800.0), ("output_tokens", 150.0))
    }
    return replace(trace, **lengths)


def loaded(load, lengths):
    """The engine of the profile for these lengths, and a share of its highest rate."""
    one = of_profile((float(lengths.input_tokens.mean()), float(lengths.output_tokens.mean())))
    return one, load * rate_bounds(one)[1]


@pytest.mark.parametrize("load", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("size", [1, 6])
def test_means_are_those_of_engines(size, load, exponential):
    one, rate = loaded(load, exponential)
    first, between, _ = served(size, rate[0], exponential)
    seen = latencies(one, rate, fleet(size))
    assert seen.ttft[0] == pytest.approx(first.mean(), rel=0.1)
    assert seen.itl[0] == pytest.approx(between, rel=0.06)


def time_for_a_twentieth(one, rate, size, which):
    """Seconds that one request in twenty exceeds, as the model has it."""
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        late = late_shares(one, rate, fleet(size), goals(ttft=middle, itl=middle))[which][0]
        low, high = (middle, high) if late > 0.05 else (low, middle)
    return high


@pytest.mark.parametrize("load", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("size", [1, 6])
def test_tails_are_those_of_engines(size, load, exponential):
    one, rate = loaded(load, exponential)
    first, _, per_token = served(size, rate[0], exponential)
    assert time_for_a_twentieth(one, rate, size, 0) == pytest.approx(np.quantile(first, 0.95), rel=0.2)
    assert time_for_a_twentieth(one, rate, size, 1) == pytest.approx(np.quantile(per_token, 0.95), rel=0.3)


def test_no_rate_above_the_highest_keeps_the_goals():
    one = engine(64)
    wanted = goals(ttft=0.5, itl=0.05)
    rate = highest_rate(one, fleet(1), wanted)
    low, high = rate_bounds(one)
    kept = [
        x
        for x in np.linspace(low[0], high[0], 400)
        if (seen := latencies(one, np.array([x]), fleet(1))).ttft[0] <= 0.5 and seen.itl[0] <= 0.05
    ]
    assert max(kept) <= rate[0] <= max(kept) + (high[0] - low[0]) / 399


def test_a_larger_fleet_carries_more_with_each_replica():
    one = engine(16)
    wanted = goals(ttft=0.5, itl=0.05, quantile=0.95)
    rates = [highest_rate(one, fleet(size), wanted)[0] for size in (1, 2, 5, 20, 100)]
    assert rates == sorted(rates)
    assert rates[-1] > 1.3 * rates[0]
    assert rates[-1] < rate_bounds(one)[1][0]


def test_a_stricter_share_carries_less():
    one = engine(16)
    rates = [highest_rate(one, fleet(1), goals(0.5, 0.05, q))[0] for q in (0.5, 0.9, 0.99)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_an_objective_below_the_idle_latency_has_no_rate():
    assert highest_rate(engine(), fleet(1), goals(ttft=0.001, itl=0.05)).tolist() == [0.0]


def test_without_objectives_the_end_of_the_range_is_the_answer():
    one = engine()
    np.testing.assert_array_equal(highest_rate(one, fleet(1), goals()), rate_bounds(one)[1])


@pytest.mark.parametrize("missing", ["alpha", "beta", "gamma", "batch", "input_tokens", "output_tokens"])
def test_what_is_not_known_has_no_rate(missing):
    columns = {name: np.repeat(getattr(engine(), name), 2) for name in (field.name for field in fields(Engines))}
    columns[missing] = np.array([np.nan, columns[missing][1]])
    rate = highest_rate(Engines(**columns), np.ones(2), goals(0.5, 0.05, count=2))
    assert np.isnan(rate[0])
    assert rate[1] > 0


def test_latency_rises_with_the_rate_up_to_an_overload_without_a_jump():
    one = engine(16)
    b, s = work(one)
    rate = np.linspace(0.5, 1.5, 400) * 16 / (b + s * 16)
    many = one.take(np.zeros(400, dtype=np.int64))
    for size in (1.0, 7.5, 1000.0):
        seen = latencies(many, rate, np.full(400, size))
        assert np.isfinite(seen.ttft).all()
        assert np.all(np.diff(seen.wait) >= -1e-9)
        assert np.all(np.diff(seen.in_service) >= -1e-6)


def test_every_size_is_answered_without_a_warning():
    spans = ((1e-3, 1e-1), (1e-6, 1e-3), (1e-9, 1e-5), (1.0, 1024.0), (0.0, 30_000.0), (1.0, 10_000.0))
    rng = np.random.default_rng(2)
    engines = Engines(*(rng.uniform(low, high, 3000) for low, high in spans))
    replicas = np.exp(rng.uniform(0, np.log(1e4), 3000))
    low, high = rate_bounds(engines)
    for rate in (low, 0.5 * high, high, 3.0 * high):
        seen = latencies(engines, rate, replicas)
        assert np.isfinite(np.stack((seen.ttft, seen.itl, seen.in_service))).all()
        shares = late_shares(engines, rate, replicas, goals(5.0, 0.1, 0.9, 3000))
        assert all(((share >= 0) & (share <= 1)).all() for share in shares)
