"""
The load to plan for: what may come before a replica that is asked for now could serve.

Whoever lets a replica go has to do without it for a start-up, and whoever asks for one waits as long. So the load to
plan for is not that of now but that of a start-up later, as far as the past tells: it is regressed on the load before,
and what the line misses is kept as a histogram.

    later = intercept + slope load + error

Smooth traffic has a slope of one and small errors: capacity follows the load closely, both ways. Bursts out of nothing
have a slope near zero and rare, large errors: capacity stays near the height of a burst, however little load there is
now. So how long replicas are kept follows from the bursts and the start-ups that were seen; no window is set.

Errors count by the requests that met them: a burst is met by many. What is planned for is the load for which the share
of requests that are late, over all errors, is what the objective allows. How many are late at which multiple of the
planned load is told by the queueing model, so a load somewhat above the plan costs what it does and no more. Rates are
averages over a minute; how uneven they are inside it shows in how they move from cycle to cycle.

Letters: S scopes, H past loads, B bins of the histogram, U points of a table of lateness, load in replicas that
work all the time. What is old counts half every `_HALF_LIFE` seconds.

Source: own; a newsvendor with local regression, cf. Arrow, Harris, Marschak, "Optimal inventory policy", Econometrica
19 (1951).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wva_analyzers.queueing_model.seen import RATE_WINDOW
from wva_core.domain import BoolArray, FloatArray, IntArray

__all__ = ["OVERLOADS", "LoadHistory", "followed", "planned", "unseen", "watched"]

_HISTORY = 64  # past loads: 16 minutes at 15 s, the longest start-up that can be learnt about
_HALF_LIFE = 3600.0
_EDGES = np.linspace(-4.0, 8.0, 49)  # of the histogram, in standard deviations of the errors
_PRIOR = 20.0  # weight of what is believed before anything was seen, in samples
_AGAIN = 60.0  # weight of loads of the last quarter of an hour, in samples
_PRIOR_SD = 0.1  # relative: the load stays, give or take a tenth
_SUMS = 6  # weight, load, later, load², load later, error²
_APART = 4  # cycles between loads that have little of their windows in common
_LEAST_CHANGE = 0.3  # of the errors' standard deviation that is always taken for change
_PEAK_SHARE = 0.25  # of the standard deviation of a load inside a window
_SEARCH = 12  # halvings of the logarithm of the plan: to a thousandth
_MOST = 8.0  # times the largest load considered, and its inverse, are the ends of the search

OVERLOADS = np.linspace(0.4, 1.6, 13)
"""(U,) shares of the planned load at which lateness is told."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadHistory:
    """
    What is remembered of the load of every scope.

    Attributes:
        times: (H,) when the past loads were measured, seconds; NaN where there is none yet.
        loads: (S, H) past loads, oldest first; NaN not known.
        sums: (S, 6) weighted sums of the regression.
        errors: (S, B) loads met with an error of the line, by its standard deviations.
    """

    times: FloatArray
    loads: FloatArray
    sums: FloatArray
    errors: FloatArray

    def take(self, rows: IntArray) -> LoadHistory:
        """The same for other scopes; -1 stands for one that is new."""
        fresh = unseen(1)
        return LoadHistory(
            self.times,
            np.concatenate((self.loads, fresh.loads))[rows],
            np.concatenate((self.sums, fresh.sums))[rows],
            np.concatenate((self.errors, fresh.errors))[rows],
        )

    def plain(self) -> dict[str, FloatArray]:
        """As plain arrays, for a state."""
        return {"times": self.times, "loads": self.loads, "sums": self.sums, "errors": self.errors}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> LoadHistory:
        """What `plain` gave."""
        return cls(plain["times"], plain["loads"], plain["sums"], plain["errors"])


def unseen(scopes: int) -> LoadHistory:
    """A history in which nothing has happened."""
    return LoadHistory(
        np.full(_HISTORY, np.nan),
        np.full((scopes, _HISTORY), np.nan),
        np.zeros((scopes, _SUMS)),
        np.zeros((scopes, len(_EDGES) - 1)),
    )


