"""The optimizer `stepwise`: published vectors, tie-breaks, transition, limits and shared rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.single_steps import step
from wva_core.testing.builders import ballot, limits, observe, vote
from wva_optimizers.stepwise.plugin import Stepwise

NAN = math.nan
UP, DOWN, BOTH = {"required": 1.0}, {"spare": 1.0}, {"required": 1.0, "spare": 1.0}


def variant(name, cost, current, **columns):
    return {"name": name, "cost": cost, "current": current, **columns}


def allocate(variants, asked, *, pinned=None, **bounds):
    """The answer by name; `asked` are the arguments of the only vote, `pinned` the held targets by name."""
    seen = observe(variants)
    if pinned is not None:
        bounds |= {"low": pinned, "high": pinned}
    answer = Stepwise(Stepwise.Parameters()).allocate(seen, ballot(seen, vote(seen, **asked)), limits(seen, **bounds))
    names = [key.partition("/")[2] for key in seen.fleet.keys]
    return dict(zip(names, answer.replicas.tolist(), strict=True)), answer


def targets(variants, asked, **more):
    return allocate(variants, asked, **more)[0]


THREE = [variant("exp", 20, 2), variant("cheap", 5, 2), variant("mid", 15, 2)]

# Vectors of upstream WVA v0.9: variants, what the ballot says, targets.
VECTORS = {
    "A30": (THREE, UP, {"exp": 2, "cheap": 3, "mid": 2}),
    "A31": (THREE, DOWN, {"exp": 1, "cheap": 2, "mid": 2}),
    "A33": ([variant("lws", 5, 1)], UP, {"lws": 2}),
    "A34": (
        [variant("zebra", 10, 2), variant("alpha", 10, 2), variant("middle", 10, 2)],
        UP,
        {"zebra": 2, "alpha": 3, "middle": 2},
    ),
    "A35": ([variant("v1", 20, 1), variant("v2", 10, 2)], DOWN, {"v1": 1, "v2": 1}),
    "A36": ([variant("a", 10, 2), variant("b", 10, 2)], DOWN, {"a": 2, "b": 1}),
    "A37": ([variant("cheap", 5, 3, max_replicas=3), variant("exp", 20, 1)], UP, {"cheap": 3, "exp": 1}),
    "A38": ([variant("exp", 20, 2, min_replicas=2), variant("cheap", 5, 3)], DOWN, {"exp": 2, "cheap": 3}),
    "A39": ([variant("a", 10, 1, min_replicas=3)], {}, {"a": 3}),
    "A41": (THREE, BOTH, {"exp": 2, "cheap": 3, "mid": 2}),
}


@pytest.mark.parametrize(("variants", "asked", "expected"), VECTORS.values(), ids=VECTORS)
def test_published_vector(variants, asked, expected):
    assert targets(variants, asked) == expected


def test_published_vector_of_transition_keeps_the_targets_that_are_being_reached():  # A32
    # settling: the last target is the base, and the engine pins the scope to it
    variants = [variant("exp", 20, 2, target=4, settling=True), variant("cheap", 5, 2, target=2)]
    assert targets(variants, UP, pinned={"exp": 4, "cheap": 2}) == {"exp": 4, "cheap": 2}
    assert targets(variants, UP) == {"exp": 4, "cheap": 2}


def test_published_vector_of_a_pending_replica_is_kept_below_its_minimum():  # A40
    # on the frozen path the engine pins what is there; where it clamps the pins, the minimum holds as everywhere
    pending = [variant("a", 10, 1, pending=1, settling=True, min_replicas=3)]
    assert targets(pending, UP, pinned={"a": 1}) == {"a": 1}
    assert targets(pending, UP, pinned={"a": 3}) == {"a": 3}


def test_a_replica_pending_for_long_stops_only_its_own_variant():
    stuck = variant("cheap", 5, 2, pending=1)
    assert targets([{**stuck, "settling": True}, variant("exp", 20, 2)], UP) == {"cheap": 2, "exp": 2}
    assert targets([stuck, variant("exp", 20, 2)], UP) == {"cheap": 2, "exp": 3}
    assert targets([stuck], UP) == {"cheap": 2}


def test_pending_replicas_that_are_not_known_hold_growth_back():
    seen_pending = variant("cheap", 5, 2, pending=0)
    assert targets([seen_pending, variant("exp", 20, 2)], UP)["cheap"] == 3
    seen = observe([seen_pending, variant("exp", 20, 2)])
    seen = seen.with_variants(seen.variants.with_columns(pending=[NAN, 0]))
    answer = Stepwise(Stepwise.Parameters()).allocate(seen, ballot(seen, vote(seen, **UP)), limits(seen))
    assert answer.replicas.tolist() == [2, 3]


def test_a_variant_with_a_pending_replica_may_shrink():
    assert targets([variant("a", 10, 3, pending=1)], DOWN) == {"a": 2}


def test_a_variant_without_metrics_is_neither_picked_nor_answered():
    variants = [variant("cheap", 1, 2), variant("known", 5, 2)]
    for asked, expected in ((UP, 3), (DOWN, 1)):
        answer = targets(variants, {**asked, "capacity": {"known": 1.0}})
        assert answer["known"] == expected
        assert math.isnan(answer["cheap"])


def test_a_settling_variant_without_metrics_stops_no_step():
    variants = [variant("mute", 1, 2, settling=True), variant("known", 5, 2)]
    assert targets(variants, {**UP, "capacity": {"known": 1.0}})["known"] == 3


def test_a_cost_that_is_not_known_counts_as_the_default():
    # 10 USD/h: dearer than 9, cheaper than 11
    assert targets([variant("x", NAN, 1), variant("y", 9, 1)], UP) == {"x": 1, "y": 2}
    assert targets([variant("x", NAN, 1), variant("y", 11, 1)], UP) == {"x": 2, "y": 1}


def test_a_variant_of_unknown_size_is_not_answered():
    answer = targets([variant("x", 1, NAN), variant("y", 9, 1)], UP)
    assert math.isnan(answer["x"])
    assert answer["y"] == 2


def test_a_held_scope_is_not_answered():
    seen = observe([variant("a", 1, 2), {**variant("b", 1, 2), "role": "decode"}])
    assert [scope.role for scope in seen.fleet.scopes] == ["", "decode"]
    asked = ballot(seen, vote(seen, **UP), anchor=[-1, 0])
    answer = Stepwise(Stepwise.Parameters()).allocate(seen, asked, limits(seen))
    assert np.array_equal(answer.replicas, [NAN, 3], equal_nan=True)


def test_any_unit_gives_a_direction():
    big = {"unit": "tokens", "capacity": 16_000.0}
    assert targets([variant("a", 10, 2)], {**big, "required": 90_000.0}) == {"a": 3}
    assert targets([variant("a", 10, 2)], {**big, "spare": 90_000.0}) == {"a": 1}


def test_every_gating_vote_must_have_spare_for_a_shrink():
    seen = observe([variant("a", 10, 3)])
    plugin = Stepwise(Stepwise.Parameters())
    agreed = ballot(seen, vote(seen, **DOWN), vote(seen, spare=7.0, unit="tokens"))
    vetoed = ballot(seen, vote(seen, **DOWN), vote(seen, spare=0.0, unit="tokens"))
    assert plugin.allocate(seen, agreed, limits(seen)).replicas.tolist() == [2]
    assert plugin.allocate(seen, vetoed, limits(seen)).replicas.tolist() == [3]


def test_reasons_say_whose_turn_it_was():
    def reason(variants, asked, **more):
        answer = allocate(variants, asked, **more)[1]
        return [answer.reasons[index] for index in answer.reason]

    assert reason([variant("a", 1, 2), variant("b", 2, 2)], UP) == [
        "the cheapest variant of its scope takes one replica more",
        "",
    ]
    assert reason([variant("a", 1, 2)], DOWN) == ["the dearest variant of its scope gives one replica up"]
    assert "at its maximum" in reason([variant("a", 1, 2, max_replicas=2)], UP)[0]
    assert "at its minimum" in reason([variant("a", 1, 2, min_replicas=2)], DOWN)[0]
    assert "no room for its growth" in reason([variant("a", 1, 2)], UP, rows={"GPUs": ({"a": 1}, 2)})[0]


# ---- shared rows


def test_scopes_compete_for_a_shared_row_in_their_order():
    # one free GPU, two models that need one: the first scope has it
    two = [{**variant("a", 1, 2), "model": "m1"}, {**variant("b", 1, 2), "model": "m2"}]
    names, answer = allocate(two, UP, rows={"GPUs of type H100": ({"a": 1, "b": 1}, 5)})
    assert names == {"a": 3, "b": 2}
    assert answer.binding_row.tolist() == [-1, 0]


def test_a_minimum_is_kept_before_any_step_and_whatever_is_shared():
    two = [{**variant("a", 1, 2), "model": "m1"}, {**variant("b", 1, 1, min_replicas=2), "model": "m2"}]
    for upper, expected in ((5, {"a": 3, "b": 2}), (4, {"a": 2, "b": 2}), (1, {"a": 2, "b": 2})):
        assert targets(two, {"required": [1.0, 0.0]}, rows={"GPUs": ({"a": 1, "b": 1}, upper)}) == expected


@pytest.mark.parametrize("upper", [NAN, 1.0, 2.0])
def test_a_row_that_is_full_or_not_known_stops_growth_and_no_shrink(upper):
    rows = {"GPUs": ({"a": 1}, upper)}
    assert targets([variant("a", 1, 2)], UP, rows=rows) == {"a": 2}
    assert targets([variant("a", 1, 2)], DOWN, rows=rows) == {"a": 1}


def test_replicas_of_variants_that_are_not_answered_count_in_a_row():
    variants = [variant("known", 5, 2), variant("mute", 1, 2)]
    rows = {"GPUs": ({"known": 1, "mute": 1}, 4)}
    assert targets(variants, {**UP, "capacity": {"known": 1.0}}, rows=rows)["known"] == 2


def test_variants_that_belong_together_leave_zero_together():
    both = [{**variant("p", 1, 0, min_replicas=1), "role": "prefill"}, {**variant("d", 1, 0), "role": "decode"}]
    assert targets(both, {}, together=[["p", "d"]]) == {"p": 1, "d": 1}
    assert targets(both, {}) == {"p": 1, "d": 0}


def test_variants_that_cannot_leave_zero_together_are_left_as_they_are():
    both = [{**variant("p", 1, 0, min_replicas=1), "role": "prefill"}, {**variant("d", 1, 0), "role": "decode"}]
    answer = targets(both, {}, together=[["p", "d"]], rows={"GPUs": ({"d": 1}, 0)})
    assert all(math.isnan(replicas) for replicas in answer.values())


# ---- laws

FLEETS = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["m1", "m2", "m3"]),
            "cost": st.sampled_from([1.0, 2.0, 2.0, 10.0, NAN]),
            "current": st.integers(0, 4).map(float),
            "pending": st.sampled_from([0.0, 0.0, 0.0, 1.0]),
            "settling": st.sampled_from([False, False, False, True]),
            "min_replicas": st.sampled_from([0.0, 0.0, 1.0, 3.0]),
            "max_replicas": st.sampled_from([3.0, 5.0, math.inf]),
            "capacity": st.sampled_from([1.0, 1.0, 1.0, NAN]),
        }
    ),
    max_size=10,
)


@st.composite
def problems(draw):
    rows = [{"name": f"v{number:02d}", **row} for number, row in enumerate(draw(FLEETS))]
    capacity = {row["name"]: row.pop("capacity") for row in rows}
    seen = observe(draw(st.permutations(rows)))
    count = len(seen.fleet.scopes)
    flags = st.lists(st.sampled_from([0.0, 1.0]), min_size=count, max_size=count)
    return seen, capacity, vote(seen, capacity=capacity, required=draw(flags), spare=draw(flags))


@given(problems())
def test_answers_equal_a_loop_over_scopes(problem):
    seen, capacity, judged = problem
    asked = ballot(seen, judged)
    answer = Stepwise(Stepwise.Parameters()).allocate(seen, asked, limits(seen))
    expected = {}
    for scope in range(len(seen.fleet.scopes)):
        members = [
            {
                "name": seen.fleet.variants[row].name,
                "analysed": not math.isnan(capacity[seen.fleet.variants[row].name]),
                **{
                    name: float(getattr(seen.variants, name)[row])
                    for name in ("base", "cost", "pending", "min_replicas", "max_replicas")
                },
                "settling": bool(seen.variants.settling[row]),
            }
            for row in seen.fleet.by_scope.rows(scope)
        ]
        expected |= step(members, up=bool(asked.grow[scope]), down=bool(asked.shrink[scope]))
    got = dict(zip([variant.name for variant in seen.fleet.variants], answer.replicas.tolist(), strict=True))
    assert got == pytest.approx(expected, nan_ok=True, abs=0, rel=0)


@given(problems(), st.integers(0, 30), st.lists(st.sampled_from([1.0, 2.0, 8.0]), min_size=10, max_size=10))
def test_every_answer_keeps_every_limit(problem, upper, uses):
    seen, _, judged = problem
    coefficients = {
        variant.name: use for variant, use in zip(seen.fleet.variants, uses, strict=False)
    }  # at most ten variants
    bounds = limits(seen, rows={"GPUs": (coefficients, float(upper))})
    replicas = Stepwise(Stepwise.Parameters()).allocate(seen, ballot(seen, judged), bounds).replicas
    answered = ~np.isnan(replicas)
    assert np.all(replicas[answered] >= bounds.low[answered])
    assert np.all(replicas[answered] <= bounds.high[answered])
    assert np.all(replicas[answered] == np.floor(replicas[answered]))
    start = np.maximum(seen.variants.base, bounds.low)  # what is there or has to be
    then = bounds.rows.usage(np.fmax(replicas, seen.variants.base))[0]
    assert then <= max(upper, bounds.rows.usage(start)[0])


@given(problems())
def test_at_most_one_replica_per_scope_changes_unless_a_bound_asks_for_it(problem):
    seen, _, judged = problem
    free = limits(seen, low=0.0, high=math.inf)
    replicas = Stepwise(Stepwise.Parameters()).allocate(seen, ballot(seen, judged), free).replicas
    moved = np.nan_to_num(np.abs(replicas - seen.variants.base))
    assert np.all(seen.fleet.by_scope.sum(moved) <= 1)
