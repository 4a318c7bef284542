"""
An observation that a person wrote down: the typed document, and what the engine is given for it.

A key left out, or null, is not known; 0 is a measurement. The keys are explained in docs/user-guide/observation.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from wva_core.domain import (
    DEFAULT_COST,
    SCOPE_SIGNALS,
    Columns,
    Fleet,
    FloatArray,
    Inventory,
    Memory,
    Observation,
    ReplicaIndex,
    ReplicaTable,
    Variant,
    VariantTable,
)
from wva_core.domain.arrays import floats
from wva_core.errors import ObservationError
from wva_core.policy.documents import read_document, validate

__all__ = ["ObservationDocument", "WrittenObservation", "observation_of", "read_observation"]

DEFAULT_NAMESPACE = "default"
"""Namespace of a row that names none, as everywhere in Kubernetes."""

_TIME = 0.0
"""When a written-down observation was made: ages and targets are told relative to it."""

_IF_KNOWN = ", or leave it out where it is not known"
Amount = Annotated[float | None, Field(ge=0, allow_inf_nan=False), f"a finite number of at least 0{_IF_KNOWN}"]
Share = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False), f"a number from 0 to 1{_IF_KNOWN}"]
Price = Annotated[float | None, Field(ge=0, allow_inf_nan=False), "a finite number of USD per hour, at least 0"]
# int32 is what a scale target can hold
Count = Annotated[int | None, Field(ge=0, le=2**31 - 1), "a whole number from 0 to 2147483647"]
Accelerators = Annotated[int | None, Field(ge=1, le=2**31 - 1), "a whole number of at least 1"]
Name = Annotated[str, Field(min_length=1)]
OptionalName = Annotated[str | None, Field(min_length=1)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReplicaCounts(_Row):
    """Replicas of a scale target: those it has, those that serve, those that do not serve yet."""

    current: Count = None
    ready: Count = None
    pending: Count = None


class VariantRow(_Row):
    """One variant: who it is, what it costs, what it may, what there is, and its last target."""

    name: Name
    namespace: OptionalName = None
    model: Name
    accelerator: str | None = None
    role: Literal["prefill", "decode", "both"] | None = None
    service_class: str | None = None
    cost: Price = None
    gpus_per_replica: Accelerators = None
    min_replicas: Count = None
    max_replicas: Count = None
    replicas: ReplicaCounts | None = None
    desired: Count = None

    @property
    def key(self) -> str:
        """How other rows refer to it."""
        return f"{self.namespace or DEFAULT_NAMESPACE}/{self.name}"


class ReplicaRow(_Row):
    """One engine instance of a variant; `age` is in seconds and goes for every signal of the row."""

    variant: Name
    pod: OptionalName = None
    kv_usage: Share = None
    waiting: Amount = None
    running: Amount = None
    kv_capacity_tokens: Amount = None
    max_batch: Amount = None
    arrival_rate: Amount = None
    request_rate: Amount = None
    input_token_rate: Amount = None
    output_token_rate: Amount = None
    input_tokens: Amount = None
    output_tokens: Amount = None
    prefix_hit_rate: Share = None
    ttft: Amount = None
    itl: Amount = None
    age: Amount = None


class ModelRow(_Row):
    """What is known of a model as a whole; every role and every service class of it sees the same."""

    model: Name
    namespace: OptionalName = None
    queue_size: Amount = None
    queue_bytes: Amount = None
    arrival_rate: Amount = None


class AcceleratorRow(_Row):
    """Accelerators of one type: those there are, and those anybody uses."""

    capacity: Count = None
    used: Count = None


class ObservationDocument(_Row):
    """The whole document."""

    variants: tuple[VariantRow, ...]
    replicas: tuple[ReplicaRow, ...] | None = None
    models: tuple[ModelRow, ...] | None = None
    inventory: dict[str, AcceleratorRow] | None = None


_REPLICA_SIGNALS = tuple(name for name in ReplicaRow.model_fields if name not in {"variant", "pod", "age"})
_SCOPE_SIGNALS = tuple(name for name in ModelRow.model_fields if name not in {"model", "namespace"})


@dataclass(frozen=True, slots=True, eq=False)
class WrittenObservation:
    """What a document says, for the engine: what was seen at time 0, and the targets it remembers."""

    observation: Observation
    memory: Memory


def read_observation(path: str | Path) -> WrittenObservation:
    """
    The observation in a YAML or JSON file.

    Raises:
        ObservationError: the file or something in it cannot be used; names file, key, value and remedy.
    """
    source = str(path)
    data = read_document(path, ObservationError)
    return observation_of(validate(ObservationDocument, data, source, ObservationError), source)


def observation_of(document: ObservationDocument, source: str) -> WrittenObservation:
    """
    What the engine is given for a document.

    Args:
        document: a valid one.
        source: how errors name it.

    Raises:
        ObservationError: rows that contradict each other or refer to nothing.
    """
    _check_variants(document.variants, source)
    fleet = Fleet(
        Variant(
            namespace=row.namespace or DEFAULT_NAMESPACE,
            name=row.name,
            model=row.model,
            accelerator=row.accelerator or "",
            role=row.role or "",
            service_class=row.service_class or "",
        )
        for row in document.variants
    )
    row_of = {row.key: row for row in document.variants}
    rows = [row_of[key] for key in fleet.keys]
    observation = Observation.of(
        _TIME,
        fleet,
        _variant_table(rows),
        replicas=_replica_table(fleet, document.replicas or (), source),
        scopes=_scope_columns(fleet, document.models or (), source),
        inventory=_inventory(document.inventory or {}),
    )
    # 0 means that no target was ever set, as in the status of the VariantAutoscaling resource
    target = _column(rows, lambda row: row.desired or None)
    memory = replace(Memory.empty(fleet), target=target, target_since=floats(np.where(np.isnan(target), np.nan, _TIME)))
    return WrittenObservation(observation, memory)


def _column(rows: Sequence[Any], value: Callable[[Any], float | None]) -> FloatArray:
    """One number per row; None becomes not known."""
    return floats([np.nan if (one := value(row)) is None else float(one) for row in rows])


def _check_variants(rows: Sequence[VariantRow], source: str) -> None:
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        at = f"variants[{number}]"
        for key, text in (("name", row.name), ("namespace", row.namespace or "")):
            if "/" in text:
                raise ObservationError(
                    "contains a slash",
                    object=source,
                    key=f"{at}.{key}",
                    value=text,
                    remedy="give name and namespace apart",
                )
        if row.key in first:
            raise ObservationError(
                f"is a variant already, variants[{first[row.key]}]",
                object=source,
                key=f"{at}.name",
                value=row.key,
                remedy="give every variant of a namespace a name of its own",
            )
        first[row.key] = number
        least, most = row.min_replicas or 0, row.max_replicas or 0
        if most and least > most:
            raise ObservationError(
                f"is above maxReplicas {most}",
                object=source,
                key=f"{at}.minReplicas",
                value=least,
                remedy="lower it, or raise maxReplicas (0 is no limit)",
            )
        counts = row.replicas or ReplicaCounts()
        if counts.current is not None and counts.ready is not None and counts.ready > counts.current:
            raise ObservationError(
                f"is above current {counts.current}",
                object=source,
                key=f"{at}.replicas.ready",
                value=counts.ready,
                remedy="count in current every replica there is, ready or not",
            )


def _variant_table(rows: Sequence[VariantRow]) -> VariantTable:
    counted = [_counts(row.replicas or ReplicaCounts()) for row in rows]
    return VariantTable.of(
        _column(counted, lambda counts: counts.current),
        ready=_column(counted, lambda counts: counts.ready),
        pending=_column(counted, lambda counts: counts.pending),
        cost=_column(rows, lambda row: DEFAULT_COST if row.cost is None else row.cost),
        gpus=_column(rows, lambda row: row.gpus_per_replica or 1),
        min_replicas=_column(rows, lambda row: row.min_replicas or 0),
        max_replicas=_column(rows, lambda row: row.max_replicas or np.inf),
    )


def _counts(given: ReplicaCounts) -> ReplicaCounts:
    """The three counts with what follows from the others: with current alone, every replica is ready."""
    current, ready, pending = given.current, given.ready, given.pending
    if current is None and ready is not None and pending is not None:
        current = ready + pending
    if current is not None:
        if ready is None:
            ready = current - min(pending or 0, current)
        if pending is None:
            pending = current - ready
    return ReplicaCounts(current=current, ready=ready, pending=pending)


def _replica_table(fleet: Fleet, rows: Sequence[ReplicaRow], source: str) -> ReplicaTable:
    first: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows):
        if row.variant not in fleet.index:
            raise ObservationError(
                "is not a variant of this document",
                object=source,
                key=f"replicas[{number}].variant",
                value=row.variant,
                remedy=_did_you_mean(row.variant, fleet.keys) + "give namespace/name of an entry under variants",
            )
        if row.pod is not None and first.setdefault((row.variant, row.pod), number) != number:
            raise ObservationError(
                f"is listed already, replicas[{first[row.variant, row.pod]}]",
                object=source,
                key=f"replicas[{number}].pod",
                value=row.pod,
                remedy="list every engine instance of a variant once",
            )
    # a pod without a name gets one that no Kubernetes pod can have
    pods = [row.pod or f"#{number:09d}" for number, row in enumerate(rows)]
    index, order = ReplicaIndex.of(fleet, [row.variant for row in rows], pods)
    age = _column(rows, lambda row: row.age or 0.0)[order]
    values, ages = {}, {}
    for signal in _REPLICA_SIGNALS:
        column = _column(rows, lambda row, signal=signal: getattr(row, signal))  # type: ignore[misc]
        if not np.all(np.isnan(column)):
            values[signal], ages[signal] = column[order], age
    return ReplicaTable.of(index, values, ages)


def _scope_columns(fleet: Fleet, rows: Sequence[ModelRow], source: str) -> Columns:
    of_model: dict[tuple[str, str], ModelRow] = {}
    served = {(scope.namespace, scope.model) for scope in fleet.scopes}
    for number, row in enumerate(rows):
        key = (row.namespace or DEFAULT_NAMESPACE, row.model)
        if key not in served:
            models = sorted(model for namespace, model in served if namespace == key[0])
            raise ObservationError(
                f"is served by no variant in namespace {key[0]}",
                object=source,
                key=f"models[{number}].model",
                value=row.model,
                remedy=_did_you_mean(row.model, models) + "correct model and namespace, or list its variants",
            )
        if key in of_model:
            raise ObservationError(
                "is listed twice in its namespace",
                object=source,
                key=f"models[{number}].model",
                value=row.model,
                remedy="keep one entry for each model",
            )
        of_model[key] = row
    nothing = ModelRow(model="-")
    told = [of_model.get((scope.namespace, scope.model), nothing) for scope in fleet.scopes]
    return Columns(
        len(fleet.scopes),
        SCOPE_SIGNALS,
        {
            signal: _column(told, lambda row, signal=signal: getattr(row, signal))  # type: ignore[misc]
            for signal in _SCOPE_SIGNALS
        },
    )


def _inventory(rows: dict[str, AcceleratorRow]) -> Inventory:
    names = tuple(sorted(rows))
    return Inventory(
        names,
        _column(names, lambda name: rows[name].capacity),
        _column(names, lambda name: rows[name].used),
    )


def _did_you_mean(given: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(given, known, n=1)
    if not close:  # a name without its namespace
        close = [key for key in known if key.endswith(f"/{given}")][:1]
    return f"did you mean {close[0]!r}? " if close else ""
