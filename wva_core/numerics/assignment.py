"""
Which replicas serve which server at the least cost, within limits that they share: the problem, and its exact answer.

A *server* is a demand that some replicas have to carry (one role of one model); a *pair* is one way to carry it (the
server on one accelerator). Servers of one *group* are served together or not at all (the roles of a disaggregated
model). Answers are compared lexicographically:

1. groups served, by priority (1 is the most important);
2. the share of their demand that groups get that cannot be served in full, by priority;
3. cost;
4. replicas that change.

Two forms: *multi* lets several pairs carry one server (integers y >= 0 with sum(rate * y) >= demand), *single* exactly
one (binaries x, with n = ceil(demand / rate) replicas of it). Both are exact through `scipy.optimize.milp` under a
counted node limit, so that the same problem gives the same answer; parts of a problem that share no limit are solved on
their own. There is always an answer: who cannot be served gets what serves most, down to nothing.

Shapes: P pairs, S servers, G groups, A demands per server (one for each unit in which demand is counted), L shared rows
with N entries. Replicas are whole numbers held as float64; NaN is not known, infinity no limit.

Source: the two formulations are those of the ancestor of this project ("Inferno"); the lexicographic order, partial
service and the groups are own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wva_core.errors import ParameterError
from wva_core.numerics.starting_point import per_scope
from wva_core.numerics.step_moves import NO_ROWS, SharedRows

__all__ = [
    "ROUNDING",
    "Problem",
    "Remainder",
    "Solution",
    "as_it_is",
    "keeps_limits",
    "preferred",
    "remainder",
    "served_share",
    "solve_exact",
    "standing",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

ROUNDING = 1e-9
"""Relative; sums of rates and prices may miss a demand or a budget by an ulp."""

_UNBOUNDED = 1e6
# Additions of a pair that nothing else limits; only a lower limit of a row can ask for them.

_FEASIBILITY = 100.0
# HiGHS keeps rows to 1e-6; rows are scaled to this right-hand side, so that they are kept to 1e-8 of it. With 1e4 its
# presolve calls problems infeasible that are not.


_STAGE_SLACK = 1e-5
# What a later stage may give back of an earlier one; with less, the solver's own rounding makes stages infeasible, or
# has HiGHS repair its solutions (and print a line of its own about it).


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """
    Pairs, servers and limits as arrays; `Problem.of` fills in what is left out.

    Attributes:
        server_of_pair: (P,) server a pair carries.
        cost: (P,) of one replica, not negative.
        rate: (A, P) demand one replica carries; not positive or NaN carries nothing.
        demand: (A, S) what has to be carried; not positive or NaN asks for nothing.
        min_replicas: (S,) the fewest replicas with which a server counts as served.
        group: (S,) group of each server.
        priority: (S,) 1 is the most important; that of a group is the smallest of its servers.
        low, high: (P,) replicas of each pair. `low` is given even beyond a row.
        current: (P,) replicas there are, for counting changes; NaN counts none.
        held: (P,) replicas that use shared rows even if an answer gives fewer: what is not released yet.
        rows: `sum(coefficient * max(y, held)) <= upper`; one that is exceeded already only lets nothing grow. NaN lets
            nothing grow either.
        lower: (L,) `sum(coefficient * y) >= lower`.
        together: pairs that are all zero or all at least one.
    """

    server_of_pair: IntArray
    cost: FloatArray
    rate: FloatArray
    demand: FloatArray
    min_replicas: FloatArray
    group: IntArray
    priority: FloatArray
    low: FloatArray
    high: FloatArray
    current: FloatArray
    held: FloatArray
    rows: SharedRows
    lower: FloatArray
    together: tuple[IntArray, ...] = ()

    @classmethod
    def of(
        cls,
        server_of_pair: ArrayLike,
        cost: ArrayLike,
        rate: ArrayLike,
        demand: ArrayLike,
        *,
        min_replicas: ArrayLike = 0.0,
        group: ArrayLike | None = None,
        priority: ArrayLike = 1.0,
        low: ArrayLike = 0.0,
        high: ArrayLike = np.inf,
        current: ArrayLike = np.nan,
        held: ArrayLike = 0.0,
        units: ArrayLike = 1.0,
        type_of_pair: ArrayLike | None = None,
        capacity: ArrayLike | None = None,
        rows: SharedRows | None = None,
        lower: ArrayLike = -np.inf,
        together: Sequence[ArrayLike] = (),
    ) -> Problem:
        """
        A checked problem; single numbers stand for every pair or server.

        Args:
            server_of_pair: (P,), and the rest as in the attributes; `rate` and `demand` may be (P,) and (S,).
            units: (P,) accelerators of one replica.
            type_of_pair: (P,) accelerator type of each pair, if `capacity` is given.
            capacity: (T,) accelerators of each type; becomes the first T rows.

        Raises:
            ParameterError: shapes do not fit, or an index, a cost or a limit is out of range.
        """
        server = np.asarray(server_of_pair, dtype=np.int64)
        wanted = np.atleast_2d(np.asarray(demand, dtype=np.float64))
        rates = np.atleast_2d(np.asarray(rate, dtype=np.float64))
        pairs, servers = len(server), wanted.shape[1]
        if rates.size == 1:
            rates = np.broadcast_to(rates, (len(wanted), pairs))
        if rates.shape != (len(wanted), pairs):
            raise ParameterError(
                f"has shape {rates.shape}",
                object="assignment problem",
                key="rate",
                remedy=f"give {len(wanted)} rows (one for each demand) of {pairs} pairs",
            )
        if pairs and (server.min() < 0 or server.max() >= servers):
            raise ParameterError(
                f"names a server outside 0 to {servers - 1}", object="assignment problem", key="server_of_pair"
            )

        def column(name: str, value: ArrayLike, length: int) -> FloatArray:
            try:
                return np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), (length,)))
            except ValueError as error:
                raise ParameterError(
                    f"has shape {np.shape(value)}",
                    object="assignment problem",
                    key=name,
                    remedy=f"give one number, or {length}",
                ) from error

        shared = _joined_rows(
            column("units", units, pairs),
            None if type_of_pair is None else np.asarray(type_of_pair, dtype=np.int64),
            None if capacity is None else np.asarray(capacity, dtype=np.float64),
            rows,
        )
        result = cls(
            server_of_pair=server,
            cost=column("cost", cost, pairs),
            rate=rates,
            demand=wanted,
            min_replicas=column("min_replicas", min_replicas, servers),
            group=np.arange(servers) if group is None else np.asarray(group, dtype=np.int64),
            priority=column("priority", priority, servers),
            low=np.abs(np.ceil(np.maximum(column("low", low, pairs), 0.0) - ROUNDING)),
            high=np.floor(column("high", high, pairs) + ROUNDING),
            current=column("current", current, pairs),
            held=np.maximum(column("held", held, pairs), 0.0),
            rows=shared,
            lower=column("lower", lower, len(shared.upper)),
            together=tuple(np.asarray(one, dtype=np.int64) for one in together),
        )
        for name, wrong in (
            ("cost", ~(result.cost >= 0) | np.isinf(result.cost)),
            ("high", ~(result.high >= result.low) | np.isinf(result.low)),
            ("held", ~np.isfinite(result.held)),
        ):
            if np.any(wrong):
                at = int(np.argmax(wrong))
                raise ParameterError(
                    "is not usable",
                    object="assignment problem",
                    key=f"{name}[{at}]",
                    value=float(getattr(result, name)[at]),
                )
        return result

    @property
    def servers(self) -> int:
        """How many servers there are."""
        return int(self.demand.shape[1])

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def group_priority(self) -> FloatArray:
        """(G,) the smallest of its servers."""
        result = np.full(self.groups, np.inf)
        np.minimum.at(result, self.group, self.priority)
        return result


def _joined_rows(
    units: FloatArray, type_of_pair: IntArray | None, capacity: FloatArray | None, rows: SharedRows | None
) -> SharedRows:
    """Rows of accelerator types, then the others."""
    more = rows if rows is not None else NO_ROWS
    if capacity is None:
        return more
    if type_of_pair is None or (len(type_of_pair) and int(type_of_pair.max()) >= len(capacity)):
        raise ParameterError(
            "does not name a type for every pair",
            object="assignment problem",
            key="type_of_pair",
            remedy=f"give numbers from 0 to {len(capacity) - 1}",
        )
    return SharedRows(
        np.concatenate([type_of_pair, more.row_of_entry + len(capacity)]),
        np.concatenate([np.arange(len(units)), more.variant_of_entry]),
        np.concatenate([units, more.coefficient]),
        np.concatenate([capacity, more.upper]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """
    An answer and the evidence for it.

    Attributes:
        replicas: (P,).
        served: (S,) the server and all others of its group get what they demand.
        share: (G,) of its demand that each group gets, the smallest of its servers, at most 1.
        status: `optimal` if every stage is proven, else `feasible`.
        objective: cost.
        bound: proven lower bound of the cost of every answer that serves as much (for `price_ascent`: that serves the
            same groups, and the others in part as this answer does). NaN where the budget ended before it was settled
            who is served, or limits contradict each other.
        gap: (objective - bound) / objective, 0 for a cost of 0; NaN without a bound.
        nodes: branch-and-bound nodes that were used.
        binding: (P,) row that leaves no room for one more replica, -1 none.
    """

    replicas: FloatArray
    served: BoolArray
    share: FloatArray
    status: str
    objective: float
    bound: float
    gap: float
    nodes: int = 0
    binding: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, problem: Problem, replicas: FloatArray, status: str, bound: float, nodes: int = 0) -> Solution:
        """The solution that these replicas are; the bound is cut at the objective."""
        share = served_share(problem, replicas)
        objective = float(problem.cost @ replicas)
        bound = float(np.clip(bound, 0.0, objective))
        return cls(
            replicas=replicas,
            served=(share >= 1.0)[problem.group],
            share=share,
            status=status,
            objective=objective,
            bound=bound,
            gap=(objective - bound) / objective if objective > 0 else 0.0 * bound,
            nodes=nodes,
            binding=_binding_rows(problem, replicas),
        )


def _by_server(problem: Problem, values: FloatArray) -> FloatArray:
    """(K, S) sums of (K, P) values over the pairs of each server, in their order."""
    return per_scope(values, problem.server_of_pair, problem.servers)


def _shares_per_replica(problem: Problem) -> tuple[FloatArray, BoolArray]:
    """(A + 1, P) part of each demand one replica carries, the fewest replicas last; (A + 1, S) what is demanded."""
    wanted = np.vstack([problem.demand, problem.min_replicas])
    asked = np.isfinite(wanted) & (wanted > 0)
    rates = np.vstack([problem.rate, np.ones(len(problem.server_of_pair))])
    carries = (rates > 0) & asked[:, problem.server_of_pair]
    share = np.zeros(rates.shape)
    np.divide(rates, np.where(asked, wanted, 1.0)[:, problem.server_of_pair], out=share, where=carries)
    return np.minimum(share, 1.0), asked


def served_share(problem: Problem, replicas: FloatArray) -> FloatArray:
    """(G,) share of its demand that each group gets: the smallest of its servers and units; 1 where none is asked."""
    share, asked = _shares_per_replica(problem)
    got = np.where(asked, _by_server(problem, share * replicas), 1.0).min(axis=0, initial=1.0)
    got = np.where(got >= 1.0 - ROUNDING, 1.0, got)
    result = np.ones(problem.groups)
    np.minimum.at(result, problem.group, got)
    return result


def standing(problem: Problem, replicas: FloatArray) -> tuple[float, ...]:
    """How good an answer is: compared as tuples, the smaller is better."""
    share, priority = served_share(problem, replicas), problem.group_priority
    levels = np.unique(priority[np.isfinite(priority)])
    changed = np.nansum(np.abs(replicas - problem.current))
    return (
        *(-float(np.sum(share[priority == level] >= 1.0)) for level in levels),
        *(-float(np.sum(share[priority == level])) for level in levels),
        float(problem.cost @ replicas),
        float(changed),
    )


def preferred(problem: Problem, one: FloatArray, other: FloatArray) -> bool:
    """Whether `one` is better than `other` by more than rounding."""
    for mine, theirs in zip(standing(problem, one), standing(problem, other), strict=True):
        if abs(mine - theirs) > ROUNDING * max(1.0, abs(theirs)):
            return mine < theirs
    return False


def keeps_limits(problem: Problem, replicas: FloatArray) -> bool:
    """Whether an answer keeps the limits of every pair, row and group of partners."""
    if np.any((replicas < problem.low) | (replicas > problem.high) | (replicas != np.floor(replicas))):
        return False
    upper = problem.rows.upper
    before = problem.rows.usage(np.maximum(problem.low, problem.held))
    then = problem.rows.usage(np.maximum(replicas, problem.held))
    slack = ROUNDING * np.maximum(np.where(np.isfinite(upper), np.abs(upper), 0.0), 1.0)
    unchanged = (then <= before) | (np.isnan(then) & np.isnan(before))
    if not np.all(unchanged | (then <= np.where(np.isnan(upper), -np.inf, upper) + slack)):
        return False
    slack = ROUNDING * np.maximum(np.where(np.isfinite(problem.lower), np.abs(problem.lower), 0.0), 1.0)
    if np.any(problem.rows.usage(replicas) < problem.lower - slack):
        return False
    return all(np.all(replicas[group] >= 1) or np.all(replicas[group] < 1) for group in problem.together)


def as_it_is(problem: Problem, incumbent: FloatArray | None) -> FloatArray:
    """(P,) the incumbent, else the replicas there are, within the limits of each pair; `low` where not known."""
    keep = problem.current if incumbent is None else incumbent
    return np.clip(np.where(np.isnan(keep), problem.low, keep), problem.low, problem.high)


class Remainder(NamedTuple):
    """
    What is left to decide once every pair has its lower limit: additions to it.

    Attributes:
        share: (A + 1, P) part of each demand one more replica carries.
        missing: (A + 1, S) part of each demand the lower limits leave open, 0 where nothing is.
        most: (P,) additions beyond which nothing is gained.
        full: (P,) additions with which a pair alone carries what is missing; infinity where it cannot.
        held: (P,) additions that use nothing of the rows.
        rows: entries that matter, with the room that is left as `upper`.
        lower: (L,) what additions have to bring at least; not positive asks for nothing.
    """

    share: FloatArray
    missing: FloatArray
    most: FloatArray
    full: FloatArray
    held: FloatArray
    rows: SharedRows
    lower: FloatArray


def remainder(problem: Problem) -> Remainder:
    """The problem in additions to the lower limits."""
    share, asked = _shares_per_replica(problem)
    missing = np.where(asked, 1.0 - _by_server(problem, share * problem.low), 0.0)
    missing = np.where(missing > ROUNDING, missing, 0.0)
    server = problem.server_of_pair
    with np.errstate(divide="ignore", over="ignore"):
        alone = np.where(
            missing[:, server] > 0,
            np.ceil(np.divide(missing[:, server], share, out=np.full(share.shape, np.inf), where=share > 0) - ROUNDING),
            0.0,
        )
    full = alone.max(axis=0, initial=0.0)
    useful = np.where(np.isfinite(alone), alone, 0.0).max(axis=0, initial=0.0)
    held = np.maximum(problem.held - problem.low, 0.0)

    row, pair, coefficient, upper = problem.rows
    room = upper - problem.rows.usage(np.maximum(problem.low, problem.held))
    room[np.isfinite(upper)] += ROUNDING * np.abs(upper[np.isfinite(upper)])
    room = np.where(np.isnan(room), 0.0, np.maximum(room, 0.0))

    base = np.where(np.isnan(coefficient), 0.0, coefficient) * problem.low[pair]
    lower = problem.lower - np.bincount(row, weights=base, minlength=len(upper))
    lower = np.where(lower > ROUNDING * np.maximum(np.abs(problem.lower), 1.0), lower, -np.inf)
    asks = np.isfinite(lower)

    most = np.floor(problem.high - problem.low)
    driven = np.zeros(len(server), dtype=bool)
    driven[pair[asks[row] & (coefficient > 0)]] = True
    for members in problem.together:
        driven[members] = True
    most = np.minimum(most, np.where(driven, np.maximum(useful, _UNBOUNDED), useful))
    negative = np.zeros(len(upper), dtype=bool)
    negative[row[coefficient < 0]] = True
    limits = ~(coefficient <= 0) & ~negative[row]
    fits = np.floor(np.divide(room[row], coefficient, out=np.zeros(len(row)), where=coefficient > 0))
    np.minimum.at(most, pair[limits], (held[pair] + fits)[limits])
    # making room for others counts only where nothing can be given up at the same time
    keep = (most[pair] > 0) & ((coefficient > 0) | ((coefficient < 0) & (held[pair] <= 0)))
    return Remainder(
        share=share,
        missing=missing,
        most=most,
        full=full,
        held=held,
        rows=SharedRows(row[keep], pair[keep], coefficient[keep], room),
        lower=lower,
    )


def _binding_rows(problem: Problem, replicas: FloatArray) -> IntArray:
    """(P,) the row without room for one more replica of each pair, the first of several; -1 where there is room."""
    row, pair, coefficient, upper = problem.rows
    left = upper - problem.rows.usage(np.maximum(replicas, problem.held))
    free = np.where(np.isnan(left), -np.inf, left) + ROUNDING * np.where(np.isfinite(upper), np.abs(upper), 1.0)
    more = (replicas + 1 > problem.held)[pair]
    stopped = more & ~(coefficient <= 0) & ~(coefficient <= free[row])
    binding = np.full(len(replicas), -1, dtype=np.int64)
    binding[pair[stopped][::-1]] = row[stopped][::-1]
    return binding


class _Program:
    """Columns and sparse rows of a mixed-integer program, gathered block by block."""

    def __init__(self) -> None:
        self.lower: list[FloatArray] = []
        self.upper: list[FloatArray] = []
        self.integral: list[FloatArray] = []
        self.entries: list[tuple[IntArray, IntArray, FloatArray]] = []
        self.row_lower: list[FloatArray] = []
        self.row_upper: list[FloatArray] = []
        self.columns = 0
        self.rows = 0
        self.nodes = 0

    def add_columns(self, lower: ArrayLike, upper: FloatArray, *, integral: bool) -> IntArray:
        """Numbers of the new columns."""
        count = len(upper)
        self.lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), (count,)))
        self.upper.append(upper)
        self.integral.append(np.full(count, float(integral)))
        self.columns += count
        return np.arange(self.columns - count, self.columns)

    def add_rows(
        self, row: IntArray, column: IntArray, value: FloatArray, lower: ArrayLike, upper: ArrayLike, count: int
    ) -> None:
        """Rows numbered from 0 in this block, each scaled so that the solver's tolerance is far below rounding."""
        low = np.array(np.broadcast_to(np.asarray(lower, dtype=np.float64), (count,)))
        high = np.array(np.broadcast_to(np.asarray(upper, dtype=np.float64), (count,)))
        side = np.maximum(np.where(np.isfinite(low), np.abs(low), 0.0), np.where(np.isfinite(high), np.abs(high), 0.0))
        largest = np.zeros(count)
        np.maximum.at(largest, row, np.abs(value))
        scale = _FEASIBILITY / np.maximum(np.where(side > 0, side, largest), 1e-300)
        scale = np.where((side > 0) | (largest > 0), scale, 1.0)
        self.entries.append((row + self.rows, column, value * scale[row]))
        self.row_lower.append(low * scale)
        self.row_upper.append(high * scale)
        self.rows += count

    def minimize(self, columns: IntArray, weights: FloatArray, node_limit: int, relative_gap: float) -> Any:
        """What `scipy.optimize.milp` says; weights are scaled to at most 1."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        objective = np.zeros(self.columns)
        np.add.at(objective, columns, weights)
        largest = float(np.abs(objective).max(initial=0.0)) or 1.0
        constraints = []
        if self.rows:
            row, column, value = (np.concatenate(part) for part in zip(*self.entries, strict=True))
            matrix = csr_array((value, (row, column)), shape=(self.rows, self.columns))
            constraints = [LinearConstraint(matrix, np.concatenate(self.row_lower), np.concatenate(self.row_upper))]
        result = milp(
            objective / largest,
            integrality=np.concatenate(self.integral),
            bounds=Bounds(np.concatenate(self.lower), np.concatenate(self.upper)),
            constraints=constraints,
            options={"node_limit": max(1, node_limit - self.nodes), "mip_rel_gap": relative_gap},
        )
        self.nodes += int(result.mip_node_count or 0)
        bound = np.nan if result.mip_dual_bound is None else float(result.mip_dual_bound)
        result.mip_dual_bound = bound * largest if np.isfinite(bound) else np.nan
        if result.x is not None:
            result.fun = float(result.fun) * largest
            if np.isnan(result.mip_dual_bound):
                result.mip_dual_bound = result.fun if result.status == 0 else np.nan
        return result


class _Part:
    """
    One part of a problem that shares no limit with the rest: its columns, and the stages of its solution.

    Amounts `a` (additions to the lower limits) are sums of columns: in the multi form one integer a pair, in the single
    form `full` times a binary, and an integer for partial service with its own binary.
    """

    def __init__(self, problem: Problem, rest: Remainder, groups: IntArray, *, multi: bool) -> None:
        self.problem, self.rest, self.multi = problem, rest, multi
        self.groups = groups
        inside = np.zeros(problem.groups, dtype=bool)
        inside[groups] = True
        self.pairs = np.flatnonzero(inside[problem.group[problem.server_of_pair]] & (rest.most > 0))
        self.place = np.full(len(problem.server_of_pair), -1, dtype=np.int64)
        self.place[self.pairs] = np.arange(len(self.pairs))
        self.servers = np.flatnonzero(inside[problem.group] & (rest.missing > 0).any(axis=0))
        self.proven = True
        self.nodes = 0

    def servable(self) -> BoolArray:
        """(G,) groups that could be served if they were alone; only those of this part are looked at."""
        problem, rest = self.problem, self.rest
        server, most = problem.server_of_pair[self.pairs], rest.most[self.pairs]
        if self.multi:
            reach = per_scope(rest.share[:, self.pairs] * most, server, problem.servers)
            good = (reach >= rest.missing - ROUNDING).all(axis=0)
        else:
            good = np.zeros(problem.servers, dtype=bool)
            good[server[rest.full[self.pairs] <= most]] = True
            good |= ~(rest.missing > 0).any(axis=0)
        result = np.ones(problem.groups, dtype=bool)
        np.logical_and.at(result, problem.group, good)
        return result

    def solve(self, node_limit: int, relative_gap: float) -> tuple[FloatArray | None, float]:
        """(pairs of this part,) additions, None if limits contradict each other; and a lower bound of their cost."""
        if self.servable()[self.groups].all():
            program = self._program(partial=False)
            found = program.minimize(self.columns, self._weights(self.problem.cost), node_limit, relative_gap)
            self.nodes += program.nodes
            if found.x is not None:
                return self._least_change(program, found, node_limit, relative_gap)
            self.proven &= found.status == 2  # infeasible, and not merely out of nodes
        return self._by_stages(max(1, node_limit - self.nodes), relative_gap)

    def _by_stages(self, node_limit: int, relative_gap: float) -> tuple[FloatArray | None, float]:
        program = self._program(partial=True)
        priority = self.problem.group_priority[self.groups]
        last: FloatArray | None = None
        bound = np.nan
        stages = [(goal, goal[priority == level]) for goal in (self.whole, self.part) for level in np.unique(priority)]
        for goal, mine in stages:
            found = program.minimize(mine, np.full(len(mine), -1.0), node_limit, 0.0)
            self.proven &= found.status == 0
            if found.x is not None:
                last = found.x
            elif last is None or found.status == 2:  # nothing found, or contradictions
                break
            reached = float(last[mine].sum())  # out of nodes: no less than what is there already
            reached = float(np.round(reached)) if goal is self.whole else reached
            program.add_rows(
                np.zeros(len(mine), dtype=np.int64), mine, np.ones(len(mine)), reached - _STAGE_SLACK, np.inf, 1
            )
        else:
            found = program.minimize(self.columns, self._weights(self.problem.cost), node_limit, relative_gap)
            if found.x is not None:
                self.nodes += program.nodes
                return self._least_change(program, found, node_limit, relative_gap)
            bound = float(found.mip_dual_bound)
        # a stage that ran out of nodes leaves what those before it reached
        self.nodes += program.nodes
        self.proven = False
        return (None if last is None else self._amounts(last)), bound

    def _least_change(
        self, program: _Program, found: Any, node_limit: int, relative_gap: float
    ) -> tuple[FloatArray | None, float]:
        """The same cost with the fewest changes."""
        self.proven &= found.status == 0
        bound = float(found.fun) if found.status == 0 and not relative_gap else float(found.mip_dual_bound)
        best = self._amounts(found.x)
        current = (self.problem.current - self.problem.low)[self.pairs]
        known = np.flatnonzero(np.isfinite(current))
        if not known.size or not np.any(best[known] != current[known]):
            return best, bound
        cost = float(self.problem.cost[self.pairs] @ best)
        program.add_rows(
            np.zeros(len(self.columns), dtype=np.int64),
            self.columns,
            self._weights(self.problem.cost),
            -np.inf,
            cost * (1 + ROUNDING),
            1,
        )
        moved = program.add_columns(0.0, np.full(len(known), np.inf), integral=False)
        pair = np.full(len(self.place), -1, dtype=np.int64)
        pair[self.pairs[known]] = np.arange(len(known))
        mine = pair[self.pair_of_column] >= 0
        row, column = pair[self.pair_of_column[mine]], self.columns[mine]
        for sign in (1.0, -1.0):
            program.add_rows(
                np.concatenate([row, np.arange(len(known))]),
                np.concatenate([column, moved]),
                np.concatenate([sign * self.factor[mine], np.full(len(known), -1.0)]),
                -np.inf,
                sign * current[known],
                len(known),
            )
        before = program.nodes
        nearest = program.minimize(moved, np.ones(len(known)), before + node_limit, 0.0)
        self.nodes += program.nodes - before
        self.proven &= nearest.status == 0
        return (best if nearest.x is None else self._amounts(nearest.x)), bound

    def _amounts(self, x: FloatArray) -> FloatArray:
        amounts = np.zeros(len(self.place))
        np.add.at(amounts, self.pair_of_column, self.factor * np.round(x[self.columns]))
        result: FloatArray = np.abs(amounts[self.pairs])  # never -0
        return result

    def _weights(self, per_replica: FloatArray) -> FloatArray:
        weights: FloatArray = per_replica[self.pair_of_column] * self.factor
        return weights

    def _program(self, *, partial: bool) -> _Program:
        rest, pairs = self.rest, self.pairs
        program = _Program()
        most, full = rest.most[pairs], rest.full[pairs]
        if self.multi:
            self.columns = program.add_columns(0.0, most, integral=True)
            self.pair_of_column, self.factor = pairs, np.ones(len(pairs))
        else:
            self._single_columns(program, most, full, partial=partial)
        share = self._coverage(program, partial=partial)
        self._add_limits(program)
        self._add_togethers(program)
        if partial:
            self.part, self.whole = share
        return program

    def _single_columns(self, program: _Program, most: FloatArray, full: FloatArray, *, partial: bool) -> None:
        """One pair for each server, in full or, if `partial`, in part."""
        problem, pairs = self.problem, self.pairs
        can = np.flatnonzero((full <= most) & (full > 0))
        # what lower limits of rows or partners ask of a server without demand is not bound to one pair
        loose = np.flatnonzero(full <= 0)
        whole = program.add_columns(0.0, np.ones(len(can)), integral=True)
        free = program.add_columns(0.0, most[loose], integral=True)
        self.columns = np.concatenate([whole, free])
        self.pair_of_column = pairs[np.concatenate([can, loose])]
        self.factor = np.concatenate([full[can], np.ones(len(loose))])
        place = np.full(problem.servers, -1, dtype=np.int64)
        place[self.servers] = np.arange(len(self.servers))
        row, column = place[problem.server_of_pair[pairs[can]]], whole
        if partial:
            some = np.flatnonzero((np.minimum(most, full - 1) >= 1) & (full > 0))
            amount = program.add_columns(0.0, np.minimum(most, full - 1)[some], integral=True)
            chosen = program.add_columns(0.0, np.ones(len(some)), integral=True)
            program.add_rows(
                np.tile(np.arange(len(some)), 2),
                np.concatenate([amount, chosen]),
                np.concatenate([np.ones(len(some)), -np.minimum(most, full - 1)[some]]),
                -np.inf,
                0.0,
                len(some),
            )
            self.columns = np.concatenate([self.columns, amount])
            self.pair_of_column = np.concatenate([self.pair_of_column, pairs[some]])
            self.factor = np.concatenate([self.factor, np.ones(len(some))])
            row = np.concatenate([row, place[problem.server_of_pair[pairs[some]]]])
            column = np.concatenate([column, chosen])
        lower = -np.inf if partial else 1.0
        program.add_rows(row, column, np.ones(len(row)), lower, 1.0, len(self.servers))

    def _coverage(self, program: _Program, *, partial: bool) -> tuple[IntArray, IntArray]:
        """Rows that carry the demand, in full or to the share of the group; the columns of shares and of served."""
        problem, rest = self.problem, self.rest
        asked, server = np.nonzero(rest.missing[:, self.servers] > 0)
        count = len(server)
        number = np.full((len(rest.missing), problem.servers), -1, dtype=np.int64)
        number[asked, self.servers[server]] = np.arange(count)
        rows_of = number[:, problem.server_of_pair[self.pair_of_column]]
        unit, at = np.nonzero((rows_of >= 0) & (rest.share[:, self.pair_of_column] > 0))
        row, column = rows_of[unit, at], self.columns[at]
        value = rest.share[unit, self.pair_of_column[at]] * self.factor[at]
        missing = rest.missing[asked, self.servers[server]]
        nothing = np.empty(0, dtype=np.int64)
        if not partial:
            if self.multi:
                # more of a rate than is missing is worth no more than what is missing: a tighter relaxation
                program.add_rows(row, column, np.minimum(value, missing[row]), missing, np.inf, count)
            return nothing, nothing
        servable = self.servable()[self.groups]
        part = program.add_columns(0.0, np.ones(len(self.groups)), integral=False)
        whole = program.add_columns(0.0, servable.astype(np.float64), integral=True)
        index = np.full(problem.groups, -1, dtype=np.int64)
        index[self.groups] = np.arange(len(self.groups))
        # in full counts as in full, whatever the last bit of the product says
        done = np.where(value >= missing[row] * (1 - ROUNDING), np.maximum(value, missing[row]), value)
        program.add_rows(
            np.concatenate([row, np.arange(count)]),
            np.concatenate([column, part[index[problem.group[self.servers[server]]]]]),
            np.concatenate([done, np.full(count, -1.0)]),
            missing - 1.0,
            np.inf,
            count,
        )
        both = np.arange(len(self.groups))
        program.add_rows(
            np.tile(both, 2),
            np.concatenate([part, whole]),
            np.concatenate([np.ones(len(both)), np.full(len(both), -1.0)]),
            0.0,
            np.inf,
            len(both),
        )
        return part, whole

    def _add_limits(self, program: _Program) -> None:
        """Shared rows over what grows beyond what is held, and lower limits over what there is in the end."""
        rest, columns_of = self.rest, self._columns_by_pair()
        mine = self.place[rest.rows.variant_of_entry] >= 0
        row, pair, coefficient, room = rest.rows
        row, pair, coefficient = row[mine], pair[mine], coefficient[mine]
        upper = np.flatnonzero(np.isfinite(room) & (np.bincount(row, minlength=len(room)) > 0))
        place = np.full(len(room), -1, dtype=np.int64)
        place[upper] = np.arange(len(upper))
        limited = place[row] >= 0
        grown = np.unique(pair[limited & (rest.held[pair] > 0)])
        growth = program.add_columns(0.0, np.full(len(grown), np.inf), integral=False)
        growth_of = np.full(len(self.place), -1, dtype=np.int64)
        growth_of[grown] = growth
        if grown.size:
            at = np.full(len(self.place), -1, dtype=np.int64)
            at[grown] = np.arange(len(grown))
            rows_, columns, factors = columns_of(at[grown], grown)
            program.add_rows(
                np.concatenate([rows_, np.arange(len(grown))]),
                np.concatenate([columns, growth]),
                np.concatenate([factors, np.full(len(grown), -1.0)]),
                -np.inf,
                rest.held[grown],
                len(grown),
            )
        plain = limited & (growth_of[pair] < 0)
        entry_row, column, factor = columns_of(np.flatnonzero(plain), pair[plain])
        through = np.flatnonzero(limited & (growth_of[pair] >= 0))
        program.add_rows(
            np.concatenate([place[row[entry_row]], place[row[through]]]),
            np.concatenate([column, growth_of[pair[through]]]),
            np.concatenate([coefficient[entry_row] * factor, coefficient[through]]),
            -np.inf,
            room[upper],
            len(upper),
        )
        asks = np.flatnonzero(np.isfinite(rest.lower) & (np.bincount(row, minlength=len(room)) > 0))
        if asks.size:
            place[:] = -1
            place[asks] = np.arange(len(asks))
            wanted = place[row] >= 0
            entry_row, column, factor = columns_of(np.flatnonzero(wanted), pair[wanted])
            program.add_rows(
                place[row[entry_row]], column, coefficient[entry_row] * factor, rest.lower[asks], np.inf, len(asks)
            )

    def _columns_by_pair(self) -> Any:
        """A function from (rows, pairs) to entries (row, column, factor) of the amounts of those pairs."""
        order = np.argsort(self.pair_of_column, kind="stable")
        counts = np.bincount(self.pair_of_column, minlength=len(self.place))
        first = np.cumsum(counts) - counts

        def columns_of(rows: IntArray, pairs: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
            repeats = counts[pairs]
            starts = np.repeat(first[pairs] - np.concatenate([[0], np.cumsum(repeats)[:-1]]), repeats)
            at = order[starts + np.arange(int(repeats.sum()))] if len(pairs) else np.empty(0, dtype=np.int64)
            return np.repeat(rows, repeats), self.columns[at], self.factor[at]

        return columns_of

    def _add_togethers(self, program: _Program) -> None:
        problem, columns_of = self.problem, self._columns_by_pair()
        for members in problem.together:
            if not np.any(self.place[members] >= 0):
                continue
            forced = bool(np.any(problem.low[members] >= 1))
            runs = program.add_columns(float(forced), np.ones(1), integral=True)
            for pair in members[problem.low[members] < 1]:
                row, column, factor = columns_of(np.zeros(1, dtype=np.int64), np.array([pair]))
                most = float(self.rest.most[pair])
                for bound, lower, upper in ((1.0, 0.0, np.inf), (most, -np.inf, 0.0)):
                    # at least one if the group runs, and none if it does not
                    program.add_rows(
                        np.append(row, 0), np.append(column, runs), np.append(factor, -bound), lower, upper, 1
                    )


def _parts(problem: Problem, rest: Remainder) -> list[IntArray]:
    """Groups that share a limit which could bind, together; groups without anything to decide in none."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    groups = problem.groups
    group_of_pair = problem.group[problem.server_of_pair]
    row, pair, coefficient, room = rest.rows
    growth = np.maximum(coefficient, 0.0) * np.maximum(rest.most - rest.held, 0.0)[pair]
    asked = np.isfinite(rest.lower)
    tight = asked | (np.bincount(row, weights=growth, minlength=len(room)) > room)
    entries = np.flatnonzero(tight[row])
    left, right = [group_of_pair[pair[entries]]], [groups + row[entries]]
    busy = np.zeros(groups, dtype=bool)
    busy[problem.group[(rest.missing > 0).any(axis=0)]] = True
    busy[group_of_pair[pair[asked[row]]]] = True
    for number, members in enumerate(problem.together):
        left.append(group_of_pair[members])
        right.append(np.full(len(members), groups + len(room) + number))
        busy[group_of_pair[members]] = True
    size = groups + len(room) + len(problem.together)
    one, other = np.concatenate(left), np.concatenate(right)
    graph = csr_array((np.ones(len(one)), (one, other)), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    inside = np.flatnonzero(busy)
    order = inside[np.argsort(label[inside], kind="stable")]
    return [part for part in np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if part.size]


def solve_exact(
    problem: Problem,
    *,
    multi: bool = True,
    node_limit: int = 2_000,
    relative_gap: float = 0.0,
    incumbent: FloatArray | None = None,
) -> Solution:
    """
    The best answer, and the proof as far as the node limit reaches.

    Every part that shares no limit with others is a program of its own. If all its groups can be served, one program
    finds the least cost; if not, groups served are maximised priority by priority, then their shares, then the cost is
    minimised, each stage keeping what those before reached. A last stage keeps the cost and changes the least.

    Args:
        problem: see `Problem`.
        multi: several pairs may carry one server; else exactly one.
        node_limit: branch-and-bound nodes for each part and stage group; counted, not timed.
        relative_gap: distance from the least cost that counts as reached.
        incumbent: (P,) an answer that is known; what is returned is never worse. In the single form it should be one.

    Returns:
        The answer. Limits that contradict each other (a lower limit of a row, partners that may not run) leave the
        pairs of their part at `incumbent`, else where they are.

    Cost: about 2 ms for a part of a few pairs, mostly the call; about 0.2 s for 600 pairs that compete for four
    limits. Parts are solved one after the other.
    Source: HiGHS through scipy.
    """
    rest = remainder(problem)
    replicas = problem.low.copy()
    bound, nodes, proven = float(problem.cost @ problem.low), 0, True
    for groups in _parts(problem, rest):
        part = _Part(problem, rest, groups, multi=multi)
        found, least = part.solve(node_limit, relative_gap) if part.pairs.size else (np.empty(0), 0.0)
        nodes += part.nodes
        proven &= part.proven
        if found is not None:
            replicas[part.pairs] += found
            bound += least
        else:
            replicas[part.pairs] = as_it_is(problem, incumbent)[part.pairs]
            bound = np.nan
    levels = standing(problem, replicas)[:-2]
    if not keeps_limits(problem, replicas):
        # a budget of odd prices that is missed by less than the solver's tolerance
        replicas, proven = as_it_is(problem, incumbent), False
    if incumbent is not None and preferred(problem, incumbent, replicas):
        replicas, proven = incumbent.astype(np.float64), False
    if not proven and not np.allclose(levels, standing(problem, replicas)[:-2], rtol=ROUNDING):
        bound = np.nan  # it is the cost of serving somebody else
    return Solution.of(problem, replicas, "optimal" if proven else "feasible", bound, nodes)
