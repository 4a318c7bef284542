"""
Simulated requests per wall second at 10 and 100 replicas, beside a loop of plain float additions in the same run.

Everything is on: chunked prompts, a cache that overflows now and then, preemption, waiting queues, routing, a scrape
and all its queries every 15 simulated seconds, and the score at the end. The ratio says how many plain additions one
simulated request costs; it compares machines better than requests per second do.
"""

from __future__ import annotations

import time

import numpy as np

from tests.benchmarks.__main__ import environment
from wva_core.simulation.accounting import SloRule
from wva_core.simulation.cluster import Cluster, Deployment
from wva_core.simulation.profiles import ServerProfile
from wva_core.simulation.scrape import Scraper
from wva_core.simulation.workload import Trace, poisson

REQUESTS = 100_000
ADDITIONS = 2_000_000
ROUNDS = 3  # the best counts: the machine may be busy

# The 8B row on A100 with a cache small enough to overflow at the heavy load, and a budget that cuts long prompts.
PROFILE = ServerProfile(
    base_s=0.0123,
    per_seq_s=0.00005,
    per_1k_kv_s=0.00009,
    per_prefill_token_s=0.00011,
    max_batch=64,
    kv_capacity_tokens=60_000,
    max_batched_tokens=2048,
)
LOADS = {"light": 1.0, "half": 2.2, "heavy": 4.0}  # requests/s per replica


def lengths() -> Trace:
    """Token pairs with the means of public chat traffic, about 1150 in and 210 out."""
    rng = np.random.default_rng(11)
    prompts = np.clip(rng.lognormal(6.75, 0.8, 20_000), 1, 8000).astype(np.int64)
    answers = np.clip(rng.lognormal(4.9, 1.0, 20_000), 1, 1500).astype(np.int64)
    return Trace(np.arange(20_000.0), prompts, answers)


def additions_per_second() -> float:
    """The reference: how many float additions a plain loop makes in a second."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        total = 0.0
        for _ in range(ADDITIONS):
            total += 1.5
        best = min(best, time.perf_counter() - start)
    return ADDITIONS / best


def simulate(replicas: int, load: Trace) -> tuple[float, Cluster, float]:
    """Requests per wall second, the cluster at the end, the attainment."""
    best = float("inf")
    for _ in range(ROUNDS):
        cluster = Cluster([Deployment("ns/a", "m", PROFILE, initial_replicas=replicas)], {"m": load})
        scraper = Scraper(cluster)
        end = load.duration_s + 120.0
        start = time.perf_counter()
        for scrape in range(int(end / 15.0) + 1):
            scraper.advance(15.0 * scrape)
            scraper.snapshot(retention_s=600.0)
        score = SloRule(ttft_s=1.0, tpot_s=0.05).score(cluster.requests())
        best = min(best, time.perf_counter() - start)
    return len(load) / best, cluster, score.attainment


def main() -> None:
    """Print one line per case."""
    reference = additions_per_second()
    print(f"reference loop: {reference / 1e6:.1f} million float additions per second")
    pairs = lengths()
    for replicas in (10, 100):
        for name, rate in LOADS.items():
            load = poisson(1, rate * replicas, REQUESTS / (rate * replicas), pairs)
            speed, cluster, attainment = simulate(replicas, load)
            print(
                f"{replicas:3d} replicas, {name:5s} load ({rate * replicas:5.0f} requests/s): {speed:9,.0f} requests "
                f"per wall second, {reference / speed:4.0f} additions each; attainment {attainment:.3f}, "
                f"{cluster.preemptions} preemptions"
            )


if __name__ == "__main__":
    print(f"environment: {environment()}")
    main()
