"""Price ascent against every plan of small problems, against the exact solver, and its laws on larger ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.assignment_brute import best_plan, is_allowed, is_better, merit, small_problem
from tests.oracles.published_instance import published_problem
from wva_core.numerics.assignment import Problem, keeps_limits, preferred, solve_exact
from wva_core.numerics.price_ascent import price_ascent, solve

FORMS = pytest.mark.parametrize("multi", [True, False], ids=["multi", "single"])


def market(servers, kinds=6, tightness=0.8, seed=0, priorities=1):
    """Servers that all like the same accelerators best, of which there are too few for all."""
    rng = np.random.default_rng(seed)
    kind = np.tile(np.arange(kinds), servers)
    speed = np.array([1.0, 2.0, 3.2, 5.0, 7.0, 12.0])[kind]
    price = np.array([1.0, 1.8, 3.1, 4.6, 6.9, 11.5])[kind]
    rate = speed * rng.uniform(0.6, 1.4, len(kind)) * np.repeat(rng.uniform(0.5, 2.0, servers), kinds)
    demand = rng.uniform(1.0, 200.0, servers)
    replicas = np.ceil(demand.repeat(kinds) / rate)
    best = (price * replicas).reshape(servers, kinds).argmin(axis=1) + np.arange(servers) * kinds
    used = np.bincount(kind[best], weights=replicas[best], minlength=kinds)
    return Problem.of(
        np.repeat(np.arange(servers), kinds),
        price,
        rate,
        demand,
        priority=rng.integers(1, priorities + 1, servers),
        type_of_pair=kind,
        capacity=np.floor(tightness * np.maximum(used, np.median(used))),
    )


@FORMS
@pytest.mark.parametrize("seed", range(120))
def test_no_plan_of_a_small_problem_is_better_than_its_bound_says(seed, multi):
    problem = small_problem(seed, limits=False)
    _, best = best_plan(problem, multi=multi)
    answer = price_ascent(problem, multi=multi)
    mine = merit(problem, answer.replicas)
    assert is_allowed(problem, answer.replicas)
    assert not is_better(mine, best)
    if answer.served.all():
        assert answer.bound <= best[-2] + 1e-9


@FORMS
@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_below_the_optimum_and_the_plan_above_it(seed, multi):
    problem = market(12, seed=seed, tightness=1.0)
    exact = solve_exact(problem, multi=multi, node_limit=3_000)
    answer = price_ascent(problem, multi=multi)
    assert answer.served.sum() <= exact.served.sum()
    if answer.served.all():  # else the bound is for plans that serve what this one does
        assert answer.bound <= exact.objective * (1 + 1e-9)
        assert answer.objective >= exact.bound * (1 - 1e-9)


def test_b10_is_served_within_one_percent_of_the_exact_cost():
    problem, _, _ = published_problem()
    answer = price_ascent(problem, multi=False)
    assert answer.served.all()
    assert answer.bound <= 35767 <= answer.objective <= 35767 * 1.01


def test_b10_is_closed_by_the_core_that_prices_leave():
    problem, _, _ = published_problem()
    answer = solve(problem, multi=False, exact_up_to=10, gap=0.0)
    assert answer.objective == 35767
    assert answer.bound == pytest.approx(35767)


def test_a_thousand_servers_are_served_within_a_promille():
    problem = market(1_000)
    answer = price_ascent(problem, multi=False)
    assert answer.served.all()
    assert keeps_limits(problem, answer.replicas)
    assert 0 <= answer.gap <= 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_mixes_for_a_thousand_servers_are_proven_to_a_promille(seed):
    problem = market(1_000, seed=seed)
    answer = solve(problem)
    assert answer.served.all()
    assert keeps_limits(problem, answer.replicas)
    assert 0 <= answer.gap <= 1e-3


@FORMS
def test_prices_of_a_sample_are_good_enough_for_all(multi):
    problem = market(8_000, seed=1)
    answer = price_ascent(problem, multi=multi)
    assert answer.served.all()
    assert keeps_limits(problem, answer.replicas)
    assert 0 <= answer.gap <= 5e-3


def test_several_pairs_for_a_server_are_no_dearer_than_one():
    problem = market(300)
    single, multi = price_ascent(problem, multi=False), price_ascent(problem, multi=True)
    assert single.served.all()
    assert multi.served.all()
    assert keeps_limits(problem, multi.replicas)
    assert multi.bound <= single.objective
    assert multi.objective < single.objective
    assert multi.gap <= 2e-3


@FORMS
@pytest.mark.parametrize("seed", range(4))
def test_what_is_short_goes_to_the_most_important_first(seed, multi):
    problem = market(200, tightness=0.4, seed=seed, priorities=3)
    answer = price_ascent(problem, multi=multi)
    assert keeps_limits(problem, answer.replicas)
    assert not answer.served.all()
    share = [answer.served[problem.priority == level].mean() for level in (1, 2, 3)]
    assert share[0] >= share[1] >= share[2]
    assert answer.bound <= answer.objective


@FORMS
def test_roles_of_a_group_are_served_together(multi):
    problem = market(200, tightness=0.5)
    paired = replace(problem, group=np.arange(200) // 2)
    answer = price_ascent(paired, multi=multi)
    assert keeps_limits(paired, answer.replicas)
    served = answer.served.reshape(-1, 2)
    np.testing.assert_array_equal(served[:, 0], served[:, 1])
    assert 0 < served.sum() < 200


@FORMS
def test_an_incumbent_is_never_made_worse(multi):
    problem = market(40, tightness=0.6, seed=5)
    known = solve_exact(problem, multi=multi, node_limit=30).replicas
    answer = price_ascent(problem, multi=multi, steps=2, incumbent=known)
    assert not preferred(problem, known, answer.replicas)
    assert answer.bound <= answer.objective


@FORMS
def test_the_same_problem_gives_the_same_answer(multi):
    problem = market(80, tightness=0.6, seed=2)
    first, again = price_ascent(problem, multi=multi), price_ascent(problem, multi=multi)
    np.testing.assert_array_equal(first.replicas, again.replicas)
    assert first.bound == again.bound


@FORMS
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), tightness=st.floats(0.0, 1.5), steps=st.integers(1, 80))
def test_limits_are_always_kept_and_the_bound_is_below_the_cost(seed, tightness, steps, multi):
    problem = market(10, tightness=tightness, seed=seed, priorities=2)
    answer = price_ascent(problem, multi=multi, steps=steps)
    assert keeps_limits(problem, answer.replicas)
    assert 0 <= answer.bound <= answer.objective
    if not multi:
        per_server = np.bincount(problem.server_of_pair, weights=answer.replicas > 0)
        assert per_server.max() <= 1


@pytest.mark.parametrize("seed", range(30))
def test_partners_and_lower_limits_stay_where_they_are_beyond_the_exact_solver(seed):
    problem = small_problem(seed)
    start = np.where(np.isnan(problem.current), problem.low, problem.current)
    answer = solve(problem, exact_up_to=0, incumbent=start)
    bound = np.zeros(len(start), dtype=bool)
    bound[problem.rows.variant_of_entry[np.isfinite(problem.lower)[problem.rows.row_of_entry]]] = True
    for members in problem.together:
        bound[members] = True
    np.testing.assert_array_equal(answer.replicas[bound], start[bound])


def test_small_problems_are_answered_exactly_and_large_ones_within_the_gap():
    small = market(6, seed=3)
    assert solve(small).objective == pytest.approx(solve_exact(small).objective)
    large = market(250)
    answer = solve(large, multi=False, exact_up_to=1_000)
    assert answer.gap <= 1e-3


def test_nothing_to_decide_is_answered():
    empty = price_ascent(Problem.of([], [], np.empty((1, 0)), np.empty((1, 0))))
    assert empty.objective == empty.gap == 0.0
    hopeless = price_ascent(Problem.of([0], 1.0, np.nan, [4.0]))
    assert hopeless.replicas.tolist() == [0]
    assert not hopeless.served.any()
