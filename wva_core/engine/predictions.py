"""
What analyzers expect of a plan: latencies and utilisation, asked for when a person wants to know, never in a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from wva_core.domain import Allocation, FloatArray
from wva_core.domain.arrays import floats
from wva_core.engine.brain import Brain
from wva_core.engine.cycle import Decision
from wva_core.errors import PluginFailure
from wva_core.hooks.chain import Entry
from wva_core.hooks.specs import Prediction

__all__ = ["Predictions", "can_predict", "predictions"]

Predictions: TypeAlias = Mapping[str, Prediction | PluginFailure]
"""By entry name: what an analyzer expects, or why it did not say."""


def can_predict(brain: Brain) -> bool:
    """Whether any analyzer of a brain implements `predict`."""
    return any(entry.has("predict") for entry in brain.analyzers)


def predictions(
    decision: Decision, brain: Brain, replicas: FloatArray | None = None, timeout: float | None = None
) -> dict[str, Prediction | PluginFailure]:
    """
    What every analyzer that judged the cycle and can predict expects, in the configured order.

    Args:
        decision: a cycle; predictions are made with what the analyzers saw in it, and the state they left it with.
        brain: the one that decided it, in service.
        replicas: (V,) that are asked about; those of the plan if left out, NaN is what the variant started from.
        timeout: seconds for each call; None waits for ever.
    """
    settings = brain.settings(decision.plan.fleet).analyzers
    planned = decision.plan.desired if replicas is None else floats(replicas)
    return {
        entry.name: _predicted(entry, decision, planned, settings[entry.name], timeout)
        for entry in brain.analyzers
        if entry.has("predict") and entry.name in decision.assessments
    }


def _predicted(
    entry: Entry, decision: Decision, replicas: FloatArray, settings: object, timeout: float | None
) -> Prediction | PluginFailure:
    """The answer as read-only columns, or what kept it from coming."""
    outcome = entry.call(
        "predict",
        timeout,
        observation=decision.observation,
        allocation=Allocation(replicas),
        settings=settings,
        state=decision.assessments[entry.name].state,
    )
    if outcome.failure is not None:
        return outcome.failure
    if not isinstance(outcome.value, Prediction):
        return entry.misfit("predict", "answer", type(outcome.value).__name__, "Prediction")
    columns = {}
    for name in ("ttft", "itl", "utilization"):
        given = getattr(outcome.value, name)
        column = np.asarray(given)
        if column.dtype.kind not in "biuf" or column.shape != replicas.shape:
            shown = column.shape if column.dtype.kind in "biuf" else type(given).__name__
            return entry.misfit("predict", name, shown, f"an array of numbers of shape {replicas.shape}")
        columns[name] = floats(column)
    return Prediction(**columns)
