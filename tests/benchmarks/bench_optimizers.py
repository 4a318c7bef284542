"""
What the greedy choice costs: `inferno` against `milp` on the published instance and on random ones short of cards.

Random instances have the published accelerators, models and classes; 10 to 40 servers of a random model, class and
rate; and of every type of card 50 to 150 % of what would be used of it if there were no limits (of a type that nobody
would use, of what is used of a type on average), with less than that of at least one. Both optimizers are called as
`wva optimize` calls them, once with one accelerator for each server and once with several, which `inferno` never gives.
Served servers are counted by priority; costs are compared where both serve all, because what else is left goes to
other servers.
"""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from wva_core.cli.optimize import answer, told
from wva_core.cli.system_document import System, SystemDocument
from wva_core.cli.system_question import question_of
from wva_core.errors import InputError
from wva_core.policy.documents import validate

PUBLISHED = Path(__file__).parents[2] / "examples/systems/b10.json"
CONTENDERS = ("inferno", "milp")
INSTANCES = 90
SIZES = (10, 20, 40)


def system_of(document: dict[str, Any]) -> System:
    """The typed document."""
    return validate(SystemDocument, document, "the benchmark", InputError).system


def crowded(published: dict[str, Any], servers: int, seed: int, *, mixes: bool) -> System:
    """A random instance whose capacity binds; with or without several accelerators for a server."""
    rng = np.random.default_rng(seed)
    document = copy.deepcopy(published)
    system = document["system"]
    classes = [row["name"] for row in system["serviceClassData"]["serviceClasses"]]
    models = sorted({row["name"] for row in system["modelData"]["models"]})
    system["serverData"]["servers"] = [
        {
            "name": f"server-{number:02d}",
            "class": str(rng.choice(classes)),
            "model": str(rng.choice(models)),
            "currentAlloc": {
                "load": {
                    "arrivalRate": round(float(rng.uniform(10, 300)), 1),
                    "avgInTokens": int(rng.choice([128, 512, 1024])),
                    "avgOutTokens": int(rng.choice([128, 512, 1024])),
                }
            },
        }
        for number in range(servers)
    ]
    optimizer = system["optimizerData"]["optimizer"]
    optimizer["unlimited"], optimizer["heterogeneous"] = True, mixes
    free = system_of(document)
    question = question_of(free)
    used = told(question, answer(free, question, "inferno"), "inferno")["accelerators"]
    optimizer["unlimited"] = False
    system["capacityData"]["count"] = _short_of(used, rng)
    return system_of(document)


def _short_of(used: dict[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Counts of each type, at least one of them below what is used of it."""
    average = float(np.mean([row["count"] for row in used.values() if row["count"]]))
    wanted = np.array([row["count"] for row in used.values()], dtype=float)
    while True:
        counts = np.floor(np.where(wanted > 0, wanted, average) * rng.uniform(0.5, 1.5, len(wanted)))
        if np.any(counts < wanted):
            return [{"type": name, "count": int(count)} for name, count in zip(used, counts, strict=True)]


def compared(system: System) -> dict[str, dict[str, Any]]:
    """What each contender makes of an instance: served servers by priority, cost, milliseconds, gap."""
    question = question_of(system)
    results = {}
    for name in CONTENDERS:
        started = time.perf_counter()
        allocation = answer(system, question, name)
        seconds = time.perf_counter() - started
        result = told(question, allocation, name)
        by_priority: dict[int, int] = {}
        for server, row in result["servers"].items():
            priority = question.priorities[question.servers[server].class_label]
            by_priority[priority] = by_priority.get(priority, 0) + row["served"]
        results[name] = {
            "served": tuple(by_priority[priority] for priority in sorted(by_priority)),
            "cost": result["total_cost"],
            "ms": seconds * 1e3,
            "gap": result["gap"],
        }
    return results


def main() -> None:
    """Print one line for the published instance and one for each size of random ones."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    compared(system_of(published))  # imports and caches
    for mixes in (False, True):
        published["system"]["optimizerData"]["optimizer"]["heterogeneous"] = mixes
        one = compared(system_of(published))
        inferno, milp = (one[name] for name in CONTENDERS)
        print(
            f"published, 15 servers, {'several accelerators' if mixes else 'one accelerator'} a server:"
            f" cost {inferno['cost']:.0f} against {milp['cost']:.0f} (gap {milp['gap']:.2%}),"
            f" served {sum(inferno['served'])} against {sum(milp['served'])},"
            f" {inferno['ms']:.1f} ms against {milp['ms']:.1f} ms"
        )
    for servers in SIZES:
        seeds = range(1000 * servers, 1000 * servers + INSTANCES // len(SIZES))
        for mixes in (False, True):
            rows = [compared(crowded(published, servers, seed, mixes=mixes)) for seed in seeds]
            _print(servers, [(row["inferno"], row["milp"]) for row in rows], mixes=mixes)


def _print(servers: int, pairs: list[tuple[dict[str, Any], dict[str, Any]]], *, mixes: bool) -> None:
    fewer = sum(a["served"] < b["served"] for a, b in pairs)
    more = sum(a["served"] > b["served"] for a, b in pairs)
    all_served = [(a, b) for a, b in pairs if sum(a["served"]) == sum(b["served"]) == servers]
    dearer = [a["cost"] / b["cost"] - 1 for a, b in all_served]
    served = [np.mean([sum(pair[i]["served"]) for pair in pairs]) for i in range(2)]
    times = [[pair[i]["ms"] for pair in pairs] for i in range(2)]
    print(
        f"{len(pairs)} random, {servers} servers, {'several accelerators' if mixes else 'one accelerator'} a server:"
        f" served {served[0]:.1f} against {served[1]:.1f};"
        f" less in {fewer}, more in {more}; both serve all in {len(dearer)},"
        f" there {np.mean(dearer):+.1%} ({min(dearer, default=0):+.1%} to {max(dearer, default=0):+.1%}) in cost;"
        f" {np.median(times[0]):.1f} ms against {np.median(times[1]):.0f} ms (at most {max(times[1]):.0f} ms,"
        f" {np.median(np.divide(times[1], times[0])):.0f} times as long)"
    )


if __name__ == "__main__":
    main()
