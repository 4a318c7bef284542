"""
A HorizontalPodAutoscaler for one scale target, as the controller of Kubernetes computes it.

It reads totals of metrics with an `AverageValue` target, as an HPA reads published advice, and answers with the
replicas it would write. It knows nothing of a cluster and has no clock: whoever drives it calls `sync` once per sync
period and carries the answer out.

Followed in detail, because each of these shows in a comparison of autoscalers: the tolerance around the target (which
at 10 % swallows a step of one from ten or eleven replicas on), stabilisation over recommendations before damping, rate
policies over the scale events of their period, what a missing metric forbids, and the milli-units of the metrics API.

Left out: metrics of single pods and of resources (no advice arrives that way), and the older damping that the
controller applies when `behavior` is absent as a whole: a limit of max(2·replicas, 4) per sync and the window of 300 s.
`HPA_DEFAULT_BEHAVIOR`, the default here, is what `behavior: {}` means; it differs in counting that limit per 15 s.

Source: Kubernetes, `pkg/controller/podautoscaler`: `horizontal.go` (`reconcileAutoscaler`, `computeReplicasForMetrics`,
`normalizeDesiredReplicasWithBehaviors`, `storeScaleEvent`) and `replica_calculator.go`
(`GetExternalPerPodMetricReplicas`, `Tolerances.isWithin`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from wva_core.errors import ParameterError
from wva_core.numerics.scaling_behavior import (
    HPA_DEFAULT_BEHAVIOR,
    Behavior,
    ScalingRules,
    scale_down_limit,
    scale_up_limit,
    stabilization_bounds,
    windowed_recommendations,
)

__all__ = [
    "DEFAULT_TOLERANCE",
    "SYNC_PERIOD_SECONDS",
    "AverageValueMetric",
    "HorizontalPodAutoscaler",
    "HpaDecision",
    "HpaReason",
]

SYNC_PERIOD_SECONDS = 15.0
"""Default of `--horizontal-pod-autoscaler-sync-period`."""

DEFAULT_TOLERANCE = 0.1
"""Default of `--horizontal-pod-autoscaler-tolerance`."""

_MILLI = 1000


class HpaReason(StrEnum):
    """Why a decision is what it is; the words are those of the HPA's conditions and events where it has one."""

    SCALING_DISABLED = "ScalingDisabled"
    """The target has 0 replicas and the minimum is not 0: nothing happens until somebody scales it up."""
    ABOVE_MAXIMUM = "AboveMaxReplicas"
    """The target had more than the maximum; metrics were not looked at."""
    BELOW_MINIMUM = "BelowMinReplicas"
    """The target had fewer than the minimum; metrics were not looked at."""
    METRICS_MISSING = "FailedComputeMetricsReplicas"
    """All metrics are missing, or some are and the others would scale down: the replicas stay."""
    SCALE_UP_STABILIZED = "ScaleUpStabilized"
    """A lower recommendation in the up window holds the replicas down."""
    SCALE_DOWN_STABILIZED = "ScaleDownStabilized"
    """A higher recommendation in the down window holds the replicas up."""
    SCALE_UP_LIMIT = "ScaleUpLimit"
    """The policies allow no faster growth."""
    SCALE_DOWN_LIMIT = "ScaleDownLimit"
    """The policies allow no faster shrinking."""
    TOO_MANY = "TooManyReplicas"
    """The maximum cuts the recommendation."""
    TOO_FEW = "TooFewReplicas"
    """The minimum lifts the recommendation."""
    WITHIN_RANGE = "DesiredWithinRange"
    """The recommendation is followed as it is."""


@dataclass(frozen=True, slots=True)
class AverageValueMetric:
    """
    A metric that the replicas share, and how much of it each of them should have.

    Attributes:
        name: the name under which `sync` gets its total.
        target: `averageValue`, above 0; a thousandth is its smallest unit. 1 makes the total the wanted replicas.

    Raises:
        ParameterError: the target is not at least a thousandth.
    """

    name: str
    target: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target) and self.target >= 1 / _MILLI):
            raise ParameterError(
                "is not a positive quantity",
                object=f"metric {self.name}",
                key="target.averageValue",
                value=self.target,
                remedy="give 0.001 or more",
            )


@dataclass(frozen=True, slots=True)
class HpaDecision:
    """
    What one sync decided.

    Attributes:
        desired: replicas to write; the present ones when nothing is to be written.
        reason: what settled the number last.
        recommendation: what the metrics asked for before damping and limits; None when they were not used.
    """

    desired: int
    reason: HpaReason
    recommendation: int | None = None


