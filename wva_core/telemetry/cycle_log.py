"""
The log of the engine: what changed, once, when it changes.

A cycle in which nothing changes leaves one line at DEBUG. An event's name never changes; what it says is in its fields.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from structlog.typing import FilteringBoundLogger

from wva_core.domain import BoolArray, FloatArray, IntArray, Reason, Settings, Vote
from wva_core.engine.brain import Brain
from wva_core.engine.loop import CycleResult, PolicyRefused
from wva_core.errors import PluginFailure, WvaError
from wva_core.telemetry.failures import error_type_of, kind_and_name
from wva_core.telemetry.names import ErrorType, Event

__all__ = ["CycleLog"]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class CycleLog:
    """
    Writes the log; a subscriber of the engine.

    Args:
        logger: where to. Whether it takes DEBUG decides whether lines for it are made at all.
        brain: the brain in service, for the thresholds in `analyzer-result`; they are null without it.

    Cost: 0.03 ms for a cycle of 10,000 variants in which nothing changes; about 20 µs per line otherwise.
    """

    def __init__(self, logger: FilteringBoundLogger, *, brain: Callable[[], Brain] | None = None) -> None:
        self._log = logger
        self._brain = brain
        self._refusal = ""
        self._failing: _Lasting[str, ErrorType] = _Lasting()
        self._unwritten: _Lasting[tuple[str, str], str] = _Lasting()
        self._silent: _Lasting[str, str] = _Lasting()
        self._clashing: _Lasting[str, str] = _Lasting()
        self._stalled: _Lasting[str, int] = _Lasting()

    def __call__(self, result: CycleResult | PolicyRefused) -> None:
        """Takes in one result."""
        if isinstance(result, PolicyRefused):
            self._policy_refused(result.error)
            return
        log = self._log.bind(cycle=result.record.cycle, time=result.plan.time)
        if result.policy_changed:
            self._policy_changed(log, result.record.policy)
        self._failures(log, result)
        self._writes(log, result)
        self._notices(log, result)
        changed = _changed(result)
        self._decisions(log, result, changed)
        self._stalls(log, result)
        if _takes_debug(log):
            log.debug(Event.CYCLE_FINISHED, **_summary(result, changed))

    # ---- policy

    def _policy_refused(self, error: WvaError) -> None:
        text = str(error)
        if text != self._refusal:
            self._refusal = text
            self._log.error(Event.POLICY_REFUSED, error=text, object=error.object, key=error.key, remedy=error.remedy)

    def _policy_changed(self, log: FilteringBoundLogger, policy: Mapping[str, Any]) -> None:
        self._refusal = ""
        log.info(
            Event.POLICY_CHANGED,
            mode=policy["mode"],
            interval=policy["interval"],
            analyzers=[entry["name"] for entry in policy["analyzers"] if entry["enabled"]],
            optimizer=policy["optimizer"]["type"],
        )

    # ---- plugins

    def _failures(self, log: FilteringBoundLogger, result: CycleResult) -> None:
        failures = result.failures
        began, ended = self._failing.now({label: _condition(failure) for label, failure in failures.items()})
        for label in began:
            failure = failures[label]
            kind, name = kind_and_name(label)
            log.warning(
                Event.PLUGIN_FAILED,
                kind=kind,
                plugin=name,
                problem=str(error_type_of(failure)),
                error=str(failure),
                # of what the plugin raised on purpose the text is enough
                exc_info=None if isinstance(failure.__cause__, WvaError | None) else failure.__cause__,
            )
        for label in ended:
            if _had_its_say(label, result):
                kind, name = kind_and_name(label)
                log.info(Event.PLUGIN_RECOVERED, kind=kind, plugin=name)

    def _writes(self, log: FilteringBoundLogger, result: CycleResult) -> None:
        failed = {
            (actuator, variant): problem
            for actuator, report in result.reports.items()
            for variant, problem in report.failed.items()
        }
        # the text may hold numbers that differ each time, so only the pair is a change
        began, ended = self._unwritten.now(dict.fromkeys(failed, ""))
        for actuator, variant in began:
            log.warning(
                Event.WRITE_FAILED,
                plugin=kind_and_name(actuator)[1],
                variant=variant,
                error=failed[actuator, variant],
            )
        for actuator, variant in ended:
            if actuator in result.reports and variant in result.plan.fleet.index:
                log.info(Event.WRITE_RECOVERED, plugin=kind_and_name(actuator)[1], variant=variant)

    def _notices(self, log: FilteringBoundLogger, result: CycleResult) -> None:
        silent = {notice.subject: notice.text for notice in result.plan.notices if notice.code == "analyzer_silent"}
        began, ended = self._silent.now(silent)
        for analyzer in began:
            log.warning(Event.ANALYZER_SILENT, analyzer=analyzer, text=silent[analyzer])
        for analyzer in ended:
            if f"analyzer {analyzer}" in result.decision.seconds:
                log.info(Event.ANALYZER_HEARD, analyzer=analyzer)

        clashing = {notice.subject: notice.text for notice in result.plan.notices if notice.code == "overrides_clash"}
        began, _ = self._clashing.now(clashing)
        for analyzer in began:
            log.warning(Event.OVERRIDES_CLASH, analyzer=analyzer, text=clashing[analyzer])

    # ---- variants

    def _decisions(self, log: FilteringBoundLogger, result: CycleResult, changed: BoolArray) -> None:
        fleet = result.plan.fleet
        rows = np.flatnonzero(changed)
        changed_models = np.unique(fleet.model_of_variant[rows])
        if _takes_debug(log):
            others = np.setdiff1d(np.arange(len(fleet.models)), changed_models)
            self._model_lines(log.debug, result, others)
        self._model_lines(log.info, result, changed_models)
        for row in rows.tolist():
            log.info(Event.DECISION_CHANGED, **_decision(result, row))

    def _model_lines(self, write: Callable[..., Any], result: CycleResult, models: IntArray) -> None:
        """Two kinds of lines for each model, for machines, with the names that upstream WVA v0.9 gives them."""
        if not models.size:
            return
        fleet = result.plan.fleet
        settings = {} if self._brain is None else self._brain().settings(fleet).analyzers
        for model in models.tolist():
            scopes = fleet.scopes_by_model.rows(model)
            named = {"modelID": fleet.models[model].model, "namespace": fleet.models[model].namespace}
            for vote in result.decision.ballot.votes:
                write(Event.ANALYZER_RESULT, **named, **_vote(result, vote, scopes, settings.get(vote.analyzer)))
            variants = np.concatenate([fleet.by_scope.rows(scope) for scope in scopes])
            write(Event.SCALING_DECISION, **named, decisions=_steps(result, variants))

    def _stalls(self, log: FilteringBoundLogger, result: CycleResult) -> None:
        plan = result.plan
        rows = np.flatnonzero(plan.stalled)
        began, ended = self._stalled.now({plan.fleet.keys[row]: 0 for row in rows.tolist()})
        for variant in began:
            row = plan.fleet.index[variant]
            log.warning(
                Event.VARIANT_STALLED,
                variant=variant,
                current=_number(plan.current[row]),
                desired=_number(plan.desired[row]),
                text="its target was not reached, or a replica stayed pending, for longer than settleSeconds; look for"
                " pods that cannot be scheduled or do not become ready",
            )
        for variant in ended:
            if variant in plan.fleet.index:
                log.info(Event.VARIANT_UNSTALLED, variant=variant)


class _Lasting(Generic[_Key, _Value]):
    """Conditions that last: what began or became another, and what ended, since the last time."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before: dict[_Key, _Value] = {}

    def now(self, conditions: dict[_Key, _Value]) -> tuple[list[_Key], list[_Key]]:
        """Takes over the conditions of now; those that began or became another, and those that ended."""
        before, self._before = self._before, conditions
        if not before and not conditions:
            return [], []
        began = [key for key, value in conditions.items() if key not in before or before[key] != value]
        return began, [key for key in before if key not in conditions]


