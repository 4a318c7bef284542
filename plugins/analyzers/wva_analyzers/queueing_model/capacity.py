"""
What one replica of each variant carries within the objectives, and how many requests are late at other loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wva_analyzers.queueing_model import objectives
from wva_analyzers.queueing_model.estimator import Estimate
from wva_analyzers.queueing_model.lead_time import OVERLOADS
from wva_analyzers.queueing_model.objectives import Objectives, Source
from wva_analyzers.queueing_model.parameters import Profile
from wva_analyzers.queueing_model.seen import Mix
from wva_analyzers.queueing_model.serving import (
    Engines,
    Goals,
    highest_rate,
    kept_times,
    late_shares,
    latencies,
    rate_bounds,
    rate_with,
)
from wva_core.domain import Fleet, FloatArray, Settings

__all__ = ["Capacity", "behind_one_router", "capacity_of", "engines_of", "lateness", "profiles_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Capacity:
    """
    What one replica of each variant carries within the objectives.

    Attributes:
        rate: (V,) requests/s; 0 where the objectives are out of reach, NaN where nothing is known.
        most: (V,) requests/s that it serves at most, whatever the latency.
        ttft, itl: (S,) the objectives, seconds.
        idle_ttft, idle_itl: (V,) the tightest objectives that hold without load, seconds.
    """

    rate: FloatArray
    most: FloatArray
    ttft: FloatArray
    itl: FloatArray
    idle_ttft: FloatArray
    idle_itl: FloatArray


def profiles_of(fleet: Fleet, profiles: Sequence[tuple[Profile, ...]]) -> tuple[FloatArray, FloatArray]:
    """
    (V, 3) logarithms of the parameters in s that policy gives, and (V,) the batch; NaN where it gives none.

    Args:
        fleet: whose variants.
        profiles: (S,) those of each scope.
    """
    given, batch = np.full((len(fleet), 3), np.nan), np.full(len(fleet), np.nan)
    tables: dict[int, dict[tuple[str, str], Profile]] = {}
    for row, (variant, scope) in enumerate(zip(fleet.variants, fleet.scope_of_variant.tolist(), strict=True)):
        known = profiles[scope]
        if not known:
            continue
        table = tables.get(id(known))
        if table is None:
            table = tables[id(known)] = {(one.model, one.accelerator): one for one in known}
        found = table.get((variant.model, variant.accelerator))
        if found is not None:
            given[row] = np.log(np.array([found.alpha_ms, found.beta_ms_per_token, found.gamma_ms_per_token]) / 1000.0)
            batch[row] = np.nan if found.max_batch is None else found.max_batch
    return given, batch


def engines_of(estimate: Estimate, mix: Mix) -> Engines:
    """(V,) replicas as the model knows them, asked about the mix seen now; not usable where something is unknown."""
    return Engines(*estimate.parameters, mix.batch, mix.input_tokens, mix.output_tokens)


def capacity_of(
    engines: Engines, fleet: Fleet, wanted: Objectives, multiplier: FloatArray, replicas: FloatArray
) -> Capacity:
    """
    What one replica carries if `replicas` (V,) share the load; objectives that nobody stated are inferred here.
    """
    scope = fleet.scope_of_variant
    blank = wanted.source == Source.INFERRED
    ttft, itl = wanted.ttft, wanted.itl
    quantile = np.where(wanted.for_mean, np.nan, wanted.quantile)
    if np.any(blank):
        own = objectives.inferred(engines, multiplier[scope], replicas)
        ttft, itl = (
            np.where(blank, fleet.by_scope.max(values), stated) for values, stated in zip(own, (ttft, itl), strict=True)
        )
    goals = Goals(ttft[scope], itl[scope], quantile[scope])
    rate = highest_rate(engines, replicas, goals)
    none = np.isnan(goals.ttft) & np.isnan(goals.itl)
    low, most = rate_bounds(engines)
    idle_ttft, idle_itl = np.full(len(rate), np.nan), np.full(len(rate), np.nan)
    rows = np.flatnonzero(~np.isnan(low))
    if len(rows):
        idle_ttft[rows], idle_itl[rows] = kept_times(
            engines.take(rows), low[rows], replicas[rows], goals.quantile[rows]
        )
    return Capacity(np.where(none, np.nan, rate), most, ttft, itl, idle_ttft, idle_itl)


def behind_one_router(engines: Engines, fleet: Fleet, rate: FloatArray, replicas: FloatArray) -> FloatArray:
    """
    (V,) capacities of variants that share a router: no more than while they hold as many requests as the tightest one.

    A router that sends each request where the fewest are evens out how many are in a replica, not how busy it is. So
    beside replicas that are full with eight requests, one that could take eighty gets eight, too. A variant that does
    not run and would take more from those that do than one replica of it brings has no capacity to offer: NaN.

    Args:
        engines: (V,) with the mix they share.
        fleet: whose variants.
        rate: (V,) requests/s within the objectives, each variant alone; NaN not known.
        replicas: (V,) that run or are on their way.
    """
    scope = fleet.scope_of_variant
    rows = np.flatnonzero((rate > 0) & (fleet.by_scope.count(rate > 0)[scope] > 1))
    if not len(rows):
        return rate
    inside = np.full(len(rate), np.nan)
    some = engines.take(rows)
    inside[rows] = latencies(some, rate[rows], np.maximum(replicas[rows], 1.0)).in_service
    tightest = -fleet.by_scope.max(np.where(replicas > 0, -inside, np.nan))[scope]
    shared = rate.copy()
    shared[rows] = np.fmin(rate[rows], rate_with(some, tightest[rows]))
    idle = rows[(replicas[rows] == 0) & (inside[rows] < tightest[rows])]
    runs = rows[replicas[rows] > 0]
    runs = runs[np.argsort(scope[runs], kind="stable")]
    first = np.searchsorted(scope[runs], scope[idle], side="left")
    count = np.searchsorted(scope[runs], scope[idle], side="right") - first
    pair = np.repeat(np.arange(len(idle)), count)  # of an idle variant with each one of its scope that runs
    other = runs[np.repeat(first - np.cumsum(count) + count, count) + np.arange(len(pair))]
    left = np.minimum(shared[other], rate_with(engines.take(other), inside[idle[pair]]))
    taken = np.bincount(pair, weights=replicas[other] * (shared[other] - left), minlength=len(idle))
    shared[idle[taken >= rate[idle]]] = np.nan
    return shared


def lateness(
    engines: Engines,
    fleet: Fleet,
    wanted: Objectives,
    settings: Settings,
    capacity: Capacity,
    replicas: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """
    (S, U) share of requests that are late at `OVERLOADS` times the capacity, and (S,) the share that may be.

    An objective for the mean has no late requests: there, all are that meet more than the capacity.
    """
    scope = fleet.scope_of_variant
    by_quantile = ~wanted.for_mean
    step = (OVERLOADS > 1.0).astype(np.float64)
    late = np.broadcast_to(step, (len(fleet.scopes), len(OVERLOADS))).copy()
    rows = np.flatnonzero((capacity.rate > 0) & by_quantile[scope])
    if len(rows):
        points = len(OVERLOADS)
        many = np.repeat(rows, points)
        goals = Goals(capacity.ttft[scope[many]], capacity.itl[scope[many]], wanted.quantile[scope[many]])
        rate = capacity.rate[many] * np.tile(OVERLOADS, len(rows))
        shares = np.maximum(*late_shares(engines.take(many), rate, replicas[scope[many]], goals)).reshape(-1, points)
        count = np.bincount(scope[rows], minlength=len(late))
        for point in range(points):
            total = np.bincount(scope[rows], weights=shares[:, point], minlength=len(late))
            late[:, point] = np.where(count > 0, total / np.maximum(count, 1), late[:, point])
    return late, np.where(by_quantile, 1.0 - wanted.quantile, 1.0 - settings["coverage"])
