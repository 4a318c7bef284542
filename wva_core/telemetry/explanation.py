"""
Why a cycle gave what it gave: one record, retold for a person, scope by scope.

Everything here is plain data; the words are made when somebody asks, never in the cycle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from string import Formatter
from typing import Any

import numpy as np

from wva_core.domain.arrays import FloatArray, IntArray
from wva_core.domain.assessment import Assessment, Verdict
from wva_core.domain.ballot import Vote
from wva_core.domain.observation import Columns, Observation, Quality
from wva_core.domain.plan import Reason
from wva_core.domain.record import Record
from wva_core.domain.signals import REPLICA_SIGNALS, SCOPE_SIGNALS
from wva_core.engine.predictions import Predictions
from wva_core.errors import PluginFailure, RecordError

__all__ = [
    "AnswerExplanation",
    "BallotExplanation",
    "Explanation",
    "PredictionExplanation",
    "ScopeExplanation",
    "SignalExplanation",
    "VariantExplanation",
    "explain",
    "figure",
]

_STALE_AFTER = 60.0
_UNAVAILABLE_AFTER = 300.0
"""Ages in seconds where the recorded policy states none; the defaults of `bounds`."""


@dataclass(frozen=True, slots=True)
class SignalExplanation:
    """
    One signal in one scope.

    Attributes:
        signal, level, unit: which one; level is `replica`, `scope` or `extra`.
        minimum, mean, maximum: over the rows where it is known; NaN where none is.
        known, total: rows.
        quality: `ok`, `partial`, `conflicting`, `stale` or `missing`.
        age: of the oldest known value, seconds; NaN where none is.
    """

    signal: str
    level: str
    unit: str
    minimum: float
    mean: float
    maximum: float
    known: int
    total: int
    quality: str
    age: float


@dataclass(frozen=True, slots=True)
class AnswerExplanation:
    """
    What one analyzer said of one scope.

    Attributes:
        analyzer, unit: whose numbers, and what they count.
        verdict: `judged`, `abstain`, `freeze`, `no_shrink`, or `failed`.
        demand: what is asked for; NaN not known.
        capacity_low, capacity_high: of one replica, over the variants of the scope; NaN not known.
        required, spare: capacity that is missing and superfluous, as the ballot counted it.
        supply: what the demand was compared with; NaN where the analyzer judges in steps.
        gates_shrink: nothing may go here while this analyzer sees no spare.
        sentence: its reason, with the numbers filled in; why it failed where it did; empty if it gave none.
        details: its numbers by name.
    """

    analyzer: str
    unit: str
    verdict: str
    demand: float = math.nan
    capacity_low: float = math.nan
    capacity_high: float = math.nan
    required: float = math.nan
    spare: float = math.nan
    supply: float = math.nan
    gates_shrink: bool = False
    sentence: str = ""
    details: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class BallotExplanation:
    """
    What the votes of one scope came to.

    Attributes:
        outcome: `grow`, `shrink`, `frozen`, `held` (no anchor) or `steady`.
        anchor: the analyzer whose capacity sizes the variants; empty where the scope is held.
        growth_by: analyzers that require more.
        shrink_blocked_by: analyzers without spare that nothing may go against.
        priority: as analyzers know it, 1 before 2; NaN where none says. An optimizer may have been told another one.
    """

    outcome: str
    anchor: str
    growth_by: tuple[str, ...]
    shrink_blocked_by: tuple[str, ...]
    priority: float = math.nan


@dataclass(frozen=True, slots=True)
class VariantExplanation:
    """
    One variant: what the optimizer could choose, and what came of it.

    Attributes:
        variant, accelerator: which one.
        cost: USD/h of one replica.
        gpus: accelerators of one replica.
        capacity: of one replica by the anchor; NaN not known.
        capacity_sentence: where the anchor has it from.
        current, ready, pending: replicas there are.
        base: replicas the plan started from; NaN where that was not written down.
        room: replicas that could be added to the base within every limit.
        wanted: the answer under static limits alone.
        low, high: the interval the answer had to keep.
        desired: the answer; NaN: nothing is said.
        reason, sentence: why, as a code and for a person.
        binding: the limit or bound that decided, by name; empty where none did.
        stalled: the target is not reached, or a replica pending, for longer than the settle time.
    """

    variant: str
    accelerator: str
    cost: float
    gpus: float
    capacity: float
    capacity_sentence: str
    current: float
    ready: float
    pending: float
    base: float
    room: float
    wanted: float
    low: float
    high: float
    desired: float
    reason: str
    sentence: str
    binding: str
    stalled: bool


@dataclass(frozen=True, slots=True)
class PredictionExplanation:
    """
    What one analyzer expects of one variant at the planned replicas, beside what was observed.

    Attributes:
        analyzer, variant: who expects it, of what.
        replicas: that the plan gives it; those it started from where the plan says nothing.
        ttft, itl: seconds; NaN where the analyzer cannot say.
        utilization: a fraction.
        seen_ttft, seen_itl: means over the replicas that report, by the requests they serve where all of them say so.
        seen_utilization: requests that run, of those that fit: into the batch and, where a replica reports lengths and
            the size of its cache, with half of their output into that.
        failure: why the analyzer said nothing; empty where it did.
    """

    analyzer: str
    variant: str
    replicas: float
    ttft: float = math.nan
    itl: float = math.nan
    utilization: float = math.nan
    seen_ttft: float = math.nan
    seen_itl: float = math.nan
    seen_utilization: float = math.nan
    failure: str = ""


@dataclass(frozen=True, slots=True)
class ScopeExplanation:
    """One scope: variants, votes, what is expected of the plan, and signals."""

    namespace: str
    model: str
    service_class: str
    role: str
    label: str
    variants: tuple[VariantExplanation, ...]
    ballot: BallotExplanation
    answers: tuple[AnswerExplanation, ...]
    predictions: tuple[PredictionExplanation, ...]
    signals: tuple[SignalExplanation, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    One cycle.

    Attributes:
        cycle, time: which one; seconds.
        mode, status, degraded: of the plan.
        complete: whether the fleet could be listed completely.
        observed: False where the signals of this cycle are no longer kept.
        failures: why an entry had no say, by entry name.
        notices: what the engine told the operator.
        scopes: those that were asked for.
        unpredicted: why no analyzer was asked what it expects; empty where they were, or none of them predicts.
    """

    cycle: int
    time: float
    mode: str
    status: str
    degraded: bool
    complete: bool
    observed: bool
    failures: Mapping[str, str]
    notices: tuple[str, ...]
    scopes: tuple[ScopeExplanation, ...]
    unpredicted: str = ""

    def to_plain(self) -> dict[str, Any]:
        """The same for JSON: not known is null, no limit is the text `unlimited`."""
        plain: dict[str, Any] = _for_json(self)
        return plain


