"""
What the optimizer is asked, as candidates: the variants of a scope, each with the replicas that would serve it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wva_core.domain import (
    DEFAULT_COST,
    Ballot,
    BoolArray,
    FloatArray,
    IntArray,
    LimitRows,
    Limits,
    Observation,
    VariantStatus,
)
from wva_core.numerics.starting_point import per_scope, stacked, whole_limits
from wva_core.numerics.step_moves import at_role_median
from wva_optimizers.inferno.greedy import Candidates

__all__ = ["Offer", "Question", "offered", "read_question"]

_ROUNDING = 1e-9
"""Relative: a demand of 3.0000000001 replicas is one of 3."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """
    V variants, S scopes, A votes.

    Attributes:
        decided: (V,) variants that get an answer: their scope has an anchor, their replicas and limits are known.
        movable: (V,) those of them whose capacity is known; the others keep what they have.
        high: (V,) upper limit as a whole number.
        stay: (V,) what a variant keeps if nothing else is said: its base within its limits.
        rest: (V,) what a variant keeps when another one of its scope is chosen.
        alone: (V,) replicas with which it serves its scope while the others keep their `rest`, at most `high`.
        on_top: (V,) replicas it needs while the others keep their `stay`, at most `high`.
        short: (V,) `alone` does not reach the need, because `high` is below it.
        value: (V,) of choosing it.
        stay_value: (S,) of leaving a scope as it is.
        stays: (S,) neither more nor less is asked for, so leaving it as it is is an answer.
        settled: (S,) everything it has serves; while something starts, nothing is moved without need.
        cost: (V,) USD/h of a replica.
        capacity: (V,) of a replica by the anchor; NaN not known.
        base: (V,) replicas a plan starts from.
        serving: (V,) replicas that are ready.
        occupied: (V,) replicas that use shared rows already.
        counted: (S,) scopes that have an anchor.
        scope: (V,) scope of each variant.
    """

    decided: BoolArray
    movable: BoolArray
    high: FloatArray
    stay: FloatArray
    rest: FloatArray
    alone: FloatArray
    on_top: FloatArray
    short: BoolArray
    value: FloatArray
    stay_value: FloatArray
    stays: BoolArray
    settled: BoolArray
    cost: FloatArray
    capacity: FloatArray
    base: FloatArray
    serving: FloatArray
    occupied: FloatArray
    counted: BoolArray
    scope: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """
    The candidates, and what each stands for.

    Attributes:
        candidates: for the solver; server s is scope s.
        variant: (C,) the variant it chooses; -1 leaves the scope as it is.
        from_stay: (C,) the others of the scope keep their `stay`, not their `rest`.
        start: (C,) replicas of the variant to which those that are granted come on top.
        target: (C,) replicas of the variant when all of them are granted.
    """

    candidates: Candidates
    variant: IntArray
    from_stay: BoolArray
    start: FloatArray
    target: FloatArray


def read_question(observation: Observation, ballot: Ballot, limits: Limits, penalty: float) -> Question:
    """
    The question as arrays.

    The need of a scope, in the unit of each vote: what is there (or coming) and what is required besides, where the
    scope grows; what serves without the spare, where it shrinks; else what is there. A variant's replicas are the most
    that any vote's need asks of it.
    """
    fleet, table = observation.fleet, observation.variants
    scope, scopes = fleet.scope_of_variant, len(fleet.scopes)
    low, high = whole_limits(limits.low, limits.high)
    counted = ballot.anchor >= 0
    base = table.base
    decided = counted[scope] & ~np.isnan(base) & ~np.isnan(low) & ~np.isnan(high)
    anchored = ballot.anchor_capacity(scope)
    movable = decided & (anchored > 0)
    stay = np.where(decided, np.clip(base, low, high), np.nan_to_num(base))
    rest = np.where(movable, low, stay)

    capacity = stacked([vote.capacity for vote in ballot.votes], len(fleet))
    likely = at_role_median(capacity, scope, scopes)
    need, shrinks = _need(observation, ballot, likely)
    counts_as = np.where(shrinks[scope], np.where(capacity > 0, capacity, 0.0), likely)
    run = fleet.by_scope.sum(np.nan_to_num(np.where(decided, stay, base)))
    least = np.where(run >= 1, 1.0, 0.0)  # the last replica of a scope stays
    alone = np.maximum(_replicas(need, counts_as, likely, rest, least, scope, scopes), low)
    on_top = np.maximum(_replicas(need, counts_as, likely, stay, least, scope, scopes), stay)

    cost = np.where(np.isnan(table.cost), DEFAULT_COST, table.cost)
    # a candidate has no replicas yet that could count; what a system file says of it is what it would replace
    before = np.nan_to_num(np.where(table.status == VariantStatus.CANDIDATE, table.current, base))
    within = np.minimum(alone, high)
    given_up = cost * np.maximum(before - rest, 0.0)
    spent_before, kept = fleet.by_scope.sum(cost * before), fleet.by_scope.sum(cost * rest)
    # upstream's transition penalty, where one variant runs before and one after; here several may
    elsewhere = fleet.by_scope.sum(given_up)[scope] - given_up + np.where(before > 0, 0.0, cost * within)
    after = kept[scope] - cost * rest + cost * within
    value = after - spent_before[scope] + penalty * elsewhere
    return Question(
        decided=decided,
        movable=movable,
        high=high,
        stay=stay,
        rest=rest,
        alone=within,
        on_top=np.minimum(on_top, np.maximum(high, stay)),
        short=alone > high,
        value=value,
        stay_value=fleet.by_scope.sum(cost * stay) - spent_before,
        stays=counted & ~ballot.grow & ~ballot.shrink,
        settled=~fleet.by_scope.any(table.settling | (table.pending > 0) | (table.ready < base)),
        cost=cost,
        capacity=anchored,
        base=base,
        serving=np.nan_to_num(table.ready),
        occupied=np.fmax(base, np.where(decided, low, base)),
        counted=counted,
        scope=scope,
    )


def _need(observation: Observation, ballot: Ballot, likely: FloatArray) -> tuple[FloatArray, BoolArray]:
    """(A, S) capacity each vote asks for, and (S,) where it is what may go that decides."""
    fleet, table = observation.fleet, observation.variants
    scope, scopes = fleet.scope_of_variant, len(fleet.scopes)
    base = np.nan_to_num(table.base)
    coming = np.nan_to_num(np.fmax(table.ready + table.pending, table.base))
    there = per_scope(base * likely, scope, scopes)
    anticipated = per_scope(coming * likely, scope, scopes)
    required = stacked([vote.required for vote in ballot.votes], scopes)
    spare = np.nan_to_num(stacked([vote.spare for vote in ballot.votes], scopes))
    supply = stacked([vote.supply for vote in ballot.votes], scopes)
    supply = np.where(np.isnan(supply), there, supply)
    gates = stacked([vote.gates_shrink for vote in ballot.votes], scopes).astype(bool)
    shrinks = ballot.shrink & ~ballot.grow
    asks = ballot.grow & np.isfinite(required) & (required > 0)
    grown = np.where(asks, anticipated + np.nan_to_num(required), there)
    shrunk = np.where(gates | (spare > 0), np.maximum(supply - spare, 0.0), 0.0)
    return np.where(shrinks, shrunk, grown), shrinks


def _replicas(
    need: FloatArray,
    counts_as: FloatArray,
    likely: FloatArray,
    others: FloatArray,
    least: FloatArray,
    scope: IntArray,
    scopes: int,
) -> FloatArray:
    """(V,) replicas of each variant that cover the need of its scope beside the replicas the others keep."""
    covered = per_scope(others * counts_as, scope, scopes)
    missing = need[:, scope] - (covered[:, scope] - others * counts_as)
    ratio = np.divide(missing, likely, out=np.zeros_like(missing), where=likely > 0)
    asked = np.ceil(ratio - _ROUNDING * np.maximum(np.abs(ratio), 1.0)).max(axis=0, initial=0.0)
    beside = np.bincount(scope, weights=others, minlength=scopes)[scope] - others
    replicas: FloatArray = np.maximum(np.maximum(asked, least[scope] - beside), 0.0)
    return replicas


def offered(question: Question, rows: LimitRows) -> Offer:
    """
    The candidates of every scope that has a variant to choose.

    Where no variant may have as many replicas as it needs, the only candidate adds to what is there: the one that
    brings the scope nearest to its need.
    """
    scope, scopes = question.scope, len(question.counted)
    usable = question.movable & (question.high >= 1)
    complete = usable & ~question.short
    served = np.bincount(scope[complete], minlength=scopes) > 0
    stay = np.flatnonzero(question.stays)
    alone = np.flatnonzero(complete & ~(question.stays & ~question.settled)[scope])
    top = _nearest(question, usable & ~served[scope] & ~question.stays[scope])

    variant = np.concatenate([np.full(len(stay), -1), alone, top]).astype(np.int64)
    server = np.concatenate([stay, scope[alone], scope[top]])
    value = np.concatenate([question.stay_value[stay], question.value[alone], question.value[top]])
    from_stay = np.concatenate([np.ones(len(stay)), np.zeros(len(alone)), np.ones(len(top))]).astype(bool)
    target = np.concatenate([np.zeros(len(stay)), question.alone[alone], question.on_top[top]])
    nothing = np.zeros(len(stay))
    chosen = np.concatenate([alone, top])
    start = np.concatenate([nothing, question.occupied[chosen]])
    partial = np.concatenate([nothing, question.on_top[chosen]])
    offsets, row, uses = _entries(variant, rows)
    return Offer(
        Candidates(
            server=server.astype(np.int64),
            value=value,
            replicas=np.maximum(target - start, 0.0),
            partial=np.maximum(partial - start, 0.0),
            offsets=offsets,
            row=row,
            uses=uses,
        ),
        variant=variant,
        from_stay=from_stay,
        start=start,
        target=target,
    )


def _nearest(question: Question, asked: BoolArray) -> IntArray:
    """Of each scope the variant that can add most of what it would need, the cheaper of equal ones."""
    rows = np.flatnonzero(asked)
    more = question.on_top[rows] - question.stay[rows]
    order = rows[np.lexsort((question.cost[rows] * more, -question.capacity[rows] * more, question.scope[rows]))]
    return order[np.flatnonzero(np.diff(question.scope[order], prepend=-1))]


def _entries(variant: IntArray, rows: LimitRows) -> tuple[IntArray, IntArray, FloatArray]:
    """The entries of the shared rows by candidate; one that leaves everything as it is has none."""
    order = np.argsort(rows.variant, kind="stable")
    by_variant = rows.variant[order]
    first = np.searchsorted(by_variant, variant, side="left")
    counts = np.searchsorted(by_variant, variant, side="right") - first
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    entry = order[np.repeat(first, counts) + within]
    return offsets, rows.row_of_entry[entry].astype(np.int64), rows.coefficient[entry]
