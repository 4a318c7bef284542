"""
The engine's own metrics: how long cycles take, what they cover, and what fails in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from wva_core.engine.loop import CycleResult, PolicyRefused
from wva_core.errors import ParameterError
from wva_core.telemetry import names
from wva_core.telemetry.failures import component_of, error_type_of, kind_and_name
from wva_core.telemetry.names import ErrorType

__all__ = ["CycleMetrics"]

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)

_HELD = "held"
"""Status of a plan in which every target holds because the optimizer gave no usable answer."""


class CycleMetrics:
    """
    Keeps the engine's own metrics; a subscriber of the engine.

    Args:
        registry: where they are published.
        controller_instance: value of the label of that name on every series; empty leaves the label out.
        stopwatch: seconds of real time, for the length of a cycle.

    Raises:
        ParameterError: the registry has such metrics already.

    Cost: about 10 µs per cycle, whatever the number of variants.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        controller_instance: str = "",
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._registry = registry
        self._instance = (controller_instance,) if controller_instance else ()
        self._stopwatch = stopwatch
        self._policy: Mapping[str, Any] | None = None
        self._optimizer = ""
        self._duration = self._made(
            Histogram,
            names.OPTIMIZATION_DURATION,
            "Length of a control cycle.",
            names.LABEL_STATUS,
            buckets=names.DURATION_BUCKETS,
        )
        self._models = self._made(Gauge, names.MODELS_PROCESSED, "Models in the last cycle.")
        self._errors = self._made(
            Counter,
            names.ERRORS,
            "Failures, by the part that failed and what went wrong.",
            names.LABEL_COMPONENT,
            names.LABEL_ERROR_TYPE,
        )
        self._active = self._made(
            Gauge,
            names.OPTIMIZER_ACTIVE,
            "1 for the optimizer in service, 0 for those before it.",
            names.LABEL_OPTIMIZER,
        )
        self._interval = self._made(Gauge, names.CONFIG_INTERVAL, "Time between control cycles, as configured.")
        self._refused = self._made(Counter, names.POLICY_REFUSED, "Policies that did not take effect.")
        self._plugin_failures = self._made(
            Counter,
            names.PLUGIN_FAILURES,
            "Cycles in which a plugin had no say because it failed.",
            names.LABEL_KIND,
            names.LABEL_PLUGIN,
        )
        self._plugin_duration = self._made(
            Histogram,
            names.PLUGIN_DURATION,
            "Time that the calls of one plugin take in a cycle.",
            names.LABEL_KIND,
            names.LABEL_PLUGIN,
            buckets=names.DURATION_BUCKETS,
        )
        self._last = self._made(Gauge, names.LAST_CYCLE, "When the last cycle observed the world.")
        self._stalled = self._made(
            Gauge, names.VARIANTS_STALLED, "Variants that have not reached their target within the settle time."
        )

    def _made(self, kind: type[_Metric], name: str, help: str, *labels: str, **options: Any) -> _Metric:
        extra = (names.LABEL_CONTROLLER_INSTANCE,) if self._instance else ()
        try:
            return kind(name, help, (*labels, *extra), registry=self._registry, **options)
        except ValueError as exc:
            raise ParameterError(
                "is published in this registry already",
                object="metrics of the engine",
                key=name,
                remedy="make them once for each registry",
            ) from exc

    def _of(self, metric: _Metric, *values: str) -> _Metric:
        """The series of a metric with these label values."""
        return metric.labels(*values, *self._instance) if values or self._instance else metric

    def timed(self, run_cycle: Callable[[], CycleResult]) -> Callable[[], CycleResult]:
        """
        The same function, with the length of every cycle measured.

        A cycle counts as an error if it raises, or if every target holds because there is no usable answer.
        """

        @wraps(run_cycle)
        def run() -> CycleResult:
            began = self._stopwatch()
            status = "error"
            try:
                result = run_cycle()
                status = "error" if result.plan.status == _HELD else "success"
            finally:
                self._of(self._duration, status).observe(self._stopwatch() - began)
            return result

        return run

    def __call__(self, result: CycleResult | PolicyRefused) -> None:
        """Takes in one result."""
        if isinstance(result, PolicyRefused):
            self._of(self._refused).inc()
            self._of(self._errors, "controller", ErrorType.POLICY_REFUSED).inc()
            return
        plan = result.plan
        if result.record.policy is not self._policy:
            self._take_policy(result.record.policy)
        for label, failure in result.failures.items():
            self._of(self._errors, component_of(label), error_type_of(failure)).inc()
            self._of(self._plugin_failures, *kind_and_name(label)).inc()
        for report in result.reports.values():
            if report.failed:
                self._of(self._errors, "actuator", ErrorType.WRITE_FAILED).inc(len(report.failed))
        for label, seconds in result.decision.seconds.items():
            self._of(self._plugin_duration, *kind_and_name(label)).observe(seconds)
        self._of(self._models).set(len(plan.fleet.models))
        self._of(self._last).set(plan.time)
        self._of(self._stalled).set(int(np.count_nonzero(plan.stalled)))

    def _take_policy(self, policy: Mapping[str, Any]) -> None:
        self._policy = policy
        optimizer = policy["optimizer"]["type"]
        if self._optimizer and self._optimizer != optimizer:
            self._of(self._active, self._optimizer).set(0)
        self._of(self._active, optimizer).set(1)
        self._optimizer = optimizer
        self._of(self._interval).set(policy["interval"])
