"""
Assignments of thousands of servers by prices on what they share: a plan close to the best, and the proof of how close.

Every shared row gets a price; at given prices each server takes its cheapest option on its own, and the sum of those
choices, less what the rows are worth, is a lower bound of the cost of every plan (Lagrangian relaxation). Prices rise
where a row is overfull and fall where it is not, until the bound no longer gains. Then servers are admitted in the
order of importance and of what they would lose, each to its cheapest option that still fits, and what room is left
is used to cheapen the plan. All servers move at once; loops run over steps and rounds.

Options are single pairs, and in the multi form the cheapest mixes at the prices so far (`cheapest_covers`, whose least
costs are the bound as well: exact for whole replicas, where the relaxation to fractions is 1 to 2 % too low). Of
thousands of servers a sample finds the prices, and all of them correct it.

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
    as_it_is,
    preferred,
    remainder,
    served_share,
    solve_exact,
)
from wva_core.numerics.covering import cheapest_covers
from wva_core.numerics.starting_point import per_scope

__all__ = ["price_ascent", "solve"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

_UNSERVED = 10.0
# A server is left out where prices make it this much dearer than its cheapest option; times 4 for each level of
# priority above the lowest. The order of admission decides, this only keeps prices finite where not all can be served.

_PLANS, _MARGIN = 8, 0.3
# Mixes of each server at most, and how much dearer than necessary (see `cheapest_covers`): prices move on after mixes
# are chosen, and not everybody gets the first one.

_SAMPLE, _SAMPLE_OF_ROW = 1_000, 150
# Servers among which prices are looked for first, and for each row at least: more than twice as many are not looked at
# before prices are about right.

_WHOLLY_SETTLED, _SETTLED = 1e-6, 1e-4
# Prices are good enough when they aim no higher than this part of the bound; the latter if they start from those of a
# sample.

_GENERATIONS = 2
# Mixes are chosen at the prices of those before: more gain little.

_ROUNDS = 200
# Rounds of admission; each settles at least one server, in practice ten settle all.

_ATTEMPTS = ((1.0, True), (1.05, True), (1.0, False), (1.2, True))
# Factors on the prices, and whether servers with the most to lose are admitted first or those that use least; each
# attempt is better on some problems, and none is made once a plan is within this of its bound:
_GOOD_ENOUGH = 1e-3

_SMALL = 64
# Pairs up to which the exact solver needs no start.

_CORE = 1_500
# Pairs up to which what price ascent could not exclude is handed to the exact solver.


class _Choices(NamedTuple):
    """
    What complete ways to carry one server each cost and use, sorted by server.

    (O,) server and cost; (W, O) row and use of each, the row past the last standing for none.
    """

    server: IntArray
    cost: FloatArray
    row: IntArray
    use: FloatArray

    def take(self, kept: BoolArray) -> _Choices:
        """Those for which `kept` holds."""
        if kept.all():
            return self
        return _Choices(self.server[kept], self.cost[kept], self.row[:, kept], self.use[:, kept])

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


class _Options(NamedTuple):
    """The choices and what they are made of: (O + 1,) offsets into entries of (pair, replicas)."""

    choices: _Choices
    offsets: IntArray
    pair: IntArray
    replicas: FloatArray

    def take(self, kept: BoolArray) -> _Options:
        """The options for which `kept` holds."""
        sizes = np.diff(self.offsets)
        entries = np.repeat(kept, sizes)
        return _Options(
            self.choices.take(kept),
            np.concatenate([[0], np.cumsum(sizes[kept])]),
            self.pair[entries],
            self.replicas[entries],
        )


class _Best(NamedTuple):
    """Servers that have an option, the cheapest of each, and by how much the second cheapest is dearer."""

    server: IntArray
    option: IntArray
    value: FloatArray
    regret: FloatArray


class _Runs(NamedTuple):
    """Where the choices of each server begin, and the number of that run for each choice."""

    starts: IntArray
    number: IntArray

    @classmethod
    def of(cls, server: IntArray) -> _Runs:
        """Of servers that are sorted."""
        first = np.diff(server, prepend=-1) != 0
        return cls(np.flatnonzero(first), np.cumsum(first) - 1)


def _best(options: _Choices, value: FloatArray, runs: _Runs | None = None, *, with_regret: bool = False) -> _Best:
    """The first cheapest option of each server among those with a finite value."""
    starts, number = _Runs.of(options.server) if runs is None else runs
    if not starts.size:
        nothing = np.empty(0, dtype=np.int64)
        return _Best(nothing, nothing, np.empty(0), np.empty(0))
    least = np.minimum.reduceat(value, starts)
    at = np.flatnonzero(value == least[number])[::-1]
    chosen = np.zeros(len(starts), dtype=np.int64)
    chosen[number[at]] = at
    regret = np.zeros(len(starts))
    if with_regret:
        others = value.copy()
        others[chosen] = np.inf
        regret = np.minimum.reduceat(others, starts) - np.where(np.isfinite(least), least, 0.0)
    good = np.isfinite(least)
    if good.all():
        return _Best(options.server[starts], chosen, least, regret)
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


def _single_options(problem: Problem, rest: Remainder, among: BoolArray) -> _Options:
    """Every pair alone, of the servers `among` all."""
    ways = _Ways([], [], [], [])
    _add_alone(ways, problem, rest)
    return _made(ways, problem, rest, among)


def _mixed_options(
    problem: Problem, rest: Remainder, price: FloatArray, incumbent: FloatArray | None, among: BoolArray
) -> tuple[_Options, FloatArray]:
    """
    Every pair alone, the mixes of lowest cost at these prices, and the incumbent, of the servers `among` all.

    Also (S,) what each server costs at least at these prices.
    """
    ways = _Ways([], [], [], [])
    _add_alone(ways, problem, rest)
    wanted = (rest.missing > 0) & among
    unit, gift = _unit_costs(problem, rest, price)
    parts = _parts(problem, rest)
    covers = cheapest_covers(problem.server_of_pair, unit, parts, wanted, rest.most, plans=_PLANS, margin=_MARGIN)
    mixed = (covers.replicas > 0).sum(axis=1) > 1  # of one pair there is one already
    count = covers.replicas[mixed]
    entries = count > 0
    ways.server.append(covers.server[mixed])
    ways.pairs.append(covers.pair[mixed][entries])
    ways.counts.append(count[entries])
    ways.sizes.append(entries.sum(axis=1))
    if incumbent is not None:
        _add_counts(ways, problem, rest, np.clip(np.nan_to_num(incumbent - problem.low), 0.0, rest.most))
    return _made(ways, problem, rest, among), _at_least(problem, rest, unit, parts, covers.least) + gift


def _made(ways: _Ways, problem: Problem, rest: Remainder, among: BoolArray) -> _Options:
    """The gathered options, sorted by server, without those that would not fit even alone."""
    owner = np.concatenate(ways.server)
    order = np.argsort(owner, kind="stable")
    order = order[among[owner[order]]]
    sizes = np.concatenate(ways.sizes)
    first = np.cumsum(sizes) - sizes
    sorted_sizes = sizes[order]
    offsets = np.concatenate([[0], np.cumsum(sorted_sizes)])
    entry = np.repeat(first[order] - offsets[:-1], sorted_sizes) + np.arange(int(offsets[-1]))
    pair, count = np.concatenate(ways.pairs)[entry], np.concatenate(ways.counts)[entry]
    option = np.repeat(np.arange(len(order)), sorted_sizes)
    cost = np.bincount(option, weights=problem.cost[pair] * count, minlength=len(order)).astype(np.float64)
    row, use = _use_of_rows(rest, option, pair, count, len(order))
    choices = _Choices(owner[order], cost, row, use)
    fits = choices.fits(rest.rows.upper)
    made = _Options(choices, offsets, pair, count)
    return made if fits.all() else made.take(fits)


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


def _priced(rest: Remainder, price: FloatArray) -> FloatArray:
    """(P,) what one replica uses of the rows at these prices."""
    row, pair, coefficient, _ = rest.rows
    priced = np.flatnonzero(price[row] > 0)
    weights = coefficient[priced] * price[row[priced]]
    return np.bincount(pair[priced], weights=weights, minlength=len(rest.most)).astype(np.float64)


def _density(problem: Problem, rest: Remainder) -> FloatArray:
    """(P,) cost for all that is missing if it could be divided; infinity for pairs that carry nothing."""
    part = np.where(rest.missing[:, problem.server_of_pair] > 0, rest.share, 0.0).max(axis=0, initial=0.0)
    density: FloatArray = np.full(len(part), np.inf)
    np.divide(problem.cost, part, out=density, where=(part > 0) & (rest.most > 0))
    return density


def _add_alone(ways: _Ways, problem: Problem, rest: Remainder) -> None:
    alone = np.flatnonzero((rest.full > 0) & (rest.full <= rest.most))
    ways.add(problem.server_of_pair[alone], (alone, rest.full[alone]))


def _add_counts(ways: _Ways, problem: Problem, rest: Remainder, count: FloatArray) -> None:
    """One option for each server that these counts carry in full."""
    server = problem.server_of_pair
    got = per_scope(rest.share * count, server, problem.servers)
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
    options: _Choices,
    weight: FloatArray,
    room: FloatArray,
    steps: int,
    start: FloatArray | None,
    settled: float,
) -> FloatArray:
    """
    (L + 1,) prices at which the bound is about as high as it gets, the last 0.

    Subgradients in units of each row's room, the previous direction weighing half as much; the step aims at a target
    above the best bound, which comes nearer when it is missed, down to the part `settled` of it. A server for which
    prices make the least cost more than `weight` (S,) times as dear is left out.
    """
    rows = len(room)
    runs = _Runs.of(options.server)
    cheapest = _best(options, options.cost, runs)
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
        picked = _best(options, options.reduced(price), runs)
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
        if length == 0.0 or level <= settled * abs(best_bound):
            break
        mu = np.maximum(0.0, mu + (best_bound + level - bound) / length * direction)
    return np.append(best_mu / scale, 0.0)


# ---- repair


def _accept(options: _Choices, chosen: IntArray, left: FloatArray) -> BoolArray:
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
    options: _Choices, value: FloatArray, rank: FloatArray, room: FloatArray, *, by_regret: bool
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


def _cheapen(options: _Choices, chosen: IntArray, left: FloatArray) -> tuple[IntArray, FloatArray]:
    """Servers moved to cheaper options as far as room is left, the largest saving first."""
    rows = len(left)
    chosen = chosen.copy()
    dense = len(chosen) * (rows + 1) <= 4_000_000
    now_paid = np.full(len(chosen), -np.inf)
    now_paid[chosen >= 0] = options.cost[chosen[chosen >= 0]]
    cheaper = options.cost < now_paid[options.server]  # others never become so
    numbers = np.flatnonzero(cheaper)
    kept = options.take(cheaper)
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
    torn = np.zeros(problem.groups, dtype=bool)
    torn[problem.group[lacks]] = True
    return np.where(torn[problem.group], -1, chosen)


def _counts(options: _Options, chosen: IntArray, pairs: int) -> FloatArray:
    """(P,) additions of these choices."""
    taken = np.zeros(len(options.offsets) - 1, dtype=bool)
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
        density = _density(problem, rest)
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


def _unit_costs(problem: Problem, rest: Remainder, price: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(P,) the least an added replica costs at these prices, not below 0; and (S,) what those below 0 give at most."""
    dear = _priced(rest, price)
    unit = problem.cost + np.where(rest.held > 0, np.minimum(dear, 0.0), dear)
    gift = np.bincount(
        problem.server_of_pair, weights=np.minimum(unit, 0.0) * rest.most, minlength=problem.servers
    ).astype(np.float64)
    return np.maximum(unit, 0.0), gift


