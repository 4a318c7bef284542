"""Builders say what they are told, and make nothing up."""

import math

import numpy as np
import pytest

import wva_core.testing
from wva_core.errors import ParameterError
from wva_core.hooks.catalog import NoParameters
from wva_core.testing import ballot, fleet_of, limits, observe, settings, vote
from wva_core.testing.samples import (
    fully_loaded,
    partly_unknown,
    reordered_ballot,
    rows_in_reverse,
    sample_ballot,
    sample_observation,
)


def test_every_public_name_can_be_had():
    assert sorted(wva_core.testing.__all__) == wva_core.testing.__all__
    for name in wva_core.testing.__all__:
        assert getattr(wva_core.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wva_core.testing.nothing  # noqa: B018 - the access is the test


def test_rows_may_come_in_any_order():
    seen = observe(
        variants=[{"name": "b", "cost": 2}, {"name": "a", "cost": 1}],
        replicas=[
            {"variant": "b", "kv_usage": 0.2},
            {"variant": "a", "pod": "a-2", "kv_usage": 0.5},
            {"variant": "ns/a", "pod": "a-1", "waiting": 4},
        ],
    )
    assert seen.fleet.keys == ("ns/a", "ns/b")
    assert seen.variants.cost.tolist() == [1, 2]
    assert seen.variants.current.tolist() == [2, 1]
    assert np.array_equal(seen.replicas["kv_usage"], [math.nan, 0.5, 0.2], equal_nan=True)
    assert np.array_equal(seen.replicas["waiting"], [4, math.nan, math.nan], equal_nan=True)
    assert np.isnan(seen.replicas["running"]).all()


def test_scope_signals_go_to_the_scopes_they_name():
    seen = observe(
        variants=[{"name": "a", "model": "m1"}, {"name": "b", "model": "m2"}, {"name": "c", "model": "m3"}],
        scopes=[{"model": "m1", "queue_size": 3}, {"model": "m3", "queue_size": 0}, {"arrival_rate": 2}],
    )
    assert np.array_equal(seen.scopes["queue_size"], [3, math.nan, 0], equal_nan=True)
    assert seen.scopes["arrival_rate"].tolist() == [2, 2, 2]


def test_a_settling_variant_starts_from_its_target():
    seen = observe(
        [
            {"name": "a", "current": 2, "target": 4, "settling": True},
            {"name": "b", "current": 2, "target": 4},
            {"name": "c", "current": 2, "settling": True},
        ]
    )
    assert seen.variants.base.tolist() == [4, 2, 2]


def test_ready_and_pending_complete_each_other():
    seen = observe(
        [
            {"name": "a", "current": 3, "pending": 1},
            {"name": "b", "current": 3, "ready": 1},
            {"name": "c", "current": 3},
        ]
    )
    assert seen.variants.ready.tolist() == [2, 1, 3]
    assert seen.variants.pending.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    "rows",
    [
        {"variants": [{"name": "a", "colour": "red"}]},
        {"variants": [{"name": "a"}], "replicas": [{"variant": "a", "kvUsage": 1}]},
        {"variants": [{"name": "a"}], "replicas": [{"variant": "b"}]},
        {"variants": [{"name": "a"}], "scopes": [{"queueSize": 1}]},
    ],
)
def test_a_misspelled_key_is_refused(rows):
    with pytest.raises(ParameterError):
        observe(**rows)


def test_settings_of_a_parameter_that_there_is_not_are_refused():
    with pytest.raises(ParameterError, match="is not known"):
        settings(NoParameters(), 1, target=[3.0])


def test_a_ballot_grows_where_anything_is_required_and_shrinks_where_all_have_spare():
    fleet = fleet_of("a")
    more, fewer, none = vote(fleet, required=1), vote(fleet, spare=1), vote(fleet)
    silent = vote(fleet, gates_shrink=False)

    def directions(*votes, **more_of_it):
        asked = ballot(fleet, *votes, **more_of_it)
        return bool(asked.grow[0]), bool(asked.shrink[0])

    assert directions(more) == (True, False)
    assert directions(more, fewer) == (True, False)
    assert directions(fewer, none) == (False, False)
    assert directions(fewer, silent) == (False, True)
    assert directions(silent) == (False, False)
    assert directions(fewer, frozen=True) == (False, False)
    assert directions(more, anchor=-1) == (False, False)


def test_limits_take_minimum_and_maximum_from_the_observation():
    seen = observe([{"name": "a", "min_replicas": 1, "max_replicas": 4}, {"name": "b"}])
    bounds = limits(seen, rows={"GPUs": ({"b": 2.0}, 9.0)})
    assert bounds.low.tolist() == [1, 0]
    assert bounds.high.tolist() == [4, math.inf]
    assert (bounds.rows.variant.tolist(), bounds.rows.coefficient.tolist()) == ([1], [2.0])
    assert limits(seen, low={"b": 2}, high=3).low.tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_under_other_names_is_the_same_fleet(seed):
    seen, renamed = sample_observation(seed, 30), sample_observation(seed, 30, reverse=True)
    variants, scopes = rows_in_reverse(seen.fleet, renamed.fleet)
    assert seen.fleet != renamed.fleet
    for name in ("cost", "current", "pending", "gpus"):
        assert np.array_equal(getattr(seen.variants, name), getattr(renamed.variants, name)[variants])
    for name, column in seen.scopes.items():
        assert np.array_equal(column, renamed.scopes[name][scopes])
    for row, other in enumerate(variants):
        one, two = seen.fleet.variants[row], renamed.fleet.variants[other]
        assert (one.role, one.accelerator) == (two.role, two.accelerator)
        assert renamed.fleet.scope_of_variant[other] == scopes[seen.fleet.scope_of_variant[row]]
        mine = seen.replicas["kv_usage"][seen.replicas.index.by_variant.rows(row)]
        theirs = renamed.replicas["kv_usage"][renamed.replicas.index.by_variant.rows(other)]
        assert sorted(mine) == sorted(theirs)
    asked = sample_ballot(seen, seed)
    moved = reordered_ballot(asked, variants, scopes)
    assert np.array_equal(moved.votes[0].capacity[variants], asked.votes[0].capacity)
    assert np.array_equal(moved.grow[scopes], asked.grow)


def test_samples_hold_every_direction():
    asked = sample_ballot(sample_observation(0, 100))
    assert asked.grow.any()
    assert asked.shrink.any()
    assert (~asked.grow & ~asked.shrink).any()


def test_full_load_fills_exactly_what_is_not_known():
    seen = sample_observation(0)
    unsure = partly_unknown(seen, 0.5)
    loaded = fully_loaded(unsure)
    gaps = np.isnan(unsure.replicas["waiting"])
    assert 0 < gaps.sum() < len(gaps)
    assert np.array_equal(loaded.replicas["waiting"], np.where(gaps, 1000.0, seen.replicas["waiting"]))
