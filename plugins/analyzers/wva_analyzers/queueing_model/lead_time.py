"""
The load to plan for: what may come before a replica that is asked for now could serve.

Whoever lets a replica go has to do without it for a start-up, and whoever asks for one waits as long. So the load to
plan for is not that of now but the highest of the coming start-up, as far as the past tells: the peak within a start-up
is regressed on the load at its beginning, and what the line misses is kept as a histogram.

    peak = intercept + slope load + error,     planned = intercept + slope load + quantile of the errors

Smooth traffic has a slope of one and small errors: capacity follows the load closely, both ways. Bursts out of nothing
have a slope near zero and an intercept near the height of a burst: capacity stays, however little load there is now.
So how long replicas are kept follows from the bursts and the start-ups that were seen; no window is set.

Letters: S scopes, H past loads, load in seconds of work per second. What is old counts half every `_HALF_LIFE` seconds.

Source: own; a conditional quantile by local regression, cf. Koenker, Quantile Regression, ch. 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wva_core.domain import BoolArray, FloatArray, IntArray

__all__ = ["LoadHistory", "followed", "planned", "unseen", "watched"]

_HISTORY = 64  # past loads: 16 minutes at 15 s, the longest start-up that can be learnt about
_HALF_LIFE = 3600.0
_EDGES = np.linspace(-4.0, 8.0, 49)  # of the histogram, in standard deviations of the errors
_PRIOR = 20.0  # weight of what is believed before anything was seen, in samples
_PRIOR_RISE, _PRIOR_SD = 0.0, 0.1  # relative: the load stays, give or take a tenth
_SUMS = 6  # weight, load, peak, load², load peak, error²


@dataclass(frozen=True, slots=True, eq=False)
class LoadHistory:
    """
    What is remembered of the load of every scope.

    Attributes:
        times: (H,) when the past loads were measured, seconds; NaN where there is none yet.
        loads: (S, H) past loads, oldest first; NaN not known.
        sums: (S, 6) weighted sums of the regression.
        errors: (S, B) weights of the errors of the line, by standard deviations.
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
    The history with the load of now, and with what the last start-up teaches.

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
    peak = np.where(within & ~np.isnan(loads), loads, -np.inf).max(axis=1, initial=-np.inf)
    # A window that is not full yet tells nothing; one cycle is missing to it at most.
    step = now - times[-2] if np.isfinite(times[-2]) else np.inf
    full = (now - times[first] >= lead - step) & np.isfinite(start) & np.isfinite(load) & (first < len(times) - 1)
    age = 0.5 ** (max(step, 0.0) / _HALF_LIFE) if np.isfinite(step) else 1.0
    sums, errors = history.sums * age, history.errors * age
    if np.any(full):
        x, y = np.where(full, start, 0.0), np.where(full, peak, 0.0)
        intercept, slope, sd = _line(history.sums, np.where(full, start, 1.0))
        error = np.where(full, y - intercept - slope * x, 0.0)
        ones = full.astype(np.float64)
        sums = sums + np.stack((ones, x, y, x * x, x * y, error**2), axis=1)
        place = np.clip(np.searchsorted(_EDGES, error / sd, side="right") - 1, 0, len(_EDGES) - 2)
        errors[rows[full], place[full]] += 1.0
    return LoadHistory(times, loads, sums, errors)


def watched(history: LoadHistory, now: float, lead: FloatArray) -> BoolArray:
    """(S,) whether the load was followed for as long as `lead`, without which nothing can be said of what may come."""
    known = ~np.isnan(history.loads)
    first = np.where(known.any(axis=1), history.times[np.argmax(known, axis=1)], np.nan)
    return np.asarray(now - first >= lead, dtype=bool)


def planned(history: LoadHistory, load: FloatArray, coverage: FloatArray) -> FloatArray:
    """
    (S,) load to plan for: the one that is not exceeded within a start-up in a share `coverage` of the cases.

    At least the load of now; NaN where that is not known.
    """
    intercept, slope, sd = _line(history.sums, load)
    weights = history.errors + _PRIOR * _PRIOR_ERRORS
    total = weights.sum(axis=1)
    reached = np.cumsum(weights, axis=1) / total[:, None]
    place = np.argmax(reached >= coverage[:, None], axis=1)
    rows = np.arange(len(load))
    before = np.where(place > 0, reached[rows, np.maximum(place - 1, 0)], 0.0)
    inside = (coverage - before) / np.maximum(reached[rows, place] - before, 1e-12)
    error = sd * (_EDGES[place] + inside * (_EDGES[1] - _EDGES[0]))
    return np.asarray(np.fmax(load, intercept + slope * load + error))


def _line(sums: FloatArray, level: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(S,) intercept, slope and standard deviation of the errors, with the prior belief at the level of now."""
    scale = np.where(np.isfinite(level) & (level > 0), level, 1.0)
    x = scale[:, None] * np.array([0.8, 1.0, 1.2])
    y = x * (1.0 + _PRIOR_RISE)
    share = _PRIOR / x.shape[1]
    weight = sums[:, 0] + _PRIOR
    mean_x = (sums[:, 1] + share * x.sum(axis=1)) / weight
    mean_y = (sums[:, 2] + share * y.sum(axis=1)) / weight
    var = (sums[:, 3] + share * (x * x).sum(axis=1)) / weight - mean_x**2
    cov = (sums[:, 4] + share * (x * y).sum(axis=1)) / weight - mean_x * mean_y
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
