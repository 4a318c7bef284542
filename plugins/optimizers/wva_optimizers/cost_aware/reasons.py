"""
Why each variant gets what it gets, as numbers of sentences.
"""

from __future__ import annotations

import numpy as np

from wva_core.domain import FloatArray, IntArray
from wva_optimizers.cost_aware.question import Question

__all__ = ["SENTENCES", "reasons_for"]

SENTENCES = (
    "",
    "grows: the most capacity for its cost among the variants with room",
    "shrinks: the dearest of its scope that the spare capacity allows",
    "is raised to its lower limit",
    "is lowered to its upper limit",
    "more is needed, and a role of the model has no variant with room for it",
    "a shared limit stops its growth",
    "is left as it is: no analyzer says what a replica of its scope carries",
    "is left as it is: its replicas or its limits are not known",
    "is left as it is: a partner that has to run with it may not or has no room",
)

_GROWS, _SHRINKS, _RAISED, _LOWERED, _NO_ROOM, _FULL_ROW, _NO_ANCHOR, _UNKNOWN, _APART = range(1, len(SENTENCES))


def reasons_for(replicas: FloatArray, question: Question, unserved: FloatArray, binding_row: IntArray) -> IntArray:
    """(V,) index into `SENTENCES`; of several reasons the one that stopped something is told."""
    reason = np.zeros(len(replicas), dtype=np.int64)
    reason[replicas > question.base] = _GROWS
    reason[replicas < question.base] = _SHRINKS
    reason[(replicas == question.low) & (replicas > question.base)] = _RAISED
    reason[(replicas == question.high) & (replicas < question.base)] = _LOWERED
    wanting = np.logical_or.reduce(unserved > 0, axis=0)[question.scope_of_variant]
    reason[wanting & (replicas <= question.base)] = _NO_ROOM
    reason[binding_row >= 0] = _FULL_ROW
    reason[np.isnan(replicas)] = _APART
    reason[~question.decided] = _UNKNOWN
    reason[~question.counted[question.scope_of_variant]] = _NO_ANCHOR
    return reason
