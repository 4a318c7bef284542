"""Delta-coded blocks give back every mapping, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.telemetry.made_records import bits
from wva_core.errors import ParameterError
from wva_core.telemetry.delta_coding import DeltaDecoder, DeltaEncoder, Rows, flattened, nested

CELL = st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf"), -float("inf"), 0.1, 5e-324])
SHORT = st.lists(CELL, max_size=6).map(np.array)
LONG = st.builds(
    lambda seed, kind: np.random.default_rng(seed).choice(kind, 5000),
    st.integers(0, 99),
    st.sampled_from([[0.0, 1.0], [np.nan], [0.25, np.nan, 7.0, -0.0]]),
)
LEAF = st.one_of(
    SHORT, LONG, st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3), st.lists(st.text(max_size=2))
)
MAPPING = st.dictionaries(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz")), LEAF, max_size=6)


def through(mappings, rows=None, full_at=()):
    """What a decoder gives for what an encoder was given."""
    encoder, decoder = DeltaEncoder(rows), DeltaDecoder(rows)
    for position, leaves in enumerate(mappings):
        if position in full_at:
            encoder.reset()
        full = encoder.is_full
        decoder.decode(encoder.encode(leaves), full=full)
        yield dict(decoder.leaves)


@given(st.lists(MAPPING, max_size=6), st.sets(st.integers(0, 5)))
def test_every_mapping_comes_back_to_the_bit(mappings, full_at):
    for given_leaves, leaves in zip(mappings, through(mappings, full_at=full_at), strict=True):
        assert bits(leaves) == bits(given_leaves)


@given(st.data())
def test_columns_come_back_whatever_rows_come_and_go(data):
    pods = st.sets(st.integers(0, 30), max_size=12).map(sorted)
    mappings = []
    for rows in data.draw(st.lists(pods, min_size=2, max_size=5)):
        cells = data.draw(st.lists(CELL, min_size=len(rows), max_size=len(rows)))
        mappings.append(
            {
                ("index", "number"): np.array([row // 2 for row in rows], dtype=np.int64),
                ("index", "pods"): [f"pod-{row:02d}" for row in rows],
                ("seen", "kv"): np.array(cells, dtype=float),
                ("seen", "flags"): np.array([row % 3 == 0 for row in rows], dtype=bool),
                ("other",): np.array(cells, dtype=float),
            }
        )
    names = Rows(names=(("index", "number"), ("index", "pods")), over=("seen",))
    for given_leaves, leaves in zip(mappings, through(mappings, names), strict=True):
        assert bits(leaves) == bits(given_leaves)


def test_a_decoded_mapping_is_not_changed_by_later_blocks():
    first = {("a",): np.arange(100.0)}
    second = {("a",): np.where(np.arange(100) == 3, -1.0, np.arange(100.0))}
    decoded = list(through([first, second]))
    assert decoded[0]["a",][3] == 3.0
    assert not decoded[1]["a",].flags.writeable


def random_column(seed, rows=10_000):
    return np.random.default_rng(seed).random(rows)


@pytest.mark.parametrize(
    ("after", "limit"),
    [
        (lambda a: a, 64),  # the same
        (lambda a: np.where(np.arange(10_000) < 10, 0.5, a), 256),  # 10 cells of 2 + 8 bytes
        (lambda a: a * 0 + np.nan, 64),  # everywhere one number
        (lambda a: np.random.default_rng(9).integers(0, 4, 10_000).astype(float), 10_000),  # four distinct numbers
    ],
    ids=["same", "few", "constant", "few-distinct"],
)
def test_what_changed_little_takes_little(after, limit):
    before = random_column(0)
    encoder = DeltaEncoder()
    assert len(encoder.encode({("a",): before})) > 60_000
    assert len(encoder.encode({("a",): after(before)})) <= limit


def test_ages_that_grow_by_one_interval_take_nothing():
    # wall-clock seconds have 2^-22 s of resolution, so differences of them are exact
    measured = 1_700_000_000.0 + np.floor(random_column(1) * 2**22) / 2**22
    encoder = DeltaEncoder()
    encoder.encode({("age",): 1_700_000_015.0 - measured})
    assert len(encoder.encode({("age",): 1_700_000_030.25 - measured})) < 64


def test_one_row_more_does_not_make_the_columns_new():
    names = Rows(names=(("index", "pods"),), over=("seen",))
    pods = [f"pod-{row:05d}" for row in range(10_000)]
    column = random_column(2)
    encoder = DeltaEncoder(names)
    encoder.encode({("index", "pods"): pods, ("seen", "kv"): column})
    grown = np.insert(column, 5000, 0.5)
    block = encoder.encode({("index", "pods"): [*pods[:5000], "pod-04999b", *pods[5000:]], ("seen", "kv"): grown})
    assert len(block) < 256


def test_zero_and_minus_zero_one_and_true_are_different():
    mappings = [{("a",): 0.0, ("b",): 1}, {("a",): -0.0, ("b",): True}]
    assert [bits(leaves) for leaves in through(mappings)] == [bits(leaves) for leaves in mappings]


def test_a_damaged_block_is_refused():
    block = DeltaEncoder().encode({("a",): random_column(3, 100)})
    with pytest.raises(ParameterError):
        DeltaDecoder().decode(block[: len(block) // 2], full=True)


def test_flat_and_nested_are_two_forms_of_one_tree():
    tree = {"a": {"b": 1, "c": {}}, "policy": {"x": {"y": 2}}, "d": None}
    leaves = flattened(tree, frozenset({"policy"}))
    assert leaves == {("a", "b"): 1, ("a", "c"): {}, ("policy",): {"x": {"y": 2}}, ("d",): None}
    assert nested(leaves) == tree
