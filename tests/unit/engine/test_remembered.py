"""What the engine adds to an observation from memory: targets, settling, and samples too old to use."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.engine.parts import NAN, bounds_of, remembering
from wva_core.domain import Columns, ReplicaTable
from wva_core.engine.remembered import completed, held, stalled
from wva_core.testing.builders import observe


def seen_at(time, memory_of, *, settle=300.0, **variant):
    """One variant at a time, completed with a memory made for its fleet."""
    seen = replace(observe([{"name": "a", **variant}]), time=time)
    return completed(seen, memory_of(seen.fleet), bounds_of(seen, settle=settle))


def target(value, since=0.0, **parts):
    return lambda fleet: remembering(fleet, target=[value], since=since, **parts)


# A target of 6 set at 0 s, four replicas there, all ready. settleSeconds 300: strictly less than 300 s is settling.
@pytest.mark.parametrize(
    ("time", "settling", "base", "stuck"),
    [(0, True, 6, False), (299, True, 6, False), (300, False, 4, True), (9000, False, 4, True)],
)
def test_a_target_is_the_base_while_it_is_being_reached_and_then_what_is_there(time, settling, base, stuck):
    seen = seen_at(time, target(6.0), current=4)
    assert (bool(seen.variants.settling[0]), seen.variants.base[0]) == (settling, base)
    assert bool(stalled(seen)[0]) == stuck


@pytest.mark.parametrize(("time", "settling", "stuck"), [(100, True, False), (399, True, False), (400, False, True)])
def test_a_pending_replica_settles_for_as_long_and_then_it_is_a_stall(time, settling, stuck):
    pending = target(4.0, pending_since=np.array([100.0]))
    seen = seen_at(time, pending, current=4, pending=1)
    assert (bool(seen.variants.settling[0]), seen.variants.base[0]) == (settling, 4.0)
    assert bool(stalled(seen)[0]) == stuck


def test_pending_counts_from_when_it_was_first_seen_and_is_forgotten_when_it_ends():
    assert seen_at(50.0, target(4.0), current=4, pending=1).variants.pending_since[0] == 50.0
    ended = seen_at(50.0, target(4.0, pending_since=np.array([10.0])), current=4)
    assert np.isnan(ended.variants.pending_since[0])


def test_without_a_target_what_is_there_is_the_base():
    seen = seen_at(0.0, target(NAN), current=3)
    assert (bool(seen.variants.settling[0]), seen.variants.base[0], held(seen)[0]) == (False, 3.0, 3.0)


def test_a_target_reached_settles_nothing():
    seen = seen_at(1.0, target(3.0), current=3)
    assert (bool(seen.variants.settling[0]), bool(stalled(seen)[0])) == (False, False)


def test_with_settle_seconds_zero_nothing_ever_settles():
    seen = seen_at(0.0, target(6.0), current=4, settle=0.0)
    assert (bool(seen.variants.settling[0]), seen.variants.base[0], bool(stalled(seen)[0])) == (False, 4.0, True)


def test_what_is_held_is_the_target_however_long_it_was_not_reached():
    assert held(seen_at(9000.0, target(6.0), current=4))[0] == 6.0


def test_unknown_replicas_are_held_at_the_target_and_are_no_stall():
    seen = seen_at(9000.0, target(6.0), current=NAN, ready=NAN, pending=NAN)
    assert (held(seen)[0], bool(stalled(seen)[0])) == (6.0, False)
    assert np.isnan(seen.variants.base[0])


def test_samples_as_old_as_the_limit_are_not_known_any_more():
    seen = observe([{"name": "a", "current": 3}], [{"variant": "a", "kv_usage": 0.5}] * 3, [{"arrival_rate": 2.0}])
    ages = {"kv_usage": np.array([299.0, 300.0, 301.0])}
    seen = replace(
        seen,
        replicas=ReplicaTable.of(seen.replicas.index, {"kv_usage": seen.replicas["kv_usage"]}, ages),
        scopes=Columns(1, None, {"arrival_rate": [2.0]}, {"arrival_rate": [300.0]}),
    )
    done = completed(seen, remembering(seen.fleet), bounds_of(seen, unavailable=300.0))
    assert np.isnan(done.replicas["kv_usage"]).tolist() == [False, True, True]
    assert np.isnan(done.scopes["arrival_rate"]).tolist() == [True]
    assert seen.replicas["kv_usage"].tolist() == [0.5, 0.5, 0.5]
