"""Several collectors, one observation: precedence per cell, disagreement, and pictures that are kept."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.engine.parts import LONG, NAN, collector
from wva_core.domain import SCOPE_SIGNALS, Columns, Fleet, FleetUpdate, Inventory, ReplicaTable, Signals, VariantTable
from wva_core.engine import Deadline
from wva_core.engine.merge import Observer, merged_signals, merged_updates
from wva_core.testing.builders import fleet_of, observe


def update(*names, current=1.0, complete=True, **columns):
    fleet = fleet_of(*names)
    return FleetUpdate(fleet, VariantTable.of([current] * len(names), **columns), complete=complete)


def table_of(rows):
    """A replica table from {pod: {signal: value}} of variant `a`."""
    return observe([{"name": "a"}], [{"variant": "a", "pod": pod, **row} for pod, row in rows.items()]).replicas


# ---------------------------------------------------------------------------------------------------------------------
# Cells


def test_per_cell_the_first_that_knows_it_wins():
    fleet = fleet_of("a")
    first = table_of({"p1": {"kv_usage": 0.5}, "p2": {"kv_usage": NAN}})
    second = table_of({"p1": {"kv_usage": 0.52, "waiting": 1}, "p2": {"kv_usage": 0.7, "waiting": 2}})
    replicas, *_ = merged_signals(fleet, [Signals(first), Signals(second)])
    assert replicas.index.pods == ("p1", "p2")
    assert (replicas["kv_usage"].tolist(), replicas["waiting"].tolist()) == ([0.5, 0.7], [1.0, 2.0])


def test_a_pod_that_only_one_of_them_lists_is_there():
    first, second = table_of({"p2": {"kv_usage": 0.5}}), table_of({"p1": {"kv_usage": 0.7}})
    replicas, *_ = merged_signals(fleet_of("a"), [Signals(first), Signals(second)])
    assert (replicas.index.pods, replicas["kv_usage"].tolist()) == (("p1", "p2"), [0.7, 0.5])


def test_the_age_of_a_cell_goes_with_its_value():
    index = table_of({"p1": {}, "p2": {}}).index
    first = ReplicaTable.of(index, {"kv_usage": [0.5, NAN]}, {"kv_usage": [3.0, 99.0]})
    second = ReplicaTable.of(index, {"kv_usage": [0.5, 0.6]}, {"kv_usage": [7.0, 8.0]})
    replicas, *_ = merged_signals(fleet_of("a"), [Signals(first), Signals(second)])
    assert replicas.age("kv_usage").tolist() == [3.0, 8.0]


# two collectors conflict where they differ by more than a tenth of the larger value
@pytest.mark.parametrize(("other", "conflicts"), [(0.45, False), (0.44, True), (0.5, False), (NAN, False)])
def test_collectors_that_differ_by_more_than_a_tenth_conflict(other, conflicts):
    first, second = table_of({"p": {"kv_usage": 0.5}}), table_of({"p": {"kv_usage": other}})
    replicas, _, _, found = merged_signals(fleet_of("a"), [Signals(first), Signals(second)])
    assert replicas["kv_usage"].tolist() == [0.5]
    assert {name: column.tolist() for name, column in found.items()} == ({"kv_usage": [True]} if conflicts else {})


def test_signals_of_scopes_merge_and_conflict_alike():
    fleet = Fleet([*fleet_of("a", model="m").variants, *fleet_of("b", model="n").variants])
    first = Signals(scopes=Columns(2, SCOPE_SIGNALS, {"queue_size": [4.0, NAN]}))
    second = Signals(scopes=Columns(2, SCOPE_SIGNALS, {"queue_size": [5.0, 6.0], "arrival_rate": [1.0, 2.0]}))
    _, scopes, extra, conflicts = merged_signals(fleet, [first, second])
    assert (scopes["queue_size"].tolist(), scopes["arrival_rate"].tolist()) == ([4.0, 6.0], [1.0, 2.0])
    assert conflicts["queue_size"].tolist() == [True, False]
    assert extra is None


def test_without_an_answer_nothing_is_known():
    fleet = fleet_of("a")
    replicas, scopes, extra, conflicts = merged_signals(fleet, [])
    assert (len(replicas), np.isnan(scopes["queue_size"]).tolist(), extra, conflicts) == (0, [True], None, {})


def test_updates_are_united_and_per_cell_the_first_that_knows_it_wins():
    one = replace(update("a", "b"), variants=VariantTable.of([2.0, NAN], cost=[5.0, 6.0]))
    other = replace(update("b", "c"), variants=VariantTable.of([3.0, 4.0], cost=[7.0, 8.0]))
    merged = merged_updates([one, other])
    assert merged.fleet.keys == ("ns/a", "ns/b", "ns/c")
    assert (merged.variants.current.tolist(), merged.variants.cost.tolist()) == ([2, 3, 4], [5, 6, 8])


def test_an_update_that_cannot_list_everything_makes_the_whole_incomplete():
    assert not merged_updates([update("a"), update("b", complete=False)]).complete


# ---------------------------------------------------------------------------------------------------------------------
# Asking


class Answers:
    """A collector's `discover`, told by the test what to do next."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def observers():
    made = []

    def make(*entries, **options):
        made.extend(entries)
        return Observer(tuple(entries), **options)

    yield make
    for entry in made:
        entry.stop()


def look(observer, seconds=None):
    return observer.observe(1.0, (), Deadline(seconds))


