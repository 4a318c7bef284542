"""
What the optimizer is asked, as plain arrays: where it starts, how far it may go, and what each vote needs or spares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wva_core.domain import DEFAULT_COST, Ballot, BoolArray, FloatArray, IntArray, Limits, Observation
from wva_core.numerics.starting_point import stacked, starting_point

__all__ = ["Question", "read_question"]


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
    """The question as arrays; under `compat` it starts from the base, wherever the limits are."""
    fleet, table = observation.fleet, observation.variants
    scope, scopes = fleet.scope_of_variant, len(fleet.scopes)
    counted = ballot.anchor >= 0
    capacity = stacked([vote.capacity for vote in ballot.votes], len(fleet))
    point = starting_point(
        table.base,
        limits.low,
        limits.high,
        capacity=capacity,
        required=stacked([vote.required for vote in ballot.votes], scopes),
        spare=stacked([vote.spare for vote in ballot.votes], scopes),
        counted=counted,
        grow=ballot.grow,
        shrink=ballot.shrink,
        scope_of_variant=scope,
        model_of_scope=fleet.model_of_scope,
        models=len(fleet.models),
        within_limits=not compat,
    )
    return Question(
        decided=point.decided,
        base=table.base,
        start=point.start,
        low=point.low,
        high=point.high,
        cost=np.where(np.isnan(table.cost), DEFAULT_COST, table.cost),
        sizing=np.where(point.decided, ballot.anchor_capacity(scope), np.nan),
        capacity=capacity,
        need=point.need,
        spare=point.spare,
        gates=stacked([vote.gates_shrink for vote in ballot.votes], scopes).astype(bool),
        score=stacked([vote.score for vote in ballot.votes], scopes),
        counted=counted,
        grows=point.grows,
        may_shrink=point.may_shrink,
        urgency=point.urgency,
        scope_of_variant=scope,
        model_of_scope=fleet.model_of_scope,
    )
