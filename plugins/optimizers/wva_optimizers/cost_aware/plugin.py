"""
The plugin `cost-aware`: its parameters and the order of its moves.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from wva_core.domain import Allocation, Ballot, FloatArray, Limits, Observation
from wva_core.hooks.specs import API, hookimpl
from wva_core.numerics.step_moves import SharedRows, dearest_first_shrink, growth_within_rows
from wva_optimizers.cost_aware.question import Question, read_question
from wva_optimizers.cost_aware.reasons import SENTENCES, reasons_for
from wva_optimizers.cost_aware.together import keep_together

__all__ = ["CostAware"]


class CostAware:
    """
    Adds what is needed where capacity is cheapest, and gives up what is spare where it is dearest.

    All models move at once, each on its own; they meet only in shared limits, the most urgent first.
    """

    api = API

    class Parameters(BaseModel):
        """What an operator may set."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        compat: bool = Field(
            default=False,
            description="Repeat the moves of upstream WVA v0.9, its known defects included; limits still hold.",
        )

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @hookimpl
    def allocate(self, observation: Observation, ballot: Ballot, limits: Limits) -> Allocation:
        """
        Growth in the models that need it, shrinking in the others, limits kept on every path.

        Cost: 4 to 8 ms for 10,000 variants in 2,000 scopes, all moving; up to 50 ms if they compete for shared rows.
        """
        asked = read_question(observation, ballot, limits, compat=self.parameters.compat)
        grown = growth_within_rows(
            asked.start,
            np.where(asked.decided, asked.high, np.nan),
            asked.need,
            capacity=asked.capacity,
            sizing=asked.sizing,
            cost=asked.cost,
            role_of_variant=asked.scope_of_variant,
            model_of_role=asked.model_of_scope,
            rows=SharedRows(limits.rows.row_of_entry, limits.rows.variant, limits.rows.coefficient, limits.rows.upper),
            urgency=asked.urgency,
            occupied=asked.occupied,
            takes_part=asked.counted,
            literal=self.parameters.compat,
        )
        replicas = np.where(asked.grows[asked.model_of_variant], grown.replicas, self._shrunk(asked))
        if self.parameters.compat:
            replicas = np.clip(replicas, asked.low, asked.high)
        replicas = keep_together(replicas, asked, limits)
        replicas = np.where(asked.decided, replicas, np.nan)
        runs = np.nan_to_num(np.where(np.isnan(replicas), asked.base, replicas))
        return Allocation(
            replicas=replicas,
            objective=float(asked.cost @ runs),
            reason=reasons_for(replicas, asked, grown.unserved, grown.binding_row),
            reasons=SENTENCES,
            binding_row=grown.binding_row,
        )

    def _shrunk(self, asked: Question) -> FloatArray:
        return dearest_first_shrink(
            asked.start,
            asked.low,
            asked.spare,
            gates=asked.gates,
            capacity=asked.capacity,
            sizing=asked.sizing,
            cost=asked.cost,
            score=asked.score,
            role_of_variant=asked.scope_of_variant,
            may_shrink=asked.may_shrink,
            literal=self.parameters.compat,
        )
