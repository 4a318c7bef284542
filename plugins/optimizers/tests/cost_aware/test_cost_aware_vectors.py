"""The published vectors of the cost-aware optimizer, and the evidence for the defects it does not repeat."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from wva_core.testing.builders import ballot, limits, observe, vote
from wva_optimizers.cost_aware import CostAware

NAN = float("nan")


@dataclass
class Case:
    """`variants` are (name, cost, prc, current, more columns); needs and spares are by role."""

    variants: list
    expected: list
    need: dict = field(default_factory=dict)
    spare: dict = field(default_factory=dict)


def v(name, cost, prc, current, **columns):
    return {"name": name, "cost": cost, "prc": prc, "current": current, **columns}


def replicas_by_name(case, *, compat=False):
    names = [row["name"] for row in case.variants]
    seen = observe([{key: value for key, value in row.items() if key != "prc"} for row in case.variants])
    by_role = [
        {key: [amounts.get(scope.role, 0.0) for scope in seen.fleet.scopes]}
        for key, amounts in (("required", case.need), ("spare", case.spare))
    ]
    only = vote(seen, capacity={row["name"]: row["prc"] for row in case.variants}, **by_role[0], **by_role[1])
    answer = CostAware(CostAware.Parameters(compat=compat)).allocate(seen, ballot(seen, only), limits(seen))
    return [float(answer.replicas[seen.fleet.index[f"ns/{name}"]]) for name in names]


P, D = {"role": "prefill"}, {"role": "decode"}
CASES = {
    "D23": Case([v("cheap", 5, 10000, 2), v("exp", 15, 20000, 1)], [3, 1], need={"": 5000}),
    "D24": Case([v("cheap", 5, 10000, 2, pending=1), v("mid", 10, 15000, 1)], [3, 1], need={"": 5000}),
    "D25": Case([v("zero-cap", 5, 0, 0), v("normal", 10, 10000, 1)], [0, 2], need={"": 5000}),
    "D26": Case([v("cheap", 5, 10000, 1), v("mid", 10, 15000, 1)], [4, 1], need={"": 25000}),
    "D27": Case([v("cheap", 5, 10000, 1, max_replicas=3), v("exp", 15, 20000, 1)], [3, 2], need={"": 30000}),
    "D28": Case([v("cheap", 5, 10000, 3), v("exp", 15, 20000, 2)], [2, 2], spare={"": 15000}),
    "D29": Case([v("exp", 15, 20000, 1), v("cheap", 5, 10000, 1)], [0, 1], spare={"": 30000}),
    "D30": Case([v("exp", 15, 20000, 1), v("cheap", 5, 10000, 1)], [1, 0], spare={"": 15000}),
    "D31": Case([v("keep", 15, 20000, 2, min_replicas=1), v("expendable", 5, 10000, 3)], [1, 0], spare={"": 80000}),
    "D32": Case([v("p", 15, 10000, 2, **P), v("d", 5, 10000, 3, **D)], [2, 1], spare={"decode": 20000}),
    "D33": Case(
        [v("p", 5, 10000, 3, **P), v("d", 5, 10000, 3, **D)], [2, 1], spare={"prefill": 10000, "decode": 20000}
    ),
    "D34": Case([v("d10", 10, 10000, 1, **D), v("d5", 5, 10000, 1, **D)], [0, 1], spare={"decode": 20000}),
    "D35": Case(
        [v("orphan", 5, 10000, 3), v("p", 5, 10000, 3, **P), v("d", 5, 10000, 3, **D)],
        [3, 2, 1],
        spare={"prefill": 10000, "decode": 20000},
    ),
    "D36": Case([v("p", 5, 10000, 1, **P), v("d", 5, 10000, 1, **D)], [3, 3], need={"prefill": 20000, "decode": 20000}),
    "D37": Case([v("p", 5, 10000, 2, **P), v("d", 5, 10000, 1, **D)], [2, 2], need={"decode": 10000}),
    "D40": Case([v("only", 5, 10000, 3)], [1], spare={"": 30000}),
    "D41": Case(
        [v("p-cheap", 5, 10000, 2, **P), v("p-exp", 15, 10000, 2, **P), v("d", 5, 10000, 3, **D)],
        [2, 0, 2],
        spare={"prefill": 20000, "decode": 10000},
    ),
    "D42": Case([v("only", 5, 10000, 2)], [4], need={"": 15000}),
}


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_published_vectors(case, compat):
    assert replicas_by_name(case, compat=compat) == case.expected


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
def test_a_scope_without_an_anchor_is_left_as_it_is_and_never_blocks_its_partners(compat):
    # D35 with an anchor for the two roles of the pair only
    seen = observe([{"name": "orphan", "current": 1}, {"name": "p", **P}, {"name": "d", **D}])
    roles = [scope.role for scope in seen.fleet.scopes]
    only = vote(seen, capacity=1.0, required=[0.0 if role == "" else 2.0 for role in roles])
    asked = ballot(seen, only, anchor=[-1 if role == "" else 0 for role in roles])
    answer = CostAware(CostAware.Parameters(compat=compat)).allocate(seen, asked, limits(seen))
    assert dict(zip(seen.fleet.keys, answer.replicas.tolist(), strict=True)) == {
        "ns/d": 3.0,
        "ns/p": 3.0,
        "ns/orphan": pytest.approx(NAN, nan_ok=True),
    }


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
def test_a_ballot_without_any_anchor_decides_nothing(compat):
    # D22
    seen = observe([{"name": "a", "current": 2, "min_replicas": 3}, {"name": "b", "current": 1}])
    asked = ballot(seen, vote(seen, required=5.0), anchor=-1)
    answer = CostAware(CostAware.Parameters(compat=compat)).allocate(seen, asked, limits(seen))
    assert np.isnan(answer.replicas).all()
    empty = CostAware(CostAware.Parameters(compat=compat)).allocate(seen, ballot(seen, anchor=-1), limits(seen))
    assert np.isnan(empty.replicas).all()


def two_votes(variants, first, second, *, compat, anchor=0):
    """`first` and `second` are (need, capacities by name)."""
    seen = observe(variants)
    votes = [
        vote(seen, analyzer=name, unit=name, required=need, capacity=capacity)
        for name, (need, capacity) in zip(("tokens", "tokens/s"), (first, second), strict=True)
    ]
    asked = ballot(seen, *votes, anchor=anchor)
    answer = CostAware(CostAware.Parameters(compat=compat)).allocate(seen, asked, limits(seen))
    return dict(zip((key.removeprefix("ns/") for key in seen.fleet.keys), answer.replicas.tolist(), strict=True))


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
def test_the_largest_need_in_replicas_decides(compat):
    # D38: 5000 / 10000 -> 1, 25000 / 10000 -> 3
    variants = [{"name": "only", "current": 2}]
    assert two_votes(variants, (5000.0, {"only": 10000}), (25000.0, {"only": 10000}), compat=compat) == {"only": 5.0}


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
def test_a_variant_the_anchor_does_not_know_is_not_revived(compat):
    # D39: saturation does not vote; throughput knows one of two variants
    seen = observe([{"name": "revived", "cost": 10, "current": 0}, {"name": "cold", "cost": 5, "current": 0}])
    asked = ballot(seen, vote(seen, capacity={"revived": 12000, "cold": 0}, required=12000.0))
    answer = CostAware(CostAware.Parameters(compat=compat)).allocate(seen, asked, limits(seen))
    assert dict(zip(seen.fleet.keys, answer.replicas.tolist(), strict=True)) == {"ns/cold": 0.0, "ns/revived": 1.0}


@pytest.mark.parametrize(("compat", "expected"), [(False, 2.0), (True, 1.0)], ids=["default", "compat"])
def test_f26_a_role_without_need_at_its_maximum_blocks_its_partner_only_under_compat(compat, expected):
    case = Case(
        [v("p", 5, 10000, 2, max_replicas=2, **P), v("d", 5, 10000, 1, **D)], [2, expected], need={"decode": 10000}
    )
    assert replicas_by_name(case, compat=compat) == case.expected


@pytest.mark.parametrize(("compat", "expected"), [(False, 5.0), (True, 32.0)], ids=["default", "compat"])
def test_f27_a_need_falls_by_the_capacity_of_its_own_unit_except_under_compat(compat, expected):
    variants = [{"name": "only", "current": 2}]
    needs = (500.0, {"only": 1000}), (30000.0, {"only": 10000})
    assert two_votes(variants, *needs, compat=compat) == {"only": expected}


@pytest.mark.parametrize(
    ("compat", "expected"), [(False, {"a": 2.0, "b": 3.0}), (True, {"a": 2.0, "b": 1.0})], ids=["default", "compat"]
)
def test_f27_a_small_unit_is_not_served_by_the_replicas_of_a_large_one(compat, expected):
    variants = [{"name": "a", "current": 1, "max_replicas": 2, "cost": 5}, {"name": "b", "current": 1, "cost": 10}]
    needs = (100000.0, {"a": 200000, "b": 200000}), (3000.0, {"a": 1000, "b": 1000})
    assert two_votes(variants, *needs, compat=compat) == expected


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
@pytest.mark.parametrize(
    ("current", "bounds", "expected"),
    [(1, {"min_replicas": 3}, 3.0), (9, {"max_replicas": 4}, 4.0)],
    ids=["raised-to-min", "lowered-to-max"],
)
def test_f30_minimum_and_maximum_hold_without_any_need(current, bounds, expected, compat):
    assert replicas_by_name(Case([v("only", 5, 10000, current, **bounds)], [expected]), compat=compat) == [expected]
