"""
Fleets, observations, settings, ballots and limits in a line or two, for tests of plugins and of the engine.

Everything not given has one documented default, and what is left out of a signal is not known (NaN), never zero.

    seen = observe(
        variants=[{"name": "a", "current": 2, "cost": 5}, {"name": "b"}],
        replicas=[{"variant": "a", "kv_usage": 0.7}, {"variant": "a", "kv_usage": 0.8}],
    )
    asked = ballot(seen, vote(seen, required=1))
    answer = Stepwise(Stepwise.Parameters()).allocate(seen, asked, limits(seen, high={"a": 2}))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np
from pydantic import BaseModel

from wva_core.domain import (
    REPLICA_SIGNALS,
    SCOPE_SIGNALS,
    Ballot,
    BoolArray,
    Columns,
    Fleet,
    FloatArray,
    Inventory,
    LimitRows,
    Limits,
    Observation,
    ReplicaIndex,
    ReplicaTable,
    Settings,
    Variant,
    VariantTable,
    Vote,
)
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.errors import ParameterError

__all__ = ["ballot", "fleet_of", "limits", "observe", "settings", "vote"]

Row: TypeAlias = Mapping[str, Any]
PerVariant: TypeAlias = float | Sequence[float] | FloatArray | Mapping[str, float]

_IDENTITY = {one.name for one in fields(Variant)}
_COLUMNS = {one.name for one in fields(VariantTable)}
_DEFAULTS: dict[str, Any] = {"namespace": "ns", "model": "model", "accelerator": "H100"}


def _refuse(kind: str, name: str, known: Iterable[str]) -> ParameterError:
    return ParameterError("is not known", object=kind, key=name, remedy=f"use one of {', '.join(sorted(known))}")


def fleet_of(*names: str, **identity: Any) -> Fleet:
    """A fleet of variants with these names, alike in everything else (one scope in `ns`, on H100, unless told)."""
    return Fleet(Variant(name=name, **{**_DEFAULTS, **identity}) for name in names)


def observe(
    variants: Sequence[Row],
    replicas: Sequence[Row] = (),
    scopes: Sequence[Row] = (),
    *,
    time: float = 0.0,
    accelerators: Mapping[str, tuple[float, float]] | None = None,
    extra: Mapping[str, Sequence[float]] | None = None,
    complete: bool = True,
) -> Observation:
    """
    An observation from rows in any order.

    Args:
        variants: fields of `Variant` and columns of `VariantTable` by name. `name` is a must; the namespace is `ns`,
            the model `model`, the accelerator `H100`, `current` the number of rows in `replicas` (or 1 without any),
            `base` the target of a settling variant and else `current`, everything else as in `VariantTable.of`.
        replicas: `variant` (name or namespace/name), optionally `pod` and `instance`, and replica signals.
        scopes: scope signals, for every scope that has the `namespace`, `model`, `service_class` and `role` given in
            the row; a row without any of these is for all scopes.
        time: seconds of the world's clock.
        accelerators: (capacity, used) by type.
        extra: (S,) signals by name, in the order of the scopes.
        complete: whether every collector could list everything.

    Raises:
        ParameterError: a row has a key that nothing is called.
    """
    rows = [{**_DEFAULTS, **row} for row in variants]
    for row in rows:
        for key in row:
            if key not in _IDENTITY | _COLUMNS:
                raise _refuse("variants", key, _IDENTITY | _COLUMNS)
    fleet = Fleet(Variant(**{key: value for key, value in row.items() if key in _IDENTITY}) for row in rows)
    by_key = {f"{row['namespace']}/{row['name']}": row for row in rows}
    table = _replicas(fleet, replicas)
    return Observation.of(
        time,
        fleet,
        _variants(fleet, by_key, table),
        replicas=table,
        scopes=_scopes(fleet, scopes),
        inventory=_inventory(accelerators or {}),
        extra=None if extra is None else Columns(len(fleet.scopes), None, extra),
        complete=complete,
    )


def _variants(fleet: Fleet, by_key: Mapping[str, Row], replicas: ReplicaTable) -> VariantTable:
    rows = [by_key[key] for key in fleet.keys]
    seen = replicas.index.by_variant.sizes()
    current = [row.get("current", float(seen[i]) or 1.0) for i, row in enumerate(rows)]
    pending = np.array([row.get("pending", np.nan) for row in rows], dtype=float)
    ready = np.array([row.get("ready", np.nan) for row in rows], dtype=float)
    now = np.array(current, dtype=float)
    pending = np.where(np.isnan(pending), np.where(np.isnan(ready), 0.0, np.maximum(now - ready, 0.0)), pending)
    ready = np.where(np.isnan(ready), np.maximum(now - pending, 0.0), ready)
    table = VariantTable.of(now, ready=ready, pending=pending)
    given = {key for row in rows for key in row if key in _COLUMNS - {"current", "ready", "pending", "base"}}
    table = table.with_columns(
        **{name: [row.get(name, getattr(table, name)[i]) for i, row in enumerate(rows)] for name in sorted(given)}
    )
    start = np.where(table.settling & ~np.isnan(table.target), table.target, table.current)
    return table.with_columns(base=[row.get("base", start[i]) for i, row in enumerate(rows)])


def _replicas(fleet: Fleet, rows: Sequence[Row]) -> ReplicaTable:
    keys, pods, instances, counts = [], [], [], dict.fromkeys(fleet.keys, 0)
    for row in rows:
        for key in row:
            if key not in REPLICA_SIGNALS and key not in {"variant", "pod", "instance"}:
                raise _refuse("replicas", key, {"variant", "pod", "instance", *REPLICA_SIGNALS})
        name = str(row["variant"])
        key = name if "/" in name else f"{_DEFAULTS['namespace']}/{name}"
        number = counts[key] = counts.get(key, 0) + 1
        keys.append(key)
        pods.append(str(row.get("pod", f"{key.partition('/')[2]}-{number:06d}")))
        instances.append(str(row.get("instance", "")))
    index, order = ReplicaIndex.of(fleet, keys, pods, instances)
    signals = [name for name in REPLICA_SIGNALS if any(name in row for row in rows)]
    values = {name: np.array([row.get(name, np.nan) for row in rows], dtype=float)[order] for name in signals}
    return ReplicaTable.of(index, values)


def _scopes(fleet: Fleet, rows: Sequence[Row]) -> Columns:
    values: dict[str, FloatArray] = {}
    for row in rows:
        where = {key: row[key] for key in ("namespace", "model", "service_class", "role") if key in row}
        mine = [all(getattr(scope, key) == value for key, value in where.items()) for scope in fleet.scopes]
        for key, value in row.items():
            if key not in where:
                column = values.setdefault(key, np.full(len(fleet.scopes), np.nan))
                column[np.array(mine, dtype=bool)] = value
    return Columns(len(fleet.scopes), SCOPE_SIGNALS, values)


def _inventory(accelerators: Mapping[str, tuple[float, float]]) -> Inventory:
    names = tuple(sorted(accelerators))
    return Inventory(
        names, floats([accelerators[name][0] for name in names]), floats([accelerators[name][1] for name in names])
    )


def settings(
    parameters: BaseModel,
    scopes: int | Fleet | Observation,
    *,
    scale_up: float = 0.85,
    scale_down: float = 0.70,
    score: float = 1.0,
    **columns: Sequence[Any],
) -> Settings:
    """
    Settings that are the same in every scope, except for the `columns` given.

    Args:
        parameters: an instance of the plugin's `Parameters`.
        scopes: how many scopes, or a fleet or observation that has them.
        scale_up, scale_down, score: as in `Settings`.
        columns: (S,) values of single parameters, by field name.

    Raises:
        ParameterError: a column is no field of `parameters`.
    """
    count = scopes if isinstance(scopes, int) else len(_fleet(scopes).scopes)
    names = list(type(parameters).model_fields)
    for name in columns:
        if name not in names:
            raise _refuse("settings", name, names)
    return Settings(
        parameters={name: _column(columns.get(name, [getattr(parameters, name)] * count)) for name in names},
        scale_up=floats(np.full(count, scale_up)),
        scale_down=floats(np.full(count, scale_down)),
        score=floats(np.full(count, score)),
    )


def _column(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return floats([np.nan if value is None else value for value in values])
    column = np.empty(len(values), dtype=object)
    column[:] = list(values)
    column.flags.writeable = False
    return column


def _fleet(source: Fleet | Observation) -> Fleet:
    return source if isinstance(source, Fleet) else source.fleet


def _per_variant(fleet: Fleet, value: PerVariant, default: float) -> FloatArray:
    if not isinstance(value, Mapping):
        return floats(np.array(np.broadcast_to(np.asarray(value, dtype=float), (len(fleet),))))
    by_key = {name if "/" in name else f"{_DEFAULTS['namespace']}/{name}": one for name, one in value.items()}
    for key in by_key:
        if key not in fleet.index:
            raise _refuse("variants", key, fleet.keys)
    return floats([by_key.get(key, default) for key in fleet.keys])


def vote(
    source: Fleet | Observation,
    *,
    capacity: PerVariant = 1.0,
    required: float | Sequence[float] = 0.0,
    spare: float | Sequence[float] = 0.0,
    demand: float | Sequence[float] = np.nan,
    supply: float | Sequence[float] = np.nan,
    gates_shrink: bool | Sequence[bool] = True,
    informative: bool | Sequence[bool] = True,
    score: float | Sequence[float] = 1.0,
    unit: str = "replicas",
    analyzer: str = "test",
) -> Vote:
    """One analyzer's part of a ballot; single numbers stand for every row, a mapping of capacities leaves NaN."""
    fleet = _fleet(source)

    def per_scope(value: float | Sequence[float]) -> FloatArray:
        return floats(np.array(np.broadcast_to(np.asarray(value, dtype=float), (len(fleet.scopes),))))

    def flags(value: bool | Sequence[bool]) -> BoolArray:  # noqa: FBT001 - one value or a column of them
        return booleans(np.array(np.broadcast_to(np.asarray(value, dtype=bool), (len(fleet.scopes),))))

    return Vote(
        analyzer=analyzer,
        unit=unit,
        capacity=_per_variant(fleet, capacity, np.nan),
        required=per_scope(required),
        spare=per_scope(spare),
        demand=per_scope(demand),
        supply=per_scope(supply),
        gates_shrink=flags(gates_shrink),
        informative=flags(informative),
        score=per_scope(score),
    )


