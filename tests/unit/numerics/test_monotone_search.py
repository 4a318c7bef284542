"""
The search for the largest admissible argument: the cases that upstream's binary search is tested with, and its laws.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import upstream_search
from wva_core.errors import ParameterError
from wva_core.numerics.monotone_search import ABOVE, BELOW, INSIDE, largest_within


def search(function, low, high, target, **more):
    """One rising function; the argument and the side."""
    x, side = largest_within(
        lambda at, rows: np.array([function(v) - target for v in at]), np.array([low]), np.array([high]), **more
    )
    return float(x[0]), int(side[0])


def double(x):
    return 2 * x


@pytest.mark.parametrize(
    ("function", "low", "high", "target", "x", "side"),
    [
        pytest.param(lambda x: x * x, 0.0, 10.0, 4, 2.0, INSIDE, id="A8-search-1"),
        pytest.param(double, 1.0, 5.0, 6, 3.0, INSIDE, id="A8-search-2"),
        pytest.param(double, 2.0, 5.0, 1, 2.0, BELOW, id="A8-search-3"),
        pytest.param(double, 1.0, 3.0, 10, 3.0, ABOVE, id="A8-search-4"),
        pytest.param(double, 1.0, 5.0, 2, 1.0, INSIDE, id="A8-search-8"),
        pytest.param(lambda x: 2 * x + 3, 1.0, 5.0, 9, 3.0, INSIDE, id="A8-search-9"),
    ],
)
def test_a_rising_function_is_met_at_its_target(function, low, high, target, x, side):
    assert search(function, low, high, target) == (pytest.approx(x, rel=1e-9), side)


def test_a8_search_5_a_falling_function_is_searched_as_its_negative():
    # Upstream finds out the direction; here latencies rise. -x on [1, 5], target -3: x = 3.
    def falling(x):
        return -x

    assert search(lambda x: -falling(x), 1.0, 5.0, 3) == (pytest.approx(3, rel=1e-9), INSIDE)


def test_a8_search_6_a_range_that_ends_before_it_begins_is_refused():
    with pytest.raises(ParameterError, match="lower end: is above the upper end"):
        search(double, 5.0, 1.0, 6)
    with pytest.raises(ValueError, match="invalid range"):
        upstream_search.search(double, 5.0, 1.0, 6)


@pytest.mark.parametrize(
    ("x", "target", "tolerance", "result"),
    [
        pytest.param(1, 1, 0.01, True, id="A8-tolerance-1"),
        pytest.param(1.005, 1, 0.01, True, id="A8-tolerance-2"),
        pytest.param(1.02, 1, 0.01, False, id="A8-tolerance-3"),
        pytest.param(0.1, 0, 0.01, False, id="A8-tolerance-4"),
        pytest.param(1, 1, -0.01, True, id="A8-tolerance-5"),
        pytest.param(0, 0, 0.01, True, id="A8-tolerance-6"),
    ],
)
def test_a_value_counts_as_its_target_within_upstreams_tolerance(x, target, tolerance, result):
    # what the searches below are compared by: this search has no tolerance of values, and needs none
    assert upstream_search.within(x, target, tolerance) is result


@given(st.floats(0.05, 5.0), st.floats(0.5, 4.0), st.floats(0.05, 0.95))
def test_upstreams_search_ends_where_this_one_does_within_its_tolerance(scale, power, share):
    def rises(x):
        return scale * x**power

    target = rises(0.5 + share * 2.5)
    theirs, side = upstream_search.search(rises, 0.5, 3.0, target)
    ours, our_side = search(rises, 0.5, 3.0, target)
    assert our_side == side == INSIDE
    assert upstream_search.within(rises(ours), rises(theirs), 1.01 * upstream_search.TOLERANCE)


def test_a8_search_7_a_function_that_fails_ends_the_search():
    def fails(x):
        if x > 5:
            raise ValueError("above 5")
        return x

    with pytest.raises(ValueError, match="above 5"):
        search(fails, 4.0, 6.0, 4.5)


@pytest.mark.parametrize(("target", "side"), [(3, BELOW), (5, ABOVE), (7, ABOVE)], ids=["A8-search-10", "at", "over"])
def test_a_constant_is_on_one_side_or_the_other(target, side):
    assert search(lambda _: 5.0, 1.0, 4.0, target) == (1.0 if side == BELOW else 4.0, side)


def test_a8_search_11_a_step_is_approached_from_where_it_is_not_exceeded():
    x, side = search(lambda x: 1.0 if x < 3 else 10.0, 1.0, 5.0, 5)
    assert side == INSIDE
    assert 3 * (1 - 1e-9) < x < 3


def test_a_value_of_one_does_not_end_the_search():
    # A slip in early releases took a value of exactly 1 for the target.
    assert search(lambda x: x, 0.0, 2.0, 1.5)[0] == pytest.approx(1.5, rel=1e-9)


def test_a_target_of_zero_is_met():
    assert search(lambda x: x - 1, 0.0, 3.0, 0) == (pytest.approx(1, rel=1e-9), INSIDE)


def test_an_unknown_function_has_an_unknown_answer():
    x, side = search(lambda _: math.nan, 1.0, 2.0, 1)
    assert math.isnan(x)
    assert side == INSIDE


def test_running_out_of_steps_still_keeps_to_the_admissible_side():
    x, _ = search(lambda x: x**9, 0.0, 10.0, 5.0, steps=3)
    assert x**9 <= 5.0


def test_no_function_is_no_error():
    x, side = largest_within(lambda at, rows: at, np.array([]), np.array([]))
    assert (x.tolist(), side.tolist()) == ([], [])


@given(
    st.lists(
        st.tuples(st.sampled_from(["power", "exponential", "pole", "kink"]), st.floats(0.01, 0.99), st.floats(0.3, 9)),
        min_size=1,
        max_size=20,
    )
)
def test_many_functions_at_once_are_met_from_below(cases):
    shapes = {
        "power": lambda x, b: x**b,
        "exponential": lambda x, b: math.expm1(30 * b * x),
        "pole": lambda x, b: 1 / (1.0001 - x) ** b,
        "kink": lambda x, b: b * x if x < 0.5 else 100 * x,
    }
    values = np.array([shapes[kind](root, b) for kind, root, b in cases])

    def residual(x, rows):
        return np.array(
            [shapes[cases[row][0]](at, cases[row][2]) - values[row] for at, row in zip(x, rows, strict=True)]
        )

    x, side = largest_within(residual, np.zeros(len(cases)), np.ones(len(cases)))
    assert (side == INSIDE).all()
    everyone = np.arange(len(cases))
    assert (residual(x, everyone) <= 0).all()
    assert (residual(x * (1 + 4e-10), everyone) >= 0).all()


def test_functions_that_are_done_are_left_alone():
    asked = []

    def residual(x, rows):
        asked.append(len(rows))
        return np.where(rows == 0, x - 0.5, x**9 - 1e-5)

    largest_within(residual, np.zeros(2), np.ones(2))
    assert asked[-1] == 1
    assert len(asked) < 30
