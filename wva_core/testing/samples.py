"""
Fleets of any size with made-up but plausible numbers, the same for the same seed: what the conformance kit looks at.

Every sample can be made under other names, which stand in the opposite order. Names decide the order of all rows, so an
answer that follows the names shows that it does not depend on the order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from wva_core.domain import (
    REPLICA_SIGNALS,
    SCOPE_SIGNALS,
    Ballot,
    Columns,
    Fleet,
    FloatArray,
    IntArray,
    Limits,
    Observation,
    ReplicaIndex,
    ReplicaTable,
    Variant,
    VariantTable,
    Vote,
)
from wva_core.domain.arrays import booleans, floats, integers

__all__ = [
    "LOAD_SIGNALS",
    "fully_loaded",
    "partly_unknown",
    "reordered_ballot",
    "rows_in_reverse",
    "sample_ballot",
    "sample_limits",
    "sample_observation",
]

LOAD_SIGNALS = {"kv_usage": 1.0, "kv_now": 1.0, "waiting": 1000.0, "running": 1000.0}
"""Replica signals that say how busy an instance is, and what each reads when it is fully loaded."""

_TYPES = ("A100", "H100", "L40S")


def _names(count: int, prefix: str, *, reverse: bool) -> list[str]:
    return [f"{prefix}{count - 1 - number if reverse else number:06d}" for number in range(count)]


def sample_observation(seed: int = 0, variants: int = 12, *, reverse: bool = False) -> Observation:
    """
    A fleet in which every signal is known: four variants to a model, every third model split in prefill and decode.

    Scopes are idle, busy or overloaded as a whole, so that all directions occur. With `reverse` the same fleet is made
    under other names; `rows_in_reverse` says which row is which.
    """
    rng = np.random.default_rng(seed)
    models = max(1, -(-variants // 4)) if variants else 0
    model_names = _names(models, "model-", reverse=reverse)
    made = [
        Variant(
            namespace="ns",
            name=name,
            model=model_names[number // 4],
            accelerator=_TYPES[number % len(_TYPES)],
            role=("decode", "prefill")[number % 2] if number // 4 % 3 == 2 else "",
        )
        for number, name in enumerate(_names(variants, "variant-", reverse=reverse))
    ]
    fleet = Fleet(made)
    load = rng.choice([0.15, 0.6, 1.1], size=models)[np.arange(variants) // 4] if variants else np.empty(0)
    current = rng.integers(1, 6, variants).astype(float)
    pending = np.where(rng.random(variants) < 0.1, 1.0, 0.0)
    ready = np.maximum(current - pending, 0.0)
    cost = 5.0 + rng.permutation(variants) / 7.0  # no two alike: names break no tie
    rows = _replica_rows(fleet, made, ready, load, rng, reverse=reverse)
    order = np.array([fleet.index[variant.key] for variant in made], dtype=np.int64)
    table = VariantTable.of(
        _placed(current, order),
        ready=_placed(ready, order),
        pending=_placed(np.maximum(current - ready, 0.0), order),
        cost=_placed(cost, order),
        gpus=_placed(np.where(np.arange(variants) % 5 == 4, 2.0, 1.0), order),
        max_replicas=_placed(current + 20.0, order),
    )
    return Observation.of(
        1_000.0, fleet, table, replicas=rows, scopes=_scope_columns(fleet, rng, models, reverse=reverse)
    )


def rows_in_reverse(fleet: Fleet, reverse: Fleet) -> tuple[IntArray, IntArray]:
    """(V,) and (S,) rows of the reversed sample at which the variants and scopes of the sample stand."""
    models = len({scope.model for scope in fleet.scopes})
    other_name = dict(zip(_names(models, "model-", reverse=False), _names(models, "model-", reverse=True), strict=True))
    scope_row = {scope: row for row, scope in enumerate(reverse.scopes)}
    scopes = [scope_row[scope._replace(model=other_name[scope.model])] for scope in fleet.scopes]
    return integers(np.arange(len(fleet))[::-1]), integers(np.array(scopes, dtype=np.int64))


def _placed(values: FloatArray, order: IntArray) -> FloatArray:
    """The column in which the value of made variant i stands in its row of the fleet."""
    column = np.empty_like(values)
    column[order] = values
    return column


def _replica_rows(
    fleet: Fleet, made: list[Variant], ready: FloatArray, load: FloatArray, rng: np.random.Generator, *, reverse: bool
) -> ReplicaTable:
    owner = np.repeat(np.arange(len(made)), ready.astype(np.int64))
    count = len(owner)
    busy = load[owner] * rng.uniform(0.8, 1.0, count)
    capacity = 20_000.0 * (1.0 + owner % 3)
    running = np.floor(40.0 * busy)
    requests = 2.0 * busy
    signals = {
        "kv_usage": np.minimum(busy, 0.99),
        "kv_now": np.minimum(busy * 0.95, 0.98),
        "waiting": np.floor(np.maximum(busy - 0.5, 0.0) * 12.0),
        "running": running,
        "kv_capacity_tokens": capacity,
        "max_batch": np.full(count, 256.0),
        "arrival_rate": requests,
        "request_rate": requests,
        "input_token_rate": requests * 900.0,
        "output_token_rate": requests * 200.0,
        "input_tokens": np.full(count, 900.0),
        "output_tokens": np.full(count, 200.0),
        "prefix_hit_rate": rng.uniform(0.0, 0.3, count),
        "ttft": 0.1 + busy / 3.0,
        "itl": 0.02 + busy / 50.0,
    }
    keys = [made[number].key for number in owner]
    index, order = ReplicaIndex.of(fleet, keys, _names(count, "pod-", reverse=reverse))
    return ReplicaTable.of(index, {name: signals[name][order] for name in REPLICA_SIGNALS if name in signals})


def _scope_columns(fleet: Fleet, rng: np.random.Generator, models: int, *, reverse: bool) -> Columns:
    values = {
        "queue_size": rng.integers(0, 5, models).astype(float),
        "queue_bytes": rng.integers(0, 5, models) * 4_000.0,
        "arrival_rate": rng.uniform(0.5, 20.0, models),
        "requests_retained": rng.integers(1, 1_000, models).astype(float),
    }
    row_of_model = {name: row for row, name in enumerate(_names(models, "model-", reverse=reverse))}
    rows = np.array([row_of_model[scope.model] for scope in fleet.scopes], dtype=np.int64)
    return Columns(len(fleet.scopes), SCOPE_SIGNALS, {name: column[rows] for name, column in values.items()})


def partly_unknown(observation: Observation, share: float, seed: int = 0) -> Observation:
    """The same observation with a share of the cells of `LOAD_SIGNALS` not known."""
    rng = np.random.default_rng(seed)
    table = observation.replicas
    blank = {name: rng.random(len(table)) < share for name in LOAD_SIGNALS}
    return _with_replicas(observation, {name: np.where(blank[name], np.nan, table[name]) for name in LOAD_SIGNALS})


def fully_loaded(observation: Observation) -> Observation:
    """The same observation with every unknown cell of `LOAD_SIGNALS` as if the instance were fully loaded."""
    table = observation.replicas
    return _with_replicas(
        observation,
        {name: np.where(np.isnan(table[name]), most, table[name]) for name, most in LOAD_SIGNALS.items()},
    )


def _with_replicas(observation: Observation, changed: dict[str, FloatArray]) -> Observation:
    table = observation.replicas
    return replace(observation, replicas=ReplicaTable.of(table.index, {**table.columns, **changed}))


def sample_ballot(observation: Observation, seed: int = 0, *, known: float = 1.0) -> Ballot:
    """
    One vote in requests: every scope grows, shrinks or stays.

    Capacities are known for a share of the variants, a priority for about half of the scopes.
    """
    rng = np.random.default_rng(seed)
    fleet = observation.fleet
    variants, scopes = len(fleet), len(fleet.scopes)
    capacity = rng.uniform(10.0, 50.0, variants)
    capacity[rng.random(variants) >= known] = np.nan
    direction = rng.integers(-1, 2, scopes)
    amount = rng.uniform(5.0, 120.0, scopes)
    supply = fleet.by_scope.sum(np.nan_to_num(capacity) * observation.variants.base)
    informative = fleet.by_scope.any(~np.isnan(capacity))
    required = np.where((direction > 0) & informative, amount, 0.0)
    spare = np.where((direction < 0) & informative, np.minimum(amount, supply), 0.0)
    vote = Vote(
        analyzer="sample",
        unit="requests",
        capacity=floats(capacity),
        required=floats(required),
        spare=floats(spare),
        demand=floats(np.maximum(supply + required - spare, 0.0)),
        supply=floats(supply),
        gates_shrink=booleans(np.ones(scopes, dtype=bool)),
        informative=booleans(informative),
        score=floats(np.ones(scopes)),
    )
    return Ballot(
        votes=(vote,),
        anchor=integers(np.where(informative, 0, -1)),
        grow=booleans(required > 0),
        shrink=booleans(spare > 0),
        frozen=booleans(np.zeros(scopes, dtype=bool)),
        priority=floats(np.where(rng.random(scopes) < 0.5, rng.integers(1, 4, scopes), np.nan)),
    )


def reordered_ballot(ballot: Ballot, variant_rows: IntArray, scope_rows: IntArray) -> Ballot:
    """The ballot with row i of its columns at `variant_rows[i]` or `scope_rows[i]`."""
    (vote,) = ballot.votes
    per_scope = ("required", "spare", "demand", "supply", "gates_shrink", "informative", "score")
    moved: dict[str, Any] = {name: _moved(getattr(vote, name), scope_rows) for name in per_scope}
    return Ballot(
        votes=(replace(vote, capacity=_moved(vote.capacity, variant_rows), **moved),),
        anchor=_moved(ballot.anchor, scope_rows),
        grow=_moved(ballot.grow, scope_rows),
        shrink=_moved(ballot.shrink, scope_rows),
        frozen=_moved(ballot.frozen, scope_rows),
        priority=None if ballot.priority is None else _moved(ballot.priority, scope_rows),
    )


def _moved(column: np.ndarray[Any, Any], rows: IntArray) -> np.ndarray[Any, Any]:
    moved = np.empty_like(column)
    moved[rows] = column
    moved.flags.writeable = False
    return moved


def sample_limits(observation: Observation) -> Limits:
    """The minima and maxima of the observation; nothing is shared."""
    return Limits(low=observation.variants.min_replicas, high=observation.variants.max_replicas)