def _condition(failure: PluginFailure) -> ErrorType:
    """What lasts of a failure: a plugin that is late is quarantined next, probed and late again, all one condition."""
    phrase = error_type_of(failure)
    return ErrorType.LATE if phrase is ErrorType.QUARANTINED else phrase


def _had_its_say(label: str, result: CycleResult) -> bool:
    """Whether an entry that failed before took part in this cycle, and did not merely leave service."""
    kind, _ = kind_and_name(label)
    if kind in {"analyzer", "optimizer"}:
        return label in result.decision.seconds
    return label in result.reports if kind == "actuator" else kind == "collector"


def _changed(result: CycleResult) -> BoolArray:
    """(V,) the target differs from the one before; where none was known, from what is there."""
    desired, before = result.plan.desired, _before(result)
    changed: BoolArray = ~np.isnan(desired) & (desired != before)
    return changed


def _before(result: CycleResult) -> FloatArray:
    """(V,) the target before this cycle, else the replicas that are there; NaN if neither is known."""
    target = result.decision.observation.variants.target
    return np.where(np.isnan(target), result.plan.current, target)


def _takes_debug(log: FilteringBoundLogger) -> bool:
    return log.is_enabled_for(logging.DEBUG)


def _number(value: float) -> float | int | None:
    """For a line of the log: whole numbers as such, not known as null, no limit as null too."""
    if not np.isfinite(value):
        return None
    return int(value) if value == int(value) else float(value)


