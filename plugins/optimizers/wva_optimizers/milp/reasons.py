"""
Why each variant gets what it gets, as numbers of sentences.
"""

from __future__ import annotations

import numpy as np

from wva_core.domain import BoolArray, FloatArray, IntArray
from wva_core.numerics.assignment import Solution
from wva_optimizers.milp.question import Question

__all__ = ["SENTENCES", "reasons_for", "stopping_rows"]

SENTENCES = (
    "",
    "grows: part of the cheapest mix that carries the demand",
    "shrinks: the cheapest mix that keeps what the votes do not spare needs fewer of it",
    "grows: replaces dearer replicas, which go once it serves and capacity is spare",
    "is raised to its lower limit",
    "is lowered to its upper limit",
    "more is needed, and no mix within the limits carries all of it",
    "a shared limit stops its growth",
    "is left as it is: no analyzer says what a replica of its scope carries",
    "is left as it is: its replicas or its limits are not known",
    "is left as it is: a partner that has to run with it may not or has no room",
    "more is needed, and no mix that carries all of it was found; that there is none is not proven",
)

_GROWS, _SHRINKS, _REPLACES, _RAISED, _LOWERED, _SHORT, _FULL_ROW, _NO_ANCHOR, _UNKNOWN, _APART, _NOT_FOUND = range(
    1, len(SENTENCES)
)


def stopping_rows(question: Question, grown: Solution) -> IntArray:
    """(V,) the shared limit without which a variant of a growing scope would have grown (more), -1 none."""
    scope = question.scope_of_variant
    needy: BoolArray = np.logical_or.reduce(question.need > 0, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        price = question.cost / question.sizing
    dearest = np.full(len(needy), -np.inf)
    added = (grown.replicas > question.start) & (question.sizing > 0)
    np.maximum.at(dearest, scope[added], price[added])
    dearest[~grown.served] = np.inf
    able = question.grows_here & (question.sizing > 0) & (grown.replicas < question.high)
    stopped = able & needy[scope] & (price < dearest[scope])
    return np.where(stopped, grown.binding, -1)


def reasons_for(
    replicas: FloatArray, question: Question, grown: Solution, replaced: BoolArray, binding_row: IntArray
) -> IntArray:
    """(V,) index into `SENTENCES`; of several reasons the one that stopped something is told."""
    reason = np.zeros(len(replicas), dtype=np.int64)
    reason[replicas > question.base] = _GROWS
    reason[replicas < question.base] = _SHRINKS
    reason[replaced & (replicas > question.base)] = _REPLACES
    reason[(replicas == question.low) & (replicas > question.base)] = _RAISED
    reason[(replicas == question.high) & (replicas < question.base)] = _LOWERED
    short = ~grown.served[question.scope_of_variant] & question.grows_here
    reason[short & (replicas <= question.base)] = _SHORT if grown.status == "optimal" else _NOT_FOUND
    reason[binding_row >= 0] = _FULL_ROW
    reason[np.isnan(replicas)] = _APART
    reason[~question.decided] = _UNKNOWN
    reason[~question.counted[question.scope_of_variant]] = _NO_ANCHOR
    return reason
