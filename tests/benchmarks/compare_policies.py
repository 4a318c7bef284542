"""
What each way of scaling costs at an attainment of 99 %: `slo` beside `saturation-v1`, an HPA on the queue, and a fleet.

Every contender has one knob with five settings and meets the same traffic: three traces, and seeds that draw which
requests are kept and how long replicas take to start. The knob is tuned on the first trace, to the cheapest setting
that keeps 99 %, and frozen for the others; the sweeps over the other traces tell what tuning on them would have given.

Not a part of `make bench`, because it takes many minutes:

    python -m tests.benchmarks.compare_policies --out docs/user-guide/comparison.md

Results are kept in a file (`--cache`) as they come, so that an interrupted run goes on where it was; a result counts
only for the very set-up and sources it was made with. `--out` replaces what stands between the markers of a page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
TRACES = ROOT / "examples" / "traces"
CACHE = Path(tempfile.gettempdir()) / "wva-compare-policies"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

GOAL = 0.99
DEFAULT_QUANTILE = 0.99  # of the analyzer
RESAMPLES = 2000
TTFT_S, TPOT_S = 5.0, 0.15
# Without a limit per process, two of them on two cores wait for each other's threads: 12 s a run become 7.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Load:
    """A trace and how it fits the fleet; `hours` cut it short, 0 is all of it."""

    name: str
    file: str
    kind: str
    scale: float
    is_long: bool = False
    hours: float = 0.0


LOADS = (
    Load("conv", "azure_2023_conv.csv.gz", "recorded", 0.6),
    Load("code", "azure_2023_code.csv.gz", "recorded", 0.2),
    Load("day", "servegen_m-large_day.csv.gz", "realised", 1.8, is_long=True),
)
TUNED_ON = LOADS[0].name

CONTENDERS: dict[str, tuple[str, tuple[float, ...]]] = {
    "slo": ("targetQuantile", (0.8, 0.9, 0.95, 0.98, 0.99)),
    "saturation-v1": ("kvCacheThreshold", (0.4, 0.5, 0.6, 0.7, 0.8)),
    "saturation-v1, 600 s": ("kvCacheThreshold", (0.4, 0.5, 0.6, 0.7, 0.8)),
    "queue HPA": ("target of waiting requests", (0.02, 0.1, 0.25, 0.5, 2.0)),
    "static": ("replicas", (6, 7, 9, 10, 11)),
}
"""By contender: what its knob is, and the settings that are tried."""


@dataclass(frozen=True, slots=True)
class Job:
    """One contender at one setting through one trace under one seed."""

    load: Load
    contender: str
    setting: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.load.name} / {self.contender} / {self.setting:g} / seed {self.seed}"

    @property
    def key(self) -> str:
        """The name, and a digest of the set-up, so that a result of another one never counts."""
        document = json.dumps(scenario_document(self.load, self.contender, self.setting), sort_keys=True)
        return f"{self.name} / {hashlib.sha256(document.encode()).hexdigest()[:8]}"


# --------------------------------------------------------------------------------------------------------------------
# Running


def contender_document(contender: str, setting: float) -> dict[str, Any]:
    """A contender at a setting, as a scenario writes it."""
    name = {"name": contender}
    if contender == "slo":
        parameters = {"targetTTFT": 1000 * TTFT_S, "targetITL": 1000 * TPOT_S, "targetQuantile": setting}
        analyzers = [{"type": "queueing-model", "parameters": parameters}]
        return {**name, "wva": {"policy": {"profile": "slo", "analyzers": analyzers}}}
    if contender.startswith("saturation-v1"):
        window = 600 if contender.endswith("600 s") else 120
        analyzers = [{"type": "saturation-v1", "parameters": {"kvCacheThreshold": setting}}]
        behavior = {
            "scaleUp": {"stabilizationWindowSeconds": 0},
            "scaleDown": {"stabilizationWindowSeconds": window},
        }
        policy = {"profile": "saturation-v1", "analyzers": analyzers}
        return {**name, "wva": {"policy": policy, "hpa": {"tolerance": 0.0, "behavior": behavior}}}
    if contender == "queue HPA":
        return {**name, "hpa": {"metric": "waiting", "target": setting}}
    return {**name, "static": {"replicas": int(setting)}}


def scenario_document(load: Load, contender: str, setting: float) -> dict[str, Any]:
    """The fleet of the demo under a load, with one contender."""
    return {
        **({"durationSeconds": 3600 * load.hours} if load.hours else {}),
        "name": f"compare {load.name}",
        "warmupSeconds": 300,
        "objectives": {"ttftSeconds": TTFT_S, "tpotSeconds": TPOT_S},
        "startUp": {"law": "lognormal", "meanSeconds": 120, "cv": 0.3},
        "models": [
            {
                "model": "meta-llama/Llama-3.1-8B-Instruct",
                "namespace": "chat",
                "trace": {"file": str(TRACES / load.file), "kind": load.kind, "scale": load.scale},
                "variants": [
                    {
                        "name": "llama-8b-l4",
                        "profile": {"accelerator": "L4", "tp": 1, "kind": "derived"},
                        "minReplicas": 1,
                        "maxReplicas": 16,
                        "initialReplicas": 8,
                    }
                ],
            }
        ],
        "contenders": [contender_document(contender, setting)],
    }


def measured(job: Job) -> dict[str, float]:
    """What came of a job; runs in a process of its own."""
    from wva_core import app
    from wva_core.simulation.scenario import read_scenario

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.json"
        path.write_text(json.dumps(scenario_document(job.load, job.contender, job.setting)), encoding="utf-8")
        scenario = read_scenario(path, seed=job.seed)
    result = app.run_contender(scenario, scenario.contenders[0])
    return {
        "attainment": result.attainment,
        "cost": result.cost_usd,
        "actions": float(result.scale_actions),
        "requests": float(result.requests_in),
        "seconds": time.perf_counter() - start,
    }


def fingerprint(sources: Iterable[Path]) -> str:
    """A digest of what a result depends on besides its set-up: traces and sources."""
    digest = hashlib.sha256()
    for path in (*(TRACES / load.file for load in LOADS), *sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sources() -> list[Path]:
    """The modules and tables that decide a simulation, in a fixed order; command line and tests are not among them."""
    found = [*ROOT.glob("wva_core/**/*"), *ROOT.glob("plugins/*/wva_*/**/*")]
    return sorted(path for path in found if path.suffix in {".py", ".csv", ".yaml"} and "cli" not in path.parts)


class Results:
    """What was measured, by job, kept in a file as it comes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{fingerprint(sources())[:16]}.json"
        self.rows: dict[str, dict[str, float]] = {}
        if self.path.exists():
            self.rows = json.loads(self.path.read_text(encoding="utf-8"))

    def run(self, jobs: Sequence[Job], workers: int) -> None:
        """Measures what is missing of the jobs; their order decides nothing but the order of the lines."""
        missing = [job for job in jobs if job.key not in self.rows]
        if not missing:
            return
        # Processes made anew read the limit on threads before they import numpy.
        os.environ.update(ONE_THREAD)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for done, (job, row) in enumerate(zip(missing, pool.map(measured, missing), strict=True), 1):
                self.rows[job.key] = row
                beside = self.path.with_suffix(".part")
                beside.write_text(json.dumps(self.rows, indent=0, sort_keys=True), encoding="utf-8")
                beside.replace(self.path)
                outcome = f"{row['attainment']:.2%} {row['cost']:.2f} USD in {row['seconds']:.0f} s"
                print(f"[{done}/{len(missing)}] {job.name}: {outcome}", flush=True)

    def table(self, load: Load, contender: str, setting: float, seeds: Sequence[int]) -> Cell | None:
        """Attainment and cost by seed; None unless all of them were measured."""
        keys = [Job(load, contender, setting, seed).key for seed in seeds]
        if any(key not in self.rows for key in keys):
            return None
        rows = [self.rows[key] for key in keys]
        return Cell(np.array([row["attainment"] for row in rows]), np.array([row["cost"] for row in rows]))


