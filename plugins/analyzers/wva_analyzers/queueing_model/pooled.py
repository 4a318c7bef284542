"""
Latencies of a replica in a fleet that shares its load, and the highest rate at which it keeps its objectives.

R replicas behind a router that sends each request where there is most room are one queue with R times the places: the
load of the whole fleet varies less than that of one replica. With k requests in the fleet each replica has about k/R,
so the fleet is a birth-death chain with departure rate R mu(k/R). Its states are walked through in N levels of R states
each, one level per request in a replica's batch; inside a level the rate is that of the level's middle, so a level is a
geometric series and the cost does not depend on R. For R = 1 this is the queue of one replica, exactly. Beyond
N R requests the rest waits, in order of arrival, up to ten times as many; so there is an answer at every rate.

Means and shares are over requests. *Time to first token* is the wait and the prefill. The share of requests that
exceeds a time is, whichever is larger: that of the wait of this chain, as if places were without limit; that of the
prefill at the batch an arrival finds; or that of prompts that queue up before each other in one replica, which is an
M/D/1 queue with an exponential tail. The share that exceeds a
*time between tokens* is that of requests which see a batch above the one at which a step takes that long, although
a long answer averages over several batches: this errs to the safe side.

Letters: lam arrival rate of one replica in requests/s, R replicas that share their load, N batch, n level,
x requests per replica, mu(x) = x / (base + slope x). Shapes: Q queues.

Source: own. The chain of R = 1 is that of upstream WVA (state-dependent queue of generation g2) with unlimited places;
levels are the R-th power of its weights, cf. heavy-traffic pooling in Whitt, "Understanding the efficiency of
multi-server service systems", Management Science 38 (1992).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wva_core.domain import FloatArray, IntArray
from wva_core.numerics.monotone_search import BELOW, largest_within
from wva_core.numerics.service_times import ServiceTimes

__all__ = ["Goals", "PooledLatency", "highest_rate", "latencies", "rate_bounds"]

_EDGE = 0.001
# Share of mu[1] and of mu[N] by which the range of rates stays away from 0 and from saturation, as in sizing.

_BLOCK = 1024
# Queues worked on at once: their levels stay in the cache of a core.

_PLACES = 10.0  # that wait for each one in service at most, as upstream has it

_LEAST = 1e-12
# Shares below are as good as none.


@dataclass(frozen=True, slots=True, eq=False)
class Goals:
    """
    Latency objectives; every field is (Q,).

    Attributes:
        ttft: seconds to the first token; NaN for none.
        itl: seconds between tokens; NaN for none.
        quantile: share of requests that has to keep them; NaN asks for the mean instead.
    """

    ttft: FloatArray
    itl: FloatArray
    quantile: FloatArray

    def take(self, rows: IntArray) -> Goals:
        """The same for some rows."""
        return Goals(self.ttft[rows], self.itl[rows], self.quantile[rows])


@dataclass(frozen=True, slots=True, eq=False)
class PooledLatency:
    """
    A replica of the fleet at one rate; every field is (Q,).

    Attributes:
        wait: mean seconds before service begins.
        ttft: mean seconds to the first token.
        itl: mean seconds between tokens.
        in_service: mean requests served together in one replica.
        late_ttft: share of requests whose first token takes longer than the goal; 0 without one.
        late_itl: share of requests whose tokens take longer than the goal; 0 without one.
    """

    wait: FloatArray
    ttft: FloatArray
    itl: FloatArray
    in_service: FloatArray
    late_ttft: FloatArray
    late_itl: FloatArray


def rate_bounds(times: ServiceTimes) -> tuple[FloatArray, FloatArray]:
    """(Q,) lowest and highest rate of a replica, requests/s, that is considered; NaN where `times` is unusable."""
    usable = times.usable
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _EDGE / times.work(1), (1 - _EDGE) * times.max_batch / times.work(times.max_batch)
    return np.where(usable, np.minimum(low, high), np.nan), np.where(usable, high, np.nan)


def latencies(times: ServiceTimes, rate: FloatArray, replicas: FloatArray, goals: Goals) -> PooledLatency:
    """
    What a replica of a fleet does at a rate.

    Args:
        times: (Q,) replicas, generation g2, all usable.
        rate: (Q,) requests/s per replica, above 0.
        replicas: (Q,) how many share their load, from 1; need not be whole.
        goals: (Q,) what counts as late.

    Cost: about 25 ms for Q = 10,000 and N = 64, in proportion to Q N.
    """
    result = np.empty((6, len(rate)))
    for rows in _blocks(times.max_batch):
        result[:, rows] = _solve(times.take(rows), rate[rows], replicas[rows], goals.take(rows))
    return PooledLatency(*result)


def highest_rate(times: ServiceTimes, replicas: FloatArray, goals: Goals) -> tuple[FloatArray, FloatArray]:
    """
    The highest rate of a replica in its fleet that keeps the goals.

    Args:
        times, replicas, goals: as in `latencies`; unusable rows are allowed.

    Returns:
        (Q,) requests/s: 0 where a goal is missed at the lowest rate already, the end of the range where every goal
        holds at every rate, NaN where `times` is unusable. (Q,) seconds of lateness at the lowest rate: by what factor
        the worse goal is missed there, at most 1 where it is kept.

    Cost: about a dozen passes as in `latencies`.
    """
    low, high = rate_bounds(times)
    rows = np.flatnonzero(~np.isnan(high))
    rate, excess = np.full(len(low), np.nan), np.full(len(low), np.nan)
    if not len(rows):
        return rate, excess
    some, fleet, wanted = times.take(rows), replicas[rows], goals.take(rows)

    def residual(x: FloatArray, which: IntArray) -> FloatArray:
        return _lateness(latencies(some.take(which), x, fleet[which], wanted.take(which)), wanted.take(which))

    found, side = largest_within(residual, low[rows], high[rows], rtol=1e-6)
    rate[rows] = np.where(side == BELOW, 0.0, found)
    excess[rows] = np.exp(np.minimum(residual(low[rows], np.arange(len(rows))), 100.0))
    return rate, excess


def _lateness(seen: PooledLatency, goals: Goals) -> FloatArray:
    """(Q,) logarithm of how far the worse goal is missed: of the mean, or of the share that is late."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.fmax(np.log(seen.ttft / goals.ttft), np.log(seen.itl / goals.itl))
        late = np.maximum(np.maximum(seen.late_ttft, seen.late_itl), _LEAST)
        share = np.log(late / (1.0 - goals.quantile))
    wanted = np.where(np.isnan(goals.quantile), mean, share)
    return np.where(np.isnan(wanted), -1.0, np.clip(wanted, -1e3, 1e3))  # without a goal every rate will do


