"""The engine in service: reload, ends, fence, leadership, subscribers, and what a restart continues."""

import threading

import numpy as np
import pytest

from tests.unit.engine.parts import (
    LONG,
    Clock,
    actuator,
    analyzer,
    brain,
    collector,
    follows,
    optimizer,
    runtime,
    shown,
    steps,
)
from wva_core.domain import Memory
from wva_core.engine import CycleResult, Engine, PolicyRefused
from wva_core.errors import PluginFailure, PolicyError
from wva_core.policy.layers import Layer
from wva_core.testing.builders import observe


@pytest.fixture
def world():
    """Makes engines in service over one observation, and stops them after the test."""
    made = []

    def make(seen=None, *, answer=None, actuators=(), collectors=None, **options):
        seen = seen or observe([{"name": "a", "current": 2}])
        chain = brain([analyzer(answer or steps(required=1))], optimizer(follows), **options.pop("policy", {}))
        engine = Engine(
            runtime(options.pop("clock", None)), chain, collectors or (shown(seen),), tuple(actuators), **options
        )
        engine.start()
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.stop()


def told_by(engine):
    heard = []
    engine.subscribers.append(heard.append)
    return heard


# ---------------------------------------------------------------------------------------------------------------------
# A cycle


def test_a_cycle_ends_with_a_plan_in_the_hands_of_the_actuators(world):
    plans = []
    result = world(actuators=[actuator(lambda plan, _fence: plans.append(plan))]).run_cycle()
    assert result.plan.desired.tolist() == [3.0]
    assert plans == [result.plan]
    assert (result.reports["actuator hands"].written, dict(result.failures)) == (1, {})


def test_the_observation_has_the_time_of_the_clock(world):
    assert world(clock=Clock(42.0)).run_cycle().plan.time == 42.0


def test_memory_goes_from_cycle_to_cycle(world):
    engine = world()
    # each step is made from the target before it
    cycles = [engine.run_cycle() for _ in range(3)]
    assert [(one.record.cycle, one.plan.desired.tolist()) for one in cycles] == [(0, [3.0]), (1, [4.0]), (2, [5.0])]
    assert engine.memory.target.tolist() == [5.0]


def test_an_actuator_that_fails_costs_the_others_nothing(world):
    done = []
    engine = world(
        actuators=[
            actuator(lambda *_: 1 / 0, name="broken"),
            actuator(lambda *_: 3, name="odd"),
            actuator(lambda *_: done.append(1), name="good"),
        ]
    )
    result = engine.run_cycle()
    assert (done, list(result.reports)) == ([1], ["actuator good"])
    assert "raised ZeroDivisionError" in str(result.failures["actuator broken"])
    assert "act.answer: is not what the hook returns (got 'int'); return ActuationReport" in str(
        result.failures["actuator odd"]
    )


def test_in_observe_mode_nobody_acts(world):
    acted = []
    engine = world(actuators=[actuator(lambda *_: acted.append(1))], policy={"mode": "observe"})
    assert (engine.run_cycle().plan.desired.tolist(), acted) == ([3.0], [])


def test_a_collector_that_fails_is_a_failure_of_the_cycle_and_everything_holds(world):
    engine = world(collectors=(collector(lambda: 1 / 0),))
    result = engine.run_cycle()
    assert "raised ZeroDivisionError" in str(result.failures["collector eyes"])
    assert result.plan.degraded


# ---------------------------------------------------------------------------------------------------------------------
# The fence


def test_a_late_actuator_writes_nothing_once_there_is_a_newer_plan(world):
    go_on, entered, wrote = threading.Event(), threading.Event(), []

    def slow(plan, fence):
        entered.set()
        assert go_on.wait(LONG)
        if fence.current:
            wrote.append(plan)

    # the shortest interval there is: one second
    engine = world(actuators=[actuator(slow)], policy={"interval": 1})
    first = engine.run_cycle()
    assert "did not answer within" in str(first.failures["actuator hands"])
    second = engine.run_cycle()
    assert "is quarantined: its call to act has still not come back" in str(second.failures["actuator hands"])
    go_on.set()
    engine.stop()
    assert (entered.is_set(), wrote) == (True, [])


