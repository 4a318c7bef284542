"""
Which latencies are to be expected if the load of now were spread over an allocation.
"""

from __future__ import annotations

import numpy as np

from wva_analyzers.queueing_model.capacity import engines_of, profiles_of
from wva_analyzers.queueing_model.remembered import recall
from wva_analyzers.queueing_model.seen import load_of, mix_of
from wva_analyzers.queueing_model.serving import Engines, latencies, rate_bounds, rate_with
from wva_core.domain import Allocation, Fleet, FloatArray, Observation, Settings, State
from wva_core.hooks import Prediction

__all__ = ["predicted"]

_HALVINGS = 40


def predicted(observation: Observation, allocation: Allocation, settings: Settings, state: State) -> Prediction:
    """
    (V,) mean latencies and fill of the batch if the load of now were spread over an allocation.

    Replicas behind one router hold equal numbers of requests, whatever they are worth. The state is the one that
    `judged` returned for the same observation: it knows policy's parameters and what was learnt; without it nothing is
    known.
    """
    fleet = observation.fleet
    scope = fleet.scope_of_variant
    before = recall(state, fleet)
    _, profile_batch = profiles_of(fleet, settings["profiles"].tolist())
    mix = mix_of(observation, before.mix[:, :2], before.mix[:, 2], profile_batch)
    engines = engines_of(before.estimate, mix)
    offered = load_of(observation, before.queued, 0.0).offered
    high = rate_bounds(engines)[1]
    runs = np.nan_to_num(np.where(np.isnan(allocation.replicas), observation.variants.base, allocation.replicas))
    share = _evened_out(engines, np.where(np.isnan(high), 0.0, runs), np.nan_to_num(offered), fleet)
    total = fleet.by_scope.sum(np.nan_to_num(share) * runs)[scope]
    rows = np.flatnonzero(~np.isnan(high) & (runs > 0) & (total > 0) & np.isfinite(offered[scope]))
    ttft, itl, fill = (np.full(len(fleet), np.nan) for _ in range(3))
    if len(rows):
        rate = np.maximum(offered[scope][rows] * share[rows] / total[rows], 1e-9)
        found = latencies(engines.take(rows), rate, runs[rows])
        ttft[rows], itl[rows] = found.ttft, found.itl
        fill[rows] = np.minimum(found.in_service / engines.batch[rows], 1.0)
    return Prediction(ttft=ttft, itl=itl, utilization=fill)


def _evened_out(engines: Engines, runs: FloatArray, offered: FloatArray, fleet: Fleet) -> FloatArray:
    """(V,) requests/s of a replica if all of its scope hold as many requests and together serve what is offered."""
    scope = fleet.scope_of_variant
    low, high = np.zeros(len(offered)), np.full(len(offered), float(np.nanmax(engines.batch, initial=1.0)))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        served = fleet.by_scope.sum(np.nan_to_num(rate_with(engines, middle[scope])) * runs)
        low, high = np.where(served < offered, middle, low), np.where(served < offered, high, middle)
    return rate_with(engines, np.minimum(np.maximum(high, 1e-9)[scope], engines.batch))
