"""Replicas added and taken in the order of their price."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wva_core.numerics.step_moves import (
    SharedRows,
    at_role_median,
    dearest_first_shrink,
    growth_within_rows,
    joint_growth,
)

NAN, INF = np.nan, np.inf


def floats(values):
    return np.array(values, dtype=float)


def rows_of(entries, upper):
    """`entries` are (row, variant, coefficient)."""
    rows, variants, uses = zip(*entries, strict=True) if entries else ((), (), ())
    return SharedRows(np.array(rows, dtype=int), np.array(variants, dtype=int), floats(uses), floats(upper))


def fleet(roles, models=None, cost=1.0, prc=10.0, votes=None):
    """Arguments of variants by their roles, one model unless told, one vote that also sizes unless told."""
    count = len(roles)
    sizing = np.broadcast_to(floats(prc), (count,)).copy()
    return {
        "capacity": sizing[None, :].copy() if votes is None else floats(votes),
        "sizing": sizing,
        "cost": np.broadcast_to(floats(cost), (count,)).copy(),
        "role_of_variant": np.array(roles),
        "model_of_role": np.zeros(max(roles) + 1, dtype=int) if models is None else np.array(models),
    }


def grown(start, need, *, ceiling=None, literal=False, entries=None, upper=(), urgency=None, **parts):
    """Replicas after growth, within rows if any are given."""
    start = floats(start)
    ceiling = np.full(len(start), INF) if ceiling is None else floats(ceiling)
    shape = fleet(**parts)
    if entries is None:
        return joint_growth(start, ceiling, floats(need), literal=literal, **shape)
    models = int(shape["model_of_role"].max()) + 1
    urgency = np.zeros(models) if urgency is None else floats(urgency)
    return growth_within_rows(
        start, ceiling, floats(need), rows=rows_of(entries, upper), urgency=urgency, literal=literal, **shape
    )


def test_growth_goes_to_the_cheapest_capacity_and_spills_over_at_a_ceiling():
    # 30 asked: 2 x 10 at 0.5 USD/h per unit, the rest on the next: ceil(10 / 20) = 1
    moved = grown([1, 1], [[30.0]], ceiling=[3, INF], roles=[0, 0], cost=[5, 15], prc=[10, 20])
    assert moved.replicas.tolist() == [3, 2]
    assert moved.unserved.tolist() == [[0]]


def test_variants_of_one_price_are_used_in_their_order():
    assert grown([0, 0, 0], [[5.0]], roles=[0, 0, 0]).replicas.tolist() == [1, 0, 0]


@pytest.mark.parametrize("sizing", [0.0, -1.0, NAN])
def test_a_variant_of_unknown_size_is_never_picked(sizing):
    moved = grown([0, 0], [[5.0]], roles=[0, 0], cost=[0.1, 5], prc=[sizing, 10])
    assert moved.replicas.tolist() == [0, 1]


@pytest.mark.parametrize("need", [0.0, -3.0, NAN, INF])
def test_a_need_that_is_not_a_positive_number_asks_for_nothing(need):
    assert grown([2], [[need]], roles=[0]).replicas.tolist() == [2]


def test_replicas_that_are_not_known_stay_so():
    moved = grown([NAN, 1], [[5.0]], roles=[0, 0], cost=[1, 9])
    assert moved.replicas.tolist() == [pytest.approx(NAN, nan_ok=True), 2]


@pytest.mark.parametrize("literal", [False, True])
def test_a_role_that_gets_half_of_its_need_holds_its_partner_at_half(literal):
    # roles need 4 and 6 replicas; the first has room for 2, so the second gets 3 and the model is at its end
    moved = grown([0, 0], [[40.0, 60.0]], ceiling=[2, INF], roles=[0, 1], literal=literal)
    assert moved.replicas.tolist() == [2, 3]
    assert moved.unserved.tolist() == [[20, 30]]


def test_models_do_not_wait_for_each_other():
    moved = grown([0, 0, 0], [[40.0, 60.0, 10.0]], ceiling=[0, INF, INF], roles=[0, 1, 2], models=[0, 0, 1])
    assert moved.replicas.tolist() == [0, 0, 1]


def test_roles_of_a_model_need_not_be_neighbours():
    moved = grown([0, 0, 0, 0], [[20.0, 10, 40, 10]], ceiling=[1, 9, 9, 9], roles=[0, 1, 2, 3], models=[0, 1, 0, 1])
    assert moved.replicas.tolist() == [1, 1, 2, 1]


def test_a_vote_that_does_not_know_a_variant_counts_it_at_the_median_of_its_role():
    # The second vote asks for 30 of its unit and knows 8 and 12 a replica, so the cheapest counts as 10. The first
    # vote puts 2 there (20 / 10), which leaves 10 of the 30: one replica of 12 on the next in price.
    moved = grown([0, 0, 0], [[20.0], [30.0]], roles=[0, 0, 0], cost=[1, 2, 3], votes=[[10, 10, 10], [NAN, 12, 8]])
    assert moved.replicas.tolist() == [2, 1, 0]
    assert moved.unserved.tolist() == [[0], [0]]


def test_a_rounding_of_the_last_bit_adds_no_replica():
    # 4.35 / 0.05 is 87 exactly, 87 x 0.05 is not 4.35
    need, capacity = next(
        (k * c + d, c)
        for c in (0.05, 0.1, 0.3, 0.7)
        for k in range(1, 500)
        for d in (0.0, np.spacing(k * c))
        if (k * c + d) / c == k and k * c < k * c + d
    )
    assert grown([0], [[need]], roles=[0], prc=capacity).replicas.tolist() == [round(need / capacity)]


def test_the_literal_loop_ends_even_where_mixed_units_make_it_long():
    # each round serves 1 of 1e9 by the size of the anchor
    moved = grown([0], [[1.0], [1e9]], roles=[0], prc=1.0, votes=[[1.0], [1e9]], literal=True)
    assert moved.replicas.tolist() == [10_000]


def test_capacity_next_to_nothing_asks_for_nothing_instead_of_infinity():
    moved = grown([1], [[1e300]], roles=[0], prc=5e-324)
    assert moved.replicas.tolist() == [1]


def test_no_variants_and_no_votes_are_no_trouble():
    nobody = grown([1], np.zeros((0, 1)), roles=[0], votes=np.zeros((0, 1)))
    assert nobody.replicas.tolist() == [1]
    empty = joint_growth(
        np.empty(0),
        np.empty(0),
        np.empty((1, 0)),
        capacity=np.empty((1, 0)),
        sizing=np.empty(0),
        cost=np.empty(0),
        role_of_variant=np.empty(0, dtype=int),
        model_of_role=np.empty(0, dtype=int),
    )
    assert empty.replicas.tolist() == []


# Shared rows. Numbers of GPUs are those that are free; every variant starts at 0 unless a case says otherwise.


def test_growth_stops_at_a_row_and_spills_over_to_a_variant_on_another():
    moved = grown([0, 0], [[50.0]], entries=[(0, 0, 2), (1, 1, 4)], upper=[5, 100], roles=[0, 0], cost=[1, 2])
    assert moved.replicas.tolist() == [2, 3]  # 2 GPUs each: two of the first fit into 5
    assert moved.binding_row.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("gpus", "free", "each"),
    [(1, 5, 2), (2, 6, 1), (1, 8, 4), (2, 3, 0)],
    ids=["5-for-8", "6-for-16", "enough", "not-even-one-pair"],
)
def test_a_pair_on_one_row_is_sized_together(gpus, free, each):
    # published evidence: prefill and decode need 4 replicas each; picked apart they would take 8 of 5 and 12 of 6 GPUs
    moved = grown([0, 0], [[40.0, 40.0]], entries=[(0, 0, gpus), (0, 1, gpus)], upper=[free], roles=[0, 1])
    assert moved.replicas.tolist() == [each, each]


def test_a_pair_that_does_not_fit_on_one_row_uses_two():
    # one GPU of the cheap type is left: one role takes it, the other its dearer variant
    moved = grown(
        [0, 0, 0],
        [[10.0, 10.0]],
        entries=[(0, 0, 1), (0, 1, 1), (1, 2, 1)],
        upper=[1, 9],
        roles=[0, 1, 1],
        cost=[1, 1, 5],
    )
    assert moved.replicas.tolist() == [1, 0, 1]
    assert moved.binding_row.tolist() == [-1, 0, -1]


def test_unequal_needs_of_a_pair_share_a_row_in_proportion():
    # 10 and 30 asked, 2 GPUs a replica, 10 free: 5 replicas for 1 + 3
    pair = {"entries": [(0, 0, 2), (0, 1, 2)], "roles": [0, 1]}
    assert grown([1, 1], [[10.0, 30.0]], upper=[12], **pair).replicas.tolist() == [2, 4]
    # 4 free: 2 of the 4 replicas, at least one each
    assert grown([1, 1], [[10.0, 30.0]], upper=[8], **pair).replicas.tolist() == [2, 2]


def test_the_most_urgent_model_is_served_first_and_the_next_gets_what_is_left():
    pairs = {"entries": [(0, v, 1) for v in range(4)], "roles": [0, 1, 2, 3], "models": [0, 0, 1, 1]}
    need = [[20.0, 20.0, 20.0, 20.0]]
    assert grown([0] * 4, need, upper=[6], urgency=[1, 2], **pairs).replicas.tolist() == [1, 1, 2, 2]
    assert grown([0] * 4, need, upper=[6], urgency=[2, 1], **pairs).replicas.tolist() == [2, 2, 1, 1]
    # equally urgent: in the order of the models
    assert grown([0] * 4, need, upper=[5], urgency=[1, 1], **pairs).replicas.tolist() == [2, 2, 0, 0]


def test_a_model_that_is_crowded_out_spills_over():
    moved = grown(
        [0, 0, 0],
        [[30.0, 30.0]],
        entries=[(0, 0, 1), (0, 1, 1), (1, 2, 1)],
        upper=[4, 9],
        urgency=[1, 0],
        roles=[0, 1, 1],
        models=[0, 1],
        cost=[1, 1, 3],
    )
    assert moved.replicas.tolist() == [3, 1, 2]
    assert moved.unserved.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("use", "upper"), [(1, NAN), (NAN, 9), (1, 2), (1, 1)], ids=["limit", "use", "full", "exceeded"]
)
def test_a_row_that_is_unknown_or_full_allows_no_growth(use, upper):
    moved = grown([2], [[30.0]], entries=[(0, 0, use)], upper=[upper], roles=[0])
    assert moved.replicas.tolist() == [2]
    assert moved.binding_row.tolist() == [0]
    assert moved.unserved.tolist() == [[30]]


def test_a_row_without_end_is_none():
    assert grown([0], [[30.0]], entries=[(0, 0, 1)], upper=[INF], roles=[0]).replicas.tolist() == [3]


def test_many_models_competing_for_one_row_fill_it_and_no_more():
    # 40 models ask for 1 to 5 replicas; after the passes that keep roles in step, single grants fill what is left
    count = 40
    need = [[10.0 * (1 + index % 5) for index in range(count)]]
    moved = grown(
        [0] * count,
        need,
        entries=[(0, variant, 1) for variant in range(count)],
        upper=[50],
        urgency=np.arange(count),
        roles=list(range(count)),
        models=list(range(count)),
    )
    assert moved.replicas.sum() == 50
    # all of the 16 most urgent (48 replicas) are served, and nobody below the 18th
    assert np.array_equal(moved.replicas[-16:], floats(need)[0, -16:] / 10)
    assert not moved.replicas[:-18].any()


def test_models_that_compete_longer_than_there_are_passes_still_fill_the_row():
    # Replicas of 1024, 512, … 1 units and 2047 free: every pass settles one model with one replica and cuts the next.
    count = 11
    moved = grown(
        [0] * count,
        [[50.0] * count],
        entries=[(0, variant, 2.0 ** (count - 1 - variant)) for variant in range(count)],
        upper=[2**count - 1],
        roles=list(range(count)),
        models=list(range(count)),
    )
    assert moved.replicas.tolist() == [1] * count
    assert moved.binding_row.tolist() == [0] * count


@given(data=st.data())
def test_rows_are_never_exceeded_by_growth(data):
    count = data.draw(st.integers(1, 6))
    roles = sorted(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    models = data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
    start = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    need = [data.draw(st.lists(st.sampled_from([0.0, 4.0, 25.0, 90.0]), min_size=4, max_size=4))]
    entries = [
        (row, variant, data.draw(st.sampled_from([0.1, 1.0, 2.0, 8.0])))
        for row in range(2)
        for variant in range(count)
        if data.draw(st.booleans())
    ]
    upper = data.draw(st.lists(st.sampled_from([0.0, 0.3, 4.0, 9.0, 30.0]), min_size=2, max_size=2))
    shape = fleet([*roles, 3], models)
    shape |= {key: shape[key][..., :-1] for key in ("capacity", "sizing", "cost", "role_of_variant")}
    moved = growth_within_rows(
        floats(start),
        np.full(count, INF),
        floats(need),
        rows=rows_of(entries, upper),
        urgency=floats(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=3, max_size=3))),
        **shape,
    )
    assert np.all(moved.replicas >= start)
    for row, limit in enumerate(upper):
        before = sum(use * start[variant] for at, variant, use in entries if at == row)
        after = sum(use * moved.replicas[variant] for at, variant, use in entries if at == row)
        assert after == before or after <= limit * (1 + 1e-9)


# Shrinking


def shrunk(start, spare, *, floor=0.0, gates=None, score=None, may=None, literal=False, **parts):
    shape = fleet(**parts)
    del shape["model_of_role"]
    spare = floats(spare)
    return dearest_first_shrink(
        floats(start),
        np.broadcast_to(floats(floor), (len(start),)),
        spare,
        gates=np.ones(spare.shape, dtype=bool) if gates is None else np.array(gates),
        score=np.ones(spare.shape) if score is None else floats(score),
        may_shrink=np.ones(spare.shape[1], dtype=bool) if may is None else np.array(may),
        literal=literal,
        **shape,
    ).tolist()


@pytest.mark.parametrize("literal", [False, True])
def test_the_dearest_goes_first_as_far_as_spare_and_floor_allow(literal):
    parts = {"roles": [0, 0], "cost": [5, 15], "prc": [10, 20], "literal": literal}
    assert shrunk([3, 2], [[15.0]], **parts) == [2, 2]  # 15 is less than one of the dear
    assert shrunk([3, 3], [[45.0]], floor=[0, 2], **parts) == [1, 2]  # 20 of 45 on the dear, 20 of the 25 left


@pytest.mark.parametrize("literal", [False, True])
def test_a_role_keeps_its_last_replica_on_the_cheapest_variant(literal):
    assert shrunk([1, 1], [[99.0]], roles=[0, 0], cost=[5, 15], literal=literal) == [1, 0]
    assert shrunk([4], [[99.0]], roles=[0], literal=literal) == [1]


@pytest.mark.parametrize(("literal", "expected"), [(False, [0, 1]), (True, [0, 0])], ids=["default", "literal"])
def test_the_last_replica_stays_on_a_dear_variant_if_the_cheap_ones_have_none(literal, expected):
    assert shrunk([0, 1], [[99.0]], roles=[0, 0], cost=[5, 15], literal=literal) == expected


def test_at_one_cost_the_smaller_weighted_capacity_goes_first_then_the_first():
    # sums of score x capacity: 2 x 10 + 1 x 1 = 21, 2 x 5 + 1 x 9 = 19
    two = {"votes": [[10, 5], [1, 9]], "score": [[2.0], [1.0]], "roles": [0, 0]}
    assert shrunk([2, 2], [[5.0], [9.0]], **two) == [2, 1]
    assert shrunk([2, 2], [[10.0]], roles=[0, 0]) == [1, 2]


def test_every_gating_vote_has_to_have_spare():
    votes = [[10.0], [1.0]]
    assert shrunk([5], [[99.0], [0.0]], votes=votes, roles=[0]) == [5]
    assert shrunk([5], [[99.0], [NAN]], votes=votes, roles=[0]) == [5]
    assert shrunk([5], [[99.0], [2.0]], votes=votes, roles=[0]) == [3]
    assert shrunk([5], [[99.0], [0.0]], votes=votes, gates=[[True], [False]], roles=[0]) == [1]
    assert shrunk([5], [[99.0], [99.0]], votes=votes, gates=[[False], [False]], roles=[0]) == [5]


def test_a_role_that_may_not_shrink_does_not():
    assert shrunk([5, 5], [[20.0, 20.0]], roles=[0, 1], may=[False, True]) == [5, 3]


def test_a_variant_of_unknown_size_or_number_keeps_what_it_has():
    assert shrunk([3, 2, 2], [[99.0]], roles=[0, 0, 0], cost=[9, 5, 1], prc=[NAN, 10, 10]) == [3, 0, 0]
    stays, gone = shrunk([NAN, 3], [[99.0]], roles=[0, 0])
    assert np.isnan(stays)
    assert gone == 1


def test_unknown_capacities_are_taken_at_the_median_of_their_role():
    filled = at_role_median(floats([[1, NAN, 4, 2, NAN, 7], [NAN] * 6]), np.array([0, 0, 0, 0, 1, 2]), roles=4)
    assert filled.tolist() == [[1, 2, 4, 2, 0, 7], [0] * 6]
