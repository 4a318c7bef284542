"""The milp optimizer on ballots: cases worked by hand, and laws on random fleets."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wva_core.engine.verify import refusal
from wva_core.testing import OptimizerConformance
from wva_core.testing.builders import ballot, limits, observe, vote
from wva_core.testing.samples import sample_ballot, sample_limits, sample_observation
from wva_optimizers.milp import Milp
from wva_optimizers.milp.question import read_question

P, D = {"role": "prefill"}, {"role": "decode"}


class TestMilpByPrices(OptimizerConformance):
    plugin = "milp"
    parameters: ClassVar = {"exactUpTo": 0}


class TestMilpWithOneVariantForEachScope(OptimizerConformance):
    plugin = "milp"
    parameters: ClassVar = {"multi": False}


def allocate(seen, *votes, bounds=None, anchor=0, **parameters):
    plugin = Milp(Milp.Parameters(**parameters))
    return plugin.allocate(seen, ballot(seen, *votes, anchor=anchor), limits(seen) if bounds is None else bounds)


def by_name(seen, column):
    return dict(zip((key.removeprefix("ns/") for key in seen.fleet.keys), np.asarray(column).tolist(), strict=True))


def why(seen, answer):
    return {name: answer.reasons[index] for name, index in by_name(seen, answer.reason).items()}


# Growth


def test_growth_takes_the_cheapest_mix_and_proves_it():
    # 11 more: best for the money first takes two large ones (20); one large and one small carry it for 12
    seen = observe([{"name": "large", "current": 1, "cost": 10}, {"name": "small", "current": 0, "cost": 2}])
    one = vote(seen, capacity={"large": 10, "small": 1}, required=11.0)
    answer = allocate(seen, one)
    assert by_name(seen, answer.replicas) == {"large": 2, "small": 1}
    assert answer.status == "optimal"
    assert answer.objective == answer.bound == 22.0
    assert answer.gap == 0.0


def test_one_variant_only_may_grow_where_mixes_are_not_wanted():
    seen = observe([{"name": "large", "current": 1, "cost": 10}, {"name": "small", "current": 0, "cost": 2}])
    one = vote(seen, capacity={"large": 10, "small": 1}, required=11.0)
    assert by_name(seen, allocate(seen, one, multi=False).replicas) == {"large": 3, "small": 0}


@pytest.mark.parametrize("exact_up_to", [0, 1_000])
@pytest.mark.parametrize("seed", range(12))
def test_no_scope_gets_several_accelerators_where_mixes_are_not_wanted(seed, exact_up_to):
    # six types that are short, so that the moves one after the other mix
    rng = np.random.default_rng(seed)
    prices, speeds = np.array([1.0, 1.8, 3.1, 4.6]), np.array([1.0, 2.0, 3.2, 5.0])
    seen = observe(
        [
            {"name": f"s{server}-{kind}", "model": f"m{server}", "current": 0, "cost": float(prices[kind])}
            for server in range(8)
            for kind in range(4)
        ]
    )
    rows = {f"type {kind}": ({f"s{server}-{kind}": 1.0 for server in range(8)}, 12.0) for kind in range(4)}
    rate = np.tile(speeds, 8) * rng.uniform(0.7, 1.3, 32)
    one = vote(seen, capacity=rate, required=rng.uniform(5.0, 30.0, 8))
    bounds = limits(seen, rows=rows)
    question = read_question(seen, ballot(seen, one, anchor=0), bounds, {})
    stepped = question.grown_by_steps(multi=True)
    answer = allocate(seen, one, bounds=bounds, multi=False, exact_up_to=exact_up_to)
    assert (stepped.reshape(8, 4) > 0).sum(axis=1).max() > 1  # the case occurs
    assert (answer.replicas.reshape(8, 4) > 0).sum(axis=1).max() == 1


def test_nothing_is_replaced_by_a_mix_where_mixes_are_not_wanted():
    # 11 have to stay: two large ones cost 20 and a large and a small one 12, both less than what runs
    names = [{"name": "large", "current": 0, "cost": 10}, {"name": "small", "current": 0, "cost": 2}]
    seen = observe([*names, {"name": "old", "current": 2, "cost": 15}])
    steady = vote(seen, capacity={"large": 10, "small": 1, "old": 6}, demand=10.0, supply=12.0, spare=1.0)
    mixed = by_name(seen, allocate(seen, steady).replicas)
    assert mixed == {"large": 1, "small": 1, "old": 2}
    assert by_name(seen, allocate(seen, steady, multi=False).replicas) == {"large": 2, "small": 0, "old": 2}


def test_what_could_not_be_proven_is_not_known_and_nobody_says_that_it_is_impossible():
    # four types short for 20 scopes, and one node to look for who is served
    rng = np.random.default_rng(6)
    names = [f"s{server}-{kind}" for server in range(20) for kind in range(4)]
    prices, speeds = np.array([1.0, 1.8, 3.1, 4.6]), np.array([1.0, 2.0, 3.2, 5.0])
    seen = observe(
        [
            {
                "name": name,
                "model": f"m{at // 4}",
                "service_class": "ab"[at // 4 % 2],
                "current": 0,
                "cost": float(prices[at % 4]),
            }
            for at, name in enumerate(names)
        ]
    )
    rows = {f"type {kind}": (dict.fromkeys(names[kind::4], 1.0), 150.0) for kind in range(4)}
    rate = np.tile(speeds, 20) * rng.uniform(0.6, 1.4, 80)
    one = vote(seen, capacity=rate, required=rng.uniform(1.0, 200.0, 20))
    answer = allocate(seen, one, bounds=limits(seen, rows=rows), node_limit=1, priorities={"a": 1, "b": 2})
    assert answer.status == "feasible"
    assert answer.objective > 0
    assert np.isnan(answer.bound)
    assert np.isnan(answer.gap)
    said = set(why(seen, answer).values())
    assert "more is needed, and no mix within the limits carries all of it" not in said


def test_who_is_served_in_part_is_told_with_the_cost_of_serving_as_much():
    # 12 accelerators for needs of 6 and 8: one is served, the other gets the rest; whoever serves as much pays for 12
    seen = observe([{"name": "a", "model": "x", "current": 0}, {"name": "b", "model": "y", "current": 0}])
    bounds = limits(seen, rows={"GPUs": ({"a": 1, "b": 1}, 12.0)})
    answer = allocate(seen, vote(seen, capacity=1.0, required=[6.0, 8.0]), bounds=bounds)
    assert answer.replicas.sum() == 12
    assert answer.status == "optimal"
    assert answer.bound == pytest.approx(answer.objective)
    assert answer.gap == pytest.approx(0.0)


def test_the_largest_need_of_several_votes_is_carried():
    seen = observe([{"name": "only", "current": 1}])
    votes = [vote(seen, capacity=10.0, required=10.0), vote(seen, capacity=2.0, required=6.0, analyzer="other")]
    assert by_name(seen, allocate(seen, *votes).replicas) == {"only": 4}


def test_roles_of_a_model_grow_together_or_not_at_all():
    # 2 GPUs are free: the split model needs 2 + 2, the other model 2
    seen = observe(
        [
            {"name": "p", "model": "split", "current": 1, **P},
            {"name": "d", "model": "split", "current": 1, **D},
            {"name": "one", "model": "whole", "current": 1},
        ]
    )
    rows = {"GPUs": ({"p": 1, "d": 1, "one": 1}, 5.0)}
    answer = allocate(seen, vote(seen, capacity=1.0, required=2.0), bounds=limits(seen, rows=rows))
    assert by_name(seen, answer.replicas) == {"p": 1, "d": 1, "one": 3}
    assert answer.binding_row[seen.fleet.index["ns/p"]] == 0
    assert why(seen, answer)["p"] == "a shared limit stops its growth"


ROWS = {
    "GPUs of type A": ({"p": 1, "one-a": 1}, 7.0),
    "GPUs of type B": ({"d": 1, "one-b": 1}, 5.0),
    "quota of ns": ({"p": 1, "d": 1, "one-a": 1, "one-b": 1}, 12.0),
    "budget": ({"p": 2, "d": 3, "one-a": 2, "one-b": 3}, 29.0),
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        # four of each role; of the whole model three fit on A beside four prefills, the fourth has to go to B
        ({}, {"p": 4, "d": 4, "one-a": 3, "one-b": 1}),
        # with room on A the dearer B is not used
        ({"GPUs of type A": 8.0}, {"p": 4, "d": 4, "one-a": 4, "one-b": 0}),
        # without the fourth on B nothing is left but one of A less
        ({"GPUs of type B": 4.0}, {"p": 4, "d": 4, "one-a": 3, "one-b": 0}),
        ({"quota of ns": 11.0}, {"p": 4, "d": 4, "one-a": 3, "one-b": 0}),
        ({"budget": 28.0}, {"p": 4, "d": 4, "one-a": 3, "one-b": 0}),
    ],
)
def test_cards_by_type_a_quota_and_a_budget_bind_together_over_the_roles_of_a_model(changed, expected):
    seen = observe(
        [
            {"name": "p", "model": "split", "current": 1, "cost": 2, "service_class": "gold", **P},
            {"name": "d", "model": "split", "current": 1, "cost": 3, "service_class": "gold", **D},
            {"name": "one-a", "model": "whole", "current": 1, "cost": 2},
            {"name": "one-b", "model": "whole", "current": 0, "cost": 3},
        ]
    )
    rows = {label: (uses, changed.get(label, upper)) for label, (uses, upper) in ROWS.items()}
    one = vote(seen, capacity=1.0, required=3.0)
    answer = allocate(seen, one, bounds=limits(seen, rows=rows), priorities={"gold": 1})
    assert by_name(seen, answer.replicas) == expected


def test_who_cannot_have_all_gets_the_part_that_all_its_roles_can_use():
    seen = observe([{"name": "p", "current": 1, **P}, {"name": "d", "current": 1, **D}])
    bounds = limits(seen, rows={"GPUs": ({"p": 1, "d": 1}, 6.0)})
    answer = allocate(seen, vote(seen, capacity=1.0, required=3.0), bounds=bounds)
    assert by_name(seen, answer.replicas) == {"p": 3, "d": 3}


def test_the_more_important_class_is_served_first():
    seen = observe(
        [
            {"name": "gold", "service_class": "gold", "current": 1},
            {"name": "free", "service_class": "free", "current": 1},
        ]
    )
    rows = {"GPUs": ({"gold": 1, "free": 1}, 5.0)}
    one = vote(seen, capacity=1.0, required=3.0)
    for first, other in (("gold", "free"), ("free", "gold")):
        answer = allocate(seen, one, bounds=limits(seen, rows=rows), priorities={first: 1, other: 2})
        assert by_name(seen, answer.replicas) == {first: 4, other: 1}


def test_partners_start_together():
    seen = observe([{"name": "a", "model": "x", "current": 0}, {"name": "b", "model": "y", "current": 0}])
    one = vote(seen, capacity=1.0, required=[2.0, 0.0])
    assert by_name(seen, allocate(seen, one, bounds=limits(seen, together=[["a", "b"]])).replicas) == {"a": 2, "b": 1}
    alone = limits(seen, high={"a": np.inf, "b": 0}, together=[["a", "b"]])
    assert by_name(seen, allocate(seen, one, bounds=alone).replicas) == {"a": 0, "b": 0}


def test_a_partner_that_may_not_start_leaves_what_runs_as_it_is():
    seen = observe([{"name": "a", "current": 1}, {"name": "b", "current": 0}])
    bounds = limits(seen, high={"a": 5, "b": 0}, together=[["a", "b"]])
    answer = allocate(seen, vote(seen, capacity=1.0, required=1.0), bounds=bounds)
    assert np.isnan(answer.replicas).all()
    assert "partner" in why(seen, answer)["a"]


# Shrinking


def test_shrinking_keeps_the_cheapest_mix_that_is_needed():
    # 11 of 21 are spare: the large one alone costs 10, ten small ones 15; dearest first gives up the large one
    seen = observe([{"name": "large", "current": 1, "cost": 10}, {"name": "small", "current": 11, "cost": 1.5}])
    one = vote(seen, capacity={"large": 10, "small": 1}, spare=11.0, demand=1.0, supply=21.0)
    answer = allocate(seen, one, replace_from=None)
    assert by_name(seen, answer.replicas) == {"large": 1, "small": 0}
    assert answer.status == "optimal"


def test_nothing_goes_that_a_vote_does_not_spare():
    seen = observe([{"name": "only", "current": 5}])
    votes = [vote(seen, capacity=10.0, spare=40.0), vote(seen, capacity=1.0, spare=1.5, analyzer="other")]
    assert by_name(seen, allocate(seen, *votes).replicas) == {"only": 4}


def test_the_last_replica_of_a_scope_stays_on_its_cheapest_variant():
    seen = observe([{"name": "cheap", "current": 2, "cost": 1}, {"name": "dear", "current": 2, "cost": 5}])
    assert by_name(seen, allocate(seen, vote(seen, spare=4.0)).replicas) == {"cheap": 1, "dear": 0}


def test_a_lower_limit_of_a_shared_row_is_kept():
    seen = observe([{"name": "a", "current": 4}, {"name": "b", "current": 1, "model": "other"}])
    bounds = limits(seen, rows={"at least": ({"a": 1, "b": 1}, np.inf)})
    lower = type(bounds.rows)(
        bounds.rows.labels,
        bounds.rows.offsets,
        bounds.rows.variant,
        bounds.rows.coefficient,
        np.array([4.0]),
        bounds.rows.upper,
    )
    bounds = type(bounds)(bounds.low, bounds.high, lower, bounds.together)
    answer = allocate(seen, vote(seen, spare=[3.0, 0.0]), bounds=bounds)
    assert by_name(seen, answer.replicas) == {"a": 3, "b": 1}


# Replacing


def dear_and_cheap(**more):
    return observe([{"name": "cheap", "current": 0, "cost": 1, **more}, {"name": "dear", "current": 4, "cost": 5}])


def test_a_cheaper_mix_is_added_first_and_the_dearer_one_goes_when_it_serves():
    seen = dear_and_cheap()
    steady = vote(seen, capacity=10.0, demand=30.0, supply=40.0)
    answer = allocate(seen, steady)
    assert by_name(seen, answer.replicas) == {"cheap": 4, "dear": 4}
    assert "replaces dearer replicas" in why(seen, answer)["cheap"]
    # they are there: 40 of 80 are spare
    later = observe([{"name": "cheap", "current": 4, "cost": 1}, {"name": "dear", "current": 4, "cost": 5}])
    spare = vote(later, capacity=10.0, demand=30.0, supply=80.0, spare=40.0)
    assert by_name(later, allocate(later, spare).replicas) == {"cheap": 4, "dear": 0}


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ({"replace_from": None}, {}),
        ({"replace_from": 0.9}, {}),
        ({}, {"demand": np.nan}),
        ({}, {"informative": False}),
    ],
    ids=["never", "saves too little", "demand not known", "a vote is silent"],
)
def test_nothing_is_replaced_where(asked, changed):
    seen = dear_and_cheap()
    steady = vote(seen, **{"capacity": 10.0, "demand": 30.0, "supply": 40.0, **changed})
    assert by_name(seen, allocate(seen, steady, **asked).replicas) == {"cheap": 0, "dear": 4}


def test_nothing_is_replaced_while_something_is_on_its_way():
    seen = observe(
        [{"name": "cheap", "current": 2, "pending": 1, "cost": 1}, {"name": "dear", "current": 4, "cost": 5}]
    )
    steady = vote(seen, capacity=10.0, demand=40.0, supply=50.0)
    assert by_name(seen, allocate(seen, steady).replicas) == {"cheap": 2, "dear": 4}


def while_demand_jitters(replace_from, *, cycles=80):
    """
    Cycles in which replicas start, and the mean cost, while demand moves by 4 % around 57.

    What starts serves one cycle later. More is required above 85 % of the supply, and what is not needed for 84 % may
    go, so which mix is the cheapest changes with every cycle, and by little.
    """
    rng = np.random.default_rng(4)
    capacity, cost = np.array([15.0, 11.0, 4.0]), np.array([10.0, 7.3, 2.75])
    replicas, changes, paid = np.array([5.0, 0.0, 0.0]), 0, 0.0
    for _ in range(cycles):
        seen = observe(
            [
                {"name": name, "current": int(count), "cost": float(each)}
                for name, count, each in zip(("a", "b", "c"), replicas, cost, strict=True)
            ]
        )
        demand, supply = 57.0 * rng.uniform(0.96, 1.04), float(capacity @ replicas)
        one = vote(
            seen,
            capacity=capacity,
            demand=demand,
            supply=supply,
            required=max(0.0, demand / 0.85 - supply),
            spare=max(0.0, supply - demand / 0.84),
        )
        planned = allocate(seen, one, replace_from=replace_from).replicas
        changes += int(np.any(planned > replicas))
        paid += float(cost @ planned) / cycles
        replicas = planned
    return changes, paid


def test_demand_that_jitters_does_not_swap_accelerators_back_and_forth():
    never, by_default, at_any_saving = (while_demand_jitters(least) for least in (None, 0.1, 0.0))
    assert by_default[0] <= never[0] + 1  # one change to a mix that pays
    assert by_default[1] < never[1]
    assert at_any_saving[0] >= 20  # and each time both mixes run until the new one serves
    assert at_any_saving[1] > never[1]


# Laws


def worth(seen, asked, replicas):
    """Capacity beyond the need at cost, by scope, for comparing two plans of one vote."""
    then = np.where(np.isnan(replicas), seen.variants.base, replicas)
    one = asked.votes[0]
    gained = seen.fleet.by_scope.sum(np.nan_to_num(one.capacity) * (then - seen.variants.base))
    served = gained >= one.required * (1 - 1e-9)
    return int(served[asked.grow].sum()), float(seen.variants.cost @ then)


@pytest.mark.parametrize("exact_up_to", [0, 1_000])
@pytest.mark.parametrize("seed", range(12))
def test_it_is_never_worse_than_the_moves_one_after_the_other(seed, exact_up_to):
    seen = sample_observation(seed, 36)
    asked, bounds = sample_ballot(seen, seed), sample_limits(seen)
    question = read_question(seen, asked, bounds, {})
    stepped = question.shrunk_by_steps(question.grown_by_steps(multi=True))
    answer = Milp(Milp.Parameters(exact_up_to=exact_up_to, replace_from=None)).allocate(seen, asked, bounds)
    mine, theirs = worth(seen, asked, answer.replicas), worth(seen, asked, stepped)
    assert mine[0] >= theirs[0]
    assert mine[0] > theirs[0] or mine[1] <= theirs[1] * (1 + 1e-9)
    assert answer.bound <= answer.objective
    assert answer.objective == pytest.approx(mine[1])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), free=st.integers(-3, 60), exact=st.booleans())
def test_limits_are_always_kept(seed, free, exact):
    seen = sample_observation(seed, 16)
    names = [key.removeprefix("ns/") for key in seen.fleet.keys]
    rng = np.random.default_rng(seed)
    rows = {
        "GPUs": (
            dict(zip(names, seen.variants.gpus, strict=True)),
            float(seen.variants.gpus @ seen.variants.base) + free,
        ),
        "budget": (
            {name: float(cost) for name, cost in zip(names, seen.variants.cost, strict=True) if rng.random() < 0.6},
            float(seen.variants.cost @ seen.variants.base) + 10.0 * free,
        ),
    }
    asked, bounds = sample_ballot(seen, seed, known=0.9), limits(seen, rows=rows)
    answer = Milp(Milp.Parameters(exact_up_to=1_000 if exact else 0)).allocate(seen, asked, bounds)
    assert refusal(answer.replicas, seen.variants.base, bounds, seen.fleet, "milp") is None
    assert 0 <= answer.bound <= answer.objective


def test_unknown_and_impossible_parameters_are_refused():
    for wrong in ({"nodelimit": 3}, {"nodeLimit": 0}, {"replaceFrom": -1}, {"priorities": {"gold": 0}}):
        with pytest.raises(ValidationError):
            Milp.Parameters.model_validate(wrong)
