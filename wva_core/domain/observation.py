"""
What was seen at one moment: columns per engine instance and per scope, their age, and how far they can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np

from wva_core.domain.arrays import BoolArray, FloatArray, Groups, IntArray, floats, integers
from wva_core.domain.fleet import Fleet, VariantTable
from wva_core.domain.signals import REPLICA_SIGNALS, SCOPE_SIGNALS, Signal
from wva_core.errors import ParameterError

__all__ = ["Columns", "FleetUpdate", "Inventory", "Observation", "Quality", "ReplicaIndex", "ReplicaTable", "Signals"]


class Columns(Mapping[str, FloatArray]):
    """
    Signals by name over the same rows, read-only; a signal that nobody collected reads as not known in every row.

    Args:
        rows: number of rows.
        known: signals that may be asked for; another name is a mistake of the caller.
        values: (rows,) values by signal; NaN = not known.
        ages: (rows,) seconds since each value was measured, by signal; a column left out is 0 where the value is known.

    Raises:
        ParameterError: a name is not in `known`, or a column has another length.
    """

    __slots__ = ("_ages", "_known", "_unknown", "_values", "rows")

    def __init__(
        self,
        rows: int,
        known: Mapping[str, Signal] | None,
        values: Mapping[str, Any] = {},
        ages: Mapping[str, Any] = {},
    ) -> None:
        self.rows = rows
        self._known = known
        self._values: dict[str, FloatArray] = {name: self._checked(name, column) for name, column in values.items()}
        self._ages: dict[str, FloatArray] = {name: self._checked(name, column) for name, column in ages.items()}
        self._unknown: FloatArray = np.broadcast_to(np.float64(np.nan), (rows,))

    def _checked(self, name: str, column: Any) -> FloatArray:
        self._require(name)
        array: FloatArray = floats(column)
        if array.shape != (self.rows,):
            raise ParameterError(
                f"has shape {array.shape}",
                object="columns",
                key=name,
                remedy=f"give one number for each of {self.rows} rows",
            )
        return array

    def _require(self, name: str) -> None:
        if self._known is not None and name not in self._known:
            raise ParameterError(
                "is not a signal", object="columns", key=name, remedy=f"use one of {', '.join(self._known)}"
            )

    def __getitem__(self, name: str) -> FloatArray:
        column = self._values.get(name)
        if column is None:
            self._require(name)
            return self._unknown
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def age(self, name: str) -> FloatArray:
        """(rows,) seconds since each value was measured; NaN where the value is not known."""
        values = self[name]
        age = self._ages.get(name)
        return np.where(np.isnan(values), np.nan, 0.0 if age is None else age)

    def ages(self) -> Mapping[str, FloatArray]:
        """The age columns that were given."""
        return self._ages

    def without_older_than(self, seconds: float | FloatArray) -> Columns:
        """The same columns with every value as old as `seconds`, one for all or (rows,), turned into not known."""
        aged = {name: old for name, age in self._ages.items() if np.any(old := age >= seconds)}
        if not aged:
            return self
        values = {
            name: np.where(aged[name], np.nan, column) if name in aged else column
            for name, column in self._values.items()
        }
        return Columns(self.rows, self._known, values, self._ages)


class ReplicaIndex:
    """
    Which rows a replica table has: every ready engine instance, reporting or not, sorted by variant, pod and instance.

    Kept while no instance appears or goes. Make one with `ReplicaIndex.of`.

    Attributes:
        by_variant: groups of rows by variant; `by_variant.of` is the variant of each row.
        by_scope: groups of rows by scope.
        pods: (R,) pod names.
        instances: (R,) instance names inside a pod; empty where a pod is one instance.
        unit_of_replica: (R,) scale unit of each row (a pod, or the group a leader speaks for).
    """

    __slots__ = ("by_scope", "by_variant", "instances", "pods", "unit_of_replica")

    def __init__(self, fleet: Fleet, variants: IntArray, pods: tuple[str, ...], instances: tuple[str, ...]) -> None:
        self.by_variant = Groups.by(variants, len(fleet))
        self.by_scope = Groups.by(fleet.scope_of_variant[self.by_variant.of], len(fleet.scopes))
        self.pods = pods
        self.instances = instances
        starts = np.ones(len(pods), dtype=bool)
        if len(pods) > 1:
            names = np.array(pods, dtype=object)
            starts[1:] = (names[1:] != names[:-1]) | (self.by_variant.of[1:] != self.by_variant.of[:-1])
        self.unit_of_replica: IntArray = integers(np.cumsum(starts) - 1)

    @classmethod
    def of(
        cls, fleet: Fleet, variant_keys: Sequence[str], pods: Sequence[str], instances: Sequence[str] | None = None
    ) -> tuple[ReplicaIndex, IntArray]:
        """
        The index, and the order in which the caller's rows stand in it.

        A caller's column `x` becomes a column of the table as `x[order]`.

        Raises:
            ParameterError: a row names a variant that the fleet does not have.
        """
        try:
            rows = [fleet.index[key] for key in variant_keys]
        except KeyError as exc:
            raise ParameterError(
                "is not a variant of the fleet",
                object="replicas",
                key=str(exc.args[0]),
                remedy="list it under variants",
            ) from exc
        names = instances if instances is not None else ("",) * len(pods)
        order = sorted(range(len(rows)), key=lambda i: (rows[i], pods[i], names[i]))
        index = cls(
            fleet,
            np.array([rows[i] for i in order], dtype=np.int64),
            tuple(pods[i] for i in order),
            tuple(names[i] for i in order),
        )
        return index, np.array(order, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.pods)

    @property
    def variant_of_replica(self) -> IntArray:
        """(R,) variant of each row."""
        return self.by_variant.of


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaTable:
    """One row per ready engine instance: `table["kv_usage"]` is a column, `table.age("kv_usage")` how old it is."""

    index: ReplicaIndex
    columns: Columns

    @classmethod
    def of(
        cls,
        index: ReplicaIndex,
        values: Mapping[str, Any] = {},
        ages: Mapping[str, Any] = {},
    ) -> ReplicaTable:
        """A table over an index, columns already in its order."""
        return cls(index, Columns(len(index), REPLICA_SIGNALS, values, ages))

    def __getitem__(self, signal: str) -> FloatArray:
        return self.columns[signal]

    def __len__(self) -> int:
        return len(self.index)

    def age(self, signal: str) -> FloatArray:
        """(R,) seconds since each value was measured; NaN where it is not known."""
        return self.columns.age(signal)


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """
    Accelerators of the cluster by type.

    Attributes:
        accelerators: type names.
        capacity: (A,) accelerators there are; infinity is unlimited, NaN not known.
        used: (A,) accelerators in use by anyone, the managed variants included; NaN not known.
    """

    accelerators: tuple[str, ...] = ()
    capacity: FloatArray = field(default_factory=lambda: np.empty(0))
    used: FloatArray = field(default_factory=lambda: np.empty(0))


class Quality(IntEnum):
    """How far a signal of a scope can be trusted, best first."""

    OK = 0
    PARTIAL = 1
    CONFLICTING = 2
    STALE = 3
    MISSING = 4


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """
    Everything one cycle may look at. Pure data: the same observation always gives the same plan.

    Attributes:
        time: when it was made, seconds of the world's clock.
        fleet, variants: who there is, and the numbers of each.
        replicas: one row per ready engine instance.
        scopes: `SCOPE_SIGNALS` by name, (S,) each.
        extra: (S,) signals that policy declares by query.
        inventory: accelerators there are.
        complete: whether every collector could list everything it is responsible for.
        conflicts: (S,) by signal: collectors disagree.
    """

    time: float
    fleet: Fleet
    variants: VariantTable
    replicas: ReplicaTable
    scopes: Columns
    inventory: Inventory = field(default_factory=Inventory)
    extra: Columns | None = None
    complete: bool = True
    conflicts: Mapping[str, BoolArray] = field(default_factory=dict)

    @classmethod
    def of(cls, time: float, fleet: Fleet, variants: VariantTable, **parts: Any) -> Observation:
        """An observation in which everything not given is not known."""
        if "replicas" not in parts:
            parts["replicas"] = ReplicaTable.of(ReplicaIndex.of(fleet, (), ())[0])
        if "scopes" not in parts:
            parts["scopes"] = Columns(len(fleet.scopes), SCOPE_SIGNALS)
        return cls(time, fleet, variants, **parts)

    def with_variants(self, variants: VariantTable) -> Observation:
        """The same observation with another variant table."""
        return replace(self, variants=variants)

    def quality(self, signal: str, stale_after: float | FloatArray, level: str = "replica") -> IntArray:
        """
        (S,) `Quality` of one signal in every scope.

        Args:
            signal: its name.
            stale_after: age in seconds from which a value is stale, one for all or (S,).
            level: `replica` or `scope`.

        A scope without a reporting row is MISSING; one with a stale row is STALE; one where some ready rows lack the
        value is PARTIAL. The worst that applies is told.
        """
        columns = self.replicas.columns if level == "replica" else self.scopes
        age = columns.ages().get(signal)
        known = ~np.isnan(columns[signal])
        if level == "replica":
            rows = self.replicas.index.by_scope
            limit = rows.spread(stale_after) if isinstance(stale_after, np.ndarray) else stale_after
            missing = ~rows.any(known)
            partial = rows.any(~known)
            stale = rows.any(known & ((0.0 if age is None else age) >= limit))
        else:
            missing = ~known
            partial = np.zeros_like(missing)
            stale = known & ((0.0 if age is None else age) >= stale_after)
        result = np.where(partial, Quality.PARTIAL, Quality.OK)
        conflict = self.conflicts.get(signal)
        if conflict is not None:
            result = np.where(conflict, Quality.CONFLICTING, result)
        result = np.where(stale, Quality.STALE, result)
        return np.where(missing, Quality.MISSING, result)


@dataclass(frozen=True, slots=True, eq=False)
class FleetUpdate:
    """
    What a collector's `discover` returns.

    `complete` is False where something could not be listed; nothing may then be taken for gone.
    """

    fleet: Fleet
    variants: VariantTable
    inventory: Inventory = field(default_factory=Inventory)
    complete: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What a collector's `collect` returns: the cells it knows, in the order of the fleet it was given."""

    replicas: ReplicaTable | None = None
    scopes: Columns | None = None
    extra: Columns | None = None
