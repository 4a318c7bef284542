"""Read-only columns, and groups of rows against the obvious loop."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wva_core.domain import Groups
from wva_core.domain.arrays import booleans, floats, integers, or_zero

NAN = math.nan


def test_a_column_is_read_only_and_its_own():
    mine = np.array([1.0, NAN])
    column = floats(mine)
    mine[0] = 7.0
    assert column[0] == 1.0
    assert not column.flags.writeable
    assert floats(column) is column
    assert not integers([1, 2]).flags.writeable
    assert booleans([True]).tolist() == [True]


def test_or_zero_leaves_everything_but_the_unknown():
    assert or_zero(np.array([NAN, 2.0, np.inf, -1.0])).tolist() == [0.0, 2.0, np.inf, -1.0]


@st.composite
def grouped(draw):
    count = draw(st.integers(1, 6))
    of = draw(st.lists(st.integers(0, count - 1), max_size=20))
    values = [draw(st.one_of(st.just(NAN), st.floats(-1e6, 1e6))) for _ in of]
    return Groups.by(np.array(of, dtype=np.int64), count), np.array(values, dtype=float), of, count


def members(values, of, group):
    return [value for value, one in zip(values.tolist(), of, strict=True) if one == group]


@given(grouped())
def test_sums_equal_a_plain_loop_to_the_bit(case):
    groups, values, of, count = case
    for group in range(count):
        total = 0.0
        for value in members(values, of, group):
            total += value
        assert np.array_equal(groups.sum(values)[group], total, equal_nan=True)


@given(grouped())
def test_rows_counts_any_all_and_largest_are_those_of_each_group(case):
    groups, values, of, count = case
    for mask in (values > 0, np.ones(len(of), dtype=bool), np.zeros(len(of), dtype=bool)):
        for group in range(count):
            inside = members(mask, of, group)
            assert groups.count(mask)[group] == sum(inside)
            assert groups.any(mask)[group] == any(inside)
            assert groups.all(mask)[group] == all(inside)
    for group in range(count):
        known = [value for value in members(values, of, group) if not math.isnan(value)]
        assert np.array_equal(groups.max(values)[group], max(known, default=NAN), equal_nan=True)
        assert groups.rows(group).tolist() == [row for row, one in enumerate(of) if one == group]
    assert groups.sizes().tolist() == [of.count(group) for group in range(count)]


@given(grouped(), st.booleans())
def test_spreading_gives_every_row_the_value_of_its_group(case, same):
    groups, _, of, count = case
    per_group = np.full(count, 3.0) if same else np.arange(count, dtype=float)
    assert np.broadcast_to(groups.spread(per_group), (len(of),)).tolist() == [per_group[group] for group in of]


def test_no_groups_and_no_rows_are_fine():
    groups = Groups.by(np.empty(0, dtype=np.int64), 0)
    assert (len(groups), groups.sum(np.empty(0)).tolist(), groups.max(np.empty(0)).tolist()) == (0, [], [])
    assert groups.spread(np.empty(0)).tolist() == []
