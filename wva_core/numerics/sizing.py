"""
What one replica does at a given request rate, and the highest rate at which it keeps latency objectives.

Every row is one replica of one engine. Rates are requests/s arriving at that replica, times are seconds, and every
latency is a mean, except where a quantile is asked for.

*Time to first token* is the wait and the prefill, whose last step gives the first token. It is the same in analysis,
in sizing and in what is reported, so an objective and a measurement are about one thing. With `compat=True` sizing
adds one decode step, as upstream does there and nowhere else; an objective of twice the idle time can never hold then.

The *range* of rates is that of upstream: from 0.001 mu[1] to 0.999 mu[N].

Source: upstream WVA v0.9, queue analyzer and allocation sizing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wva_core.errors import ParameterError
from wva_core.numerics.birth_death import Occupancy, steady_state_of_work, wait_exceedance, wait_quantile
from wva_core.numerics.monotone_search import BELOW, largest_within
from wva_core.numerics.service_times import ServiceTimes

__all__ = [
    "WAIT_MARGIN",
    "Analysis",
    "AnalysisStatus",
    "Sizing",
    "SizingStatus",
    "ZeroLoad",
    "analyze",
    "rate_range",
    "size",
    "zero_load",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
_Latency: TypeAlias = Callable[[Occupancy, ServiceTimes], FloatArray]

WAIT_MARGIN = -math.log(1 - 0.95)
"""How often the mean fits into the 95th percentile of an exponential time: what g0 divides its wait objective by."""

_EDGE = 0.001
# Share of mu[1] and of mu[N] by which the range of rates stays away from 0 and from saturation (upstream).

_SAFE_SHARE = 0.9
# Share of the highest rate that is planned with where a throughput is asked for (upstream: 0.1 for stability).

_TINY = 1e-300


class AnalysisStatus(IntEnum):
    """What an analysis is worth."""

    OK = 0
    UNUSABLE = 1
    """The parameters or lengths describe no replica; every figure is NaN."""
    NO_RATE = 2
    """The rate is not known or below 0; every figure is NaN."""
    ABOVE_RANGE = 3
    """The rate is above what the replica can serve; the figures are those of its full queue."""


class SizingStatus(IntEnum):
    """What limits the rate of a replica."""

    OK = 0
    """An objective does."""
    SLACK = 1
    """Every objective holds at every rate of the range, whose end is the answer."""
    BELOW = 2
    """An objective fails at the lowest rate already; the rates it decides are NaN."""
    UNUSABLE = 3
    """The parameters, lengths or objectives describe nothing; every figure is NaN."""


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """
    One replica at one rate; every field is (Q,).

    Attributes:
        throughput: requests/s let in, and served.
        response: seconds from arrival to the last token.
        wait: seconds before service begins.
        in_service: requests served together, on average.
        prefill: seconds; NaN in g0.
        itl: seconds between tokens; in g0, of any token.
        ttft: seconds to the first token; NaN in g0.
        utilization: `in_service` over the batch, at most 1.
        busy: probability that the replica is not idle.
        blocking: probability that an arrival is turned away.
        max_rate: end of the range of rates, requests/s.
        status: `AnalysisStatus`.
        occupancy: the queue itself, for the distribution of the wait.
    """

    throughput: FloatArray
    response: FloatArray
    wait: FloatArray
    in_service: FloatArray
    prefill: FloatArray
    itl: FloatArray
    ttft: FloatArray
    utilization: FloatArray
    busy: FloatArray
    blocking: FloatArray
    max_rate: FloatArray
    status: IntArray
    occupancy: Occupancy


@dataclass(frozen=True, slots=True, eq=False)
class Sizing:
    """
    The highest rate of one replica that keeps its objectives; every field is (Q,).

    Attributes:
        rate_ttft: requests/s up to which the time to first token holds; the end of the range without that objective.
        rate_itl: the same for the time between tokens.
        rate_wait: the same for the wait.
        rate_tps: 0.9 of the range where a throughput is asked for.
        rate: the smallest of them: what may arrive.
        throughput: what of it is served; upstream's g1 and g2 plan with this.
        idle_ttft: the time to first token at the lowest rate, below which no objective can be kept.
        idle_itl: the same between tokens.
        idle_wait: the same for the wait.
        status: `SizingStatus`.
        analysis: the replica at `rate`.
    """

    rate_ttft: FloatArray
    rate_itl: FloatArray
    rate_wait: FloatArray
    rate_tps: FloatArray
    rate: FloatArray
    throughput: FloatArray
    idle_ttft: FloatArray
    idle_itl: FloatArray
    idle_wait: FloatArray
    status: IntArray
    analysis: Analysis


@dataclass(frozen=True, slots=True, eq=False)
class ZeroLoad:
    """What a replica without load is said to do; (Q,) seconds, seconds and requests/s."""

    itl: FloatArray
    ttft: FloatArray
    max_rate: FloatArray


def rate_range(times: ServiceTimes) -> tuple[FloatArray, FloatArray]:
    """(Q,) lowest and highest rate, requests/s, that sizing considers; NaN where `times` is unusable."""
    usable = times.usable
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _EDGE / times.work(1), (1 - _EDGE) * times.max_batch / times.work(times.max_batch)
    return np.where(usable, np.minimum(low, high), np.nan), np.where(usable, high, np.nan)


def analyze(
    times: ServiceTimes, rate: ArrayLike, capacity: ArrayLike | None = None, *, compat: bool = False
) -> Analysis:
    """
    Latencies and fill of replicas at given request rates.

    Args:
        times: (Q,) replicas.
        rate: (Q,) or one for all: requests/s arriving at the replica. 0 gives the latencies of a lone request.
        capacity: (Q,) or one for all: requests inside at most; `times.capacity` by default.
        compat: as upstream, NaN for a rate of 0 and for one above the range.

    Cost: one pass over the states of all queues, about 15 ms for Q = 10,000 and a batch of 256.
    """
    rates = np.broadcast_to(np.asarray(rate, dtype=np.float64), (len(times),))
    inside, sane = _capacity(times, capacity)
    usable = times.usable & sane
    known = np.isfinite(rates) & ((rates > 0) if compat else (rates >= 0))
    _, highest = rate_range(times)
    above = rates > highest
    status = np.select(
        [~usable, ~known, above],
        [AnalysisStatus.UNUSABLE, AnalysisStatus.NO_RATE, AnalysisStatus.ABOVE_RANGE],
        AnalysisStatus.OK,
    ).astype(np.int64)
    told = usable & known & (~above if compat else True)
    queue = _Queues.of(times, inside, told)
    occupancy = queue.at(np.where(told, rates, np.nan), with_busy=True)
    prefill, itl = _steps(occupancy, times, compat=compat)
    prefill, itl = np.where(told, prefill, np.nan), np.where(told, itl, np.nan)
    return Analysis(
        throughput=occupancy.throughput,
        response=occupancy.response,
        wait=occupancy.wait,
        in_service=occupancy.in_service,
        prefill=prefill,
        itl=itl,
        ttft=occupancy.wait + prefill,
        utilization=np.clip(occupancy.in_service / np.maximum(times.max_batch, 1), 0.0, 1.0),
        busy=occupancy.busy,
        blocking=occupancy.blocking,
        max_rate=highest,
        status=status,
        occupancy=occupancy,
    )


def size(
    times: ServiceTimes,
    *,
    ttft: ArrayLike | None = None,
    itl: ArrayLike | None = None,
    wait: ArrayLike | None = None,
    tps: ArrayLike | None = None,
    capacity: ArrayLike | None = None,
    quantile: float | None = None,
    compat: bool = False,
) -> Sizing:
    """
    The highest request rate of replicas that keeps every objective.

    Objectives are (Q,) or one for all; 0 and NaN stand for no objective, as upstream has it; below 0 the row is
    unusable. An objective that holds exactly at the rate given is never missed by it: of the last bracket, the lower
    end is taken.

    Args:
        times: (Q,) replicas.
        ttft: seconds to the first token.
        itl: seconds between tokens.
        wait: mean seconds before service begins. For g0, whose objective is a 95th percentile, give it divided by
            `WAIT_MARGIN`.
        tps: any tokens/s asked for; only that there is one matters here.
        capacity: as in `analyze`.
        quantile: makes `ttft` and `wait` objectives for this share of requests, from the distribution of the wait
            (mean prefill on top). None is for the mean.
        compat: a decode step counts towards `ttft` (g2), and rates of 0 are refused as in `analyze`.

    Raises:
        ParameterError: `ttft` for g0, which knows none; a quantile outside 0 to 1.

    Cost: about a dozen passes as in `analyze` for each kind of objective.
    """
    if ttft is not None and times.generation == "g0":
        raise ParameterError("is not known to g0", key="ttft", remedy="give a wait, or parameters of g1 or g2")
    if quantile is not None and not 0 < quantile < 1:
        raise ParameterError("is not a share", key="quantile", value=quantile, remedy="give a number between 0 and 1")
    queues = len(times)
    inside, sane = _capacity(times, capacity)
    targets = {"ttft": _target(ttft, queues), "itl": _target(itl, queues), "wait": _target(wait, queues)}
    throughput_asked = _target(tps, queues)
    usable = times.usable & sane
    for target in (*targets.values(), throughput_asked):
        usable &= ~(target < 0)
    low, high = rate_range(times)
    low, high = np.where(usable, low, np.nan), np.where(usable, high, np.nan)

    step = compat and times.generation == "g2"
    latencies: dict[str, _Latency] = {
        "ttft": lambda occupancy, some: occupancy.wait + _until_token(occupancy, some, step=step, compat=compat),
        "itl": lambda occupancy, some: _steps(occupancy, some, compat=compat)[1],
        "wait": lambda occupancy, _: occupancy.wait,
    }
    # for a share of requests: the part of the latency behind the wait
    behind_wait: dict[str, _Latency] = {}
    if quantile is not None:
        behind_wait = {
            "ttft": lambda occupancy, some: _until_token(occupancy, some, step=step, compat=compat),
            "wait": lambda occupancy, _: np.zeros_like(occupancy.wait),
        }
    search = _Search(times, inside, low, high, quantile)
    rates, lowest, below = {}, {}, np.zeros(queues, dtype=bool)
    idle = _Queues.of(times, inside, usable).at(low, with_busy=False)
    for name, latency in latencies.items():
        after = behind_wait.get(name)
        rates[name], missed = search.rate(targets[name], latency, after)
        if after is None or quantile is None:
            least = latency(idle, times)
        else:
            least = wait_quantile(idle, quantile) + after(idle, times)
        lowest[name] = np.where(usable, least, np.nan)
        below |= missed
    rates["tps"] = np.where(throughput_asked > 0, _SAFE_SHARE * high, high)
    smallest = np.minimum.reduce(list(rates.values()))  # NaN where an objective cannot be kept
    status = np.select(
        [~usable, below, smallest >= high], [SizingStatus.UNUSABLE, SizingStatus.BELOW, SizingStatus.SLACK]
    ).astype(np.int64)
    analysis = analyze(times, smallest, inside)
    return Sizing(
        rate_ttft=rates["ttft"],
        rate_itl=rates["itl"],
        rate_wait=rates["wait"],
        rate_tps=rates["tps"],
        rate=smallest,
        throughput=analysis.throughput,
        idle_ttft=lowest["ttft"],
        idle_itl=lowest["itl"],
        idle_wait=lowest["wait"],
        status=status,
        analysis=analysis,
    )


def zero_load(times: ServiceTimes) -> ZeroLoad:
    """
    What upstream says of replicas that nobody uses, whatever the lengths: one request with one token.

    The highest rate is that of requests with a token each, not of real ones; upstream prints it, nothing plans with it.

    Source: upstream WVA v0.4 to v0.9, allocation for zero load.
    """
    a, b, n = times.alpha, times.beta, times.max_batch.astype(np.float64)
    if times.generation == "g0":
        return ZeroLoad(a + b, np.zeros(len(times)), n / (a + b * n))
    if times.generation == "g1":
        first = times.gamma + times.delta
        return ZeroLoad(a + b, first, n / (first + a + b * n))
    return ZeroLoad(a + b, a + b, n / (2 * a + b + b * n))


# ---------------------------------------------------------------------------------------------------------------------
# Latencies of a queue


def _capacity(times: ServiceTimes, capacity: ArrayLike | None) -> tuple[IntArray, BoolArray]:
    """(Q,) requests inside at most, and whether that is a number from 1."""
    if capacity is None:
        return np.maximum(times.capacity, 1), np.ones(len(times), dtype=bool)
    given = np.broadcast_to(np.asarray(capacity).astype(np.int64), (len(times),))
    return np.maximum(given, 1), given >= 1


def _target(target: ArrayLike | None, queues: int) -> FloatArray:
    """(Q,) objective, NaN for none."""
    if target is None:
        return np.full(queues, np.nan)
    values = np.broadcast_to(np.asarray(target, dtype=np.float64), (queues,))
    return np.where(values == 0, np.nan, values)


def _steps(occupancy: Occupancy, times: ServiceTimes, *, compat: bool) -> tuple[FloatArray, FloatArray]:
    """(Q,) seconds of the prefill and between tokens, as the generation derives them from the queue."""
    if times.generation == "g0":
        return np.full(len(times), np.nan), occupancy.service / np.where(times.decodes > 0, times.decodes, np.nan)
    if times.generation == "g1":
        batch = times.effective_batch(occupancy.service, compat=compat)
        batch = np.where(np.isnan(batch), occupancy.in_service, batch)  # constant work: any batch gives the same
        return times.prefill(batch), times.decode(batch)
    prefill = times.prefill(occupancy.in_service)
    return prefill, (occupancy.service - prefill) / np.where(times.decodes > 0, times.decodes, np.nan)


def _until_token(occupancy: Occupancy, times: ServiceTimes, *, step: bool, compat: bool) -> FloatArray:
    """(Q,) seconds from the beginning of service to the first token."""
    prefill, itl = _steps(occupancy, times, compat=compat)
    return prefill + itl if step else prefill


@dataclass(frozen=True, slots=True, eq=False)
class _Queues:
    """The queues behind replicas; unusable rows are replaced by something that can be computed."""

    base: FloatArray
    slope: FloatArray
    batch: IntArray
    capacity: IntArray

    @classmethod
    def of(cls, times: ServiceTimes, capacity: IntArray, usable: BoolArray) -> _Queues:
        return cls(
            np.where(usable, times.base, 1.0),
            np.where(usable, times.slope, 0.0),
            np.where(usable, times.max_batch, 1),
            capacity,
        )

    def at(self, rate: FloatArray, *, with_busy: bool) -> Occupancy:
        return steady_state_of_work(rate, self.base, self.slope, self.batch, self.capacity, with_busy=with_busy)


class _Search:
    """The highest rates that keep an objective, within the range of each replica."""

    def __init__(
        self, times: ServiceTimes, capacity: IntArray, low: FloatArray, high: FloatArray, quantile: float | None
    ) -> None:
        self._times, self._capacity = times, capacity
        self._low, self._high, self._quantile = low, high, quantile

    def rate(self, target: FloatArray, latency: _Latency, after: _Latency | None) -> tuple[FloatArray, BoolArray]:
        """
        (Q,) rates, the end of the range where there is no objective, NaN where it cannot be kept; and where that is.

        `after` is the part of the latency behind the wait, where the objective is for a share of requests: then the
        question is how many wait longer than what is left, and no quantile has to be found for it.
        """
        rows = np.flatnonzero((target > 0) & ~np.isnan(self._high))
        rates, missed = self._high.copy(), np.zeros(len(target), dtype=bool)
        if not len(rows):
            return rates, missed
        times, capacity, goal = self._times.take(rows), self._capacity[rows], target[rows]

        def residual(rate: FloatArray, which: IntArray) -> FloatArray:
            some = times.take(which)
            queues = _Queues.of(some, capacity[which], np.ones(len(which), dtype=bool))
            occupancy = queues.at(rate, with_busy=False)
            if after is None or self._quantile is None:
                value, bound = latency(occupancy, some), goal[which]
            else:
                value = wait_exceedance(occupancy, goal[which] - after(occupancy, some))
                bound = np.full(len(which), 1 - self._quantile)
            return np.log(np.maximum(value, _TINY)) - np.log(bound)

        found, side = largest_within(residual, self._low[rows], self._high[rows])
        rates[rows] = np.where(side == BELOW, np.nan, found)
        missed[rows] = side == BELOW
        return rates, missed
