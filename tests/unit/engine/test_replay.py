"""Recorded cycles decided again: the same plan to the bit, with failures, policy changes and across a checkpoint."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.engine.parts import Clock, analyzer, brain, collector, follows, optimizer, runtime
from wva_core.domain import Allocation, Assessment, FleetUpdate, Memory, ReplicaTable, SignalRequest, Signals
from wva_core.domain.record import Record
from wva_core.engine import Engine, replay, same_plan
from wva_core.testing.builders import observe

BOUNDS = {
    "behavior": {
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 30}]},
        "scaleDown": {"stabilizationWindowSeconds": 60},
    }
}


def load_of(observation, _settings, state):
    """Growth above a mean usage of .6, shrinking below .3; counts its calls, and grows by what it counted."""
    usage = observation.replicas["kv_usage"]
    by_scope = observation.replicas.index.by_scope
    mean = by_scope.sum(np.nan_to_num(usage)) / np.maximum(by_scope.count(~np.isnan(usage)), 1)
    calls = state.get("calls", 0) + 1
    return Assessment.of(
        observation.fleet,
        unit="replicas",
        capacity=np.ones(len(observation.fleet)),
        required=np.where(mean > 0.6, 1.0 + calls % 2, 0.0),
        spare=np.where(mean < 0.3, 1.0, 0.0),
        state={"calls": calls},
    )


def wide(observation, ballot, limits):
    """As many replicas as are required or spare."""
    scope = observation.fleet.scope_of_variant
    move = sum(vote.required - np.where(ballot.shrink, vote.spare, 0.0) for vote in ballot.votes)[scope]
    return Allocation(np.clip(observation.variants.base + move, limits.low, limits.high))


class World:
    """Three variants whose usage goes up and down with time, and replicas that follow the plan a cycle later."""

    def __init__(self):
        self.clock = Clock()
        self.current = [2.0, 3.0, 1.0]
        self.fleet = self.look().fleet

    def look(self):
        phase = self.clock.time / 15.0
        rows = [
            {"variant": name, "kv_usage": 0.5 + 0.45 * np.sin(phase / 3 + row)}
            for row, name in enumerate("abc")
            for _ in range(int(self.current[row]))
        ]
        return observe(
            [
                {"name": name, "current": self.current[row], "model": "m" if row < 2 else "n"}
                for row, name in enumerate("abc")
            ],
            rows,
            time=self.clock.time,
            accelerators={"H100": (20, 8)},
        )

    def collector(self):
        def discover():
            return FleetUpdate(self.fleet, self.look().variants, self.look().inventory)

        def collect(_fleet, _wanted):
            table = self.look().replicas
            return Signals(ReplicaTable.of(table.index, {"kv_usage": table["kv_usage"]}))

        return collector(discover, collect)


def unreliable(answer, bad):
    """An answer that raises in the calls of these numbers."""
    count = itertools.count()

    def wrapped(*arguments):
        if next(count) in bad:
            raise RuntimeError("a bad day")
        return answer(*arguments)

    return wrapped


def chain_of(first=load_of, second=load_of, chooser=wide):
    signals = (SignalRequest("kv_usage"),)
    return brain(
        [analyzer(first, name="first", signals=signals), analyzer(second, name="second", signals=signals)],
        optimizer(chooser),
        bounds=BOUNDS,
    )


def recorded(chain, cycles=40):
    """The records of an engine over the moving world."""
    world = World()
    engine = Engine(runtime(world.clock), chain, (world.collector(),), ())
    records = []
    for _ in range(cycles):
        result = engine.run_cycle()
        records.append(result.record)
        world.current = result.plan.desired.tolist()
        world.clock.time += 15.0
    engine.stop()
    return records


def check(records, chain=None):
    chain = chain or chain_of()
    replayed = list(replay(records, lambda _policy: chain))
    assert [one.is_identical for one in replayed] == [True] * len(records)
    return replayed


def test_a_day_replays_to_the_same_plans():
    records = recorded(chain_of())
    desired = np.array([record.plan.desired for record in records])
    assert len(np.unique(desired)) > 3  # there is something to reproduce
    check(records)


def test_records_that_were_written_and_read_replay_too():
    check([Record.from_plain(record.to_plain()) for record in recorded(chain_of())])


@pytest.mark.parametrize("bad", [{"second": {3, 4, 5}}, {"first": {0}, "second": {0, 7}}])
def test_a_bad_day_replays_with_its_failures(bad):
    broken = {name: unreliable(load_of, calls) for name, calls in bad.items()}
    records = recorded(chain_of(**broken))
    struck = {record.cycle for record in records if any("bad day" in text for text in record.failures.values())}
    assert struck == set().union(*bad.values())
    check(records)


def test_an_optimizer_that_failed_at_either_question_replays():
    # a second question is put wherever a rate binds, so failures fall on first and on second ones
    records = recorded(chain_of(chooser=unreliable(wide, set(range(2, 60, 7)))))
    assert any(record.failures for record in records)
    check(records)


def test_an_answer_that_was_refused_replays():
    def greedy(observation, ballot, limits):
        answer = wide(observation, ballot, limits)
        return replace(answer, replicas=answer.replicas + 0.5) if ballot.grow.any() else answer

    records = recorded(chain_of(chooser=greedy))
    assert any("whole number" in text for record in records for text in record.failures.values())
    check(records, chain_of(chooser=greedy))


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_a_restart_from_a_checkpoint_makes_no_difference(cut):
    records = recorded(chain_of())
    later = [replace(record, memory=None) for record in records[cut:]]
    checkpoint = Memory.from_bytes(records[cut].memory.to_bytes())
    replayed = list(replay(later, lambda _policy: chain_of(), checkpoint))
    assert all(one.is_identical for one in replayed)


def test_a_gap_starts_from_the_memory_of_the_next_record():
    records = recorded(chain_of())
    check(records[:5] + records[20:])


def test_a_policy_that_changes_gets_a_brain_of_its_own_and_each_is_stopped():
    records = recorded(chain_of(), cycles=4)
    changed = [*records[:2], *(replace(record, policy={"other": True}) for record in records[2:])]
    built, stopped = [], []

    class Watched:
        def __init__(self, policy):
            self.chain = chain_of()
            built.append(policy)

        def __getattr__(self, name):
            return getattr(self.chain, name)

        def stop(self):
            stopped.append(len(built))
            return self.chain.stop()

    assert all(one.is_identical for one in replay(changed, Watched))
    assert built == [records[0].policy, {"other": True}]
    assert stopped == [1, 2]


def test_plans_differ_where_one_number_does():
    plan = recorded(chain_of(), cycles=1)[0].plan
    assert same_plan(plan, plan)
    assert not same_plan(plan, replace(plan, desired=plan.desired + 1))
    assert not same_plan(plan, replace(plan, reason=plan.reason + 1))
    assert not same_plan(plan, replace(plan, stalled=~plan.stalled))


def test_another_optimizer_makes_another_plan():
    replayed = list(replay(recorded(chain_of()), lambda _policy: chain_of(chooser=follows)))
    assert not all(one.is_identical for one in replayed)
