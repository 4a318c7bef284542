"""The greedy solver: published facts about it, hand-worked cases, and a plain loop over lists as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import greedy_lists
from wva_optimizers.inferno.greedy import Candidates, SaturationPolicy, least_value, priority_groups, solve

POLICIES = list(SaturationPolicy)


def table(servers, types):
    """Candidates of servers in the order of their names; each candidate (accelerator, value, replicas, type, cards)."""
    names = sorted(servers)
    rows = [
        (number, *candidate)
        for number, name in enumerate(names)
        for candidate in sorted(servers[name]["candidates"], key=lambda one: one[0])
    ]
    replicas = np.array([row[3] for row in rows], dtype=float)
    return (
        Candidates(
            server=np.array([row[0] for row in rows], dtype=np.int64),
            value=np.array([row[2] for row in rows], dtype=float),
            replicas=replicas,
            partial=replicas,
            offsets=np.arange(len(rows) + 1),
            row=np.array([types.index(row[4]) for row in rows], dtype=np.int64),
            uses=np.array([row[5] for row in rows], dtype=float),
        ),
        np.array([servers[name]["priority"] for name in names], dtype=float),
        [row[1] for row in rows],
    )


def solved(servers, cards, policy="None", *, delayed=False):
    """As the oracle returns it: what each server gets, who was not allocated, cards left."""
    types = sorted(cards)
    candidates, priority, accelerators = table(servers, types)
    grants = solve(
        candidates,
        priority,
        np.array([cards[name] for name in types], dtype=float),
        policy=SaturationPolicy(policy),
        delayed_best_effort=delayed,
    )
    names = sorted(servers)
    got = {
        name: (accelerators[grants.candidate[number]], grants.replicas[number])
        for number, name in enumerate(names)
        if grants.candidate[number] >= 0
    }
    return got, [names[number] for number in grants.unallocated], dict(zip(types, grants.left.tolist(), strict=True))


def server(*candidates, priority=1):
    return {"priority": priority, "candidates": list(candidates)}


# ---- B.11, facts that the original's own tests assert


def test_b11_priorities_group_by_equal_neighbours():
    runs = [slice_.stop - slice_.start for slice_ in priority_groups([1, 1, 2, 3, 3])]
    assert runs == [2, 1, 2]
    assert priority_groups([]) == []


def test_b11_nobody_asks_for_nothing():
    assert solved({}, {"A100": 4}) == ({}, [], {"A100": 4})


def test_b11_policy_none_leaves_what_is_available_untouched():
    too_big = {"s": server(("A100", 1.0, 5, "A100", 1))}
    assert solved(too_big, {"A100": 4}) == ({}, ["s"], {"A100": 4})


def test_b11_a_server_without_candidates_is_skipped_and_not_reported():
    assert solved({"s": server()}, {"A100": 4}) == ({}, [], {"A100": 4})


def test_b11_without_capacity_every_candidate_is_tried_and_the_server_reported():
    one = {"s": server(("A100", 1.0, 1, "A100", 1), ("H100", 2.0, 1, "H100", 1))}
    assert solved(one, {"A100": 0, "H100": 0})[:2] == ({}, ["s"])


@pytest.mark.parametrize("policy", POLICIES)
def test_b11_two_cards_serve_some_of_five_servers(policy):
    five = {f"s{i}": server(("A100", 1.0, 1, "A100", 1), ("H100", 2.0, 1, "H100", 1)) for i in range(5)}
    got, unallocated, _ = solved(five, {"A100": 1, "H100": 1}, policy)
    assert sorted(got) == ["s0", "s1"]
    assert len(unallocated) == 3


# ---- hand-worked


def test_who_loses_most_by_the_second_choice_takes_the_first():
    # a loses 1 by moving on, b loses 9: b takes the only card of X although a comes first by name
    two = {
        "a": server(("X", 10.0, 1, "X", 1), ("Y", 11.0, 1, "Y", 1)),
        "b": server(("X", 10.0, 1, "X", 1), ("Y", 19.0, 1, "Y", 1)),
    }
    assert solved(two, {"X": 1, "Y": 1})[0] == {"a": ("Y", 1), "b": ("X", 1)}


def test_priority_comes_before_loss():
    two = {
        "a": server(("X", 10.0, 1, "X", 1), ("Y", 11.0, 1, "Y", 1), priority=1),
        "b": server(("X", 10.0, 1, "X", 1), ("Y", 19.0, 1, "Y", 1), priority=2),
    }
    assert solved(two, {"X": 1, "Y": 1})[0] == {"a": ("X", 1), "b": ("Y", 1)}


def test_ties_are_broken_by_the_name_of_server_and_accelerator():
    same = {name: server(("B", 5.0, 1, "X", 1), ("A", 5.0, 1, "X", 1)) for name in ("s2", "s1", "s3")}
    assert solved(same, {"X": 2})[0] == {"s1": ("A", 1), "s2": ("A", 1)}


def test_who_queues_again_stands_ahead_of_equals():
    # m loses most and is first; X does not fit it, and at its second candidate it has the key of a
    three = {
        "a": server(("Y", 7.0, 1, "Y", 1), ("Z", 8.0, 1, "Z", 1)),
        "m": server(("X", 1.0, 1, "X", 1), ("Y", 7.0, 1, "Y", 1), ("Z", 8.0, 1, "Z", 1)),
    }
    assert solved(three, {"X": 0, "Y": 1, "Z": 1})[0] == {"a": ("Z", 1), "m": ("Y", 1)}


# both want 6 of one type with fewer cards, and have a single candidate: the dearer comes first
SHORT = {"a": server(("X", 4.0, 6, "X", 1)), "b": server(("X", 9.0, 6, "X", 1))}


@pytest.mark.parametrize(
    ("policy", "got"),
    [
        ("None", {}),
        ("PriorityExhaustive", {"b": ("X", 5)}),
        ("PriorityRoundRobin", {"a": ("X", 2), "b": ("X", 3)}),
        ("RoundRobin", {"a": ("X", 2), "b": ("X", 3)}),
    ],
)
def test_what_is_left_goes_where_the_policy_says(policy, got):
    assert solved(SHORT, {"X": 5}, policy)[0] == got


@pytest.mark.parametrize(
    ("policy", "got"),
    [
        ("PriorityExhaustive", {"a": ("X", 5)}),
        ("PriorityRoundRobin", {"a": ("X", 5)}),
        ("RoundRobin", {"a": ("X", 3), "b": ("X", 2)}),
    ],
)
def test_only_round_robin_looks_past_the_highest_priority(policy, got):
    servers = {"a": SHORT["a"], "b": {**SHORT["b"], "priority": 2}}
    assert solved(servers, {"X": 5}, policy, delayed=True)[0] == got


def test_best_effort_after_each_priority_may_take_what_a_lower_one_needs():
    servers = {"a": server(("X", 4.0, 6, "X", 1)), "b": server(("X", 9.0, 5, "X", 1), priority=2)}
    assert solved(servers, {"X": 5}, "RoundRobin")[0] == {"a": ("X", 5)}
    assert solved(servers, {"X": 5}, "RoundRobin", delayed=True)[0] == {"b": ("X", 5)}


def test_a_share_counts_a_share_of_the_value():
    candidates, priority, _ = table(SHORT, ["X"])
    grants = solve(candidates, priority, np.array([3.0]), policy=SaturationPolicy.PRIORITY_EXHAUSTIVE)
    assert grants.value.tolist() == [0.0, 4.5]  # b: 3 of 6 replicas, half of 9
    assert not grants.whole.any()
    assert grants.stopped_by.tolist() == [0, 0]


def test_what_is_not_known_fits_nothing():
    candidates, priority, _ = table(SHORT, ["X"])
    for policy in POLICIES:
        assert (solve(candidates, priority, np.array([np.nan]), policy=policy).candidate == -1).all()


def test_an_unlimited_row_stops_nobody():
    candidates, priority, _ = table(SHORT, ["X"])
    assert solve(candidates, priority, np.array([np.inf])).replicas.tolist() == [6.0, 6.0]


def test_the_least_value_wins_and_the_first_of_equal_ones():
    candidates, _, accelerators = table(
        {"s": server(("B", 2.0, 1, "X", 1), ("A", 2.0, 1, "X", 1), ("C", 3.0, 1, "X", 1)), "t": server()}, ["X"]
    )
    best = least_value(candidates, 2)
    assert accelerators[best[0]] == "A"
    assert best[1] == -1


# ---- against the oracle

_candidates = st.lists(
    st.tuples(
        st.sampled_from("ABCD"),
        st.integers(-2, 4).map(float),  # few values, so that ties abound
        st.integers(0, 6),
        st.sampled_from(["X", "Y"]),
        st.integers(1, 3),
    ),
    max_size=4,
    unique_by=lambda one: one[0],
)
_servers = st.dictionaries(
    st.sampled_from([f"s{i}" for i in range(8)]),
    st.fixed_dictionaries({"priority": st.integers(1, 3), "candidates": _candidates}),
    max_size=8,
)


@given(_servers, st.integers(0, 12), st.integers(0, 12), st.sampled_from(POLICIES), st.booleans())
@settings(max_examples=400, deadline=None)
def test_it_does_what_the_loop_over_lists_does(servers, x, y, policy, delayed):
    cards = {"X": x, "Y": y}
    got, unallocated, left = solved(servers, cards, policy, delayed=delayed)
    expected, expected_unallocated, expected_left = greedy_lists.solve(servers, cards, policy, delayed)
    assert got == expected
    assert unallocated == expected_unallocated
    assert left == expected_left
