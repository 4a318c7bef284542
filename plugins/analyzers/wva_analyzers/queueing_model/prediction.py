"""
Which latencies are to be expected if the load of now were spread over an allocation.
"""

from __future__ import annotations

import numpy as np

from wva_analyzers.queueing_model.capacity import engines_of, profiles_of
from wva_analyzers.queueing_model.remembered import recall
from wva_analyzers.queueing_model.seen import load_of, mix_of
from wva_analyzers.queueing_model.serving import latencies, rate_bounds
from wva_core.domain import Allocation, Observation, Settings, State
from wva_core.hooks import Prediction

__all__ = ["predicted"]


def predicted(observation: Observation, allocation: Allocation, settings: Settings, state: State) -> Prediction:
    """
    (V,) mean latencies and fill of the batch if the load of now were spread over an allocation.

    Every variant of a scope gets load in proportion to what its replicas can serve at most. The state is the one that
    `judged` returned for the same observation: it knows policy's parameters and what was learnt; without it nothing is
    known.
    """
    fleet = observation.fleet
    scope = fleet.scope_of_variant
    before = recall(state, fleet)
    _, profile_batch = profiles_of(fleet, settings["profiles"].tolist())
    mix = mix_of(observation, before.mix, profile_batch)
    engines = engines_of(before.estimate, mix)
    offered = load_of(observation, before.queued, 0.0).offered
    _, high = rate_bounds(engines)
    runs = np.nan_to_num(np.where(np.isnan(allocation.replicas), observation.variants.base, allocation.replicas))
    total = fleet.by_scope.sum(np.nan_to_num(high) * runs)[scope]
    rows = np.flatnonzero(~np.isnan(high) & (runs > 0) & (total > 0) & np.isfinite(offered[scope]))
    ttft, itl, fill = (np.full(len(fleet), np.nan) for _ in range(3))
    if len(rows):
        rate = np.maximum(offered[scope][rows] * high[rows] / total[rows], 1e-9)
        found = latencies(engines.take(rows), rate, runs[rows])
        ttft[rows], itl[rows] = found.ttft, found.itl
        fill[rows] = np.minimum(found.in_service / engines.batch[rows], 1.0)
    return Prediction(ttft=ttft, itl=itl, utilization=fill)
