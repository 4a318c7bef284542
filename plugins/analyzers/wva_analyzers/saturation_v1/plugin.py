"""
The analyzer `saturation-v1`: its parameters, and headroom turned into an assessment in steps of one replica.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wva_analyzers.saturation_v1.headroom import Headroom, Levels, headroom
from wva_core.domain import Assessment, BoolArray, IntArray, Observation, Settings, SignalRequest, Verdict
from wva_core.hooks import Thresholds, hookimpl

__all__ = ["SaturationV1"]

_KV_TEXT = "mean spare KV cache {avg_spare_kv:.3f} is below {kv_spare_trigger:.3f}"
_QUEUE_TEXT = "mean spare queue {avg_spare_queue:.1f} is below {queue_spare_trigger:.1f}"
_REASONS = (
    "",
    f"{_KV_TEXT} and {_QUEUE_TEXT}",
    _KV_TEXT,
    _QUEUE_TEXT,
    "one replica fewer leaves a spare KV cache of {remaining_kv:.3f} and a spare queue of {remaining_queue:.1f}",
    "the last step is still under way: a target is not reached or a replica is pending",
    "no replica reports both its KV cache and its queue",
    "no replica of the variant reports",
)
_BOTH_LOW, _KV_LOW, _QUEUE_LOW, _SPARE, _IN_TRANSITION, _UNKNOWN, _NOT_REPORTING = range(1, 8)


class SaturationV1:
    """
    One replica more while replicas lack KV cache or queue, one fewer when the others can carry its load.

    Compatible with the percentage-based saturation analysis of upstream WVA: a scope waits until every variant that
    reports has reached its target before it is judged again.
    """

    api = "1"
    signals = (SignalRequest("kv_usage", window_seconds=60.0), SignalRequest("waiting", window_seconds=60.0))
    default_thresholds = Thresholds()  # not used: steps are stated as required and spare

    class Parameters(BaseModel):
        """From where on a replica is saturated, and how little mean spare adds one."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        kv_cache_threshold: float = Field(
            0.80, ge=0.0, le=1.0, allow_inf_nan=False, description="saturated from this share of the KV cache"
        )
        queue_length_threshold: float = Field(
            5.0, ge=0.0, allow_inf_nan=False, description="saturated from this many waiting requests"
        )
        kv_spare_trigger: float = Field(
            0.10, ge=0.0, le=1.0, allow_inf_nan=False, description="grow below this mean spare share of the KV cache"
        )
        queue_spare_trigger: float = Field(
            3.0, ge=0.0, allow_inf_nan=False, description="grow below this mean spare queue, in requests"
        )

        @model_validator(mode="after")
        def _trigger_can_be_met(self) -> SaturationV1.Parameters:
            if self.kv_spare_trigger > self.kv_cache_threshold:
                raise ValueError(
                    f"kvSpareTrigger {self.kv_spare_trigger} is above kvCacheThreshold {self.kv_cache_threshold}, so"
                    " idle replicas would ask for more; lower the trigger"
                )
            return self

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @hookimpl
    def assess(self, observation: Observation, settings: Settings) -> Assessment:
        """One replica required, one spare, or neither; frozen in transition and where nothing can be judged."""
        fleet, replicas = observation.fleet, observation.replicas
        levels = Levels(
            K=settings["kv_cache_threshold"],
            Q=settings["queue_length_threshold"],
            ks=settings["kv_spare_trigger"],
            qs=settings["queue_spare_trigger"],
        )
        found = headroom(replicas["kv_usage"], replicas["waiting"], replicas.index.by_variant, fleet.by_scope, levels)
        in_transition = fleet.by_scope.any(found.analysed & observation.variants.settling)
        frozen = in_transition | ~found.judged
        return Assessment.of(
            fleet,
            unit="replicas",
            capacity=np.where(found.analysed, 1.0, np.nan),
            required=np.where(frozen, np.nan, found.grow),
            spare=np.where(frozen, np.nan, found.shrink & ~found.grow),
            verdict=np.where(frozen, Verdict.FREEZE, Verdict.JUDGED),
            reason=_reason(found, in_transition),
            reasons=_REASONS,
            capacity_reason=np.where(found.analysed, 0, _NOT_REPORTING),
            details={
                "avg_spare_kv": np.where(found.judged, found.avg_spare_kv, np.nan),
                "avg_spare_queue": np.where(found.judged, found.avg_spare_queue, np.nan),
                "kv_spare_trigger": levels.ks,
                "queue_spare_trigger": levels.qs,
                "non_saturated": found.non_saturated,
                "saturated": found.saturated,
                "remaining_kv": found.remaining_kv,
                "remaining_queue": found.remaining_queue,
                "avg_kv": found.avg_kv,
                "max_kv": found.max_kv,
                "max_queue": found.max_queue,
            },
            state={"version": 1},
        )


def _reason(found: Headroom, in_transition: BoolArray) -> IntArray:
    """(S,) index into the reasons; what freezes comes first."""
    return np.select(
        [
            ~found.judged,
            in_transition,
            found.kv_is_low & found.queue_is_low,
            found.kv_is_low,
            found.queue_is_low,
            found.shrink,
        ],
        [_UNKNOWN, _IN_TRANSITION, _BOTH_LOW, _KV_LOW, _QUEUE_LOW, _SPARE],
        default=0,
    )