def _blocks(batch: IntArray) -> Iterator[IntArray]:
    """Rows in blocks of similar batch, so that few levels are walked through for nothing."""
    order = np.argsort(-batch, kind="stable")
    for start in range(0, len(order), _BLOCK):
        yield order[start : start + _BLOCK]


def _solve(times: ServiceTimes, lam: FloatArray, R: FloatArray, goals: Goals) -> tuple[FloatArray, ...]:
    """The fields of `PooledLatency` for one block."""
    base, slope, N = times.base, times.slope, times.max_batch.astype(np.float64)
    n = np.arange(1.0, N.max() + 1.0)[:, None]
    x = n - (1.0 - 1.0 / R) / 2.0
    a = np.log(lam * (base + slope * x) / x)  # logarithm of lam / mu in the level
    inside = n <= N
    top = R * np.cumsum(np.where(inside, a, 0.0), axis=0)  # log weight of the highest state of each level
    level = np.where(inside, top + _log_series(a, R), -np.inf)
    full = top[-1]  # log weight of N R requests; the sum stands still beyond a queue's own N
    drain = N / (base + slope * N)
    growth = np.log(lam / drain)
    places = _PLACES * N * R
    at_least_full = full + _log_series(-growth, places)  # N R requests or more, a place left
    beyond = growth + at_least_full  # more than N R
    most = np.maximum(np.maximum(level.max(axis=0), np.maximum(at_least_full, beyond)), 0.0)
    weight = np.exp(level - most)
    more = np.exp(beyond - most)
    total = np.exp(-most) + weight.sum(axis=0) + more
    blocked = np.exp(full + growth * places - most) / total
    delayed = np.exp(at_least_full - most) / total / (1.0 - blocked)
    below = (weight * (n - _mean_below_top(a, R) / R)).sum(axis=0)
    in_service = (below + N * more) / total
    queue = more / total * (1.0 + _mean_below_top(-growth, places)) / R
    through = lam * (1.0 - blocked)
    wait = queue / through
    prefill = times.prefill(in_service)
    itl = (in_service / through - prefill) / times.decodes  # as the generation derives it from the queue
    late_ttft, late_itl = _late(times, lam, goals, R, n, weight / total, more / total, delayed, in_service)
    return wait, wait + prefill, itl, in_service, late_ttft, late_itl


