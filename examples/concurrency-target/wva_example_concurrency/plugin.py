"""
The analyzer `concurrency-target`: requests running or waiting, against a target for one replica.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from wva_core.domain import Assessment, Observation, Settings, SignalRequest, Verdict
from wva_core.hooks import Thresholds, hookimpl

__all__ = ["ConcurrencyTarget"]

_REASONS = (
    "",
    "no replica reports its requests",
    "{silent:.0f} of {replicas:.0f} replicas do not report their requests; nothing shrinks until they do",
)
_UNKNOWN, _PARTIAL = 1, 2


class ConcurrencyTarget:
    """
    A replica for every `target` requests that run or wait.

    Demand is every request inside the replicas of a scope and in its gateway queue; a replica carries `target` of them.
    """

    api = "1"
    signals = (
        SignalRequest("running"),
        SignalRequest("waiting"),
        SignalRequest("queue_size", level="scope", required=False),
    )
    default_thresholds = Thresholds(scale_up=1.0, scale_down=0.8)

    class Parameters(BaseModel):
        """What an operator may set."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        target: float = Field(16.0, gt=0.0, allow_inf_nan=False, description="requests one replica serves at once")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @hookimpl
    def assess(self, observation: Observation, settings: Settings) -> Assessment:
        """Requests per scope, and the target as the capacity of every replica."""
        by_scope = observation.replicas.index.by_scope
        requests = observation.replicas["running"] + observation.replicas["waiting"]
        known = ~np.isnan(requests)
        inside = by_scope.sum(np.where(known, requests, 0.0))
        queued = np.nan_to_num(observation.scopes["queue_size"])  # without a gateway there is no queue

        reporting, replicas = by_scope.count(known), by_scope.sizes()
        nothing_known = reporting == 0
        partly_known = ~nothing_known & (reporting < replicas)
        return Assessment.of(
            observation.fleet,
            unit="requests",
            demand=np.where(nothing_known, np.nan, inside + queued),
            capacity=settings["target"][observation.fleet.scope_of_variant],
            verdict=np.select([nothing_known, partly_known], [Verdict.FREEZE, Verdict.NO_SHRINK], Verdict.JUDGED),
            reason=np.select([nothing_known, partly_known], [_UNKNOWN, _PARTIAL], 0),
            reasons=_REASONS,
            details={"replicas": replicas.astype(float), "silent": (replicas - reporting).astype(float)},
        )
