"""
What the analyzer `queueing-model` costs: its latency model beside a walk through the states, and whole cycles.

The walk is the vectorised birth-death chain of sizing, for the same engines at the same rates: what one question to the
model would cost without a closed form. Cycles are shown in such questions and as seconds; in each of them the estimator
learns from every variant, both sizes of every fleet are searched for, and the load to come is planned for.
"""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import numpy as np

from tests.benchmarks.bench_sizing import best_seconds
from wva_analyzers.queueing_model import QueueingModel
from wva_analyzers.queueing_model.serving import Engines, latencies, rate_bounds
from wva_core.domain import Observation
from wva_core.numerics.service_times import ServiceTimes
from wva_core.numerics.sizing import analyze
from wva_core.testing import observe, settings

ENGINES = 10_000
BATCH = 256
REPLICAS = 10
CYCLES = 6


def engines(count: int) -> Engines:
    """Random ones, with the spread of published profiles."""
    rng = np.random.default_rng(20_260_301)
    spans = ((0.005, 0.02), (1e-5, 5e-5), (1e-8, 1e-7), (BATCH, BATCH), (100, 2000), (50, 500))
    return Engines(*(rng.uniform(low, high, count) for low, high in spans))


def observation(count: int) -> Observation:
    """A model on one variant with ten replicas, so many times, each at half of what it can at most."""
    made = engines(count)
    rate = 0.5 * rate_bounds(made)[1]
    seen = latencies(made, rate, np.full(count, float(REPLICAS)))
    columns = {
        "arrival_rate": rate,
        "request_rate": rate,
        "waiting": np.zeros(count),
        "ttft": seen.ttft,
        "itl": seen.itl,
        "running": seen.in_service,
        "max_batch": made.batch,
        "input_tokens": made.input_tokens,
        "output_tokens": made.output_tokens,
        "input_token_rate": rate * made.input_tokens,
        "output_token_rate": rate * made.output_tokens,
    }
    rows = [
        {"variant": f"v{row}", **{name: float(column[row]) for name, column in columns.items()}}
        for row in range(count)
        for _ in range(REPLICAS)
    ]
    return observe([{"name": f"v{row}", "model": f"m{row}"} for row in range(count)], rows)


def cycle_seconds(count: int) -> tuple[float, float]:
    """Seconds of a cycle that has seen a few, the quietest, and MiB it holds at most beyond what was there before."""
    parameters = QueueingModel.Parameters(targetTTFT=2000, targetITL=100, targetQuantile=0.99)
    seen, analyzer, state = observation(count), QueueingModel(parameters), {}
    asked = settings(parameters, seen, scale_up=1.0, scale_down=0.85)
    taken = []
    for cycle in range(CYCLES):
        now = replace(seen, time=15.0 * cycle)
        started = time.perf_counter()
        state = dict(analyzer.assess(now, asked, state).state)
        taken.append(time.perf_counter() - started)
    tracemalloc.start()
    analyzer.assess(replace(seen, time=15.0 * CYCLES), asked, state)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return min(taken[1:]), peak / 2**20


def main() -> None:
    """Print one line per case."""
    made = engines(ENGINES)
    rate = 0.7 * rate_bounds(made)[1]
    walked = ServiceTimes.of(
        "g2",
        alpha=made.alpha,
        beta=made.beta,
        gamma=made.gamma,
        max_batch=made.batch.astype(np.int64),
        input_tokens=made.input_tokens,
        output_tokens=made.output_tokens,
    )
    alone = np.ones(ENGINES)
    closed = best_seconds(lambda: latencies(made, rate, alone))
    walk = best_seconds(lambda: analyze(walked, rate))
    print(f"  {ENGINES:,} engines, batches of {BATCH}")
    faster = f"{walk / closed:6.1f} times the speed of the walk"
    print(f"  {'one question, closed form':30} {closed * 1e3:8.1f} ms   {faster}")
    print(f"  {'one question, states walked':30} {walk * 1e3:8.1f} ms")
    for count in (1, 1_000, ENGINES):
        seconds, mib = cycle_seconds(count)
        asked = seconds / (closed * count / ENGINES)
        questions = f"   as long as {asked:.0f} questions" if count > 1 else ""  # one alone is all calls
        name = f"cycle of {count:,} variant{'s' if count > 1 else ''}"
        print(f"  {name:30} {seconds * 1e3:8.1f} ms   {mib:6.1f} MiB{questions}")


if __name__ == "__main__":
    main()
