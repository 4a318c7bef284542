"""
Service parameters learnt from live latencies: the most likely ones given this cycle's sample and all before it.

The three parameters of a variant (alpha, beta, gamma of generation g2) are kept as logarithms `x` with a covariance
`P`, so they stay positive by construction. A cycle looks for the `x` that explains its sample best without straying
further from the last estimate than that one is certain (maximum a posteriori), by damped least squares on the whole
queueing model. The sample is inverted at the load at which it was taken; no idle replica is assumed anywhere.

Why it cannot get stuck, where an extended Kalman filter with a gate can:

- the model has an answer at every rate, an overload included, so there is always something to compare with;
- near saturation latencies are steep in the rate, and a minute's rate is not the one that made them. The rate is an
  unknown like the parameters, with what was measured as its prior, and `running` has its say in it;
- no sample is refused for being unlikely. One that is far off counts less (Huber), and a second one in a row widens the
  estimate, so that from then on the data decide;
- between cycles the estimate relaxes to its anchor (the profile that policy gives, else what engines of this speed
  mostly are) and its uncertainty to the anchor's: what is not observed any more is not believed for ever;
- averages over a minute, asked for every 15 s, tell most things four times, and count accordingly;
- how noisy a signal is, is learnt from how well it was predicted, so certainty follows the data, too.

One operating point cannot tell three parameters apart. What it leaves open stays at the anchor; a change of load or of
lengths settles it.

Letters: Q variants, z sample, h(x) what the model says of it, e = log z - log h(x), J = dh/dx, sd (Q, 3) of e.

Source: own; damping after Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", SIAM J. 11
(1963); weights after Huber, Robust Statistics, ch. 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wva_analyzers.queueing_model.serving import Engines, latencies
from wva_core.domain import BoolArray, FloatArray, IntArray

__all__ = ["ANCHOR_SD", "GUESS_SD", "Estimate", "Sample", "guessed", "improved", "unknown"]

ANCHOR_SD = 0.3
"""Relative uncertainty of a profile that policy gives: the spread of published fits of one model on one accelerator."""

GUESS_SD = (0.4, 0.7, 1.5)
"""The same of an anchor that is only guessed from the time between tokens, for alpha, beta and gamma."""

_RIDGE_TOKENS, _COMPUTE_PER_READ = 200.0, 1000.0

_FIRST_SD = 0.1
# Relative noise of a signal before anything is known of it; minute averages at a few requests/s scatter that much.
_LEAST_SD, _MOST_SD = 0.02, 0.5
_SD_SHARE = 0.1  # weight of a new squared innovation in the noise
_DRIFT = 0.03
# Standard deviation by which parameters may change per cycle; an e-fold in 20 minutes at 15 s.
_RATE_SD = 0.1  # of a minute's rate, as the one that made the latencies; and the change of load on top
_WAIT_TRUST = 0.3
# A first token that mostly waited tells of the queue before it, not of the engine: sd grows by this times the share.
_CROWDED_TRUST = 0.5
# Bursts inside a minute crowd prompts more than its mean rate says: latencies above what the model says tell less by
# this times the share of time that goes to prompts; lower ones tell as much as ever.
_HUBER = 2.0
_ODD = 3.0  # a sample further off than this many standard deviations is odd
_PATIENCE = 2
_WIDENED = 1.0  # variance added to each parameter after that many odd samples in a row
_RELAX_SECONDS = 4 * 3600.0
# Half-life of what is not observed any more: a quiet hour changes little, a day without requests leaves the anchor.
_STEPS = 6
_CLOSE = 1e-3  # a step by less ends the search: what it leaves is of its square
_PROBE = 1e-4
_FAR = 2.0  # largest change of a logarithm in one step


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """
    What the replicas of a variant showed in one cycle, each a mean over replicas; (Q,), NaN where not known.

    Attributes:
        rate: requests/s per replica.
        input_tokens, output_tokens: per request.
        ttft, itl: seconds.
        running: requests served together in one replica.
        batch: largest number of those.
        replicas: how many share the load of the scope.
        change: how fast the load changes: |log(arrived / finished)|, 0 where it stands still or is not known.
        fresh: share of it that the sample before did not hold, above 0: averages over a minute, asked for every 15 s,
            tell the same four times.
    """

    rate: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    ttft: FloatArray
    itl: FloatArray
    running: FloatArray
    batch: FloatArray
    replicas: FloatArray
    change: FloatArray
    fresh: FloatArray

    def take(self, rows: IntArray) -> Sample:
        """The same for some rows."""
        return Sample(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def usable(self) -> BoolArray:
        """(Q,) whether parameters can be learnt from it: latencies, rate and lengths are known and positive."""
        needed = (self.rate, self.ttft, self.itl, self.input_tokens)
        sound = [np.isfinite(column) & (column > 0) for column in needed]
        result: BoolArray = np.logical_and.reduce([self.output_tokens >= 1, self.batch >= 1, *sound])
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """
    What is believed of each variant; rows of NaN where nothing is.

    Attributes:
        x: (Q, 3) logarithms of alpha (s), beta and gamma (s/token).
        P: (Q, 3, 3) their covariance.
        anchor: (Q, 3) what x relaxes to.
        anchored: (Q,) 1 where policy gives the anchor, else 0.
        noise: (Q, 3) variance of the logarithms of first-token time, time between tokens and running requests.
        odd: (Q,) samples far off in a row.
        used, discounted, unusable: (Q,) samples so far: that counted in full, that counted less because they were far
            off, that could not be used.
        surprise: (Q,) largest of the last sample's deviations, in standard deviations.
    """

    x: FloatArray
    P: FloatArray
    anchor: FloatArray
    anchored: FloatArray
    noise: FloatArray
    odd: FloatArray
    used: FloatArray
    discounted: FloatArray
    unusable: FloatArray
    surprise: FloatArray

    @property
    def known(self) -> BoolArray:
        """(Q,) whether there is an estimate."""
        result: BoolArray = np.all(np.isfinite(self.x), axis=1)
        return result

    @property
    def parameters(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(Q,) alpha in s, beta and gamma in s/token."""
        values = np.exp(self.x)
        return values[:, 0], values[:, 1], values[:, 2]

    def take(self, rows: IntArray) -> Estimate:
        """The same for other rows; -1 stands for one of which nothing is known."""
        fresh = unknown(1)
        columns = []
        for field in fields(self):
            column = getattr(self, field.name)
            padded = np.concatenate((column, getattr(fresh, field.name)))
            columns.append(padded[rows])
        return Estimate(*columns)

    def plain(self) -> dict[str, NDArray[Any]]:
        """As plain arrays, for a state."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Estimate:
        """What `plain` gave."""
        return cls(*(np.asarray(plain[field.name], dtype=np.float64) for field in fields(cls)))


def unknown(count: int) -> Estimate:
    """An estimate of `count` variants of which nothing is known."""
    nothing = np.zeros(count)
    return Estimate(
        x=np.full((count, 3), np.nan),
        P=np.full((count, 3, 3), np.nan),
        anchor=np.full((count, 3), np.nan),
        anchored=nothing,
        noise=np.full((count, 3), _FIRST_SD**2),
        odd=nothing,
        used=nothing,
        discounted=nothing,
        unusable=nothing,
        surprise=np.full(count, np.nan),
    )


def guessed(itl: FloatArray) -> FloatArray:
    """
    (Q, 3) logarithms of the parameters an engine with this time between tokens probably has.

    Hardware leaves little choice: a step takes as long as reading the weights until some 200 tokens are computed in it
    (the ridge point of accelerators), and reading a token's keys and values takes a thousandth of computing a token.
    """
    alpha = 0.9 * itl
    beta = alpha / _RIDGE_TOKENS
    return np.asarray(np.log(np.stack((alpha, beta, beta / _COMPUTE_PER_READ), axis=1)))


def improved(estimate: Estimate, sample: Sample, profile: FloatArray, seconds: float) -> Estimate:
    """
    The estimate after one more cycle.

    Args:
        estimate: before it.
        sample: what was seen, all variants.
        profile: (Q, 3) logarithms of the parameters that policy gives, NaN where it gives none.
        seconds: since the cycle before.

    Cost: 15 to 35 passes of the queueing model, about 0.2 s for Q = 10,000.
    """
    estimate = _anchored(estimate, sample, profile)
    usable = sample.usable & estimate.known
    rows = np.flatnonzero(usable)
    seen = ~(np.isnan(sample.rate) | (sample.rate == 0))
    columns = {field.name: np.array(getattr(estimate, field.name)) for field in fields(estimate)}
    columns["unusable"] += seen & ~usable
    x, P = _relaxed(estimate, seconds)
    columns["x"], columns["P"] = x, P
    columns["surprise"] = np.full(len(x), np.nan)
    if len(rows):
        widened = np.where(estimate.odd[rows] >= _PATIENCE, _WIDENED, 0.0)
        columns["P"][rows] += np.eye(3) * (_DRIFT**2 + widened)[:, None, None]
        found = _most_likely(x[rows], columns["P"][rows], sample.take(rows), estimate.noise[rows])
        columns["x"][rows], columns["P"][rows] = found.x, found.P
        columns["noise"][rows] = np.clip(
            (1 - _SD_SHARE) * estimate.noise[rows] + _SD_SHARE * found.scatter, _LEAST_SD**2, _MOST_SD**2
        )
        columns["surprise"][rows] = found.surprise
        odd = np.asarray(found.surprise > _ODD)
        columns["odd"][rows] = np.where(odd, estimate.odd[rows] + 1.0, 0.0)
        columns["discounted"][rows] += odd
        columns["used"][rows] += ~odd
    return Estimate(**columns)


def _anchored(estimate: Estimate, sample: Sample, profile: FloatArray) -> Estimate:
    """Anchors where policy gives a profile, or gave none so far and the first usable sample is here."""
    given = np.all(np.isfinite(profile), axis=1)
    changed = given & ~((estimate.anchored > 0) & np.isclose(estimate.anchor, profile, rtol=0, atol=1e-12).all(axis=1))
    first = np.asarray(~given & ~estimate.known & sample.usable)
    if not np.any(changed) and not np.any(first):
        return estimate
    columns = {field.name: np.array(getattr(estimate, field.name)) for field in fields(estimate)}
    anchor = profile.copy()
    anchor[first] = guessed(sample.itl[first])
    rows = np.flatnonzero(changed | first)
    sd = np.where(given[:, None], ANCHOR_SD, GUESS_SD)
    for name in ("x", "anchor"):
        columns[name][rows] = anchor[rows]
    columns["P"][rows] = np.eye(3) * (sd[rows] ** 2)[:, None, :]
    columns["anchored"][rows] = given[rows]
    return Estimate(**columns)


def _relaxed(estimate: Estimate, seconds: float) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance a while later, if nothing is observed: an Ornstein-Uhlenbeck process around the anchor."""
    keep = 2.0 ** (-max(seconds, 0.0) / _RELAX_SECONDS)
    sd = np.where(estimate.anchored[:, None] > 0, ANCHOR_SD, GUESS_SD)
    wide = np.eye(3) * (sd**2)[:, None, :]
    return estimate.anchor + keep * (estimate.x - estimate.anchor), keep**2 * estimate.P + (1 - keep**2) * wide


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    x: FloatArray
    P: FloatArray
    scatter: FloatArray
    surprise: FloatArray


