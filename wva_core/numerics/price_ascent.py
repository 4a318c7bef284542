"""
Assignments of thousands of servers by prices on what they share: a plan close to the best, and the proof of how close.

Every shared row gets a price; at given prices each server takes its cheapest option on its own, and the sum of those
choices, less what the rows are worth, is a lower bound of the cost of every plan (Lagrangian relaxation). Prices rise
where a row is overfull and fall where it is not, until the bound no longer gains. Then servers are admitted in the
order of importance and of what they would lose, each to its cheapest option that still fits, and what room is left
is used to cheapen the plan. All servers move at once; loops run over steps and rounds.

Source: Held, Wolfe and Crowder, Validation of subgradient optimization (1974); step lengths by a target level as in
Goffin and Kiwiel, Convergence of a simple subgradient level method (1999); the repair is own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wva_core.numerics.assignment import (
    ROUNDING,
    Problem,
    Remainder,
    Solution,
    preferred,
    remainder,
    served_share,
    solve_exact,
)

__all__ = ["price_ascent", "solve"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

_UNSERVED = 10.0
# A server is left out where prices make it this much dearer than its cheapest option; times 4 for each level of
# priority above the lowest. The order of admission decides, this only keeps prices finite where not all can be served.

_LEADS, _PARTNERS = 3, 6
# Mixes join one of the pairs of lowest priced cost for what they carry with one of a few more; wider ones gain nothing
# that shows, and cost time.

_ROUNDS = 200
# Rounds of admission; each settles at least one server, in practice ten settle all.

_ATTEMPTS = ((1.0, True), (1.05, True), (1.0, False), (1.2, True))
# Factors on the prices, and whether servers with the most to lose are admitted first or those that use least; each
# attempt is better on some problems, and none is made once a plan is within this of its bound:
_GOOD_ENOUGH = 5e-4

_GRID_WORK, _GRID_MOST = 4_000_000, 1_024
# The bound of a mix counts demand in steps, as many as this much work allows (servers x pairs x steps), at least 96;
# finer is tighter.

_SMALL = 64
# Pairs up to which the exact solver needs no start.

_CORE = 1_500
# Pairs up to which what price ascent could not exclude is handed to the exact solver.


class _Options(NamedTuple):
    """
    Complete ways to carry one server each, sorted by server.

    (O,) server and cost; (O + 1,) offsets into entries of (pair, replicas); (W, O) row and use of each option, the row
    past the last standing for none.
    """

    server: IntArray
    cost: FloatArray
    offsets: IntArray
    pair: IntArray
    replicas: FloatArray
    row: IntArray
    use: FloatArray

    def take(self, kept: BoolArray) -> _Options:
        """The options for which `kept` holds."""
        sizes = np.diff(self.offsets)
        entries = np.repeat(kept, sizes)
        return _Options(
            self.server[kept],
            self.cost[kept],
            np.concatenate([[0], np.cumsum(sizes[kept])]),
            self.pair[entries],
            self.replicas[entries],
            self.row[:, kept],
            self.use[:, kept],
        )

    def reduced(self, price: FloatArray) -> FloatArray:
        """(O,) costs with what is used of the rows at these prices (one more than rows, the last 0)."""
        result = self.cost.copy()
        for row, use in zip(self.row, self.use, strict=True):
            result += price[row] * use
        return result

    def usage(self, chosen: IntArray, rows: int) -> FloatArray:
        """(rows,) what these options use together."""
        used = np.bincount(self.row[:, chosen].ravel(), weights=self.use[:, chosen].ravel(), minlength=rows + 1)
        result: FloatArray = used[:rows].astype(np.float64)
        return result

    def fits(self, left: FloatArray) -> BoolArray:
        """(O,) whether each would fit into what is left, alone."""
        room = np.append(left, np.inf)
        result = np.ones(len(self.server), dtype=bool)
        for row, use in zip(self.row, self.use, strict=True):
            result &= (use <= 0) | (use <= room[row])
        return result


class _Best(NamedTuple):
    """Servers that have an option, the cheapest of each, and by how much the second cheapest is dearer."""

    server: IntArray
    option: IntArray
    value: FloatArray
    regret: FloatArray


def _best(options: _Options, value: FloatArray, *, with_regret: bool = False) -> _Best:
    """The first cheapest option of each server among those with a finite value."""
    starts = np.flatnonzero(np.diff(options.server, prepend=-1))
    if not starts.size:
        nothing = np.empty(0, dtype=np.int64)
        return _Best(nothing, nothing, np.empty(0), np.empty(0))
    least = np.minimum.reduceat(value, starts)
    sizes = np.diff(np.append(starts, len(value)))
    at = np.flatnonzero(value == np.repeat(least, sizes))
    number = np.searchsorted(starts, at, side="right") - 1
    chosen = np.zeros(len(starts), dtype=np.int64)
    chosen[number[::-1]] = at[::-1]
    regret = np.zeros(len(starts))
    if with_regret:
        others = value.copy()
        others[chosen] = np.inf
        regret = np.minimum.reduceat(others, starts) - np.where(np.isfinite(least), least, 0.0)
    good = np.isfinite(least)
    return _Best(options.server[starts[good]], chosen[good], least[good], regret[good])


@dataclass(slots=True)
class _Ways:
    """Options gathered block by block, each block as (server, [(pair, count), …]) columns of equal length."""

    server: list[IntArray]
    pairs: list[IntArray]
    counts: list[FloatArray]
    sizes: list[IntArray]

    def add(self, server: IntArray, *parts: tuple[IntArray, FloatArray]) -> None:
        """Options of equally many pairs each; a count of 0 is no pair."""
        self.server.append(server)
        self.pairs.append(np.stack([pair for pair, _ in parts], axis=1).ravel())
        self.counts.append(np.stack([count for _, count in parts], axis=1).ravel())
        self.sizes.append(np.full(len(server), len(parts)))


def _single_options(problem: Problem, rest: Remainder) -> _Options:
    """Every pair alone."""
    ways = _Ways([], [], [], [])
    _add_alone(ways, problem, rest)
    return _made(ways, problem, rest)


def _mixed_options(problem: Problem, rest: Remainder, price: FloatArray, incumbent: FloatArray | None) -> _Options:
    """Every pair alone, two pairs together, all pairs filled up in order, and the incumbent."""
    ways = _Ways([], [], [], [])
    ranked = _ranked(problem, rest, price)
    _add_alone(ways, problem, rest)
    _add_mixes(ways, problem, rest, ranked)
    _add_fill(ways, problem, rest, ranked)
    if incumbent is not None:
        _add_counts(ways, problem, rest, np.clip(np.nan_to_num(incumbent - problem.low), 0.0, rest.most))
    return _made(ways, problem, rest)


def _made(ways: _Ways, problem: Problem, rest: Remainder) -> _Options:
    """The gathered options, sorted by server, without those that would not fit even alone."""
    owner = np.concatenate(ways.server)
    order = np.argsort(owner, kind="stable")
    sizes = np.concatenate(ways.sizes)
    first = np.cumsum(sizes) - sizes
    sorted_sizes = sizes[order]
    offsets = np.concatenate([[0], np.cumsum(sorted_sizes)])
    entry = np.repeat(first[order] - offsets[:-1], sorted_sizes) + np.arange(int(sizes.sum()))
    pair, count = np.concatenate(ways.pairs)[entry], np.concatenate(ways.counts)[entry]
    option = np.repeat(np.arange(len(order)), sorted_sizes)
    cost = np.bincount(option, weights=problem.cost[pair] * count, minlength=len(order)).astype(np.float64)
    row, use = _use_of_rows(rest, option, pair, count, len(order))
    made = _Options(owner[order], cost, offsets, pair, count, row, use)
    return made.take(made.fits(rest.rows.upper))


def _use_of_rows(
    rest: Remainder, option: IntArray, pair: IntArray, count: FloatArray, options: int
) -> tuple[IntArray, FloatArray]:
    """(W, O) rows each option uses, and how much of them."""
    rows = len(rest.rows.upper)
    finite = np.isfinite(rest.rows.upper)[rest.rows.row_of_entry]
    by_pair = np.flatnonzero(finite)[np.argsort(rest.rows.variant_of_entry[finite], kind="stable")]
    counts = np.bincount(rest.rows.variant_of_entry[by_pair], minlength=len(rest.most))
    first = np.cumsum(counts) - counts
    grown = np.maximum(count - rest.held[pair], 0.0)
    repeats = np.where(grown > 0, counts[pair], 0)
    total = int(repeats.sum())
    within = np.arange(total) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    entry = by_pair[np.repeat(first[pair], repeats) + within] if total else np.empty(0, dtype=np.int64)
    which = np.repeat(option, repeats)
    row, use = rest.rows.row_of_entry[entry], rest.rows.coefficient[entry] * np.repeat(grown, repeats)
    key = which * (rows + 1) + row
    if np.any(key[1:] <= key[:-1]):
        # an option may use one row through several pairs: once each, so that what fits is what is used
        key, where = np.unique(key, return_inverse=True)
        use = np.bincount(where, weights=use, minlength=len(key))
        which, row = key // (rows + 1), key % (rows + 1)
    slots = np.bincount(which, minlength=options)
    slot = np.arange(len(which)) - (np.cumsum(slots) - slots)[which]
    width = int(slots.max(initial=0))
    rows_of, uses_of = np.full((width, options), rows, dtype=np.int64), np.zeros((width, options))
    rows_of[slot, which] = row
    uses_of[slot, which] = use
    return rows_of, uses_of


def _whole(missing: FloatArray, share: FloatArray) -> FloatArray:
    """(N,) replicas that carry (A, N) what is missing; infinity where one cannot."""
    with np.errstate(divide="ignore", over="ignore"):
        each = np.where(
            missing > ROUNDING, np.divide(missing, share, out=np.full(share.shape, np.inf), where=share > 0), 0.0
        )
    result: FloatArray = np.ceil(each.max(axis=0, initial=0.0) * (1 - ROUNDING))
    return result


def _priced(rest: Remainder, price: FloatArray) -> FloatArray:
    """(P,) what one replica uses of the rows at these prices."""
    row, pair, coefficient, _ = rest.rows
    return np.bincount(pair, weights=coefficient * price[row], minlength=len(rest.most)).astype(np.float64)


def _density(problem: Problem, rest: Remainder, price: FloatArray) -> FloatArray:
    """(P,) cost for all that is missing if it could be divided; infinity for pairs that carry nothing."""
    part = np.where(rest.missing[:, problem.server_of_pair] > 0, rest.share, 0.0).max(axis=0, initial=0.0)
    unit = problem.cost + _priced(rest, price)
    result: FloatArray = np.divide(unit, part, out=np.full(len(part), np.inf), where=(part > 0) & (rest.most > 0))
    return result


class _Ranked(NamedTuple):
    """Useful pairs by server and density, their rank, and how many each server has and where they begin."""

    pairs: IntArray
    rank: IntArray
    counts: IntArray
    first: IntArray


def _ranked(problem: Problem, rest: Remainder, price: FloatArray) -> _Ranked:
    density = _density(problem, rest, price)
    pairs = np.flatnonzero(np.isfinite(density))
    pairs = pairs[np.lexsort((density[pairs], problem.server_of_pair[pairs]))]
    counts = np.bincount(problem.server_of_pair[pairs], minlength=problem.servers)
    first = np.cumsum(counts) - counts
    return _Ranked(pairs, np.arange(len(pairs)) - first[problem.server_of_pair[pairs]], counts, first)


def _add_alone(ways: _Ways, problem: Problem, rest: Remainder) -> None:
    alone = np.flatnonzero((rest.full > 0) & (rest.full <= rest.most))
    ways.add(problem.server_of_pair[alone], (alone, rest.full[alone]))


def _add_mixes(ways: _Ways, problem: Problem, rest: Remainder, ranked: _Ranked) -> None:
    """Of two pairs the first as often as nothing of it is wasted, or once less, and the other for what is left."""
    pairs, rank, counts, first = ranked
    server = problem.server_of_pair
    leads = pairs[rank < _LEADS]
    partners = np.minimum(counts, _PARTNERS)[server[leads]]
    one = np.repeat(leads, partners)
    within = np.arange(len(one)) - np.repeat(np.cumsum(partners) - partners, partners)
    other = pairs[first[server[one]] + within]
    apart = one != other
    one, other = one[apart], other[apart]
    missing = rest.missing[:, server[one]]
    asked = (missing > 0) & (rest.share[:, one] > 0)
    room = np.divide(missing, rest.share[:, one], out=np.full(missing.shape, np.inf), where=asked)
    whole = np.minimum(np.floor(room.min(axis=0, initial=np.inf)), rest.most[one])
    for less in (0.0, 1.0):
        count = whole - less
        added = _whole(missing - rest.share[:, one] * count, rest.share[:, other])
        good = (count >= 1) & (added >= 1) & (added <= rest.most[other])
        ways.add(server[one[good]], (one[good], count[good]), (other[good], added[good]))


def _add_fill(ways: _Ways, problem: Problem, rest: Remainder, ranked: _Ranked) -> None:
    """The pairs of each server filled up in the order of their density."""
    pairs, _, counts, first = ranked
    server = problem.server_of_pair
    missing = rest.missing.copy()
    count = np.zeros(len(server))
    for number in range(int(counts.max(initial=0))):
        mine = pairs[first[counts > number] + number]
        left = missing[:, server[mine]]
        asks = np.where((left > ROUNDING) & (rest.share[:, mine] > 0), left, 0.0)
        take = np.minimum(_whole(asks, rest.share[:, mine]), rest.most[mine])
        count[mine] = take
        missing[:, server[mine]] = left - take * rest.share[:, mine]
    _add_counts(ways, problem, rest, count)


def _add_counts(ways: _Ways, problem: Problem, rest: Remainder, count: FloatArray) -> None:
    """One option for each server that these counts carry in full."""
    server = problem.server_of_pair
    got = np.array([np.bincount(server, weights=row * count, minlength=problem.servers) for row in rest.share])
    asked = rest.missing > 0
    done: BoolArray = np.logical_and.reduce(got >= rest.missing - ROUNDING, axis=0)
    done &= np.logical_or.reduce(asked, axis=0)
    used = np.flatnonzero((count > 0) & done[server])
    used = used[np.argsort(server[used], kind="stable")]
    sizes = np.bincount(server[used], minlength=problem.servers)
    ways.server.append(np.flatnonzero(done & (sizes > 0)))
    ways.pairs.append(used)
    ways.counts.append(count[used])
    ways.sizes.append(sizes[done & (sizes > 0)])


# ---- prices


def _ascend(
    options: _Options, weight: FloatArray, room: FloatArray, steps: int, start: FloatArray | None
) -> FloatArray:
    """
    (L + 1,) prices at which the bound is about as high as it gets, the last 0.

    Subgradients in units of each row's room, the previous direction weighing half as much; the step aims at a target
    above the best bound, which comes nearer when it is missed. A server for which prices make the least cost more than
    `weight` (S,) times as dear is left out.
    """
    rows = len(room)
    cheapest = _best(options, options.cost)
    if not np.any(options.usage(cheapest.option, rows) > room):
        return np.zeros(rows + 1)
    penalty = np.zeros(len(weight))
    penalty[cheapest.server] = cheapest.value * weight[cheapest.server]
    finite = np.isfinite(room)
    scale = np.where(finite, np.maximum(room, 1.0), 1.0)
    mu = np.zeros(rows) if start is None else start[:rows] * scale
    best_mu, best_bound = mu, -np.inf
    direction = np.zeros(rows)
    aim = 0.05 if start is None else 0.002
    level, misses = 0.0, 0
    for _ in range(steps):
        price = np.append(mu / scale, 0.0)
        picked = _best(options, options.reduced(price))
        refused = picked.value > penalty[picked.server]
        value = np.where(refused, penalty[picked.server], picked.value)
        bound = float(value.sum() - mu[finite] @ (room / scale)[finite])
        gradient = np.where(
            finite, (options.usage(picked.option[~refused], rows) - np.where(finite, room, 0.0)) / scale, 0.0
        )
        if bound > best_bound:
            gained = bound - best_bound
            best_mu, best_bound = mu, bound
            level = aim * abs(bound) if level == 0.0 else (1.2 * level if gained > 0.5 * level else level)
            misses = 0
        else:
            misses += 1
            if misses >= 3:
                level, misses = 0.5 * level, 0
                mu, direction = best_mu, np.zeros(rows)
                continue
        gradient = np.where((mu <= 0) & (gradient < 0), 0.0, gradient)
        direction = gradient + 0.5 * direction
        length = float(direction @ direction)
        if length == 0.0 or level <= 1e-6 * abs(best_bound):
            break
        mu = np.maximum(0.0, mu + (best_bound + level - bound) / length * direction)
    return np.append(best_mu / scale, 0.0)


# ---- repair


def _accept(options: _Options, chosen: IntArray, left: FloatArray) -> BoolArray:
    """Which of these options, in this order, fit into what those before them leave; refusals count as taken."""
    ok = np.ones(len(chosen), dtype=bool)
    rows, uses = options.row[:, chosen], np.maximum(options.use[:, chosen], 0.0)
    bidder = np.broadcast_to(np.arange(len(chosen)), rows.shape)
    inside = (rows < len(left)) & (uses > 0)
    row, use, bidder = rows[inside], uses[inside], bidder[inside]
    order = np.lexsort((bidder, row))
    row, use, bidder = row[order], use[order], bidder[order]
    total = np.cumsum(use)
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    before = np.repeat(total[starts] - use[starts], np.diff(np.append(starts, len(row))))
    ok[bidder[total - before > left[row] + ROUNDING * np.abs(left[row])]] = False
    return ok


def _admit(
    options: _Options, value: FloatArray, rank: FloatArray, room: FloatArray, *, by_regret: bool
) -> tuple[IntArray, FloatArray]:
    """(S,) option of each server, -1 none; and (L,) room that is left. Lower `rank` first, then most to lose."""
    chosen = np.full(len(rank), -1, dtype=np.int64)
    left = room.copy()
    number = np.arange(len(options.server))
    now, worth = options, value
    for _ in range(_ROUNDS):
        kept = now.fits(left)
        now, worth, number = now.take(kept), worth[kept], number[kept]
        bids = _best(now, worth, with_regret=by_regret)
        if not bids.server.size:
            break
        order = np.lexsort((-bids.regret if by_regret else bids.value, rank[bids.server]))
        server, option = bids.server[order], bids.option[order]
        ok = _accept(now, option, left)
        chosen[server[ok]] = number[option[ok]]
        left = left - now.usage(option[ok], len(left))
        still = chosen[now.server] < 0
        now, worth, number = now.take(still), worth[still], number[still]
    return chosen, left


def _cheapen(options: _Options, chosen: IntArray, left: FloatArray) -> tuple[IntArray, FloatArray]:
    """Servers moved to cheaper options as far as room is left, the largest saving first."""
    rows = len(left)
    chosen = chosen.copy()
    dense = len(chosen) * (rows + 1) <= 4_000_000
    mine = chosen[options.server] >= 0
    numbers = np.flatnonzero(mine)
    kept = options.take(mine)
    for _ in range(20):
        placed = np.flatnonzero(chosen >= 0)
        cost = np.zeros(len(chosen))
        cost[placed] = options.cost[chosen[placed]]
        saving = cost[kept.server] - kept.cost
        better = saving > ROUNDING * np.maximum(cost[kept.server], 1.0)
        if not better.any():
            break
        now, gain, number = kept.take(better), saving[better], numbers[better]
        more = now.use
        if dense:
            used = np.zeros((len(chosen), rows + 1))
            for row, use in zip(options.row[:, chosen[placed]], options.use[:, chosen[placed]], strict=True):
                used[placed, row] += use
            more = now.use - used[now.server[None, :], now.row]
        now = now._replace(use=more)
        fits = now.fits(left)
        now, gain, number = now.take(fits), gain[fits], number[fits]
        moves = _best(now, -gain)
        if not moves.server.size:
            break
        order = np.argsort(moves.value, kind="stable")
        server, option = moves.server[order], moves.option[order]
        ok = _accept(now, option, left)
        before = options.usage(chosen[server[ok]], rows)
        chosen[server[ok]] = number[option[ok]]
        left = left + before - options.usage(chosen[server[ok]], rows)
    return chosen, left


def _without_torn_groups(problem: Problem, rest: Remainder, chosen: IntArray) -> IntArray:
    """The choices of groups all of whose servers have one; what serves only a part of a group is given back."""
    lacks = (chosen < 0) & (rest.missing > 0).any(axis=0)
    torn = np.zeros(int(problem.group.max(initial=-1)) + 1, dtype=bool)
    torn[problem.group[lacks]] = True
    return np.where(torn[problem.group], -1, chosen)


def _counts(options: _Options, chosen: IntArray, pairs: int) -> FloatArray:
    """(P,) additions of these choices."""
    taken = np.zeros(len(options.server), dtype=bool)
    taken[chosen[chosen >= 0]] = True
    entries = np.repeat(taken, np.diff(options.offsets))
    return np.bincount(options.pair[entries], weights=options.replicas[entries], minlength=pairs).astype(np.float64)


class _Leftovers:
    """What is left of the rows, handed out in part to those who cannot be served in full, one group after the other."""

    def __init__(
        self, problem: Problem, rest: Remainder, count: FloatArray, left: FloatArray, unserved: IntArray, *, multi: bool
    ) -> None:
        self.rest, self.count, self.left, self.multi = rest, count.copy(), left.copy(), multi
        server = problem.server_of_pair
        waits = np.isin(problem.group, unserved)
        density = _density(problem, rest, np.zeros(len(left) + 1))
        useful = np.flatnonzero(np.isfinite(density) & waits[server])
        useful = useful[np.lexsort((density[useful], server[useful]))]
        self.pairs: dict[int, list[int]] = {}
        for pair in useful.tolist():
            self.pairs.setdefault(int(server[pair]), []).append(pair)
        wanted = np.zeros(len(density), dtype=bool)
        wanted[useful] = True
        row, entry_pair, use, _ = rest.rows
        bound = wanted[entry_pair] & np.isfinite(left)[row] & (use > 0)
        self.uses: dict[int, list[tuple[int, float]]] = {}
        for at, pair, each in zip(row[bound].tolist(), entry_pair[bound].tolist(), use[bound].tolist(), strict=True):
            self.uses.setdefault(pair, []).append((at, each))
        self.members: dict[int, list[int]] = {}
        for one in np.flatnonzero((rest.missing > 0).any(axis=0) & waits).tolist():
            self.members.setdefault(int(problem.group[one]), []).append(one)

    def most(self, pair: int) -> float:
        """Additions of a pair for which there is room."""
        room = min((self.left[row] / use for row, use in self.uses.get(pair, ())), default=np.inf)
        return float(min(self.rest.most[pair], np.floor(room * (1 + ROUNDING)) + self.rest.held[pair]))

    def fill(self, server: int, goal: float) -> float:
        """The share of what a server misses that it gets, by taking what fits until that is `goal`."""
        missing = self.rest.missing[:, server]
        at = np.zeros(len(missing))
        pairs = self.pairs.get(server, [])
        if not self.multi and pairs:
            reach = [float((self.rest.share[:, pair] * self.most(pair))[missing > 0].min()) for pair in pairs]
            pairs = [pairs[int(np.argmax(reach))]]
        for pair in pairs:
            share = self.rest.share[:, pair]
            wanting = missing * goal - at
            needs = (wanting > ROUNDING) & (share > 0)
            if not needs.any():
                continue
            replicas = min(self.most(pair), float(np.ceil((wanting[needs] / share[needs]).max() - ROUNDING)))
            if replicas >= 1:
                self.count[pair] += replicas
                for row, use in self.uses.get(pair, ()):
                    self.left[row] -= use * max(0.0, replicas - self.rest.held[pair])
                at = at + replicas * share
        return float(np.min(at[missing > 0] / missing[missing > 0]))

    def hand_out(self, group: int) -> None:
        """The most that every server of a group can use."""
        servers = self.members.get(group, [])
        if len(servers) == 1:
            self.fill(servers[0], 1.0)
            return
        before = self.count.copy(), self.left.copy()
        goal = min((self.fill(server, 1.0) for server in servers), default=1.0)
        if goal < 1.0:
            self.count, self.left = before
            for server in servers if goal > 0 else ():
                self.fill(server, goal)


# ---- the proof


def _least_costs(problem: Problem, rest: Remainder, price: FloatArray, *, multi: bool) -> tuple[FloatArray, FloatArray]:
    """
    (S,) the least each server can cost at these prices, and (P,) the least if it uses a pair at all.

    Single: exact. Multi: the larger of the relaxation to fractions and of whole replicas against demand in coarse
    steps (capacities rounded up), for the unit of demand that asks for most.
    """
    server = problem.server_of_pair
    row, pair, coefficient, _ = rest.rows
    priced = np.flatnonzero(price[row] > 0)
    dear = np.bincount(pair[priced], weights=(coefficient * price[row])[priced], minlength=len(server))
    if not multi:
        grown = np.maximum(np.where(np.isfinite(rest.full), rest.full, 0.0) - rest.held, 0.0)
        able = (rest.full > 0) & (rest.full <= rest.most)
        value = np.where(able, problem.cost * np.where(able, rest.full, 0.0) + dear * grown, np.inf)
        least = np.full(problem.servers, np.inf)
        np.minimum.at(least, server, value)
        return np.where(np.isfinite(least), least, 0.0), value
    unit = np.where(rest.held > 0, problem.cost + np.minimum(dear, 0.0), problem.cost + dear)
    gift = np.bincount(server, weights=np.minimum(unit, 0.0) * rest.most, minlength=problem.servers)
    unit = np.maximum(unit, 0.0)
    least, forced = np.zeros(problem.servers), unit.copy()
    for share, missing in zip(rest.share, rest.missing, strict=True):
        asked = missing > 0
        if not asked.any():
            continue
        part = np.divide(share, missing[server], out=np.zeros(len(share)), where=asked[server])
        whole, one = _on_a_grid(problem, unit, np.where(rest.most > 0, np.minimum(part, 1.0), 0.0), asked)
        least = np.maximum(least, np.maximum(whole, _in_fractions(problem, unit, part, rest.most)))
        forced = np.maximum(forced, one)
    return least + gift, np.maximum(forced, least[server]) + gift[server]


def _in_fractions(problem: Problem, unit: FloatArray, part: FloatArray, most: FloatArray) -> FloatArray:
    """(S,) the least cost if replicas could be divided, each pair up to its most."""
    server = problem.server_of_pair
    pairs = np.flatnonzero((part > 0) & (most > 0))
    pairs = pairs[np.lexsort((unit[pairs] / part[pairs], server[pairs]))]
    reach = np.minimum(part[pairs] * most[pairs], 1.0)
    total = np.cumsum(reach)
    counts = np.bincount(server[pairs], minlength=problem.servers)
    first = np.cumsum(counts) - counts
    starts = np.repeat((total - reach)[first[counts > 0]], counts[counts > 0])
    before = total - reach - starts
    taken = np.clip(1.0 - before, 0.0, reach)
    return np.bincount(server[pairs], weights=unit[pairs] / part[pairs] * taken, minlength=problem.servers).astype(
        float
    )


def _on_a_grid(problem: Problem, unit: FloatArray, part: FloatArray, asked: BoolArray) -> tuple[FloatArray, FloatArray]:
    """
    (S,) the least cost of whole replicas, demand counted in steps, and (P,) if one of the pair is used.

    What a replica carries is rounded up to whole steps, so the result is a lower bound; steps are chosen such that the
    pair with the lowest cost for what it carries is exact, for it makes up most of every good mix.
    """
    server = problem.server_of_pair
    pairs = np.flatnonzero(part > 0)
    pairs = pairs[np.lexsort((unit[pairs] / part[pairs], server[pairs]))]
    counts = np.bincount(server[pairs], minlength=problem.servers)
    first = np.cumsum(counts) - counts
    least, forced = np.zeros(problem.servers), unit.copy()
    mine = np.flatnonzero(asked & (counts > 0) & (counts <= 4 * _PARTNERS))
    if not mine.size:
        return least, forced
    width = int(counts[mine].max())
    levels = int(np.clip(_GRID_WORK // (len(mine) * width), 96, _GRID_MOST))
    lead = part[pairs[first[mine]]]
    grain = np.maximum(np.floor(levels * lead), 1.0) / lead  # steps of the whole demand, the lead's a whole number
    goal = np.ceil(grain * (1 - ROUNDING)).astype(np.int64)
    cost, step = np.full((width, len(mine)), np.inf), np.ones((width, len(mine)), dtype=np.int64)
    for number in range(width):
        has = counts[mine] > number
        at = pairs[first[mine[has]] + number]
        cost[number, has] = unit[at]
        step[number, has] = np.ceil(part[at] * grain[has] * (1 - ROUNDING)).astype(np.int64)
    column = np.arange(len(mine))
    table = np.zeros((int(goal.max()) + 1) * len(mine))
    offset = column - step * len(mine)
    for at_level in range(1, int(goal.max()) + 1):
        start = at_level * len(mine)
        reached = np.maximum(offset + start, column)  # the rows of the table are levels; below the first is done
        table[start : start + len(mine)] = (cost + table[reached]).min(axis=0)
    least[mine] = table[goal * len(mine) + column]
    for number in range(width):
        has = counts[mine] > number
        at = pairs[first[mine[has]] + number]
        reached = np.maximum(offset[number, has] + goal[has] * len(mine), column[has])
        forced[at] = cost[number, has] + table[reached]
    return least, forced


def _bound(
    problem: Problem, rest: Remainder, price: FloatArray, served: BoolArray, room: FloatArray, *, multi: bool
) -> tuple[float, FloatArray]:
    """The least cost of additions that serve these servers within this room; and (P,) by how much a pair exceeds it."""
    least, forced = _least_costs(problem, rest, price, multi=multi)
    finite = np.isfinite(room)
    value = float(least[served].sum() - price[:-1][finite] @ room[finite])
    return value, forced - least[problem.server_of_pair]


def price_ascent(
    problem: Problem, *, multi: bool = True, steps: int = 60, incumbent: FloatArray | None = None
) -> Solution:
    """
    A plan near the least cost, with a lower bound that proves how near.

    Lower limits of rows and `together` are not looked at: give such pairs equal `low` and `high`, or use `solve_exact`.

    Args:
        problem: see `Problem`.
        multi: several pairs may carry one server; else exactly one.
        steps: of the prices; counted, not timed.
        incumbent: (P,) an answer that is known; what is returned is never worse.

    Returns:
        The plan. The bound is for plans that serve the same groups and leave the others what this plan gives them.

    Cost: 10,000 servers of 6 pairs take about 90 ms and 18 MiB in the single form, 1.5 s and 130 MiB in the multi form
    (options are pairs of pairs there, and the bound counts whole replicas).
    """
    return _ascent(problem, multi=multi, steps=steps, incumbent=incumbent)[0]


def _ascent(problem: Problem, *, multi: bool, steps: int, incumbent: FloatArray | None) -> tuple[Solution, FloatArray]:
    """The plan, and (P,) how much dearer the bound gets if a pair is used at all."""
    rest = remainder(problem)
    room = rest.rows.upper
    options = _single_options(problem, rest)
    active: BoolArray = np.logical_or.reduce(rest.missing > 0, axis=0)
    priority = problem.group_priority[problem.group]
    levels, level = np.unique(priority, return_inverse=True)
    weight = _UNSERVED * 4.0 ** np.minimum(len(levels) - 1 - level, 20)
    price = _ascend(options, weight, room, steps, None)
    if multi:
        options = _mixed_options(problem, rest, price, incumbent)
        price = _ascend(options, weight, room, steps, price)

    whole, excess = _bound(problem, rest, price, active, room, multi=multi)
    enough = float(problem.cost @ problem.low) + whole
    best: _Plan | None = None
    for factor, by_regret in _ATTEMPTS:
        plan = _repaired(problem, rest, options, price * factor, level, by_regret=by_regret, multi=multi)
        if best is None or preferred(problem, plan.replicas, best.replicas):
            best = plan
        complete = bool(best.served[active].all())
        if complete and float(problem.cost @ best.replicas) <= enough * (1 + _GOOD_ENOUGH):
            break
    assert best is not None  # noqa: S101 - there is at least one attempt
    if incumbent is not None and preferred(problem, incumbent, best.replicas):
        done = (served_share(problem, incumbent) >= 1.0)[problem.group] & active
        extra = np.where(done[problem.server_of_pair], 0.0, incumbent - problem.low)
        best = _Plan(incumbent.astype(np.float64), done, room - _row_use(rest, extra))
    if not best.served[active].all():
        best, price = _settled(problem, options, best, steps)
        whole, excess = _bound(problem, rest, price, best.served, best.left, multi=multi)
    fixed = float(problem.cost @ np.where(best.served[problem.server_of_pair], problem.low, best.replicas))
    solution = Solution.of(problem, best.replicas, "feasible", fixed + whole)
    if solution.gap <= ROUNDING and bool(best.served[active].all()):
        solution = replace(solution, status="optimal")
    return solution, excess


class _Plan(NamedTuple):
    """(P,) replicas, (S,) servers they carry in full, and (L,) room for those once the others have their part."""

    replicas: FloatArray
    served: BoolArray
    left: FloatArray


def _settled(problem: Problem, options: _Options, plan: _Plan, steps: int) -> tuple[_Plan, FloatArray]:
    """The plan made cheaper with the same servers carried, and prices for exactly that; others keep their part."""
    mine = plan.served[options.server]
    options = options.take(mine)
    price = _ascend(options, np.full(problem.servers, np.inf), plan.left, steps, None)
    chosen, left = _admit(options, options.reduced(price), np.zeros(problem.servers), plan.left, by_regret=True)
    if np.any((chosen < 0) & plan.served):
        return plan, price
    chosen, _ = _cheapen(options, chosen, left)
    others = np.where(plan.served[problem.server_of_pair], problem.low, plan.replicas)
    replicas = others + _counts(options, chosen, len(problem.cost))
    better = plan._replace(replicas=replicas) if preferred(problem, replicas, plan.replicas) else plan
    return better, price


def _repaired(
    problem: Problem,
    rest: Remainder,
    options: _Options,
    price: FloatArray,
    level: IntArray,
    *,
    by_regret: bool,
    multi: bool,
) -> _Plan:
    """A plan within the rows, from choices at these prices."""
    room = rest.rows.upper
    chosen, left = _admit(options, options.reduced(price), level.astype(np.float64), room, by_regret=by_regret)
    whole = _without_torn_groups(problem, rest, chosen)
    if np.any(whole != chosen):
        left = room - options.usage(whole[whole >= 0], len(room))
    whole, left = _cheapen(options, whole, left)
    count = _counts(options, whole, len(problem.cost))
    served = whole >= 0
    unserved = np.unique(problem.group[(rest.missing > 0).any(axis=0) & ~served])
    if not unserved.size:
        return _Plan(problem.low + count, served, room)
    unserved = unserved[np.argsort(problem.group_priority[unserved], kind="stable")]
    leftovers = _Leftovers(problem, rest, count, left, unserved, multi=multi)
    for group in unserved.tolist():
        leftovers.hand_out(group)
    filled = leftovers.count
    return _Plan(problem.low + filled, served, room - _row_use(rest, filled - count))


def _row_use(rest: Remainder, additions: FloatArray) -> FloatArray:
    """(L,) what additions use of the rows."""
    row, pair, coefficient, room = rest.rows
    use = coefficient * np.maximum(additions - rest.held, 0.0)[pair]
    return np.bincount(row, weights=use, minlength=len(room)).astype(np.float64)


def _pinned(problem: Problem, incumbent: FloatArray | None) -> Problem:
    """The problem with partners, and pairs of rows with a lower limit, fixed at the incumbent, else where they are."""
    keep = problem.current if incumbent is None else incumbent
    keep = np.clip(np.where(np.isnan(keep), problem.low, keep), problem.low, problem.high)
    bound = np.zeros(len(keep), dtype=bool)
    bound[problem.rows.variant_of_entry[np.isfinite(problem.lower)[problem.rows.row_of_entry]]] = True
    for members in problem.together:
        bound[members] = True
    return replace(
        problem,
        low=np.where(bound, keep, problem.low),
        high=np.where(bound, keep, problem.high),
        lower=np.full(len(problem.lower), -np.inf),
        together=(),
    )


def solve(
    problem: Problem,
    *,
    multi: bool = True,
    exact_up_to: int = 1_000,
    node_limit: int = 2_000,
    steps: int = 60,
    gap: float = 1e-3,
    incumbent: FloatArray | None = None,
) -> Solution:
    """
    The best answer that the counted budgets allow: exact for small problems, by prices for large ones.

    A large problem whose gap is not closed by prices is cut down to the pairs that could still be part of a cheaper
    plan (the bound with such a pair is below the plan's cost); if few enough are left, the exact solver goes on there.

    Args:
        problem: see `Problem`. Beyond `exact_up_to`, partners and pairs of rows with a lower limit stay at the
            incumbent, else where they are.
        multi: several pairs may carry one server; else exactly one.
        exact_up_to: pairs that may move up to which the exact solver is asked at once.
        node_limit: of the exact solver.
        steps: of the prices.
        gap: relative distance from the bound that is good enough for a large problem.
        incumbent: (P,) an answer that is known; what is returned is never worse.
    """
    plain = not problem.together and not np.any(np.isfinite(problem.lower))
    moving = int(np.count_nonzero(problem.high > problem.low))
    small = moving <= exact_up_to
    if small and not (plain and moving > _SMALL):
        return solve_exact(problem, multi=multi, node_limit=node_limit, incumbent=incumbent)
    if not plain:
        problem = _pinned(problem, incumbent)
    first, excess = _ascent(problem, multi=multi, steps=steps, incumbent=incumbent)
    whole = bool(first.served.all())
    if first.status == "optimal" or (not small and (first.gap <= gap or not whole)):
        return first
    if not whole:
        return solve_exact(problem, multi=multi, node_limit=node_limit, incumbent=first.replicas)
    saving = first.objective - first.bound
    core = (excess <= saving + ROUNDING * first.objective) & (problem.high > problem.low)
    if not small and int(core.sum()) > _CORE:
        return first
    smaller = replace(problem, high=np.where(core, problem.high, problem.low))
    second = solve_exact(
        smaller,
        multi=multi,
        node_limit=node_limit,
        relative_gap=0.0 if small else gap / 2,
        incumbent=first.replicas,
    )
    # a cheaper plan uses only pairs of the core; any other costs at least what the first one does
    bound = second.bound if second.status == "optimal" else max(first.bound, second.bound)
    return Solution.of(problem, second.replicas, second.status, bound, second.nodes)
