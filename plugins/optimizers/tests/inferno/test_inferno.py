"""The inferno optimizer in a cycle: which variant a scope gets, how it moves there, and what it tells about it."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from wva_core.engine.verify import refusal
from wva_core.errors import PolicyError
from wva_core.policy.documents import validate
from wva_core.policy.layers import profile_layer
from wva_core.testing.builders import ballot, limits, observe, vote
from wva_optimizers.inferno import Inferno

NAN = float("nan")


def allocate(seen, *votes, bounds=None, anchor=0, **parameters):
    plugin = Inferno(Inferno.Parameters(**parameters))
    within = limits(seen) if bounds is None else bounds
    answer = plugin.allocate(seen, ballot(seen, *votes, anchor=anchor), within)
    assert refusal(answer.replicas, seen.variants.base, within, seen.fleet, "inferno") is None
    return answer


def by_name(seen, column):
    return dict(zip((key.removeprefix("ns/") for key in seen.fleet.keys), np.asarray(column).tolist(), strict=True))


def why(seen, answer):
    return {name: answer.reasons[index] for name, index in by_name(seen, answer.reason).items()}


def test_a_scope_grows_on_the_variant_it_has_unless_another_saves_more_than_the_change():
    # 1 replica of 10, 30 needed: 3 of a cost 30 (+20), 3 of b cost 27 (+17 and 10 % of 10 + 27): 20 against 20.7
    seen = observe([{"name": "a", "current": 1, "cost": 10}, {"name": "b", "current": 0, "cost": 9}])
    answer = allocate(seen, vote(seen, capacity=10.0, required=20.0))
    assert by_name(seen, answer.replicas) == {"a": 3, "b": 0}
    assert why(seen, answer)["a"].startswith("serves its scope")
    assert why(seen, answer)["b"].startswith("is not chosen")


def test_without_a_penalty_the_cheaper_one_is_taken():
    seen = observe([{"name": "a", "current": 1, "cost": 10}, {"name": "b", "current": 0, "cost": 9}])
    answer = allocate(seen, vote(seen, capacity=10.0, required=20.0), change_penalty=0.0)
    assert by_name(seen, answer.replicas)["b"] == 3


def test_what_is_given_up_goes_only_when_the_new_variant_serves():
    # b carries 30 for 5: all of the 30 in one replica
    def seen(**b):
        return observe([{"name": "a", "current": 2, "cost": 10}, {"name": "b", "cost": 5, **b}])

    capacity = {"a": 10.0, "b": 30.0}
    first = seen(current=0)
    answer = allocate(first, vote(first, capacity=capacity, required=10.0))
    assert by_name(first, answer.replicas) == {"a": 2, "b": 1}
    starting = seen(current=1, ready=0, pending=1)
    assert by_name(starting, allocate(starting, vote(starting, capacity=capacity)).replicas) == {"a": 2, "b": 1}
    serving = seen(current=1)
    answer = allocate(serving, vote(serving, capacity=capacity, supply=50.0, spare=25.0))
    assert by_name(serving, answer.replicas) == {"a": 0, "b": 1}


def test_a_scope_that_needs_nothing_moves_only_to_save():
    seen = observe([{"name": "a", "current": 2, "cost": 10}, {"name": "b", "current": 0, "cost": 9}])
    assert by_name(seen, allocate(seen, vote(seen, capacity=10.0)).replicas) == {"a": 2, "b": 0}
    cheap = observe([{"name": "a", "current": 2, "cost": 10}, {"name": "b", "current": 0, "cost": 1}])
    assert by_name(cheap, allocate(cheap, vote(cheap, capacity=10.0)).replicas) == {"a": 2, "b": 2}


def test_shrinking_keeps_what_is_not_spare_and_the_last_replica():
    seen = observe([{"name": "a", "current": 5}])
    some = allocate(seen, vote(seen, capacity=10.0, supply=50.0, spare=25.0))
    assert by_name(seen, some.replicas) == {"a": 3}
    everything = allocate(seen, vote(seen, capacity=10.0, supply=50.0, spare=50.0))
    assert by_name(seen, everything.replicas) == {"a": 1}


def test_the_vote_that_needs_most_decides():
    seen = observe([{"name": "a", "current": 1}])
    answer = allocate(
        seen, vote(seen, capacity=10.0, required=10.0), vote(seen, capacity=1000.0, required=4000.0, analyzer="other")
    )
    assert by_name(seen, answer.replicas) == {"a": 5}


def test_a_variant_of_unknown_capacity_stays_and_counts_as_much_as_the_others():
    seen = observe([{"name": "a", "current": 1}, {"name": "b", "current": 2}])
    answer = allocate(seen, vote(seen, capacity={"a": 10.0}, required=10.0))
    assert by_name(seen, answer.replicas) == {"a": 2, "b": 2}
    assert why(seen, answer)["b"].startswith("is left as it is")


def test_a_scope_that_nobody_sizes_is_not_answered():
    seen = observe([{"name": "a", "current": 1}])
    assert np.isnan(allocate(seen, vote(seen, required=1.0), anchor=-1).replicas).all()


def test_where_the_maximum_is_below_the_need_everything_runs_that_helps():
    # 100 are needed; a may have 3 and carries 10, b may have 2 and carries 40: b is the one to add
    seen = observe([{"name": "a", "current": 2}, {"name": "b", "current": 0}])
    answer = allocate(
        seen, vote(seen, capacity={"a": 10.0, "b": 40.0}, required=100.0), bounds=limits(seen, high={"a": 3, "b": 2})
    )
    assert by_name(seen, answer.replicas) == {"a": 2, "b": 2}
    assert why(seen, answer)["b"] == "is the best of its scope, but its maximum is below the need"


def test_an_upper_limit_of_zero_keeps_a_scope_off_a_variant():
    seen = observe([{"name": "a", "current": 1, "cost": 10}, {"name": "b", "current": 0, "cost": 1}])
    answer = allocate(seen, vote(seen, capacity=10.0, required=10.0), bounds=limits(seen, high={"a": 9, "b": 0}))
    assert by_name(seen, answer.replicas) == {"a": 2, "b": 0}


def two_classes(**more):
    return observe(
        [
            {"name": "gold", "model": "m", "service_class": "gold", "current": 0, "base": 0, **more},
            {"name": "free", "model": "m", "service_class": "free", "current": 0, "base": 0, **more},
        ]
    )


ROW = {"GPUs": ({"gold": 1.0, "free": 1.0}, 3.0)}


def test_the_higher_priority_is_served_first():
    seen = two_classes()
    asks = vote(seen, capacity=10.0, required=30.0)
    answer = allocate(seen, asks, bounds=limits(seen, rows=ROW), priorities={"gold": 1, "free": 2})
    assert by_name(seen, answer.replicas) == {"gold": 3, "free": 0}
    answer = allocate(seen, asks, bounds=limits(seen, rows=ROW), priorities={"free": 2})
    assert by_name(seen, answer.replicas) == {"gold": 0, "free": 3}
    assert why(seen, answer)["gold"] == "no variant of its scope has room for the whole need"
    assert by_name(seen, answer.binding_row) == {"gold": 0, "free": -1}


def test_a_model_without_a_class_has_the_priority_of_its_name():
    seen = observe([{"name": name, "model": name, "current": 0} for name in ("gold", "free")])
    answer = allocate(
        seen, vote(seen, capacity=10.0, required=30.0), bounds=limits(seen, rows=ROW), priorities={"gold": 5}
    )
    assert by_name(seen, answer.replicas) == {"gold": 3, "free": 0}


@pytest.mark.parametrize(
    ("policy", "replicas"),
    [("None", [0, 0]), ("PriorityExhaustive", [3, 0]), ("RoundRobin", [2, 1])],
)
def test_what_is_left_is_shared_by_policy(policy, replicas):
    seen = two_classes()
    answer = allocate(
        seen, vote(seen, capacity=10.0, required=40.0), bounds=limits(seen, rows=ROW), saturation_policy=policy
    )
    assert sorted(answer.replicas.tolist(), reverse=True) == replicas
    if policy != "None":
        assert (
            "gets a share: its scope does not fit as a whole, and this is what is left for it"
            in why(seen, answer).values()
        )


def test_what_a_scope_has_it_keeps_when_more_does_not_fit():
    seen = observe([{"name": "a", "current": 2}, {"name": "b", "current": 1}])
    rows = {"GPUs": ({"a": 1.0, "b": 1.0}, 4.0)}
    asks = vote(seen, capacity=10.0, required=40.0)
    none = allocate(seen, asks, bounds=limits(seen, rows=rows))
    assert by_name(seen, none.replicas) == {"a": 2, "b": 1}
    share = allocate(seen, asks, bounds=limits(seen, rows=rows), saturation_policy="PriorityExhaustive")
    assert sum(share.replicas) == 4


def test_a_change_needs_room_beside_what_still_runs():
    seen = observe([{"name": "a", "current": 2, "cost": 10}, {"name": "b", "current": 0, "cost": 1}])
    full = {"GPUs": ({"a": 1.0, "b": 1.0}, 3.0)}
    answer = allocate(seen, vote(seen, capacity=10.0), bounds=limits(seen, rows=full))
    assert by_name(seen, answer.replicas) == {"a": 2, "b": 0}


def test_a_scope_stays_as_it_is_rather_than_take_a_row_below_its_lower_limit():
    seen = observe([{"name": "a", "current": 5}])
    bounds = limits(seen, rows={"ratio": ({"a": 1.0}, np.inf)})
    low = bounds.rows.lower.copy()
    low[:] = 4.0
    object.__setattr__(bounds.rows, "lower", low)
    answer = allocate(seen, vote(seen, capacity=10.0, supply=50.0, spare=45.0), bounds=bounds)
    assert by_name(seen, answer.replicas) == {"a": 5}


def test_a_group_that_runs_together_is_not_torn_apart():
    seen = observe([{"name": "p", "role": "prefill", "current": 0}, {"name": "d", "role": "decode", "current": 0}])
    asks = vote(seen, capacity=10.0, required=[10.0, 0.0])
    answer = allocate(seen, asks, bounds=limits(seen, together=[("p", "d")]))
    assert by_name(seen, answer.replicas) == {"p": 0, "d": 0}
    both = vote(seen, capacity=10.0, required=10.0)
    answer = allocate(seen, both, bounds=limits(seen, together=[("p", "d")]))
    assert by_name(seen, answer.replicas) == {"p": 1, "d": 1}


@pytest.mark.parametrize(
    "given",
    [
        {"saturation_policy": "none"},
        {"saturation_policy": "roundrobin"},
        {"priorities": {"gold": 0}},
        {"priorities": {"gold": 101}},
        {"change_penalty": -0.1},
    ],
)
def test_parameters_out_of_range_are_refused(given):
    with pytest.raises(ValidationError):
        Inferno.Parameters.model_validate(given)


def test_its_profile_gives_what_is_left_to_somebody_and_the_plugin_alone_to_nobody_as_the_original_does():
    chosen = profile_layer("inferno").values["optimizer"]
    assert chosen["type"] == "inferno"
    seen = observe([{"name": "a", "current": 1}])
    bounds = limits(seen, rows={"GPUs": ({"a": 1}, 3.0)})
    needs_five_more = vote(seen, capacity=10.0, required=50.0)
    parameters = validate(Inferno.Parameters, chosen["parameters"], "the profile", PolicyError)
    by_profile = allocate(seen, needs_five_more, bounds=bounds, **parameters.model_dump())
    assert by_name(seen, by_profile.replicas) == {"a": 3}
    assert by_name(seen, allocate(seen, needs_five_more, bounds=bounds).replicas) == {"a": 1}