def _late(
    times: ServiceTimes,
    lam: FloatArray,
    goals: Goals,
    R: FloatArray,
    n: FloatArray,
    share: FloatArray,
    beyond: FloatArray,
    delayed: FloatArray,
    in_service: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """(Q,) shares of requests that are late; `share` (N, Q) of states in each level, `beyond` above all of them."""
    N = times.max_batch.astype(np.float64)
    step = np.maximum(times.decode(1) - times.decode(0), 1e-300)  # seconds that one more request adds to every step

    def above(batch: FloatArray) -> FloatArray:
        """Share of states with more than `batch` requests in a replica; linear inside a level."""
        return np.asarray((share * np.clip(n - batch, 0.0, 1.0)).sum(axis=0) + np.where(batch < N, beyond, 0.0))

    with np.errstate(over="ignore", invalid="ignore"):
        at_once = np.where(
            times.input_tokens == 0, np.inf, (goals.ttft - times.prefill(0)) / step - 1.0 / R
        )  # batch an arrival may find
        late_prefill = np.where(at_once < N, above(np.minimum(at_once, N)), 0.0)
        spare = np.maximum(N / times.work(N) - lam, 0.0)
        late_wait = delayed * np.exp(-R * spare * np.maximum(goals.ttft - times.prefill(N), 0.0))
        prompt = (times.beta + times.gamma) * times.input_tokens  # seconds of a prompt's own work
        rho = np.clip(lam * prompt, 0.0, 1.0)
        rest = np.maximum(goals.ttft - times.prefill(in_service), 0.0)
        late_behind = rho * np.exp(-2.0 * (1.0 - rho) * rest / np.maximum(prompt, 1e-300))
        slow = np.where(np.isnan(goals.itl), np.inf, (goals.itl - times.decode(0)) / step)
        late_itl = np.where(slow < N, above(np.minimum(slow, N)), 0.0)
    late = np.fmax(np.fmax(late_prefill, late_wait), late_behind)
    return np.where(np.isnan(goals.ttft), 0.0, np.nan_to_num(late)), np.where(np.isnan(goals.itl), 0.0, late_itl)


def _log_series(a: FloatArray, R: FloatArray) -> FloatArray:
    """Logarithm of the sum over j = 0..R-1 of exp(-a j), for any real R from 1."""
    near = np.abs(a) * R < 1e-6
    safe = np.where(near, 1.0, np.abs(a))
    # for a < 0 the series is turned round: its largest term is the last
    log = np.log(-np.expm1(-safe * R)) - np.log(-np.expm1(-safe)) + np.where(a < 0, safe * (R - 1.0), 0.0)
    return np.asarray(np.where(near, np.log(R) - a * (R - 1.0) / 2.0, log))


def _mean_below_top(a: FloatArray, R: FloatArray) -> FloatArray:
    """Mean j under the weights exp(-a j), j = 0..R-1."""
    near = np.abs(a) * R < 1e-4
    safe = np.where(near, 1.0, a)
    with np.errstate(over="ignore"):
        mean = 1.0 / np.expm1(safe) - R / np.expm1(safe * R)
    return np.where(near, (R - 1.0) / 2.0 - a * (R * R - 1.0) / 12.0, np.clip(mean, 0.0, R - 1.0))
