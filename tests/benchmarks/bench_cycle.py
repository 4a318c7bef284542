"""
One decision, from assess to verify, beside a plain-loop oracle of the same job; and the import of the core.

The engine side is everything `decide` does, threads included. A scope moves where its replicas are so loaded that it
grows, or so idle that it shrinks; the others stay in the band between.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tests.oracles import cycle_loop
from wva_core.domain import (
    Fleet,
    Inventory,
    Memory,
    Observation,
    ReplicaIndex,
    ReplicaTable,
    Variant,
    VariantTable,
)
from wva_core.engine import Brain, Deadline, Decision, decide
from wva_core.hooks.runtime import Runtime
from wva_core.policy.layers import Layer

VARIANTS, INSTANCES, PER_SCOPE = 10_000, 10, 5
TYPES = ("A100", "H100", "L40S", "MI300X")


class _Clock:
    def now(self) -> float:
        return 0.0


def _fleet(variants: int) -> Fleet:
    return Fleet(
        Variant("ns", f"v{row:05d}", f"m{row // PER_SCOPE:05d}", accelerator=TYPES[row % len(TYPES)])
        for row in range(variants)
    )


def observation(variants: int, instances: int, moving: float, *, time: float = 1000.0) -> Observation:
    """A fleet in which this share of the scopes moves, half up and half down."""
    fleet = _fleet(variants)
    keys = [key for key in fleet.keys for _ in range(instances)]
    index, _ = ReplicaIndex.of(fleet, keys, [f"p{row % instances:02d}" for row in range(len(keys))])
    scopes = len(fleet.scopes)
    many = round(moving * scopes)
    load = np.full(scopes, 0.70)  # neither below the trigger nor light enough for one replica fewer
    load[:many:2], load[1:many:2] = 0.90, 0.10
    jitter = np.random.default_rng(1).uniform(-0.004, 0.004, len(index))
    usage = np.where(load == 0.70, 0.697, load)[index.by_scope.of] + jitter
    current = np.full(variants, float(instances))
    table = VariantTable.of(
        current,
        cost=5.0 + np.arange(variants) % 7,
        gpus=1.0 + np.arange(variants) % 2,
        min_replicas=1.0,
        max_replicas=100.0,
    )
    used = fleet.by_accelerator.sum(table.gpus * current)
    return Observation.of(
        time,
        fleet,
        table,
        replicas=ReplicaTable.of(
            index,
            {"kv_usage": usage, "waiting": np.zeros(len(index))},
            {"kv_usage": np.full(len(index), 5.0), "waiting": np.full(len(index), 5.0)},
        ),
        inventory=Inventory(fleet.accelerators, used * 1.5, used),
    )


def as_objects(
    seen: Observation, memory: Memory
) -> tuple[list[list[cycle_loop.Variant]], dict[str, float], dict[str, float], float]:
    """The same fleet and memory as the oracle wants them."""
    fleet, table, samples = seen.fleet, seen.variants, seen.replicas
    rows = samples.index.by_variant
    pods = [
        cycle_loop.Pod(*cells)
        for cells in zip(
            samples["kv_usage"].tolist(),
            samples["waiting"].tolist(),
            samples.age("kv_usage").tolist(),
            samples.age("waiting").tolist(),
            strict=True,
        )
    ]
    variants = [
        cycle_loop.Variant(
            fleet.keys[row],
            float(table.cost[row]),
            float(table.gpus[row]),
            fleet.variants[row].accelerator,
            float(table.current[row]),
            float(table.pending[row]),
            float(table.min_replicas[row]),
            float(table.max_replicas[row]),
            [pods[pod] for pod in rows.rows(row)],
            float(memory.target[row]),
            float(memory.target_since[row]),
            float(memory.pending_since[row]),
        )
        for row in range(len(fleet))
    ]
    inventory = seen.inventory
    return (
        [[variants[row] for row in fleet.by_scope.rows(scope)] for scope in range(len(fleet.scopes))],
        dict(zip(inventory.accelerators, inventory.capacity.tolist(), strict=True)),
        dict(zip(inventory.accelerators, inventory.used.tolist(), strict=True)),
        seen.time,
    )


def median_seconds(job: Callable[[], object], repeat: int) -> float:
    """The median of some runs, after one that does not count."""
    job()
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def check(label: str, seen: Observation, memory: Memory, decision: Decision) -> None:
    """Ends the benchmark where engine and oracle disagree: a ratio of two different jobs would say nothing."""
    answers = {
        variant.name: answer
        for variant, answer in zip(
            (variant for scope in as_objects(seen, memory)[0] for variant in scope),
            cycle_loop.cycle(*as_objects(seen, memory)),
            strict=True,
        )
    }
    expected = [answers[key] for key in seen.fleet.keys]
    same = (
        decision.plan.desired.tolist() == [one.desired for one in expected]
        and decision.plan.stalled.tolist() == [one.stalled for one in expected]
        and decision.memory.target.tolist() == [one.target for one in expected]
        and decision.memory.target_since.tolist() == [one.target_since for one in expected]
    )
    if decision.failures or not same:
        raise SystemExit(f"{label}: engine and oracle disagree, or a plugin failed: {decision.failures}")


def compare(label: str, seen: Observation, brain: Brain, repeat: int) -> None:
    """One line: the engine, the oracle, and the ratio."""
    memory = Memory.empty(seen.fleet)
    decision = decide(seen, brain, memory)
    check(label, seen, memory, decision)
    # with what the first cycle left behind, targets are being reached: what a running process does most of the time
    later = replace(seen, time=seen.time + 15.0)
    check(label, later, decision.memory, decide(later, brain, decision.memory))
    question = as_objects(seen, memory)
    engine = median_seconds(lambda: decide(seen, brain, memory, Deadline(15.0)), repeat)
    steady = median_seconds(lambda: decide(later, brain, decision.memory, Deadline(15.0)), repeat)
    loop = median_seconds(lambda: cycle_loop.cycle(*question), max(repeat // 3, 3))
    moved = int(np.count_nonzero(decision.plan.desired != seen.variants.current))
    unit, scale = ("ms", 1e3) if loop > 2e-3 else ("µs", 1e6)
    print(
        f"  {label:<44} {engine * scale:8.1f} {unit}, the cycle after {steady * scale:8.1f} {unit},"
        f" loop {loop * scale:8.1f} {unit}, ratio {loop / engine:6.2f}x, {moved} variants move",
        flush=True,
    )


def import_seconds(statement: str, repeat: int = 7) -> float:
    """The median time a fresh interpreter needs for a statement, without its own start."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(repeat)
    ]
    return statistics.median(seconds)


def main() -> None:
    """Prints one line per case."""
    brain = Brain.build([Layer("benchmark", {"profile": "saturation-v1"})])
    brain.start(Runtime(_Clock()))
    for share in (0.0, 0.1, 1.0):
        label = f"{VARIANTS:,} variants x {INSTANCES}, {share:.0%} of scopes moving"
        compare(label, observation(VARIANTS, INSTANCES, share), brain, 15)
    compare("one variant x 10, moving", observation(1, INSTANCES, 1.0), brain, 200)
    compare("one variant x 1, moving", observation(1, 1, 1.0), brain, 200)
    brain.stop()
    core, engine, numpy = (import_seconds(f"import {name}") for name in ("wva_core", "wva_core.engine", "numpy"))
    print(f"  import wva_core {core * 1e3:.0f} ms, wva_core.engine {engine * 1e3:.0f} ms, numpy {numpy * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
