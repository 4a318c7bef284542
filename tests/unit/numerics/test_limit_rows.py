"""Growth fitted into limits that variants share."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.shared_rows import fit_one_by_one
from wva_core.numerics.limit_rows import fit_growth, usage_of_rows

NAN = math.nan


def fit(base, wanted, entries, upper, order=None):
    """`entries` are (row, variant, coefficient)."""
    rows, variants, coefficients = zip(*entries, strict=True) if entries else ((), (), ())
    granted, binding = fit_growth(
        np.array(base, dtype=float),
        np.array(wanted, dtype=float),
        np.arange(len(base)) if order is None else np.array(order),
        np.array(rows, dtype=np.int64),
        np.array(variants, dtype=np.int64),
        np.array(coefficients, dtype=float),
        np.array(upper, dtype=float),
    )
    return granted.tolist(), binding.tolist()


def test_only_replicas_that_are_there_use_a_row():
    # row 0: 2 x 3 and nothing of what does not run or is not known; row 1: 2 x -1; row 2: 2 of an unknown amount
    replicas = np.array([2.0, 0.0, NAN])
    rows, variants = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 2, 0, 0])
    used = usage_of_rows(replicas, rows, variants, np.array([3.0, NAN, 5.0, -1.0, NAN]), 4)
    np.testing.assert_array_equal(used, [6.0, -2.0, NAN, 0.0])


def test_without_rows_everything_is_granted():
    assert fit([1, 2], [5, 0], [], []) == ([5, 0], [-1, -1])


def test_the_most_urgent_variant_is_served_first():
    # 8 accelerators, 2 + 2 in use: one variant gets the 4 that are free.
    both = [(0, 0, 1), (0, 1, 1)]
    assert fit([2, 2], [6, 6], both, [8], order=[0, 1]) == ([6, 2], [-1, 0])
    assert fit([2, 2], [6, 6], both, [8], order=[1, 0]) == ([2, 6], [0, -1])


def test_only_whole_replicas_are_granted_and_the_rest_goes_to_the_next():
    # 7 accelerators: one replica of four, then three of one each.
    assert fit([0, 0], [3, 5], [(0, 0, 4), (0, 1, 1)], [7]) == ([1, 3], [0, 0])


def test_the_row_that_leaves_the_fewest_replicas_is_the_binding_one():
    entries = [(0, 0, 1), (1, 0, 2.5), (2, 0, 1)]
    assert fit([0], [9], entries, [6, 10, 4]) == ([4], [1])  # 6, 4 and 4 fit: the first of the two that leave 4


def test_a_row_that_is_exceeded_lets_nothing_grow_and_everything_shrink():
    entries = [(0, 0, 1), (0, 1, 1), (0, 2, 1)]
    assert fit([4, 4, 4], [5, 2, 4], entries, [8]) == ([4, 2, 4], [0, -1, -1])


def test_what_a_shrinking_variant_gives_up_is_not_handed_on():
    assert fit([4, 4], [0, 8], [(0, 0, 1), (0, 1, 1)], [8]) == ([0, 4], [-1, 0])


def test_an_unlimited_row_limits_nothing():
    assert fit([0], [math.inf], [(0, 0, 1)], [math.inf]) == ([math.inf], [-1])


def test_wanting_without_end_gets_what_fits():
    assert fit([1], [math.inf], [(0, 0, 2)], [8]) == ([4], [0])


def test_a_row_of_unknown_size_allows_no_growth_and_stops_no_shrink():
    assert fit([3, 3], [4, 2], [(0, 0, 1), (0, 1, 1)], [NAN]) == ([3, 2], [0, -1])


def test_unknown_use_by_running_replicas_closes_their_row():
    assert fit([1, 0], [1, 1], [(0, 0, NAN), (0, 1, 1)], [8]) == ([1, 0], [-1, 0])


def test_unknown_use_by_a_variant_without_replicas_stops_only_itself():
    assert fit([0, 0], [1, 1], [(0, 0, NAN), (0, 1, 1)], [8]) == ([0, 1], [0, -1])


def test_what_is_not_known_of_a_variant_stays_so_and_uses_nothing():
    granted, binding = fit([NAN, 2, 0], [3, NAN, 6], [(0, 0, 1), (0, 1, 1), (0, 2, 1)], [5])
    assert np.array_equal(granted, [NAN, NAN, 3], equal_nan=True)
    assert binding == [-1, -1, 0]


def test_a_variant_that_uses_nothing_of_a_full_row_grows():
    assert fit([0], [4], [(0, 0, 0)], [0]) == ([4], [-1])


def test_a_negative_coefficient_makes_room_for_those_after_it():
    # decode <= 2 x prefill: the room is there once prefill has grown.
    entries = [(0, 0, -2), (0, 1, 1)]
    assert fit([1, 2], [2, 4], entries, [0], order=[0, 1]) == ([2, 4], [-1, -1])
    assert fit([1, 2], [2, 4], entries, [0], order=[1, 0]) == ([2, 2], [-1, 0])


def test_prices_that_add_up_to_the_budget_fit_in_it():
    assert 0.1 + 0.2 > 0.3
    assert fit([1, 0], [1, 1], [(0, 0, 0.1), (0, 1, 0.2)], [0.3]) == ([1, 1], [-1, -1])
    assert fit([0], [9], [(0, 0, 0.1)], [0.3]) == ([3], [0])


def test_nothing_given_is_changed():
    arguments = [
        np.array([0.0, 0.0]), np.array([5.0, 5.0]), np.array([1, 0]),
        np.array([0, 0]), np.array([0, 1]), np.array([1.0, 1.0]), np.array([6.0]),
    ]  # fmt: skip
    for argument in arguments:
        argument.flags.writeable = False
    assert fit_growth(*arguments)[0].tolist() == [1, 5]


@st.composite
def problems(draw):
    variants, rows = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    small = st.integers(0, 6)
    base = draw(st.lists(small, min_size=variants, max_size=variants))
    wanted = draw(st.lists(st.integers(0, 9), min_size=variants, max_size=variants))
    order = draw(st.permutations(range(variants)))
    pairs = draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, variants - 1)), unique=True, max_size=12))
    entries = [(row, variant, draw(st.sampled_from([-1, 0, 0.25, 0.5, 1, 2, 8]))) for row, variant in pairs]
    upper = draw(st.lists(st.sampled_from([None, 0, 1, 3.5, 8, 20, math.inf]), min_size=rows, max_size=rows))
    return base, wanted, entries, upper, order


@given(problems())
def test_the_grant_is_that_of_taking_replicas_one_by_one(problem):
    base, wanted, entries, upper, order = problem
    granted, _ = fit(base, wanted, entries, [NAN if limit is None else limit for limit in upper], order)
    assert granted == fit_one_by_one(base, wanted, order, entries, upper)


@given(problems())
def test_a_binding_row_is_named_exactly_where_something_was_refused(problem):
    base, wanted, entries, upper, order = problem
    granted, binding = fit(base, wanted, entries, [NAN if limit is None else limit for limit in upper], order)
    for variant, row in enumerate(binding):
        assert (row >= 0) == (granted[variant] < wanted[variant])
        assert row < 0 or any(entry[:2] == (row, variant) for entry in entries)


@given(problems(), st.randoms())
def test_the_order_of_the_entries_changes_nothing(problem, random):
    base, wanted, entries, upper, order = problem
    limits = [NAN if limit is None else limit for limit in upper]
    shuffled = random.sample(entries, len(entries))
    assert fit(base, wanted, entries, limits, order) == fit(base, wanted, shuffled, limits, order)


@pytest.mark.parametrize("rows", [1, 100])
def test_ten_thousand_claimants_of_scarce_rows_use_them_up(rows):
    variants = np.arange(10_000)
    upper = np.full(rows, 10_000 / rows / 4)
    granted, binding = fit_growth(
        np.zeros(10_000), np.ones(10_000), variants[::-1], variants % rows, variants, np.ones(10_000), upper
    )
    assert granted.sum() == 2_500
    assert granted[-2_500:].all()
    assert np.array_equal(binding >= 0, granted == 0)
