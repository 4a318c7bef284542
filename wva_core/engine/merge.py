"""
Several collectors, one observation: all are asked at once, and per cell the first in the configured order wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import numpy as np

from wva_core.domain import (
    SCOPE_SIGNALS,
    BoolArray,
    Columns,
    Fleet,
    FleetUpdate,
    FloatArray,
    Inventory,
    Observation,
    ReplicaIndex,
    ReplicaTable,
    Signal,
    SignalRequest,
    Signals,
    VariantTable,
)
from wva_core.engine.deadline import Deadline
from wva_core.errors import PluginFailure
from wva_core.hooks.chain import Entry

__all__ = ["Observer", "merged_signals", "merged_updates"]

_T = TypeVar("_T")

_CONFLICT = 0.1
"""Two collectors conflict where they differ by more than this share of the larger value."""


@dataclass(slots=True, eq=False)
class Observer:
    """
    Asks the collectors of a world and makes one observation of their answers.

    It keeps the last picture each collector gave of who there is: one that fails, or cannot list everything, takes
    nothing away.

    Args:
        collectors: in the configured order.
        known: who there was before, such as the fleet of a checkpoint; stays until every collector has answered once.
    """

    collectors: tuple[Entry, ...]
    known: Fleet = field(default_factory=lambda: Fleet(()))
    _pictures: dict[str, FleetUpdate] = field(default_factory=dict, repr=False)
    _answered: bool = field(default=False, repr=False)
    _merged: tuple[tuple[Fleet, ...], Fleet] | None = field(default=None, repr=False)

    def observe(
        self, now: float, wanted: Sequence[SignalRequest], deadline: Deadline
    ) -> tuple[Observation, dict[str, PluginFailure]]:
        """
        One observation at `now`, and what failed by label.

        A failed or late `discover` makes the observation incomplete; a failed `collect` leaves its cells unknown.
        Each of the two takes half of what is left of the deadline at most.
        """
        failures: dict[str, PluginFailure] = {}
        update = self._discover(deadline.step(), failures)
        found = self._ask("collect", Signals, deadline.step(), failures, fleet=update.fleet, wanted=wanted)
        answers: list[Signals] = []
        for entry, answer in found.items():
            if problem := _misfit(answer, update.fleet):
                failures.setdefault(entry.label, entry.misfit("collect", *problem))
            else:
                answers.append(answer)
        replicas, scopes, extra, conflicts = merged_signals(update.fleet, answers)
        observation = Observation(
            time=now,
            fleet=update.fleet,
            variants=update.variants,
            replicas=replicas,
            scopes=scopes,
            inventory=update.inventory,
            extra=extra,
            complete=update.complete,
            conflicts=conflicts,
        )
        return observation, failures

    def _ask(
        self, hook: str, kind: type[_T], deadline: Deadline, failures: dict[str, PluginFailure], **arguments: object
    ) -> dict[Entry, _T]:
        """The answers of all collectors that have the hook, asked at once; what failed is noted."""
        calls = [
            (entry, entry.begin(hook, here=deadline.is_endless, **arguments))
            for entry in self.collectors
            if entry.has(hook)
        ]
        answers: dict[Entry, _T] = {}
        for entry, call in calls:
            outcome = call.outcome(deadline.remaining())
            if outcome.failure is not None:
                failures.setdefault(entry.label, outcome.failure)
            elif isinstance(outcome.value, kind):
                answers[entry] = outcome.value
            else:
                problem = ("answer", type(outcome.value).__name__, kind.__name__)
                failures.setdefault(entry.label, entry.misfit(hook, *problem))
        return answers

    def _discover(self, deadline: Deadline, failures: dict[str, PluginFailure]) -> FleetUpdate:
        answers = self._ask("discover", FleetUpdate, deadline, failures)
        complete = True
        for entry in self.collectors:
            if not entry.has("discover"):
                continue
            update = answers.get(entry)
            if update is not None and (problem := _misfit_of_update(update)):
                failures.setdefault(entry.label, entry.misfit("discover", *problem))
                update = None
            before = self._pictures.get(entry.label)
            if update is None:
                complete = False
            elif update.complete or before is None:
                complete &= update.complete
                self._pictures[entry.label] = update
            else:
                # nothing is taken for gone: what is not listed now stays as it was
                complete = False
                self._pictures[entry.label] = merged_updates([update, before])
        pictures = [self._pictures[entry.label] for entry in self.collectors if entry.label in self._pictures]
        self._answered |= complete
        if not self._answered and len(self.known):
            pictures.append(FleetUpdate(self.known, _unknown_table(len(self.known))))
        fleets = tuple(picture.fleet for picture in pictures)
        kept = self._merged[1] if self._merged is not None and _same(self._merged[0], fleets) else None
        merged = merged_updates(pictures, kept)
        self._merged = (fleets, merged.fleet)
        return replace(merged, complete=complete)


def _same(one: tuple[Fleet, ...], other: tuple[Fleet, ...]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _misfit_of_update(update: FleetUpdate) -> tuple[str, object, str] | None:
    """What of an update does not fit its own fleet: key, value and what to return; None if all does."""
    rows = len(update.fleet)
    for column in fields(VariantTable):
        shape = np.shape(getattr(update.variants, column.name))
        if shape != (rows,):
            return f"variants.{column.name}", shape, f"shape ({rows},), one row for each variant of its fleet"
    inventory = update.inventory
    for name, numbers in (("capacity", inventory.capacity), ("used", inventory.used)):
        if np.shape(numbers) != (len(inventory.accelerators),):
            return f"inventory.{name}", np.shape(numbers), "one number for each accelerator"
    return None


def _misfit(signals: Signals, fleet: Fleet) -> tuple[str, object, str] | None:
    """What of an answer does not fit the fleet it was asked for."""
    if signals.replicas is not None and len(signals.replicas.index.by_variant) != len(fleet):
        return "replicas", len(signals.replicas.index.by_variant), "rows over the fleet that was handed in"
    for name, columns in (("scopes", signals.scopes), ("extra", signals.extra)):
        if columns is not None and columns.rows != len(fleet.scopes):
            return name, columns.rows, f"{len(fleet.scopes)} rows, one for each scope of the fleet that was handed in"
    return None


def _unknown_table(rows: int) -> VariantTable:
    unknown = np.full(rows, np.nan)
    return VariantTable.of(unknown, ready=unknown, pending=unknown)


def merged_updates(updates: Sequence[FleetUpdate], fleet: Fleet | None = None) -> FleetUpdate:
    """
    One update of several: the union of their variants; per cell the first that knows it wins.

    Args:
        updates: in the configured order.
        fleet: the union, where it is known already.
    """
    if len(updates) == 1:
        return updates[0]
    if fleet is None:
        union = Fleet({variant.key: variant for one in reversed(updates) for variant in one.fleet.variants}.values())
        fleet = next((one.fleet for one in updates if one.fleet == union), union)
    columns: dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]] = {
        column.name: np.full(len(fleet), np.nan) for column in fields(VariantTable)
    }
    columns["status"] = np.zeros(len(fleet), dtype=np.int64)
    columns["settling"] = np.zeros(len(fleet), dtype=bool)
    for update in reversed(updates):
        rows = update.fleet.rows_in(fleet)
        for name, merged in columns.items():
            theirs = getattr(update.variants, name)
            known = slice(None) if merged.dtype != np.float64 else ~np.isnan(theirs)
            merged[rows[known]] = theirs[known]
    inventory = next((update.inventory for update in updates if update.inventory.accelerators), Inventory())
    variants = _unknown_table(len(fleet)).with_columns(**columns)
    return FleetUpdate(fleet, variants, inventory, complete=all(update.complete for update in updates))


def merged_signals(
    fleet: Fleet, answers: Sequence[Signals]
) -> tuple[ReplicaTable, Columns, Columns | None, Mapping[str, BoolArray]]:
    """
    The tables of one observation, and (S,) by signal where two collectors disagree by more than a tenth.
    """
    tables = [answer.replicas for answer in answers if answer.replicas is not None]
    scopes = [answer.scopes for answer in answers if answer.scopes is not None]
    extras = [answer.extra for answer in answers if answer.extra is not None]
    conflicts: dict[str, BoolArray] = {}
    if not tables:
        replicas = ReplicaTable.of(ReplicaIndex.of(fleet, (), ())[0])
    elif len(tables) == 1:
        replicas = tables[0]
    else:
        replicas = _merged_tables(fleet, tables, conflicts)
    merged = _merged_columns(len(fleet.scopes), scopes, SCOPE_SIGNALS, conflicts)
    return (
        replicas,
        Columns(len(fleet.scopes), SCOPE_SIGNALS) if merged is None else merged,
        _merged_columns(len(fleet.scopes), extras, None, conflicts),
        conflicts,
    )


def _merged_columns(
    rows: int, parts: Sequence[Columns], known: Mapping[str, Signal] | None, conflicts: dict[str, BoolArray]
) -> Columns | None:
    if len(parts) <= 1:
        return parts[0] if parts else None
    values: dict[str, FloatArray] = {}
    ages: dict[str, FloatArray] = {}
    for part in parts:
        for name in part:
            differs = _fill_in(values, ages, name, part[name], part.age(name))
            if np.any(differs):
                conflicts[name] = differs | conflicts.get(name, np.zeros(rows, dtype=bool))
    return Columns(rows, known, values, ages)


def _fill_in(
    values: dict[str, FloatArray], ages: dict[str, FloatArray], name: str, column: FloatArray, age: FloatArray
) -> BoolArray:
    """Puts a column where none was known before; where both are known and differ too much is returned."""
    if name not in values:
        values[name], ages[name] = column, age
        return np.zeros(len(column), dtype=bool)
    first = values[name]
    missing = np.isnan(first)
    ages[name] = np.where(missing, age, ages[name])
    values[name] = np.where(missing, column, first)
    differs: BoolArray = np.abs(first - column) > _CONFLICT * np.fmax(np.abs(first), np.abs(column))
    return differs


def _merged_tables(fleet: Fleet, tables: Sequence[ReplicaTable], conflicts: dict[str, BoolArray]) -> ReplicaTable:
    """The union of the rows of several tables, by variant, pod and instance."""
    seen: dict[tuple[int, str, str], None] = {}
    for table in tables:
        seen.update(dict.fromkeys(_row_keys(table)))
    names = list(seen)
    index, order = ReplicaIndex.of(
        fleet,
        [fleet.keys[variant] for variant, _, _ in names],
        [pod for _, pod, _ in names],
        [instance for _, _, instance in names],
    )
    place = {names[old]: new for new, old in enumerate(order)}
    values: dict[str, FloatArray] = {}
    ages: dict[str, FloatArray] = {}
    for table in tables:
        rows = np.array([place[key] for key in _row_keys(table)], dtype=np.int64)
        for name in table.columns:
            mine = np.full(len(index), np.nan)
            mine[rows] = table[name]
            age = np.full(len(index), np.nan)
            age[rows] = table.age(name)
            differs = _fill_in(values, ages, name, mine, age)
            if np.any(differs):
                here = index.by_scope.any(differs)
                conflicts[name] = here | conflicts.get(name, np.zeros_like(here))
    return ReplicaTable.of(index, values, ages)


def _row_keys(table: ReplicaTable) -> list[tuple[int, str, str]]:
    index = table.index
    return list(zip(index.variant_of_replica.tolist(), index.pods, index.instances, strict=True))