def ballot(
    source: Fleet | Observation,
    *votes: Vote,
    anchor: int | Sequence[int] = 0,
    frozen: bool | Sequence[bool] = False,
    priority: Sequence[float] | None = None,
) -> Ballot:
    """
    A ballot of these votes: growth where any requires more, shrinking where all that gate it have spare.

    `anchor` is the index of the vote that sizes the variants, one for all scopes or one each; -1 holds a scope, which
    then neither grows nor shrinks. `frozen` holds where nothing is required. `priority` is one number for each scope.
    """
    count = len(_fleet(source).scopes)
    anchors = np.array(np.broadcast_to(np.asarray(anchor, dtype=np.int64), (count,)))
    held = anchors < 0
    grow, consents, offers = np.zeros(count, dtype=bool), np.ones(count, dtype=bool), np.zeros(count, dtype=bool)
    for one in votes:
        grow |= one.required > 0
        consents &= ~one.gates_shrink | (one.spare > 0)
        offers |= one.spare > 0
    stopped = np.array(np.broadcast_to(np.asarray(frozen, dtype=bool), (count,)))
    return Ballot(
        votes=votes,
        anchor=integers(anchors),
        grow=booleans(grow & ~held),
        shrink=booleans(consents & offers & ~grow & ~held & ~stopped),
        frozen=booleans(stopped & ~grow),
        priority=None if priority is None else floats(priority),
    )


