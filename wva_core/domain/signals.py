"""
The signals an observation can hold: one name and one unit each, the same for every collector, analyzer and document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["REPLICA_SIGNALS", "SCOPE_SIGNALS", "Signal", "SignalRequest"]


@dataclass(frozen=True, slots=True)
class Signal:
    """A quantity that collectors report: per engine instance (`replica`) or per scope (`scope`)."""

    name: str
    level: Literal["replica", "scope"]
    unit: str
    meaning: str


def _catalogue(level: Literal["replica", "scope"], *rows: tuple[str, str, str]) -> dict[str, Signal]:
    return {name: Signal(name, level, unit, meaning) for name, unit, meaning in rows}


REPLICA_SIGNALS: dict[str, Signal] = _catalogue(
    "replica",
    ("kv_usage", "fraction", "share of the key/value cache in use, largest sample of the window"),
    ("kv_now", "fraction", "share of the key/value cache in use at the newest sample"),
    ("waiting", "requests", "requests in the engine's own queue, largest sample of the window"),
    ("running", "requests", "requests being decoded or prefilled at the newest sample"),
    ("kv_capacity_tokens", "tokens", "tokens the key/value cache can hold"),
    ("max_batch", "requests", "largest number of requests the engine runs at once"),
    ("arrival_rate", "requests/s", "requests dispatched to this instance"),
    ("request_rate", "requests/s", "requests this instance finished"),
    ("input_token_rate", "tokens/s", "prompt tokens of finished requests"),
    ("output_token_rate", "tokens/s", "generated tokens"),
    ("input_tokens", "tokens/request", "mean prompt length of finished requests"),
    ("output_tokens", "tokens/request", "mean answer length of finished requests"),
    ("prefix_hit_rate", "fraction", "share of prompt tokens found in the prefix cache"),
    ("ttft", "s", "mean time to first token"),
    ("itl", "s", "mean inter-token latency"),
)
"""Signals of one engine instance."""

SCOPE_SIGNALS: dict[str, Signal] = _catalogue(
    "scope",
    ("queue_size", "requests", "requests waiting in the inference gateway"),
    ("queue_bytes", "bytes", "size of the requests waiting in the inference gateway"),
    ("arrival_rate", "requests/s", "requests that reach the model"),
    ("requests_retained", "requests", "requests seen within the retention window of scale-to-zero"),
)
"""Signals of a model as a whole; every scope of the model shows the model's value."""


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """
    A signal that a live analyzer reads, and over which window.

    A collector may leave out what it cannot give; the cells are then not known. While a signal that is `required` is
    missing or stale in a scope, nothing shrinks there.
    """

    signal: str
    level: Literal["replica", "scope"] = "replica"
    window_seconds: float = 60.0
    retention_seconds: float = 0.0
    required: bool = True
