"""
The value of moving from one allocation to another: the difference of costs, and more where the accelerator changes.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CHANGE_PENALTY", "transition_value"]

FloatArray: TypeAlias = NDArray[np.float64]

CHANGE_PENALTY = 0.1
"""Share of the cost before and after that a change of accelerator counts for (upstream's default)."""


def transition_value(
    same_accelerator: ArrayLike,
    replicas_before: ArrayLike,
    cost_before: ArrayLike,
    replicas_after: ArrayLike,
    cost_after: ArrayLike,
    *,
    penalty: float = CHANGE_PENALTY,
) -> FloatArray:
    """
    Value of each transition, in the unit of the costs; the smaller the better, and negative where cost is saved.

        same accelerator, same replicas      0
        same accelerator, other replicas     after - before
        another accelerator                  penalty (before + after) + after - before

    Nothing before is another accelerator with 0 replicas at cost 0. Arguments are spread to one shape.

    Source: upstream WVA v0.4 to v0.9, transition penalty of an allocation.
    """
    before, after = np.asarray(cost_before, dtype=np.float64), np.asarray(cost_after, dtype=np.float64)
    same, unchanged = np.asarray(same_accelerator, dtype=bool), np.equal(replicas_before, replicas_after)
    moved = penalty * (before + after) + (after - before)
    return np.where(same, np.where(unchanged, 0.0, after - before), moved)
