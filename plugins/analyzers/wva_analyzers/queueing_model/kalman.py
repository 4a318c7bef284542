"""
The parameter filter of upstream WVA v0.9: an extended Kalman filter with a gate, for `compat`.

State x = (alpha, beta, gamma) in milliseconds and milliseconds per token, observations z = (TTFT, ITL) in
milliseconds, transition identity. The numbers are upstream's; two of its failings are not repeated: arithmetic is
double precision, and an update that fails leaves the state as it was instead of ending the process.

A rejected sample restores state and covariance as they were before the cycle, so a filter that rejects once and sees
the same again rejects for ever. That is what the default estimator is for.

Letters: Q filters, P (Q, 3, 3) covariance, h(x) (Q, 2) predicted observations, H (Q, 2, 3) its Jacobian, NIS the
normalised innovation squared.

Source: upstream WVA v0.9, queueing-model analyzer and its tuner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from wva_core.domain import BoolArray, FloatArray, IntArray
from wva_core.errors import ParameterError
from wva_core.numerics.service_times import ServiceTimes
from wva_core.numerics.sizing import AnalysisStatus, analyze

__all__ = [
    "BOUND_FACTORS",
    "DEFAULT_BATCH",
    "DEFAULT_STATE",
    "GATE",
    "Environment",
    "Step",
    "bounds_around",
    "guess",
    "jacobian",
    "limited",
    "observation_noise",
    "predicted",
    "process_noise",
    "step",
]

DEFAULT_STATE = np.array([5.0, 0.05, 0.00005])
"""alpha in ms, beta and gamma in ms/token, where nothing better is known."""

DEFAULT_BATCH = 256.0
"""Largest batch where the engine does not say."""

BOUND_FACTORS = (0.01, 100.0)
"""Multiples of a start state that the state may not leave."""

GATE = 7.378
"""Largest NIS that is accepted: the 97.5 % quantile of chi-square with two degrees of freedom."""

_CHANGE = 0.05  # expected relative change of a parameter in a cycle
_ERROR, _QUANTILE, _GAMMA = 0.05, 1.96, 1.0
_RELATIVE_NOISE = (_ERROR / _QUANTILE) ** 2 / _GAMMA
_STEP = 0.01  # relative, of the central difference


@dataclass(frozen=True, slots=True, eq=False)
class Environment:
    """
    What one pod of each variant showed; (Q,).

    Attributes:
        rate: requests/s.
        input_tokens, output_tokens: per request.
        batch: largest batch.
        ttft, itl: milliseconds.
    """

    rate: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    batch: FloatArray
    ttft: FloatArray
    itl: FloatArray

    @property
    def valid(self) -> BoolArray:
        """(Q,) whether every number is there and above 0."""
        columns = np.stack([getattr(self, field.name) for field in fields(self)])
        result: BoolArray = np.all(np.isfinite(columns) & (columns > 0), axis=0)
        return result

    def take(self, rows: IntArray | BoolArray) -> Environment:
        """The same for some rows."""
        return Environment(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """
    One predict and update of every filter.

    Attributes:
        x: (Q, 3) state after it.
        P: (Q, 3, 3) covariance after it.
        nis: (Q,) normalised innovation squared; -1 where the update was impossible or left the positive numbers.
        accepted: (Q,) whether the sample counted.
    """

    x: FloatArray
    P: FloatArray
    nis: FloatArray
    accepted: BoolArray


def guess(
    ttft: FloatArray, itl: FloatArray, input_tokens: FloatArray, output_tokens: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """
    Parameters of an engine that is idle, from its latencies in milliseconds.

    Returns:
        (Q, 3) state, NaN where there is none; (Q, 3) what came out, for a message.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = 0.9 * itl
        both = (ttft - alpha) / input_tokens
        below = input_tokens + (output_tokens + 1.0) / 2.0 - 1.0
        gamma = ((itl - alpha) - both) / below
        beta = both - gamma
    found = np.stack((alpha, beta, gamma), axis=1)
    sound = (both >= 0) & (below > 0) & (found > 0).all(axis=1)
    return np.where(sound[:, None], found, np.nan), found


