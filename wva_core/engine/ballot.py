"""
From assessments to one question for the optimizer: thresholds, votes, liveness, and the anchor of each scope.

Growth follows the largest need of any analyzer that judged. Shrinking needs every enabled analyzer to agree; an
analyzer that froze, forbade it, failed, or has not been informative for some intervals does not agree. Under `compat`
an analyzer that is no longer live loses that veto, and the anchor is chosen as upstream WVA v0.9 chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wva_core.domain import (
    Assessment,
    Ballot,
    BoolArray,
    FloatArray,
    IntArray,
    Memory,
    Notice,
    Observation,
    Settings,
    Verdict,
    Vote,
)
from wva_core.domain.arrays import booleans, floats, integers, or_zero
from wva_core.hooks.chain import Entry

__all__ = ["cast", "is_live", "required_capacity", "scope_median", "spare_capacity", "vote_of"]

_UNKNOWN_INTERVAL = 30.0
"""Seconds taken for the interval where it is not positive (upstream WVA v0.9, liveness)."""

_CARRIERS = ("saturation", "saturation-v1", "saturation-v2")
"""Analyzers that upstream takes for the anchor before any other."""


def required_capacity(demand: FloatArray, anticipated: FloatArray, scale_up: FloatArray) -> FloatArray:
    """
    (S,) capacity that is missing so that demand uses at most `scale_up` of it; 0 where the threshold is not positive.

    Source: upstream WVA v0.9, threshold post-step: RC = max(0, demand / up - anticipated supply).
    """
    judged = scale_up > 0
    return np.where(judged, np.maximum(0.0, demand / np.where(judged, scale_up, 1.0) - anticipated), 0.0)


def spare_capacity(demand: FloatArray, supply: FloatArray, scale_down: FloatArray) -> FloatArray:
    """
    (S,) capacity that could go so that demand uses at most `scale_down` of the rest; 0 where it is not positive.

    Source: upstream WVA v0.9, threshold post-step: SC = max(0, supply - demand / down).
    """
    judged = scale_down > 0
    return np.where(judged, np.maximum(0.0, supply - demand / np.where(judged, scale_down, 1.0)), 0.0)


def is_live(informative: FloatArray, now: float, interval: float, intervals: float = 3.0) -> BoolArray:
    """
    (S,) whether an analyzer was informative within the last few intervals; False where it never was.

    The boundary counts as live. An interval that is not positive is taken for 30 s.
    """
    reach = intervals * (interval if interval > 0 else _UNKNOWN_INTERVAL)
    return (now - informative) <= reach


def scope_median(observation: Observation, capacity: FloatArray) -> FloatArray:
    """(S,) median of the known capacities of a scope's variants; NaN where none is known."""
    by_scope = observation.fleet.by_scope
    known = np.flatnonzero(~np.isnan(capacity))
    medians = np.full(len(by_scope), np.nan)
    if not known.size:
        return medians
    scope = by_scope.of[known]
    order = np.lexsort((capacity[known], scope))
    values = capacity[known][order]
    counts = np.bincount(scope, minlength=len(by_scope))
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    present = counts > 0
    lower = first[present] + (counts[present] - 1) // 2
    upper = first[present] + counts[present] // 2
    medians[present] = (values[lower] + values[upper]) / 2.0
    return medians


def vote_of(name: str, answer: Assessment, observation: Observation, settings: Settings) -> Vote:
    """
    One analyzer's part of the ballot.

    Growth counts the replicas from which the plan starts (what is there or pending, or asked for already), those of
    unknown capacity at the scope's median; shrinking counts only what serves and will stay, those of unknown capacity
    as nothing. Where a stated need is not known, nothing is spare.
    """
    table, by_scope = observation.variants, observation.fleet.by_scope
    verdict = answer.verdict
    may_grow = (verdict == Verdict.JUDGED) | (verdict == Verdict.NO_SHRINK)
    may_shrink = verdict == Verdict.JUDGED
    unknown = np.isnan(answer.capacity)
    certain = np.where(unknown, 0.0, answer.capacity)
    supply = by_scope.sum(or_zero(np.fmin(table.ready, table.base)) * certain)
    if answer.required is not None or answer.spare is not None:
        nothing = np.zeros(len(verdict))
        required = nothing if answer.required is None else answer.required
        spare = nothing if answer.spare is None else np.where(np.isnan(required), 0.0, answer.spare)
    else:
        likely = certain
        if np.any(unknown):
            likely = np.where(unknown, or_zero(scope_median(observation, answer.capacity))[by_scope.of], certain)
        coming = np.where(np.isnan(table.base), table.ready + table.pending, table.base)
        anticipated = by_scope.sum(or_zero(coming) * likely)
        required = required_capacity(answer.demand, anticipated, settings.scale_up)
        spare = spare_capacity(answer.demand, supply, settings.scale_down)
    return Vote(
        analyzer=name,
        unit=answer.unit,
        capacity=answer.capacity,
        required=floats(np.where(may_grow, or_zero(required), 0.0)),
        spare=floats(np.where(may_shrink, or_zero(spare), 0.0)),
        demand=answer.demand,
        supply=floats(supply),
        gates_shrink=booleans(verdict != Verdict.ABSTAIN),
        informative=booleans((verdict != Verdict.ABSTAIN) & by_scope.any(~unknown)),
        score=settings.score,
    )