def test_the_signals_that_are_wanted_and_the_fleet_reach_every_collector(observers):
    told = []

    def collect(fleet, wanted):
        told.append((fleet.keys, wanted))
        return Signals()

    known = update("a")
    observer = observers(collector(lambda: known, collect, name="one"), collector(None, collect, name="two"))
    seen, failures = observer.observe(5.0, ("kv",), Deadline(None))
    assert told == [(("ns/a",), ("kv",))] * 2
    assert (seen.time, seen.complete, failures) == (5.0, True, {})


def test_a_fleet_that_stays_the_same_stays_the_same_object(observers):
    one, other = update("a"), update("b")
    observer = observers(collector(lambda: one, name="one"), collector(lambda: other, name="two"))
    assert look(observer)[0].fleet is look(observer)[0].fleet


def test_a_discovery_that_fails_takes_nothing_away(observers):
    answers = Answers(update("a", "b", current=3.0))
    observer = observers(collector(answers))
    look(observer)
    answers.answer = OSError("connection refused")
    seen, failures = look(observer)
    assert (seen.complete, seen.fleet.keys, seen.variants.current.tolist()) == (False, ("ns/a", "ns/b"), [3.0, 3.0])
    assert "raised OSError: connection refused" in str(failures["collector eyes"])
    answers.answer = update("a")
    seen, failures = look(observer)
    assert (seen.complete, seen.fleet.keys, failures) == (True, ("ns/a",), {})


def test_beside_one_that_fails_the_others_are_still_heard(observers):
    answers = Answers(update("b"))
    numbers = Answers(update("a", current=1.0))
    observer = observers(collector(numbers, name="one"), collector(answers, name="two"))
    look(observer)
    answers.answer, numbers.answer = OSError("down"), update("a", current=5.0)
    seen, _ = look(observer)
    assert (seen.complete, seen.fleet.keys, seen.variants.current.tolist()) == (False, ("ns/a", "ns/b"), [5.0, 1.0])


def test_what_an_incomplete_list_leaves_out_is_not_gone(observers):
    answers = Answers(update("a", "b", current=3.0))
    observer = observers(collector(answers))
    look(observer)
    answers.answer = update("b", current=4.0, complete=False)
    for _ in range(2):
        seen, _ = look(observer)
        assert (seen.complete, seen.fleet.keys) == (False, ("ns/a", "ns/b"))
        assert seen.variants.current.tolist() == [3.0, 4.0]


def test_until_everybody_has_answered_once_who_there_was_before_is_still_there(observers):
    answers = Answers(OSError("not yet"))
    observer = observers(collector(answers), known=fleet_of("a", "b"))
    seen, _ = look(observer)
    assert (seen.complete, seen.fleet.keys) == (False, ("ns/a", "ns/b"))
    assert np.isnan(seen.variants.current).all()
    answers.answer = update("b")
    assert look(observer)[0].fleet.keys == ("ns/b",)
    answers.answer = OSError("again")
    assert look(observer)[0].fleet.keys == ("ns/b",)


def test_a_collection_that_fails_leaves_its_cells_unknown(observers):
    known = update("a")

    def broken(_fleet, _wanted):
        raise OSError("no route")

    seen, failures = look(observers(collector(lambda: known, broken)))
    assert (seen.complete, len(seen.replicas)) == (True, 0)
    assert "raised OSError: no route" in str(failures["collector eyes"])


def test_a_late_collector_leaves_time_to_the_others(observers):
    release = threading.Event()

    def stuck():
        assert release.wait(LONG)
        return update("late")

    known = update("a")
    slow = collector(stuck, lambda *_: Signals(), name="slow")
    quick = collector(
        lambda: known,
        lambda fleet, _: Signals(
            ReplicaTable.of(
                observe([{"name": "a"}], [{"variant": "a", "kv_usage": 0.5}]).replicas.index, {"kv_usage": [0.5]}
            )
        ),
        name="quick",
    )
    seen, failures = look(observers(slow, quick), seconds=0.4)
    release.set()
    assert (seen.complete, seen.fleet.keys, seen.replicas["kv_usage"].tolist()) == (False, ("ns/a",), [0.5])
    # what it failed first is told, not that it was left out of the second question for that reason
    assert "discover: did not answer within" in str(failures["collector slow"])
    assert list(failures) == ["collector slow"]


MISFITS = {
    "no update": (lambda: 3, None, "discover.answer: is not what the hook returns (got 'int'); return FleetUpdate"),
    "table of others": (
        lambda: FleetUpdate(fleet_of("a"), VariantTable.of([1.0, 2.0])),
        None,
        "discover.variants.cost: is not what the hook returns (got (2,))",
    ),
    "inventory": (
        lambda: FleetUpdate(fleet_of("a"), VariantTable.of([1.0]), Inventory(("H100",), np.ones(2), np.ones(1))),
        None,
        "discover.inventory.capacity: is not what the hook returns (got (2,)); return one number for each accelerator",
    ),
    "no signals": (None, lambda *_: 3, "collect.answer: is not what the hook returns (got 'int'); return Signals"),
    "rows of another fleet": (
        None,
        lambda *_: Signals(observe([{"name": "a"}, {"name": "b"}]).replicas),
        "collect.replicas: is not what the hook returns (got 2)",
    ),
    "scopes of another fleet": (
        None,
        lambda *_: Signals(scopes=Columns(2, SCOPE_SIGNALS)),
        "collect.scopes: is not what the hook returns (got 2); return 1 rows",
    ),
}


@pytest.mark.parametrize(("discover", "collect", "problem"), MISFITS.values(), ids=MISFITS.keys())
def test_an_answer_that_does_not_fit_is_a_failure_of_the_collector(observers, discover, collect, problem):
    known = update("a")
    seen, failures = look(observers(collector(discover or (lambda: known), collect)))
    assert problem in str(failures["collector eyes"])
    assert seen.complete == (discover is None)
