"""
Servers that compete for shared capacity: each takes one of its candidates, the one that has most to lose first.

A *server* is whoever needs exactly one answer; a *candidate* is one way to serve it, at a value (the lower the better),
for a number of replicas that use capacity of some *rows*. Arrays in, arrays out; nothing here knows what a server is.

Source: upstream WVA v0.4, greedy solver of its optimizer with the four saturation policies. There hash maps decide
ties; here the lower number of the server does, then that of the candidate, so number them by name.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wva_core.numerics.limit_rows import ROUNDING

__all__ = ["Candidates", "Grants", "SaturationPolicy", "least_value", "priority_groups", "solve"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]


class SaturationPolicy(StrEnum):
    """Who gets what is left when no candidate of a server fits as a whole."""

    NONE = "None"
    PRIORITY_EXHAUSTIVE = "PriorityExhaustive"
    PRIORITY_ROUND_ROBIN = "PriorityRoundRobin"
    ROUND_ROBIN = "RoundRobin"


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """
    C candidates of S servers, over L rows of capacity.

    Attributes:
        server: (C,) who it would serve.
        value: (C,) finite; the lowest is tried first.
        replicas: (C,) whole replicas that have to be granted for it; 0 fits everywhere.
        partial: (C,) replicas best effort may grant of it at most.
        offsets: (C + 1,) candidate c owns the entries `offsets[c]:offsets[c + 1]`.
        row: (N,) row of each entry.
        uses: (N,) what one replica uses of it. 0 uses nothing, negative makes room, NaN fits nowhere.
    """

    server: IntArray
    value: FloatArray
    replicas: FloatArray
    partial: FloatArray
    offsets: IntArray
    row: IntArray
    uses: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Grants:
    """
    What each server gets.

    Attributes:
        candidate: (S,) the one it takes, -1 none.
        replicas: (S,) replicas granted of it.
        whole: (S,) all of its replicas; False for a share by best effort, and where there is none.
        value: (S,) of what is granted, scaled by the share of the replicas; 0 without a candidate.
        stopped_by: (S,) row that stopped its first choice, -1 where none did.
        unallocated: servers none of whose candidates fitted as a whole, in the order in which that turned out.
        left: (L,) capacity nobody took.
    """

    candidate: IntArray
    replicas: FloatArray
    whole: NDArray[np.bool_]
    value: FloatArray
    stopped_by: IntArray
    unallocated: tuple[int, ...]
    left: FloatArray


def least_value(candidates: Candidates, servers: int) -> IntArray:
    """(S,) the candidate of the lowest value of each server, -1 for one without; the first of equal ones."""
    order = np.lexsort((candidates.value, candidates.server))
    ordered = candidates.server[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    best = np.full(servers, -1, dtype=np.int64)
    best[ordered[first]] = order[first]
    return best


def priority_groups(priorities: Sequence[float]) -> list[slice]:
    """Runs of equal neighbours, in order: priorities 1, 1, 2, 3, 3 are the slices 0:2, 2:3 and 3:5."""
    edges = [0, *(i for i in range(1, len(priorities)) if priorities[i] != priorities[i - 1]), len(priorities)]
    return [slice(a, b) for a, b in pairwise(edges) if a < b]


def solve(
    candidates: Candidates,
    priority: FloatArray,
    capacity: FloatArray,
    *,
    policy: SaturationPolicy = SaturationPolicy.NONE,
    delayed_best_effort: bool = False,
) -> Grants:
    """
    One candidate for each server as far as capacity goes, best effort for the others.

    Servers are served by priority (1 before 2), then by what they lose if they have to take their next candidate (most
    first; the last candidate is infinitely dear to lose), then by value (highest first). One that does not fit moves on
    to its next candidate and queues again, ahead of its equals.

    Args:
        candidates: of all servers.
        priority: (S,) 1 is the highest.
        capacity: (L,) of each row; infinity is unlimited, NaN fits nothing.
        policy: what becomes of servers of which no candidate fits.
        delayed_best_effort: only after all servers had their turn; else after each group of equal priority, before the
            next is looked at.

    Without rows, each server takes its candidate of the lowest value.

    Cost: O(C log C), plus one step for every replica that a round-robin policy grants.
    """
    if not len(capacity):
        return _unlimited(candidates, len(priority))
    market = _Market(candidates, priority, capacity)
    groups = market.groups()
    if delayed_best_effort:
        groups = [[server for group in groups for server in group]]
    for group in groups:
        market.best_effort(market.allocate(group), policy)
    return market.grants()


def _unlimited(candidates: Candidates, servers: int) -> Grants:
    """Everybody's first choice."""
    best = least_value(candidates, servers)
    has = best >= 0
    replicas, value = np.zeros(servers), np.zeros(servers)
    replicas[has], value[has] = candidates.replicas[best[has]], candidates.value[best[has]]
    return Grants(best, replicas, has, value, np.full(servers, -1, dtype=np.int64), (), np.empty(0))


