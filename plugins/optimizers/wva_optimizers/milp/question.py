"""
What the ballot asks, as assignment problems.

One for the models that grow, one for the scopes that may shrink, one for replacing what runs by something cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wva_core.domain import DEFAULT_COST, Ballot, BoolArray, FloatArray, IntArray, Limits, Observation
from wva_core.numerics.assignment import Problem
from wva_core.numerics.starting_point import per_scope, stacked, starting_point
from wva_core.numerics.step_moves import SharedRows, at_role_median, dearest_first_shrink, growth_within_rows

__all__ = ["Question", "read_question"]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """
    V variants, S scopes, M models, A votes.

    Attributes:
        decided: (V,) variants that get an answer: their scope has an anchor, their replicas and limits are known.
        base: (V,) replicas a plan starts from, NaN not known.
        start: (V,) the base within the limits; 0 where it is not known.
        low, high: (V,) limits as whole numbers; both at `start` where the variant is not decided.
        cost: (V,) USD/h of a replica.
        sizing: (V,) capacity of a replica by the anchor; NaN where it is not known or not decided.
        capacity: (A, V) by each vote; 0 where it is not known.
        likely: (A, V) the same with the median of the scope where it is not known.
        need, spare: (A, S) after what `start` already adds and takes.
        gates: (A, S) votes without whose spare nothing goes.
        score: (A, S) weights of the votes.
        counted: (S,) scopes that have an anchor.
        grows: (M,) models in which some vote requires more.
        may_shrink: (S,) scopes the ballot lets shrink, in models that do not grow.
        may_replace: (S,) scopes in which nothing is required, on its way or in doubt.
        urgency: (M,) largest need of a model, relative to what is there of the same capacity.
        priority: (S,) 1 is the most important.
        scope_of_variant, model_of_scope: the indexes of the fleet.
        limits: as they were given.
    """

    decided: BoolArray
    base: FloatArray
    start: FloatArray
    low: FloatArray
    high: FloatArray
    cost: FloatArray
    sizing: FloatArray
    capacity: FloatArray
    likely: FloatArray
    need: FloatArray
    spare: FloatArray
    gates: BoolArray
    score: FloatArray
    counted: BoolArray
    grows: BoolArray
    may_shrink: BoolArray
    may_replace: BoolArray
    urgency: FloatArray
    priority: FloatArray
    scope_of_variant: IntArray
    model_of_scope: IntArray
    limits: Limits

    @property
    def grows_here(self) -> BoolArray:
        """(V,) variants of models that grow."""
        result: BoolArray = self.grows[self.model_of_scope[self.scope_of_variant]]
        return result

    @property
    def occupied(self) -> FloatArray:
        """(V,) replicas that use shared limits already: what is there, or what a lower limit adds to it."""
        return np.fmax(self.base, self.start)

    @property
    def rows(self) -> SharedRows:
        """The shared limits."""
        rows = self.limits.rows
        return SharedRows(rows.row_of_entry, rows.variant, rows.coefficient, rows.upper)

    def grown_by_steps(self, *, multi: bool) -> FloatArray:
        """
        (V,) what the moves that optimizers share would give the models that grow; `start` elsewhere.

        Unless `multi`, models that would grow on several variants of a scope stay at `start`.
        """
        grown = growth_within_rows(
            self.start,
            np.where(self.decided, self.high, np.nan),
            self.need,
            capacity=self.capacity,
            sizing=self.sizing,
            cost=self.cost,
            role_of_variant=self.scope_of_variant,
            model_of_role=self.model_of_scope,
            rows=self.rows,
            urgency=self.urgency,
            occupied=self.occupied,
            takes_part=self.counted,
        ).replicas
        if multi:
            return grown
        mixed = np.bincount(self.scope_of_variant[grown > self.start], minlength=len(self.counted)) > 1
        torn = np.zeros(len(self.grows), dtype=bool)
        torn[self.model_of_scope[mixed]] = True
        return np.where(torn[self.model_of_scope[self.scope_of_variant]], self.start, grown)

    def shrunk_by_steps(self, start: FloatArray) -> FloatArray:
        """(V,) what those moves would leave where the ballot lets shrink."""
        return dearest_first_shrink(
            start,
            self.low,
            self.spare,
            gates=self.gates,
            capacity=self.capacity,
            sizing=self.sizing,
            cost=self.cost,
            score=self.score,
            role_of_variant=self.scope_of_variant,
            may_shrink=self.may_shrink,
        )

    def growth(self) -> Problem:
        """
        The models that grow: what is there stays, and each scope needs what it has and what each vote requires more.

        The roles of a model are one group. A partner that has to run together with a variant that grows may get its
        first replica, whatever its own scope needs.
        """
        room = self.grows_here & (self.sizing > 0)
        high = np.where(room, self.high, self.start)
        for members in self.limits.together:
            if np.any(room[members]):
                idle = members[(self.start[members] < 1) & self.decided[members]]
                high[idle] = np.minimum(np.maximum(high[idle], 1.0), self.high[idle])
        model = self.model_of_scope
        demand = np.where(
            (self.need > 0) & self.grows[model], self.need + self._per_scope(self.likely * self.start), 0.0
        )
        return self._problem(self.likely, demand, self.start, high, self.start, group=model)

    def shrinking(self, grown: FloatArray) -> Problem:
        """
        The scopes that may shrink, everything else at `grown`: each vote that gates keeps what it does not spare.

        What a vote does not know it did not count, so it says nothing about it; the last replica of a scope stays.
        """
        goes = self.may_shrink[self.scope_of_variant] & (self.sizing > 0) & (grown <= self.start)
        return self._problem(
            self.capacity,
            np.where(self.gates & self.may_shrink, self._per_scope(self.capacity * grown) - self.spare, 0.0),
            np.where(goes, np.minimum(self.low, grown), grown),
            grown,
            grown,
            fewest=np.where(self.may_shrink & (self._per_scope(grown[None])[0] >= 1), 1.0, 0.0),
        )

    def replacing(self, planned: FloatArray) -> Problem:
        """
        The scopes that may replace, everything else at `planned`: any mix that keeps what gating votes do not spare.
        """
        free = self.may_replace[self.scope_of_variant] & (self.sizing > 0)
        return self._problem(
            self.capacity,
            np.where(self.gates & self.may_replace, self._per_scope(self.capacity * self.start) - self.spare, 0.0),
            np.where(free, self.low, planned),
            np.where(free, self.high, planned),
            planned,
            fewest=np.where(self.may_replace & (self._per_scope(self.start[None])[0] >= 1), 1.0, 0.0),
        )

    def _problem(
        self,
        rate: FloatArray,
        demand: FloatArray,
        low: FloatArray,
        high: FloatArray,
        current: FloatArray,
        *,
        fewest: FloatArray | float = 0.0,
        group: IntArray | None = None,
    ) -> Problem:
        rows = self.limits.rows
        return Problem.of(
            self.scope_of_variant,
            self.cost,
            np.where(self.decided, rate, 0.0),
            np.maximum(demand, 0.0),
            min_replicas=fewest,
            group=group,
            priority=self.priority,
            low=low,
            high=high,
            current=current,
            held=np.nan_to_num(np.fmax(self.occupied, current)),
            rows=self.rows,
            # a limit that is missed already may stay so
            lower=np.minimum(rows.lower, rows.usage(current)),
            together=[members[self.decided[members]] for members in self.limits.together],
        )

    def _per_scope(self, amounts: FloatArray) -> FloatArray:
        return per_scope(amounts, self.scope_of_variant, len(self.counted))


def read_question(observation: Observation, ballot: Ballot, limits: Limits, priorities: Mapping[str, int]) -> Question:
    """The question as arrays."""
    fleet, table = observation.fleet, observation.variants
    scope, scopes, model = fleet.scope_of_variant, len(fleet.scopes), fleet.model_of_scope
    counted = ballot.anchor >= 0
    known = stacked([vote.capacity for vote in ballot.votes], len(fleet))
    known = np.where(known > 0, known, 0.0)
    point = starting_point(
        table.base,
        limits.low,
        limits.high,
        capacity=known,
        required=stacked([vote.required for vote in ballot.votes], scopes),
        spare=stacked([vote.spare for vote in ballot.votes], scopes),
        counted=counted,
        grow=ballot.grow,
        shrink=ballot.shrink,
        scope_of_variant=scope,
        model_of_scope=model,
        models=len(fleet.models),
    )
    there = np.nan_to_num(table.base)
    decided = point.decided & (point.low <= point.high)
    start = np.where(decided, point.start, there)
    gates = stacked([vote.gates_shrink for vote in ballot.votes], scopes).astype(bool)

    sizing = np.where(decided, ballot.anchor_capacity(scope), np.nan)
    steady = counted & ~point.grows[model] & ~ballot.frozen
    steady &= fleet.by_scope.count(sizing > 0) > 1  # one variant alone has nothing that could take its place
    # a gating vote objects by silence: nothing is replaced on numbers that it does not have
    told = stacked([vote.informative & np.isfinite(vote.demand) for vote in ballot.votes], scopes).astype(bool)
    steady &= gates.any(axis=0) & (told | ~gates).all(axis=0)
    under_way = (table.pending > 0) | ~(table.base == table.current) | ~(start == there) | ~decided
    steady &= ~fleet.by_scope.any(under_way)
    return Question(
        decided=decided,
        base=table.base,
        start=start,
        low=np.where(decided, point.low, start),
        high=np.where(decided, point.high, start),
        cost=np.where(np.isnan(table.cost), DEFAULT_COST, table.cost),
        sizing=sizing,
        capacity=known,
        likely=at_role_median(known, scope, scopes),
        need=point.need,
        spare=point.spare,
        gates=gates,
        score=stacked([vote.score for vote in ballot.votes], scopes),
        counted=counted,
        grows=point.grows,
        may_shrink=point.may_shrink & gates.any(axis=0) & (~gates | (point.spare > 0)).all(axis=0),
        may_replace=steady,
        urgency=point.urgency,
        priority=ballot.priorities(fleet.scopes, priorities),
        scope_of_variant=scope,
        model_of_scope=model,
        limits=limits,
    )
