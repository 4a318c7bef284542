"""
What the optimizer is asked, as plain arrays: where it starts, how far it may go, and what each vote needs or spares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wva_core.domain import DEFAULT_COST, Ballot, BoolArray, FloatArray, IntArray, Limits, Observation
from wva_core.numerics.step_moves import at_role_median

__all__ = ["Question", "read_question"]

_MOST_REPLICAS = float(2**31 - 1)
"""The largest number the `replicas` field of a scale target holds (int32)."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """
    V variants, S scopes, M models, A votes.

    Attributes:
        decided: (V,) variants that get an answer: their scope has an anchor, their replicas and limits are known.
        base: (V,) replicas a plan starts from.
        start: (V,) the base, raised to the lower and lowered to the upper limit (under `compat` the base itself).
        low, high: (V,) limits as whole numbers, NaN where not known.
        cost: (V,) USD/h of a replica.
        sizing: (V,) capacity of a replica by the anchor; NaN where it is not known or not decided.
        capacity: (A, V) by each vote.
        need, spare: (A, S) after what `start` already adds and takes.
        gates: (A, S) votes without whose spare nothing goes.
        score: (A, S) weights of the votes.
        counted: (S,) scopes that have an anchor.
        grows: (M,) models in which some vote requires more.
        may_shrink: (S,) scopes the ballot lets shrink, in models that do not grow.
        urgency: (M,) largest need of a model, relative to what is there of the same capacity.
        scope_of_variant, model_of_scope: the indexes of the fleet.
    """

    decided: BoolArray
    base: FloatArray
    start: FloatArray
    low: FloatArray
    high: FloatArray
    cost: FloatArray
    sizing: FloatArray
    capacity: FloatArray
    need: FloatArray
    spare: FloatArray
    gates: BoolArray
    score: FloatArray
    counted: BoolArray
    grows: BoolArray
    may_shrink: BoolArray
    urgency: FloatArray
    scope_of_variant: IntArray
    model_of_scope: IntArray

    @property
    def model_of_variant(self) -> IntArray:
        """(V,) model of each variant."""
        return self.model_of_scope[self.scope_of_variant]

    @property
    def occupied(self) -> FloatArray:
        """(V,) replicas that use shared limits already: what is there, or what a lower limit adds to it."""
        return np.fmax(self.base, self.start)


def read_question(observation: Observation, ballot: Ballot, limits: Limits, *, compat: bool) -> Question:
    """
    The question as arrays.

    What a lower limit adds counts against the needs, and what an upper limit takes counts against the spare; a need
    that an upper limit makes is seen by the analyzers in the next cycle.
    """
    fleet, table = observation.fleet, observation.variants
    scope, scopes, models = fleet.scope_of_variant, len(fleet.scopes), len(fleet.models)
    low, high = np.ceil(np.maximum(limits.low, 0.0)), np.floor(np.minimum(limits.high, _MOST_REPLICAS))
    counted = ballot.anchor >= 0
    decided = counted[scope] & ~np.isnan(table.base) & ~np.isnan(low) & ~np.isnan(high)
    start = table.base if compat else np.where(decided, np.clip(table.base, low, high), table.base)

    capacity = _stacked([vote.capacity for vote in ballot.votes], len(fleet))
    required = _stacked([vote.required for vote in ballot.votes], scopes)
    asks = ballot.grow & counted & np.isfinite(required) & (required > 0)
    need = np.where(asks, required, 0.0)
    spare = np.nan_to_num(_stacked([vote.spare for vote in ballot.votes], scopes))
    grows = np.zeros(models, dtype=bool)
    grows[fleet.model_of_scope[asks.any(axis=0)]] = True

    urgency = np.zeros(models)
    moved = np.where(decided, start - table.base, 0.0)
    if asks.any() or moved.any():
        likely = at_role_median(capacity, scope, scopes)
        there = _per_scope(np.nan_to_num(np.fmax(table.base, 0.0)) * likely, scope, scopes)
        relative = np.divide(need, there, out=np.where(need > 0, np.inf, 0.0), where=there > 0)
        np.maximum.at(urgency, fleet.model_of_scope, relative.max(axis=0, initial=0.0))
        need = np.maximum(0.0, need - _per_scope(np.maximum(moved, 0.0) * likely, scope, scopes))
        spare = np.maximum(0.0, spare - _per_scope(np.maximum(-moved, 0.0) * likely, scope, scopes))
    return Question(
        decided=decided,
        base=table.base,
        start=start,
        low=low,
        high=high,
        cost=np.where(np.isnan(table.cost), DEFAULT_COST, table.cost),
        sizing=np.where(decided, ballot.anchor_capacity(scope), np.nan),
        capacity=capacity,
        need=need,
        spare=spare,
        gates=_stacked([vote.gates_shrink for vote in ballot.votes], scopes).astype(bool),
        score=_stacked([vote.score for vote in ballot.votes], scopes),
        counted=counted,
        grows=grows,
        may_shrink=ballot.shrink & counted & ~grows[fleet.model_of_scope],
        urgency=urgency,
        scope_of_variant=scope,
        model_of_scope=fleet.model_of_scope,
    )


def _stacked(columns: Sequence[ArrayLike], width: int) -> FloatArray:
    """(A, width) the columns as rows; no votes make no rows."""
    return np.array(columns, dtype=np.float64).reshape(len(columns), width)


def _per_scope(amounts: FloatArray, scope: IntArray, scopes: int) -> FloatArray:
    """(A, S) sums of (A, V) amounts over the variants of each scope."""
    return _stacked([np.bincount(scope, weights=row, minlength=scopes) for row in amounts], scopes)
