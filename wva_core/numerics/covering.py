"""
The cheapest whole replicas that carry a demand, for thousands of demands at once.

One demand alone is a small integer program, a knapsack that has to be filled. Its relaxation uses only the pair with
the lowest cost for what it carries, the *lead*; every replica of another pair costs a known amount more than the
relaxation (its reduced cost), so a plan within some *slack* of the relaxation has few of them. All of these are
enumerated, pair by pair for all demands together, and the lead fills what is left. If the slack reaches up to a known
plan, what is found is the least cost; if it had to be cut short, the relaxation and what is left of it are a bound.

Source: bounding variables by reduced costs is standard in integer programming; the enumeration is own.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Covers", "cheapest_covers"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

_ROUNDING = 1e-9
# Relative, as in `assignment`: parts that sum up to a demand may miss it by an ulp.

_FEWER = 3
# The plans known at first have as many of the lead as nothing of it is wasted, or one or two less, and one other pair.

_STATES, _LEAST_STATES = 1_000_000, 500
# Partial plans of all demands; if there would be more, no demand gets more than an even share of them, or than so many.

_CUTS = 8
# Halvings of the slack of a demand with more partial plans than that, before it is left with its relaxation.


class Covers(NamedTuple):
    """
    What each demand costs at least, and plans that cost about that.

    (S,) least cost, 0 where nothing is asked, arbitrary where nothing can carry it; (P,) the same if a pair is used at
    all; (C,) server of each plan, sorted; (C, W) pairs, in their order, and replicas of each, 0 of those that fill up.
    """

    least: FloatArray
    with_pair: FloatArray
    server: IntArray
    pair: IntArray
    replicas: FloatArray


class _Table(NamedTuple):
    """
    Pairs that help as columns of servers, the lead first: W ranks, K servers, A units.

    (K,) server; (W, K) pair, -1 none, its cost and most, 0 for none; (A, W, K) part of the demand one carries; (A, K)
    what is to be carried, 1 or 0; (K,) the unit whose relaxation costs most, and its cost; (W, K) cost beyond the
    relaxation.
    """

    server: IntArray
    pair: IntArray
    unit: FloatArray
    most: FloatArray
    part: FloatArray
    goal: FloatArray
    hardest: IntArray
    relaxed: FloatArray
    extra: FloatArray


class _States(NamedTuple):
    """
    Plans as far as they are enumerated, sorted by column of the table.

    (N,) column, cost beyond the relaxation, and for each rank that is settled (last first) how many of it in each state
    of its level and the state of the level before; (A, N) what is left to carry.
    """

    column: IntArray
    spent: FloatArray
    left: FloatArray
    counts: list[IntArray]
    parents: list[IntArray]


def cheapest_covers(
    server_of_pair: IntArray,
    unit: FloatArray,
    part: FloatArray,
    wanted: BoolArray,
    most: FloatArray,
    *,
    plans: int = 0,
    margin: float = 0.0,
    with_pairs: bool = False,
) -> Covers:
    """
    The least cost of carrying each demand in whole replicas, and the plans that cost about that.

    Args:
        server_of_pair: (P,) whose demand a pair carries.
        unit: (P,) cost of a replica, not negative.
        part: (A, P) part of the demand one replica carries, for each unit in which demand is counted.
        wanted: (A, S) which of these have to be carried.
        most: (P,) replicas at most.
        plans: the most for each server.
        margin: plans are looked for this much beyond the first one known, as a part of what that wastes.
        with_pairs: whether `with_pair` is needed; else it is `least`.

    Returns:
        Costs and plans. A cost is the least if the enumeration was complete, else a lower bound of it.

    Cost: about 60 ms and 50 MiB for 10,000 servers of 6 pairs, most of it for 300,000 partial plans.
    """
    least = np.zeros(wanted.shape[1])
    table = _ranked(server_of_pair, unit, part, wanted, most)
    columns = len(table.server)
    if not columns:
        return _without_plans(least, unit.copy())
    lead_count, other_count, worth = _begun(table)
    known = worth.min(axis=(0, 1))
    replaceable, useful = _useful_counts(table)
    all_of_it = (table.unit * useful).sum(axis=0)
    slack = np.where(np.isfinite(known), (known - table.relaxed) * (1.0 + margin), all_of_it)
    slack += _ROUNDING * table.relaxed
    states, slack = _enumerated(table, useful, slack)

    column = states.column
    last = _whole(states.left, table.part[:, 0, column])
    lead = table.part[table.hardest, 0, np.arange(columns)]
    able = last <= table.most[0, column]
    carried = (
        1.0 - states.left[table.hardest[column], np.arange(len(column))] + np.where(able, last, 0.0) * lead[column]
    )
    cost = np.where(able, states.spent + table.relaxed[column] * carried, np.inf)
    reach = table.relaxed + np.maximum(slack, 0.0)
    found = _least_in(column, cost, columns)
    least[table.server] = np.minimum(found, reach)
    with_pair = np.maximum(unit, least[server_of_pair])
    if with_pairs:
        ranks = np.empty(table.pair.shape)
        for number, used in _counts_of(states, np.arange(len(column)), last, len(table.pair)):
            ranks[number] = _least_in(column, np.where(used > 0, cost, np.inf), columns)
        # where the lead stands in for a pair, plans with that many of it are not looked at
        ranks = np.where(replaceable, np.minimum(found, reach), np.minimum(ranks, reach))
        # nor are replicas beyond what is needed
        ranks = np.minimum(ranks, np.minimum(found, reach) + table.unit)
        there = table.pair >= 0
        bound = np.maximum(ranks, table.relaxed + table.extra)[there]
        with_pair[table.pair[there]] = np.maximum(with_pair[table.pair[there]], bound)
    if not plans:
        return _without_plans(least, with_pair)

    good = np.flatnonzero(cost <= reach[column])
    good = good[np.lexsort((cost[good], column[good]))]
    good = good[_place(column[good]) < plans]
    count = np.empty((len(good), len(table.pair)))
    for number, used in _counts_of(states, good, last[good], len(table.pair)):
        count[:, number] = used
    at = column[good]
    # enumeration given up, or stopped short of what was known: what was known
    short = np.ones(columns, dtype=bool)
    short[at] = False
    step, rank, mine = np.nonzero(np.isfinite(worth) & short)
    more = np.zeros((len(mine), len(table.pair)))
    more[:, 0] = lead_count[step, mine]
    more[np.arange(len(mine)), rank] += other_count[step, rank, mine]
    order = np.argsort(np.concatenate([at, mine]), kind="stable")
    at, count = np.concatenate([at, mine])[order], np.concatenate([count, more])[order]
    in_order = np.argsort(table.pair, axis=0)
    pair = np.take_along_axis(table.pair, in_order, axis=0)[:, at].T
    count = np.take_along_axis(count, in_order[:, at].T, axis=1)
    return Covers(least, with_pair, table.server[at], pair, np.where(pair >= 0, count, 0.0))


def _without_plans(least: FloatArray, with_pair: FloatArray) -> Covers:
    nothing = np.empty((0, 0))
    return Covers(least, with_pair, np.empty(0, dtype=np.int64), nothing.astype(np.int64), nothing)


def _place(column: IntArray) -> IntArray:
    """The position of each among the equal ones, which stand together."""
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    return np.arange(len(column)) - np.repeat(starts, np.diff(starts, append=len(column)))


def _least_in(column: IntArray, cost: FloatArray, columns: int) -> FloatArray:
    """(K,) the least of each column, which is sorted; infinity where it has none."""
    result = np.full(columns, np.inf)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    if starts.size:
        result[column[starts]] = np.minimum.reduceat(cost, starts)
    return result


def _whole(left: FloatArray, part: FloatArray) -> FloatArray:
    """(…) replicas that carry what is left in every one of (A, …) units; infinity where one is not carried."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        each = np.where(left > _ROUNDING, left / part, 0.0)
    result: FloatArray = np.ceil(each.max(axis=0, initial=0.0) * (1 - _ROUNDING))
    return result