def _most_likely(start: FloatArray, P: FloatArray, sample: Sample, noise: FloatArray) -> _Found:
    """
    The most likely parameters of variants whose samples are usable.

    The vector that is looked for has the logarithm of the rate as its fourth element; it is not kept.
    """
    prior = np.concatenate((start, np.log(sample.rate)[:, None]), axis=1)
    wide = np.zeros((len(start), 4, 4))
    wide[:, :3, :3] = P
    wide[:, 3, 3] = _RATE_SD**2 + sample.change**2
    information = np.linalg.inv(wide)
    z = np.log(np.stack((sample.ttft, sample.itl, np.where(sample.running > 0, sample.running, np.nan)), axis=1))
    known = ~np.isnan(z)
    x, curvature, damping = prior.copy(), information.copy(), np.full(len(start), 1e-3)
    h, slope, doubt = _predicted(x, sample)
    innovation = np.where(known, z - h, 0.0)
    expected = np.einsum("qrj,qjk,qrk->qr", slope, wide, slope) + _spread(noise, doubt, innovation, sample.fresh) ** 2
    surprise = np.max(np.abs(innovation) / np.sqrt(expected), axis=1)
    rows = np.arange(len(start))
    for _ in range(_STEPS):
        error = np.where(known[rows], z[rows] - h[rows], 0.0)
        weight = np.where(
            known[rows], _weight(error, _spread(noise[rows], doubt[rows], error, sample.fresh[rows])), 0.0
        )
        J, certain = slope[rows], information[rows]
        pull = np.einsum("qjk,qk->qj", certain, x[rows] - prior[rows])
        gradient = np.einsum("qr,qrj->qj", weight * error, J) - pull
        curvature[rows] = full = certain + np.einsum("qr,qrj,qrk->qjk", weight, J, J)
        damped = full + damping[rows, None, None] * np.eye(4) * np.einsum("qjj->qj", full)[:, None, :]
        step = np.clip(np.linalg.solve(damped, gradient[..., None])[..., 0], -_FAR, _FAR)
        trial = x[rows] + step
        found = _predicted(trial, sample if len(rows) == len(start) else sample.take(rows))
        error_trial = np.where(known[rows], z[rows] - found[0], 0.0)
        moved = trial - prior[rows]
        before = np.sum(weight * error**2, axis=1) + np.einsum("qj,qj->q", moved - step, pull)
        after = np.sum(weight * error_trial**2, axis=1) + np.einsum("qj,qjk,qk->q", moved, certain, moved)
        better = np.asarray(after <= before * (1 + 1e-12))
        kept = rows[better]
        x[kept] = trial[better]
        h[kept], slope[kept], doubt[kept] = (part[better] for part in found)
        damping[rows] *= np.where(better, 0.2, 8.0)
        rows = rows[~better | np.any(np.abs(step) > _CLOSE, axis=1)]
        if not len(rows):
            break
    left = np.where(known, z - h, 0.0)
    # E[innovation x what is left of it] is the variance of the noise alone (Desroziers et al., Q. J. R. Meteorol. Soc.
    # 131, 2005); innovations alone would take a wrong start for noise
    scatter = np.where(known, np.clip(innovation * left, 0.0, 1.0), noise)
    return _Found(x[:, :3], np.linalg.inv(curvature)[:, :3, :3], scatter, surprise)


