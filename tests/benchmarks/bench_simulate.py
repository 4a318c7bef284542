"""
Simulated requests per wall second of a whole contender, beside a loop of plain float additions in the same run.

Everything that `wva simulate` does for a contender is on: traffic, scrape, collector, analyzer, optimizer, actuator,
every call on its plugin's thread, a cycle every 15 simulated seconds, the score at the end; with the records of every
cycle and without. Minimum and maximum hold the fleet at its size, so that a case is what its name says. `simulation`
measures the same traffic on the bare simulator. The last lines are the demo as it ships.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from pathlib import Path

from tests.benchmarks.__main__ import environment
from tests.benchmarks.bench_simulation import LOADS, PROFILE, REQUESTS, ROUNDS, additions_per_second, lengths
from wva_core import app
from wva_core.domain import Fleet, Variant
from wva_core.simulation.accounting import SloRule
from wva_core.simulation.cluster import Deployment
from wva_core.simulation.scenario import Contender, Scenario, StaticContender, WvaContender, read_scenario
from wva_core.simulation.workload import Trace, poisson

DEMO = Path(__file__).parents[2] / "examples" / "scenarios" / "azure-conv-demo.yaml"

WVA = WvaContender("wva", "", "saturation-v1", None, {}, None)


def fixed_fleet(replicas: int, load: Trace) -> Scenario:
    """A scenario whose fleet stays at its size, whatever anybody decides."""
    deployment = Deployment("ns/a", "ns/m", PROFILE, accelerator="A100", initial_replicas=replicas)
    return Scenario(
        name="benchmark",
        description="",
        source="benchmark",
        seed=1,
        duration_s=math.ceil(load.duration_s),
        scrape_s=15.0,
        traces={"ns/m": load},
        trace_notes={"ns/m": ("", "")},
        deployments=(deployment,),
        fleet=Fleet([Variant("ns", "a", "m", "A100")]),
        min_replicas={"ns/a": replicas},
        max_replicas={"ns/a": replicas},
        gpus={"A100": replicas},
        router="least-loaded",
        request_timeout_s=math.inf,
        rule=SloRule(ttft_s=1.0, tpot_s=0.05),
        contenders=(WVA,),
    )


def seconds(scenario: Scenario, contender: Contender, *, records: bool) -> float:
    """Wall seconds of one contender."""
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        app.run_contender(scenario, contender, records=Path(folder) if records else None)
        return time.perf_counter() - start


def report(name: str, scenario: Scenario, wva: Contender, static: Contender, reference: float) -> None:
    """Two lines: without records and with them; what a cycle takes is the difference to a fleet nobody scales."""
    requests = sum(len(trace) for trace in scenario.traces.values())
    cycles = int(scenario.duration_s / 15.0) + 1
    runs = ((static, False), (wva, False), (wva, True))
    rounds = [[seconds(scenario, contender, records=records) for contender, records in runs] for _ in range(ROUNDS)]
    bare, *taken = (min(column) for column in zip(*rounds, strict=True))
    for records, wall in zip(("off", "on "), taken, strict=True):
        print(
            f"{name}, records {records}: {requests / wall:8,.0f} requests per wall second,"
            f" {reference * wall / requests:4.0f} additions each; {cycles} cycles of"
            f" {(wall - bare) / cycles * 1e3:4.1f} ms on top of {requests / bare:8,.0f} per second for a static fleet"
        )


def main() -> None:
    """Print two lines per case."""
    reference = additions_per_second()
    print(f"reference loop: {reference / 1e6:.1f} million float additions per second")
    pairs = lengths()
    for replicas in (10, 100):
        for name in ("half", "heavy"):
            rate = LOADS[name] * replicas
            scenario = fixed_fleet(replicas, poisson(1, rate, REQUESTS / rate, pairs))
            static = StaticContender("static", "", {"ns/a": replicas})
            report(f"{replicas:3d} replicas, {name:5s} load", scenario, WVA, static, reference)
    demo = read_scenario(DEMO)
    report("demo, an hour of real traffic", demo, demo.contenders[0], demo.contenders[2], reference)


if __name__ == "__main__":
    print(f"environment: {environment()}")
    main()
