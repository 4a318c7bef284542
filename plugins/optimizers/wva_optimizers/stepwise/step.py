"""
Which variant of each scope takes a step, and where the steps lead: at most one replica per scope.

Variants are in the order of their keys, so inside a scope a smaller row is a smaller name.

Source: upstream WVA v0.9, target computation of the percentage-based saturation analysis.
"""

from __future__ import annotations

import numpy as np

from wva_core.domain import BoolArray, FloatArray, Groups, IntArray

__all__ = ["at_least_one_together", "cheapest", "dearest", "step_per_scope", "without_split_groups"]


def cheapest(cost: FloatArray, eligible: BoolArray, by_scope: Groups) -> IntArray:
    """Rows of the cheapest eligible variant of each scope that has one; the first by name among equals."""
    rows, scopes = _by_scope_and_cost(cost, eligible, by_scope)
    return rows[np.flatnonzero(np.diff(scopes, prepend=-1))]


def dearest(cost: FloatArray, eligible: BoolArray, by_scope: Groups) -> IntArray:
    """Rows of the dearest eligible variant of each scope that has one; the last by name among equals."""
    rows, scopes = _by_scope_and_cost(cost, eligible, by_scope)
    return rows[np.flatnonzero(np.diff(scopes, append=-1))]


def _by_scope_and_cost(cost: FloatArray, eligible: BoolArray, by_scope: Groups) -> tuple[IntArray, IntArray]:
    rows = np.flatnonzero(eligible)
    scopes = by_scope.of[rows]
    order = np.lexsort((rows, cost[rows], scopes))
    return rows[order], scopes[order]


def step_per_scope(
    base: FloatArray,
    cost: FloatArray,
    pending: FloatArray,
    analysed: BoolArray,
    grow: BoolArray,
    shrink: BoolArray,
    by_scope: Groups,
) -> FloatArray:
    """
    (V,) +1 for the variant that grows, -1 for the one that shrinks, else 0.

    Args:
        base: (V,) replicas from which the step is made; NaN takes no step.
        cost: (V,) of one replica, known.
        pending: (V,) replicas that do not serve yet; a variant grows only where this is known to be 0.
        analysed: (V,) the variant may be picked at all.
        grow, shrink: (S,) the direction; growth is looked at first.
        by_scope: variants by scope. A variant with one replica is never picked to shrink.
    """
    step = np.zeros(len(base))
    upward = grow[by_scope.of]
    downward = shrink[by_scope.of] & ~upward
    step[cheapest(cost, upward & analysed & (pending == 0) & ~np.isnan(base), by_scope)] = 1.0
    step[dearest(cost, downward & analysed & (base > 1), by_scope)] = -1.0
    return step


def at_least_one_together(wanted: FloatArray, together: tuple[IntArray, ...]) -> FloatArray:
    """(V,) `wanted`, and at least 1 for every member of a group of which some member is wanted; NaN stays."""
    if not together:
        return wanted
    members, groups = _members(together)
    needed = members[groups.any(wanted[members] > 0)[groups.of]]
    raised = wanted.copy()
    raised[needed] = np.maximum(wanted[needed], 1.0)
    return raised


def without_split_groups(replicas: FloatArray, together: tuple[IntArray, ...]) -> FloatArray:
    """(V,) `replicas`, NaN for every member of a group of which some have none and others some."""
    if not together:
        return replicas
    members, groups = _members(together)
    split = groups.any(replicas[members] == 0) & groups.any(replicas[members] > 0)
    kept = replicas.copy()
    kept[members[split[groups.of]]] = np.nan
    return kept


def _members(together: tuple[IntArray, ...]) -> tuple[IntArray, Groups]:
    """Rows of all members side by side, and the groups they form."""
    group_of_member = np.repeat(np.arange(len(together)), [len(group) for group in together])
    return np.concatenate(together), Groups.by(group_of_member, len(together))
