"""Records of made-up cycles, for tests and benchmarks: every part filled, deterministic by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from wva_core.domain import (
    SCOPE_SIGNALS,
    Assessment,
    Ballot,
    Columns,
    Fleet,
    History,
    Inventory,
    LimitRows,
    Limits,
    Memory,
    Mode,
    Notice,
    Observation,
    Plan,
    Reason,
    ReplicaIndex,
    ReplicaTable,
    Variant,
    VariantTable,
    Vote,
)
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.domain.record import Record

POLICY = {"mode": "advise", "bounds": {"staleAfterSeconds": 60.0, "unavailableAfterSeconds": 300.0}}


def fleet_of(models: int, variants_per_model: int = 2) -> Fleet:
    accelerators = ("H100", "L40S", "A100")
    return Fleet(
        Variant(
            namespace="serving",
            name=f"model-{model:05d}-{accelerators[kind % 3].lower()}",
            model=f"org/model-{model:05d}",
            accelerator=accelerators[kind % 3],
            scale_target=f"Deployment/model-{model:05d}-{kind}",
            launch={"max_num_seqs": 256},
        )
        for model in range(models)
        for kind in range(variants_per_model)
    )


def index_of(fleet: Fleet, instances: int | list[int], first: int = 0) -> ReplicaIndex:
    """Pods numbered from `first`, so that a larger `first` is the same size with other pods."""
    counts = [instances] * len(fleet) if isinstance(instances, int) else instances
    keys = [key for key, count in zip(fleet.keys, counts, strict=True) for _ in range(count)]
    pods = [
        f"{variant.name}-{number + first:04d}"
        for variant, count in zip(fleet.variants, counts, strict=True)
        for number in range(count)
    ]
    return ReplicaIndex.of(fleet, keys, pods)[0]


REPLICA_NAMES = (
    "kv_usage", "kv_now", "waiting", "running", "kv_capacity_tokens", "max_batch", "arrival_rate", "request_rate",
    "input_token_rate", "output_token_rate", "input_tokens", "output_tokens", "prefix_hit_rate", "ttft", "itl",
)  # fmt: skip


def first_record(fleet: Fleet, instances: int | list[int], seed: int = 0, *, time: float = 1_700_000_000.25) -> Record:
    """A record with every kind of number in it, NaN and infinity included."""
    rng = np.random.default_rng(seed)
    index = index_of(fleet, instances)
    rows, variants, scopes = len(index), len(fleet), len(fleet.scopes)
    values: dict[str, Any] = {}
    for name in REPLICA_NAMES:
        if name in {"waiting", "running", "max_batch"}:
            column = rng.poisson(8, rows).astype(float)
        elif name == "kv_capacity_tokens":
            column = np.full(rows, 120_000.0)
        else:
            column = rng.random(rows)
        column[rng.random(rows) < 0.02] = np.nan
        values[name] = column
    ages = {name: rng.integers(0, 60, rows) / 4.0 for name in ("kv_usage", "ttft")}
    table = VariantTable.of(
        current=rng.integers(1, 9, variants), ready=rng.integers(1, 9, variants), cost=rng.integers(1, 12, variants)
    )
    observation = Observation.of(
        time,
        fleet,
        table,
        replicas=ReplicaTable.of(index, values, ages),
        scopes=Columns(scopes, SCOPE_SIGNALS, {"queue_size": rng.poisson(3, scopes).astype(float)}),
        extra=Columns(scopes, None, {"tickets": rng.random(scopes)}),
        inventory=Inventory(("H100", "L40S"), floats([64.0, np.inf]), floats([12.0, np.nan])),
        conflicts={"queue_size": booleans(rng.random(scopes) < 0.1)},
    )
    capacity = floats(np.where(rng.random(variants) < 0.1, np.nan, 1.0 + rng.random(variants)))
    demand = floats(rng.random(scopes) * 5)
    assessment = Assessment.of(
        fleet,
        unit="requests",
        capacity=capacity,
        demand=demand,
        reason=np.zeros(scopes, dtype=np.int64),
        reasons=("demand is {demand} requests in {replicas} replicas",),
        details={"demand": demand, "replicas": floats(np.full(scopes, 3.0)), "own": floats(np.arange(variants))},
        per_variant=("own",),
        priority=1.0 + np.arange(scopes),
    )
    step = Assessment.of(
        fleet, unit="replicas", required=np.ones(scopes), spare=np.zeros(scopes), demand=np.full(scopes, np.nan)
    )
    votes = tuple(
        Vote(
            analyzer=name,
            unit=one.unit,
            capacity=one.capacity,
            required=floats(np.zeros(scopes)),
            spare=floats(np.ones(scopes)),
            demand=one.demand,
            supply=floats(np.full(scopes, np.nan)),
            gates_shrink=booleans(np.ones(scopes)),
            informative=booleans(np.ones(scopes)),
            score=floats(np.ones(scopes)),
        )
        for name, one in (("load", assessment), ("steps", step))
    )
    ballot = Ballot(
        votes=votes,
        anchor=integers(np.zeros(scopes)),
        grow=booleans(np.zeros(scopes)),
        shrink=booleans(np.ones(scopes)),
        frozen=booleans(np.zeros(scopes)),
        priority=floats(np.where(np.arange(scopes) % 2, np.nan, 1.0 + np.arange(scopes))),
    )
    limits = Limits(
        low=table.min_replicas,
        high=floats(np.full(variants, np.inf)),
        rows=LimitRows(
            labels=("GPUs of type H100",),
            offsets=integers([0, variants]),
            variant=integers(np.arange(variants)),
            coefficient=floats(np.ones(variants)),
            lower=floats([-np.inf]),
            upper=floats([np.nan]),
        ),
        together=(integers([0]), integers([0, variants - 1])),
    )
    desired = floats(np.where(rng.random(variants) < 0.1, np.nan, table.current))
    plan = Plan(
        time=time,
        fleet=fleet,
        current=table.current,
        desired=desired,
        wanted=table.current,
        low=limits.low,
        high=limits.high,
        reason=integers(np.full(variants, Reason.STEADY)),
        binding_row=integers(np.full(variants, -1)),
        stalled=booleans(np.zeros(variants)),
        limits=limits.rows.labels,
        mode=Mode.ACT,
        degraded=True,
        notices=(Notice("late", "slow", "was late"),),
    )
    return Record(
        cycle=7,
        time=time,
        policy=POLICY,
        observation=observation,
        failures={"slow": "was late"},
        assessments={"load": assessment, "steps": step},
        ballot=ballot,
        limits=limits,
        plan=plan,
        memory=memory_of(fleet, 7),
        base=table.current,
    )


def memory_of(fleet: Fleet, cycle: int) -> Memory:
    return replace(
        Memory.empty(fleet),
        cycle=cycle,
        wishes=History((1.0, 2.0), (floats(np.arange(len(fleet))), floats(np.full(len(fleet), np.nan)))),
        informative={"load": floats(np.zeros(len(fleet.scopes)))},
        states={"load": {"version": 1, "seen": floats(np.arange(3.0))}},
    )


def next_record(record: Record, seed: int, share: float = 0.1, step: float = 15.0) -> Record:
    """The cycle after: `share` of the cells of every signal moved, ages grown by one interval."""
    rng = np.random.default_rng(seed)
    seen, time = record.observation, record.time + step
    columns = seen.replicas.columns
    cells = max(1, round(columns.rows * share)) if share else 0

    def moved(column: Any) -> Any:
        if not cells or not len(column):
            return column
        result = column.copy()
        result[rng.choice(len(column), cells, replace=False)] = rng.random(cells)
        return result

    values = {name: moved(column) for name, column in columns.items()}
    ages = {name: column + step if share else column for name, column in columns.ages().items()}
    observation = replace(
        seen, time=time, replicas=ReplicaTable.of(seen.replicas.index, values, ages if share else columns.ages())
    )
    plan = replace(record.plan, time=time)
    if share:
        count = max(1, round(len(seen.fleet) * share))
        desired = record.plan.desired.copy()
        desired[rng.choice(len(desired), count, replace=False)] = rng.integers(1, 9, count)
        plan = replace(plan, desired=floats(desired))
    cycle = record.cycle + 1
    return replace(
        record, cycle=cycle, time=time, observation=observation, plan=plan, memory=memory_of(seen.fleet, cycle)
    )


def with_replicas(record: Record, index: ReplicaIndex, seed: int = 0) -> Record:
    """The same cycle over other instances; those that stay keep their numbers."""
    rng = np.random.default_rng(seed)
    seen = record.observation
    old = seen.replicas.index
    position = {name: row for row, name in enumerate(zip(old.variant_of_replica.tolist(), old.pods, strict=True))}
    rows = np.array(
        [position.get(name, -1) for name in zip(index.variant_of_replica.tolist(), index.pods, strict=True)], dtype=int
    )

    def carried(column: Any) -> Any:
        fresh = rng.random(len(rows))
        return fresh if not len(column) else np.where(rows >= 0, column[rows], fresh)

    values = {name: carried(column) for name, column in seen.replicas.columns.items()}
    ages = {name: carried(column) for name, column in seen.replicas.columns.ages().items()}
    return replace(record, observation=replace(seen, replicas=ReplicaTable.of(index, values, ages)))


def run_of(count: int, models: int = 3, instances: int = 2, share: float = 0.2, seed: int = 0) -> Iterator[Record]:
    """Consecutive cycles of one fleet."""
    record = first_record(fleet_of(models), instances, seed)
    for cycle in range(count):
        yield record
        record = next_record(record, seed + cycle + 1, share)


def bits(value: Any) -> Any:
    """Something that is equal exactly where two records are equal to the bit; the memory apart."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return {key: bits(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [bits(inner) for inner in value]
    if isinstance(value, float):
        return value.hex()
    return value


def bits_of(record: Record, *, memory: bool = False) -> Any:
    plain = record.to_plain()
    if not memory:
        plain.pop("memory")
    return bits(plain)
