"""
Recorded cycles decided once more, to the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from wva_core.domain import Memory, Plan
from wva_core.domain.record import Record
from wva_core.engine.brain import Brain
from wva_core.engine.cycle import Decision, decide

__all__ = ["ReplayedCycle", "decided_again", "replay", "same_plan"]


@dataclass(frozen=True, slots=True)
class ReplayedCycle:
    """A recorded cycle and what came out of deciding it again."""

    record: Record
    plan: Plan

    @property
    def is_identical(self) -> bool:
        """Whether both plans are the same to the bit."""
        return same_plan(self.record.plan, self.plan)


def same_plan(one: Plan, other: Plan) -> bool:
    """Whether two plans give every variant the same, for the same reason, within the same bounds."""
    columns = ("current", "desired", "wanted", "low", "high", "reason", "binding_row", "stalled")
    return one.fleet == other.fleet and all(
        np.array_equal(
            getattr(one, name), getattr(other, name), equal_nan=name not in ("reason", "binding_row", "stalled")
        )
        for name in columns
    )


def replay(
    records: Iterable[Record], build: Callable[[Mapping[str, Any]], Brain], memory: Memory | None = None
) -> Iterator[ReplayedCycle]:
    """Recorded cycles with the plans of today; arguments as in `decided_again`."""
    with closing(decided_again(records, build, memory)) as again:
        for record, decision, _ in again:
            yield ReplayedCycle(record, decision.plan)


def decided_again(
    records: Iterable[Record], build: Callable[[Mapping[str, Any]], Brain], memory: Memory | None = None
) -> Generator[tuple[Record, Decision, Brain], None, None]:
    """
    Decides recorded cycles again, in order; the brain of a cycle is in service until the next one is asked for.

    Args:
        records: consecutive records; the first one that carries a memory is where it starts, and one in the middle
            takes over (a gap was there).
        build: makes a brain, in service, of a recorded policy; it is taken out of service when it is done with.
        memory: to start from where the first record carries none.
    """
    brain: Brain | None = None
    built_for: Mapping[str, Any] | None = None
    try:
        for record in records:
            if record.memory is not None and (memory is None or memory.cycle != record.memory.cycle):
                memory = record.memory
            if brain is None or record.policy != built_for:
                if brain is not None:
                    brain.stop()
                brain, built_for = build(record.policy), record.policy
            decision = decide(
                record.observation, brain, memory or Memory.empty(record.observation.fleet), absent=record.failures
            )
            memory = decision.memory
            yield record, decision, brain
    finally:
        if brain is not None:
            brain.stop()