def _summary(result: CycleResult, changed: BoolArray) -> dict[str, Any]:
    plan = result.plan
    return {
        "mode": plan.mode.value,
        "status": plan.status,
        "degraded": bool(plan.degraded),
        "models": len(plan.fleet.models),
        "variants": len(plan.fleet),
        "changed": int(np.count_nonzero(changed)),
        "stalled": int(np.count_nonzero(plan.stalled)),
        "failed": sorted(result.failures),
        "written": sum(report.written for report in result.reports.values()),
    }


def _decision(result: CycleResult, row: int) -> dict[str, Any]:
    plan = result.plan
    reason, binding = Reason(int(plan.reason[row])), int(plan.binding_row[row])
    return {
        "variant": plan.fleet.keys[row],
        "model": plan.fleet.variants[row].model,
        "current": _number(plan.current[row]),
        "before": _number(result.decision.observation.variants.target[row]),
        "desired": _number(plan.desired[row]),
        "code": reason.name.lower(),
        "reason": reason.sentence,
        **({"limit": plan.limits[binding]} if 0 <= binding < len(plan.limits) else {}),
    }


def _vote(result: CycleResult, vote: Vote, scopes: IntArray, settings: Settings | None) -> dict[str, Any]:
    """One analyzer on one model; sums over its roles, not known where one of them is not."""
    fleet = result.plan.fleet
    answer = result.decision.assessments.get(vote.analyzer)
    demand, supply = float(np.sum(vote.demand[scopes])), float(np.sum(vote.supply[scopes]))
    variants = []
    for scope in scopes.tolist():
        for row in fleet.by_scope.rows(scope).tolist():
            reason = "error" if answer is None else "no-data" if np.isnan(vote.capacity[row]) else ""
            if answer is not None and answer.capacity_reason is not None:
                reason = answer.reasons[int(answer.capacity_reason[row])] or reason
            one = fleet.variants[row]
            variants.append(
                {"name": one.name, "prc": _number(vote.capacity[row]), "role": one.role or "both", "reason": reason}
            )
    return {
        "analyzer": vote.analyzer,
        "supply": _number(supply),
        "demand": _number(demand),
        "util": _number(demand / supply) if supply > 0 else None,
        "rc": _number(float(np.sum(vote.required[scopes]))),
        "sc": _number(float(np.sum(vote.spare[scopes]))),
        "scaleUpThreshold": None if settings is None else _number(settings.scale_up[scopes[0]]),
        "scaleDownBoundary": None if settings is None else _number(settings.scale_down[scopes[0]]),
        "variants": variants,
    }


def _steps(result: CycleResult, variants: IntArray) -> list[dict[str, Any]]:
    plan = result.plan
    steps = []
    for row in variants.tolist():
        current, desired = plan.current[row], plan.desired[row]
        action = "scale-up" if desired > current else "scale-down" if desired < current else "no-change"
        steps.append(
            {
                "name": plan.fleet.variants[row].name,
                "curr": _number(current),
                "tgt": _number(desired),
                "action": action,
            }
        )
    return steps