def followed(history: LoadHistory, now: float, load: FloatArray, lead: FloatArray) -> LoadHistory:
    """
    The history with the load of now, and with what it teaches about that of a start-up ago.

    Args:
        history: so far.
        now: seconds.
        load: (S,) of now; NaN not known.
        lead: (S,) seconds from asking for a replica to having it.
    """
    times = np.append(history.times[1:], now)
    loads = np.concatenate((history.loads[:, 1:], load[:, None]), axis=1)
    with np.errstate(invalid="ignore"):
        within = times >= now - lead[:, None] - 1e-9
    first = np.argmax(within, axis=1)
    rows = np.arange(len(load))
    start = loads[rows, first]
    # A window that is not full yet tells nothing; one cycle is missing to it at most.
    step = now - times[-2] if np.isfinite(times[-2]) else np.inf
    full = (now - times[first] >= lead - step) & np.isfinite(start) & np.isfinite(load) & (first < len(times) - 1)
    # What a rate says before its window is full is a part of it, and what comes then would pass for a burst.
    full &= times[first] - _known_since(loads, times) >= RATE_WINDOW
    age = 0.5 ** (max(step, 0.0) / _HALF_LIFE) if np.isfinite(step) else 1.0
    sums, errors = history.sums * age, history.errors * age
    if np.any(full):
        x, y = np.where(full, start, 0.0), np.where(full, load, 0.0)
        intercept, slope, sd = _line(history.sums, np.where(full, start, 1.0))
        error = np.where(full, y - intercept - slope * x, 0.0)
        ones = full.astype(np.float64)
        sums = sums + np.stack((ones, x, y, x * x, x * y, error**2), axis=1)
        place = np.clip(np.searchsorted(_EDGES, error / sd, side="right") - 1, 0, len(_EDGES) - 2)
        errors[rows[full], place[full]] += load[full]
    return LoadHistory(times, loads, sums, errors)


def watched(history: LoadHistory, now: float, lead: FloatArray) -> BoolArray:
    """(S,) whether the load was followed for as long as `lead`, without which nothing can be said of what may come."""
    return np.asarray(now - _known_since(history.loads, history.times) >= lead, dtype=bool)


def _known_since(loads: FloatArray, times: FloatArray) -> FloatArray:
    """(S,) when the first of the loads was measured; NaN where there is none."""
    known = ~np.isnan(loads)
    return np.asarray(np.where(known.any(axis=1), times[np.argmax(known, axis=1)], np.nan))


def planned(
    history: LoadHistory, load: FloatArray, scatter: FloatArray, late: FloatArray, share: FloatArray
) -> FloatArray:
    """
    (S,) load to plan for: the least for which no more than `share` of the requests of a start-up later are late.

    At least the load of now, less what may be chance in it; NaN where that is not known.

    Args:
        history: so far.
        load: (S,) of now.
        scatter: (S,) variance of a measured load, by that load, while the true one stands still. That much of the
            errors is no change of the load, and in the queueing model already.
        late: (S, U) share of requests that are late if the load is `OVERLOADS` times what was planned for, not falling.
        share: (S,) that may be late.
    """
    intercept, slope, sd = _line(history.sums, load)
    expected = (intercept + slope * load)[:, None]
    chance = np.sqrt(scatter * np.nan_to_num(load))
    change = np.sqrt(np.maximum(sd**2 - chance**2, (_LEAST_CHANGE * sd) ** 2))
    erred = np.maximum(expected + change[:, None] * (_EDGES[1:] + _EDGES[:-1]) / 2.0, 0.0)
    # Before enough start-ups were followed, what is here may stay, and what was here may come again.
    again = np.nan_to_num(history.loads[:, ::_APART])
    again = np.where(again > 0, np.maximum(expected + (change / sd)[:, None] * (again - expected), 0.0), 0.0)
    count = np.maximum(np.sum(again > 0, axis=1), 1)[:, None]
    met = history.errors + _PRIOR * np.nan_to_num(load)[:, None] * _PRIOR_ERRORS
    loads = np.concatenate((erred, again), axis=1)
    weight = np.concatenate((met, _AGAIN * again / count), axis=1)
    weight /= np.maximum(weight.sum(axis=1), 1e-300)[:, None]
    late = _at_peaks(late, _unevenness(history, scatter))
    most = np.maximum(np.where(weight > 0, loads, 0.0).max(axis=1), 1e-9)
    low, high = np.log(most / _MOST), np.log(most * _MOST)
    for _ in range(_SEARCH):
        middle = (low + high) / 2.0
        missed = (weight * _at(late, loads / np.exp(middle)[:, None])).sum(axis=1) > share
        low, high = np.where(missed, middle, low), np.where(missed, high, middle)
    return np.asarray(np.fmax(load - chance, np.where(np.isnan(load), np.nan, np.exp(high))))