def _ranked(
    server_of_pair: IntArray, unit: FloatArray, part: FloatArray, wanted: BoolArray, most: FloatArray
) -> _Table:
    """The table of all servers whose demand can be carried at all."""
    wanted = _telling(server_of_pair, part, wanted, most)
    rows = np.flatnonzero(wanted.any(axis=1))
    wanted, part = wanted[rows], np.where(wanted[rows][:, server_of_pair] & (most > 0), part[rows], 0.0)
    price = np.divide(unit, part, out=np.full(part.shape, np.inf), where=part > 0)
    relaxed = np.full(wanted.shape, np.inf)
    for one, row in zip(relaxed, price, strict=True):
        np.minimum.at(one, server_of_pair, row)
    relaxed[~wanted] = -np.inf
    able: BoolArray = np.logical_or.reduce(wanted, axis=0) & np.logical_and.reduce(relaxed < np.inf, axis=0)
    hardest = relaxed.argmax(axis=0) if len(rows) else np.zeros(wanted.shape[1], dtype=np.int64)

    pairs = np.flatnonzero((part > 0).any(axis=0) & able[server_of_pair])
    density = price[hardest[server_of_pair[pairs]], pairs]
    pairs = pairs[np.lexsort((density, server_of_pair[pairs]))]
    servers = np.flatnonzero(able)
    column = np.searchsorted(servers, server_of_pair[pairs])
    rank = _place(column)
    shape = (int(rank.max(initial=-1)) + 1, len(servers))
    pair = np.full(shape, -1, dtype=np.int64)
    pair[rank, column] = pairs
    there = pair >= 0
    units = np.where(there, unit[pair], 0.0)
    parts = np.where(there, part[:, pair], 0.0)
    cost = relaxed[hardest[servers], servers]
    own = np.take_along_axis(parts, hardest[servers][None, None, :], axis=0)[0] if len(rows) else units
    return _Table(
        server=servers,
        pair=pair,
        unit=units,
        most=np.where(there, most[pair], 0.0),
        part=parts,
        goal=wanted[:, servers].astype(np.float64),
        hardest=hardest[servers],
        relaxed=cost,
        extra=np.maximum(units - own * cost, 0.0),
    )


