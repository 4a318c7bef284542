"""
The control cycle: what was seen, what was asked and what is remembered become a plan and a new memory.

    observe ──> assess ──> vote ──> bound ──> allocate ──> verify ──> act ──> record
    collectors  analyzers  engine   engine    optimizer    engine     actuators

`decide` is the part from assess to verify. It touches nothing outside its arguments, so the same arguments give the
same plan: in a cluster, over a simulation, from a record. What a plugin fails to answer in time is an argument too
(`absent`), which is how a record of a bad day replays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wva_core.domain import (
    Allocation,
    Assessment,
    Ballot,
    BoolArray,
    FloatArray,
    IntArray,
    Limits,
    Memory,
    Mode,
    Notice,
    Observation,
    Plan,
    Reason,
    Settings,
    State,
    Verdict,
)
from wva_core.domain.arrays import booleans, floats, integers, or_zero
from wva_core.domain.codec import decode, encode
from wva_core.engine import ballot as voting
from wva_core.engine.bounds import Holds, holds, narrowed, nothing_moves, static_limits
from wva_core.engine.brain import Brain
from wva_core.engine.deadline import Deadline
from wva_core.engine.remembered import carried_over, completed, held, stalled
from wva_core.engine.verify import refusal
from wva_core.errors import ParameterError, PluginFailure
from wva_core.hooks.chain import Entry

__all__ = ["Decision", "decide"]


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """
    Everything one cycle worked out.

    Attributes:
        observation: as the plugins saw it, completed with memory.
        assessments: by entry name, of the analyzers that answered; read-only, with their state as plain data.
        ballot, limits, plan: the question, what limited the answer, and the answer.
        memory: for the next cycle.
        failures: by entry label, what kept a plugin from having its say.
        seconds: by entry label, how long its calls took.
    """

    observation: Observation
    assessments: Mapping[str, Assessment]
    ballot: Ballot
    limits: Limits
    plan: Plan
    memory: Memory
    failures: Mapping[str, PluginFailure] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def decide(
    seen: Observation,
    brain: Brain,
    memory: Memory,
    deadline: Deadline | None = None,
    absent: Mapping[str, str] | None = None,
) -> Decision:
    """
    The plan for what was seen, and the memory after it.

    Args:
        seen: as the collectors gave it.
        brain: policy and the plugins it names.
        memory: after the cycle before.
        deadline: what is left of the cycle's time, of which every call takes half at most; None waits for ever.
        absent: labels of entries that are left out, with the reason: a replay's failures.

    Cost: a few array operations over variants and engine instances; no step loops over either in Python.
    """
    calls = _Calls(deadline or Deadline(None), absent or {})
    memory = memory.aligned(seen.fleet)
    settings = brain.settings(seen.fleet)
    policy = brain.policy.spec

    observation = completed(seen, memory, settings.bounds)
    assessments = {
        entry.name: assessment
        for entry in brain.analyzers
        if (assessment := calls.assess(entry, observation, settings.analyzers[entry.name], memory)) is not None
    }
    for name, (where, _) in settings.refused.items():
        if name in assessments:
            assessments[name] = _frozen(assessments[name], where)
    ballot, notices = voting.cast(
        brain.analyzers,
        assessments,
        observation,
        settings.analyzers,
        memory,
        interval=policy.interval,
        enabled=settings.enabled,
        live_intervals=policy.ballot.live_intervals,
        compat=policy.ballot.compat,
    )
    notices += tuple(Notice("overrides_clash", name, str(error)) for name, (_, error) in settings.refused.items())
    held_now = holds(observation, ballot, settings.needed, settings.bounds)
    static = static_limits(observation, held_now)
    keep = held(observation)

    wish = calls.allocate(brain.optimizer, observation, ballot, static)
    wanted = keep if wish is None else np.where(np.isnan(wish.replicas), keep, wish.replicas)
    limits, bound_reason = narrowed(static, wanted, observation, held_now, memory, settings.bounds)
    answer = wish
    if wish is not None and _leaves(wish.replicas, limits):
        answer = calls.allocate(brain.optimizer, observation, ballot, limits)
    if answer is None or not calls.stands(brain.optimizer, answer, observation, limits):
        # every target holds; a wish that nobody can carry out is no recommendation to look back on either
        answer, wanted, held_now = None, keep, nothing_moves(held_now)
        static = static_limits(observation, held_now)
        limits, bound_reason = narrowed(static, keep, observation, held_now, memory, settings.bounds)
    plan = _plan(observation, ballot, limits, answer, wanted, held_now, bound_reason, brain, calls, notices)
    return Decision(
        observation=observation,
        assessments=assessments,
        ballot=ballot,
        limits=limits,
        plan=plan,
        memory=carried_over(
            memory,
            observation,
            ballot,
            {entry.state_key: assessments[entry.name].state for entry in brain.analyzers if entry.name in assessments},
            plan,
            settings.bounds,
        ),
        failures=calls.failures,
        seconds=calls.seconds,
    )


def _frozen(answer: Assessment, where: BoolArray) -> Assessment:
    """The answer without a say in some scopes, where policy does not say what to judge by."""

    def unknown(column: FloatArray | None) -> FloatArray | None:
        return None if column is None else floats(np.where(where, np.nan, column))

    return replace(
        answer,
        verdict=integers(np.where(where, Verdict.FREEZE, answer.verdict)),
        demand=floats(np.where(where, np.nan, answer.demand)),
        required=unknown(answer.required),
        spare=unknown(answer.spare),
        reason=None if answer.reason is None else integers(np.where(where, 0, answer.reason)),
    )


def _leaves(replicas: FloatArray, limits: Limits) -> bool:
    """Whether an allocation leaves the interval of some variant."""
    return bool(np.any((replicas < limits.low) | (replicas > limits.high)))


def _plan(
    observation: Observation,
    ballot: Ballot,
    limits: Limits,
    answer: Allocation | None,
    wanted: FloatArray,
    held_now: Holds,
    bound_reason: IntArray,
    brain: Brain,
    calls: _Calls,
    notices: tuple[Notice, ...],
) -> Plan:
    """The verified answer; where it says nothing, or there is none, targets hold within the limits."""
    table, fleet = observation.variants, observation.fleet
    keep = np.clip(held(observation), limits.low, limits.high)
    desired = keep if answer is None else np.where(np.isnan(answer.replicas), keep, answer.replicas)
    binding = np.full(len(fleet), -1, dtype=np.int64)
    if answer is not None and answer.binding_row is not None:
        binding = answer.binding_row
    failed = [Notice("plugin_failed", name, str(failure)) for name, failure in calls.failures.items()]
    return Plan(
        time=observation.time,
        fleet=fleet,
        current=table.current,
        desired=floats(desired),
        wanted=floats(wanted),
        low=limits.low,
        high=limits.high,
        reason=integers(_reasons(observation, ballot, desired, wanted, held_now, bound_reason, binding)),
        binding_row=integers(binding),
        stalled=booleans(stalled(observation)),
        limits=limits.rows.labels,
        mode=Mode(brain.policy.spec.mode),
        degraded=bool(calls.failures or notices) or not observation.complete,
        status="held" if answer is None else answer.status,
        gap=np.nan if answer is None else answer.gap,
        notices=(*notices, *failed),
    )


def _reasons(
    observation: Observation,
    ballot: Ballot,
    desired: FloatArray,
    wanted: FloatArray,
    held_now: Holds,
    bound_reason: IntArray,
    binding: IntArray,
) -> IntArray:
    """(V,) `Reason`, the most particular one that applies."""
    table = observation.variants
    scope = observation.fleet.scope_of_variant
    reason = np.full(len(desired), Reason.STEADY, dtype=np.int64)
    reason[desired > table.base] = Reason.GROW
    reason[desired < table.base] = Reason.SHRINK
    held_back = (held_now.reason != Reason.STEADY) & (held_now.pinned | (ballot.shrink[scope] & held_now.no_shrink))
    reason = np.where(held_back, held_now.reason, reason)
    changed = desired != wanted
    reason = np.where(changed & (bound_reason != Reason.STEADY), bound_reason, reason)
    least = or_zero(table.min_replicas)
    most = np.maximum(table.max_replicas, least)
    grew_to_max = (desired >= most) & ballot.grow[scope] & (desired <= table.base)
    lowered = (desired < table.base) & (desired == most) & ~ballot.shrink[scope]
    reason = np.where(((desired < wanted) & (desired == most)) | grew_to_max | lowered, Reason.BOUND_MAX, reason)
    shrank_to_min = (desired == least) & ballot.shrink[scope] & (desired == table.base) & (least > 0)
    lifted = (desired > table.base) & (desired == least) & ~ballot.grow[scope]
    reason = np.where(((desired > wanted) & (desired == least)) | shrank_to_min | lifted, Reason.BOUND_MIN, reason)
    reason = np.where(binding >= 0, Reason.BOUND_ROW, reason)
    return np.where(np.isnan(desired), Reason.UNKNOWN, reason)


class _Calls:
    """The calls of one cycle: what they cost, and what failed."""

    def __init__(self, deadline: Deadline, absent: Mapping[str, str]) -> None:
        self.deadline = deadline
        self.absent = absent
        self.failures: dict[str, PluginFailure] = {}
        self.seconds: dict[str, float] = {}

    def assess(self, entry: Entry, observation: Observation, settings: Settings, memory: Memory) -> Assessment | None:
        """An analyzer's answer, checked; None where it has no say in this cycle."""
        state = memory.states.get(entry.state_key, {})
        answer = self._ask(entry, "assess", Assessment, observation=observation, settings=settings, state=state)
        if not isinstance(answer, Assessment):
            return None
        fleet = observation.fleet
        columns = self._columns(entry, "assess", answer, _assessment_columns(len(fleet), len(fleet.scopes)))
        plain = None if columns is None else self._plain_state(entry, answer.state)
        if columns is None or plain is None:
            return None
        answer = replace(answer, state=plain, **columns)
        return answer if self._is_sound(entry, answer) else None

    def allocate(self, entry: Entry, observation: Observation, ballot: Ballot, limits: Limits) -> Allocation | None:
        """The optimizer's answer, well-formed; None where it has none."""
        if entry.label in self.failures:
            return None
        answer = self._ask(entry, "allocate", Allocation, observation=observation, ballot=ballot, limits=limits)
        if not isinstance(answer, Allocation):
            return None
        columns = self._columns(entry, "allocate", answer, _allocation_columns(len(observation.fleet)))
        if columns is None:
            return None
        answer = replace(answer, **columns)
        for name, column, lowest, end in (
            ("reason", answer.reason, 0, len(answer.reasons)),
            ("binding_row", answer.binding_row, -1, len(limits.rows)),
        ):
            if column is not None and np.any(outside := (column < lowest) | (column >= end)):
                self._refuse(entry, "allocate", name, int(column[outside][0]), f"numbers from {lowest} to {end - 1}")
                return None
        return answer

    def stands(self, entry: Entry, answer: Allocation, observation: Observation, limits: Limits) -> bool:
        """Whether an allocation can be carried out; the reason why not is noted."""
        refused = refusal(answer.replicas, observation.variants.base, limits, observation.fleet, entry.label)
        if refused is not None:
            self.failures[entry.label] = refused
        return refused is None

    def _ask(self, entry: Entry, hook: str, kind: type, **arguments: object) -> object:
        if entry.label in self.absent:
            self.failures[entry.label] = PluginFailure(self.absent[entry.label], object=entry.label, key=hook)
            return None
        outcome = entry.call(hook, self.deadline.step().remaining(), **arguments)
        self.seconds[entry.label] = self.seconds.get(entry.label, 0.0) + outcome.seconds
        if outcome.failure is not None:
            self.failures[entry.label] = outcome.failure
            return None
        if not isinstance(outcome.value, kind):
            self._refuse(entry, hook, "answer", type(outcome.value).__name__, kind.__name__)
            return None
        return outcome.value

    def _columns(
        self, entry: Entry, hook: str, answer: object, wanted: Mapping[str, tuple[bool, int, bool]]
    ) -> dict[str, Any] | None:
        """The answer's arrays as read-only columns; None if one is missing or has another type or shape."""
        columns: dict[str, Any] = {}
        for name, (whole, rows, required) in wanted.items():
            value = getattr(answer, name)
            if value is None and not required:
                continue
            array = np.asarray(value)
            if array.dtype.kind not in ("biu" if whole else "biuf") or array.shape != (rows,):
                shown = array.shape if array.dtype.kind in "biuf" else type(value).__name__
                kind = "whole numbers" if whole else "numbers"
                self._refuse(entry, hook, name, shown, f"an array of {kind} of shape ({rows},)")
                return None
            columns[name] = integers(value) if whole else floats(value)
        return columns

    def _plain_state(self, entry: Entry, state: object) -> State | None:
        """
        The state as a checkpoint would hand it back, so that a restart changes nothing; None if it is not plain data.
        """
        try:
            plain = decode(encode(state)) if isinstance(state, Mapping) else None
        except ParameterError:
            plain = None
        if not isinstance(plain, dict):
            self._refuse(entry, "assess", "state", state, "a mapping of numbers, text, lists, mappings and arrays")
            return None
        return plain

    def _is_sound(self, entry: Entry, answer: Assessment) -> bool:
        """Whether every number of a well-formed assessment means something."""
        for name in ("capacity", "demand", "required", "spare"):
            column = getattr(answer, name)
            if column is not None and np.any(wrong := (column < 0) | np.isinf(column)):
                self._refuse(entry, "assess", name, float(column[wrong][0]), "finite numbers of at least 0, or NaN")
                return False
        if answer.priority is not None and np.any(wrong := (answer.priority < 1)):
            wanted = "numbers from 1, which is served first, or NaN"
            self._refuse(entry, "assess", "priority", float(answer.priority[wrong][0]), wanted)
            return False
        ends = {"verdict": len(Verdict), "reason": len(answer.reasons), "capacity_reason": len(answer.reasons)}
        for name, end in ends.items():
            column = getattr(answer, name)
            if column is not None and np.any(wrong := (column < 0) | (column >= end)):
                self._refuse(entry, "assess", name, int(column[wrong][0]), f"numbers from 0 to {end - 1}")
                return False
        sizes = {(len(answer.capacity),), (len(answer.demand),)}
        unnamed = [
            name
            for name in answer.per_variant
            if name not in answer.details or np.shape(answer.details[name]) != (len(answer.capacity),)
        ]
        if unnamed:
            wanted = "names of details that have one number for each variant"
            self._refuse(entry, "assess", "per_variant", unnamed[0], wanted)
            return False
        for name, column in answer.details.items():
            if np.shape(column) not in sizes:
                self._refuse(
                    entry, "assess", f"details.{name}", np.shape(column), "one number for each scope or each variant"
                )
                return False
        return True

    def _refuse(self, entry: Entry, hook: str, key: str, value: object, wanted: str) -> None:
        self.failures[entry.label] = entry.misfit(hook, key, value, wanted)


def _assessment_columns(variants: int, scopes: int) -> dict[str, tuple[bool, int, bool]]:
    """By column of an assessment: whether it holds whole numbers, its rows, and whether it must be there."""
    return {
        "capacity": (False, variants, True),
        "demand": (False, scopes, True),
        "verdict": (True, scopes, True),
        "required": (False, scopes, False),
        "spare": (False, scopes, False),
        "reason": (True, scopes, False),
        "capacity_reason": (True, variants, False),
        "priority": (False, scopes, False),
    }


def _allocation_columns(variants: int) -> dict[str, tuple[bool, int, bool]]:
    """The same of an allocation."""
    return {
        "replicas": (False, variants, True),
        "reason": (True, variants, False),
        "binding_row": (True, variants, False),
    }