# --------------------------------------------------------------------------------------------------------------------
# Statistics


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """(seeds,) attainment and cost in USD of one setting."""

    attainment: np.ndarray
    cost: np.ndarray


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (Student's t); the width is NaN for a single value."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return float(values.mean()), float("nan")
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def cost_at_goal(attainment: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """
    (B,) least cost at which a sweep (settings, B) keeps the goal, by straight lines between settings; NaN if nowhere.

    A sweep that keeps the goal everywhere gives its cheapest setting, which is no more than an upper bound.
    """
    costs = [np.where(attainment >= GOAL, cost, np.inf)]
    below, above = attainment[:-1] - GOAL, attainment[1:] - GOAL
    with np.errstate(divide="ignore", invalid="ignore"):
        share = below / (below - above)
        crossing = cost[:-1] + share * (cost[1:] - cost[:-1])
    costs.append(np.where(below * above < 0, crossing, np.inf))
    least = np.concatenate(costs).min(axis=0)
    return np.where(np.isfinite(least), least, np.nan)


def at_goal(sweep: Sequence[Cell], draws: np.ndarray) -> tuple[float, np.ndarray]:
    """Cost at the goal of the mean sweep, and (B,) of the sweeps of resampled seeds; `draws` is (B, seeds)."""
    attainment = np.stack([cell.attainment for cell in sweep])
    cost = np.stack([cell.cost for cell in sweep])
    point = cost_at_goal(attainment.mean(axis=1)[:, None], cost.mean(axis=1)[:, None])[0]
    return float(point), cost_at_goal(attainment[:, draws].mean(axis=2), cost[:, draws].mean(axis=2))


def tuned(results: Results, contender: str, seeds: Sequence[int]) -> float:
    """The cheapest setting that keeps the goal on the trace for tuning, else the one that keeps most."""
    load = next(load for load in LOADS if load.name == TUNED_ON)
    cells = {setting: results.table(load, contender, setting, seeds) for setting in CONTENDERS[contender][1]}
    means = {setting: (cell.attainment.mean(), cell.cost.mean()) for setting, cell in cells.items() if cell is not None}
    kept = [setting for setting, (attainment, _) in means.items() if attainment >= GOAL]
    if kept:
        return min(kept, key=lambda setting: means[setting][1])
    return max(means, key=lambda setting: means[setting][0])


# --------------------------------------------------------------------------------------------------------------------
# Tables


def percent(mean: float, half: float) -> str:
    return f"{100 * mean:.2f} %" + ("" if np.isnan(half) else f" ± {100 * half:.2f}")


def dollars(mean: float, half: float) -> str:
    return f"{mean:.2f}" + ("" if np.isnan(half) else f" ± {half:.2f}")


def between(values: np.ndarray) -> str:
    """95 % of the resampled values, or how many of them there are."""
    known = values[~np.isnan(values)]
    if len(known) < 0.975 * len(values):
        return f"reached in {len(known) / len(values):.0%} of the resamples"
    low, high = np.quantile(known, (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"


def tables(results: Results, loads: Sequence[Load], seeds_of: dict[str, Sequence[int]]) -> str:
    """Everything that was measured, as Markdown."""
    frozen = {name: tuned(results, name, seeds_of[TUNED_ON]) for name in CONTENDERS}
    lines = ["Settings tuned on `conv` and then frozen:", ""]
    lines += [f"- {name}: {CONTENDERS[name][0]} {frozen[name]:g}" for name in CONTENDERS]
    for load in loads:
        seeds = seeds_of[load.name]
        lines += ["", f"### {load.name}", "", f"{len(seeds)} seeds; mean ± half of the 95 % interval.", ""]
        lines += ["| contender | setting | attainment | USD |", "|---|---|---|---|"]
        sweeps: dict[str, list[Cell]] = {}
        for name, (_, settings) in CONTENDERS.items():
            for setting in settings:
                cell = results.table(load, name, setting, seeds)
                if cell is None:
                    continue
                sweeps.setdefault(name, []).append(cell)
                shown = f"**{setting:g}**" if setting == frozen[name] else f"{setting:g}"
                lines.append(
                    f"| {name} | {shown} | {percent(*interval(cell.attainment))} | {dollars(*interval(cell.cost))} |"
                )
        lines += ["", *_at_goal_lines(sweeps, len(seeds)), "", *_paired_lines(results, load, seeds, frozen)]
    return "\n".join(lines)


def _at_goal_lines(sweeps: dict[str, list[Cell]], seeds: int) -> list[str]:
    # one draw for all contenders: their seeds are the same, so their differences are paired
    draws = np.random.default_rng(1).integers(seeds, size=(RESAMPLES, seeds))
    lines = ["| contender | USD at 99 %, along its sweep | 95 % interval | against slo |", "|---|---|---|---|"]
    found = {name: at_goal(sweep, draws) for name, sweep in sweeps.items()}
    for name, (point, drawn) in found.items():
        bound = all(cell.attainment.mean() >= GOAL for cell in sweeps[name])
        shown = "not reached" if np.isnan(point) else ("at most " if bound else "") + f"{point:.2f}"
        against = ""
        if name != "slo" and "slo" in found and not np.isnan(point):
            own, own_drawn = found["slo"]
            if not np.isnan(own):
                against = f"{100 * (point / own - 1):+.1f} % ({between(100 * (drawn / own_drawn - 1))})"
        lines.append(f"| {name} | {shown} | {between(drawn) if not np.isnan(point) else ''} | {against} |")
    return lines


def _paired_lines(results: Results, load: Load, seeds: Sequence[int], frozen: dict[str, float]) -> list[str]:
    own = results.table(load, "slo", DEFAULT_QUANTILE, seeds)
    if own is None:
        return []
    lines = [f"| slo at {DEFAULT_QUANTILE:g}, not tuned, less … | attainment, points | cost |", "|---|---|---|"]
    for name, setting in frozen.items():
        other = results.table(load, name, setting, seeds)
        if other is None:
            continue
        points, half = interval(100 * (own.attainment - other.attainment))
        ratio, width = interval(100 * (own.cost / other.cost - 1))
        lines.append(f"| {name}, frozen at {setting:g} | {points:+.2f} ± {half:.2f} | {ratio:+.1f} % ± {width:.1f} |")
    return lines


def jobs_of(load: Load, seeds: Sequence[int], settings: dict[str, Sequence[float]]) -> list[Job]:
    """Seeds outermost, so that an interrupted run has whole seeds."""
    return [Job(load, name, setting, seed) for seed in seeds for name, values in settings.items() for setting in values]


def replace_tables(page: Path, text: str) -> None:
    """Puts the tables between the markers of a page."""
    whole = page.read_text(encoding="utf-8")
    before, found, rest = whole.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        sys.exit(f"error: {page} lacks the line {BEGIN} or {END}; add both where the tables belong")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Runs what is missing and shows the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    names = [load.name for load in LOADS]
    parser.add_argument("--traces", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=10, help="for the traces of an hour")
    parser.add_argument("--day-seeds", type=int, default=10, help="for the trace of a day")
    parser.add_argument("--day-hours", type=float, default=0.0, help="only so many of the trace of a day")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of what was measured")
    parser.add_argument("--out", type=Path, help="page whose tables are to be replaced; printed if left out")
    given = parser.parse_args()
    results = Results(given.cache)
    loads = [
        replace(load, hours=given.day_hours) if load.is_long else load for load in LOADS if load.name in given.traces
    ]
    counts = {load.name: given.day_seeds if load.is_long else given.seeds for load in LOADS}
    seeds_of = {name: range(1, count + 1) for name, count in counts.items()}
    everything: dict[str, Sequence[float]] = {name: settings for name, (_, settings) in CONTENDERS.items()}
    first = next(load for load in LOADS if load.name == TUNED_ON)
    results.run(jobs_of(first, seeds_of[TUNED_ON], everything), given.workers)
    for load in loads:
        results.run(jobs_of(load, seeds_of[load.name], everything), given.workers)
    text = tables(results, loads, seeds_of)
    if given.out is None:
        print(text)
    else:
        replace_tables(given.out, text)


if __name__ == "__main__":
    main()