class HorizontalPodAutoscaler:
    """
    The memory and the rules of one HPA object.

    Args:
        metrics: at least one, names unique.
        max_replicas: at least 1.
        min_replicas: 0 stands for the gate `HPAScaleToZero`; otherwise a target at 0 is left alone.
        behavior: windows, policies and tolerances per direction.
        tolerance: of a direction whose rules name none.
        sync_period_seconds: how often `sync` is to be called; kept for the caller, nothing here depends on it.

    Raises:
        ParameterError: an argument is outside its range.
    """

    def __init__(
        self,
        metrics: Sequence[AverageValueMetric],
        *,
        max_replicas: int,
        min_replicas: int = 1,
        behavior: Behavior = HPA_DEFAULT_BEHAVIOR,
        tolerance: float = DEFAULT_TOLERANCE,
        sync_period_seconds: float = SYNC_PERIOD_SECONDS,
    ) -> None:
        self.metrics = tuple(metrics)
        self.min_replicas = min_replicas
        self.max_replicas = max_replicas
        self.behavior = behavior
        self.sync_period_seconds = sync_period_seconds
        self._check()
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise _refused("tolerance", "is not a finite number of at least 0", tolerance, "give 0 or more")
        up, down = behavior.scale_up.tolerance, behavior.scale_down.tolerance
        self._lowest_ignored_ratio = 1.0 - (tolerance if down is None else down)
        self._highest_ignored_ratio = 1.0 + (tolerance if up is None else up)
        # (time, replicas) as recommended before damping; None until the first sync.
        self._recommendations: list[tuple[float, int]] | None = None
        # (time, number of replicas) per direction.
        self._added: list[tuple[float, int]] = []
        self._deleted: list[tuple[float, int]] = []

    def sync(self, now: float, spec_replicas: int, status_replicas: int, metrics: Mapping[str, float]) -> HpaDecision:
        """
        The replicas this HPA writes at `now`; a change counts as carried out and becomes a scale event.

        Args:
            now: seconds, never less than at the call before.
            spec_replicas: `spec.replicas` of the target: where scaling starts from.
            status_replicas: `status.replicas` of the target: what the metric's total is divided by. Pods that exist
                count, ready or not.
            metrics: total of each metric by name. NaN or absent means missing.

        Returns:
            The decision. A metric within the tolerance asks for `status_replicas`, which during a roll-out or while
            pods are being created differs from `spec_replicas`.

        Raises:
            ParameterError: a metric is negative, infinite or not of this HPA.
        """
        totals = self._totals(metrics)
        if self._recommendations is None:
            # The first sync after a start remembers the present replicas, so that a fresh controller does not shrink
            # a target before its window has seen anything.
            self._recommendations = [(now, spec_replicas)]
        decision = self._decide(now, spec_replicas, status_replicas, totals)
        if decision.desired != spec_replicas:
            self._remember_scale_event(now, spec_replicas, decision.desired)
        return decision

    def _decide(self, now: float, spec: int, status: int, totals: list[float]) -> HpaDecision:
        if spec == 0 and self.min_replicas != 0:
            return HpaDecision(0, HpaReason.SCALING_DISABLED)
        if spec > self.max_replicas:
            return HpaDecision(self.max_replicas, HpaReason.ABOVE_MAXIMUM)
        if spec < self.min_replicas:
            return HpaDecision(self.min_replicas, HpaReason.BELOW_MINIMUM)

        proposals = [
            self._proposal(total, metric.target, status)
            for total, metric in zip(totals, self.metrics, strict=True)
            if not math.isnan(total)
        ]
        recommendation = max(proposals, default=0)
        missing = len(self.metrics) - len(proposals)
        if not proposals or (missing and recommendation < spec):
            return HpaDecision(spec, HpaReason.METRICS_MISSING)
        return self._normalized(now, spec, recommendation)

    def _proposal(self, total: float, target: float, status: int) -> int:
        """The replicas that one metric asks for."""
        # Adapters cut the value off after a thousandth, and targets have no finer unit.
        usage, per_replica = math.trunc(total * _MILLI), round(target * _MILLI)
        if status:
            ratio = usage / (float(per_replica) * status)
            if self._lowest_ignored_ratio <= ratio <= self._highest_ignored_ratio:
                return status
        return math.ceil(usage / per_replica)

    def _normalized(self, now: float, spec: int, recommendation: int) -> HpaDecision:
        """`recommendation` after stabilisation, policies and minimum or maximum, in this order."""
        stabilized = self._stabilized(now, spec, recommendation)
        if stabilized == recommendation:
            reason = HpaReason.WITHIN_RANGE
        elif recommendation >= spec:
            reason = HpaReason.SCALE_UP_STABILIZED
        else:
            reason = HpaReason.SCALE_DOWN_STABILIZED

        desired = stabilized
        if stabilized > spec:
            limit = scale_up_limit([spec], self.behavior.scale_up, *self._scale_events(), now)[0]
            desired = int(min(stabilized, self.max_replicas, limit))
            if desired < stabilized:
                reason = HpaReason.SCALE_UP_LIMIT if limit < self.max_replicas else HpaReason.TOO_MANY
        elif stabilized < spec:
            limit = scale_down_limit([spec], self.behavior.scale_down, *self._scale_events(), now)[0]
            desired = int(max(stabilized, self.min_replicas, limit))
            if desired > stabilized:
                reason = HpaReason.SCALE_DOWN_LIMIT if limit > self.min_replicas else HpaReason.TOO_FEW
        return HpaDecision(desired, reason, recommendation)

    def _stabilized(self, now: float, spec: int, recommendation: int) -> int:
        """`recommendation` within the bounds of both windows; it is remembered as it came."""
        up_window = self.behavior.scale_up.stabilization_window_seconds
        down_window = self.behavior.scale_down.stabilization_window_seconds
        cutoff = now - max(up_window, down_window)
        history = [sample for sample in self._recommendations or () if sample[0] > cutoff]
        times, rows = _columns(history)
        up, down = windowed_recommendations([recommendation], times, rows, now, up_window, down_window)
        low, high = stabilization_bounds([spec], up, down)
        self._recommendations = [*history, (now, recommendation)]
        return int(np.clip(recommendation, low[0], high[0]))

    def _scale_events(self) -> tuple[list[float], list[list[float]]]:
        """Times and signed changes of the remembered scale events."""
        return _columns([*self._added, *((time, -replicas) for time, replicas in self._deleted)])

    def _remember_scale_event(self, now: float, before: int, after: int) -> None:
        if after > before:
            _store(self._added, now, after - before, self.behavior.scale_up, self.behavior.scale_down)
        else:
            _store(self._deleted, now, before - after, self.behavior.scale_down, self.behavior.scale_up)

    def _totals(self, metrics: Mapping[str, float]) -> list[float]:
        """The totals in the order of the metrics, NaN for what is missing."""
        names = [metric.name for metric in self.metrics]
        unknown = sorted(set(metrics) - set(names))
        if unknown:
            raise _refused("metrics", "is not a metric of this autoscaler", unknown[0], f"use {', '.join(names)}")
        totals = [metrics.get(name, math.nan) for name in names]
        for name, total in zip(names, totals, strict=True):
            if total < 0 or math.isinf(total):
                raise _refused(f"metrics.{name}", "is not a total", total, "give a number of at least 0, or NaN")
        return totals

    def _check(self) -> None:
        names = [metric.name for metric in self.metrics]
        if not names:
            raise _refused("metrics", "is empty", names, "give at least one metric")
        if len(set(names)) < len(names):
            raise _refused("metrics", "names a metric twice", names, "give every metric a name of its own")
        if self.min_replicas < 0:
            raise _refused("minReplicas", "is negative", self.min_replicas, "give 0 or more")
        if self.max_replicas < max(1, self.min_replicas):
            raise _refused(
                "maxReplicas", "is below 1 or below minReplicas", self.max_replicas, "give at least both of them"
            )


def _store(events: list[tuple[float, int]], now: float, replicas: int, own: ScalingRules, other: ScalingRules) -> None:
    """
    Adds an event in place of one that its own direction needs no longer, as the controller does.

    The controller asks only the direction of the event. Where the other direction has a longer period, an event that
    it would still count can be lost; that is part of what is simulated. Rules without policies exist only here, so for
    them the other direction is asked.
    """
    cutoff = now - (own.longest_period_seconds or other.longest_period_seconds)
    outdated = [index for index, (time, _) in enumerate(events) if time < cutoff]
    if outdated:
        events[outdated[-1]] = (now, replicas)
    else:
        events.append((now, replicas))


def _columns(pairs: Sequence[tuple[float, int]]) -> tuple[list[float], list[list[float]]]:
    """Times (H,) and one-column rows (H, 1) of (time, value) pairs."""
    return [time for time, _ in pairs], [[float(value)] for _, value in pairs]


def _refused(key: str, problem: str, value: object, remedy: str) -> ParameterError:
    return ParameterError(problem, object="HorizontalPodAutoscaler", key=key, value=value, remedy=remedy)
