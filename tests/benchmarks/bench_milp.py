"""
What the assignment of servers to accelerators costs: time, proven gap and memory, and its cost beside a greedy choice.

Servers like the same accelerators best; of each type there are 70 % of what would be used without limits, or of the
median type where that is more. The greedy choice is that of the ancestor: who loses most by the second choice takes
the first before the others do, whole servers only. Its cost is compared where it serves as many, and so is its time,
which is that of a plain loop.
"""

from __future__ import annotations

import time
import tracemalloc

import numpy as np

from wva_core.numerics.assignment import Problem, Solution
from wva_core.numerics.price_ascent import price_ascent, solve

KINDS = 6
TIGHTNESS = 0.7


def market(servers: int, seed: int = 0) -> Problem:
    """Servers with six accelerators each."""
    rng = np.random.default_rng(seed)
    kind = np.tile(np.arange(KINDS), servers)
    units = rng.choice([1.0, 1.0, 2.0, 4.0], len(kind))
    cost = np.array([1.0, 1.8, 3.1, 4.6, 6.9, 11.5])[kind] * units
    speed = np.array([1.0, 2.0, 3.2, 5.0, 7.0, 12.0])[kind] * units**0.95
    rate = speed * rng.uniform(0.6, 1.4, len(kind)) * np.repeat(rng.uniform(0.5, 2.0, servers), KINDS)
    demand = rng.uniform(1.0, 200.0, servers)
    replicas = np.ceil(demand.repeat(KINDS) / rate)
    best = (cost * replicas).reshape(servers, KINDS).argmin(axis=1) + np.arange(servers) * KINDS
    used = np.bincount(kind[best], weights=(replicas * units)[best], minlength=KINDS)
    return Problem.of(
        np.repeat(np.arange(servers), KINDS),
        cost,
        rate,
        demand,
        units=units,
        type_of_pair=kind,
        capacity=np.floor(TIGHTNESS * np.maximum(used, np.median(used))),
    )


def greedy(problem: Problem) -> tuple[int, float]:
    """How many servers the greedy choice serves, and at what cost."""
    replicas = np.ceil(problem.demand[0][problem.server_of_pair] / problem.rate[0])
    cost = (problem.cost * replicas).tolist()
    kinds = problem.rows.row_of_entry.tolist()
    cards = (problem.rows.coefficient * replicas).tolist()
    left = problem.rows.upper.tolist()
    choices = np.argsort(np.array(cost).reshape(-1, KINDS), axis=1, kind="stable")
    choices = (choices + np.arange(len(choices))[:, None] * KINDS).tolist()

    def claim(server: int, place: int) -> tuple[float, float, int, int]:
        own = cost[choices[server][place]]
        loss = cost[choices[server][place + 1]] - own if place + 1 < KINDS else np.inf
        return (-loss, -own, server, place)

    waiting = sorted(claim(server, 0) for server in range(len(choices)))
    served, total = 0, 0.0
    while waiting:
        _, _, server, place = waiting.pop(0)
        pair = choices[server][place]
        if cards[pair] <= left[kinds[pair]]:
            left[kinds[pair]] -= cards[pair]
            served, total = served + 1, total + cost[pair]
        elif place + 1 < KINDS:
            again = claim(server, place + 1)
            low, high = 0, len(waiting)
            while low < high:  # ahead of equals
                middle = (low + high) // 2
                low, high = (middle + 1, high) if waiting[middle][:2] < again[:2] else (low, middle)
            waiting.insert(low, again)
    return served, total


def timed_greedy(problem: Problem) -> tuple[int, float, float]:
    """The greedy choice and the seconds it takes, the least of three."""
    seconds = np.inf
    for _ in range(3):
        started = time.perf_counter()
        served, total = greedy(problem)
        seconds = min(seconds, time.perf_counter() - started)
    return served, total, seconds


def report(
    name: str, problem: Problem, answer: Solution, seconds: float, peak: int, beside: tuple[int, float, float]
) -> None:
    """Print one line."""
    served, total, loop_seconds = beside
    ratio = f"{answer.objective / total:.4f} of greedy" if served == answer.served.sum() else "not comparable"
    print(
        f"  {name:28} {seconds * 1e3:7.1f} ms ({seconds / loop_seconds:5.2f} x greedy)   gap {answer.gap:7.4%}   "
        f"cost {answer.objective:9.1f} ({ratio})   served {answer.served.sum()}/{problem.servers}, greedy {served}   "
        f"peak {peak / 2**20:5.1f} MiB"
    )


def main() -> None:
    """Print one line per case."""
    price_ascent(market(50))  # imports and caches
    for servers in (1_000, 10_000):
        problem = market(servers)
        beside = timed_greedy(problem)
        cases = {
            f"milp, {servers} x {KINDS}, one each": lambda problem=problem: solve(problem, multi=False),
            f"milp, {servers} x {KINDS}, mixes": lambda problem=problem: solve(problem),
            f"prices, {servers} x {KINDS}, one each": lambda problem=problem: price_ascent(problem, multi=False),
            f"prices, {servers} x {KINDS}, mixes": lambda problem=problem: price_ascent(problem),
        }
        for name, call in cases.items():
            best = np.inf
            for _ in range(3):
                started = time.perf_counter()
                answer = call()
                best = min(best, time.perf_counter() - started)
            tracemalloc.start()
            call()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            report(name, problem, answer, best, peak, beside)
    problem = market(100)
    started = time.perf_counter()
    answer = solve(problem, multi=False, exact_up_to=1_000)
    report("exact, 100 x 6, one each", problem, answer, time.perf_counter() - started, 0, timed_greedy(problem))


if __name__ == "__main__":
    main()
