"""
The interval each variant may take, and what variants share: fixed before the optimizer answers, never clamped after.

From the widest to the narrowest: what the operator allows and the cluster has (`static_limits`); scopes nobody may move
now are pinned to their last target; stale data forbids shrinking; then stabilisation windows and rate policies with
the semantics of an HPA's `behavior` (`narrowed`). Minimum and maximum hold on every path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from wva_core.domain import (
    Ballot,
    BoolArray,
    FloatArray,
    IntArray,
    LimitRows,
    Limits,
    Memory,
    Observation,
    Quality,
    Reason,
    SignalRequest,
)
from wva_core.domain.arrays import floats, integers, or_zero
from wva_core.engine.remembered import held
from wva_core.numerics.scaling_behavior import (
    UNDAMPED,
    scale_down_limit,
    scale_up_limit,
    stabilization_bounds,
    windowed_recommendations,
)
from wva_core.policy.resolved import BoundsColumns

__all__ = ["Holds", "gpu_rows", "holds", "narrowed", "nothing_moves", "static_limits"]


@dataclass(frozen=True, slots=True, eq=False)
class Holds:
    """
    Which variants may not move, or not shrink, this cycle.

    Attributes:
        pinned: (V,) stay at their last target, else at what is there.
        no_shrink: (V,) may grow only.
        reason: (V,) `Reason` of either; `STEADY` where neither holds.
    """

    pinned: BoolArray
    no_shrink: BoolArray
    reason: IntArray


def holds(
    observation: Observation, ballot: Ballot, needed: Mapping[SignalRequest, BoolArray], bounds: BoundsColumns
) -> Holds:
    """
    What missing, stale or frozen scopes forbid. Missing data never shrinks anything.

    Args:
        needed: signals without which nothing may shrink, and (S,) where that is so.
        bounds: (S,) `stale_after` in seconds.
    """
    scopes = len(observation.fleet.scopes)
    worst = np.zeros(scopes, dtype=np.int64)
    for request, where in needed.items():
        quality = observation.quality(request.signal, bounds.stale_after, request.level)
        worst = np.maximum(worst, np.where(where, quality, Quality.OK))
    reason = np.full(scopes, Reason.STEADY, dtype=np.int64)
    reason[worst == Quality.CONFLICTING] = Reason.HELD_CONFLICTING
    reason[worst == Quality.STALE] = Reason.HELD_STALE
    unsure = reason != Reason.STEADY
    missing = worst == Quality.MISSING
    reason[missing] = Reason.HELD_MISSING
    pinned = np.zeros(scopes, dtype=bool)
    no_shrink = unsure | missing
    nobody = ballot.anchor < 0
    pinned |= nobody
    reason[nobody & ~missing] = Reason.NO_ANCHOR
    pinned |= ballot.frozen
    reason[ballot.frozen & ~nobody & ~missing] = Reason.FROZEN
    if not observation.complete:
        pinned[:] = True
        reason[:] = Reason.HELD_INCOMPLETE
    scope = observation.fleet.scope_of_variant
    return Holds(pinned[scope], no_shrink[scope], reason[scope])


def nothing_moves(held_now: Holds) -> Holds:
    """The holds of a cycle without a usable answer: every target stays, for its own reason where it has one."""
    return Holds(
        pinned=np.ones_like(held_now.pinned),
        no_shrink=held_now.no_shrink,
        reason=np.where(held_now.pinned, held_now.reason, Reason.HELD_OPTIMIZER),
    )


def gpu_rows(observation: Observation) -> LimitRows:
    """
    One row per accelerator type of the inventory: GPUs the managed variants may use together.

    What others use is taken off the capacity, and so is what a shrinking variant has not released yet: it counts as
    used at the larger of what is there and what is asked for. A capacity that is not known allows no growth.
    """
    inventory, fleet, table = observation.inventory, observation.fleet, observation.variants
    types = {name: row for row, name in enumerate(fleet.accelerators)}
    labels: list[str] = []
    uppers: list[float] = []
    entries: list[IntArray] = []
    occupied = table.gpus * or_zero(table.current)
    unreleased = table.gpus * np.maximum(or_zero(table.current - table.base), 0.0)
    for name, capacity, used in zip(inventory.accelerators, inventory.capacity, inventory.used, strict=True):
        if name not in types or capacity == np.inf:
            continue
        rows = fleet.by_accelerator.rows(types[name])
        foreign = max(0.0, float(used) - float(occupied[rows].sum())) if not np.isnan(used) else np.nan
        labels.append(f"GPUs of type {name}")
        uppers.append(float(capacity) - foreign - float(unreleased[rows].sum()))
        entries.append(rows)
    if not labels:
        return LimitRows()
    variant = np.concatenate(entries)
    return LimitRows(
        labels=tuple(labels),
        offsets=integers(np.cumsum([0, *(len(rows) for rows in entries)])),
        variant=integers(variant),
        coefficient=floats(table.gpus[variant]),
        lower=floats(np.full(len(labels), -np.inf)),
        upper=floats(np.array(uppers)),
    )


def static_limits(observation: Observation, held_now: Holds) -> Limits:
    """
    What the operator allows and the cluster has, with the scopes nobody may move pinned to what they keep.

    A maximum below the minimum gives way to it. Pinned variants are not clamped here: this is what the optimizer
    would like; `narrowed` clamps every path.
    """
    table = observation.variants
    low = np.maximum(or_zero(table.min_replicas), 0.0)
    high = np.maximum(table.max_replicas, low)
    keep = held(observation)
    pinned = held_now.pinned | np.isnan(table.current)
    return Limits(
        low=floats(np.where(pinned, keep, low)),
        high=floats(np.where(pinned, keep, high)),
        rows=gpu_rows(observation),
    )


def narrowed(
    limits: Limits,
    wish: FloatArray,
    observation: Observation,
    held_now: Holds,
    memory: Memory,
    bounds: BoundsColumns,
) -> tuple[Limits, IntArray]:
    """
    The limits as time and trust narrow them, and (V,) the `Reason` of the side that could bind.

    Args:
        limits: from `static_limits`.
        wish: (V,) the optimizer's answer to those; undecided variants filled with what they keep.
    """
    table = observation.variants
    low, high = limits.low, limits.high
    reason = np.full(len(low), Reason.STEADY, dtype=np.int64)
    if any(behavior != UNDAMPED for behavior in bounds.behaviors):
        low, high, reason = _damped(low, high, wish, observation, memory, bounds)
    # the last target itself, even where it has not been reached for so long that what is there is the base again
    low = np.where(held_now.no_shrink & ~held_now.pinned, np.fmax(low, held(observation)), low)
    high = np.fmax(high, low)
    # minimum and maximum hold on every path, pinned scopes included
    least = np.maximum(or_zero(table.min_replicas), 0.0)
    most = np.maximum(table.max_replicas, least)
    known = ~np.isnan(low)
    low = np.where(known, np.minimum(np.maximum(low, least), most), np.nan)
    high = np.where(known, np.minimum(np.maximum(high, least), most), np.nan)
    return replace(limits, low=floats(low), high=floats(high)), reason


def _damped(
    low: FloatArray, high: FloatArray, wish: FloatArray, observation: Observation, memory: Memory, bounds: BoundsColumns
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Windows over unstabilised recommendations, then rate policies, each in its scopes."""
    now = observation.time
    # an HPA damps from what it last asked for; here that is the target while it is being reached
    base = observation.variants.base
    behavior_of_variant = bounds.behavior_of_scope[observation.fleet.scope_of_variant]
    wishes, changes = memory.wishes.matrix(len(wish)), memory.changes.matrix(len(wish))
    low, high = low.copy(), high.copy()
    reason = np.full(len(low), Reason.STEADY, dtype=np.int64)
    for index in np.unique(behavior_of_variant):
        behavior = bounds.behaviors[index]
        if behavior == UNDAMPED:
            continue
        mine = np.flatnonzero(behavior_of_variant == index)
        up, down = windowed_recommendations(
            wish[mine],
            memory.wishes.times,
            wishes[:, mine],
            now,
            behavior.scale_up.stabilization_window_seconds,
            behavior.scale_down.stabilization_window_seconds,
        )
        window_low, window_high = stabilization_bounds(base[mine], up, down)
        events = changes[:, mine]
        rate_low = scale_down_limit(base[mine], behavior.scale_down, memory.changes.times, events, now)
        rate_high = scale_up_limit(base[mine], behavior.scale_up, memory.changes.times, events, now)
        wished = wish[mine]
        by_window = (wished > window_high) | (wished < window_low)
        stabilised = np.clip(wished, window_low, window_high)
        by_rate = (stabilised > rate_high) | (stabilised < rate_low)
        reason[mine] = np.where(by_rate, Reason.BOUND_RATE, np.where(by_window, Reason.BOUND_WINDOW, Reason.STEADY))
        narrow_low, narrow_high = np.fmax(window_low, rate_low), np.fmin(window_high, rate_high)
        # a pinned variant (low equals high) stays pinned: what is held is not damped a second time
        loose = low[mine] < high[mine]
        low[mine] = np.where(loose, np.fmax(low[mine], narrow_low), low[mine])
        high[mine] = np.where(loose, np.fmax(np.fmin(high[mine], narrow_high), low[mine]), high[mine])
    return low, high, reason
