"""
Which latency objectives hold in which scope: explicit ones, those of the service class, else inferred ones.

Explicit objectives come before those of the class, these before inferred ones. Inferred ones are the latencies that the
model itself predicts at a utilisation of 1 - 1/k: the multiplier k then means what its documentation says, whatever the
lengths, and every k above 1 can be kept. (Upstream's formula for them counts other work than its sizing does, and with
k = 2 no rate is low enough; `compat` has it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from wva_analyzers.queueing_model.parameters import ServiceClass
from wva_analyzers.queueing_model.serving import Engines, latencies, rate_bounds
from wva_core.domain import BoolArray, FloatArray, IntArray, Scope, Settings

__all__ = ["Objectives", "Source", "inferred", "inferred_as_upstream", "observed_as_upstream", "stated"]

_OBSERVED_FACTOR = 1.5  # upstream WVA v0.9, as are the caps
_MOST_TTFT, _MOST_ITL = 10.0, 0.5


class Source(IntEnum):
    """Where the objectives of a scope come from."""

    INFERRED = 0
    EXPLICIT = 1
    SERVICE_CLASS = 2
    UNKNOWN_CLASS = 3
    """Policy has service classes, but not this one, or it promises nothing for the model."""


@dataclass(frozen=True, slots=True, eq=False)
class Objectives:
    """
    What policy says; every field is (S,).

    Attributes:
        ttft, itl: seconds; NaN where they are to be inferred, or nothing is said for the class.
        quantile: share of requests that has to keep them; NaN for the mean.
        source: `Source`.
    """

    ttft: FloatArray
    itl: FloatArray
    quantile: FloatArray
    source: IntArray

    @property
    def for_mean(self) -> BoolArray:
        """(S,) whether the mean has to keep them; inferred ones are means."""
        result: BoolArray = np.isnan(self.quantile) | (self.source == Source.INFERRED)
        return result


def stated(scopes: Sequence[Scope], settings: Settings) -> Objectives:
    """
    The objectives that policy states, by scope.

    A scope without a class has those of the first class that promises something for its model, as upstream looks
    classes up; where none does, they are to be inferred.
    """
    ttft = np.array(settings["target_ttft"], dtype=np.float64) / 1000.0
    itl = np.array(settings["target_itl"], dtype=np.float64) / 1000.0
    explicit = (ttft > 0) & (itl > 0)
    source = np.where(explicit, Source.EXPLICIT, Source.INFERRED)
    ttft, itl = np.where(explicit, ttft, np.nan), np.where(explicit, itl, np.nan)
    lookups: dict[int, dict[tuple[str, str], tuple[float, float]]] = {}
    for row, (scope, classes) in enumerate(zip(scopes, settings["service_classes"].tolist(), strict=True)):
        if not classes or explicit[row]:
            continue
        promised = lookups.get(id(classes))
        if promised is None:
            promised = lookups[id(classes)] = _promised(classes)
        found = promised.get((scope.service_class, scope.model))
        if found is not None:
            ttft[row], itl[row] = found
            source[row] = Source.SERVICE_CLASS
        elif scope.service_class:
            source[row] = Source.UNKNOWN_CLASS
    return Objectives(ttft, itl, np.array(settings["target_quantile"], dtype=np.float64), source)


def _promised(classes: Sequence[ServiceClass]) -> dict[tuple[str, str], tuple[float, float]]:
    """(class, model) to (TTFT, ITL) in seconds; under the class "" the first promise for the model."""
    promised: dict[tuple[str, str], tuple[float, float]] = {}
    for one in classes:
        for promise in one.data:
            times = (promise.slo_ttft / 1000.0, promise.slo_tpot / 1000.0)
            promised[one.name, promise.model] = times
            promised.setdefault(("", promise.model), times)
    return promised


def inferred(engines: Engines, multiplier: FloatArray, replicas: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    (V,) latencies in seconds at a utilisation of 1 - 1/k of a replica in its fleet; NaN where one is unusable.

    Args:
        engines: (V,) replicas and their mix.
        multiplier: (V,) k, above 1.
        replicas: (V,) how many share their load.
    """
    _, high = rate_bounds(engines)
    rows = np.flatnonzero(~np.isnan(high))
    ttft, itl = np.full(len(high), np.nan), np.full(len(high), np.nan)
    if len(rows):
        seen = latencies(engines.take(rows), (1.0 - 1.0 / multiplier[rows]) * high[rows], replicas[rows])
        ttft[rows], itl[rows] = seen.ttft, seen.itl
    return ttft, itl


def inferred_as_upstream(
    alpha: FloatArray, beta: FloatArray, gamma: FloatArray, i: FloatArray, o: FloatArray, k: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Upstream's inferred objectives, in the unit of the parameters: k alpha for a step, and the request's own work."""
    return k * alpha + (beta + gamma) * i, k * alpha + beta + gamma * (i + (o + 1.0) / 2.0)


def observed_as_upstream(ttft: FloatArray, itl: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Upstream's objectives in seconds where nothing is learnt yet: half as much again as is observed, with a cap."""
    known = (ttft > 0) & (itl > 0)
    return (
        np.where(known, np.minimum(_OBSERVED_FACTOR * ttft, _MOST_TTFT), np.nan),
        np.where(known, np.minimum(_OBSERVED_FACTOR * itl, _MOST_ITL), np.nan),
    )
