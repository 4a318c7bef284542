"""The cheapest covers against every plan of small demands, against the exact solver, and what bounds them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from wva_core.numerics import covering
from wva_core.numerics.assignment import Problem, solve_exact
from wva_core.numerics.covering import cheapest_covers

CLOSE = 1e-9


def small_demands(seed):
    """One to three servers of one to three pairs, one or two units of demand; costs and parts with many ties."""
    rng = np.random.default_rng(seed)
    server = np.sort(rng.integers(0, 3, rng.integers(1, 7)))
    server = server[np.arange(len(server)) - np.searchsorted(server, server) < 3]
    pairs, units = len(server), int(rng.integers(1, 3))
    unit = rng.integers(0, 6, pairs).astype(float)
    part = rng.integers(0, 5, (units, pairs)) / rng.integers(3, 9)
    return server, unit, part, rng.random((units, 3)) < 0.8, rng.integers(0, 5, pairs).astype(float)


def least_by_looking(server, unit, part, wanted, most, of):
    """The least cost of one server over all plans, and with each of its pairs."""
    mine = np.flatnonzero(server == of)
    best, with_pair = np.inf, dict.fromkeys(mine.tolist(), np.inf)
    for counts in itertools.product(*[range(int(most[pair]) + 1) for pair in mine]):
        carried = [
            sum(part[row][pair] * count for pair, count in zip(mine, counts, strict=True)) for row in range(len(part))
        ]
        if any(need[of] and got < 1 - CLOSE for need, got in zip(wanted, carried, strict=True)):
            continue
        cost = sum(unit[pair] * count for pair, count in zip(mine, counts, strict=True))
        best = min(best, cost)
        for pair, count in zip(mine.tolist(), counts, strict=True):
            if count:
                with_pair[pair] = min(with_pair[pair], cost)
    return best, with_pair


@pytest.mark.parametrize("seed", range(150))
def test_least_costs_are_those_of_all_plans(seed):
    server, unit, part, wanted, most = small_demands(seed)
    covers = cheapest_covers(server, unit, part, wanted, most, plans=50, margin=1.0, with_pairs=True)
    for one in range(3):
        least, with_pair = least_by_looking(server, unit, part, wanted, most, one)
        if not np.isfinite(least) or not wanted[:, one].any():
            continue
        assert covers.least[one] == pytest.approx(least, abs=CLOSE)
        for pair, cost in with_pair.items():
            assert least - CLOSE <= max(covers.with_pair[pair], least) <= max(cost, least) + CLOSE
            assert covers.with_pair[pair] <= cost + CLOSE
        plans = covers.server == one
        costs = (unit[covers.pair[plans]] * covers.replicas[plans]).sum(axis=1)
        assert costs.min() == pytest.approx(least, abs=CLOSE)


@pytest.mark.parametrize("seed", range(60))
def test_plans_carry_the_demand_within_what_there_is(seed):
    server, unit, part, wanted, most = small_demands(seed)
    covers = cheapest_covers(server, unit, part, wanted, most, plans=8, margin=0.5)
    assert np.all(np.diff(covers.server) >= 0)
    for one, pairs, counts in zip(covers.server, covers.pair, covers.replicas, strict=True):
        used = counts > 0
        assert set(server[pairs[used]]) <= {one}
        assert np.all(counts[used] <= most[pairs[used]])
        assert np.all(part[:, pairs[used]] @ counts[used] >= wanted[:, one] * (1 - CLOSE))


def test_a_mix_by_hand():
    # 11 to carry: two of 10 cost 20, eleven of 1 cost 22, one of each 12
    covers = cheapest_covers(
        np.array([0, 0]),
        np.array([10.0, 2.0]),
        np.array([[10.0, 1.0]]) / 11,
        np.array([[True]]),
        np.array([2.0, 11.0]),
        plans=1,
    )
    assert covers.least.tolist() == [pytest.approx(12)]
    assert covers.replicas.tolist() == [[1, 1]]


@pytest.mark.parametrize("seed", range(4))
def test_larger_demands_cost_what_the_exact_solver_says(seed):
    rng = np.random.default_rng(seed)
    unit, rate, demand = rng.uniform(1, 12, 6), rng.uniform(1, 12, 6), rng.uniform(20, 200)
    exact = solve_exact(Problem.of(np.zeros(6, dtype=int), unit, rate, [demand]))
    covers = cheapest_covers(
        np.zeros(6, dtype=int), unit, rate[None] / demand, np.array([[True]]), np.ceil(demand / rate)
    )
    assert exact.status == "optimal"
    assert covers.least[0] == pytest.approx(exact.objective)


def test_an_enumeration_that_is_cut_short_leaves_a_bound_and_a_plan(monkeypatch):
    monkeypatch.setattr(covering, "_STATES", 1)
    monkeypatch.setattr(covering, "_LEAST_STATES", 3)
    rng = np.random.default_rng(1)
    unit, rate = rng.uniform(1, 2, 8), rng.uniform(0.9, 1.1, 8)
    problem = np.zeros(8, dtype=int), unit, rate[None] / 100, np.array([[True]]), np.full(8, 200.0)
    short = cheapest_covers(*problem, plans=4)
    monkeypatch.undo()
    complete = cheapest_covers(*problem)
    assert 100 * (unit / rate).min() <= short.least[0] <= complete.least[0] * (1 + CLOSE)
    assert len(short.server) >= 1


def test_many_equal_pairs_are_looked_at_once():
    # 12 pairs that are all the same: without that 200 to the power of 11 plans cost as little
    covers = cheapest_covers(
        np.zeros(12, dtype=int), np.ones(12), np.full((1, 12), 1 / 199.5), np.array([[True]]), np.full(12, 200.0)
    )
    assert covers.least.tolist() == [200.0]


def test_nothing_to_carry_costs_nothing():
    nothing = cheapest_covers(np.array([0]), np.ones(1), np.ones((1, 1)), np.array([[False]]), np.ones(1), plans=3)
    assert nothing.least.tolist() == [0.0]
    assert not nothing.server.size
    empty = cheapest_covers(
        np.empty(0, dtype=int), np.empty(0), np.empty((1, 0)), np.empty((1, 0), dtype=bool), np.empty(0)
    )
    assert not empty.least.size