def limits(
    source: Fleet | Observation,
    *,
    low: PerVariant | None = None,
    high: PerVariant | None = None,
    rows: Mapping[str, tuple[Mapping[str, float], float]] | None = None,
    together: Sequence[Sequence[str]] = (),
) -> Limits:
    """
    Limits of a fleet.

    Args:
        source: the fleet, or an observation, whose minima and maxima hold where `low` and `high` are not given.
        low, high: one number, one for each variant, or by name; a variant left out of a mapping has 0 or infinity.
        rows: by label, what one replica of each variant uses, and the upper limit.
        together: names of variants that are all zero or all at least one.
    """
    fleet = _fleet(source)
    table = source.variants if isinstance(source, Observation) else None
    coefficients = [
        (row, np.flatnonzero(~np.isnan(_per_variant(fleet, uses, np.nan))), _per_variant(fleet, uses, np.nan))
        for row, (uses, _) in enumerate((rows or {}).values())
    ]
    uppers = [upper for _, upper in (rows or {}).values()]
    return Limits(
        low=_per_variant(fleet, low if low is not None else 0.0 if table is None else table.min_replicas, 0.0),
        high=_per_variant(fleet, high if high is not None else np.inf if table is None else table.max_replicas, np.inf),
        rows=LimitRows(
            labels=tuple(rows or ()),
            offsets=integers(np.cumsum([0, *(len(variants) for _, variants, _ in coefficients)])),
            variant=integers(np.concatenate([[], *(variants for _, variants, _ in coefficients)])),
            coefficient=floats(np.concatenate([[], *(uses[variants] for _, variants, uses in coefficients)])),
            lower=floats(np.full(len(uppers), -np.inf)),
            upper=floats(uppers),
        ),
        together=tuple(
            integers([fleet.index[f"{_DEFAULTS['namespace']}/{name}"] for name in group]) for group in together
        ),
    )
