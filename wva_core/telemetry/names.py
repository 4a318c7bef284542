"""
The names that dashboards, alerts and log filters are written against: metrics, labels and log events.

A name here never changes its meaning; `docs/user-guide/metrics.md` explains each one. Names of the scaling signal
(`wva_desired_replicas` and what belongs to it) are those of the actuator that publishes it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = [
    "CONFIG_INTERVAL",
    "DURATION_BUCKETS",
    "ERRORS",
    "LABEL_COMPONENT",
    "LABEL_CONTROLLER_INSTANCE",
    "LABEL_ERROR_TYPE",
    "LABEL_KIND",
    "LABEL_OPTIMIZER",
    "LABEL_PLUGIN",
    "LABEL_STATUS",
    "LAST_CYCLE",
    "METRICS",
    "MODELS_PROCESSED",
    "OPTIMIZATION_DURATION",
    "OPTIMIZER_ACTIVE",
    "PLUGIN_DURATION",
    "PLUGIN_FAILURES",
    "POLICY_REFUSED",
    "VARIANTS_STALLED",
    "ErrorType",
    "Event",
]

# ---- metrics of upstream WVA v0.9

OPTIMIZATION_DURATION: Final = "wva_optimization_duration_seconds"
MODELS_PROCESSED: Final = "wva_models_processed"
ERRORS: Final = "wva_errors_total"
OPTIMIZER_ACTIVE: Final = "wva_optimizer_active"
CONFIG_INTERVAL: Final = "wva_config_optimization_interval_seconds"

# ---- metrics of our own

POLICY_REFUSED: Final = "wva_policy_refused_total"
PLUGIN_FAILURES: Final = "wva_plugin_failures_total"
PLUGIN_DURATION: Final = "wva_plugin_duration_seconds"
LAST_CYCLE: Final = "wva_last_cycle_timestamp_seconds"
VARIANTS_STALLED: Final = "wva_variants_stalled"

METRICS: Final = (
    OPTIMIZATION_DURATION,
    MODELS_PROCESSED,
    ERRORS,
    OPTIMIZER_ACTIVE,
    CONFIG_INTERVAL,
    POLICY_REFUSED,
    PLUGIN_FAILURES,
    PLUGIN_DURATION,
    LAST_CYCLE,
    VARIANTS_STALLED,
)
"""Every metric of this package."""

DURATION_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the duration histograms, seconds (upstream WVA v0.9)."""

# ---- labels

LABEL_STATUS: Final = "status"
LABEL_COMPONENT: Final = "component"
LABEL_ERROR_TYPE: Final = "error_type"
LABEL_OPTIMIZER: Final = "optimizer_name"
LABEL_KIND: Final = "kind"
LABEL_PLUGIN: Final = "plugin"
LABEL_CONTROLLER_INSTANCE: Final = "controller_instance"


class ErrorType(StrEnum):
    """What went wrong, in a fixed phrase: values of the label `error_type` and of the log field `problem`."""

    RAISED = "raised"
    LATE = "late"
    QUARANTINED = "quarantined"
    UNUSABLE_ANSWER = "unusable answer"
    WRITE_FAILED = "write failed"
    POLICY_REFUSED = "policy refused"


class Event(StrEnum):
    """What a line of the log is about."""

    CYCLE_FINISHED = "cycle_finished"
    DECISION_CHANGED = "decision_changed"
    POLICY_CHANGED = "policy_changed"
    POLICY_REFUSED = "policy_refused"
    OVERRIDES_CLASH = "overrides_clash"
    PLUGIN_FAILED = "plugin_failed"
    PLUGIN_RECOVERED = "plugin_recovered"
    WRITE_FAILED = "write_failed"
    WRITE_RECOVERED = "write_recovered"
    VARIANT_STALLED = "variant_stalled"
    VARIANT_UNSTALLED = "variant_unstalled"
    ANALYZER_SILENT = "analyzer_silent"
    ANALYZER_HEARD = "analyzer_heard"
    ANALYZER_RESULT = "analyzer-result"
    """Spelled as upstream WVA v0.9 spells it, as is the next."""
    SCALING_DECISION = "scaling-decision"