def _unevenness(history: LoadHistory, scatter: FloatArray) -> FloatArray:
    """
    (S,) by what share a load is above its average half of the time, inside the windows it is measured over.

    The average of a window moves by what enters it less what leaves it. With m parts to a window, each as long as a
    cycle, a step of the average has 2/m^2 times the variance of a part. What chance explains is taken off twice, since
    such a variance is itself known roughly only; of the rest a part counts, because what comes too fast for a few
    seconds is caught up with before most of it is late.
    """
    step = history.times[-1] - history.times[-2]
    if not 0.0 < step < RATE_WINDOW:
        return np.zeros(len(history.loads))
    part = step / RATE_WINDOW
    loads = np.nan_to_num(history.loads)
    moved = np.nan_to_num(np.diff(history.loads, axis=1))
    excess = (moved**2).sum(axis=1) / (2.0 * part**2) - 2.0 * scatter / part * loads.sum(axis=1)
    squares = np.maximum((loads**2).sum(axis=1), 1e-300)
    return np.asarray(_PEAK_SHARE * np.sqrt(np.clip(excess / squares, 0.0, 1.0)))


def _at_peaks(late: FloatArray, uneven: FloatArray) -> FloatArray:
    """(S, U) the same table if a load is above and below its average half of the time each; more arrive above it."""
    above, below = 1.0 + uneven[:, None], 1.0 - uneven[:, None]
    return (above * _at(late, above * OVERLOADS) + below * _at(late, below * OVERLOADS)) / 2.0


def _at(late: FloatArray, overload: FloatArray) -> FloatArray:
    """(S, B) lateness at some multiples of the planned load; that of the first below the table, all beyond it."""
    last = len(OVERLOADS) - 1
    place = (np.nan_to_num(overload) - OVERLOADS[0]) * (last / (OVERLOADS[-1] - OVERLOADS[0]))
    within = np.clip(place, 0.0, last - 1e-9)
    left = within.astype(np.int64)
    cell = left + (last + 1) * np.arange(len(late))[:, None]  # in the flattened table, which is quicker to read
    low = np.take(late, cell)
    inside = low + (within - left) * (np.take(late, cell + 1) - low)
    return np.asarray(np.where(place > last, 1.0, inside))


def _line(sums: FloatArray, level: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(S,) intercept, slope and standard deviation of the errors, with the prior belief at the level of now."""
    scale = np.where(np.isfinite(level) & (level > 0), level, 1.0)
    x = scale[:, None] * np.array([0.8, 1.0, 1.2])
    share = _PRIOR / x.shape[1]
    weight = sums[:, 0] + _PRIOR
    mean_x = (sums[:, 1] + share * x.sum(axis=1)) / weight
    mean_y = (sums[:, 2] + share * x.sum(axis=1)) / weight
    var = (sums[:, 3] + share * (x * x).sum(axis=1)) / weight - mean_x**2
    cov = (sums[:, 4] + share * (x * x).sum(axis=1)) / weight - mean_x * mean_y
    slope = np.clip(np.divide(cov, var, out=np.ones_like(cov), where=var > 1e-12 * mean_x**2), 0.0, 2.0)
    squares = sums[:, 5] + _PRIOR * (_PRIOR_SD * scale) ** 2
    sd = np.sqrt(np.maximum(squares / weight, (1e-3 * scale) ** 2))
    return mean_y - slope * mean_x, slope, sd


def _standard_normal_errors() -> FloatArray:
    """Weights of a normal error in the bins of the histogram."""
    middles = (_EDGES[1:] + _EDGES[:-1]) / 2.0
    weights: FloatArray = np.exp(-(middles**2) / 2.0)
    return np.asarray(weights / weights.sum())


_PRIOR_ERRORS = _standard_normal_errors()
