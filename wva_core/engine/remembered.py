"""
An observation completed with what the engine remembers of its variants, and memory carried over the cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from wva_core.domain import Ballot, BoolArray, FloatArray, History, Memory, Observation, Plan, State
from wva_core.domain.arrays import floats
from wva_core.policy.resolved import BoundsColumns

__all__ = ["carried_over", "completed", "held", "stalled"]


def completed(observation: Observation, memory: Memory, bounds: BoundsColumns) -> Observation:
    """
    The observation as plugins get it: targets and pending times filled in, samples too old to use taken out.

    A variant settles while its last target is not reached or a replica is pending, for at most `settle_seconds`; then
    what is there is the base again.

    Args:
        observation: as the collectors gave it.
        memory: aligned with its fleet.
        bounds: settle and age limits, (S,) columns.
    """
    scope = observation.fleet.scope_of_variant
    now, table = observation.time, observation.variants
    settle = bounds.settle_seconds[scope]

    pending = table.pending > 0
    pending_since = np.where(pending, np.where(np.isnan(memory.pending_since), now, memory.pending_since), np.nan)
    unreached = ~np.isnan(memory.target) & ~(memory.target == table.current)
    reaching = unreached & (now - memory.target_since < settle)
    starting = pending & (now - pending_since < settle)
    variants = table.with_columns(
        target=memory.target,
        target_since=memory.target_since,
        pending_since=pending_since,
        settling=reaching | starting,
        base=np.where(reaching, memory.target, table.current),
    )
    unusable = bounds.unavailable_after
    replicas = observation.replicas
    return replace(
        observation,
        variants=variants,
        replicas=replace(
            replicas, columns=replicas.columns.without_older_than(replicas.index.by_scope.spread(unusable))
        ),
        scopes=observation.scopes.without_older_than(unusable),
    )


def held(observation: Observation) -> FloatArray:
    """(V,) what a variant keeps while nothing may move it: its last target, else what is there; NaN if neither."""
    table = observation.variants
    return np.where(np.isnan(table.target), table.current, table.target)


def stalled(observation: Observation) -> BoolArray:
    """(V,) the target is not reached or a replica pending, for longer than the settle time."""
    table = observation.variants
    unreached = ~np.isnan(table.target) & ~np.isnan(table.current) & (table.target != table.current)
    stuck: BoolArray = (unreached | (table.pending > 0)) & ~table.settling
    return stuck


def carried_over(
    memory: Memory,
    observation: Observation,
    ballot: Ballot,
    states: Mapping[str, State],
    plan: Plan,
    bounds: BoundsColumns,
) -> Memory:
    """
    The memory after a cycle.

    Args:
        memory: before it, aligned with the fleet of the observation.
        observation: completed with memory.
        ballot, plan: what the cycle came to.
        states: what plugins returned, by the key of their entry; one that failed or was late keeps its old state.
        bounds: how far windows and rate policies look back.
    """
    now = observation.time
    given = ~np.isnan(plan.desired)
    target = np.where(given, plan.desired, memory.target)
    moved = given & ~(memory.target == plan.desired)
    informative: dict[str, FloatArray] = {}
    for vote in ballot.votes:
        before = memory.informative.get(vote.analyzer)
        before = np.full(len(vote.informative), np.nan) if before is None else before
        informative[vote.analyzer] = floats(np.where(vote.informative, now, before))
    rules = [side for behavior in bounds.behaviors for side in (behavior.scale_up, behavior.scale_down)]
    window = max((side.stabilization_window_seconds for side in rules), default=0.0)
    period = max((side.longest_period_seconds for side in rules), default=0.0)
    changes = memory.changes
    if period > 0 and np.any(moved):
        # before the first target a change is counted from what was there, as an HPA does
        before_move = np.where(np.isnan(memory.target), observation.variants.current, memory.target)
        changes = changes.appended(now, np.where(moved, plan.desired - before_move, 0.0), period)
    return Memory(
        fleet=observation.fleet,
        cycle=memory.cycle + 1,
        target=floats(target),
        target_since=floats(np.where(moved, now, memory.target_since)),
        pending_since=observation.variants.pending_since,
        wishes=memory.wishes.appended(now, plan.wanted, window) if window > 0 else History(),
        changes=changes if period > 0 else History(),
        informative=informative,
        first_seen=floats(np.where(np.isnan(memory.first_seen), now, memory.first_seen)),
        states={**memory.states, **states},
    )
