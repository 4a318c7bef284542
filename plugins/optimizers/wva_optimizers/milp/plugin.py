"""
The plugin `milp`: its parameters and the order of its questions.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from wva_core.domain import LOWEST_PRIORITY, Allocation, Ballot, BoolArray, FloatArray, Limits, Observation
from wva_core.hooks.specs import API, hookimpl
from wva_core.numerics.assignment import ROUNDING, Solution, keeps_limits
from wva_core.numerics.price_ascent import solve
from wva_optimizers.milp.question import Question, read_question
from wva_optimizers.milp.reasons import SENTENCES, reasons_for, stopping_rows

__all__ = ["Milp"]


class Milp:
    """
    The cheapest replicas that serve as much as the limits allow, with a lower bound that proves how cheap they are.

    Objectives in order: models served by priority, what the others get, cost, change. Exact for small fleets, by
    prices for large ones, and never worse than one variant after the other. Bound and gap are those of serving as much
    as the answer does, NaN where the budget ended before that was settled.
    """

    api = API

    class Parameters(BaseModel):
        """What an operator may set."""

        model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

        multi: bool = Field(default=True, description="Whether several variants may share what a scope gets new.")
        node_limit: int = Field(
            default=200, ge=1, le=1_000_000, description="Branch-and-bound nodes for each part that shares limits."
        )
        exact_up_to: int = Field(
            default=1_000, ge=0, description="Variants that may move up to which the answer is looked for exactly."
        )
        steps: int = Field(default=60, ge=1, le=10_000, description="Steps of the prices beyond that.")
        replace_from: float | None = Field(
            default=0.1,
            ge=0.0,
            allow_inf_nan=False,
            description="Part of a scope's cost that a cheaper mix has to save before running replicas are replaced; "
            "null: never.",
        )
        priorities: dict[str, Annotated[int, Field(ge=1, le=LOWEST_PRIORITY)]] = Field(
            default={},
            description="Priority of a service class, or of a model without one, in place of that of the class: 1 is"
            " served first, 100 (where there is none) last.",
        )

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @hookimpl
    def allocate(self, observation: Observation, ballot: Ballot, limits: Limits) -> Allocation:
        """
        First the models that need more, then the scopes that may give up, then what could be had cheaper.

        Cost: a few ms for a handful of variants, about 2 ms for each scope that moves on its own, up to a second for
        1,000 variants that compete for shared limits; beyond that as `price_ascent`.
        """
        asked = read_question(observation, ballot, limits, self.parameters.priorities)
        multi = self.parameters.multi
        look = partial(
            solve,
            exact_up_to=self.parameters.exact_up_to,
            node_limit=self.parameters.node_limit,
            steps=self.parameters.steps,
        )
        growth = asked.growth()
        stepped = asked.grown_by_steps(multi=multi)
        grown = look(growth, multi=multi, incumbent=stepped if keeps_limits(growth, stepped) else None)
        shrinking = asked.shrinking(grown.replicas)
        stepped = np.where(shrinking.low < shrinking.high, asked.shrunk_by_steps(grown.replicas), grown.replicas)
        shrunk = look(shrinking, incumbent=stepped if keeps_limits(shrinking, stepped) else None)
        planned, replaced = self._replaced(asked, shrunk.replicas, look)

        replicas = np.where(asked.decided, planned, np.nan)
        replicas[_broken(asked, replicas)] = np.nan
        runs = np.nan_to_num(np.where(np.isnan(replicas), asked.base, replicas))
        objective = float(asked.cost @ runs)
        # what shrinks is what growth left: its bound counts both; NaN if one of them proves nothing
        bound = float(np.minimum(grown.bound - grown.objective + shrunk.bound, objective))
        proven = grown.status == shrunk.status == "optimal" and not replaced.any()
        binding_row = stopping_rows(asked, grown)
        return Allocation(
            replicas=replicas,
            status="optimal" if proven else "feasible",
            objective=objective,
            bound=bound,
            gap=(objective - bound) / objective if objective > 0 else 0.0,
            reason=reasons_for(replicas, asked, grown, replaced, binding_row),
            reasons=SENTENCES,
            binding_row=binding_row,
        )

    def _replaced(self, asked: Question, planned: FloatArray, look: partial[Solution]) -> tuple[FloatArray, BoolArray]:
        """
        (V,) the plan with cheaper replicas added beside those that they are to replace, and where that is so.

        The dearer ones go in a later cycle, when the new ones serve and every vote has spare: nothing that serves is
        given up for something that is still starting.
        """
        least = self.parameters.replace_from
        nothing = np.zeros(len(planned), dtype=bool)
        if least is None or not asked.may_replace.any():
            return planned, nothing
        problem = asked.replacing(planned)
        if not np.any(problem.high > planned):
            return planned, nothing
        # what runs may be a mix, which a plan of one variant for each scope is not to keep
        multi = self.parameters.multi
        target = look(problem, multi=multi, incumbent=planned if multi else None).replicas
        scope, scopes = asked.scope_of_variant, len(asked.counted)
        now = np.bincount(scope, weights=asked.cost * planned, minlength=scopes)
        then = np.bincount(scope, weights=asked.cost * target, minlength=scopes)
        pays = asked.may_replace & (now - then >= least * now) & (now - then > ROUNDING * now)
        replaced: BoolArray = pays[scope] & (target > asked.start)
        here = pays & (np.bincount(scope[replaced], minlength=scopes) > 0)
        beside = np.where(target >= asked.start, target, np.maximum(target, planned))
        return np.where(here[scope], beside, planned), replaced


def _broken(asked: Question, replicas: FloatArray) -> BoolArray:
    """(V,) members of groups that neither all run nor all rest: no limit lets them, so they are left as they are."""
    broken = np.zeros(len(replicas), dtype=bool)
    for members in asked.limits.together:
        broken[members] |= np.any(replicas[members] < 1) and np.any(replicas[members] >= 1)  # NaN is neither
    return broken
