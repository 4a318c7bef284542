"""
What the engine makes of all assessments together; the question an optimizer is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wva_core.domain.arrays import BoolArray, FloatArray, IntArray

__all__ = ["Ballot", "Vote"]


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
    """

    votes: tuple[Vote, ...]
    anchor: IntArray
    grow: BoolArray
    shrink: BoolArray
    frozen: BoolArray
    sized: FloatArray | None = None

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
