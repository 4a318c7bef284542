"""
What one analyzer makes of an observation: demand per scope, capacity of a replica per variant, and a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np

from wva_core.domain.arrays import FloatArray, IntArray, floats, integers
from wva_core.domain.fleet import Fleet

__all__ = ["Assessment", "State", "Verdict"]

State: TypeAlias = Mapping[str, Any]
"""
A plugin's memory: plain data (numbers, text, lists, mappings) and numpy arrays, with a `version` of its own.

The engine keeps it, hands it in and checkpoints it; a plugin object remembers nothing between calls.
"""


class Verdict(IntEnum):
    """What an analyzer says of a scope."""

    ABSTAIN = 0
    """Not mine: this analyzer has nothing to say here and stands in nobody's way."""
    JUDGED = 1
    """Demand and capacity, or required and spare, are stated."""
    FREEZE = 2
    """Keep the last target, else what is there."""
    NO_SHRINK = 3
    """Growth may be judged; shrinking must wait."""


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """
    One analyzer's answer for the whole fleet, in one unit of its own choice.

    `demand / capacity` is a number of replicas. An analyzer that judges in steps uses the unit `replicas`, capacity 1,
    and states `required` and `spare` itself; otherwise the engine derives them with thresholds.

    Attributes:
        unit: what demand and capacity are counted in.
        capacity: (V,) what one replica (scale unit) can carry; NaN not known.
        demand: (S,) what is asked for; NaN not known, which freezes the scope.
        verdict: (S,) `Verdict`.
        required, spare: (S,) missing and superfluous capacity in `unit`, only from step analyzers.
        reason: (S,) index into `reasons`; 0 is nothing to add.
        reasons: sentences with `{name}` places for `details` of the scope.
        capacity_reason: (V,) index into `reasons`: where the capacity comes from, or why it is not known.
        details: (S,) or (V,) numbers that explain the answer, by name.
        per_variant: names of details that are (V,). Of those not named here the length decides, and where there are as
            many variants as scopes they count as (S,).
        priority: (S,) who is served first where not all can be, 1 before 2, where this analyzer knows what is promised
            to whom; NaN where it does not.
        state: what the engine hands back at the next call.
    """

    unit: str
    capacity: FloatArray
    demand: FloatArray
    verdict: IntArray
    required: FloatArray | None = None
    spare: FloatArray | None = None
    reason: IntArray | None = None
    reasons: tuple[str, ...] = ("",)
    capacity_reason: IntArray | None = None
    details: Mapping[str, FloatArray] = field(default_factory=dict)
    state: State = field(default_factory=dict)
    priority: FloatArray | None = None
    per_variant: tuple[str, ...] = ()

    def is_per_variant(self, detail: str) -> bool:
        """Whether a detail has one number for each variant, not for each scope."""
        return detail in self.per_variant or len(self.details[detail]) != len(self.demand)

    @classmethod
    def of(cls, fleet: Fleet, *, unit: str, **columns: Any) -> Assessment:
        """
        An assessment in which everything not given is not known and every scope with a known demand is judged.
        """
        scopes, variants = len(fleet.scopes), len(fleet)
        demand = columns.pop("demand", np.full(scopes, np.nan))
        columns.setdefault("capacity", np.full(variants, np.nan))
        judged = ~np.isnan(np.asarray(demand, dtype=float))
        if columns.get("required") is not None:
            judged |= ~np.isnan(np.asarray(columns["required"], dtype=float))
        columns.setdefault("verdict", np.where(judged, Verdict.JUDGED, Verdict.FREEZE))
        for name in ("capacity", "required", "spare", "priority"):
            if columns.get(name) is not None:
                columns[name] = floats(columns[name])
        for name in ("verdict", "reason", "capacity_reason"):
            if columns.get(name) is not None:
                columns[name] = integers(columns[name])
        return cls(unit=unit, demand=floats(demand), **columns)