def _parts(problem: Problem, rest: Remainder) -> FloatArray:
    """(A + 1, P) part of what is missing that one replica carries."""
    missing = rest.missing[:, problem.server_of_pair]
    return np.divide(rest.share, missing, out=np.zeros(rest.share.shape), where=missing > 0)


def _least_costs(
    problem: Problem, rest: Remainder, price: FloatArray, *, multi: bool, with_pairs: bool = False
) -> tuple[FloatArray, FloatArray]:
    """
    (S,) the least each server can cost at these prices, and (P,) the least if it uses a pair at all.

    Exact, except where a mix of many pairs of about equal density is cut short, and where replicas that use no row yet
    count as if none of them ever did.
    """
    server = problem.server_of_pair
    if not multi:
        grown = np.maximum(np.where(np.isfinite(rest.full), rest.full, 0.0) - rest.held, 0.0)
        able = (rest.full > 0) & (rest.full <= rest.most)
        value = np.where(able, problem.cost * np.where(able, rest.full, 0.0) + _priced(rest, price) * grown, np.inf)
        least = np.full(problem.servers, np.inf)
        np.minimum.at(least, server, value)
        return np.where(np.isfinite(least), least, 0.0), value
    unit, gift = _unit_costs(problem, rest, price)
    parts = _parts(problem, rest)
    covers = cheapest_covers(server, unit, parts, rest.missing > 0, rest.most, with_pairs=with_pairs)
    least = _at_least(problem, rest, unit, parts, covers.least)
    return least + gift, np.maximum(covers.with_pair, least[server]) + gift[server]