def _telling(server_of_pair: IntArray, part: FloatArray, wanted: BoolArray, most: FloatArray) -> BoolArray:
    """(A, S) units that are wanted and not carried anyway by whatever carries another one."""
    wanted = wanted.copy()
    counts = most > 0
    for one in range(len(part)):
        for other in range(len(part)):
            both = wanted[one] & wanted[other]
            if one == other or not both.any():
                continue
            tells = np.zeros(wanted.shape[1], dtype=bool)
            tells[server_of_pair[counts & (part[one] < part[other])]] = True
            wanted[one] &= ~both | tells
    return wanted


def _begun(table: _Table) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(T, K) of the lead, (T, W, K) of a pair that finishes, and what that costs; infinity where it does not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(table.goal > 0, table.goal / table.part[:, 0], np.inf).min(axis=0, initial=np.inf)
    base = np.minimum(np.floor(room * (1 + _ROUNDING)), table.most[0])
    lead = np.maximum(base - np.arange(_FEWER)[:, None], 0.0)
    finish, worth = np.empty((_FEWER, *table.pair.shape)), np.empty((_FEWER, *table.pair.shape))
    for step, count in enumerate(lead):
        left = table.goal - count * table.part[:, 0]
        finish[step] = _whole(left[:, None, :], table.part)
        total = finish[step].copy()
        total[0] += count
        with np.errstate(invalid="ignore"):
            worth[step] = np.where(
                (total <= table.most) & (table.pair >= 0), count * table.unit[0] + finish[step] * table.unit, np.inf
            )
    return lead, finish, worth


def _useful_counts(table: _Table) -> tuple[BoolArray, FloatArray]:
    """
    (W, K) pairs of which the lead can stand in for a number, and how many of each are worth a look.

    Where one of the lead carries as much as m of a pair and costs no more, m of that pair are never needed.
    """
    alone = _whole(np.broadcast_to(table.goal[:, None, :], table.part.shape), np.where(table.part > 0, table.part, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(table.part > 0, table.part[:, :1] / table.part, np.where(table.goal[:, None] > 0, np.inf, 1.0))
        standing = np.floor(np.where(table.goal[:, None] > 0, part, np.inf).min(axis=0) * (1 + _ROUNDING))
        standing = np.where(np.isfinite(standing), standing, 0.0)
        same = (standing >= 1) & (standing * table.unit >= table.unit[0] * (1 - _ROUNDING))
    same &= table.most[0] >= _whole(table.goal, table.part[:, 0])
    same[0] = False
    useful = np.minimum(table.most, alone)
    return same, np.where(same, np.minimum(useful, standing - 1), useful)


def _enumerated(table: _Table, useful: FloatArray, slack: FloatArray) -> tuple[_States, FloatArray]:
    """All plans of all pairs but the lead within the slack; and (K,) the slack kept, negative where given up."""
    columns = len(table.server)
    allowance = max(_STATES // columns, _LEAST_STATES)
    slack = slack.copy()
    states = _States(np.arange(columns), np.zeros(columns), table.goal.copy(), [], [])
    for rank in range(len(table.pair) - 1, 0, -1):
        kept: IntArray | None = None  # all
        column, spent, left = states.column, states.spent, states.left
        for cut in range(_CUTS + 1):
            extra, part = table.extra[rank].take(column), table.part[:, rank].take(column, axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                most = np.where(extra > 0, (slack.take(column) - spent) / extra, np.inf)
                asked = np.where((left > _ROUNDING) & (part > 0), left / part, 0.0).max(axis=0, initial=0.0)
            most = np.minimum(most, np.ceil(asked * (1 - _ROUNDING)))
            most = np.minimum(most, useful[rank].take(column))
            number = np.maximum(most, 0.0).astype(np.int64) + 1
            over = np.bincount(column, weights=number, minlength=columns) > allowance
            if not over.any() or number.sum() <= _STATES:
                break
            slack[over] = slack[over] / 2 if cut < _CUTS - 1 else -1.0
            stays = np.flatnonzero(spent <= slack[column])
            kept = stays if kept is None else kept[stays]
            column, spent, left = column[stays], spent[stays], left[:, stays]
        parent = np.repeat(np.arange(len(column)), number)
        count = np.arange(len(parent)) - (np.cumsum(number) - number).take(parent)
        states = _States(
            column.take(parent),
            spent.take(parent) + count * extra.take(parent),
            left.take(parent, axis=1) - count * part.take(parent, axis=1),
            [*states.counts, count],
            [*states.parents, parent if kept is None else kept[parent]],
        )
    return states, slack


def _counts_of(states: _States, chosen: IntArray, last: FloatArray, ranks: int) -> list[tuple[int, FloatArray]]:
    """For each rank, how many of it these states have; `last` of the lead."""
    result: list[tuple[int, FloatArray]] = [(0, last)]
    at = chosen
    for level in range(ranks - 2, -1, -1):
        result.append((ranks - 1 - level, states.counts[level][at].astype(np.float64)))
        at = states.parents[level][at]
    return result