def _absent_vote(name: str, observation: Observation, settings: Settings) -> Vote:
    """The vote of an analyzer that failed: it judges nothing, and does not agree to shrink."""
    scopes, variants = len(observation.fleet.scopes), len(observation.fleet)
    unknown, nothing = floats(np.full(scopes, np.nan)), floats(np.zeros(scopes))
    return Vote(
        analyzer=name,
        unit="",
        capacity=floats(np.full(variants, np.nan)),
        required=nothing,
        spare=nothing,
        demand=unknown,
        supply=unknown,
        gates_shrink=booleans(np.ones(scopes, dtype=bool)),
        informative=booleans(np.zeros(scopes, dtype=bool)),
        score=settings.score,
    )


def cast(
    entries: Sequence[Entry],
    assessments: Mapping[str, Assessment],
    observation: Observation,
    settings: Mapping[str, Settings],
    memory: Memory,
    *,
    interval: float,
    enabled: Mapping[str, BoolArray] | None = None,
    live_intervals: float = 3.0,
    compat: bool = False,
) -> tuple[Ballot, tuple[Notice, ...]]:
    """
    The ballot of one cycle, and notices of analyzers whose silence blocks shrinking.

    Args:
        entries: enabled analyzers in the configured order.
        assessments: answers by entry name; an entry without one failed this cycle.
        observation: completed with memory.
        settings: by entry name.
        memory: aligned with the fleet of the observation.
        interval: of the cycle, seconds.
        enabled: (S,) by entry name, where it is asked and votes; everywhere, unless told. Elsewhere it abstains.
        live_intervals: after how many of them without an informative answer an analyzer is no longer live.
        compat: choose liveness and anchor as upstream WVA v0.9 does.
    """
    scopes = len(observation.fleet.scopes)
    votes: list[Vote] = []
    lives: list[BoolArray] = []
    frozen = np.zeros(scopes, dtype=bool)
    notices: list[Notice] = []
    for entry in entries:
        answer = assessments.get(entry.name)
        vote = (
            _absent_vote(entry.name, observation, settings[entry.name])
            if answer is None
            else vote_of(entry.name, answer, observation, settings[entry.name])
        )
        asked = (enabled or {}).get(entry.name)
        if asked is not None and not np.all(asked):
            vote = _only_where(vote, asked)
        live = _live_now(vote, observation, memory, interval, live_intervals, compat=compat)
        if compat or not entry.required:
            vote = replace(vote, gates_shrink=booleans(vote.gates_shrink & live))
        elif np.any(silent := vote.gates_shrink & ~live):
            notices.append(_silent_notice(entry.name, observation, silent, live_intervals * interval))
        if answer is not None:
            # who has lost the veto against shrinking, or is not asked here, freezes nothing either
            frozen |= ((answer.verdict == Verdict.FREEZE) | _says_nothing(answer)) & vote.gates_shrink
        votes.append(vote)
        lives.append(live)

    grow = np.zeros(scopes, dtype=bool)
    agree = np.ones(scopes, dtype=bool)
    gated = np.zeros(scopes, dtype=bool)
    for vote in votes:
        grow |= vote.required > 0
        agree &= ~vote.gates_shrink | (vote.spare > 0)
        gated |= vote.gates_shrink
    anchor, sized = _anchors(votes, lives, observation, compat=compat)
    ballot = Ballot(
        votes=tuple(votes),
        anchor=integers(anchor),
        grow=booleans(grow),
        shrink=booleans(agree & gated & ~grow),
        frozen=booleans(frozen & ~grow),
        sized=None if sized is None else floats(sized),
        priority=_priority(assessments, enabled or {}),
    )
    return ballot, tuple(notices)


