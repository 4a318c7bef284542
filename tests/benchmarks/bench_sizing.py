"""
What sizing costs: 10,000 pairs of server and accelerator with batches of 256, against one at a time by a plain loop.

The loop is the oracle of the tests; it is run on a few pairs, checked against the result, and its time scaled up. What
it does for a pair is what the vectorised search does not have to: 60 bisections for each objective, each through all
11 x 256 states.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from tests.oracles import birth_death_loop as loop
from wva_core.numerics.service_times import ServiceTimes
from wva_core.numerics.sizing import Sizing, SizingStatus, analyze, rate_range, size

PAIRS = 10_000
BATCH = 256
ROUNDS = 5
CHECKED = 3


def made(pairs: int, batch: int) -> ServiceTimes:
    """Random engines of the newest generation, with the spread of published profiles."""
    rng = np.random.default_rng(20_260_201)
    return ServiceTimes.of(
        "g2",
        alpha=rng.uniform(0.005, 0.02, pairs),
        beta=rng.uniform(1e-5, 5e-5, pairs),
        gamma=rng.uniform(1e-8, 5e-7, pairs),
        max_batch=batch,
        input_tokens=rng.uniform(100, 2000, pairs),
        output_tokens=rng.uniform(50, 500, pairs),
    )


def best_seconds(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of one call; the quietest of a few."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def peak_mib(call: Callable[[], object]) -> float:
    """MiB that a call holds at most, beyond what was there before."""
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


def loop_seconds(times: ServiceTimes, objectives: dict[str, np.ndarray], found: Sizing) -> float:
    """Seconds of the plain loop for one pair, after checking that both agree."""
    started = time.perf_counter()
    for row in range(CHECKED):
        parameters = {name: float(getattr(times, name)[row]) for name in ("alpha", "beta", "gamma", "delta")}
        lengths = {"tokens_in": float(times.input_tokens[row]), "tokens_out": float(times.output_tokens[row])}
        for name, target in objectives.items():
            rate = loop.highest_rate("g2", BATCH, 11 * BATCH, name, float(target[row]), **parameters, **lengths)
            got = float(getattr(found, f"rate_{name}")[row])
            if rate is None or abs(got / rate - 1) > 1e-8:
                raise AssertionError(f"pair {row}, {name}: the loop finds {rate}, sizing {got}")
    return (time.perf_counter() - started) / CHECKED


def main() -> None:
    """Print one line per case."""
    times = made(PAIRS, BATCH)
    _, highest = rate_range(times)
    # Objectives that every pair can keep, at different loads each.
    rng = np.random.default_rng(7)
    objectives = {
        "ttft": analyze(times, highest * rng.uniform(0.3, 0.95, PAIRS)).ttft,
        "itl": analyze(times, highest * rng.uniform(0.3, 0.95, PAIRS)).itl,
    }
    found = size(times, **objectives)
    if (found.status != SizingStatus.OK).any():
        raise AssertionError("an objective was not kept")
    per_pair = loop_seconds(times, objectives, found)
    cases: list[tuple[str, Callable[[], object], float]] = [
        ("analyze", lambda: analyze(times, highest * 0.7), np.nan),
        ("size for TTFT and ITL", lambda: size(times, **objectives), per_pair),
        ("size for p95 TTFT and ITL", lambda: size(times, **objectives, quantile=0.95), np.nan),
        ("size one pair", lambda: size(times.take(np.array([0])), **{k: v[:1] for k, v in objectives.items()}), np.nan),
    ]
    print(f"  {PAIRS:,} pairs, batches of {BATCH}; the loop takes {per_pair:.2f} s for a pair (mean of {CHECKED})")
    for name, call, slow in cases:
        quick = best_seconds(call)
        times_faster = "" if np.isnan(slow) else f"   {slow * PAIRS / quick:10,.0f} times the loop's speed"
        print(f"  {name:26} {quick * 1e3:8.1f} ms   {peak_mib(call):6.1f} MiB{times_faster}")
    small = made(PAIRS, 1)
    mixed = ServiceTimes.of(
        "g2",
        **{name: getattr(small, name) for name in ("alpha", "beta", "gamma", "input_tokens", "output_tokens")},
        max_batch=np.random.default_rng(3).integers(1, BATCH + 1, PAIRS),
    )
    itl = analyze(mixed, rate_range(mixed)[1] * 0.6).itl
    quick = best_seconds(lambda: size(mixed, itl=itl))
    print(
        f"  {'batches of 1 to 256, ITL':26} {quick * 1e3:8.1f} ms   {peak_mib(lambda: size(mixed, itl=itl)):6.1f} MiB"
    )


if __name__ == "__main__":
    main()
