"""
`wva decide`: one control cycle on an observation that a person wrote down.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from wva_core.cli.foreign_output import foreign_output_to_stderr
from wva_core.cli.json_numbers import known
from wva_core.cli.observation_document import read_observation
from wva_core.cli.policy_choice import policy_layers, policy_option
from wva_core.domain import Reason
from wva_core.domain.record import Record
from wva_core.engine import Brain, Deadline, Decision
from wva_core.engine import decide as decide_cycle
from wva_core.engine.predictions import Predictions, predictions
from wva_core.hooks import Runtime
from wva_core.telemetry.explanation import (
    AnswerExplanation,
    Explanation,
    PredictionExplanation,
    VariantExplanation,
    explain,
    figure,
)

__all__ = ["decide"]

_HELD = frozenset(
    reason.name.lower()
    for reason in (
        Reason.FROZEN,
        Reason.HELD_MISSING,
        Reason.HELD_STALE,
        Reason.HELD_INCOMPLETE,
        Reason.NO_ANCHOR,
        Reason.HELD_OPTIMIZER,
        Reason.UNKNOWN,
    )
)
"""Reasons for which a variant keeps its target because something is missing, stale, frozen or failed."""

_STATES_A_NEED = frozenset({"judged", "no_shrink"})
"""Verdicts that say how much is required or spare; with any other the two are not known."""

_HAS_NO_SAY = frozenset({"disabled", "failed"})
"""Verdicts in place of an analyzer's own."""


class _Standstill:
    """The clock of a single cycle."""

    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        """Seconds; always the same."""
        return self._now


@click.command()
@click.argument("observation", type=click.Path(path_type=Path))
@policy_option
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Sentences or JSON."
)
@click.pass_context
def decide(ctx: click.Context, observation: Path, policy: Path | None, output: str) -> None:
    """
    One control cycle on a written-down observation.

    OBSERVATION is a YAML or JSON file: variants, replicas and what is known of them. Its keys are explained in
    docs/user-guide/observation.md. Nothing outside this process is read or changed.
    """
    written = read_observation(observation)
    seen, memory = written.observation, written.memory
    brain = Brain.build(policy_layers(policy))
    for warning in brain.policy.warnings:
        click.echo(f"warning: {warning}", err=True)
    brain.start(Runtime(clock=_Standstill(seen.time)))
    try:
        with foreign_output_to_stderr():
            decision = decide_cycle(seen, brain, memory, Deadline(brain.policy.spec.interval))
            expected = predictions(decision, brain, timeout=brain.policy.spec.interval)
    finally:
        brain.stop()
    told = _document(brain, decision, expected)
    if output == "json":
        click.echo(json.dumps(told, indent=2, allow_nan=False))
    else:
        _print(told)
    for failure in decision.failures.values():
        click.echo(f"error: {' '.join(str(failure).split())}", err=True)
    if decision.failures:
        ctx.exit(1)


# ---------------------------------------------------------------------------------------------------------------------
# What is told, as plain data


def _explained(brain: Brain, decision: Decision, expected: Predictions) -> Explanation:
    """The decision retold as a record of it would be."""
    return explain(
        Record(
            cycle=decision.memory.cycle,
            time=decision.plan.time,
            policy=brain.policy.plain,
            observation=decision.observation,
            failures={},  # told by themselves, under the names of entries
            assessments=decision.assessments,
            ballot=decision.ballot,
            limits=decision.limits,
            plan=decision.plan,
            base=decision.observation.variants.base,
        ),
        expected=expected,
    )


def _document(brain: Brain, decision: Decision, expected: Predictions) -> dict[str, Any]:
    """
    The answer for `--output json`: what is not known is null, replicas are whole numbers.

    Variants and scopes stand in the order of the fleet, which is that of their names.
    """
    told = _explained(brain, decision, expected)
    failed = {
        entry.name: decision.failures[entry.label] for entry in brain.analyzers if entry.label in decision.failures
    }
    asked = brain.settings(decision.plan.fleet).enabled
    by_variant: dict[str, tuple[VariantExplanation, dict[str, Any]]] = {}
    assessments: dict[str, dict[str, Any]] = {entry.name: {} for entry in brain.analyzers}
    for place, scope in enumerate(told.scopes):  # all of the fleet, in its order
        answers = {answer.analyzer: answer for answer in scope.answers}
        here = {}
        for name in assessments:
            if not asked[name][place]:
                here[name] = _nothing("disabled", "policy disables this analyzer here")
            elif name in answers:
                here[name] = _said(answers[name])
            else:
                here[name] = _nothing("failed", str(failed[name]))
        for name, answer in here.items():
            assessments[name][scope.label] = answer
        predicted = {
            (one.variant, one.analyzer): _expectation(one)
            for one in scope.predictions
            if here[one.analyzer]["verdict"] not in _HAS_NO_SAY
        }
        for variant in scope.variants:
            row = decision.plan.fleet.index[variant.variant]
            analyzers = {
                name: {
                    **{key: value for key, value in answer.items() if key != "details"},
                    "capacity": None
                    if answer["verdict"] in _HAS_NO_SAY
                    else known(decision.assessments[name].capacity[row]),
                    **predicted.get((variant.variant, name), {}),
                }
                for name, answer in here.items()
            }
            by_variant[variant.variant] = (variant, analyzers)
    rows = [by_variant[key] for key in decision.plan.fleet.keys]
    document: dict[str, Any] = {
        "decisions": [_decided(variant, analyzers) for variant, analyzers in rows],
        "assessments": assessments,
        "held": [
            {"variant": variant.variant, "reason": variant.sentence} for variant, _ in rows if variant.reason in _HELD
        ],
    }
    if decision.failures:
        document["failures"] = {label: str(failure) for label, failure in decision.failures.items()}
    return document


