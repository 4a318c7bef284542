"""Windows and rates over several cycles, against sequences worked out by hand from the algorithm of an HPA."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.engine.parts import analyzer, brain, optimizer, steps
from wva_core.domain import Allocation, Memory, Reason
from wva_core.engine import decide
from wva_core.testing.builders import observe

INTERVAL = 15.0


def series(wishes, start, behavior=None, *, follows=True, **variant):
    """
    Targets and their reasons, one cycle every 15 s, for an optimizer that would like `wishes` in turn.

    The scale target is where the plan wants it one cycle later, or stays at `start` without `follows`.
    """
    wanted = iter(wishes)
    wish = [start]

    def allocate(observation, _ballot, limits):
        return Allocation(np.clip(np.array([float(wish[0])]), limits.low, limits.high))

    policy = {"bounds": {"behavior": behavior, "settleSeconds": 0 if not follows else 300}} if behavior else {}
    chain = brain([analyzer(steps())], optimizer(allocate), **policy)
    seen = observe([{"name": "a", "current": start, **variant}])
    memory, targets, reasons = Memory.empty(seen.fleet), [], []
    for cycle, value in enumerate(wanted):
        wish[0] = value
        decision = decide(replace(seen, time=cycle * INTERVAL), chain, memory)
        assert decision.failures == {}
        memory = decision.memory
        targets.append(int(decision.plan.desired[0]))
        reasons.append(Reason(decision.plan.reason[0]))
        if follows:
            seen = seen.with_variants(seen.variants.with_columns(current=[targets[-1]], ready=[targets[-1]]))
    chain.stop()
    return targets, reasons


def test_without_behavior_every_wish_is_followed_at_once():
    assert series([5, 100, 1, 7], 5)[0] == [5, 100, 1, 7]


def test_a_down_window_falls_only_to_the_highest_wish_of_the_window():
    # window 60 s, a wish exactly 60 s old no longer counts. At 60 s: 3, 4, 2 and 2 count, hence 4; at 90 s only twos.
    down = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    targets, reasons = series([5, 3, 4, 2, 2, 2, 2], 5, down)
    assert targets == [5, 5, 5, 5, 4, 4, 2]
    assert reasons[1:6] == [Reason.BOUND_WINDOW] * 5
    assert reasons[6] == Reason.SHRINK


def test_a_down_window_lets_grow_at_once():
    assert series([5, 9, 3], 5, {"scaleDown": {"stabilizationWindowSeconds": 60}})[0] == [5, 9, 9]


def test_an_up_window_rises_only_to_the_lowest_wish_of_the_window():
    # window 30 s. At 30 s: 5 and 4 count, hence 4; at 45 s: 4 and 6; at 60 s: 6 and 6.
    up = {"scaleUp": {"stabilizationWindowSeconds": 30}}
    assert series([2, 5, 4, 6, 6], 2, up)[0] == [2, 2, 4, 4, 6]


def test_windows_look_back_on_wishes_and_not_on_what_was_published():
    # published is 5 until 45 s; were that looked back on, 5 would justify itself for ever
    down = {"scaleDown": {"stabilizationWindowSeconds": 45}}
    assert series([5, 1, 1, 1, 1], 5, down)[0] == [5, 5, 5, 1, 1]


def test_a_rate_in_pods_counts_from_the_start_of_its_period():
    # at most 4 pods in 60 s: 2 -> 6; the event at 0 s counts until 45 s, at 60 s it is as old as the period
    rate = {"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}}
    targets, reasons = series([20] * 6, 2, rate)
    assert targets == [6, 6, 6, 6, 10, 10]
    assert reasons == [Reason.BOUND_RATE] * 6


def test_a_rate_in_percent_drops_the_fraction_on_the_way_down():
    # at most half in 30 s: 8 -> 4 -> 2 -> 1 (2 x 0.5), then 1 x 0.5 without its fraction is 0
    rate = {"scaleDown": {"policies": [{"type": "Percent", "value": 50, "periodSeconds": 30}]}}
    assert series([0] * 8, 8, rate)[0] == [4, 4, 2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(("select", "first"), [("Max", 8), ("Min", 5)])
def test_several_rates_allow_the_largest_or_the_smallest_change(select, first):
    # from 4: one pod more is 5, a hundred percent more is 8
    policies = [
        {"type": "Pods", "value": 1, "periodSeconds": 60},
        {"type": "Percent", "value": 100, "periodSeconds": 60},
    ]
    assert series([10], 4, {"scaleUp": {"selectPolicy": select, "policies": policies}})[0] == [first]


def test_a_disabled_direction_never_moves():
    assert series([1, 9, 1], 4, {"scaleDown": {"selectPolicy": "Disabled"}})[0] == [4, 9, 9]


def test_events_of_both_directions_count():
    # up 2 in 60 s, down 1 in 60 s. 4 -> 6 at 0 s. At 15 s the period began with 6 - 2 = 4 replicas, so 3 is allowed.
    # At 30 s it began with 3 - 2 + 3 = 4, so 6 is.
    rates = {
        "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]},
        "scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
    }
    assert series([9, 1, 9], 4, rates)[0] == [6, 3, 6]


def test_window_and_rate_together():
    # up window 15 s sees only the present wish and those less than 15 s old: none. Rate: 1 pod in 15 s.
    both = {
        "scaleUp": {"stabilizationWindowSeconds": 15, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 30},
    }
    # 30 s: falls only to max(5 at 15 s, 1) = 5, which is above the base 4: stays. 45 s: 1 and 1.
    assert series([5, 5, 1, 1], 2, both)[0] == [3, 4, 4, 1]


def test_the_maximum_is_kept_at_once_whatever_the_rate():
    # an HPA goes straight to its maximum when more is there
    rate = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    assert series([9], 9, rate, max_replicas=4)[0] == [4]


def test_and_the_minimum():
    rate = {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    assert series([1], 1, rate, min_replicas=5)[0] == [5]


def test_a_variant_that_is_new_has_no_past_to_hold_it_back():
    down = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    chain = brain(
        [analyzer(steps())],
        optimizer(lambda seen, _ballot, limits: Allocation(np.clip(np.ones(len(seen.fleet)), limits.low, limits.high))),
        bounds={"behavior": down},
    )
    first = observe([{"name": "a", "current": 3}])
    memory = decide(replace(first, time=0.0), chain, Memory.empty(first.fleet)).memory
    later = observe([{"name": "a", "current": 3}, {"name": "b", "current": 3}], time=15.0)
    # both wish for 1; a wished for 1 before as well
    assert decide(later, chain, memory).plan.desired.tolist() == [1.0, 1.0]
    chain.stop()


def test_each_model_has_the_behavior_of_its_override():
    chain = brain(
        [analyzer(steps())],
        optimizer(lambda seen, _ballot, limits: Allocation(np.clip(np.full(2, 9.0), limits.low, limits.high))),
        overrides=[
            {
                "match": {"modelID": "slow"},
                "bounds": {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}}},
            }
        ],
    )
    seen = observe([{"name": "a", "model": "quick"}, {"name": "b", "model": "slow"}])
    assert decide(seen, chain, Memory.empty(seen.fleet)).plan.desired.tolist() == [9.0, 2.0]
    chain.stop()
