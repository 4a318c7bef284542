"""
What the engine makes of all assessments together; the question an optimizer is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wva_core.domain.arrays import BoolArray, FloatArray, IntArray
from wva_core.domain.fleet import Scope

__all__ = ["LOWEST_PRIORITY", "Ballot", "Vote"]

LOWEST_PRIORITY = 100
"""Of what has no priority (upstream WVA v0.4: priorities from 1, high, to 100, low)."""


@dataclass(frozen=True, slots=True, eq=False)
class Vote:
    """
    One analyzer's part of the ballot, in its own unit; only ever divided by its own capacity.

    Attributes:
        analyzer: the entry's name.
        unit: what its numbers are counted in.
        capacity: (V,) of one replica; NaN not known.
        required: (S,) capacity that is missing; 0 where none is or the analyzer did not judge.
        spare: (S,) capacity that is superfluous; 0 where none is.
        demand, supply: (S,) what the two were derived from; NaN from a step analyzer.
        gates_shrink: (S,) nothing may go while this vote has no spare here.
        informative: (S,) the analyzer judged with at least one known capacity.
        score: (S,) weight.
    """

    analyzer: str
    unit: str
    capacity: FloatArray
    required: FloatArray
    spare: FloatArray
    demand: FloatArray
    supply: FloatArray
    gates_shrink: BoolArray
    informative: BoolArray
    score: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Ballot:
    """
    All votes of one cycle.

    Attributes:
        votes: in the configured order.
        anchor: (S,) index of the vote whose capacity sizes the variants; -1 where the scope is held.
        grow: (S,) some vote requires more.
        shrink: (S,) every vote that must agree has spare, and nothing is required.
        frozen: (S,) an analyzer freezes the scope and none requires more: the last target stays.
        sized: (V,) capacities given in place of the anchor's own, where compatibility mixes two analyzers.
        priority: (S,) who is served first where not all can be, 1 before 2, as the analyzers know it from what is
            promised; NaN where none of them says. None is NaN everywhere.
    """

    votes: tuple[Vote, ...]
    anchor: IntArray
    grow: BoolArray
    shrink: BoolArray
    frozen: BoolArray
    sized: FloatArray | None = None
    priority: FloatArray | None = None

    def priorities(self, scopes: Sequence[Scope], given: Mapping[str, float]) -> FloatArray:
        """
        (S,) priority of every scope, from 1 to `LOWEST_PRIORITY`.

        Args:
            scopes: of the fleet.
            given: by service class, or by model for scopes without one: what an operator told the optimizer itself.
                It comes before what analyzers say.
        """
        said = np.full(len(scopes), np.nan) if self.priority is None else self.priority
        told = np.array([given.get(scope.service_class or scope.model, np.nan) for scope in scopes], dtype=np.float64)
        known = np.where(np.isnan(told), said, told)
        return np.where(known >= 1, np.minimum(known, LOWEST_PRIORITY), LOWEST_PRIORITY)

    def anchor_capacity(self, scope_of_variant: IntArray) -> FloatArray:
        """(V,) capacity of a replica by the anchor of its scope; NaN where there is no anchor or it does not know."""
        if self.sized is not None:
            return self.sized
        result = np.full(len(scope_of_variant), np.nan)
        anchor_of_variant = self.anchor[scope_of_variant]
        for index, vote in enumerate(self.votes):
            mine = anchor_of_variant == index
            result[mine] = vote.capacity[mine]
        return result