def _weight(error: FloatArray, spread: FloatArray) -> FloatArray:
    """(Q, 3) of each signal in the sum of squares: less where it is far off (Huber)."""
    return np.asarray(np.minimum(1.0, _HUBER / np.maximum(np.abs(error) / spread, 1e-12)) / spread**2)


def _spread(noise: FloatArray, doubt: FloatArray, error: FloatArray, fresh: FloatArray) -> FloatArray:
    """(Q, 3) standard deviation of each logarithm; wider for what waits, and for what bursts of prompts hold up."""
    variance = noise.copy()
    late = error[:, :2] > 0
    variance[:, 0] += (_WAIT_TRUST * doubt[:, 0]) ** 2
    variance[:, :2] += np.where(late, _CROWDED_TRUST * doubt[:, 1:], 0.0) ** 2
    return np.asarray(np.sqrt(variance / fresh[:, None]))


def _predicted(x: FloatArray, sample: Sample) -> tuple[FloatArray, FloatArray, FloatArray]:
    """
    (Q, 3) logarithms of what the model says of a sample, (Q, 3, 4) their derivatives, (Q, 2) what puts them in doubt.

    The last are the share of the first token's time that is waiting, and the share of time that goes to prompts.
    """
    # The point and four beside it are one question, so that the model is asked once.
    points = np.concatenate((x, *(x + step for step in _PROBE * np.eye(4))))
    value = np.exp(np.clip(points, -60.0, 20.0))
    asked = (sample.batch, sample.input_tokens, sample.output_tokens)
    engines = Engines(*value[:, :3].T, *(np.tile(column, 5) for column in asked))
    seen = latencies(engines, value[:, 3], np.tile(sample.replicas, 5))
    told = np.log(np.maximum(np.stack((seen.ttft, seen.itl, seen.in_service), axis=1), 1e-12)).reshape(5, len(x), 3)
    slope = np.moveaxis((told[1:] - told[0]) / _PROBE, 0, 2)
    count = len(x)
    return told[0], slope, np.stack((seen.wait[:count] / seen.ttft[:count], seen.prompts[:count]), axis=1)