def test_a_fence_stands_while_its_plan_is_the_newest(world):
    fences = []
    engine = world(actuators=[actuator(lambda _plan, fence: fences.append(fence))])
    engine.run_cycle()
    assert fences[0].current
    engine.run_cycle()
    assert [fence.current for fence in fences] == [False, True]
    engine.stand_down()
    assert [fence.current for fence in fences] == [False, False]


def test_standing_down_tells_every_actuator_and_the_next_cycle_acts_again(world):
    log = []

    def hands(name, stand_down):
        return actuator(lambda *_: log.append(f"{name} acts"), name=name, stand_down=stand_down)

    engine = world(actuators=[hands("one", lambda: 1 / 0), hands("two", lambda: log.append("two stands down"))])
    failures = engine.stand_down()
    assert (list(failures), log) == (["actuator one"], ["two stands down"])
    engine.run_cycle()
    assert sorted(log) == ["one acts", "two acts", "two stands down"]  # they act at once


# ---------------------------------------------------------------------------------------------------------------------
# Policy


INSTALLED = [Layer("file", {"profile": "saturation-v1"})]


def source(*answers):
    """A policy source that gives these in turn, then nothing more."""
    turn = iter(answers)

    def poll():
        answer = next(turn, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return poll


def test_a_new_policy_is_in_force_with_the_next_cycle_and_memory_stays(world):
    engine = world(policy_source=source(None, INSTALLED))
    old = engine.brain
    assert engine.run_cycle().plan.desired.tolist() == [3.0]
    target = engine.memory.target
    result = engine.run_cycle()
    assert engine.brain is not old
    assert [entry.label for entry in engine.brain.entries] == ["analyzer saturation-v1", "optimizer stepwise"]
    # nothing reports, so the new analyzer freezes at the target of the old one
    assert result.plan.desired.tolist() == target.tolist()
    assert (result.policy_changed, result.record.cycle) == (True, 1)
    assert not engine.run_cycle().policy_changed


def test_the_first_cycle_is_the_first_of_its_policy(world):
    engine = world()
    assert [engine.run_cycle().policy_changed for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "bad",
    [
        [Layer("file", {"profile": "nobodys"})],
        [Layer("file", {"analyzers": [{"type": "nobodys"}], "optimizer": {"type": "stepwise"}})],
        [Layer("file", {"interval": 0})],
        PolicyError("cannot be read", object="file", remedy="mend it"),
    ],
)
def test_a_bad_policy_is_refused_and_the_old_one_goes_on(world, bad):
    engine = world(policy_source=source(bad))
    heard = told_by(engine)
    old = engine.brain
    result = engine.run_cycle()
    assert engine.brain is old
    assert (result.plan.desired.tolist(), result.failures) == ([3.0], {})
    assert [type(one) for one in heard] == [PolicyRefused, CycleResult]


def test_an_entry_of_the_same_name_and_plugin_continues_with_its_state(world):
    engine = world(policy_source=source(None, INSTALLED, None, INSTALLED))
    engine.run_cycle()
    engine.run_cycle()
    before = dict(engine.memory.states)
    assert "saturation-v1" in before
    engine.run_cycle()
    engine.run_cycle()
    assert engine.memory.states["saturation-v1"] == before["saturation-v1"]


# ---------------------------------------------------------------------------------------------------------------------
# Ends


def test_ends_are_replaced_the_old_ones_stop_before_the_new_ones_start(world):
    log = []
    engine = world(actuators=[actuator(name="old", stop=lambda: log.append("old stops"))])
    new = actuator(lambda *_: log.append("new acts"), name="new", start=lambda: log.append("new starts"))
    engine.replace_ends((shown(observe([{"name": "a", "current": 5}])),), (new,))
    result = engine.run_cycle()
    assert log == ["old stops", "new starts", "new acts"]
    assert result.plan.current.tolist() == [5.0]


def test_a_new_end_that_refuses_brings_the_old_ones_back(world):
    log = []
    old = actuator(
        lambda *_: log.append("old acts"),
        name="old",
        start=lambda: log.append("old starts"),
        stop=lambda: log.append("old stops"),
    )
    engine = world(actuators=[old])
    with pytest.raises(PluginFailure, match="actuator new: start: cannot go into service: ZeroDivisionError"):
        engine.replace_ends(engine.collectors, (actuator(name="new", start=lambda: 1 / 0),))
    assert engine.actuators == (old,)
    engine.run_cycle()
    assert log == ["old starts", "old stops", "old starts", "old acts"]


def test_new_collectors_that_fail_at_first_forget_nobody(world):
    engine = world()
    engine.run_cycle()
    engine.replace_ends((collector(lambda: 1 / 0),), ())
    result = engine.run_cycle()
    assert (result.plan.fleet.keys, result.plan.desired.tolist()) == (("ns/a",), [3.0])


def test_what_an_old_end_raises_when_it_leaves_is_told_with_the_next_cycle(world):
    engine = world(actuators=[actuator(name="old", stop=lambda: 1 / 0)])
    engine.replace_ends(engine.collectors, ())
    assert str(engine.run_cycle().failures["actuator old"]) == (
        "actuator old: left service and raised ZeroDivisionError: division by zero;"
        " nothing waits for it; mend what it names"
    )
    assert engine.run_cycle().failures == {}


# ---------------------------------------------------------------------------------------------------------------------
# Subscribers


def test_every_subscriber_is_told_of_every_cycle(world):
    engine = world()
    one, other = told_by(engine), told_by(engine)
    results = [engine.run_cycle(), engine.run_cycle()]
    assert one == other == results


def test_a_subscriber_that_raises_stops_nobody_and_is_told_of_with_the_next_cycle(world):
    engine = world()

    def full_disk(_result):
        raise OSError("no space left")

    engine.subscribers.append(full_disk)
    heard = told_by(engine)
    engine.run_cycle()
    result = engine.run_cycle()
    assert len(heard) == 2
    (label,) = result.failures
    assert label.startswith("subscriber ")
    assert str(result.failures[label]).endswith(
        "raised OSError: no space left; what it was told is lost to it; mend what it names"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Start, stop, restart


def test_plugins_start_together_or_not_at_all(world):
    log = []
    one = actuator(name="one", start=lambda: log.append("starts"), stop=lambda: log.append("stops"))
    with pytest.raises(PluginFailure, match="actuator two: start: cannot go into service"):
        world(actuators=[one, actuator(name="two", start=lambda: 1 / 0)])
    assert log == ["starts", "stops"]


def test_stopping_ends_every_thread_and_tells_what_was_raised(world):
    engine = world(actuators=[actuator(stop=lambda: 1 / 0)])
    engine.run_cycle()
    before = {thread for thread in threading.enumerate() if thread.name.startswith("wva-")}
    assert list(engine.stop()) == ["actuator hands"]
    for thread in before:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in before)


def test_a_restart_from_the_checkpoint_continues_even_if_nothing_can_be_listed_at_first(world):
    engine = world()
    engine.run_cycle()
    checkpoint = Memory.from_bytes(engine.memory.to_bytes())
    again = world(memory=checkpoint, collectors=(collector(lambda: 1 / 0),))
    result = again.run_cycle()
    assert (result.plan.fleet.keys, result.plan.desired.tolist()) == (("ns/a",), [3.0])
    assert np.isnan(result.plan.current).tolist() == [True]
    assert again.memory.target.tolist() == [3.0]
