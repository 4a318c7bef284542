"""
Finite queues in front of one station whose speed depends on how many requests it serves.

Up to `batch` requests are served together and at most `capacity` are inside; whoever arrives then is turned away.
With n inside, a request leaves every 1/mu[min(n, batch)] seconds on average. Arrivals are Poisson, times exponential.

All queues are solved at once: the loop runs over states, numpy over queues. The recursion is that of Erlang's loss
formula: with w[n] the weight of n inside and `share` = w[n] / (w[0] + ... + w[n]),

    t = lam / mu[n] * share,   share = t / (1 + t),   mean += share * (n - mean)

Every quantity stays between 0 and n, so nothing overflows at any load, and nothing is subtracted that is close. What
is beyond `batch` is a geometric series, summed by doubling: no term is lost at r = lam / mu[batch] = 1 or near it.

Letters: lam arrival rate in requests/s, mu service rates in requests/s, N batch, K capacity, M = K - N waiting places.
Shapes: Q queues.

Source: Kleinrock, Queueing Systems I, ch. 3 (birth-death balance); upstream WVA v0.9, state-dependent queue, whose
mean wait is the difference of two means held in single precision and whose cost grows with the capacity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wva_core.errors import ParameterError
from wva_core.numerics.monotone_search import largest_within

__all__ = ["Occupancy", "steady_state", "steady_state_of_work", "wait_exceedance", "wait_quantile"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

_Filler: TypeAlias = Callable[[int, FloatArray], None]
"""Writes lam / mu[n] of the first queues into the array it is given."""

_BLOCK = 8192
# Queues in one pass: their columns stay in the cache of a core. Larger was slower, smaller pays more calls.

_NEAR_ONE = 1e-6
# A series whose ends differ by less is treated as if they differed by this much; the quantile moves by as little.


@dataclass(frozen=True, slots=True, eq=False)
class Occupancy:
    """
    Where requests are in the long run; every field is (Q,), NaN where the arrival rate was NaN.

    Attributes:
        inside: mean number inside, waiting or in service.
        in_service: mean number in service.
        queue: mean number waiting.
        throughput: requests/s that are let in, and leave.
        response: mean seconds inside; with no arrivals, that of a lone request.
        service: mean seconds in service; with no arrivals, that of a lone request.
        wait: mean seconds waiting.
        busy: probability that somebody is inside; NaN if it was not asked for.
        blocking: probability that an arrival is turned away.
        delayed: probability that an arrival which is let in has to wait.
        drain: requests/s that leave while somebody waits.
        growth: arrival rate over `drain`.
        places: number of waiting places.
    """

    inside: FloatArray
    in_service: FloatArray
    queue: FloatArray
    throughput: FloatArray
    response: FloatArray
    service: FloatArray
    wait: FloatArray
    busy: FloatArray
    blocking: FloatArray
    delayed: FloatArray
    drain: FloatArray
    growth: FloatArray
    places: FloatArray


def steady_state(
    lam: ArrayLike, mu: ArrayLike, batch: ArrayLike, capacity: ArrayLike, *, with_busy: bool = True
) -> Occupancy:
    """
    Stationary occupancy of finite queues whose service rate depends on how many requests are inside.

    Args:
        lam: (Q,) arrival rates, requests/s; 0 is an idle queue, NaN yields NaN in every result of that queue.
        mu: (N, Q) service rates, requests/s; row n-1 applies with n inside, row `batch`-1 with more.
        batch: (Q,) or one for all: requests served together, 1 to N; rows beyond it are not read.
        capacity: (Q,) or one for all: requests inside at most, from 1; may be smaller than `batch`.
        with_busy: False leaves `busy` NaN and saves a third of the time.

    Raises:
        ParameterError: an arrival rate below 0, a rate in `mu` that is not positive and is read, a batch or a capacity
            out of range; names the first queue.

    Cost: as `steady_state_of_work`, and one more read of `mu`.
    """
    rates = np.atleast_2d(np.asarray(mu, dtype=np.float64))
    lam, batch, capacity = _checked(lam, batch, capacity, rates.shape[1])
    rates = np.broadcast_to(rates, (rates.shape[0], len(lam)))
    if len(lam) and int(batch.max()) > rates.shape[0]:
        queue = int(np.argmax(batch))
        raise ParameterError(
            "is more than there are service rates",
            object=f"queue {queue}",
            key="batch",
            value=int(batch[queue]),
            remedy=f"give a row of mu for each state; there are {rates.shape[0]}",
        )
    read = np.arange(rates.shape[0])[:, None] < batch
    wrong = read & ~((rates > 0) & np.isfinite(rates))
    if wrong.any():
        queue = int(np.argmax(wrong.any(axis=0)))
        state = int(np.argmax(wrong[:, queue]))
        raise ParameterError(
            f"with {state + 1} inside is not a positive service rate",
            object=f"queue {queue}",
            key="mu",
            value=float(rates[state, queue]),
            remedy="give requests/s above 0",
        )

    def of(rows: IntArray) -> tuple[_Filler, FloatArray, FloatArray]:
        arrivals, table = lam[rows], rates[:, rows]

        def fill(state: int, out: FloatArray) -> None:
            np.divide(arrivals[: len(out)], table[state - 1, : len(out)], out=out)

        return fill, table[batch[rows] - 1, np.arange(len(rows))], table[0]

    return _solve(lam, batch, capacity, of, with_busy=with_busy)


def steady_state_of_work(
    lam: ArrayLike,
    base: ArrayLike,
    slope: ArrayLike,
    batch: ArrayLike,
    capacity: ArrayLike,
    *,
    with_busy: bool = True,
) -> Occupancy:
    """
    `steady_state` where the work of a request grows by a fixed amount with each other: mu[n] = n / (base + slope n).

    Args:
        lam: as in `steady_state`.
        base: (Q,) seconds of work that do not depend on the others.
        slope: (Q,) seconds for each request served together with it, itself included.
        batch: as in `steady_state`.
        capacity: as in `steady_state`.
        with_busy: as in `steady_state`.

    Raises:
        ParameterError: as in `steady_state`; work that is not positive with 1 or with `batch` inside.

    Cost: about 15 ms for Q = 10,000 and N = 256 on one core, whatever the capacity; memory O(Q).
    """
    lam, batch, capacity = _checked(lam, batch, capacity)
    constant = np.broadcast_to(np.asarray(base, dtype=np.float64), lam.shape)
    rise = np.broadcast_to(np.asarray(slope, dtype=np.float64), lam.shape)
    for inside in (np.ones_like(batch), batch):
        work = constant + rise * inside
        wrong = ~((work > 0) & np.isfinite(work))
        if wrong.any():
            queue = int(np.argmax(wrong))
            raise ParameterError(
                f"is not positive with {int(inside[queue])} inside",
                object=f"queue {queue}",
                key="base + slope n",
                value=float(work[queue]),
                remedy="give seconds above 0",
            )

    def of(rows: IntArray) -> tuple[_Filler, FloatArray, FloatArray]:
        offset, each = lam[rows] * constant[rows], lam[rows] * rise[rows]

        def fill(state: int, out: FloatArray) -> None:
            np.multiply(offset[: len(out)], 1.0 / state, out=out)
            out += each[: len(out)]

        full = batch[rows]
        return fill, full / (constant[rows] + rise[rows] * full), 1.0 / (constant[rows] + rise[rows])

    return _solve(lam, batch, capacity, of, with_busy=with_busy)


def wait_exceedance(occupancy: Occupancy, seconds: ArrayLike) -> FloatArray:
    """
    (Q,) probability that a request which is let in waits longer than `seconds`.

    Exact for this queue, served in order of arrival: a request that finds N + j inside waits for j + 1 departures, one
    every 1/`drain` seconds, and the number found is geometric, cut at the last place. With x = drain * seconds, r =
    `growth` and F(m, x) the probability that a Poisson number of mean x is at most m,

        P = delayed * (exp(-x (1 - r)) F(M-1, r x) - r^M F(M-1, x)) / (1 - r^M)

    Negative `seconds` are exceeded by everybody. NaN stays NaN.

    Source: own; the sum over j of r^j F(j, x), exchanged with the sum inside F. Without a limit (M infinite, r < 1) it
    is the exponential tail of the M/M/c queue, Kleinrock, Queueing Systems I, sec. 3.5.
    """
    threshold = np.broadcast_to(np.asarray(seconds, dtype=np.float64), occupancy.wait.shape)
    waits = occupancy.delayed > 0
    tail = np.where(np.isnan(occupancy.delayed) | np.isnan(threshold), np.nan, 0.0)
    rows = np.flatnonzero(waits & (threshold >= 0))
    if len(rows):
        tail[rows] = occupancy.delayed[rows] * _still_waiting(
            occupancy.drain[rows] * threshold[rows], occupancy.growth[rows], occupancy.places[rows]
        )
    tail[threshold < 0] = np.where(np.isnan(occupancy.delayed[threshold < 0]), np.nan, 1.0)
    return tail


def wait_quantile(occupancy: Occupancy, q: float) -> FloatArray:
    """
    (Q,) seconds within which a share `q` of the requests that are let in begins to be served.

    0 where at most a share 1 - `q` has to wait at all. Exact for this queue up to a relative 1e-6; NaN stays NaN.

    Args:
        occupancy: the queues.
        q: from 0 to 1 - 1e-9.
    """
    if not 0 <= q <= 1 - 1e-9:
        raise ParameterError("is not a share", key="q", value=q, remedy="give a number from 0 to 0.999999999")
    quantile = np.where(np.isnan(occupancy.delayed), np.nan, 0.0)
    rows = np.flatnonzero(occupancy.delayed > 1 - q)
    if len(rows):
        places, growth = occupancy.places[rows], occupancy.growth[rows]
        goal = np.log((1 - q) / occupancy.delayed[rows])

        def residual(x: FloatArray, which: IntArray) -> FloatArray:
            return goal[which] - np.log(np.maximum(_still_waiting(x, growth[which], places[which]), 1e-300))

        # The sum of at most M stages: beyond this bound less than exp(-30) is left.
        bound = places + 12 * np.sqrt(places) + 40
        stages, _ = largest_within(residual, np.zeros(len(rows)), bound, rtol=1e-9)
        quantile[rows] = stages / occupancy.drain[rows]
    return quantile


# ---------------------------------------------------------------------------------------------------------------------
# One pass over states


def _checked(
    lam: ArrayLike, batch: ArrayLike, capacity: ArrayLike, queues: int | None = None
) -> tuple[FloatArray, IntArray, IntArray]:
    """Arrival rates and sizes as columns of one length, or a refusal that names the first wrong queue."""
    arrivals = np.atleast_1d(np.asarray(lam, dtype=np.float64))
    if queues is not None and len(arrivals) == 1:
        arrivals = np.broadcast_to(arrivals, (queues,))
    wrong = (arrivals < 0) | np.isinf(arrivals)
    if wrong.any():
        queue = int(np.argmax(wrong))
        raise ParameterError(
            "is not an arrival rate",
            object=f"queue {queue}",
            key="lam",
            value=float(arrivals[queue]),
            remedy="give requests/s from 0, or NaN where it is not known",
        )
    sizes = []
    for key, given in (("batch", batch), ("capacity", capacity)):
        size = np.broadcast_to(np.asarray(given).astype(np.int64), arrivals.shape)
        if (size < 1).any():
            queue = int(np.argmax(size < 1))
            raise ParameterError(
                "is below 1", object=f"queue {queue}", key=key, value=int(size[queue]), remedy="give a whole number"
            )
        sizes.append(size)
    return arrivals, sizes[0], sizes[1]


def _solve(
    lam: FloatArray,
    batch: IntArray,
    capacity: IntArray,
    of: Callable[[IntArray], tuple[_Filler, FloatArray, FloatArray]],
    *,
    with_busy: bool,
) -> Occupancy:
    """
    All queues, in blocks sorted by the number of states to walk through, so that each state is a prefix of the block.

    `of(rows)` gives what fills lam / mu[n] for these queues, their service rate with `batch` inside and with one.
    """
    limit = np.minimum(batch, capacity)
    order = np.argsort(-limit, kind="stable")
    results = np.empty((13, len(lam)))
    for start in range(0, len(lam), _BLOCK):
        rows = order[start : start + _BLOCK]
        fill, drain, lone = of(rows)
        results[:, rows] = _block(lam[rows], limit[rows], capacity[rows], fill, drain, lone, with_busy=with_busy)
    return Occupancy(*results)


def _block(
    lam: FloatArray,
    limit: IntArray,
    capacity: IntArray,
    fill: _Filler,
    drain: FloatArray,
    lone: FloatArray,
    *,
    with_busy: bool,
) -> tuple[FloatArray, ...]:
    """The fields of `Occupancy` for queues sorted by falling `limit`."""
    share, mean, ratio, busy = _walk(limit, fill, with_busy=with_busy)
    places = (capacity - limit).astype(np.float64)  # K <= N has no place to wait
    growth = lam / drain
    over = growth > 1
    with np.errstate(divide="ignore"):
        z = np.where(over, 1.0 / growth, growth)  # the series is summed from its larger end
    shorter = np.maximum(places - 1, 0)
    power, plain, rising, falling = _series(z, shorter)
    whole = plain + power
    has_places = places > 0

    # Weights of the tail relative to those up to N, or, where the tail grows, all relative to its last term.
    head = np.where(over, z * power, 1.0)
    tail = share * np.where(over, whole, z * whole)
    waiting = share * np.where(over, falling + whole, z * (rising + shorter * power + whole))
    let_in = np.where(over, z * (power + share * plain), 1.0 + share * z * plain)
    turned_away = share * np.where(over, 1.0, z * power)
    # The states with all N in service and a place left: N to K-1, which is the tail shifted down by one.
    full = share * np.where(over, z * whole, whole)

    total = np.where(has_places, head + tail, 1.0)
    accepted = np.where(has_places, let_in / total, 1.0 / (1.0 + ratio))
    blocking = np.where(has_places, turned_away / total, share)
    queue = np.where(has_places, waiting / total, 0.0)
    in_service = np.where(has_places, (head * mean + limit * tail) / total, mean)
    occupied = np.where(has_places, (head * busy + tail) / total, busy)
    delayed = np.where(has_places, full / np.where(has_places, let_in, 1.0), 0.0)

    throughput = lam * accepted
    idle = lam == 0
    flow = np.where(idle, 1.0, throughput)
    service = np.where(idle, 1.0 / lone, in_service / flow)
    wait = np.where(idle, 0.0, queue / flow)
    unknown = np.isnan(lam)
    fields = (
        in_service + queue,
        in_service,
        queue,
        throughput,
        service + wait,
        service,
        wait,
        occupied,
        blocking,
        delayed,
        drain,
        growth,
        places,
    )
    return tuple(np.where(unknown, np.nan, field) for field in fields)


def _walk(limit: IntArray, fill: _Filler, *, with_busy: bool) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """
    (Q,) share of the last state among states 0 to `limit`, mean state, last t, and share of states above 0.
    """
    queues = len(limit)
    share, mean = np.ones(queues), np.zeros(queues)
    busy = np.zeros(queues) if with_busy else np.full(queues, np.nan)
    ratio, spare = np.empty(queues), np.empty(queues)
    deepest = int(limit[0]) if queues else 0
    counts = np.searchsorted(-limit, -np.arange(1, deepest + 1), side="right")
    # Fewer queues reach a later state; what was written for the others stays as it is.
    for state, count in enumerate(counts.tolist(), start=1):
        t, s, m, c = ratio[:count], share[:count], mean[:count], spare[:count]
        fill(state, t)
        t *= s
        np.add(t, 1.0, out=c)
        np.divide(t, c, out=s)
        np.subtract(float(state), m, out=c)
        c *= s
        m += c
        if with_busy:
            b = busy[:count]
            np.subtract(1.0, b, out=c)
            c *= s
            b += c
    return share, mean, ratio, busy


def _series(z: FloatArray, terms: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """
    z^m, and the sums over i = 0..m-1 of z^i, i z^i and (m - i) z^i, where m is `terms` and z at most 1.

    By doubling, from the first binary digit of m to the last: only positive numbers are added.
    """
    counts = terms.astype(np.int64)
    done = np.zeros_like(z)
    power, plain, rising, falling = np.ones_like(z), np.zeros_like(z), np.zeros_like(z), np.zeros_like(z)
    for digit in reversed(range(int(counts.max(initial=0)).bit_length())):
        step = done * plain
        rising = rising + power * (rising + step)
        falling = falling + step + power * falling
        plain = plain * (1.0 + power)
        power = power * power
        done = 2 * done
        one = ((counts >> digit) & 1).astype(bool)
        rising = np.where(one, rising + done * power, rising)
        plain = np.where(one, plain + power, plain)
        falling = np.where(one, falling + plain, falling)
        power = np.where(one, power * z, power)
        done = np.where(one, done + 1, done)
    return power, plain, rising, falling


# ---------------------------------------------------------------------------------------------------------------------
# The distribution of the wait


def _still_waiting(x: FloatArray, growth: FloatArray, places: FloatArray) -> FloatArray:
    """Probability that who has to wait still waits after x mean departures; x from 0, at least one place."""
    exponent = places * np.log(growth)
    exponent = np.where(np.abs(exponent) < _NEAR_ONE, -_NEAR_ONE, exponent)
    r = np.exp(exponent / places)
    log_far, log_near = _log_poisson_at_most(places - 1, r * x), _log_poisson_at_most(places - 1, x)
    light = exponent < 0
    # Each relative to the larger end of the series, so that no exponent is large.
    first = np.where(light, (r - 1) * x + log_far, log_near)
    second = np.where(light, exponent + log_near, (r - 1) * x - exponent + log_far)
    difference = np.exp(np.minimum(first, 0.0)) - np.exp(np.minimum(second, 0.0))
    return np.clip(difference / -np.expm1(-np.abs(exponent)), 0.0, 1.0)


def _log_poisson_at_most(most: FloatArray, mean: FloatArray) -> FloatArray:
    """Logarithm of the probability that a Poisson number is at most `most`; far out by its leading terms."""
    from scipy.special import gammaincc, gammaln

    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.log(gammaincc(most + 1, mean))
        # F(m, y) = P(m, y) (1 + m/y + m(m-1)/y^2 + ...), between the term itself and a geometric series.
        far = -mean + most * np.log(mean) - gammaln(most + 1) - np.log1p(-most / mean)
        logarithm: FloatArray = np.where(np.isfinite(near), near, far)
    return logarithm
