"""Windows and rate policies against hand-worked cases, and against a plain loop on random histories."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import hpa_reference as reference
from wva_core.errors import ParameterError
from wva_core.numerics import scaling_behavior as sb
from wva_core.numerics.scaling_behavior import (
    HPA_DEFAULT_BEHAVIOR,
    UNDAMPED,
    ScalingPolicy,
    ScalingRules,
    scale_down_limit,
    scale_up_limit,
    stabilization_bounds,
    windowed_recommendations,
)

NO_EVENTS = ([], [])


def stabilize(base, recommendation, samples, now, up_window, down_window):
    """The clamped recommendation of one variant; `samples` are (time, recommendation)."""
    times = [time for time, _ in samples]
    rows = [[value] for _, value in samples]
    up, down = windowed_recommendations([recommendation], times, rows, now, up_window, down_window)
    low, high = stabilization_bounds([base], up, down)
    return float(np.clip(recommendation, low, high)[0])


def up(base, rules, events=(), now=100.0):
    """The upper limit of one variant; `events` are (time, signed change)."""
    return scale_up_limit([base], rules, [time for time, _ in events], [[change] for _, change in events], now)[0]


def down(base, rules, events=(), now=100.0):
    return scale_down_limit([base], rules, [time for time, _ in events], [[change] for _, change in events], now)[0]


def pods(value, period=60.0):
    return ScalingPolicy("Pods", value, period)


def percent(value, period=60.0):
    return ScalingPolicy("Percent", value, period)


def rules(*policies, select="Max"):
    return ScalingRules(select_policy=select, policies=policies)


# ---------------------------------------------------------------------------------------------------------------------
# Stabilisation


def test_without_windows_a_recommendation_is_followed_at_once():
    samples = [(99.0, 50), (99.9, 1)]
    assert stabilize(10, 12, samples, now=100.0, up_window=0, down_window=0) == 12
    assert stabilize(10, 3, samples, now=100.0, up_window=0, down_window=0) == 3


def test_down_window_holds_at_its_highest_recommendation():
    # Window (40, 100]: samples 8 and 6, current 2. down = max(8, 6, 2) = 8, base 10 > 8, so 8.
    assert stabilize(10, 2, [(50.0, 8), (80.0, 6)], now=100.0, up_window=0, down_window=60) == 8


def test_up_window_holds_at_its_lowest_recommendation():
    # Window (40, 100]: samples 7 and 12, current 15. up = min(7, 12, 15) = 7, base 5 < 7, so 7.
    assert stabilize(5, 15, [(50.0, 7), (80.0, 12)], now=100.0, up_window=60, down_window=0) == 7


def test_between_the_extremes_of_both_windows_nothing_moves():
    # up = min(4, 9) = 4, down = max(4, 9) = 9; base 6 lies between them.
    assert stabilize(6, 9, [(90.0, 4)], now=100.0, up_window=60, down_window=60) == 6


def test_a_rise_is_held_although_the_down_window_saw_more():
    # up = min(8, 12, 9) = 8 rules the rise from 5; down = max(8, 12, 9) = 12 has no say in it.
    assert stabilize(5, 9, [(70.0, 8), (80.0, 12)], now=100.0, up_window=60, down_window=60) == 8


def test_a_fallen_base_returns_to_what_the_down_window_still_holds():
    # With no up window up = current = 3 > base 2, so the answer is 3: the high sample of 9 allows but never asks.
    assert stabilize(2, 3, [(90.0, 9)], now=100.0, up_window=0, down_window=60) == 3


@pytest.mark.parametrize(("age", "expected"), [(60.0, 2), (59.999, 8), (60.001, 2)])
def test_a_sample_as_old_as_the_window_no_longer_counts(age, expected):
    assert stabilize(10, 2, [(100.0 - age, 8)], now=100.0, up_window=0, down_window=60) == expected


def test_windows_look_back_on_recommendations_before_damping():
    # Down window 60 s, a decision every 30 s; the metrics ask 10, 4, 4, 4.
    #   undamped history: t=30 max(10, 4) = 10; t=60 the 10 of t=0 is exactly 60 s old: max(4, 4) = 4.
    #   damped history:   t=30 10 as well, remembered as 10; t=60 max(10, 4) = 10; t=90 max(10, 4) = 10; it never falls.
    asked = [(0.0, 10), (30.0, 4), (60.0, 4), (90.0, 4)]

    def run(remember_damped):
        base, samples, answers = 10.0, [], []
        for now, recommendation in asked:
            base = stabilize(base, recommendation, samples, now, up_window=0, down_window=60)
            samples.append((now, base if remember_damped else recommendation))
            answers.append(base)
        return answers

    assert run(remember_damped=False) == [10, 10, 4, 4]
    assert run(remember_damped=True) == [10, 10, 10, 10]


def test_each_variant_may_have_its_own_window():
    # Sample 40 s old. Variant 0 looks back 60 s: max(8, 2) = 8; variant 1 looks back 30 s and sees only its 2.
    _, highest = windowed_recommendations([2, 2], [60.0], [[8, 8]], 100.0, 0.0, np.array([60.0, 30.0]))
    assert highest.tolist() == [8, 2]


def test_an_unknown_sample_does_not_count():
    lowest, highest = windowed_recommendations([5, 5], [90.0, 95.0], [[math.nan, 1], [7, math.nan]], 100.0, 60.0, 60.0)
    assert lowest.tolist() == [5, 1]
    assert highest.tolist() == [7, 5]


def test_unknown_recommendation_or_base_stays_unknown():
    lowest, highest = windowed_recommendations([math.nan, 3], [90.0], [[4, 4]], 100.0, 60.0, 60.0)
    assert np.isnan(lowest[0])
    assert np.isnan(highest[0])
    low, high = stabilization_bounds([2, math.nan], lowest, highest)
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_inputs_stay_untouched():
    current, history = np.array([5.0, 5.0]), np.array([[1.0, 9.0]])
    windowed_recommendations(current, [90.0], history, 100.0, 60.0, 60.0)
    windowed_recommendations(current, [90.0], history, 100.0, 0.0, 0.0)
    base, changes = np.array([5.0, 5.0]), np.array([[1.0, math.nan]])
    scale_up_limit(base, rules(pods(1)), [90.0], changes, 100.0)[:] = 0
    scale_up_limit(base, rules(select="Disabled"), [90.0], changes, 100.0)[:] = 0
    scale_down_limit(base, rules(pods(1)), [90.0], changes, 100.0)[:] = 0
    scale_down_limit(base, rules(select="Disabled"), [90.0], changes, 100.0)[:] = 0
    assert current.tolist() == [5, 5]
    assert history.tolist() == [[1, 9]]
    assert base.tolist() == [5, 5]
    assert changes[0, 0] == 1
    assert np.isnan(changes[0, 1])


# ---------------------------------------------------------------------------------------------------------------------
# Rate policies


def test_without_policies_nothing_is_limited():
    assert up(10, UNDAMPED.scale_up) == math.inf
    assert down(10, UNDAMPED.scale_down) == 0


def test_max_takes_the_policy_of_the_largest_change():
    both = (pods(4), percent(100))
    # Up from 3: 3+4 = 7 and ceil(3·2) = 6. Up from 10: 14 and 20. Down from 10: 10−4 = 6 and 10·0 = 0.
    assert up(3, rules(*both)) == 7
    assert up(10, rules(*both)) == 20
    assert down(10, rules(*both)) == 0


def test_min_takes_the_policy_of_the_smallest_change():
    both = (pods(4), percent(100))
    assert up(3, rules(*both, select="Min")) == 6
    assert up(10, rules(*both, select="Min")) == 14
    assert down(10, rules(*both, select="Min")) == 6


@pytest.mark.parametrize("policies", [(), (pods(4),)])
def test_a_disabled_direction_stays_where_it_is(policies):
    assert up(10, rules(*policies, select="Disabled")) == 10
    assert down(10, rules(*policies, select="Disabled")) == 10


@pytest.mark.parametrize(
    ("base", "value", "expected"),
    [
        (1, 10, 2),  # 1.1 rounds up, or a single replica could never grow
        (10, 10, 11),  # 10·1.1 is 11 in float64 as well
        (100, 10, 111),  # 100·1.1 is 110.00000000000001 in float64: the original rounds that up, so do we
        (3, 50, 5),  # 4.5
        (0, 100, 0),  # a percentage of nothing
    ],
)
def test_percent_up_rounds_up(base, value, expected):
    assert up(base, rules(percent(value))) == expected


@pytest.mark.parametrize(
    ("base", "value", "expected"),
    [
        (5, 50, 2),  # 2.5 loses its fraction: shrinking rounds towards the larger change
        (1, 10, 0),  # 0.9
        (10, 90, 0),  # 10·(1 − 0.9) is 0.9999999999999998 in float64
        (10, 10, 9),
        (10, 150, 0),  # −5: a replica count ends at 0
    ],
)
def test_percent_down_drops_the_fraction(base, value, expected):
    assert down(base, rules(percent(value))) == expected


def test_the_limit_counts_from_the_start_of_the_period():
    # Base 10 after +3 at t=70 and −1 at t=90: 10 − 3 + 1 = 8 replicas stood at the start of the 60 s.
    events = [(70.0, 3), (90.0, -1)]
    assert up(10, rules(pods(4)), events) == 12
    assert up(10, rules(percent(50)), events) == 12
    assert down(10, rules(pods(4)), events) == 4
    assert down(10, rules(percent(50)), events) == 4


def test_each_policy_has_its_own_period():
    # +3 at t=70 lies within 60 s but not within 15 s: 10−3+4 = 11 against 10+2 = 12.
    both = (pods(4, period=60.0), pods(2, period=15.0))
    assert up(10, rules(*both), [(70.0, 3)]) == 12
    assert up(10, rules(*both, select="Min"), [(70.0, 3)]) == 11


@pytest.mark.parametrize(("age", "expected"), [(60.0, 14), (59.999, 11)])
def test_an_event_as_old_as_the_period_no_longer_counts(age, expected):
    assert up(10, rules(pods(4)), [(100.0 - age, 3)]) == expected


def test_a_used_up_allowance_holds_but_never_reverses():
    # +6 within the period: 10 − 6 + 4 = 8 would be below the present 10.
    assert up(10, rules(pods(4)), [(90.0, 6)]) == 10
    # −6 within the period: 4 + 6 − 4 = 6 would be above the present 4.
    assert down(4, rules(pods(4)), [(90.0, -6)]) == 4


def test_growth_within_the_period_may_be_undone_on_top_of_the_allowance():
    # Base 10 after +6: it stood at 4, and the policy protects 4 − 3 = 1, not 10 − 3 = 7.
    assert down(10, rules(pods(3)), [(90.0, 6)]) == 1


def test_an_unknown_change_is_no_change_and_an_unknown_base_has_no_limit_to_tell():
    limits = scale_up_limit([10, math.nan], rules(pods(4)), [90.0], [[math.nan, 1]], 100.0)
    assert limits[0] == 14
    assert np.isnan(limits[1])
    for unlimited in (scale_up_limit, scale_down_limit):
        assert np.isnan(unlimited([math.nan], ScalingRules(), *NO_EVENTS, 0.0)[0])
        assert np.isnan(unlimited([math.nan], rules(select="Disabled"), *NO_EVENTS, 0.0)[0])


def test_hpa_defaults_double_or_add_four_and_shrink_freely_after_five_minutes():
    growth, shrinkage = HPA_DEFAULT_BEHAVIOR.scale_up, HPA_DEFAULT_BEHAVIOR.scale_down
    assert (growth.stabilization_window_seconds, shrinkage.stabilization_window_seconds) == (0, 300)
    assert [up(base, growth) for base in (1, 4, 5, 20)] == [5, 8, 10, 40]
    assert down(20, shrinkage) == 0
    # Within 15 s of having grown from 1 to 5 no more is allowed: max(1+4, 1·2) = 5.
    assert up(5, growth, [(90.0, 4)]) == 5


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: ScalingPolicy("pods", 4, 15),
            "scaling policy: type: is not known (got 'pods'); use one of Pods, Percent",
        ),
        (
            lambda: ScalingPolicy("Pods", -1, 15),
            "scaling policy: value: is not a finite number of at least 0 (got -1); give 0 or more",
        ),
        (
            lambda: ScalingPolicy("Pods", 4, 0),
            "scaling policy: periodSeconds: is not a period (got 0); give a positive number of seconds",
        ),
        (
            lambda: ScalingRules(select_policy="Most"),
            "scaling rules: selectPolicy: is not known (got 'Most'); use one of Max, Min, Disabled",
        ),
        (
            lambda: ScalingRules(stabilization_window_seconds=math.nan),
            "scaling rules: stabilizationWindowSeconds: is not a finite number of at least 0 (got nan); give 0 or more",
        ),
        (
            lambda: ScalingRules(tolerance=-0.1),
            "scaling rules: tolerance: is not a finite number of at least 0 (got -0.1); give 0 or more",
        ),
        (
            lambda: windowed_recommendations([1], [1.0], [[1]], 2.0, -1.0, 0.0),
            "up_window: is not a length of time (got -1.0); give seconds, 0 for no window",
        ),
        (
            lambda: windowed_recommendations([1], [1.0], [[1]], 2.0, 0.0, np.zeros(2)),
            "down_window: has another shape than the recommendation (got (2,)); one value or (V,)",
        ),
        (
            lambda: windowed_recommendations([1, 2], [1.0], [[1]], 2.0, 0.0, 0.0),
            (
                "recommendation history: does not have one row per time and one column per variant (got (1, 1)); "
                "give an array of shape (1, 2)"
            ),
        ),
        (
            lambda: scale_up_limit([1, 2], rules(pods(1)), [1.0, 2.0], [[1, 1]], 2.0),
            (
                "scale events: does not have one row per time and one column per variant (got (1, 2)); "
                "give an array of shape (2, 2)"
            ),
        ),
        (
            lambda: scale_down_limit(3, rules(pods(1)), *NO_EVENTS, 2.0),
            "replicas: is not one value per variant (got ()); give an array of shape (V,)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make, text):
    with pytest.raises(ParameterError) as refused:
        make()
    assert str(refused.value) == text


def test_an_empty_fleet_has_empty_bounds():
    lowest, highest = windowed_recommendations([], [5.0], np.empty((1, 0)), 6.0, 60.0, 60.0)
    low, high = stabilization_bounds([], lowest, highest)
    limits = scale_up_limit([], rules(pods(1)), [5.0], np.empty((1, 0)), 6.0)
    assert [array.size for array in (lowest, highest, low, high, limits)] == [0] * 5


def test_everything_public_is_exported():
    public = {
        name
        for name, value in vars(sb).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == sb.__name__
    }
    assert public <= set(sb.__all__)
    assert all(hasattr(sb, name) for name in sb.__all__)


# ---------------------------------------------------------------------------------------------------------------------
# Against the plain loop. Whole numbers and whole seconds, so that boundaries are met and equality is exact.

TIMES = st.integers(0, 12).map(float)
REPLICAS = st.integers(0, 40)
POLICY = st.builds(
    ScalingPolicy,
    kind=st.sampled_from(["Pods", "Percent"]),
    value=st.integers(1, 220),
    period_seconds=st.integers(1, 12).map(float),
)


@st.composite
def columns(draw, cell):
    """(V, times, rows) of a history of up to eight rows."""
    count = draw(st.integers(1, 5))
    times = draw(st.lists(TIMES, max_size=8))
    row = st.lists(cell, min_size=count, max_size=count)
    return count, times, [draw(row) for _ in times]


@given(data=st.data(), history=columns(REPLICAS))
@settings(max_examples=300, deadline=None)
def test_stabilisation_equals_the_plain_loop(data, history):
    count, times, rows = history
    per_variant = st.lists(REPLICAS, min_size=count, max_size=count)
    base, recommendation = data.draw(per_variant), data.draw(per_variant)
    windows = st.lists(TIMES, min_size=count, max_size=count)
    up_windows, down_windows = data.draw(windows), data.draw(windows)

    lowest, highest = windowed_recommendations(
        recommendation, times, rows, 12.0, np.array(up_windows), np.array(down_windows)
    )
    low, high = stabilization_bounds(base, lowest, highest)

    expected = [
        reference.stabilized(
            base[v],
            recommendation[v],
            [(time, row[v]) for time, row in zip(times, rows, strict=True)],
            12.0,
            up_windows[v],
            down_windows[v],
        )
        for v in range(count)
    ]
    assert np.clip(recommendation, low, high).tolist() == expected
    assert (low <= base).all()
    assert (base <= high).all()


@given(
    data=st.data(),
    events=columns(st.integers(-9, 9)),
    policies=st.lists(POLICY, max_size=4),
    select=st.sampled_from(["Max", "Min", "Disabled"]),
)
@settings(max_examples=300, deadline=None)
def test_limits_equal_the_plain_loop(data, events, policies, select):
    count, times, rows = events
    base = data.draw(st.lists(REPLICAS, min_size=count, max_size=count))
    given_rules = ScalingRules(select_policy=select, policies=tuple(policies))
    plain = [(policy.kind, policy.value, policy.period_seconds) for policy in policies]

    highest = scale_up_limit(base, given_rules, times, rows, 12.0)
    lowest = scale_down_limit(base, given_rules, times, rows, 12.0)

    for v in range(count):
        added = [(time, row[v]) for time, row in zip(times, rows, strict=True) if row[v] > 0]
        deleted = [(time, -row[v]) for time, row in zip(times, rows, strict=True) if row[v] < 0]
        limit = reference.up_limit(base[v], select, plain, added, deleted, 12.0)
        assert highest[v] == (math.inf if limit is None else limit)
        assert lowest[v] == reference.down_limit(base[v], select, plain, added, deleted, 12.0)
