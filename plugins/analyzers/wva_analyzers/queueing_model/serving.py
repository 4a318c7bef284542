"""
Latencies of a replica in a fleet that shares its load, and the highest rate at which it keeps its objectives.

**Batch.** A request makes o steps, one for its prompt and o - 1 for the tokens after the first, and each request served
beside it adds its own work to those steps. So with x requests in a replica each of them is b + s x seconds in service,

    b = o alpha        s = beta (i + o - 1) + gamma o (i + o/2)

and the requests in one replica alone are a birth-death chain with departure rate x / (b + s x), whose weights are those
of a negative binomial distribution: there is no need to walk through its states.

    x ~ NB(1 + b/s, q)        q = lam s        mean (lam b + lam s) / (1 - lam s)

A router that sends each request where there is most room spares the replicas of a fleet much of each other's
fluctuation. In a large fleet a request meets others only if there are more requests than replicas, so that the mean is
m = max(lam (b + s), lam b / (1 - lam s)); between one replica and many the mean falls as 1/R. The requests in the whole
fleet are then taken for NB(r, q) with that mean, which is exact for R = 1. It is cut off where all N R places are
taken. What arrives beyond waits, in order of arrival, in a geometric tail of up to ten times as many places; so there
is an answer at every rate.

**Steps.** Prompts are processed in steps, which makes those steps longer for everyone. Let p = (beta + gamma) i be the
seconds of a prompt, rho the share of its time that a request spends in prompts of others, and T the mean step that a
token sees. A step has the prompts that came during the one before it, hence Var T = 2 rho p T / (1 - rho^2) for prompts
of exponential length. As an arrival meets steps in proportion to their length, it waits for half of one, and shares the
next with all prompts that came meanwhile (in a fleet they mostly go elsewhere, so a share 1/R of them):

    time to first token = wait + step without prompts + p + busy (1/2 + rho/R) E[T^2]/E[T]
    time between tokens = (time in service - step with the own prompt) / (o - 1) + echo

with an echo for short answers: a step made longer by prompts lets more of them into the next one, which dies away as
rho^n, and an answer of few tokens ends before it has.

**Late requests.** *Time to first token* is the wait and the prefill. The share of requests for which it exceeds a goal
is that of a gamma distribution with its mean and with the variances of its parts, each of them taken for exponential.
So is the share that exceeds a *time between tokens*: it varies with the batch at a moment, although a long answer
averages over several (which errs to the safe side), and with the prompts that fall into a short answer.

Letters: lam arrival rate of one replica in requests/s, i and o tokens in and out, R replicas, N batch. Shapes: Q
queues.

Source: own. For R = 1 the batch is that of upstream WVA (state-dependent queue of generation g2), but that upstream
counts a request's own tokens twice. Negative binomial: M/G/1 processor sharing with a fixed part, cf. Cohen, "The
multiple phase service network with generalized processor sharing", Acta Informatica 12 (1979). Steps: a queue with
gated service, cf. Takagi, Analysis of Polling Systems, 1986.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import betainc, betaln, gammaincc, gammaincinv

from wva_core.domain import BoolArray, FloatArray, IntArray
from wva_core.numerics.monotone_search import BELOW, largest_within

__all__ = [
    "Engines",
    "Goals",
    "Latency",
    "highest_rate",
    "kept_times",
    "late_shares",
    "latencies",
    "rate_bounds",
    "rate_with",
]

_EDGE = 0.001
# Share of the first and the last service rate by which rates stay away from 0 and from saturation, as in sizing.

_PLACES = 10.0  # that wait for each one in service at most, as upstream has it

_SQUARE = 2.0  # mean square of prompt lengths by their squared mean

_SHORT = 2.0
# By how much more than mean answers those of exponential length differ in the prompts that fall into them: short ones
# are either hit or not.

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
class Engines:
    """
    Replicas and the requests they are asked about; every field is (Q,), NaN where it is not known.

    Attributes:
        alpha: seconds, the fixed time of a step.
        beta: seconds to compute a token.
        gamma: seconds to read a token from the cache.
        batch: requests served together at most, from 1; need not be whole, as it is mostly a cache that sets it.
        input_tokens, output_tokens: mean per request; at least one of the latter.
    """

    alpha: FloatArray
    beta: FloatArray
    gamma: FloatArray
    batch: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray

    def take(self, rows: IntArray) -> Engines:
        """The same for some rows."""
        return Engines(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def usable(self) -> BoolArray:
        """(Q,) whether everything is known and makes sense."""
        parameters = (self.alpha > 0) & (self.beta > 0) & (self.gamma >= 0)
        result: BoolArray = parameters & (self.batch >= 1) & (self.input_tokens >= 0) & (self.output_tokens >= 1)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Latency:
    """
    A replica of the fleet at one rate; every field is (Q,).

    Attributes:
        wait: mean seconds before service begins.
        ttft: mean seconds to the first token.
        itl: mean seconds between tokens.
        in_service: mean requests served together in one replica.
        prompts: share of time that goes to prompts.
    """

    wait: FloatArray
    ttft: FloatArray
    itl: FloatArray
    in_service: FloatArray
    prompts: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Chain:
    """
    The states of a fleet; every field is (Q,).

    Attributes:
        replicas: R.
        q: of the negative binomial distribution.
        busy: share of arrivals that find every replica serving something.
        delayed: share of arrivals that find all places taken.
        in_service: mean requests served together in one replica.
        served: requests/s that a replica lets in.
        wait: mean seconds before service begins.
    """

    replicas: FloatArray
    q: FloatArray
    busy: FloatArray
    delayed: FloatArray
    in_service: FloatArray
    served: FloatArray
    wait: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """
    What happens in the steps of a replica; every field is (Q,), seconds but for the last.

    Attributes:
        prompt: of a prompt's own work.
        token: that one request adds to every step.
        decode: a step without prompts.
        itl: mean step that a token sees.
        held_up: until the step under way ends and by prompts that share the next.
        rho: share of time that goes to prompts of others.
    """

    prompt: FloatArray
    token: FloatArray
    decode: FloatArray
    itl: FloatArray
    held_up: FloatArray
    rho: FloatArray


def _work(engines: Engines) -> tuple[FloatArray, FloatArray]:
    """(Q,) seconds b of a request by itself, but for its own tokens, and s that each request served beside it adds."""
    i, o = engines.input_tokens, engines.output_tokens
    return o * engines.alpha, engines.beta * (i + o - 1.0) + engines.gamma * o * (i + o / 2.0)


def rate_bounds(engines: Engines) -> tuple[FloatArray, FloatArray]:
    """(Q,) lowest and highest rate of a replica, requests/s, that is considered; NaN where it is unusable."""
    base, slope = _work(engines)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _EDGE / (base + slope), (1.0 - _EDGE) * engines.batch / (base + slope * engines.batch)
    usable = engines.usable
    return np.where(usable, np.minimum(low, high), np.nan), np.where(usable, high, np.nan)


def latencies(engines: Engines, rate: FloatArray, replicas: FloatArray) -> Latency:
    """
    What a replica of a fleet does at a rate.

    Args:
        engines: (Q,) all usable.
        rate: (Q,) requests/s per replica, above 0.
        replicas: (Q,) how many share their load, from 1; need not be whole.

    Cost: two incomplete beta functions a queue, whatever its batch and fleet: about 6 ms for Q = 10,000.
    """
    chain = _chain(engines, rate, replicas)
    return _means(chain, _steps(engines, chain))


def late_shares(
    engines: Engines, rate: FloatArray, replicas: FloatArray, goals: Goals
) -> tuple[FloatArray, FloatArray]:
    """
    (Q,) shares of requests whose first token takes longer than the goal, and whose tokens do; 0 without a goal.

    Args:
        engines, rate, replicas: as in `latencies`.
        goals: (Q,) what counts as late.
    """
    chain = _chain(engines, rate, replicas)
    return _late(engines, chain, _steps(engines, chain), goals)


def rate_with(engines: Engines, inside: FloatArray) -> FloatArray:
    """(Q,) requests/s that a replica serves while `inside` requests are in it all the time."""
    base, slope = _work(engines)
    return np.asarray(inside / (base + slope * inside))


def kept_times(
    engines: Engines, rate: FloatArray, replicas: FloatArray, quantile: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """
    (Q,) seconds to the first token and between tokens that a share `quantile` of the requests keeps; NaN: the means.

    Args:
        engines, rate, replicas: as in `latencies`.
        quantile: (Q,).
    """
    chain = _chain(engines, rate, replicas)
    steps = _steps(engines, chain)
    means = _means(chain, steps)
    times = []
    for mean, (fixed, more, variance) in zip(
        (means.ttft, means.itl), (_first_token(chain, steps), _between_tokens(engines, chain, steps)), strict=True
    ):
        shape, scale = _gamma(more, variance)
        times.append(np.where(np.isnan(quantile), mean, fixed + scale * gammaincinv(shape, quantile)))
    return times[0], times[1]


def highest_rate(engines: Engines, replicas: FloatArray, goals: Goals) -> FloatArray:
    """
    (Q,) the highest rate of a replica in its fleet that keeps the goals.

    Args:
        engines, replicas, goals: as in `late_shares`; unusable rows are allowed.

    Returns:
        Requests/s: 0 where a goal is missed at the lowest rate already, the end of the range where every goal holds at
        every rate, NaN where it is unusable.

    Cost: about a dozen passes as in `latencies`.
    """
    low, high = rate_bounds(engines)
    rows = np.flatnonzero(~np.isnan(high))
    rate = np.full(len(low), np.nan)
    if not len(rows):
        return rate
    known, fleet, wanted = engines.take(rows), replicas[rows], goals.take(rows)
    shares = bool(np.any(~np.isnan(wanted.quantile)))

    def residual(x: FloatArray, which: IntArray) -> FloatArray:
        everyone = len(which) == len(rows)
        some, goal = (known, wanted) if everyone else (known.take(which), wanted.take(which))
        chain = _chain(some, x, fleet[which])
        steps = _steps(some, chain)
        late = _late(some, chain, steps, goal) if shares else None
        return _lateness(_means(chain, steps), late, goal)

    found, side = largest_within(residual, low[rows], high[rows], rtol=1e-5)
    rate[rows] = np.where(side == BELOW, 0.0, found)
    return rate


def _lateness(seen: Latency, late: tuple[FloatArray, FloatArray] | None, goals: Goals) -> FloatArray:
    """(Q,) logarithm of how far the worse goal is missed: of the mean, or of the share that is late."""
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.fmax(np.log(seen.ttft / goals.ttft), np.log(seen.itl / goals.itl))
        if late is not None:
            share = np.log(np.maximum(np.maximum(*late), _LEAST) / (1.0 - goals.quantile))
            wanted = np.where(np.isnan(goals.quantile), wanted, share)
    return np.where(np.isnan(wanted), -1.0, np.clip(wanted, -1e3, 1e3))  # without a goal every rate will do


def _chain(engines: Engines, lam: FloatArray, R: FloatArray) -> _Chain:
    base, slope = _work(engines)
    N = engines.batch
    drain = N / (base + slope * N)
    top, places = N * R, _PLACES * N * R
    # Beyond saturation nearly all weight is in the tail, and the states below it are kept as they are at saturation.
    calm = np.minimum(lam, drain)
    q = np.minimum(calm * slope, 1.0 - 1e-9)
    alone, crowd = calm * (base + slope), calm * base / (1.0 - q)
    level = np.maximum(alone, crowd) + (alone / (1.0 - q) - np.maximum(alone, crowd)) / R
    r = R * level * (1.0 - q) / q
    log_full = r * np.log1p(-q) + top * np.log(q) - np.log(top) - betaln(r, top)
    growth = np.log(lam / drain)
    log_beyond = log_full + growth + _log_series(-growth, places)
    scale = np.maximum(log_beyond, 0.0)  # an overload of a large fleet has more weight there than a number can hold
    full, beyond = np.exp(log_full - scale), np.exp(log_beyond - scale)
    below = np.exp(-scale) * betainc(r, top + 1.0, 1.0 - q)
    total = below + beyond
    blocked = np.exp(log_full + growth * places - scale) / total
    served = lam * (1.0 - blocked)
    queue = beyond / total * (1.0 + _mean_below_top(-growth, places)) / R
    return _Chain(
        replicas=R,
        q=q,
        busy=betainc(R, r, q),
        delayed=(full + beyond) / total,
        in_service=(level * np.maximum(below - full * (1.0 + top / r), 0.0) + N * beyond) / total,
        served=served,
        wait=queue / served,
    )


def _steps(engines: Engines, chain: _Chain) -> _Steps:
    i, o = engines.input_tokens, engines.output_tokens
    base, slope = _work(engines)
    token = engines.beta * (o - 1.0) / o + engines.gamma * (i + o / 2.0)  # of one request, in each of its steps
    prompt = (engines.beta + engines.gamma) * i
    service = chain.in_service / chain.served
    others = np.maximum((service - base) / slope - 1.0, 0.0)
    own = engines.alpha + slope / o * others + prompt
    itl = np.where(o > 1.0, (service - own) / np.maximum(o - 1.0, 1e-9), service)
    itl = np.maximum(itl, engines.alpha)
    rho = np.minimum(prompt * others / service, 1.0 - 1e-6)
    variance = _SQUARE * rho * prompt * itl / (1.0 - rho**2)
    met = variance / itl + itl
    held_up = chain.busy * (0.5 + rho / chain.replicas) * met
    # The step of the first token is longer than others by the prompts in it, which lets more requests into the next
    # one, and so on: a short answer ends before that has died away.
    gaps = np.maximum(o - 1.0, 1.0)
    echo = rho**2 / (1.0 - rho) * (1.0 - np.maximum(rho, _LEAST) ** gaps) / chain.replicas
    itl = itl + echo * variance / itl / gaps
    return _Steps(prompt, token, engines.alpha + token * (1.0 + others), itl, held_up, rho)


def _means(chain: _Chain, steps: _Steps) -> Latency:
    ttft = chain.wait + steps.decode + steps.prompt + steps.held_up
    return Latency(chain.wait, ttft, steps.itl, chain.in_service, steps.rho)


def _late(engines: Engines, chain: _Chain, steps: _Steps, goals: Goals) -> tuple[FloatArray, FloatArray]:
    first, between = _first_token(chain, steps), _between_tokens(engines, chain, steps)
    late_ttft, late_itl = _above(goals.ttft, *first), _above(goals.itl, *between)
    return np.where(np.isnan(goals.ttft), 0.0, late_ttft), np.where(np.isnan(goals.itl), 0.0, late_itl)


def _first_token(chain: _Chain, steps: _Steps) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(Q,) seconds to the first token that are the same for all, and mean and variance of what is not."""
    waits = chain.wait**2 * (2.0 / np.maximum(chain.delayed, _LEAST) - 1.0)
    varies = chain.wait + steps.prompt + steps.held_up
    return steps.decode, varies, waits + steps.prompt**2 + steps.held_up**2


def _between_tokens(engines: Engines, chain: _Chain, steps: _Steps) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(Q,) seconds between tokens that are the same for all, and mean and variance of what is not."""
    fixed = engines.alpha + steps.token
    batch = steps.token**2 * chain.in_service / (chain.replicas * (1.0 - chain.q))
    gaps = np.maximum(engines.output_tokens - 1.0, 1.0)
    # Steps in a row are alike, with the correlation rho/R: a long one lets many prompts into the next.
    alike = (1.0 - steps.rho / chain.replicas) ** -2.0
    return fixed, steps.itl - fixed, batch + alike * _SQUARE * _SHORT * steps.rho * steps.prompt * steps.itl / gaps


def _gamma(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(Q,) shape and scale of a gamma distribution."""
    mean = np.maximum(mean, 1e-12)
    scale = np.maximum(variance, 1e-24) / mean
    return mean / scale, scale


def _above(goal: FloatArray, fixed: FloatArray, mean: FloatArray, variance: FloatArray) -> FloatArray:
    """(Q,) share of requests above the goal; all of them where it is below what is the same for all."""
    shape, scale = _gamma(mean, variance)
    return np.where(goal > fixed, gammaincc(shape, np.maximum(goal - fixed, 0.0) / scale), 1.0)


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
