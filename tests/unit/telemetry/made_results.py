"""Results of made-up cycles, as subscribers of the engine are told them."""

from __future__ import annotations

import numpy as np

from wva_core.domain import Memory, Mode, Plan, Reason
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.domain.record import Record
from wva_core.engine.cycle import Decision
from wva_core.engine.loop import CycleResult
from wva_core.errors import PluginFailure
from wva_core.testing.builders import ballot, limits, observe, vote

POLICY = {
    "mode": "act",
    "interval": 15.0,
    "analyzers": [
        {"type": "queueing", "name": "latency", "enabled": True},
        {"type": "throughput", "name": "throughput", "enabled": False},
    ],
    "optimizer": {"type": "cost-aware", "name": "cost-aware", "parameters": {}},
}


def result(
    variants=({"name": "v"},),
    desired=None,
    *,
    reason=Reason.GROW,
    stalled=(),
    votes=None,
    assessments=None,
    failures=None,
    reports=None,
    seconds=None,
    notices=(),
    policy=POLICY,
    policy_changed=False,
    status="feasible",
    time=1_000.0,
    cycle=7,
):
    """One cycle over `variants` (rows for `observe`); `desired` by name, else each variant's target or count."""
    seen = observe(variants, time=time)
    fleet, table = seen.fleet, seen.variants
    answer = np.where(np.isnan(table.target), table.current, table.target)
    for name, replicas in (desired or {}).items():
        answer[fleet.index[f"ns/{name}"]] = replicas
    asked = ballot(seen, *([vote(seen)] if votes is None else [make(seen) for make in votes]))
    bounds = limits(seen)
    plan = Plan(
        time=time,
        fleet=fleet,
        current=table.current,
        desired=floats(answer),
        wanted=floats(answer),
        low=bounds.low,
        high=bounds.high,
        reason=integers(np.full(len(fleet), reason)),
        binding_row=integers(np.full(len(fleet), -1)),
        stalled=booleans([one.name in stalled for one in fleet.variants]),
        mode=Mode.ACT,
        status=status,
        notices=tuple(notices),
    )
    failures = failures or {}
    answers = {name: make(seen) for name, make in (assessments or {}).items()}
    decision = Decision(seen, answers, asked, bounds, plan, Memory.empty(), failures, seconds or {})
    record = Record(cycle, time, policy, seen, {}, answers, asked, bounds, plan)
    return CycleResult(decision, failures, reports or {}, record, policy_changed)


def failure(problem="did not answer within 7.5 s", *, of="analyzer latency", cause=None):
    made = PluginFailure(problem, object=of, key="assess", remedy="make it faster")
    made.__cause__ = cause
    return made