def explain(
    record: Record,
    model: str | None = None,
    namespace: str | None = None,
    *,
    expected: Predictions | None = None,
    unpredicted: str = "",
) -> Explanation:
    """
    The explanation of one record.

    Args:
        record: a cycle.
        model, namespace: only scopes of this model and namespace.
        expected: what analyzers expect of its plan.
        unpredicted: why none of them was asked.

    Raises:
        RecordError: the cycle knew no such model or namespace; names those it knew.
    """
    seen, plan = record.observation, record.plan
    rows = [
        row
        for row, scope in enumerate(seen.fleet.scopes)
        if model in {None, scope.model} and namespace in {None, scope.namespace}
    ]
    if not rows and (model is not None or namespace is not None):
        raise _unknown(record, model, namespace)
    teller = _Teller(record, expected or {})
    return Explanation(
        cycle=record.cycle,
        time=float(record.time),
        mode=plan.mode.value,
        status=plan.status,
        degraded=bool(plan.degraded),
        complete=bool(seen.complete),
        observed=record.observed,
        failures=dict(record.failures),
        notices=tuple(f"{notice.subject}: {notice.text}" if notice.subject else notice.text for notice in plan.notices),
        scopes=tuple(teller.scope(row) for row in rows),
        unpredicted=unpredicted,
    )


def _unknown(record: Record, model: str | None, namespace: str | None) -> RecordError:
    scopes = record.observation.fleet.scopes
    if model is not None and all(scope.model != model for scope in scopes):
        key, value, known = "model", model, {scope.model for scope in scopes}
    elif namespace is not None and all(scope.namespace != namespace for scope in scopes):
        key, value, known = "namespace", str(namespace), {scope.namespace for scope in scopes}
    else:
        key, value = "namespace", str(namespace)
        known = {scope.namespace for scope in scopes if scope.model == model}
    shown = sorted(known)
    more = f" (and {len(shown) - 10} more)" if len(shown) > 10 else ""
    return RecordError(
        f"is not in cycle {record.cycle}",
        object="records",
        key=key,
        value=value,
        remedy=f"use one of {', '.join(shown[:10]) or '(none)'}{more}",
    )


