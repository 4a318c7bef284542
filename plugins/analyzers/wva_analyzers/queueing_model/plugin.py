"""
The analyzer `queueing-model`: what replicas show, what is learnt from it, and the objectives, put together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wva_analyzers.queueing_model import as_upstream
from wva_analyzers.queueing_model.judgement import judged
from wva_analyzers.queueing_model.parameters import Parameters as QueueingParameters
from wva_analyzers.queueing_model.prediction import predicted
from wva_analyzers.queueing_model.seen import RATE_WINDOW
from wva_analyzers.queueing_model.service_priority import priorities
from wva_core.domain import Allocation, Assessment, Observation, Settings, SignalRequest, State
from wva_core.domain.arrays import floats
from wva_core.hooks import Prediction, Thresholds, hookimpl

__all__ = ["QueueingModel"]

_PER_VARIANT = (
    "alpha_ms",
    "beta_us",
    "gamma_us",
    "input_tokens",
    "output_tokens",
    "batch",
    "used",
    "discounted",
    "unusable",
    "surprise",
    "nis",
    "rejected",
)
"""Details that tell of a variant; where every scope has one variant, their length does not say so."""


class QueueingModel:
    """
    Replicas for the load that may come within a start-up, each at the highest rate that keeps the latency objectives.

    Rates are counted in requests of the mix seen now, so longer prompts or answers make every replica worth less at
    once. Service parameters are learnt from live latencies; parameters from policy are where that starts.
    """

    api = "1"
    signals = (
        SignalRequest("arrival_rate", window_seconds=RATE_WINDOW),
        SignalRequest("waiting", window_seconds=RATE_WINDOW),
        # an idle replica has no latencies and no lengths, which is no reason to keep it
        SignalRequest("ttft", window_seconds=RATE_WINDOW, required=False),
        SignalRequest("itl", window_seconds=RATE_WINDOW, required=False),
        SignalRequest("input_tokens", window_seconds=300.0, required=False),
        SignalRequest("output_tokens", window_seconds=300.0, required=False),
        SignalRequest("request_rate", window_seconds=RATE_WINDOW, required=False),
        SignalRequest("input_token_rate", window_seconds=RATE_WINDOW, required=False),
        SignalRequest("output_token_rate", window_seconds=RATE_WINDOW, required=False),
        SignalRequest("running", required=False),
        SignalRequest("max_batch", required=False),
        SignalRequest("kv_capacity_tokens", required=False),
        SignalRequest("queue_size", level="scope", required=False),
        SignalRequest("arrival_rate", level="scope", window_seconds=RATE_WINDOW, required=False),
    )
    default_thresholds = Thresholds(scale_up=1.0, scale_down=0.85)
    Parameters = QueueingParameters

    def __init__(self, parameters: QueueingParameters) -> None:
        self.parameters = parameters

    @hookimpl
    def assess(self, observation: Observation, settings: Settings, state: State) -> Assessment:
        """Demand and capacity in requests/s of the mix seen now."""
        compat = np.asarray(settings["compat"], dtype=bool)
        answer = judged(observation, settings, state)
        if np.any(compat):
            answer = as_upstream.overlaid(answer, observation, settings, state, compat)
        return replace(
            answer,
            priority=floats(priorities(observation.fleet.scopes, settings)),
            per_variant=tuple(name for name in _PER_VARIANT if name in answer.details),
        )

    @hookimpl
    def predict(self, observation: Observation, allocation: Allocation, settings: Settings, state: State) -> Prediction:
        """Latencies if the load of now were spread over an allocation, by what was learnt so far."""
        return predicted(observation, allocation, settings, state)