class _Market:
    """Capacity that is left, and what everybody has so far; lists, because single numbers are read and written."""

    def __init__(self, candidates: Candidates, priority: FloatArray, capacity: FloatArray) -> None:
        servers = len(priority)
        order = np.lexsort((candidates.value, candidates.server))
        ends = np.cumsum(np.bincount(candidates.server, minlength=servers)).tolist()
        ordered = order.tolist()
        starts = [0, *ends[:-1]] if ends else []
        self.choices: list[list[int]] = [ordered[a:b] for a, b in zip(starts, ends, strict=True)]
        self.priority: list[float] = priority.tolist()
        self.value: list[float] = candidates.value.tolist()
        self.wanted: list[float] = candidates.replicas.tolist()
        self.partial: list[float] = candidates.partial.tolist()
        rows, uses, offsets = candidates.row.tolist(), candidates.uses.tolist(), candidates.offsets.tolist()
        self.entries: list[list[tuple[int, float]]] = [
            [(rows[i], uses[i]) for i in range(a, b) if uses[i] != 0] for a, b in pairwise(offsets)
        ]
        self.left: list[float] = capacity.tolist()
        self.slack: list[float] = (ROUNDING * np.abs(np.where(np.isfinite(capacity), capacity, 0.0))).tolist()
        self.at = [0] * servers
        self.taken = [-1] * servers
        self.granted = [0.0] * servers
        self.stopped_by = [-1] * servers
        self.unallocated: list[int] = []

    # ---- the order of servers

    def _key(self, server: int) -> tuple[float, float, float]:
        """Sorts a server by the candidate it is at: priority, then most to lose, then dearest."""
        at, choices = self.at[server], self.choices[server]
        value = self.value[choices[at]]
        loss = self.value[choices[at + 1]] - value if at + 1 < len(choices) else math.inf
        return self.priority[server], -loss, -value

    def groups(self) -> list[list[int]]:
        """Servers that have candidates, in runs of equal priority."""
        servers = sorted((s for s, choices in enumerate(self.choices) if choices), key=self.priority.__getitem__)
        return [servers[run] for run in priority_groups([self.priority[server] for server in servers])]

    # ---- whole candidates

    def allocate(self, servers: Iterable[int]) -> list[int]:
        """Gives each server the first of its candidates that fits as a whole; returns those of which none did."""
        exhausted: list[int] = []
        queue = [(self._key(server), 0, server) for server in servers]
        heapq.heapify(queue)
        turns = 0
        while queue:
            _, _, server = heapq.heappop(queue)
            candidate = self.choices[server][self.at[server]]
            stopped_by = self._stopped_by(candidate, self.wanted[candidate])
            if stopped_by < 0:
                self._take(server, candidate, self.wanted[candidate])
                continue
            if self.stopped_by[server] < 0:
                self.stopped_by[server] = stopped_by
            self.at[server] += 1
            if self.at[server] == len(self.choices[server]):
                exhausted.append(server)
                continue
            turns += 1  # who queues again later stands ahead of its equals
            heapq.heappush(queue, (self._key(server), -turns, server))
        self.unallocated += exhausted
        return exhausted

    def _stopped_by(self, candidate: int, replicas: float) -> int:
        """The first row without room for so many replicas; -1 if all have it."""
        if replicas <= 0:
            return -1
        for row, uses in self.entries[candidate]:
            if uses < 0:
                continue
            if not replicas * uses <= self.left[row] + self.slack[row]:  # NaN never fits
                return row
        return -1

    def _take(self, server: int, candidate: int, replicas: float) -> None:
        self.taken[server] = candidate
        self.granted[server] += replicas
        if replicas > 0:
            for row, uses in self.entries[candidate]:
                self.left[row] -= replicas * uses

    # ---- best effort

    def best_effort(self, servers: list[int], policy: SaturationPolicy) -> None:
        """Shares what is left among servers of which no candidate fitted, in the order of `servers`."""
        if policy is SaturationPolicy.PRIORITY_EXHAUSTIVE:
            self._exhaust(servers)
        elif policy is SaturationPolicy.PRIORITY_ROUND_ROBIN:
            for run in priority_groups([self.priority[server] for server in servers]):
                self._deal(servers[run])
        elif policy is SaturationPolicy.ROUND_ROBIN:
            self._deal(servers)

    def _fitting(self, candidate: int) -> float:
        """How many replicas of a candidate the rows have room for, at most those best effort may grant."""
        most = self.partial[candidate]
        for row, uses in self.entries[candidate]:
            if uses < 0:
                continue
            room = self.left[row] + self.slack[row]
            if not most * uses <= room:
                most = float(math.floor(room / uses)) if room > 0 and uses > 0 else 0.0
        return max(most, 0.0)

    def _exhaust(self, servers: list[int]) -> None:
        """Each server in turn takes as much of its first candidate with room as there is."""
        for server in servers:
            for candidate in self.choices[server]:
                fitting = self._fitting(candidate)
                if fitting > 0:
                    self._take(server, candidate, fitting)
                    break

    def _deal(self, servers: list[int]) -> None:
        """One replica for each server in turn, of the first candidate with room at its first turn, until none fits."""
        active = list(servers)
        while active:
            still = []
            for server in active:
                candidate = self.taken[server]
                if candidate < 0:
                    candidate = next((one for one in self.choices[server] if self._fitting(one) > 0), -1)
                if candidate < 0 or self.granted[server] >= self.partial[candidate] or self._fitting(candidate) < 1:
                    continue
                self._take(server, candidate, 1.0)
                still.append(server)
            active = still

    # ---- the result

    def grants(self) -> Grants:
        """What everybody has."""
        chosen = np.array(self.taken, dtype=np.int64)
        granted = np.array(self.granted, dtype=np.float64)
        short = np.zeros(len(chosen), dtype=bool)
        short[self.unallocated] = True
        has = chosen >= 0
        share, value = np.ones(len(chosen)), np.zeros(len(chosen))
        partly = has & short
        share[partly] = granted[partly] / np.array(self.wanted)[chosen[partly]]
        value[has] = np.array(self.value)[chosen[has]] * share[has]
        return Grants(
            candidate=chosen,
            replicas=granted,
            whole=has & ~short,
            value=value,
            stopped_by=np.array(self.stopped_by, dtype=np.int64),
            unallocated=tuple(self.unallocated),
            left=np.array(self.left, dtype=np.float64),
        )
