"""Where a plan starts, by cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wva_core.numerics.starting_point import starting_point, whole_limits

NAN = float("nan")


def start(base, *, low=0.0, high=np.inf, capacity=10.0, required=0.0, spare=0.0, **given):
    """Variants of one scope each unless told, one analyzer."""
    variants = len(base)
    scope = np.asarray(given.pop("scope", np.arange(variants)))
    scopes = int(scope.max()) + 1
    model = np.asarray(given.pop("model", np.arange(scopes)))
    return starting_point(
        np.asarray(base, dtype=float),
        np.broadcast_to(np.asarray(low, dtype=float), variants),
        np.broadcast_to(np.asarray(high, dtype=float), variants),
        capacity=np.array(np.broadcast_to(np.asarray(capacity, dtype=float), (1, variants))),
        required=np.array(np.broadcast_to(np.asarray(required, dtype=float), (1, scopes))),
        spare=np.array(np.broadcast_to(np.asarray(spare, dtype=float), (1, scopes))),
        counted=np.broadcast_to(given.pop("counted", True), scopes),
        grow=np.ones(scopes, dtype=bool),
        shrink=np.ones(scopes, dtype=bool),
        scope_of_variant=scope,
        model_of_scope=model,
        models=int(model.max()) + 1,
        **given,
    )


def test_limits_are_the_whole_replicas_between_them_that_a_scale_target_holds():
    low, high = whole_limits(np.array([-1.0, 0.2, 3.0, NAN]), np.array([2.9, np.inf, 3.0, NAN]))
    np.testing.assert_array_equal(low, [0, 1, 3, NAN])
    np.testing.assert_array_equal(high, [2, 2**31 - 1, 3, NAN])


def test_what_a_lower_limit_adds_counts_against_the_need():
    # from 1 to 3 replicas of 10: of 25 that are missing 5 are left
    point = start([1.0], low=2.5, required=25.0)
    assert point.start.tolist() == [3.0]
    assert point.need.tolist() == [[5.0]]


def test_what_an_upper_limit_takes_counts_against_the_spare():
    point = start([5.0], high=3.9, spare=25.0)
    assert point.start.tolist() == [3.0]
    assert point.spare.tolist() == [[5.0]]


def test_a_capacity_that_is_not_known_counts_as_the_median_of_its_scope():
    # the second variant is raised by 2, each taken for 10
    point = start([1.0, 0.0], low=[0.0, 2.0], capacity=[10.0, NAN], required=30.0, scope=[0, 0])
    assert point.need.tolist() == [[10.0]]


def test_what_is_not_known_is_not_decided():
    point = start([NAN, 1.0, 1.0, 1.0], low=[0, NAN, 0, 0], high=[5, 5, NAN, 5], counted=[True, True, True, False])
    assert not point.decided.any()
    np.testing.assert_array_equal(point.start, [NAN, 1, 1, 1])


def test_scopes_of_a_model_that_grows_do_not_shrink():
    point = start([1.0, 1.0, 1.0], required=[5.0, 0.0, 0.0], spare=5.0, model=[0, 0, 1])
    assert point.grows.tolist() == [True, False]
    assert point.may_shrink.tolist() == [False, False, True]


def test_urgency_is_the_need_relative_to_what_is_there():
    point = start([2.0, 0.0], required=[5.0, 5.0])
    assert point.urgency.tolist() == [pytest.approx(0.25), np.inf]


def test_a_plan_may_start_outside_its_limits_if_asked_to():
    point = start([1.0], low=3.0, required=25.0, within_limits=False)
    assert point.start.tolist() == [1.0]
    assert point.need.tolist() == [[25.0]]