def _at_least(problem: Problem, rest: Remainder, unit: FloatArray, parts: FloatArray, least: FloatArray) -> FloatArray:
    """(S,) the larger of what covers cost at least and the relaxation to fractions."""
    for part in parts:
        least = np.maximum(least, _in_fractions(problem, unit, part, rest.most))
    return least


def _in_fractions(problem: Problem, unit: FloatArray, part: FloatArray, most: FloatArray) -> FloatArray:
    """
    (S,) the least cost if replicas could be divided, each pair up to its most.

    Only where that most matters; elsewhere it is no more than `cheapest_covers` says.
    """
    server = problem.server_of_pair
    limited = np.zeros(problem.servers, dtype=bool)
    limited[server[(part > 0) & (most > 0) & (part * most < 1.0)]] = True
    pairs = np.flatnonzero((part > 0) & (most > 0) & limited[server])
    pairs = pairs[np.lexsort((unit[pairs] / part[pairs], server[pairs]))]
    reach = np.minimum(part[pairs] * most[pairs], 1.0)
    total = np.cumsum(reach)
    counts = np.bincount(server[pairs], minlength=problem.servers)
    first = np.cumsum(counts) - counts
    starts = np.repeat((total - reach)[first[counts > 0]], counts[counts > 0])
    before = total - reach - starts
    taken = np.clip(1.0 - before, 0.0, reach)
    cost = np.bincount(server[pairs], weights=unit[pairs] / part[pairs] * taken, minlength=problem.servers)
    return cost.astype(np.float64)


