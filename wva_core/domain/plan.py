"""
What limits an answer, the optimizer's answer, and the plan the engine makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np

from wva_core.domain.arrays import BoolArray, FloatArray, IntArray, floats, integers, or_zero
from wva_core.domain.fleet import Fleet

__all__ = ["Allocation", "LimitRows", "Limits", "Mode", "Notice", "Plan", "Reason"]


@dataclass(frozen=True, slots=True, eq=False)
class LimitRows:
    """
    Sparse rows `lower <= sum(coefficient * replicas) <= upper` over the variants.

    Attributes:
        labels: (L,) how a person names each row, such as `GPUs of type H100`.
        offsets: (L + 1,) row l owns the entries `offsets[l]:offsets[l + 1]`.
        variant: (N,) variant of each entry.
        coefficient: (N,) what one replica of it uses.
        lower, upper: (L,) infinity is unlimited; NaN allows no growth on that row.
    """

    labels: tuple[str, ...] = ()
    offsets: IntArray = field(default_factory=lambda: integers([0]))
    variant: IntArray = field(default_factory=lambda: integers([]))
    coefficient: FloatArray = field(default_factory=lambda: floats([]))
    lower: FloatArray = field(default_factory=lambda: floats([]))
    upper: FloatArray = field(default_factory=lambda: floats([]))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row_of_entry(self) -> IntArray:
        """(N,) row of each entry."""
        return np.repeat(np.arange(len(self)), self.offsets[1:] - self.offsets[:-1])

    def usage(self, replicas: FloatArray) -> FloatArray:
        """(L,) what an allocation uses of each row; variants that are not known count as nothing."""
        used = self.coefficient * or_zero(replicas[self.variant])
        totals: FloatArray = np.bincount(self.row_of_entry, weights=used, minlength=len(self)).astype(np.float64)
        return totals


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """
    What an allocation must keep: an interval per variant, and rows over several.

    Attributes:
        low, high: (V,) replicas; both inclusive, infinity is unlimited. NaN on both: the variant is left as it is.
        rows: limits that variants share.
        together: groups of variants that are all zero or all at least one.
    """

    low: FloatArray
    high: FloatArray
    rows: LimitRows = field(default_factory=LimitRows)
    together: tuple[IntArray, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """
    An optimizer's answer, with the evidence for it.

    Attributes:
        replicas: (V,) whole numbers; NaN leaves a variant as it is.
        status: `optimal`, `feasible` or `timed_out`.
        objective, bound, gap: cost of the answer, proven lower bound on any answer's cost (USD/h) and relative
            distance between them; NaN where the optimizer proves nothing.
        reason: (V,) index into `reasons`; 0 is nothing to add.
        reasons: sentences.
        binding_row: (V,) row of the limits that stopped this variant's growth, -1 none.
    """

    replicas: FloatArray
    status: str = "feasible"
    objective: float = np.nan
    bound: float = np.nan
    gap: float = np.nan
    reason: IntArray | None = None
    reasons: tuple[str, ...] = ("",)
    binding_row: IntArray | None = None


class Mode(StrEnum):
    """How far a plan goes: only recorded, published, published for approval, or carried out."""

    OBSERVE = "observe"
    ADVISE = "advise"
    APPROVE = "approve"
    ACT = "act"


class Reason(IntEnum):
    """Why the plan gives a variant what it gives; text is made when a person asks."""

    STEADY = 0
    GROW = 1
    SHRINK = 2
    FROZEN = 3
    HELD_MISSING = 4
    HELD_STALE = 5
    HELD_INCOMPLETE = 6
    NO_ANCHOR = 7
    HELD_OPTIMIZER = 8
    BOUND_MIN = 9
    BOUND_MAX = 10
    BOUND_WINDOW = 11
    BOUND_RATE = 12
    BOUND_ROW = 13
    UNKNOWN = 14
    HELD_CONFLICTING = 15

    @property
    def sentence(self) -> str:
        """What it means, for a person."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.STEADY: "demand and capacity fit; nothing to change",
    Reason.GROW: "more capacity is required",
    Reason.SHRINK: "capacity is spare and every vote agrees",
    Reason.FROZEN: "an analyzer freezes this scope; the last target stays",
    Reason.HELD_MISSING: "a signal that decides here is missing; the last target stays",
    Reason.HELD_STALE: "a signal that decides here is stale; nothing shrinks on it",
    Reason.HELD_CONFLICTING: "collectors disagree on a signal that decides here; nothing shrinks on it",
    Reason.HELD_INCOMPLETE: "the fleet could not be listed completely; the last target stays",
    Reason.NO_ANCHOR: "no analyzer knows the capacity of a replica here; the last target stays",
    Reason.HELD_OPTIMIZER: "the optimizer gave no usable answer; the last target stays",
    Reason.BOUND_MIN: "the minimum number of replicas decides",
    Reason.BOUND_MAX: "the maximum number of replicas decides",
    Reason.BOUND_WINDOW: "a stabilisation window decides",
    Reason.BOUND_RATE: "a rate policy decides",
    Reason.BOUND_ROW: "a shared limit decides",
    Reason.UNKNOWN: "the number of replicas is not known; nothing is published",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an operator should hear of once: a stall, a degraded vote, a refused plan."""

    code: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """
    The engine's answer for one cycle; what actuators are given.

    Attributes:
        time: of the observation it answers, seconds.
        fleet: order of the columns.
        current: (V,) replicas there were.
        desired: (V,) replicas there should be; NaN: nothing is said.
        wanted: (V,) what the optimizer would have given under static limits alone (the wish).
        low, high: (V,) the interval the answer had to keep.
        reason: (V,) `Reason`.
        binding_row: (V,) row of `limits` that stopped growth, -1 none.
        stalled: (V,) the target is not reached, or a replica is pending, for longer than the settle time.
        limits: names of the shared limits.
        mode: how far the plan goes.
        degraded: a part failed and its vote or answer is missing.
        notices: what an operator should hear of.
    """

    time: float
    fleet: Fleet
    current: FloatArray
    desired: FloatArray
    wanted: FloatArray
    low: FloatArray
    high: FloatArray
    reason: IntArray
    binding_row: IntArray
    stalled: BoolArray
    limits: tuple[str, ...] = ()
    mode: Mode = Mode.ADVISE
    degraded: bool = False
    status: str = "feasible"
    gap: float = np.nan
    notices: tuple[Notice, ...] = ()
