"""Which interval each variant may take: holds, minimum and maximum, GPUs."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.engine.parts import NAN, bounds_of, remembering
from wva_core.domain import Columns, Memory, Reason, ReplicaTable, SignalRequest
from wva_core.domain.arrays import booleans, integers
from wva_core.engine.bounds import Holds, gpu_rows, holds, narrowed, nothing_moves, static_limits
from wva_core.engine.remembered import completed
from wva_core.testing.builders import ballot, observe, vote

INF = float("inf")
KV = SignalRequest("kv_usage")


def free(seen, **changes):
    """Nothing held, unless told."""
    count = len(seen.fleet)
    parts = {"pinned": np.zeros(count), "no_shrink": np.zeros(count), **changes}
    return Holds(
        booleans(np.array(parts["pinned"]) > 0),
        booleans(np.array(parts["no_shrink"]) > 0),
        integers(np.array(parts.get("reason", np.zeros(count)))),
    )


def held_in(seen, *, asked=None, needed=(KV,), stale=60.0, everywhere=True):
    """The holds of an observation whose only vote knows what it wants, unless told."""
    asked = asked or ballot(seen, vote(seen, capacity=1.0))
    where = np.full(len(seen.fleet.scopes), everywhere)
    return holds(seen, asked, dict.fromkeys(needed, where), bounds_of(seen, stale=stale))


def kv(*usages, ages=None):
    """One scope whose replicas report these usages."""
    seen = observe([{"name": "a", "current": len(usages)}], [{"variant": "a", "kv_usage": one} for one in usages])
    values = {"kv_usage": seen.replicas["kv_usage"]}
    table = ReplicaTable.of(seen.replicas.index, values, {} if ages is None else {"kv_usage": ages})
    return replace(seen, replicas=table)


def summary(found):
    return bool(found.pinned[0]), bool(found.no_shrink[0]), Reason(found.reason[0])


# ---------------------------------------------------------------------------------------------------------------------
# Holds


def test_good_data_holds_nothing():
    assert summary(held_in(kv(0.5, 0.6))) == (False, False, Reason.STEADY)


def test_a_signal_that_some_replicas_lack_holds_nothing_by_itself():
    assert summary(held_in(kv(0.5, NAN))) == (False, False, Reason.STEADY)


def test_a_missing_signal_forbids_shrinking():
    assert summary(held_in(kv(NAN, NAN))) == (False, True, Reason.HELD_MISSING)


@pytest.mark.parametrize(("age", "unsure"), [(59.0, False), (60.0, True)])
def test_a_stale_signal_forbids_shrinking_from_the_stated_age_on(age, unsure):
    expected = (False, unsure, Reason.HELD_STALE if unsure else Reason.STEADY)
    assert summary(held_in(kv(0.5, 0.5, ages=[0.0, age]))) == expected


def test_each_scope_has_its_own_limit_of_age():
    seen = observe([{"name": "a", "model": "m"}, {"name": "b", "model": "n"}], [{"variant": one} for one in "ab"])
    table = ReplicaTable.of(seen.replicas.index, {"kv_usage": [0.5, 0.5]}, {"kv_usage": [50.0, 50.0]})
    seen = replace(seen, replicas=table)
    limits = replace(bounds_of(seen), stale_after=np.array([40.0, 60.0]))
    found = holds(seen, ballot(seen, vote(seen, capacity=1.0)), {KV: np.array([True, True])}, limits)
    assert found.no_shrink.tolist() == [True, False]


def test_collectors_that_disagree_forbid_shrinking():
    seen = replace(kv(0.5), conflicts={"kv_usage": np.array([True])})
    assert summary(held_in(seen)) == (False, True, Reason.HELD_CONFLICTING)


def test_a_signal_of_the_scope_is_looked_at_in_the_scope():
    seen = observe([{"name": "a"}], scopes=[{"arrival_rate": NAN}])
    rate = SignalRequest("arrival_rate", level="scope")
    assert summary(held_in(seen, needed=[rate])) == (False, True, Reason.HELD_MISSING)
    seen = replace(seen, scopes=Columns(1, None, {"arrival_rate": [2.0]}, {"arrival_rate": [60.0]}))
    assert summary(held_in(seen, needed=[rate])) == (False, True, Reason.HELD_STALE)


def test_a_signal_that_nobody_with_a_veto_reads_there_holds_nothing():
    assert summary(held_in(kv(NAN), everywhere=False)) == (False, False, Reason.STEADY)


def test_a_scope_without_an_anchor_is_pinned():
    seen = kv(0.5)
    asked = ballot(seen, vote(seen), anchor=-1)
    assert summary(held_in(seen, asked=asked)) == (True, False, Reason.NO_ANCHOR)


def test_a_frozen_scope_is_pinned():
    seen = kv(0.5)
    asked = ballot(seen, vote(seen, capacity=1.0), frozen=True)
    assert summary(held_in(seen, asked=asked)) == (True, False, Reason.FROZEN)


def test_missing_data_is_the_reason_where_it_also_leaves_no_anchor():
    seen = kv(NAN)
    asked = ballot(seen, vote(seen), anchor=-1)
    assert summary(held_in(seen, asked=asked)) == (True, True, Reason.HELD_MISSING)


def test_an_incomplete_fleet_pins_everything():
    seen = replace(kv(0.5), complete=False)
    assert summary(held_in(seen))[::2] == (True, Reason.HELD_INCOMPLETE)


def test_without_a_usable_answer_everything_is_pinned_for_its_own_reason_or_that():
    seen = observe([{"name": "a"}, {"name": "b"}])
    found = nothing_moves(free(seen, pinned=[1, 0], no_shrink=[0, 1], reason=[Reason.FROZEN, Reason.HELD_STALE]))
    assert found.pinned.all()
    assert found.reason.tolist() == [Reason.FROZEN, Reason.HELD_OPTIMIZER]


# ---------------------------------------------------------------------------------------------------------------------
# Minimum, maximum and what is held


def interval(seen, held_now=None, wish=None, memory=None, **bounds):
    """[low, high] of the first variant, static and narrowed."""
    columns = bounds_of(seen, **bounds)
    memory = memory or Memory.empty(seen.fleet)
    seen = completed(seen, memory, columns)
    held_now = held_now or free(seen)
    static = static_limits(seen, held_now)
    wish = seen.variants.base if wish is None else np.array(wish, dtype=float)
    limits, _ = narrowed(static, wish, seen, held_now, memory, columns)
    return (static.low[0], static.high[0]), (limits.low[0], limits.high[0])


def test_minimum_and_maximum_are_the_interval():
    assert interval(observe([{"name": "a", "min_replicas": 1, "max_replicas": 5}]))[1] == (1.0, 5.0)


def test_a_variant_without_either_is_free():
    assert interval(observe([{"name": "a"}]))[1] == (0.0, INF)


def test_an_unknown_minimum_is_none():
    assert interval(observe([{"name": "a", "min_replicas": NAN}]))[1] == (0.0, INF)


def test_a_maximum_below_the_minimum_gives_way():
    assert interval(observe([{"name": "a", "min_replicas": 3, "max_replicas": 2}]))[1] == (3.0, 3.0)


def test_a_pinned_variant_keeps_its_target():
    seen = observe([{"name": "a", "current": 4}])
    memory = remembering(seen.fleet, target=[6])
    assert interval(seen, free(seen, pinned=[1]), memory=memory) == ((6.0, 6.0), (6.0, 6.0))


def test_minimum_and_maximum_hold_on_the_pinned_path_too():
    # 2 there, pinned; static limits show the wish 2, the narrowed ones the bound
    for bounds, expected in (({"min_replicas": 3}, 3.0), ({"max_replicas": 1}, 1.0)):
        seen = observe([{"name": "a", "current": 2, **bounds}])
        assert interval(seen, free(seen, pinned=[1])) == ((2.0, 2.0), (expected, expected))


def test_a_variant_whose_replicas_are_not_known_is_left_as_it_is():
    seen = observe([{"name": "a", "current": NAN, "ready": NAN, "pending": NAN, "min_replicas": 3}])
    assert np.isnan(interval(seen)[1]).all()


def test_and_keeps_its_target_if_it_has_one():
    seen = observe([{"name": "a", "current": NAN, "ready": NAN, "pending": NAN}])
    assert interval(seen, memory=remembering(seen.fleet, target=[4]))[1] == (4.0, 4.0)


def test_without_trust_the_low_end_is_what_there_is_and_growth_is_free():
    seen = observe([{"name": "a", "current": 4, "min_replicas": 1, "max_replicas": 9}])
    assert interval(seen, free(seen, no_shrink=[1]))[1] == (4.0, 9.0)


def test_without_trust_the_low_end_is_the_last_target_even_when_it_was_not_reached_for_long():
    # a target of 6 that 4 replicas never reached: after 10000 s they are the base, but nothing shrinks on old data
    seen = replace(observe([{"name": "a", "current": 4}]), time=10_000.0)
    memory = remembering(seen.fleet, target=[6])
    assert interval(seen, free(seen, no_shrink=[1]), memory=memory)[1] == (6.0, INF)
    assert interval(seen, memory=memory)[1] == (0.0, INF)


def test_without_trust_the_maximum_still_holds():
    seen = observe([{"name": "a", "current": 4, "max_replicas": 3}])
    assert interval(seen, free(seen, no_shrink=[1]))[1] == (3.0, 3.0)


# ---------------------------------------------------------------------------------------------------------------------
# GPUs


def gpus(variants, accelerators, *, base=None):
    seen = observe(variants, accelerators=accelerators)
    if base is not None:
        seen = seen.with_variants(seen.variants.with_columns(base=base))
    return gpu_rows(seen)


def test_variants_of_one_type_share_a_row():
    rows = gpus([{"name": "a", "current": 2, "gpus": 2}, {"name": "b", "current": 1}], {"H100": (8, 5)})
    assert (rows.labels, rows.variant.tolist(), rows.coefficient.tolist()) == (("GPUs of type H100",), [0, 1], [2, 1])
    assert (rows.lower.tolist(), rows.upper.tolist()) == ([-INF], [8.0])
    assert rows.usage(np.array([3.0, NAN])).tolist() == [6.0]


def test_each_type_has_its_row_and_types_without_a_variant_have_none():
    rows = gpus(
        [{"name": "a", "accelerator": "A100"}, {"name": "b", "accelerator": "H100"}, {"name": "c"}],
        {"A100": (4, 1), "H100": (8, 2), "L4": (9, 0)},
    )
    assert rows.labels == ("GPUs of type A100", "GPUs of type H100")
    assert [rows.variant[a:b].tolist() for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)] == [[0], [1, 2]]


def test_what_others_use_is_taken_off():
    # 10 GPUs, 7 in use, 2 x 2 of them ours: 3 foreign, 7 for us
    assert gpus([{"name": "a", "current": 2, "gpus": 2}], {"H100": (10, 7)}).upper.tolist() == [7.0]


def test_pods_that_are_not_placed_yet_do_not_make_room():
    # ours count 4, but only 3 are in use so far: nobody else has any
    assert gpus([{"name": "a", "current": 4}], {"H100": (10, 3)}).upper.tolist() == [10.0]


def test_what_a_shrinking_variant_has_not_released_is_taken_off():
    # 4 there, 1 asked for: 3 x 2 GPUs are still in use, and the row counts 1 x 2 for the base
    rows = gpus([{"name": "a", "current": 4, "gpus": 2}], {"H100": (10, 8)}, base=[1.0])
    assert rows.upper.tolist() == [4.0]


@pytest.mark.parametrize("known", [(NAN, 2), (8, NAN)], ids=["capacity", "used"])
def test_what_is_not_known_of_a_type_allows_no_growth(known):
    assert np.isnan(gpus([{"name": "a"}], {"H100": known}).upper).tolist() == [True]


def test_an_unlimited_type_needs_no_row():
    assert len(gpus([{"name": "a"}], {"H100": (INF, 2)})) == 0