def _bound(
    problem: Problem, rest: Remainder, price: FloatArray, served: BoolArray, room: FloatArray, *, multi: bool
) -> float:
    """The least cost of additions that serve these servers within this room."""
    return _value(_least_costs(problem, rest, price, multi=multi)[0], price, served, room)


def _excess(problem: Problem, price: FloatArray, *, multi: bool) -> FloatArray:
    """(P,) by how much the bound at these prices rises if a pair is used at all."""
    least, forced = _least_costs(problem, remainder(problem), price, multi=multi, with_pairs=True)
    return forced - least[problem.server_of_pair]


def _value(least: FloatArray, price: FloatArray, served: BoolArray, room: FloatArray) -> float:
    """What these servers cost at least, less what the rows are worth at these prices."""
    finite = np.isfinite(room)
    return float(least[served].sum() - price[:-1][finite] @ room[finite])


def _sample(problem: Problem, rest: Remainder) -> BoolArray | None:
    """(S,) servers whose prices are about those of all; None where all are few, or rows have few servers each."""
    rows = int(np.isfinite(rest.rows.upper).sum())
    wanted = max(_SAMPLE, _SAMPLE_OF_ROW * rows)
    if problem.servers < 2 * wanted:
        return None
    # multiples of a large odd number, so that no order of the servers matters
    return (np.arange(problem.servers) * 2_654_435_761) % 2**32 < wanted / problem.servers * 2**32


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

    Cost: 10,000 servers of 6 pairs take about 50 ms and 18 MiB in the single form, 0.3 s and 56 MiB in the multi form
    (half of it for the mixes); five times that where a quarter cannot be served.
    """
    return _ascent(problem, multi=multi, steps=steps, incumbent=incumbent)[0]


class _Search(NamedTuple):
    """A problem, what of it is left to decide, and how it is gone about; (S,) active servers, level and weight."""

    problem: Problem
    rest: Remainder
    active: BoolArray
    level: IntArray
    weight: FloatArray
    multi: bool
    steps: int
    incumbent: FloatArray | None

    @classmethod
    def of(cls, problem: Problem, *, multi: bool, steps: int, incumbent: FloatArray | None) -> _Search:
        """The search for a plan of this problem."""
        rest = remainder(problem)
        active: BoolArray = np.logical_or.reduce(rest.missing > 0, axis=0)
        levels, level = np.unique(problem.group_priority[problem.group], return_inverse=True)
        weight = _UNSERVED * 4.0 ** np.minimum(len(levels) - 1 - level, 20)
        return cls(problem, rest, active, level, weight, multi, steps, incumbent)

    def bound(self, price: FloatArray) -> float:
        """The least cost of additions that serve everybody."""
        return _bound(self.problem, self.rest, price, self.active, self.rest.rows.upper, multi=self.multi)

    def priced(self, among: BoolArray, start: FloatArray | None) -> tuple[_Options, FloatArray, float]:
        """Options of these servers, prices, and a bound; `start` are prices of a sample of them."""
        problem, rest = self.problem, self.rest
        room = rest.rows.upper * (among.mean() if among.size else 1.0)
        settled = _WHOLLY_SETTLED if start is None else _SETTLED
        if self.multi and start is not None:
            price = start
        else:
            options = _single_options(problem, rest, among)
            price = _ascend(options.choices, self.weight, room, self.steps, start, settled)
        if not self.multi:
            return options, price, self.bound(price) if among.all() else -np.inf
        bound = -np.inf
        for _ in range(_GENERATIONS if start is None else 1):
            options, least = _mixed_options(problem, rest, price, self.incumbent, among)
            bound = max(bound, _value(least, price, self.active, rest.rows.upper))
            price = _ascend(options.choices, self.weight, room, self.steps, price, settled)
        return options, price, bound

    def plan(self, options: _Options, price: FloatArray, bound: float) -> tuple[_Plan, float]:
        """The best of some repairs of the choices at these prices, and a bound that may be better."""
        problem = self.problem
        fixed = float(problem.cost @ problem.low)
        first = not self.multi  # the bound is that of these prices already
        best: _Plan | None = None
        for factor, by_regret in _ATTEMPTS:
            plan = _repaired(
                problem, self.rest, options, price * factor, self.level, by_regret=by_regret, multi=self.multi
            )
            if best is None or preferred(problem, plan.replicas, best.replicas):
                best = plan
            if not best.served[self.active].all():
                continue
            cost = float(problem.cost @ best.replicas)
            if not first and cost > (fixed + bound) * (1 + _GOOD_ENOUGH):
                bound, first = max(bound, self.bound(price)), True
            if cost <= (fixed + bound) * (1 + _GOOD_ENOUGH):
                break
        assert best is not None  # noqa: S101 - there is at least one attempt
        known = self.incumbent
        if known is not None and preferred(problem, known, best.replicas):
            done = (served_share(problem, known) >= 1.0)[problem.group] & self.active
            extra = np.where(done[problem.server_of_pair], 0.0, known - problem.low)
            left = self.rest.rows.upper - self.rest.rows.usage(extra - self.rest.held)
            best = _Plan(known.astype(np.float64), done, left)
        return best, bound


def _ascent(problem: Problem, *, multi: bool, steps: int, incumbent: FloatArray | None) -> tuple[Solution, FloatArray]:
    """The plan, and (L + 1,) the prices that prove it."""
    search = _Search.of(problem, multi=multi, steps=steps, incumbent=incumbent)
    sample, start = _sample(problem, search.rest), None
    if sample is not None:
        _, start, _ = search.priced(sample, None)
    options, price, bound = search.priced(np.ones(problem.servers, dtype=bool), start)
    best, bound = search.plan(options, price, bound)
    whole = bool(best.served[search.active].all())
    if not whole:
        best, price = _settled(problem, options, best, steps)
        bound = _bound(problem, search.rest, price, best.served, best.left, multi=multi)
    fixed = float(problem.cost @ np.where(best.served[problem.server_of_pair], problem.low, best.replicas))
    solution = Solution.of(problem, best.replicas, "feasible", fixed + bound)
    if solution.gap <= ROUNDING and whole:
        solution = replace(solution, status="optimal")
    return solution, price


class _Plan(NamedTuple):
    """(P,) replicas, (S,) servers they carry in full, and (L,) room for those once the others have their part."""

    replicas: FloatArray
    served: BoolArray
    left: FloatArray


def _settled(problem: Problem, options: _Options, plan: _Plan, steps: int) -> tuple[_Plan, FloatArray]:
    """The plan made cheaper with the same servers carried, and prices for exactly that; others keep their part."""
    options = options.take(plan.served[options.choices.server])
    choices = options.choices
    price = _ascend(choices, np.full(problem.servers, np.inf), plan.left, steps, None, _WHOLLY_SETTLED)
    chosen, left = _admit(choices, choices.reduced(price), np.zeros(problem.servers), plan.left, by_regret=True)
    if np.any((chosen < 0) & plan.served):
        return plan, price
    chosen, _ = _cheapen(choices, chosen, left)
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
    choices = options.choices
    chosen, left = _admit(choices, choices.reduced(price), level.astype(np.float64), room, by_regret=by_regret)
    whole = _without_torn_groups(problem, rest, chosen)
    if np.any(whole != chosen):
        left = room - choices.usage(whole[whole >= 0], len(room))
    whole, left = _cheapen(choices, whole, left)
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
    return _Plan(problem.low + filled, served, room - rest.rows.usage(filled - count - rest.held))


def _pinned(problem: Problem, incumbent: FloatArray | None) -> Problem:
    """The problem with partners, and pairs of rows with a lower limit, fixed at the incumbent, else where they are."""
    keep = as_it_is(problem, incumbent)
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
    first, price = _ascent(problem, multi=multi, steps=steps, incumbent=incumbent)
    whole = bool(first.served.all())
    if first.status == "optimal" or (not small and (first.gap <= gap or not whole)):
        return first
    if not whole:
        return solve_exact(problem, multi=multi, node_limit=node_limit, incumbent=first.replicas)
    saving = first.objective - first.bound
    excess = _excess(problem, price, multi=multi)
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
    bound = second.bound if second.status == "optimal" else float(np.fmax(first.bound, second.bound))
    return Solution.of(problem, second.replicas, second.status, bound, second.nodes)
