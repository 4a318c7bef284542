"""
How long a batch of requests keeps an engine busy: the three generations of the latency model, for many engines.

    g0   T (alpha + beta n)                                   T = input + output tokens
    g1   prefill + (output - 1) decodes                       one decode if input is 0 and output is 1
           prefill  gamma + delta input n                     0 if there is no input
           decode   alpha + beta n
    g2   prefill + output decodes, by iterations
           iteration  alpha + n (beta c + gamma m)            c = (input + output) / (output + 1), m = input + output/2
           prefill    iteration + (beta + gamma) input        0 if there is no input
           decode     iteration + beta + gamma m

with n requests served together. In all of them the work of a request is `base + slope n`, so the service rates are
mu[n] = n / (base + slope n).

Units: seconds, tokens. `alpha` is the fixed time of a step; `beta` and `delta` come per request and token as written
above; in g2 `beta` is the computing and `gamma` the memory time of a token, in g1 `gamma` is the fixed time of a
prefill.

Source: upstream WVA, queue analyzer of August 2025 (g0), of September 2025 to January 2026 (g1) and of 2026 (g2).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wva_core.errors import ParameterError

__all__ = ["GENERATIONS", "ServiceTimes", "service_rates"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

GENERATIONS = ("g0", "g1", "g2")
"""The latency models, oldest first."""

_QUEUE_PER_BATCH = {"g0": 9, "g1": 10, "g2": 10}
# Waiting places for each one in the batch: upstream queues ten batches, and g0 counted the batch among them.


@dataclass(frozen=True, slots=True, eq=False)
class ServiceTimes:
    """
    Parameters of one generation and the requests they are asked about; every field but the first is (Q,).

    Made with `ServiceTimes.of`, which spreads scalars. Rows may be unusable: see `usable`.

    Attributes:
        generation: `g0`, `g1` or `g2`.
        alpha: seconds.
        beta: seconds; per token in g2.
        gamma: seconds (g1) or seconds per token (g2); not read in g0.
        delta: seconds per token; only read in g1.
        max_batch: requests served together at most.
        input_tokens: mean per request.
        output_tokens: mean per request; g0 reads the sum of both.
    """

    generation: str
    alpha: FloatArray
    beta: FloatArray
    gamma: FloatArray
    delta: FloatArray
    max_batch: IntArray
    input_tokens: FloatArray
    output_tokens: FloatArray

    @classmethod
    def of(
        cls,
        generation: str,
        *,
        alpha: ArrayLike,
        beta: ArrayLike,
        gamma: ArrayLike = 0.0,
        delta: ArrayLike = 0.0,
        max_batch: ArrayLike,
        input_tokens: ArrayLike = 0.0,
        output_tokens: ArrayLike,
    ) -> ServiceTimes:
        """
        Columns of one length from columns and scalars.

        Raises:
            ParameterError: an unknown generation.
        """
        if generation not in GENERATIONS:
            raise ParameterError(
                "is no latency model",
                key="generation",
                value=generation,
                remedy=f"give one of {', '.join(GENERATIONS)}",
            )
        numbers = (alpha, beta, gamma, delta, input_tokens, output_tokens)
        columns = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(number, dtype=np.float64)) for number in numbers),
            np.atleast_1d(np.asarray(max_batch)),
        )
        a, b, c, d, i, o = (np.asarray(column, dtype=np.float64) for column in columns[:6])
        return cls(generation, a, b, c, d, columns[6].astype(np.int64), i, o)

    def __len__(self) -> int:
        return len(self.alpha)

    def take(self, rows: NDArray[np.integer] | BoolArray) -> ServiceTimes:
        """The same for some rows."""
        return ServiceTimes(self.generation, *(getattr(self, field.name)[rows] for field in fields(self)[1:]))

    @property
    def usable(self) -> BoolArray:
        """
        (Q,) whether a row describes an engine and a request.

        It needs a batch of at least 1, at least 0 tokens in and 1 out (g0: more than 0 together), parameters that are
        known, and work that is positive at every batch.
        """
        if self.generation == "g0":
            asked = (self.input_tokens >= 0) & (self.output_tokens >= 0) & (self.input_tokens + self.output_tokens > 0)
        else:
            asked = (self.input_tokens >= 0) & (self.output_tokens >= 1)
        first, last = self.work(1), self.work(self.max_batch)
        there = np.isfinite(first) & np.isfinite(last) & (first > 0) & (last > 0)
        result: BoolArray = asked & there & (self.max_batch >= 1)
        return result

    @property
    def capacity(self) -> IntArray:
        """(Q,) requests inside at most, where nobody says otherwise: 10 batches (g0) or 11."""
        return self.max_batch * (1 + _QUEUE_PER_BATCH[self.generation])

    @property
    def decodes(self) -> FloatArray:
        """(Q,) decode steps of a request; g0 counts each token as one."""
        if self.generation == "g0":
            return self.input_tokens + self.output_tokens
        if self.generation == "g1":
            return np.where((self.input_tokens == 0) & (self.output_tokens == 1), 1.0, self.output_tokens - 1)
        return self.output_tokens

    @property
    def _iteration_slope(self) -> FloatArray:
        """(Q,) seconds that one more request adds to each iteration of g2."""
        tokens = self.input_tokens + self.output_tokens
        steps = np.maximum(self.output_tokens, 0) + 1  # fewer than 0 are not usable, and no reason for a warning
        memory = self.input_tokens + self.output_tokens / 2
        seconds: FloatArray = self.beta * tokens / steps + self.gamma * memory
        return seconds

    def prefill(self, inside: ArrayLike) -> FloatArray:
        """(Q,) seconds of the prefill with `inside` requests served together, 0 without input; NaN in g0."""
        n = np.asarray(inside, dtype=np.float64)
        if self.generation == "g0":
            return np.full(len(self), np.nan)
        if self.generation == "g1":
            seconds = self.gamma + self.delta * self.input_tokens * n
        else:
            seconds = self.alpha + self._iteration_slope * n + (self.beta + self.gamma) * self.input_tokens
        return np.where(self.input_tokens == 0, 0.0, seconds)

    def decode(self, inside: ArrayLike) -> FloatArray:
        """(Q,) seconds of one decode step with `inside` requests served together."""
        n = np.asarray(inside, dtype=np.float64)
        if self.generation != "g2":
            return self.alpha + self.beta * n
        own = self.beta + self.gamma * (self.input_tokens + self.output_tokens / 2)
        seconds: FloatArray = self.alpha + self._iteration_slope * n + own
        return seconds

    def work(self, inside: ArrayLike) -> FloatArray:
        """(Q,) seconds that a request is in service if `inside` requests are served together all the time."""
        decoding = self.decodes * self.decode(inside)
        return decoding if self.generation == "g0" else self.prefill(inside) + decoding

    @property
    def base(self) -> FloatArray:
        """(Q,) seconds of `work` that do not depend on the others."""
        return self.work(0)

    @property
    def slope(self) -> FloatArray:
        """(Q,) seconds of `work` for each request served together, itself included."""
        if self.generation == "g2":
            rounds = self.decodes + np.where(self.input_tokens == 0, 0.0, 1.0)
            return rounds * self._iteration_slope
        more = self.decodes * self.beta
        return more if self.generation == "g0" else more + self.delta * self.input_tokens

    def effective_batch(self, service: FloatArray, *, compat: bool = False) -> FloatArray:
        """
        (Q,) batch at which `work` is `service` seconds, between 0 and `max_batch`; where work is constant, NaN.

        `compat` takes the prefill's fixed time off even without input, and counts output - 1 decodes always, as
        upstream does.
        """
        base, slope = self.base, self.slope
        if compat and self.generation == "g1":
            steps = self.output_tokens - 1
            base, slope = self.gamma + self.alpha * steps, self.delta * self.input_tokens + self.beta * steps
        with np.errstate(divide="ignore", invalid="ignore"):
            batch = np.where(slope == 0, np.nan, (service - base) / slope)
        return np.clip(batch, 0.0, self.max_batch)


def service_rates(times: ServiceTimes) -> FloatArray:
    """
    (N, Q) service rates in requests/s, row n-1 with n inside; beyond a row's own batch its rate stays.

    Memory is N times Q; `birth_death.steady_state_of_work` needs only `times.base` and `times.slope`.
    """
    deepest = int(times.max_batch.max(initial=1))
    inside = np.minimum(np.arange(1, deepest + 1)[:, None], times.max_batch).astype(np.float64)
    return inside / (times.base + times.slope * inside)
