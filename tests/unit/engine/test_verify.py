"""Every way in which an allocation can be refused, and what is accepted."""

import numpy as np
import pytest

from tests.unit.engine.parts import NAN
from wva_core.engine.verify import refusal
from wva_core.testing.builders import fleet_of, limits

INF = float("inf")
FLEET = fleet_of("a", "b")


def verdict(replicas, *, base=(1, 1), **kept):
    found = refusal(
        np.array(replicas, dtype=float), np.array(base, dtype=float), limits(FLEET, **kept), FLEET, "optimizer mine"
    )
    return None if found is None else str(found)


def gpus(upper, a=1.0, b=1.0):
    return {"rows": {"GPUs of type H100": ({"a": a, "b": b}, upper)}}


def test_whole_replicas_within_the_interval_are_accepted():
    assert verdict([0, 5], high=5.0) is None


def test_nothing_said_is_accepted():
    assert verdict([NAN, NAN], low=2.0, **gpus(0)) is None


@pytest.mark.parametrize("replicas", [1.5, -1.0, INF])
def test_what_is_no_number_of_replicas_is_refused(replicas):
    assert verdict([1, replicas]) == (
        f"optimizer mine: ns/b: is not a whole number of replicas (got {replicas});"
        " every target holds; report this to the author of the optimizer"
    )


@pytest.mark.parametrize("replicas", [1.0, 6.0])
def test_what_leaves_the_interval_is_refused(replicas):
    assert verdict([2, replicas], low=2.0, high=5.0) == (
        f"optimizer mine: ns/b: is outside [2, 5] (got {replicas});"
        " every target holds; report this to the author of the optimizer"
    )


def test_an_answer_for_a_variant_that_is_to_be_left_alone_is_refused():
    assert "ns/b: is outside [nan, nan] (got 1.0)" in verdict([1, 1], low=[0, NAN], high=[5, NAN])


def test_growth_beyond_a_shared_row_is_refused():
    assert verdict([2, 2], **gpus(3)) == (
        "optimizer mine: GPUs of type H100: uses 4 of 3; every target holds; report this to the author of the optimizer"
    )
    assert verdict([2, 1], **gpus(3)) is None


def test_sums_that_miss_a_limit_by_rounding_are_accepted():
    # 0.1 + 0.2 is a little more than 0.3
    assert verdict([1, 1], base=(0, 0), **gpus(0.3, 0.1, 0.2)) is None


def test_a_row_that_is_exceeded_already_may_stay_so_but_not_grow():
    assert verdict([2, 2], base=(2, 2), **gpus(3)) is None
    assert verdict([1, 2], base=(2, 2), **gpus(3)) is None
    assert verdict([3, 1], base=(2, 2), **gpus(3)) is not None


def test_what_a_shrinking_variant_gives_up_is_not_there_for_another():
    assert verdict([1, 3], base=(2, 2), **gpus(4)) is not None


def test_an_unknown_limit_allows_no_growth_and_no_more():
    assert verdict([1, 1], **gpus(NAN)) is None
    assert verdict([0, 1], **gpus(NAN)) is None
    assert "uses 3 of nan" in verdict([2, 1], **gpus(NAN))


def test_an_infinite_limit_allows_everything():
    assert verdict([9, 9], **gpus(INF)) is None


def test_what_lower_limits_force_is_accepted_beyond_a_row_but_nothing_more():
    assert verdict([4, 1], low=[4, 0], **gpus(3)) is None
    assert verdict([5, 1], low=[4, 0], **gpus(3)) is not None
    assert verdict([4, 2], low=[4, 0], **gpus(3)) is not None


def test_less_than_a_row_asks_for_is_refused_unless_it_was_so_before():
    from dataclasses import replace

    kept = limits(FLEET, **gpus(INF))
    kept = replace(kept, rows=replace(kept.rows, lower=np.array([2.0])))
    args = (kept, FLEET, "optimizer mine")
    assert refusal(np.array([1.0, 1.0]), np.array([2.0, 2.0]), *args) is None
    assert "leaves 1 of at least 2" in str(refusal(np.array([0.0, 1.0]), np.array([2.0, 2.0]), *args))
    assert refusal(np.array([0.0, 1.0]), np.array([0.0, 1.0]), *args) is None


def test_a_group_is_all_zero_or_all_at_least_one():
    together = [["a", "b"]]
    assert verdict([0, 0], together=together) is None
    assert verdict([1, 2], together=together) is None
    assert verdict([0, NAN], together=together) is None
    assert verdict([0, 1], together=together) == (
        "optimizer mine: ns/a: belongs to a group that is all zero or all at least one, and the group is not"
        " (got 0.0); every target holds; report this to the author of the optimizer"
    )


def test_verification_changes_nothing():
    replicas, base, kept = np.array([9.0, 9.0]), np.array([1.0, 1.0]), limits(FLEET, **gpus(3))
    refusal(replicas, base, kept, FLEET, "optimizer mine")
    assert (replicas.tolist(), base.tolist(), kept.rows.upper.tolist()) == ([9, 9], [1, 1], [3])
