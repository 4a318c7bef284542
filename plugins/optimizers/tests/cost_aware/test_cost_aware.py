"""The cost-aware optimizer within limits: bounds, shared rows, groups, and what it tells about its answer."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from wva_core.hooks.catalog import check_contract
from wva_core.testing.builders import ballot, limits, observe, vote
from wva_optimizers.cost_aware import CostAware

NAN = float("nan")
P, D = {"role": "prefill"}, {"role": "decode"}


def allocate(seen, *votes, bounds=None, compat=False, anchor=0):
    plugin = CostAware(CostAware.Parameters(compat=compat))
    return plugin.allocate(seen, ballot(seen, *votes, anchor=anchor), limits(seen) if bounds is None else bounds)


def by_name(seen, column):
    return dict(zip((key.removeprefix("ns/") for key in seen.fleet.keys), np.asarray(column).tolist(), strict=True))


def why(seen, answer):
    return {name: answer.reasons[index] for name, index in by_name(seen, answer.reason).items()}


def test_it_keeps_the_contract_of_optimizers():
    assert check_contract("optimizers", "cost-aware", CostAware) is CostAware


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ValidationError, match="compatt"):
        CostAware.Parameters.model_validate({"compatt": True})


# Limits of single variants


def test_what_a_lower_limit_adds_counts_against_the_need():
    # 3 more are needed, the limit asks for 2 of them: 1 + 2 + 1
    seen = observe([{"name": "only", "current": 1}])
    answer = allocate(seen, vote(seen, capacity=10.0, required=30.0), bounds=limits(seen, low=3.0))
    assert by_name(seen, answer.replicas) == {"only": 4}


def test_what_a_lower_limit_adds_on_a_dear_variant_spares_the_cheap_one():
    seen = observe([{"name": "cheap", "current": 1, "cost": 1}, {"name": "dear", "current": 0, "cost": 9}])
    answer = allocate(seen, vote(seen, capacity=10.0, required=10.0), bounds=limits(seen, low={"dear": 1}))
    assert by_name(seen, answer.replicas) == {"cheap": 1, "dear": 1}
    assert why(seen, answer)["dear"] == "is raised to its lower limit"


def test_what_an_upper_limit_takes_counts_against_the_spare():
    # 2 are spare; the limit takes both from the cheap variant, so the dear one stays
    seen = observe([{"name": "cheap", "current": 4, "cost": 1}, {"name": "dear", "current": 2, "cost": 9}])
    answer = allocate(seen, vote(seen, capacity=10.0, spare=20.0), bounds=limits(seen, high={"cheap": 2}))
    assert by_name(seen, answer.replicas) == {"cheap": 2, "dear": 2}
    assert why(seen, answer)["cheap"] == "is lowered to its upper limit"


def test_limits_between_whole_numbers_are_narrowed_to_whole_ones():
    seen = observe([{"name": "a", "current": 0}, {"name": "b", "current": 9}])
    answer = allocate(seen, vote(seen, capacity=10.0), bounds=limits(seen, low={"a": 1.5}, high={"b": 4.5}))
    assert by_name(seen, answer.replicas) == {"a": 2, "b": 4}


def test_an_upper_limit_of_zero_takes_the_last_replica():
    seen = observe([{"name": "only", "current": 2}])
    assert by_name(seen, allocate(seen, vote(seen), bounds=limits(seen, high=0.0)).replicas) == {"only": 0}


def test_a_need_beyond_every_limit_asks_for_no_more_than_a_scale_target_can_hold():
    seen = observe([{"name": "only", "current": 1}])
    answer = allocate(seen, vote(seen, capacity=1e-9, required=1e9))
    assert by_name(seen, answer.replicas) == {"only": 2**31 - 1}


@pytest.mark.parametrize("side", ["low", "high"])
def test_a_variant_without_known_limits_is_left_as_it_is_and_takes_no_growth(side):
    seen = observe([{"name": "a", "cost": 1}, {"name": "b", "cost": 9}])
    bounds = limits(seen, **{side: {"a": NAN, "b": 0.0 if side == "low" else 9.0}})
    answer = allocate(seen, vote(seen, capacity=10.0, required=10.0), bounds=bounds)
    assert by_name(seen, answer.replicas) == {"a": pytest.approx(NAN, nan_ok=True), "b": 2}
    assert why(seen, answer)["a"] == "is left as it is: its replicas or its limits are not known"


def test_a_variant_with_unknown_replicas_is_left_as_it_is():
    seen = observe([{"name": "a", "current": NAN}, {"name": "b", "cost": 99}])
    answer = allocate(seen, vote(seen, capacity=10.0, required=10.0))
    assert by_name(seen, answer.replicas) == {"a": pytest.approx(NAN, nan_ok=True), "b": 2}


def test_growth_starts_from_the_target_that_is_being_reached():
    seen = observe([{"name": "only", "current": 1, "target": 4, "settling": True}])
    assert by_name(seen, allocate(seen, vote(seen, capacity=10.0, required=10.0)).replicas) == {"only": 5}


# Prices


def test_a_cost_that_is_not_stated_counts_as_the_default():
    # 9 and 11 lie around the default of 10
    for other, grows in ((9.0, "other"), (11.0, "unstated")):
        seen = observe([{"name": "unstated", "cost": NAN}, {"name": "other", "cost": other}])
        answer = by_name(seen, allocate(seen, vote(seen, capacity=10.0, required=10.0)).replicas)
        assert answer[grows] == 2
        assert sum(answer.values()) == 3


def test_the_objective_is_the_cost_of_what_will_run():
    # 2 -> 3 at 5, and one held replica at 7
    seen = observe([{"name": "a", "current": 2, "cost": 5}, {"name": "held", "cost": 7, **D}])
    held = [-1 if scope.role == "decode" else 0 for scope in seen.fleet.scopes]
    answer = allocate(seen, vote(seen, capacity=10.0, required=[0 if h else 10.0 for h in held]), anchor=held)
    assert answer.objective == 22.0
    assert answer.status == "feasible"


# Growth before shrinking


def test_no_role_of_a_model_shrinks_while_another_grows():
    seen = observe(
        [{"name": "p", "current": 3, **P}, {"name": "d", **D}, {"name": "other", "current": 3, "model": "m"}]
    )
    roles = [scope.role for scope in seen.fleet.scopes]
    only = vote(
        seen,
        capacity=10.0,
        required=[10.0 if role == "decode" else 0.0 for role in roles],
        spare=[0.0 if role == "decode" else 20.0 for role in roles],
    )
    assert by_name(seen, allocate(seen, only).replicas) == {"p": 3, "d": 2, "other": 1}


# Shared limits


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
def test_growth_spills_over_where_a_shared_limit_stops_the_cheapest(compat):
    seen = observe([{"name": "cheap", "cost": 1}, {"name": "dear", "cost": 9}])
    bounds = limits(seen, rows={"GPUs of type H100": ({"cheap": 4, "dear": 0}, 12)})
    answer = allocate(seen, vote(seen, capacity=10.0, required=50.0), bounds=bounds, compat=compat)
    assert by_name(seen, answer.replicas) == {"cheap": 3, "dear": 4}
    assert by_name(seen, answer.binding_row) == {"cheap": 0, "dear": -1}
    assert why(seen, answer)["cheap"] == "a shared limit stops its growth"


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
@pytest.mark.parametrize(("gpus", "free", "each"), [(1, 5, 3), (2, 6, 2)], ids=["5-for-8", "6-for-16"])
def test_a_prefill_and_decode_pair_stays_balanced_on_one_accelerator(gpus, free, each, compat):
    seen = observe([{"name": "p", **P}, {"name": "d", **D}])
    bounds = limits(seen, rows={"A100": ({"p": gpus, "d": gpus}, 2 * gpus + free)})
    answer = allocate(seen, vote(seen, capacity=10000.0, required=40000.0), bounds=bounds, compat=compat)
    assert by_name(seen, answer.replicas) == {"p": each, "d": each}


def test_the_model_that_lacks_most_of_what_it_has_is_served_first():
    # both lack 20; one has 10, the other 40
    seen = observe([{"name": "big", "model": "a", "current": 4}, {"name": "small", "model": "b", "current": 1}])
    bounds = limits(seen, rows={"GPUs": ({"big": 1, "small": 1}, 7)})
    answer = allocate(seen, vote(seen, capacity=10.0, required=20.0), bounds=bounds)
    assert by_name(seen, answer.replicas) == {"big": 4, "small": 3}


def test_what_one_model_gives_up_is_not_handed_to_another_in_the_same_cycle():
    seen = observe([{"name": "idle", "model": "a", "current": 4}, {"name": "busy", "model": "b", "current": 1}])
    bounds = limits(seen, rows={"GPUs": ({"idle": 1, "busy": 1}, 5)})
    asked = vote(seen, capacity=10.0, required=[0.0, 20.0], spare=[20.0, 0.0])
    assert by_name(seen, allocate(seen, asked, bounds=bounds).replicas) == {"idle": 2, "busy": 1}


def test_a_need_nobody_has_room_for_is_told():
    seen = observe([{"name": "p", "max_replicas": 1, **P}, {"name": "d", **D}])
    answer = allocate(seen, vote(seen, capacity=10.0, required=20.0))
    assert by_name(seen, answer.replicas) == {"p": 1, "d": 1}
    text = "more is needed, and a role of the model has no variant with room for it"
    assert why(seen, answer) == {"p": text, "d": text}


# Groups


def pair(required, *, current=(0, 0), **bounds):
    """Replicas of a prefill and a decode variant that run together, after `required` of the decode role."""
    seen = observe([{"name": "p", "current": current[0], **P}, {"name": "d", "current": current[1], **D}])
    asked = vote(
        seen, capacity=10.0, required=[required if scope.role == "decode" else 0.0 for scope in seen.fleet.scopes]
    )
    answer = allocate(seen, asked, bounds=limits(seen, together=[("p", "d")], **bounds))
    replicas = by_name(seen, answer.replicas)
    return replicas["p"], replicas["d"]


def test_a_group_in_which_something_starts_gets_one_of_each():
    assert pair(20.0) == (1, 2)


def test_a_group_whose_partner_may_not_run_stays_at_zero():
    assert pair(20.0, high={"p": 0}) == (0, 0)


def test_a_group_that_does_not_fit_into_a_shared_limit_stays_at_zero():
    assert pair(20.0, rows={"GPUs": ({"p": 1, "d": 1}, 2)}) == (0, 0)


def test_a_group_that_is_idle_stays_so():
    assert pair(0.0) == (0, 0)


def test_replicas_that_serve_are_not_taken_for_a_partner_that_cannot_come():
    assert np.isnan(pair(20.0, current=(0, 3), high={"p": 0})).all()
