"""Laws of the cost-aware optimizer on random fleets, and its equality with a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.cost_aware_loop import move
from wva_core.testing.builders import ballot, limits, observe, vote
from wva_optimizers.cost_aware import CostAware

CAPACITIES = st.sampled_from([0.0, 0.1, 1.0, 3.0, 7.5, 40.0])
AMOUNTS = st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0, 2.999, 3.0, 10.0, 21.5, 77.7, 200.0])


@st.composite
def models(draw, *, within=True):
    """One to four models of one to three roles, with one to three votes; `within`: replicas start inside limits."""
    votes = draw(st.integers(1, 3))
    result = []
    for number in range(draw(st.integers(1, 4))):
        roles = []
        wanting = draw(st.booleans())
        for role in draw(st.sampled_from([("",), ("decode", "prefill"), ("", "decode", "prefill")])):
            variants = []
            for index in range(draw(st.integers(1, 4))):
                low = draw(st.sampled_from([0, 0, 0, 1, 2]))
                high = low + draw(st.sampled_from([0, 1, 2, 5, np.inf]))
                start = low + draw(st.integers(0, int(min(high - low, 6)))) if within else draw(st.integers(0, 8))
                own = [draw(CAPACITIES) for _ in range(votes)]
                cost = draw(st.sampled_from([0.5, 1.0, 2.0, 2.0, 4.0, 9.9]))
                name = f"m{number}-{role or 'both'}-{index}"
                variants.append({"name": name, "cost": cost, "own": own, "start": start, "low": low, "high": high})
            anchor = draw(st.sampled_from([*range(votes), *range(votes), -1]))
            for variant in variants:
                variant["prc"] = variant["own"][anchor] if anchor >= 0 else 0.0
            roles.append(
                {
                    "model": f"m{number}",
                    "role": role,
                    "anchor": anchor,
                    "variants": variants,
                    "need": [draw(AMOUNTS) if wanting and anchor >= 0 else 0.0 for _ in range(votes)],
                    "spare": [draw(AMOUNTS) for _ in range(votes)],
                    "gates": [draw(st.sampled_from([True, True, False])) for _ in range(votes)],
                    "score": [draw(st.sampled_from([1.0, 2.0])) for _ in range(votes)],
                }
            )
        result.append(roles)
    return result


def asked_of(fleet_of_models, order=None):
    """Observation and ballot of these models; `order` permutes the list of variants."""
    roles = {(role["model"], role["role"]): role for model in fleet_of_models for role in model}
    rows = [
        {
            "name": variant["name"],
            "model": role["model"],
            "role": role["role"],
            "cost": variant["cost"],
            "current": variant["start"],
            "min_replicas": variant["low"],
            "max_replicas": variant["high"],
        }
        for role in roles.values()
        for variant in role["variants"]
    ]
    seen = observe(rows if order is None else [rows[i % len(rows)] for i in order(len(rows))])
    own = {variant["name"]: variant["own"] for role in roles.values() for variant in role["variants"]}
    mine = [roles[scope.model, scope.role] for scope in seen.fleet.scopes]
    votes = [
        vote(
            seen,
            analyzer=f"vote-{i}",
            capacity={name: carried[i] or np.nan for name, carried in own.items()},
            required=[role["need"][i] for role in mine],
            spare=[role["spare"][i] for role in mine],
            gates_shrink=[role["gates"][i] for role in mine],
            score=[role["score"][i] for role in mine],
        )
        for i in range(len(mine[0]["need"]))
    ]
    return seen, ballot(seen, *votes, anchor=[role["anchor"] for role in mine])


def allocate(seen, question, bounds, *, compat=False):
    return CostAware(CostAware.Parameters(compat=compat)).allocate(seen, question, bounds)


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
@settings(max_examples=150)
@given(fleet_of_models=models())
def test_all_models_at_once_equal_one_after_the_other(compat, fleet_of_models):
    expected = {}
    for model in fleet_of_models:
        counted = [role for role in model if role["anchor"] >= 0]
        expected |= move(counted, literal=compat)
        expected |= {v["name"]: None for role in model if role["anchor"] < 0 for v in role["variants"]}
    seen, question = asked_of(fleet_of_models)
    answer = allocate(seen, question, limits(seen), compat=compat).replicas
    told = {key.removeprefix("ns/"): None if np.isnan(n) else n for key, n in zip(seen.fleet.keys, answer, strict=True)}
    assert told == expected


@st.composite
def shared(draw, names):
    """Rows over these variants: what a replica uses, and the limit."""
    rows = {}
    for number in range(draw(st.integers(1, 3))):
        uses = {name: draw(st.sampled_from([0.5, 1.0, 2.0, 8.0])) for name in names if draw(st.booleans())}
        rows[f"row {number}"] = (uses, draw(st.sampled_from([0.0, 5.0, 12.0, 30.0, 100.0, np.inf, np.nan])))
    return rows


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
@settings(max_examples=150)
@given(data=st.data())
def test_limits_are_always_kept(compat, data):
    fleet_of_models = data.draw(models())
    seen, question = asked_of(fleet_of_models)
    names = [key.removeprefix("ns/") for key in seen.fleet.keys]
    bounds = limits(seen, rows=data.draw(shared(names)))
    answer = allocate(seen, question, bounds, compat=compat)
    base = seen.variants.base
    for row in range(len(bounds.rows)):
        entries = slice(bounds.rows.offsets[row], bounds.rows.offsets[row + 1])
        there, used = 0.0, 0.0
        for variant, use in zip(bounds.rows.variant[entries], bounds.rows.coefficient[entries], strict=True):
            there += use * base[variant]
            # what a shrinking variant gives up is in use until it is released
            used += use * max(base[variant], np.nan_to_num(answer.replicas[variant], nan=base[variant]))
        assert used == there or used <= bounds.rows.upper[row] + 1e-9
    assert np.all(np.isnan(answer.replicas) | (answer.replicas >= bounds.low) & (answer.replicas <= bounds.high))
    assert np.all(np.isnan(answer.replicas) | (answer.replicas == np.floor(answer.replicas)))
    stopped = answer.binding_row >= 0
    assert not np.any(answer.replicas[stopped] < seen.variants.base[stopped])


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
@given(fleet_of_models=models(within=False))
def test_decided_variants_end_inside_their_limits_wherever_they_start(compat, fleet_of_models):
    seen, question = asked_of(fleet_of_models)
    bounds = limits(seen)
    replicas = allocate(seen, question, bounds, compat=compat).replicas
    decided = question.anchor[seen.fleet.scope_of_variant] >= 0
    assert not np.isnan(replicas[decided]).any()
    assert np.isnan(replicas[~decided]).all()
    assert np.all((replicas >= bounds.low) & (replicas <= bounds.high) | ~decided)


@given(data=st.data())
def test_the_order_in_which_variants_are_listed_changes_nothing(data):
    fleet_of_models = data.draw(models())
    first = allocate(*(told := asked_of(fleet_of_models)), limits(told[0]))
    turned = asked_of(fleet_of_models, order=lambda count: data.draw(st.permutations(range(count))))
    second = allocate(*turned, limits(turned[0]))
    assert told[0].fleet.keys == turned[0].fleet.keys
    np.testing.assert_array_equal(first.replicas, second.replicas)
    np.testing.assert_array_equal(first.reason, second.reason)


@given(data=st.data())
def test_the_arguments_are_left_as_they_were_and_the_same_ones_give_the_same_answer(data):
    fleet_of_models = data.draw(models(within=False))
    seen, question = asked_of(fleet_of_models)
    bounds = limits(seen, rows=data.draw(shared([key.removeprefix("ns/") for key in seen.fleet.keys])))
    arrays = [seen.variants.current, bounds.low, bounds.high, bounds.rows.upper, question.anchor]
    arrays += [column for one in question.votes for column in (one.capacity, one.required, one.spare, one.score)]
    before = [array.copy() for array in arrays]
    first = allocate(seen, question, bounds)
    second = allocate(seen, question, bounds)
    np.testing.assert_array_equal(first.replicas, second.replicas)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@given(fleet_of_models=models())
def test_a_larger_need_never_gets_less_capacity(fleet_of_models):
    # of one model with one role and one vote: more is asked for, more (or the same) is there
    role = {**fleet_of_models[0][0], "anchor": 0}
    for variant in role["variants"]:
        variant["own"] = variant["own"][:1]
    carried = []
    for need in (1.0, 5.0, 25.0):
        seen, question = asked_of([[{**role, "need": [need], "spare": [0.0], "gates": [True], "score": [1.0]}]])
        carried.append(float(np.nansum(question.votes[0].capacity * allocate(seen, question, limits(seen)).replicas)))
    assert carried == sorted(carried)