def _priority(assessments: Mapping[str, Assessment], enabled: Mapping[str, BoolArray]) -> FloatArray | None:
    """(S,) the most important of what analyzers say, each where it is asked; NaN where none does."""
    result: FloatArray | None = None
    for name, answer in assessments.items():
        if answer.priority is not None:
            said = np.where(enabled[name], answer.priority, np.nan) if name in enabled else answer.priority
            result = said if result is None else np.fmin(result, said)
    return None if result is None else floats(result)


def _says_nothing(answer: Assessment) -> BoolArray:
    """(S,) a scope that may be judged, but neither its demand nor a need or spare is known: not known freezes."""
    known = ~np.isnan(answer.demand)
    for column in (answer.required, answer.spare):
        if column is not None:
            known |= ~np.isnan(column)
    may_judge = (answer.verdict == Verdict.JUDGED) | (answer.verdict == Verdict.NO_SHRINK)
    silent: BoolArray = may_judge & ~known
    return silent


def _only_where(vote: Vote, asked: BoolArray) -> Vote:
    """The vote in the scopes in which policy asks for it; it abstains in the others."""
    return replace(
        vote,
        required=floats(np.where(asked, vote.required, 0.0)),
        spare=floats(np.where(asked, vote.spare, 0.0)),
        gates_shrink=booleans(vote.gates_shrink & asked),
        informative=booleans(vote.informative & asked),
    )


def _live_now(
    vote: Vote, observation: Observation, memory: Memory, interval: float, intervals: float, *, compat: bool
) -> BoolArray:
    """(S,) informative now or lately; outside `compat` a scope gets as long from its first appearance."""
    last = memory.informative.get(vote.analyzer)
    last = np.full(len(vote.informative), np.nan) if last is None else last
    if compat:
        # upstream takes a zero time stamp for "now", so that a forgotten stamp never drops a vote
        last = np.where(last == 0.0, observation.time, last)
    else:
        last = np.where(np.isnan(last), memory.first_seen, last)
        last = np.where(np.isnan(last), observation.time, last)
    return vote.informative | is_live(last, observation.time, interval, intervals)


def _silent_notice(name: str, observation: Observation, silent: BoolArray, seconds: float) -> Notice:
    rows = np.flatnonzero(silent)
    first = observation.fleet.scopes[rows[0]].label
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return Notice(
        "analyzer_silent",
        name,
        f"analyzer {name} has not judged {first}{more} for over {seconds:.0f} s; nothing shrinks there until it does"
        " (mend its signals, or set required: false on its entry)",
    )


def _anchors(
    votes: Sequence[Vote], lives: Sequence[BoolArray], observation: Observation, *, compat: bool
) -> tuple[IntArray, FloatArray | None]:
    """(S,) the vote that sizes each scope, -1 for none; and capacities where compatibility mixes two votes."""
    scopes = len(observation.fleet.scopes)
    anchor = np.full(scopes, -1, dtype=np.int64)
    if not compat:
        # the first in the configured order that knows a capacity here: which one is the operator's choice
        for index in reversed(range(len(votes))):
            anchor[votes[index].informative] = index
        return anchor, None
    usable = [vote.informative & live for vote, live in zip(votes, lives, strict=True)]
    others = [index for index, vote in enumerate(votes) if vote.analyzer not in _CARRIERS]
    count = np.zeros(scopes, dtype=np.int64)
    for index in others:
        anchor[usable[index]] = index
        count += usable[index]
    anchor[count > 1] = -1
    carriers = [index for index, vote in enumerate(votes) if vote.analyzer in _CARRIERS]
    sized = None
    for index in carriers:
        anchor[usable[index]] = index
    if carriers and others:
        plain = Ballot(tuple(votes), anchor, *(np.zeros(scopes, dtype=bool),) * 3).anchor_capacity(
            observation.fleet.scope_of_variant
        )
        has_anchor = anchor[observation.fleet.scope_of_variant] >= 0
        sized = np.where(np.isnan(plain) & has_anchor, votes[carriers[0]].capacity, plain)
    return anchor, sized
