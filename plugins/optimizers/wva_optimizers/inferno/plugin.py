"""
The plugin `inferno`: its parameters, and the way from the ballot to candidates and back to replicas.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from wva_core.domain import LOWEST_PRIORITY, Allocation, Ballot, Limits, Observation
from wva_core.hooks.specs import API, hookimpl
from wva_core.numerics.transition_value import CHANGE_PENALTY
from wva_optimizers.inferno.answer import SENTENCES, answered, reasons_for
from wva_optimizers.inferno.greedy import SaturationPolicy, solve
from wva_optimizers.inferno.question import offered, read_question

__all__ = ["Inferno"]

Priority = Annotated[int, Field(ge=1, le=LOWEST_PRIORITY)]


class Inferno:
    """
    Chooses one variant for every scope, by cost and by what the change costs; scopes compete for shared limits.

    The scope that loses most by its second choice takes its first before the others do, within its priority.
    """

    api = API

    class Parameters(BaseModel):
        """What an operator may set."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        saturation_policy: SaturationPolicy = Field(
            default=SaturationPolicy.NONE,
            description="Who gets what is left when the whole need of a scope does not fit.",
        )
        delayed_best_effort: bool = Field(
            default=False,
            description="Share what is left only after every priority had its turn, not after each of them.",
        )
        change_penalty: float = Field(
            default=CHANGE_PENALTY,
            ge=0,
            allow_inf_nan=False,
            description="What a dollar per hour that is given up or started elsewhere counts besides itself.",
        )
        priorities: dict[str, Priority] = Field(
            default={},
            description="Priority of a service class, or of a model without one, in place of that of the class: 1 is"
            " served first, 100 (where there is none) last.",
        )

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @hookimpl
    def allocate(self, observation: Observation, ballot: Ballot, limits: Limits) -> Allocation:
        """
        One variant for each scope that moves, limits kept on every path.

        Cost: about 30 ms for 10,000 variants in 2,500 scopes that compete for shared rows, 4 ms without any.
        """
        question = read_question(observation, ballot, limits, self.parameters.change_penalty)
        offer = offered(question, limits.rows)
        grants = solve(
            offer.candidates,
            ballot.priorities(observation.fleet.scopes, self.parameters.priorities),
            limits.rows.upper - limits.rows.usage(question.occupied),
            policy=self.parameters.saturation_policy,
            delayed_best_effort=self.parameters.delayed_best_effort,
        )
        replicas = answered(question, offer, grants, limits)
        reason, binding_row = reasons_for(replicas, question, offer, grants)
        runs = np.nan_to_num(np.where(np.isnan(replicas), question.base, replicas))
        return Allocation(
            replicas=replicas,
            objective=float(question.cost @ runs),
            reason=reason,
            reasons=SENTENCES,
            binding_row=binding_row,
        )