class _Teller:
    """Tells scopes of one record; what all of them need is worked out once."""

    def __init__(self, record: Record, expected: Predictions) -> None:
        self.record = record
        self.expected = expected
        self.seen = _seen(record.observation) if expected else {}
        self.fleet = record.observation.fleet
        self.capacity = record.ballot.anchor_capacity(self.fleet.scope_of_variant)
        self.base = np.full(len(self.fleet), np.nan) if record.base is None else record.base
        self.room = self._room()
        self.usage = record.limits.rows.usage(record.plan.desired)

    def _room(self) -> FloatArray:
        """(V,) replicas that could be added within the variant's interval and every shared limit."""
        limits, table = self.record.limits, self.record.observation.variants
        start = np.where(np.isnan(self.base), table.current, self.base)
        room = np.maximum(limits.high - start, 0.0)
        rows = limits.rows
        left = np.nan_to_num(rows.upper - rows.usage(start), nan=0.0, posinf=np.inf)[rows.row_of_entry]
        uses = rows.coefficient > 0
        with np.errstate(over="ignore"):
            fits = np.floor(np.maximum(left[uses], 0.0) / rows.coefficient[uses])
        # a replica that is not known is not room; NaN in `high` means the variant is left as it is
        room = np.nan_to_num(room, nan=0.0, posinf=np.inf)
        np.minimum.at(room, rows.variant[uses], fits)
        return room

    def scope(self, row: int) -> ScopeExplanation:
        scope = self.fleet.scopes[row]
        variants = self.fleet.by_scope.rows(row)
        return ScopeExplanation(
            namespace=scope.namespace,
            model=scope.model,
            service_class=scope.service_class,
            role=scope.role,
            label=scope.label,
            variants=tuple(self._variant(int(variant), row) for variant in variants),
            ballot=self._ballot(row),
            answers=tuple(self._answers(row)),
            predictions=tuple(self._predictions(variants)),
            signals=tuple(self._signals(row)) if self.record.observed else (),
        )

    def _variant(self, variant: int, scope: int) -> VariantExplanation:
        table, plan, one = self.record.observation.variants, self.record.plan, self.fleet.variants[variant]
        reason = Reason(int(plan.reason[variant]))
        return VariantExplanation(
            variant=one.key,
            accelerator=one.accelerator,
            cost=float(table.cost[variant]),
            gpus=float(table.gpus[variant]),
            capacity=float(self.capacity[variant]),
            capacity_sentence=self._capacity_sentence(variant, scope),
            current=float(table.current[variant]),
            ready=float(table.ready[variant]),
            pending=float(table.pending[variant]),
            base=float(self.base[variant]),
            room=float(self.room[variant]),
            wanted=float(plan.wanted[variant]),
            low=float(plan.low[variant]),
            high=float(plan.high[variant]),
            desired=float(plan.desired[variant]),
            reason=reason.name.lower(),
            sentence=reason.sentence,
            binding=self._binding(variant, reason),
            stalled=bool(plan.stalled[variant]),
        )

    def _binding(self, variant: int, reason: Reason) -> str:
        plan, rows = self.record.plan, self.record.limits.rows
        row = int(plan.binding_row[variant])
        if 0 <= row < len(plan.limits):
            name = plan.limits[row]
            if row < len(rows) and rows.labels[row] == name:
                return f"{name} ({figure(self.usage[row])} of {figure(rows.upper[row])} used)"
            return name
        low, high = figure(plan.low[variant]), figure(plan.high[variant])
        return {
            Reason.BOUND_MIN: f"minimum of {low} replicas",
            Reason.BOUND_MAX: f"maximum of {high} replicas",
            Reason.BOUND_WINDOW: f"stabilisation window, which allows {low} to {high}",
            Reason.BOUND_RATE: f"rate policy, which allows {low} to {high}",
        }.get(reason, "")

    def _anchor(self, scope: int) -> Vote | None:
        position = int(self.record.ballot.anchor[scope])
        return self.record.ballot.votes[position] if position >= 0 else None

    def _capacity_sentence(self, variant: int, scope: int) -> str:
        anchor = self._anchor(scope)
        answer = None if anchor is None else self.record.assessments.get(anchor.analyzer)
        if answer is None or answer.capacity_reason is None:
            return ""
        details = {
            name: float(column[variant if answer.is_per_variant(name) else scope])
            for name, column in answer.details.items()
        }
        return _sentence(answer.reasons[int(answer.capacity_reason[variant])], details)

    def _ballot(self, scope: int) -> BallotExplanation:
        ballot, anchor = self.record.ballot, self._anchor(scope)
        outcome = (
            "grow"
            if ballot.grow[scope]
            else "frozen"
            if ballot.frozen[scope]
            else "held"
            if anchor is None
            else "shrink"
            if ballot.shrink[scope]
            else "steady"
        )
        return BallotExplanation(
            outcome=outcome,
            anchor="" if anchor is None else anchor.analyzer,
            growth_by=tuple(vote.analyzer for vote in ballot.votes if vote.required[scope] > 0),
            shrink_blocked_by=tuple(
                vote.analyzer for vote in ballot.votes if vote.gates_shrink[scope] and not vote.spare[scope] > 0
            ),
            priority=math.nan if ballot.priority is None else float(ballot.priority[scope]),
        )

    def _answers(self, scope: int) -> list[AnswerExplanation]:
        votes = {vote.analyzer: vote for vote in self.record.ballot.votes}
        answers = self.record.assessments
        told = [
            self._answer(name, answers[name], votes.get(name), scope)
            for name in dict.fromkeys((*votes, *answers))
            if name in answers
        ]
        failed = [
            AnswerExplanation(
                analyzer=name,
                unit="",
                verdict="failed",
                gates_shrink=name in votes and bool(votes[name].gates_shrink[scope]),
                sentence=why,
            )
            for name, why in map(_analyzer_failure, self.record.failures.items())
            if name and name not in answers
        ]
        return told + failed

    def _answer(self, name: str, answer: Assessment, vote: Vote | None, scope: int) -> AnswerExplanation:
        details = {
            key: float(column[scope]) for key, column in answer.details.items() if not answer.is_per_variant(key)
        }
        capacity = answer.capacity[self.fleet.by_scope.rows(scope)]
        capacity = capacity[~np.isnan(capacity)]

        def counted(vote_column: FloatArray | None, own: FloatArray | None) -> float:
            column = own if vote_column is None else vote_column
            return math.nan if column is None else float(column[scope])

        return AnswerExplanation(
            analyzer=name,
            unit=answer.unit,
            verdict=Verdict(int(answer.verdict[scope])).name.lower(),
            demand=float(answer.demand[scope]),
            capacity_low=float(capacity.min()) if len(capacity) else math.nan,
            capacity_high=float(capacity.max()) if len(capacity) else math.nan,
            required=counted(None if vote is None else vote.required, answer.required),
            spare=counted(None if vote is None else vote.spare, answer.spare),
            supply=math.nan if vote is None else float(vote.supply[scope]),
            gates_shrink=vote is not None and bool(vote.gates_shrink[scope]),
            sentence="" if answer.reason is None else _sentence(answer.reasons[int(answer.reason[scope])], details),
            details=details,
        )

    def _predictions(self, variants: IntArray) -> list[PredictionExplanation]:
        planned = np.where(np.isnan(self.record.plan.desired), self.base, self.record.plan.desired)
        told = []
        for name, expects in self.expected.items():
            for variant in variants.tolist():
                figures: dict[str, Any] = {f"seen_{key}": float(column[variant]) for key, column in self.seen.items()}
                if isinstance(expects, PluginFailure):
                    figures["failure"] = str(expects)
                else:
                    figures |= {key: float(getattr(expects, key)[variant]) for key in self.seen}
                told.append(
                    PredictionExplanation(
                        analyzer=name, variant=self.fleet.keys[variant], replicas=float(planned[variant]), **figures
                    )
                )
        return told

    def _signals(self, scope: int) -> list[SignalExplanation]:
        seen, where = self.record.observation, self.fleet.scopes[scope]
        stale = _age_limit(self.record.policy, "stale", where.model, where.namespace, _STALE_AFTER)
        unavailable = _age_limit(self.record.policy, "unavailable", where.model, where.namespace, _UNAVAILABLE_AFTER)
        replicas, here = seen.replicas.index.by_scope.rows(scope), np.array([scope])
        levels: list[tuple[str, Columns | None, Any, Mapping[str, Any]]] = [
            ("replica", seen.replicas.columns, replicas, REPLICA_SIGNALS),
            ("scope", seen.scopes, here, SCOPE_SIGNALS),
            ("extra", seen.extra, here, {}),
        ]
        told = []
        for level, columns, rows, catalogue in levels:
            for name in columns or ():
                assert columns is not None  # noqa: S101 - it was iterated over
                values, ages = columns[name][rows], columns.age(name)[rows]
                conflict = seen.conflicts.get(name)
                told.append(
                    _signal(
                        (name, level, catalogue[name].unit if name in catalogue else ""),
                        np.where(ages >= unavailable, np.nan, values),
                        ages,
                        stale,
                        conflicting=conflict is not None and bool(conflict[scope]),
                    )
                )
        return told


