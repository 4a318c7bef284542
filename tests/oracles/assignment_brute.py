"""Every plan of a small assignment problem, looked at one after the other; and small problems to look at."""

from __future__ import annotations

import itertools
import math

import numpy as np

from wva_core.numerics.assignment import Problem
from wva_core.numerics.step_moves import SharedRows

CLOSE = 1e-7


def small_problem(seed, *, limits=True):
    """Two to four servers of one to three pairs, with everything a problem may have; the same for the same seed."""
    rng = np.random.default_rng(seed)
    servers = int(rng.integers(1, 4))
    server = np.repeat(np.arange(servers), rng.integers(1, 4 if servers < 3 else 3, servers))
    pairs, units = len(server), int(rng.integers(1, 3))
    low = rng.choice([0, 0, 0, 1], pairs).astype(float)
    high = low + rng.integers(0, 4, pairs)
    current = np.clip(rng.integers(0, 4, pairs), low, high).astype(float)
    row, pair, coefficient = [], [], []
    rows = int(rng.integers(1, 3))
    for number in range(rows):
        for one in np.flatnonzero(rng.random(pairs) < 0.7):
            row.append(number)
            pair.append(int(one))
            coefficient.append(float(rng.choice([1.0, 1.0, 2.0, 0.5])))
    upper = rng.choice([0.0, 2.0, 3.0, 4.0, 6.0, np.inf, np.nan], rows)
    lower = np.where(rng.random(rows) < 0.2, 1.0, -np.inf) if limits else -np.inf
    together = [np.array([0, pairs - 1])] if limits and pairs > 1 and rng.random() < 0.2 else []
    return Problem.of(
        server,
        rng.choice([1.0, 1.5, 2.0, 4.0, 4.5], pairs),
        rng.choice([0.0, np.nan, 1.0, 2.0, 3.0, 5.0, 7.5], (units, pairs), p=[0.05, 0.05, 0.2, 0.2, 0.2, 0.2, 0.1]),
        rng.choice([0.0, 1.0, 4.0, 7.0, 11.0], (units, servers)),
        min_replicas=rng.choice([0.0, 0.0, 1.0, 2.0], servers),
        group=rng.integers(0, servers, servers) if rng.random() < 0.4 else np.arange(servers),
        priority=rng.choice([1.0, 2.0], servers),
        low=low,
        high=high,
        current=current if rng.random() < 0.7 else np.full(pairs, np.nan),
        held=np.where(rng.random(pairs) < 0.4, current, 0.0),
        rows=SharedRows(np.array(row, dtype=int), np.array(pair, dtype=int), np.array(coefficient), upper),
        lower=lower,
        together=together,
    )


def merit(problem, plan):
    """How good a plan is, by the definition: the smaller tuple is better."""
    servers = problem.demand.shape[1]
    share_of_group, priority_of_group = {}, {}
    for server in range(servers):
        mine = [p for p in range(len(plan)) if problem.server_of_pair[p] == server]
        shares = [1.0]
        for unit in range(len(problem.demand)):
            wanted = problem.demand[unit, server]
            if wanted > 0:
                got = sum(plan[p] * problem.rate[unit, p] for p in mine if problem.rate[unit, p] > 0)
                shares.append(min(1.0, got / wanted))
        if problem.min_replicas[server] > 0:
            shares.append(min(1.0, sum(plan[p] for p in mine) / problem.min_replicas[server]))
        group = int(problem.group[server])
        share_of_group[group] = min([share_of_group.get(group, 1.0), *shares])
        priority_of_group[group] = min(priority_of_group.get(group, math.inf), problem.priority[server])
    levels = sorted(set(priority_of_group.values()))
    served = [
        -sum(share_of_group[g] >= 1 - 1e-9 for g in share_of_group if priority_of_group[g] == at) for at in levels
    ]
    partly = [-sum(share_of_group[g] for g in share_of_group if priority_of_group[g] == at) for at in levels]
    cost = sum(problem.cost[p] * plan[p] for p in range(len(plan)))
    change = sum(abs(plan[p] - problem.current[p]) for p in range(len(plan)) if not math.isnan(problem.current[p]))
    return (*served, *partly, cost, change)


def is_allowed(problem, plan):
    """Whether a plan keeps every limit, by the definition."""
    for p, replicas in enumerate(plan):
        if not problem.low[p] <= replicas <= problem.high[p]:
            return False
    for number in range(len(problem.rows.upper)):
        entries = [i for i in range(len(problem.rows.coefficient)) if problem.rows.row_of_entry[i] == number]
        before = then = left = 0.0
        for i in entries:
            p, use = problem.rows.variant_of_entry[i], problem.rows.coefficient[i]
            before += use * max(problem.low[p], problem.held[p])
            then += use * max(plan[p], problem.held[p])
            left += use * plan[p]
        if then > before and not then <= problem.rows.upper[number] + CLOSE:
            return False
        if left < problem.lower[number] - CLOSE:
            return False
    return all(len({plan[p] >= 1 for p in group}) == 1 for group in problem.together)


def is_better(one, other):
    """Whether a merit is better by more than rounding."""
    for mine, theirs in zip(one, other, strict=True):
        if abs(mine - theirs) > CLOSE:
            return mine < theirs
    return False


def best_plan(problem, *, multi):
    """The best plan and its merit; None if no plan is allowed."""
    best, best_merit = None, None
    ranges = [range(int(low), int(high) + 1) for low, high in zip(problem.low, problem.high, strict=True)]
    for plan in itertools.product(*ranges):
        if not multi and not _one_each(problem, plan):
            continue
        if not is_allowed(problem, plan):
            continue
        value = merit(problem, plan)
        if best is None or is_better(value, best_merit):
            best, best_merit = plan, value
    return best, best_merit


def _one_each(problem, plan):
    """Whether every server adds to the lower limit of one pair at most."""
    added = [problem.server_of_pair[p] for p in range(len(plan)) if plan[p] > problem.low[p]]
    return len(added) == len(set(added))
