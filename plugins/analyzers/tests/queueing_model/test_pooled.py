"""Fleets that share their load, against the whole birth-death chain of the fleet walked through state by state."""

import math

import numpy as np
import pytest

from wva_analyzers.queueing_model.pooled import Goals, highest_rate, latencies, rate_bounds
from wva_core.numerics.service_times import ServiceTimes
from wva_core.numerics.sizing import size


def replica(batch=32, input_tokens=1024, output_tokens=256, alpha=0.007, beta=3e-5, gamma=4e-7):
    return ServiceTimes.of(
        "g2",
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        max_batch=batch,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


def goals(ttft=math.nan, itl=math.nan, quantile=math.nan, count=1):
    return Goals(*(np.full(count, float(one)) for one in (ttft, itl, quantile)))


def whole_chain(times, rate, fleet, states):
    """
    Weights of every state of `fleet` replicas that share their load perfectly: with k inside, k/fleet in each.

    A plain loop over the balance equations lam w[k-1] = mu[k] w[k], mu[k] = fleet x / (base + slope x) and
    x = min(k / fleet, batch).
    """
    base, slope, batch = times.base[0], times.slope[0], times.max_batch[0]
    weights = [1.0]
    for k in range(1, states):
        x = min(k / fleet, batch)
        weights.append(weights[-1] * rate * fleet * (base + slope * x) / (fleet * x))
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def by_hand(times, rate, fleet):
    share = whole_chain(times, rate, fleet, 11 * times.max_batch[0] * fleet + 1)  # ten wait for one in service
    batch = times.max_batch[0]
    in_service = math.fsum(p * min(k / fleet, batch) for k, p in enumerate(share))
    inside = math.fsum(p * k / fleet for k, p in enumerate(share))
    return share, in_service, (inside - in_service) / rate


@pytest.mark.parametrize("load", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("batch", [4, 32])
def test_one_replica_is_the_chain_itself(batch, load):
    times = replica(batch)
    rate = load * rate_bounds(times)[1]
    share, in_service, wait = by_hand(times, rate[0], 1)
    seen = latencies(times, rate, np.ones(1), goals())
    assert seen.in_service[0] == pytest.approx(in_service, rel=1e-6)
    blocked = share[-1]  # by_hand divides by what arrives, not by what is let in
    assert seen.ttft[0] == pytest.approx(wait / (1 - blocked) + times.prefill(in_service)[0], rel=1e-6)
    assert math.fsum(share) == pytest.approx(1)


@pytest.mark.parametrize("load", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("fleet", [3, 10])
def test_a_fleet_is_its_chain_within_two_percent(fleet, load):
    # levels instead of states: the batch is right to 2 %, where few requests are inside, and mostly to 0.1 %
    times = replica(16)
    rate = load * rate_bounds(times)[1]
    _, in_service, wait = by_hand(times, rate[0], fleet)
    seen = latencies(times, rate, np.array([float(fleet)]), goals())
    assert seen.in_service[0] == pytest.approx(in_service, rel=0.02)
    assert seen.ttft[0] == pytest.approx(wait + times.prefill(in_service)[0], rel=0.02)


@pytest.mark.parametrize("fleet", [1, 5])
def test_the_share_of_late_first_tokens_is_that_of_the_wait(fleet):
    # An arrival that finds j more than N R inside waits for j + 1 departures at rate R mu[N]: Erlang, term by term.
    times = replica(8)
    rate = 0.9 * rate_bounds(times)[1]
    share = whole_chain(times, rate[0], fleet, 4000)
    drain = fleet * 8 / times.work(8)[0]
    goal = times.prefill(8)[0] + 0.4
    late = 0.0
    for k in range(8 * fleet, 1000):
        term = inside = math.exp(-drain * 0.4)
        for j in range(1, k - 8 * fleet + 1):
            term *= drain * 0.4 / j
            inside += term
        late += share[k] * inside
    seen = latencies(times, rate, np.array([float(fleet)]), goals(ttft=goal))
    assert seen.late_ttft[0] == pytest.approx(late, rel=0.02 if fleet == 1 else 0.04)  # levels instead of states


@pytest.mark.parametrize("fleet", [1, 5])
def test_the_share_of_slow_tokens_is_that_of_large_batches(fleet):
    times = replica(32)
    rate = 0.8 * rate_bounds(times)[1]
    share = whole_chain(times, rate[0], fleet, 6000)
    goal = times.decode(12.0)[0]  # a step takes that long from 12 requests on
    late = math.fsum(p for k, p in enumerate(share) if k / fleet > 12)
    seen = latencies(times, rate, np.array([float(fleet)]), goals(itl=goal))
    assert seen.late_itl[0] == pytest.approx(late, rel=0.05)


def test_for_means_of_one_replica_it_sizes_as_the_sizing_of_queues_does():
    times = replica(64)
    rate, _ = highest_rate(times, np.ones(1), goals(ttft=0.5, itl=0.05))
    assert rate[0] == pytest.approx(size(times, ttft=0.5, itl=0.05).rate[0], rel=1e-5)


def test_a_larger_fleet_carries_more_with_each_replica():
    times = replica(16)
    wanted = goals(ttft=0.5, itl=0.05, quantile=0.95)
    rates = [highest_rate(times, np.array([float(fleet)]), wanted)[0][0] for fleet in (1, 2, 5, 20, 100)]
    assert rates == sorted(rates)
    assert rates[-1] > 1.3 * rates[0]
    assert rates[-1] < rate_bounds(times)[1][0]


def test_a_stricter_share_carries_less():
    times = replica(16)
    rates = [highest_rate(times, np.ones(1), goals(0.5, 0.05, q))[0][0] for q in (0.5, 0.9, 0.99)]
    assert rates == sorted(rates, reverse=True)


def test_an_objective_below_the_idle_latency_has_no_rate():
    rate, lateness = highest_rate(replica(), np.ones(1), goals(ttft=0.001, itl=0.05))
    assert rate.tolist() == [0.0]
    assert lateness[0] > 1


def test_without_objectives_the_end_of_the_range_is_the_answer():
    times = replica()
    np.testing.assert_array_equal(highest_rate(times, np.ones(1), goals())[0], rate_bounds(times)[1])


def test_what_is_not_known_has_no_rate():
    times = ServiceTimes.of(
        "g2", alpha=[np.nan, 0.007], beta=3e-5, gamma=4e-7, max_batch=8, input_tokens=100, output_tokens=100
    )
    rate, _ = highest_rate(times, np.ones(2), goals(0.5, 0.05, count=2))
    assert np.isnan(rate[0])
    assert rate[1] > 0


def test_an_overload_has_an_answer_too():
    times = replica(8)
    rate = 1.5 * 8 / times.work(8)
    seen = latencies(times, rate, np.ones(1), goals(ttft=0.5, itl=0.05))
    _, in_service, queue_wait = by_hand(times, rate[0], 1)
    # by_hand divides by what arrives; a third of that is turned away
    assert seen.in_service[0] == pytest.approx(in_service, rel=1e-9)
    assert seen.wait[0] == pytest.approx(1.5 * queue_wait, rel=1e-6)
    assert seen.late_ttft[0] == pytest.approx(1.0, abs=1e-6)
