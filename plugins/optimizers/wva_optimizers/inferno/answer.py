"""
What the servers were granted, as replicas of every variant, and why.
"""

from __future__ import annotations

import numpy as np

from wva_core.domain import BoolArray, FloatArray, IntArray, Limits
from wva_core.numerics.limit_rows import ROUNDING
from wva_optimizers.inferno.greedy import Grants
from wva_optimizers.inferno.question import Offer, Question

__all__ = ["SENTENCES", "answered", "reasons_for"]

SENTENCES = (
    "",
    "serves its scope: what it costs, and what changing to it costs, is the least",
    "is not chosen: another variant of its scope serves it",
    "gets a share: its scope does not fit as a whole, and this is what is left for it",
    "no variant of its scope has room for the whole need",
    "is left as it is: the need of its scope is met",
    "is left as it is: no analyzer says what a replica of its scope carries",
    "is left as it is: its replicas, its limits or its capacity are not known",
    "is left as it is: what it has to run with does not fit",
    "is the best of its scope, but its maximum is below the need",
)

_SERVES, _OTHER, _SHARE, _NO_ROOM, _MET, _NO_ANCHOR, _UNKNOWN, _APART, _MAXIMUM = range(1, len(SENTENCES))


def answered(question: Question, offer: Offer, grants: Grants, limits: Limits) -> FloatArray:
    """
    (V,) whole replicas; NaN leaves a variant as it is.

    What a scope gives up for another variant goes only when that one serves: until then both run. A scope that was
    granted nothing stays as it is. So does one whose answer would break a row by what it gives up, or tear a group
    apart that is all zero or all at least one.
    """
    scope = question.scope
    replicas = question.stay.copy()
    chosen = np.flatnonzero(grants.candidate >= 0)
    candidate = grants.candidate[chosen]
    whole = grants.whole[chosen]
    variant = offer.variant[candidate]
    is_ready = (variant < 0) | (question.serving[variant] >= offer.target[candidate])
    moves = np.zeros(len(question.counted), dtype=bool)
    moves[chosen] = whole & ~offer.from_stay[candidate] & is_ready
    replicas = np.where(moves[scope], question.rest, replicas)
    takes = offer.variant[candidate] >= 0
    candidate, whole, scopes = candidate[takes], whole[takes], chosen[takes]
    got = np.where(whole, offer.target[candidate], offer.start[candidate] + grants.replicas[scopes])
    replicas[offer.variant[candidate]] = got
    return _within_groups(_within_rows(replicas, question, limits), question, limits)


def _within_rows(replicas: FloatArray, question: Question, limits: Limits) -> FloatArray:
    """
    The answer, with every scope left as it is that takes part in a row which the answer would break.

    What was granted fits; but a row with a lower limit, or one in which some replicas make room for others, may be
    broken by what is given up.
    """
    rows = limits.rows
    if not np.any(rows.lower > -np.inf) and not np.any(rows.coefficient < 0):
        return replicas
    upper = np.where(np.isnan(rows.upper), -np.inf, rows.upper + ROUNDING * np.abs(rows.upper))
    before, occupied = rows.usage(question.base), rows.usage(question.occupied)
    while True:
        left, used = rows.usage(replicas), rows.usage(np.fmax(replicas, question.base))
        broken = ((left < before) & (left < rows.lower)) | ((used > occupied) & (used > upper))
        touched = rows.variant[broken[rows.row_of_entry] & (rows.coefficient != 0)]
        moves = touched[replicas[touched] != question.stay[touched]]
        if not len(moves):
            return replicas
        replicas = _left_alone(replicas, question, moves)  # at least one scope more with each pass


def _within_groups(replicas: FloatArray, question: Question, limits: Limits) -> FloatArray:
    """The answer without torn groups; undecided variants are NaN."""
    for group in limits.together:
        if _is_torn(np.where(question.decided, replicas, np.nan)[group]):
            replicas = _left_alone(replicas, question, group)
    replicas = np.where(question.decided, _within_rows(replicas, question, limits), np.nan)
    for group in limits.together:
        if _is_torn(replicas[group]):
            replicas[group] = np.nan
    return replicas


def _is_torn(replicas: FloatArray) -> bool:
    return bool(np.any(replicas == 0) and np.any(replicas > 0))


def _left_alone(replicas: FloatArray, question: Question, variants: IntArray) -> FloatArray:
    """The answer with the scopes of some variants as they are."""
    back = np.zeros(len(question.counted), dtype=bool)
    back[question.scope[variants]] = True
    return np.where(back[question.scope], question.stay, replicas)


def reasons_for(replicas: FloatArray, question: Question, offer: Offer, grants: Grants) -> tuple[IntArray, IntArray]:
    """(V,) index into `SENTENCES`, and (V,) the shared row that stopped the first choice of its scope, -1 none."""
    scope = question.scope
    scopes = len(question.counted)
    chosen = np.full(scopes, -1, dtype=np.int64)
    from_stay = np.zeros(scopes, dtype=bool)
    has = grants.candidate >= 0
    chosen[has] = offer.variant[grants.candidate[has]]
    from_stay[has] = offer.from_stay[grants.candidate[has]]
    is_chosen: BoolArray = chosen[scope] == np.arange(len(scope))
    reason = np.full(len(scope), _NO_ROOM, dtype=np.int64)
    reason[has[scope] & (chosen[scope] < 0)] = _MET
    reason[has[scope] & (chosen[scope] >= 0)] = _OTHER
    reason[is_chosen] = np.where(grants.whole[scope], np.where(from_stay[scope], _MAXIMUM, _SERVES), _SHARE)[is_chosen]
    reason[np.isnan(replicas)] = _APART
    reason[~question.movable] = _UNKNOWN
    reason[~question.counted[scope]] = _NO_ANCHOR
    unlucky = ~grants.whole
    binding = np.where(unlucky[scope] & question.movable, grants.stopped_by[scope], -1)
    return reason, binding.astype(np.int64)
