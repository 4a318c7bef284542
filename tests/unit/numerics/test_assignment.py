"""Exact assignments against every plan of small problems, the published instance, and cases worked by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.oracles.assignment_brute import best_plan, is_allowed, is_better, merit, small_problem
from tests.oracles.published_instance import published_problem
from wva_core.errors import ParameterError
from wva_core.numerics.assignment import Problem, keeps_limits, preferred, served_share, solve_exact, standing
from wva_core.numerics.step_moves import SharedRows

NAN = float("nan")


@cache
def published(limited=True):
    return published_problem(limited=limited)


# The published instance


def test_b10_one_accelerator_for_each_server_costs_35767():
    answer = solve_exact(published()[0], multi=False)
    assert answer.status == "optimal"
    assert answer.objective == answer.bound == 35767
    assert answer.served.all()


def test_b10_several_accelerators_for_a_server_cost_less():
    # an independent formulation (one program, no stages) gives 35386.5
    answer = solve_exact(published()[0], multi=True)
    assert answer.status == "optimal"
    assert answer.objective == pytest.approx(35386.5, rel=1e-12)
    assert answer.gap == 0.0


def test_b10_without_limits_costs_33327():
    assert solve_exact(published(limited=False)[0], multi=False).objective == 33327


def test_b10_the_published_plan_is_allowed_and_dearer():
    problem, servers, accelerators = published()
    given = {"G2": (2, 7, 3, 43, 27, 3, 13, 5, 0, 49, 6, 24, 10, 0, 0), "4xA100": (0,) * 8 + (48, 0, 0, 0, 0, 83, 54)}
    order = ["granite_13b", "granite_34b", "llama_13b", "llama_70b", "mixtral_8_7b"]
    names = [f"{name}-{model}" for name in ("Premium", "Bronze", "Free") for model in order]
    replicas = np.zeros(len(accelerators))
    for pair, (server, accelerator) in enumerate(zip(problem.server_of_pair, accelerators, strict=True)):
        replicas[pair] = given.get(accelerator, (0,) * 15)[names.index(servers[server])]
    assert problem.cost @ replicas == 39743
    assert keeps_limits(problem, replicas)
    assert served_share(problem, replicas).min() == 1.0
    assert preferred(problem, solve_exact(problem, multi=False).replicas, replicas)


# Every plan looked at


@pytest.mark.parametrize("seed", range(120))
def test_several_pairs_for_a_server_are_the_best_of_all_plans(seed):
    problem = small_problem(seed)
    plan, best = best_plan(problem, multi=True)
    answer = solve_exact(problem)
    if plan is None:  # limits contradict each other
        assert answer.status == "feasible"
        return
    mine = merit(problem, answer.replicas)
    assert is_allowed(problem, answer.replicas)
    assert not is_better(best, mine)
    assert answer.status == "optimal"
    assert answer.bound <= answer.objective == pytest.approx(best[-2])


@pytest.mark.parametrize("seed", range(120))
def test_one_pair_for_a_server_is_the_best_of_all_such_plans(seed):
    problem = small_problem(seed, limits=False)
    _, best = best_plan(problem, multi=False)
    answer = solve_exact(problem, multi=False)
    assert is_allowed(problem, answer.replicas)
    assert not is_better(best, merit(problem, answer.replicas))
    assert answer.status == "optimal"


@pytest.mark.parametrize("seed", range(40))
def test_standing_and_limits_are_those_of_the_definition(seed):
    problem = small_problem(seed)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        plan = problem.low + np.floor(rng.random(len(problem.low)) * (problem.high - problem.low + 1))
        assert standing(problem, plan) == pytest.approx(merit(problem, plan))
        assert keeps_limits(problem, plan) == is_allowed(problem, plan)


# By hand


def test_a_mix_is_cheaper_than_either_accelerator_alone():
    # demand 11: 2 x 10 costs 20, 11 x 1 costs 22; 1 x 10 and 1 x 1 cost 12
    problem = Problem.of([0, 0], [10.0, 2.0], [10.0, 1.0], [11.0])
    assert solve_exact(problem, multi=True).replicas.tolist() == [1, 1]
    assert solve_exact(problem, multi=False).replicas.tolist() == [2, 0]


def test_who_is_more_important_is_served_first_even_if_that_serves_fewer():
    # 4 accelerators: one server of priority 1 takes all, or two of priority 2 take two each
    problem = Problem.of(
        [0, 1, 2], 1.0, 1.0, [4.0, 2.0, 2.0], priority=[1, 2, 2], type_of_pair=[0, 0, 0], capacity=[4.0]
    )
    assert solve_exact(problem).served.tolist() == [True, False, False]
    same = replace(problem, priority=np.ones(3))
    assert solve_exact(same).served.tolist() == [False, True, True]


def test_who_cannot_be_served_gets_what_is_left():
    problem = Problem.of([0, 1], 1.0, 1.0, [3.0, 4.0], type_of_pair=[0, 0], capacity=[5.0])
    answer = solve_exact(problem)
    # one can be served: serving the first leaves 2 of 4, serving the second 1 of 3
    assert answer.replicas.tolist() == [3, 2]
    assert answer.share.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("multi", [True, False])
def test_roles_of_a_model_are_served_together_or_both_in_part(multi):
    # prefill and decode need 2 each, a single server needs 3; 4 accelerators serve the pair or the single one
    problem = Problem.of([0, 1, 2], 1.0, 1.0, [2.0, 2.0, 3.0], group=[0, 0, 1], type_of_pair=[0, 0, 0], capacity=[4.0])
    # either serves one group; 1 + 1 of (2, 2) leave nothing for 3, but 3 leave one, which serves no half of a model
    answer = solve_exact(problem, multi=multi)
    assert answer.served.tolist() in ([True, True, False], [False, False, True])
    assert answer.share.sum() == 1.0
    assert answer.objective == 3.0


def test_what_is_not_released_yet_counts_as_used():
    # 4 accelerators, 3 of them held by what may go: one is free
    problem = Problem.of(
        [0, 0], [5.0, 1.0], 1.0, [3.0], current=[3, 0], held=[3, 0], type_of_pair=[0, 0], capacity=[4.0]
    )
    assert solve_exact(problem).replicas.tolist() == [2, 1]


def test_an_unknown_limit_lets_nothing_grow_and_an_exceeded_one_neither():
    for upper in (NAN, 1.0):
        problem = Problem.of([0], 1.0, 1.0, [5.0], low=2.0, type_of_pair=[0], capacity=[upper])
        answer = solve_exact(problem)
        assert answer.replicas.tolist() == [2]
        assert answer.binding.tolist() == [0]


def test_a_pair_that_makes_room_lets_another_grow():
    # at most two prefill replicas (coefficient 1) for each decode replica (coefficient -2)
    ratio = SharedRows(np.array([0, 0]), np.array([0, 1]), np.array([1.0, -2.0]), np.array([0.0]))
    problem = Problem.of([0, 1], 1.0, 1.0, [4.0, 1.0], rows=ratio)
    answer = solve_exact(problem)
    assert answer.served.tolist() == [False, True]
    more = Problem.of([0, 1], 1.0, 1.0, [4.0, 2.0], rows=ratio)
    assert solve_exact(more).replicas.tolist() == [4, 2]


def test_partners_run_together_or_not_at_all():
    problem = Problem.of([0, 1], 1.0, 1.0, [2.0, 0.0], together=[[0, 1]])
    assert solve_exact(problem).replicas.tolist() == [2, 1]
    alone = Problem.of([0, 1], 1.0, 1.0, [2.0, 0.0], high=[np.inf, 0.0], together=[[0, 1]])
    assert solve_exact(alone).replicas.tolist() == [0, 0]


def test_a_lower_limit_of_a_row_is_filled_at_the_least_cost():
    least = SharedRows(np.array([0, 0]), np.array([0, 1]), np.array([1.0, 1.0]), np.array([np.inf]))
    problem = Problem.of([0, 1], [3.0, 2.0], 1.0, [1.0, 0.0], rows=least, lower=[3.0])
    assert solve_exact(problem).replicas.tolist() == [1, 2]


def test_limits_that_contradict_each_other_leave_things_as_they_are():
    least = SharedRows(np.array([0]), np.array([0]), np.array([1.0]), np.array([np.inf]))
    problem = Problem.of([0], 1.0, 1.0, [1.0], high=2.0, current=[2.0], rows=least, lower=[5.0])
    answer = solve_exact(problem)
    assert answer.replicas.tolist() == [2]
    assert answer.status == "feasible"


def test_of_equal_costs_the_one_that_changes_least_is_kept():
    problem = Problem.of([0, 0, 0], 2.0, 1.0, [3.0], current=[0, 3, 0])
    assert solve_exact(problem).replicas.tolist() == [0, 3, 0]
    split = replace(problem, current=np.array([1.0, 1.0, 1.0]))
    assert solve_exact(split).replicas.tolist() == [1, 1, 1]


def test_demands_in_several_units_are_all_carried():
    # tokens want 2 replicas of the first, requests 3
    problem = Problem.of([0], 1.0, [[10.0], [4.0]], [[20.0], [12.0]])
    assert solve_exact(problem).replicas.tolist() == [3]


def test_a_rate_that_divides_the_demand_but_for_rounding_needs_no_replica_more():
    problem = Problem.of([0], 1.0, 0.1, [0.3])
    assert solve_exact(problem, multi=True).replicas.tolist() == [3]
    assert solve_exact(problem, multi=False).replicas.tolist() == [3]


def test_nothing_to_decide_is_answered():
    empty = solve_exact(Problem.of([], [], np.empty((1, 0)), np.empty((1, 0))))
    assert empty.status == "optimal"
    assert empty.objective == empty.gap == 0.0
    idle = solve_exact(Problem.of([0], 1.0, 1.0, [0.0]))
    assert idle.replicas.tolist() == [0]
    assert idle.served.all()
    hopeless = solve_exact(Problem.of([0], 1.0, NAN, [4.0]))
    assert hopeless.replicas.tolist() == [0]
    assert not hopeless.served.any()


# Budgets and order


def crowded(servers=30, seed=0):
    """Servers on four accelerators that compete for half of what they would like."""
    rng = np.random.default_rng(seed)
    kind = np.tile(np.arange(4), servers)
    rate = np.array([1.0, 2.1, 3.3, 7.0])[kind] * rng.uniform(0.7, 1.3, 4 * servers)
    demand = rng.uniform(5, 60, servers)
    cost = np.array([1.0, 2.0, 3.0, 6.0])[kind] * rng.uniform(0.98, 1.02, 4 * servers)
    capacity = np.full(4, 0.15 * float(np.ceil(demand.repeat(4) / rate).sum() / 4))
    return Problem.of(np.repeat(np.arange(servers), 4), cost, rate, demand, type_of_pair=kind, capacity=capacity)


def test_out_of_nodes_is_answered_with_the_gap_that_is_left():
    problem = crowded()
    short = solve_exact(problem, node_limit=1)
    assert keeps_limits(problem, short.replicas)
    assert 0 <= short.bound <= short.objective
    assert short.gap == pytest.approx((short.objective - short.bound) / short.objective)
    assert short.status == ("optimal" if short.gap == 0 else "feasible")


def test_the_same_problem_gives_the_same_answer():
    problem = crowded(seed=3)
    first, again = (solve_exact(problem, node_limit=20) for _ in range(2))
    np.testing.assert_array_equal(first.replicas, again.replicas)
    assert (first.bound, first.nodes) == (again.bound, again.nodes)


def test_an_incumbent_is_never_made_worse():
    problem = crowded(seed=1)
    best = solve_exact(problem, node_limit=50)
    answer = solve_exact(problem, node_limit=1, incumbent=best.replicas)
    assert not preferred(problem, best.replicas, answer.replicas)


def test_the_order_of_pairs_changes_the_order_of_the_answer_only():
    problem = crowded(servers=8, seed=2)
    order = np.random.default_rng(0).permutation(len(problem.cost))
    turned = replace(
        problem,
        server_of_pair=problem.server_of_pair[order],
        cost=problem.cost[order],
        rate=problem.rate[:, order],
        rows=problem.rows._replace(row_of_entry=problem.rows.row_of_entry[order]),
    )
    one, other = solve_exact(problem, node_limit=5_000), solve_exact(turned, node_limit=5_000)
    assert one.status == other.status == "optimal"
    np.testing.assert_array_equal(one.replicas[order], other.replicas)


# Bad input


def test_a_rate_of_another_shape_is_refused():
    with pytest.raises(ParameterError, match=r"assignment problem: rate: has shape \(1, 3\); give 1 rows"):
        Problem.of([0, 0], 1.0, [[1.0, 2.0, 3.0]], [1.0])


def test_a_server_that_does_not_exist_is_refused():
    with pytest.raises(ParameterError, match="server_of_pair: names a server outside 0 to 0"):
        Problem.of([0, 1], 1.0, [1.0, 1.0], [1.0])


def test_a_column_of_another_length_is_refused():
    with pytest.raises(ParameterError, match=r"cost: has shape .* give one number, or 2"):
        Problem.of([0, 0], [1.0, 2.0, 3.0], [1.0, 1.0], [1.0])


def test_a_negative_cost_and_an_upper_below_a_lower_limit_are_refused():
    with pytest.raises(ParameterError, match=r"cost\[1\]: is not usable \(got -1.0\)"):
        Problem.of([0, 0], [1.0, -1.0], [1.0, 1.0], [1.0])
    with pytest.raises(ParameterError, match=r"high\[0\]"):
        Problem.of([0], 1.0, 1.0, [1.0], low=3.0, high=2.0)


def test_a_capacity_without_types_is_refused():
    with pytest.raises(ParameterError, match="type_of_pair: does not name a type for every pair"):
        Problem.of([0], 1.0, 1.0, [1.0], capacity=[4.0])


# What is not proven


def test_without_nodes_to_settle_who_is_served_no_bound_is_given():
    rng = np.random.default_rng(6)
    kind = np.tile(np.arange(4), 20)
    problem = Problem.of(
        np.repeat(np.arange(20), 4),
        np.array([1.0, 1.8, 3.1, 4.6])[kind],
        np.array([1.0, 2.0, 3.2, 5.0])[kind] * rng.uniform(0.6, 1.4, 80),
        rng.uniform(1.0, 200.0, 20),
        priority=np.arange(20) % 2 + 1,
        type_of_pair=kind,
        capacity=np.full(4, 150.0),
    )
    answer = solve_exact(problem, node_limit=1)
    assert answer.status == "feasible"
    assert keeps_limits(problem, answer.replicas)
    assert np.isnan(answer.bound)
    assert np.isnan(answer.gap)


def test_a_better_served_answer_that_is_known_has_no_bound_of_a_worse_one():
    # 10 accelerators, server 0 comes first; the answer that is known serves it, the solver has no nodes to find that
    rng = np.random.default_rng(3)
    kind = np.tile(np.arange(4), 20)
    rate = np.array([1.0, 2.0, 3.2, 5.0])[kind] * rng.uniform(0.6, 1.4, 80)
    problem = Problem.of(
        np.repeat(np.arange(20), 4),
        np.array([1.0, 1.8, 3.1, 4.6])[kind],
        rate,
        rng.uniform(1.0, 200.0, 20),
        type_of_pair=kind,
        capacity=np.full(4, 60.0),
    )
    known = solve_exact(problem, node_limit=2_000)
    answer = solve_exact(problem, node_limit=1, incumbent=known.replicas)
    assert not preferred(problem, known.replicas, answer.replicas)
    assert np.isnan(answer.bound) or answer.bound <= known.objective * (1 + 1e-9)


def test_contradicting_limits_have_no_bound():
    rows = SharedRows(np.array([0]), np.array([0]), np.array([1.0]), np.array([np.inf]))
    answer = solve_exact(Problem.of([0], 1.0, 1.0, [1.0], high=2.0, rows=rows, lower=5.0))
    assert answer.status == "feasible"
    assert np.isnan(answer.bound)
