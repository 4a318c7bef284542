"""
Groups of variants that are all zero or all at least one, made whole after the moves.
"""

from __future__ import annotations

import numpy as np

from wva_core.domain import BoolArray, FloatArray, IntArray, Limits
from wva_core.numerics.limit_rows import fit_growth
from wva_optimizers.cost_aware.question import Question

__all__ = ["keep_together"]


def keep_together(replicas: FloatArray, question: Question, limits: Limits) -> FloatArray:
    """
    (V,) the same replicas with every group all zero or all at least one, as far as limits allow.

    A group in which something runs gets one replica of each member. If a member may not have one, or a shared row has
    no room for it, a group that stood at zero stays there, and one that runs in part already is left as it is (NaN):
    replicas that serve are not taken away for a partner that cannot come.
    """
    if not limits.together:
        return replicas
    members: IntArray = np.concatenate(limits.together)
    group = np.repeat(np.arange(len(limits.together)), [len(one) for one in limits.together])
    members, group = members[question.decided[members]], group[question.decided[members]]

    whole = replicas.copy()
    idle = _in_group(replicas[members] >= 1, group) & (replicas[members] < 1)
    whole[members[idle]] = 1.0
    rows = limits.rows
    occupied = np.fmax(question.occupied, replicas)
    granted, _ = fit_growth(
        occupied,
        np.fmax(occupied, whole),
        np.arange(len(replicas)),
        rows.row_of_entry,
        rows.variant,
        rows.coefficient,
        rows.upper,
    )
    short = idle & ((granted[members] < 1) | (question.high[members] < 1))
    broken = _in_group(short, group)
    ran = _in_group(question.start[members] >= 1, group)
    whole[members[broken]] = np.where(ran, np.nan, question.low[members])[broken]
    return whole


def _in_group(mask: BoolArray, group: IntArray) -> BoolArray:
    """Whether `mask` holds for any member of the group of each."""
    return (np.bincount(group, weights=mask) > 0)[group]
