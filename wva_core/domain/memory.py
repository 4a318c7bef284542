"""
What the engine remembers between cycles, and its checkpoint.

Nothing else in the product remembers anything that a decision depends on, which is why a recorded cycle replays to the
same plan and a restart continues where the last process stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import numpy as np

from wva_core.domain.arrays import FloatArray, IntArray, floats
from wva_core.domain.assessment import State
from wva_core.domain.codec import decode, encode
from wva_core.domain.fleet import Fleet, Variant
from wva_core.errors import ParameterError

__all__ = ["History", "Memory"]

_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """
    Rows of the past, oldest first: `values[i]` (V,) was so at `times[i]`, seconds.
    """

    times: tuple[float, ...] = ()
    values: tuple[FloatArray, ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    def appended(self, time: float, row: FloatArray, keep_seconds: float) -> History:
        """The history with one more row, and without those older than `keep_seconds`."""
        first = next((i for i, past in enumerate(self.times) if past > time - keep_seconds), len(self.times))
        return History((*self.times[first:], time), (*self.values[first:], floats(row)))

    def taken(self, rows: IntArray) -> History:
        """The history of other rows: `rows[j]` is the old row of new row j, -1 for one that is new (NaN)."""
        return History(self.times, tuple(_taken(row, rows) for row in self.values))

    def matrix(self, width: int) -> FloatArray:
        """(H, V) all rows below each other."""
        return np.array(self.values) if self.values else np.empty((0, width))


def _taken(column: FloatArray, rows: IntArray) -> FloatArray:
    if len(column) == 0:
        return floats(np.full(len(rows), np.nan))
    return floats(np.where(rows >= 0, column[rows], np.nan))


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """
    State of the control cycle; a new one comes out of every cycle.

    Attributes:
        fleet: order of the columns.
        cycle: number of cycles so far.
        target, target_since: (V,) last published target and since when, seconds; NaN if none.
        pending_since: (V,) since when replicas have been pending; NaN while none are.
        wishes: unstabilised recommendations that windows look back on.
        changes: (V,) changes of the target that rate policies count.
        informative: by analyzer entry, (S,) when it last judged with a known capacity; NaN never.
        first_seen: (S,) when the scope appeared, from which liveness counts before the first judgement.
        states: by entry name, what a plugin asked to be handed back.
    """

    fleet: Fleet
    cycle: int
    target: FloatArray
    target_since: FloatArray
    pending_since: FloatArray
    wishes: History = field(default_factory=History)
    changes: History = field(default_factory=History)
    informative: Mapping[str, FloatArray] = field(default_factory=dict)
    first_seen: FloatArray = field(default_factory=lambda: np.empty(0))
    states: Mapping[str, State] = field(default_factory=dict)

    @classmethod
    def empty(cls, fleet: Fleet | None = None) -> Memory:
        """Nothing remembered yet."""
        fleet = Fleet(()) if fleet is None else fleet
        unknown: FloatArray = floats(np.full(len(fleet), np.nan))
        return cls(fleet, 0, unknown, unknown, unknown, first_seen=floats(np.full(len(fleet.scopes), np.nan)))

    def aligned(self, fleet: Fleet) -> Memory:
        """The same memory in the order of another fleet: what is gone is forgotten, what is new is not known."""
        if fleet is self.fleet:
            return self
        if fleet == self.fleet:
            return replace(self, fleet=fleet)
        rows, scope_rows = fleet.rows_in(self.fleet), fleet.scope_rows_in(self.fleet)
        return replace(
            self,
            fleet=fleet,
            target=_taken(self.target, rows),
            target_since=_taken(self.target_since, rows),
            pending_since=_taken(self.pending_since, rows),
            wishes=self.wishes.taken(rows),
            changes=self.changes.taken(rows),
            informative={name: _taken(column, scope_rows) for name, column in self.informative.items()},
            first_seen=_taken(self.first_seen, scope_rows),
        )

    def to_bytes(self) -> bytes:
        """The checkpoint."""
        return encode(
            {
                "version": _VERSION,
                "variants": [fleet_row(variant) for variant in self.fleet.variants],
                "cycle": self.cycle,
                "target": self.target,
                "target_since": self.target_since,
                "pending_since": self.pending_since,
                "wishes": [list(self.wishes.times), list(self.wishes.values)],
                "changes": [list(self.changes.times), list(self.changes.values)],
                "informative": dict(self.informative),
                "first_seen": self.first_seen,
                "states": {name: dict(state) for name, state in self.states.items()},
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Memory:
        """
        The memory a checkpoint holds.

        Raises:
            ParameterError: the bytes are damaged or of a version this release does not read.
        """
        plain = decode(data)
        if not isinstance(plain, dict) or plain.get("version") != _VERSION:
            raise ParameterError(
                "is not a checkpoint of this version",
                object="checkpoint",
                key="version",
                value=plain.get("version") if isinstance(plain, dict) else None,
                remedy=f"use one written by a release with checkpoint version {_VERSION}, or start without",
            )
        try:
            memory = cls(
                fleet=Fleet(variant_of_row(row) for row in plain["variants"]),
                cycle=plain["cycle"],
                target=plain["target"],
                target_since=plain["target_since"],
                pending_since=plain["pending_since"],
                wishes=History(tuple(plain["wishes"][0]), tuple(plain["wishes"][1])),
                changes=History(tuple(plain["changes"][0]), tuple(plain["changes"][1])),
                informative=plain["informative"],
                first_seen=plain["first_seen"],
                states=plain["states"],
            )
            past = memory.wishes.values + memory.changes.values
            per_variant = (memory.target, memory.target_since, memory.pending_since, *past)
            per_scope = (memory.first_seen, *memory.informative.values())
            fits = all(column.shape == (len(memory.fleet),) for column in per_variant)
            fits &= all(column.shape == (len(memory.fleet.scopes),) for column in per_scope)
        except (KeyError, TypeError, AttributeError, IndexError) as exc:
            raise _damaged(f"{type(exc).__name__}: {exc}") from exc
        if not fits:
            raise _damaged("columns do not fit the fleet")
        return memory


def _damaged(what: str) -> ParameterError:
    return ParameterError(f"is damaged: {what}", object="checkpoint", remedy="use another one, or start without")


def fleet_row(variant: Variant) -> dict[str, Any]:
    """A variant as plain data, without what is as it would be anyway."""
    row = {name: getattr(variant, name) for name, default in _VARIANT_FIELDS if getattr(variant, name) != default}
    return {**row, "launch": dict(variant.launch)} if variant.launch else row


def variant_of_row(row: Mapping[str, Any]) -> Variant:
    """The variant that `fleet_row` made plain."""
    return Variant(**row)


_VARIANT_FIELDS = tuple((one.name, one.default) for one in fields(Variant) if one.default_factory is MISSING)