def _decided(variant: VariantExplanation, analyzers: dict[str, Any]) -> dict[str, Any]:
    change = variant.desired - variant.current
    return {
        "variant": variant.variant,
        "current": _whole(variant.current),
        "desired": _whole(variant.desired),
        "action": "scale-up" if change > 0 else "scale-down" if change < 0 else "no-change",
        "reason": f"{variant.sentence}: {variant.binding}" if variant.binding else variant.sentence,
        "analyzers": analyzers,
    }


def _said(answer: AnswerExplanation) -> dict[str, Any]:
    """What one analyzer said of one scope."""
    states = answer.verdict in _STATES_A_NEED
    return {
        "verdict": answer.verdict,
        "unit": answer.unit,
        "required": known(answer.required) if states else None,
        "spare": known(answer.spare) if states else None,
        "demand": known(answer.demand),
        "supply": known(answer.supply),
        "reason": answer.sentence,
        "details": {name: known(value) for name, value in (answer.details or {}).items()},
    }


def _expectation(one: PredictionExplanation) -> dict[str, Any]:
    """What an analyzer expects of a variant at its planned replicas, under the key it has in the answer."""
    if one.failure:
        return {"predicted": {"failure": one.failure}}
    return {
        "predicted": {
            "ttft_ms": known(1e3 * one.ttft),
            "itl_ms": known(1e3 * one.itl),
            "utilization": known(one.utilization),
        }
    }


def _nothing(verdict: str, why: str) -> dict[str, Any]:
    """The place of an analyzer that has no say in a scope."""
    unknown = dict.fromkeys(("required", "spare", "demand", "supply"))
    return {"verdict": verdict, "unit": "", **unknown, "reason": why, "details": {}}


def _whole(replicas: float) -> int | None:
    return int(replicas) if math.isfinite(replicas) else None


# ---------------------------------------------------------------------------------------------------------------------
# The same for a person


def _print(told: dict[str, Any]) -> None:
    from wva_core.cli.text_table import print_table, print_text

    rows = [
        (
            row["variant"],
            f"{_count(row['current'])} → {_count(row['desired'])}",
            row["action"],
            "; ".join([row["reason"], *_sentences(row["analyzers"])]),
        )
        for row in told["decisions"]
    ]
    print_table(("variant", "replicas", "action", "why"), rows, right=("replicas", "action"))
    if not rows:
        print_text("The observation lists no variant.")
    if told["held"]:
        print_text(f"held: {', '.join(row['variant'] for row in told['held'])}")


def _sentences(analyzers: dict[str, Any]) -> list[str]:
    said = [f"{name}: {answer['reason']}" for name, answer in analyzers.items() if answer["reason"]]
    return said + [text for name, answer in analyzers.items() if (text := _foretold(name, answer.get("predicted")))]


def _foretold(name: str, predicted: dict[str, Any] | None) -> str:
    """What is expected of the planned replicas, as far as it is known."""
    if not predicted or set(predicted.values()) == {None}:
        return ""
    if "failure" in predicted:
        return f"{name} expects nothing: {predicted['failure']}"
    texts = [
        f"{label} {figure(predicted[key])} ms"
        for key, label in (("ttft_ms", "TTFT"), ("itl_ms", "ITL"))
        if predicted[key] is not None
    ]
    if predicted["utilization"] is not None:
        texts.append(f"{predicted['utilization']:.0%} of the batch filled")
    return f"{name} expects {', '.join(texts)}"


def _count(replicas: int | None) -> str:
    return figure(math.nan if replicas is None else replicas)