def bounds_around(start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest state around a start."""
    return start * BOUND_FACTORS[0], start * BOUND_FACTORS[1]


def process_noise(start: FloatArray) -> FloatArray:
    """(Q, 3, 3) covariance added in a cycle that starts from `start` (Q, 3); also a new filter's own."""
    noise: FloatArray = np.eye(3) * ((_CHANGE * start) ** 2)[:, None, :]
    return noise


def observation_noise(ttft: FloatArray, itl: FloatArray) -> FloatArray:
    """(Q, 2, 2) covariance of observations in milliseconds."""
    z = np.stack((ttft, itl), axis=1)
    noise: FloatArray = np.eye(2) * (_RELATIVE_NOISE * z**2)[:, None, :]
    return noise


def predicted(x: FloatArray, seen: Environment) -> FloatArray:
    """(Q, 2) first-token time (wait and prefill) and time between tokens, ms; NaN beyond the modelled rates."""
    times = ServiceTimes.of(
        "g2",
        alpha=x[:, 0] / 1000.0,
        beta=x[:, 1] / 1000.0,
        gamma=x[:, 2] / 1000.0,
        max_batch=np.nan_to_num(seen.batch, nan=1.0),
        input_tokens=seen.input_tokens,
        output_tokens=seen.output_tokens,
    )
    result = analyze(times, seen.rate)
    told = result.status == AnalysisStatus.OK
    return np.where(told[:, None], 1000.0 * np.stack((result.ttft, result.itl), axis=1), np.nan)


def jacobian(function: Callable[[FloatArray], FloatArray], x: FloatArray) -> FloatArray:
    """(Q, m, n) central differences of a function of (Q, n) states with (Q, m) values, a hundredth to either side."""
    columns = []
    for j in range(x.shape[1]):
        reach = np.where(x[:, j] == 0, _STEP, _STEP * np.abs(x[:, j]))
        above, below = x.copy(), x.copy()
        above[:, j] += reach
        below[:, j] -= reach
        columns.append((function(above) - function(below)) / (2.0 * reach)[:, None])
    return np.stack(columns, axis=2)


def limited(x: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """
    States within their limits.

    Raises:
        ParameterError: a lower limit is above its upper one.
    """
    if np.any(low > high):
        raise ParameterError("is above the upper limit", object="filter", key="lower limit", remedy="swap the two")
    return np.clip(x, low, high)


def step(
    x: FloatArray,
    P: FloatArray,
    seen: Environment,
    process: FloatArray,
    noise: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> Step:
    """
    One cycle of every filter with one sample each.

    Args:
        x, P: before it.
        seen: the sample; invalid rows are not used.
        process, noise: from `process_noise` and `observation_noise`, fixed for the cycle.
        low, high: (Q, 3) limits of the state.

    Cost: seven passes over the states of all queues.
    """
    start = limited(x, low, high)
    wider = P + process
    h = predicted(start, seen)
    H = jacobian(lambda at: predicted(at, seen), start)
    y = np.stack((seen.ttft, seen.itl), axis=1) - h
    S = H @ wider @ H.transpose(0, 2, 1) + noise
    with np.errstate(invalid="ignore"):
        sound = seen.valid & np.isfinite(y).all(axis=1) & np.isfinite(S).all(axis=(1, 2))
        determinant = S[:, 0, 0] * S[:, 1, 1] - S[:, 0, 1] * S[:, 1, 0]
    sound &= np.nan_to_num(determinant) != 0
    inverse = np.linalg.inv(np.where(sound[:, None, None], S, np.eye(2)))
    gain = wider @ H.transpose(0, 2, 1) @ inverse
    after = limited(start + np.einsum("qij,qj->qi", gain, y), low, high)
    narrower = (np.eye(3) - gain @ H) @ wider
    nis = np.einsum("qi,qij,qj->q", y, inverse, y)
    positive = sound & (np.nan_to_num(after) > 0).all(axis=1)
    nis = np.where(positive, nis, -1.0)
    accepted = positive & (nis < GATE)
    return Step(
        x=np.where(accepted[:, None], after, x),
        P=np.where(accepted[:, None, None], narrower, P),
        nis=nis,
        accepted=accepted,
    )
