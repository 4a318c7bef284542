"""
One immutable snapshot of what is published, and the metric families it renders to.

A scrape sees the whole of one plan or the whole of another, never some of each: `published` makes a new snapshot, and
the actuator swaps one reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wva_core.domain import BoolArray, Fleet, FloatArray, IntArray, Plan, Reason
from wva_core.domain.arrays import floats

__all__ = ["ALIASES", "CHANGE_LABELS", "INSTANCE_LABEL", "LABELS", "Snapshot", "families", "published"]

LABELS = ("variant_name", "namespace", "accelerator_type")
"""Labels of the three gauges."""

CHANGE_LABELS = ("variant_name", "namespace", "direction", "reason")
"""Labels of the counter."""

INSTANCE_LABEL = "controller_instance"
"""The label of every series where several controllers share a cluster."""

ALIASES = {
    "wva_desired_replicas": "inferno_desired_replicas",
    "wva_current_replicas": "inferno_current_replicas",
    "wva_desired_ratio": "inferno_desired_ratio",
    "wva_replica_scaling_total": "inferno_replica_scaling_total",
}
"""The names of releases 0.0 to 0.4, which dashboards and autoscalers may still ask for."""

_HELP = {
    "wva_desired_replicas": "Replicas the variant should have.",
    "wva_current_replicas": "Replicas the variant's scale target has.",
    "wva_desired_ratio": "Desired over current replicas; desired where there are none.",
    "wva_replica_scaling_total": "Changes of the desired number of replicas.",
}

_UNRESOLVED = "unresolved"

_REASONS = {Reason.GROW: "required", Reason.SHRINK: "spare"}

_Changes: TypeAlias = Mapping[tuple[str, str, str, str], int]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """
    What one plan publishes.

    Attributes:
        fleet: order of the columns.
        desired, current: (V,) replicas; NaN publishes nothing.
        changes: changes of advice so far, by namespace, variant, direction and reason; only ever replaced.
    """

    fleet: Fleet
    desired: FloatArray
    current: FloatArray
    changes: _Changes = field(default_factory=dict)


def published(plan: Plan, before: Snapshot | None) -> Snapshot:
    """
    The snapshot of a plan.

    A variant that still exists keeps its last published numbers where the plan does not know them: a gap would read
    as zero to whoever scales on it. A variant that is gone is gone.

    Cost: 0.1 ms for 10,000 variants while nothing changes; 10 ms where variants come or go, 20 ms where all change.
    """
    if before is None:
        return Snapshot(plan.fleet, floats(plan.desired), floats(plan.current))
    rows = plan.fleet.rows_in(before.fleet)
    last = _taken(before.desired, rows)
    desired = floats(np.where(np.isnan(plan.desired), last, plan.desired))
    current = floats(np.where(np.isnan(plan.current), _taken(before.current, rows), plan.current))
    changes = before.changes
    if plan.fleet is not before.fleet:
        alive = {(variant.namespace, variant.name) for variant in plan.fleet.variants}
        changes = {key: count for key, count in changes.items() if key[:2] in alive}
    moved = np.flatnonzero(~np.isnan(last) & (desired != last))
    if moved.size:
        changes = _counted(changes, plan, moved, desired > last)
    return Snapshot(plan.fleet, desired, current, changes)


def _taken(column: FloatArray, rows: IntArray) -> FloatArray:
    """What a column says of each row, NaN where the row is -1."""
    return np.append(column, np.nan)[rows]


def _counted(changes: _Changes, plan: Plan, moved: IntArray, up: BoolArray) -> _Changes:
    """The counts after one more change of each of these rows."""
    counts = dict(changes)
    for row in moved.tolist():
        variant, reason = plan.fleet.variants[row], Reason(int(plan.reason[row]))
        direction = "scale-up" if up[row] else "scale-down"
        key = (variant.namespace, variant.name, direction, _REASONS.get(reason, reason.name.lower()))
        counts[key] = counts.get(key, 0) + 1
    return counts


def families(snapshot: Snapshot, *, aliases: bool, controller_instance: str = "") -> Iterator[Metric]:
    """
    The metric families of a snapshot.

    Args:
        aliases: publish the older names as well.
        controller_instance: value of the label of that name; empty leaves the label out.

    Cost: about 1 µs per series; a scrape takes 7 µs more for each to make it text.
    """
    instance = {INSTANCE_LABEL: controller_instance} if controller_instance else {}
    labels = [
        {
            **instance,
            **dict(zip(LABELS, (variant.name, variant.namespace, variant.accelerator or _UNRESOLVED), strict=True)),
        }
        for variant in snapshot.fleet.variants
    ]
    for name, column in _gauges(snapshot).items():
        known = np.flatnonzero(~np.isnan(column))
        series = list(zip(known.tolist(), column[known].tolist(), strict=True))
        for shown in (name, ALIASES[name]) if aliases else (name,):
            gauge = GaugeMetricFamily(shown, _HELP[name])
            for row, value in series:
                gauge.add_sample(shown, labels[row], value)
            yield gauge
    name = "wva_replica_scaling_total"
    for shown in (name, ALIASES[name]) if aliases else (name,):
        counter = CounterMetricFamily(shown, _HELP[name])
        for (namespace, variant_name, direction, reason), count in snapshot.changes.items():
            values = (variant_name, namespace, direction, reason)
            counter.add_sample(shown, {**instance, **dict(zip(CHANGE_LABELS, values, strict=True))}, count)
        yield counter


def _gauges(snapshot: Snapshot) -> dict[str, FloatArray]:
    """The columns of the three gauges by name; NaN publishes nothing."""
    desired, current = snapshot.desired, snapshot.current
    none = current == 0
    return {
        "wva_desired_replicas": desired,
        "wva_current_replicas": current,
        "wva_desired_ratio": np.where(none, desired, desired / np.where(none, 1.0, current)),
    }
