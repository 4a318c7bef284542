"""
The optimizer `stepwise`: a ballot turned into at most one step per scope, within the limits.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from wva_core.domain import DEFAULT_COST, Allocation, Ballot, Limits, Observation
from wva_core.hooks import hookimpl
from wva_core.numerics.limit_rows import fit_growth
from wva_optimizers.stepwise.step import at_least_one_together, step_per_scope, without_split_groups

__all__ = ["Stepwise"]

_REASONS = (
    "",
    "the cheapest variant of its scope takes one replica more",
    "the dearest variant of its scope gives one replica up",
    "it is its turn to grow, but it is at its maximum; no other variant is asked",
    "it is its turn to shrink, but it is at its minimum; no other variant is asked",
    "a shared limit has no room for its growth",
)
_GROWS, _SHRINKS, _AT_MAXIMUM, _AT_MINIMUM, _NO_ROOM = range(1, 6)


class Stepwise:
    """
    One replica per scope and cycle: the cheapest variant grows, the dearest shrinks.

    Made for analyzers that judge in steps; of any other it uses only whether something is required or spare.
    """

    api = "1"

    class Parameters(BaseModel):
        """There is nothing to set."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @hookimpl
    def allocate(self, observation: Observation, ballot: Ballot, limits: Limits) -> Allocation:
        """The base plus the step of each scope, within the limits; NaN for what is held or not analysed."""
        fleet, table = observation.fleet, observation.variants
        by_scope, base = fleet.by_scope, table.base
        analysed = ~np.isnan(ballot.anchor_capacity(by_scope.of)) & (ballot.anchor >= 0)[by_scope.of]
        in_transition = by_scope.any(analysed & table.settling)
        step = step_per_scope(
            base,
            np.where(np.isnan(table.cost), DEFAULT_COST, table.cost),
            table.pending,
            analysed,
            ballot.grow & ~in_transition,
            ballot.shrink & ~in_transition,
            by_scope,
        )
        wanted = np.minimum(np.maximum(np.where(analysed, base, np.nan) + step, limits.low), limits.high)
        wanted = np.minimum(at_least_one_together(wanted, limits.together), limits.high)

        # a minimum is kept whatever is shared; what goes beyond it has to fit, in the order of the scopes
        start, rows = np.fmax(base, limits.low), limits.rows
        granted, binding = fit_growth(
            start, wanted, by_scope.order, rows.row_of_entry, rows.variant, rows.coefficient, rows.upper
        )
        reason = np.select(
            [binding >= 0, (step > 0) & (wanted <= base), (step < 0) & (wanted >= base), step > 0, step < 0],
            [_NO_ROOM, _AT_MAXIMUM, _AT_MINIMUM, _GROWS, _SHRINKS],
            default=0,
        )
        return Allocation(
            replicas=without_split_groups(granted, limits.together),
            reason=reason,
            reasons=_REASONS,
            binding_row=binding,
        )
