"""
Recorded cycles decided once more, to the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wva_core.domain import Memory, Plan
from wva_core.domain.record import Record
from wva_core.engine.brain import Brain
from wva_core.engine.cycle import decide

__all__ = ["ReplayedCycle", "replay", "same_plan"]


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
    """
    Decides recorded cycles again, in order.

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
            yield ReplayedCycle(record, decision.plan)
    finally:
        if brain is not None:
            brain.stop()
