"""
What the analyzer remembers between cycles, as plain arrays in a state, and the same brought to another fleet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wva_analyzers.queueing_model.estimator import Estimate, unknown
from wva_analyzers.queueing_model.lead_time import LoadHistory, unseen
from wva_core.domain import Fleet, FloatArray, IntArray, State, VariantTable

__all__ = ["Remembered", "later_start_up", "recall"]

_VERSION = 1
_START_UP_SHARE = 0.3  # weight of a newly observed start-up
_LONGEST_START_UP = 900.0  # seconds; one that takes longer is stuck, and no forecast reaches as far


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """
    The memory in the order of one fleet.

    Attributes:
        time: of the cycle before, seconds; NaN if there was none.
        estimate: service parameters of the variants.
        mix: (V, 3) input and output tokens of a request, and the batch.
        start_up: (V,) seconds to a ready replica; NaN until one was observed.
        pending_since: (V,) as it was a cycle ago.
        queued: (S,) requests in the gateway a cycle ago.
        history: loads of the scopes.
    """

    time: float
    estimate: Estimate
    mix: FloatArray
    start_up: FloatArray
    pending_since: FloatArray
    queued: FloatArray
    history: LoadHistory

    def plain(self, fleet: Fleet) -> dict[str, Any]:
        """As a state."""
        return {
            "version": _VERSION,
            "time": self.time,
            "variants": list(fleet.keys),
            "scopes": [list(scope) for scope in fleet.scopes],
            "estimate": self.estimate.plain(),
            "mix": self.mix,
            "start_up": self.start_up,
            "pending_since": self.pending_since,
            "queued": self.queued,
            "history": self.history.plain(),
        }


def recall(state: State, fleet: Fleet) -> Remembered:
    """
    What a state holds of the variants and scopes of a fleet; one of another version is not read.

    What is gone is forgotten, what is new is not known.
    """
    variants, scopes = len(fleet), len(fleet.scopes)
    if state.get("version") != _VERSION:
        nothing = np.full(variants, np.nan)
        return Remembered(
            time=float("nan"),
            estimate=unknown(variants),
            mix=np.full((variants, 3), np.nan),
            start_up=nothing,
            pending_since=nothing,
            queued=np.full(scopes, np.nan),
            history=unseen(scopes),
        )
    rows, scope_rows = rows_of(state, fleet)
    return Remembered(
        time=float(state["time"]),
        estimate=Estimate.from_plain(state["estimate"]).take(rows),
        mix=_taken(state["mix"], rows),
        start_up=_taken(state["start_up"], rows),
        pending_since=_taken(state["pending_since"], rows),
        queued=_taken(state["queued"], scope_rows),
        history=LoadHistory.from_plain(state["history"]).take(scope_rows),
    )


def rows_of(state: Mapping[str, Any], fleet: Fleet) -> tuple[IntArray, IntArray]:
    """Where the variants (V,) and scopes (S,) of a fleet stand in a state; -1 for those it does not have."""
    variant_row = {key: row for row, key in enumerate(state["variants"])}
    scope_row = {tuple(scope): row for row, scope in enumerate(state["scopes"])}
    return (
        np.array([variant_row.get(key, -1) for key in fleet.keys], dtype=np.int64),
        np.array([scope_row.get(tuple(scope), -1) for scope in fleet.scopes], dtype=np.int64),
    )


def _taken(column: FloatArray, rows: IntArray) -> FloatArray:
    """Other rows of a column; NaN for -1."""
    padded = np.concatenate((column, np.full((1, *column.shape[1:]), np.nan)))
    taken: FloatArray = padded[rows]
    return taken


def later_start_up(before: Remembered, variants: VariantTable, now: float) -> FloatArray:
    """(V,) seconds to a ready replica: as before, moved towards start-ups that ended, or that take longer already."""
    ended = ~np.isnan(before.pending_since) & np.isnan(variants.pending_since)
    took = np.clip(now - before.pending_since, 0.0, _LONGEST_START_UP)
    learnt = np.where(
        np.isnan(before.start_up), took, (1.0 - _START_UP_SHARE) * before.start_up + _START_UP_SHARE * took
    )
    known = np.where(ended, learnt, before.start_up)
    under_way = np.minimum(now - variants.pending_since, _LONGEST_START_UP)
    return np.where(under_way > known, under_way, known)