def _seen(observation: Observation) -> dict[str, FloatArray]:
    """By figure of a prediction, (V,) what the replicas of a variant report; NaN where none does."""
    replicas, by_variant = observation.replicas, observation.replicas.index.by_variant

    def mean(values: FloatArray, weights: FloatArray) -> FloatArray:
        known = ~np.isnan(values) & ~np.isnan(weights)
        total = by_variant.sum(np.where(known, weights, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            result: FloatArray = by_variant.sum(np.where(known, weights * values, 0.0)) / total
        return np.where(total > 0, result, np.nan)

    rate = replicas["request_rate"]
    of_requests = by_variant.all(~np.isnan(rate))[by_variant.of] & by_variant.any(rate > 0)[by_variant.of]
    weights = np.where(of_requests, rate, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        resident = replicas["input_tokens"] + replicas["output_tokens"] / 2.0
        fits = np.where(resident > 0, replicas["kv_capacity_tokens"] / resident, np.nan)
        batch = np.fmin(replicas["max_batch"], fits)
        filled = np.where(batch > 0, replicas["running"] / batch, np.nan)
    return {
        "ttft": mean(replicas["ttft"], weights),
        "itl": mean(replicas["itl"], weights),
        "utilization": mean(filled, np.where(batch > 0, batch, np.nan)),
    }


def _analyzer_failure(failure: tuple[str, str]) -> tuple[str, str]:
    """The analyzer that a failure is of, and why; no name where it is of something else, such as the optimizer."""
    label, why = failure
    kind, _, name = label.partition(" ")
    if kind == "analyzer" and name:
        return name, why
    return ("" if kind in {"collector", "optimizer", "actuator"} and name else label), why


def _signal(
    what: tuple[str, str, str], values: FloatArray, ages: FloatArray, stale_after: float, *, conflicting: bool
) -> SignalExplanation:
    """One signal of one scope; the same order of quality as `Observation.quality`."""
    known = ~np.isnan(values)
    told, age = values[known], ages[known]
    quality = Quality.OK if np.all(known) else Quality.PARTIAL
    if conflicting:
        quality = Quality.CONFLICTING
    if np.any(age >= stale_after):
        quality = Quality.STALE
    if len(told) == 0:
        quality = Quality.MISSING
    signal, level, unit = what
    return SignalExplanation(
        signal=signal,
        level=level,
        unit=unit,
        minimum=float(told.min()) if len(told) else math.nan,
        mean=float(told.mean()) if len(told) else math.nan,
        maximum=float(told.max()) if len(told) else math.nan,
        known=len(told),
        total=len(values),
        quality=quality.name.lower(),
        age=float(age.max()) if len(age) else math.nan,
    )


def _age_limit(policy: Mapping[str, Any], which: str, model: str, namespace: str, default: float) -> float:
    """
    An age limit of `bounds` for one model, in seconds.

    Of the overrides that state one and apply, the last wins, and one that names model and namespace exactly wins over
    those with a pattern or only one of them.
    """
    key = f"{which}AfterSeconds"
    stated: list[float] = [(policy.get("bounds") or {}).get(key, default)]
    exact: list[float] = []
    for override in policy.get("overrides") or ():
        match, value = override.get("match") or {}, (override.get("bounds") or {}).get(key)
        patterns = [match.get("modelID"), match.get("namespace")]
        if value is None or not all(map(_covers, patterns, (model, namespace))):
            continue
        loose = any(pattern is None or "*" in pattern for pattern in patterns)
        (stated if loose else exact).append(value)
    return float([*stated, *exact][-1])


def _covers(pattern: str | None, text: str) -> bool:
    """Whether a text or a pattern with `*` of an override stands for `text`; no pattern stands for every text."""
    return pattern is None or re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


# ---------------------------------------------------------------------------------------------------------------------
# Words and numbers


def figure(value: float) -> str:
    """A number for a person: four digits, `unknown` for NaN, `unlimited` for infinity."""
    value = float(value)
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "unlimited" if value > 0 else "-unlimited"
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.2e}"


class _Filling(Formatter):
    """Fills `{name}` with the number of that name; one that is not there stays as it is written."""

    def get_value(self, key: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:  # noqa: ARG002 - signature of Formatter
        return kwargs.get(key, key)

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, str | int):
            return f"{{{value}}}"
        if not format_spec or not math.isfinite(value):
            return figure(value)
        return format(value, format_spec)


_filling = _Filling()


def _sentence(template: str, details: Mapping[str, float]) -> str:
    """A plugin's sentence with its numbers; as it stands where it cannot be filled."""
    try:
        return _filling.vformat(template, (), details)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError):
        return template


def _for_json(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: _for_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _for_json(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_for_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "unlimited"
    return value
