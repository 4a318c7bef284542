"""Headroom on fleets of many scopes, against a plain loop over the definition."""

import numpy as np
import pytest

from tests.oracles.saturation_percentages import analyse
from wva_analyzers.saturation_v1.headroom import Levels, headroom
from wva_core.domain import Groups


def random_fleet(seed, replicas=600, variants=60, scopes=15):
    rng = np.random.default_rng(seed)
    # coarse values meet the thresholds and triggers exactly, fine ones fall between them
    kv = np.where(rng.random(replicas) < 0.5, rng.integers(0, 100, replicas) / 100, rng.random(replicas))
    kv *= rng.choice([1.0, 0.6])
    waiting = rng.integers(0, 7, replicas) * rng.choice([1.0, 0.5], replicas)
    variant = np.sort(rng.integers(0, variants, replicas))
    return kv, waiting, variant, rng.integers(0, scopes, variants), scopes


def levels(scopes, K=0.80, Q=5.0, ks=0.10, qs=3.0):
    return Levels(*(np.full(scopes, value) for value in (K, Q, ks, qs)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("thresholds", [{}, {"K": 0.7, "ks": 0.35}, {"Q": 3.0, "qs": 0.5}], ids=str)
def test_figures_equal_a_plain_loop_to_the_last_bit(seed, thresholds):
    kv, waiting, variant, scope_of_variant, scopes = random_fleet(seed)
    by_variant = Groups.by(variant, len(scope_of_variant))
    found = headroom(kv, waiting, by_variant, Groups.by(scope_of_variant, scopes), levels(scopes, **thresholds))
    for scope in range(scopes):
        rows = np.flatnonzero(scope_of_variant[variant] == scope)
        expected = analyse([(variant[row], float(kv[row]), float(waiting[row])) for row in rows], **thresholds)
        assert found.grow[scope] == expected["up"]
        assert found.shrink[scope] == expected["down"]
        assert found.non_saturated[scope] == expected["n"]
        assert found.saturated[scope] == expected["saturated"]
        assert (found.avg_spare_kv[scope], found.avg_spare_queue[scope]) == (expected["AK"], expected["AQ"])
        for name, value in expected["avg_kv"].items():
            assert found.avg_kv[name] == value
            assert found.max_kv[name] == expected["max_kv"][name]
            assert found.max_queue[name] == expected["max_queue"][name]


def test_random_fleets_reach_every_outcome():
    outcomes = set()
    for seed in range(20):
        kv, waiting, variant, scope_of_variant, scopes = random_fleet(seed)
        by_variant = Groups.by(variant, len(scope_of_variant))
        found = headroom(kv, waiting, by_variant, Groups.by(scope_of_variant, scopes), levels(scopes))
        outcomes |= set(zip(found.grow.tolist(), found.shrink.tolist(), strict=True))
    assert outcomes == {(True, False), (False, True), (False, False)}


def test_thresholds_may_differ_between_scopes():
    # two scopes with one replica each at kv .36: spare .44 against .10, and .34 against .35
    kv, waiting = np.array([0.36, 0.36]), np.zeros(2)
    each = Groups.by(np.array([0, 1]), 2)
    both = Levels(np.array([0.80, 0.70]), np.full(2, 5.0), np.array([0.10, 0.35]), np.full(2, 3.0))
    assert headroom(kv, waiting, each, each, both).grow.tolist() == [False, True]


def test_a_scope_without_replicas_asks_for_nothing_and_is_not_judged():
    none = Groups.by(np.array([], dtype=np.int64), 1)
    found = headroom(np.array([]), np.array([]), none, Groups.by(np.array([0]), 1), levels(1))
    assert (found.judged[0], found.grow[0], found.shrink[0]) == (False, False, False)
    assert np.isnan(found.avg_kv[0])
    assert np.isnan(found.max_queue[0])
