"""
How far the queueing model is off: its latencies against those of simulated engines, load by load.

One replica of three profiles, and a fleet of eight, get Poisson arrivals, with requests that are all alike and with
recorded lengths. The model is asked with parameters derived from the profile (`derived`) and, for one replica, with
those that the analyzer `queueing-model` believes when it has followed the same engine to that load (`learnt`). Loads
are shares of the highest rate that the derived model gives a replica. `--markdown` prints the tables of the user guide.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from wva_analyzers.queueing_model.estimator import Sample, improved, unknown
from wva_analyzers.queueing_model.serving import Engines, kept_times, latencies, rate_bounds
from wva_core.simulation.cluster import Cluster, Deployment
from wva_core.simulation.profiles import ServerProfile, load_profile
from wva_core.simulation.server import RequestTable, Server
from wva_core.simulation.workload import Lengths, Trace, piecewise, poisson, read_trace

TRACES = Path(__file__).parents[2] / "examples" / "traces"
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
FLEET = 8
SEEDS = 8
REQUESTS = {1: 6000, FLEET: 24_000}  # counted in each run, by replicas
WARM = 0.2  # share of a run before anything is counted
DRAIN_S = 3600.0  # after the last arrival; by then everything is answered
CACHE_SHARE = 0.9  # of the key/value cache that requests of mean length may fill, as the analyzer has it
LEAST_ANSWER = 16  # tokens from which an answer has a time between tokens of its own, as service levels count it
SHARES = {"p90": 0.9, "p95": 0.95, "p99": 0.99}
HEADINGS = {"ttft": "TTFT", "ttft_p95": "TTFT p95", "itl": "ITL", "itl_p95": "ITL p95"}
PERCENTILES_AT = (0.3, 0.5, 0.7)
BOUND = 0.15
BELOW = 0.8  # loads from which larger residuals need no reason
SCRAPE_S, WINDOW = 15.0, 4  # the analyzer's cycle, and scrapes in the window of a rate

FloatArray = NDArray[np.float64]

Figures: TypeAlias = Mapping[str, float]
"""Seconds `ttft` and `itl`, the means, and their percentiles, such as `ttft_p95`."""


class Engine(NamedTuple):
    """A profile of the table, by size."""

    name: str
    profile: ServerProfile


class Mix(NamedTuple):
    """Lengths of requests, and what the model is told of them."""

    name: str
    lengths: Lengths
    input_tokens: float
    output_tokens: float


class Case(NamedTuple):
    """What a table is about."""

    engine: Engine
    mix: Mix
    replicas: int

    @property
    def name(self) -> str:
        """Its heading."""
        fleet = "" if self.replicas == 1 else f", {self.replicas} replicas"
        return f"{self.engine.name}, {self.mix.name}{fleet}"


@functools.cache
def engines() -> tuple[Engine, ...]:
    """A small, a medium and a large model; one derived and two measured profiles."""
    return (
        Engine("Llama 3.1 8B, L40S", load_profile("meta-llama/Llama-3.1-8B-Instruct", "L40S", 1, "vllm", "derived")),
        Engine("Qwen3 32B, H100 TP 2", load_profile("Qwen/Qwen3-32B", "H100-80GB", 2, "vllm", "measured")),
        Engine("Llama 3.1 70B, H200 TP 1", load_profile("meta-llama/Llama-3.1-70B", "H200", 1, "vllm", "measured")),
    )


@functools.cache
def mixes() -> tuple[Mix, ...]:
    """Requests that all have the mean lengths of recorded conversations, those conversations, and code completion."""
    conversations, code = recorded("azure_2023_conv"), recorded("azure_2023_code")
    alike = (round(conversations.input_tokens), round(conversations.output_tokens))
    return Mix(f"all {alike[0]} in, {alike[1]} out", alike, *map(float, alike)), conversations, code


def recorded(name: str) -> Mix:
    """The lengths of a recorded trace."""
    trace = read_trace(TRACES / f"{name}.csv.gz")
    return Mix(name, trace, float(trace.input_tokens.mean()), float(trace.output_tokens.mean()))


def cases() -> list[Case]:
    """Every engine alone with either kind of conversations and in a fleet; code where the cache limits the batch."""
    alike, conversations, code = mixes()
    alone = [Case(engine, mix, 1) for engine in engines() for mix in (alike, conversations)]
    return [*alone, Case(engines()[0], code, 1), *(Case(engine, conversations, FLEET) for engine in engines())]


def derived(profile: ServerProfile, mix: Mix) -> Engines:
    """
    The model's parameters from the four terms of a profile and the lengths.

    Three conditions: an empty step takes the same time; a prompt token takes the same time (beta + gamma); and one more
    request adds as much to the steps of another one, beta (i + o - 1) + gamma o (i + o/2). Prompts dearer than answers
    thus lower gamma, at most to 0.
    """
    i, o = mix.input_tokens, mix.output_tokens
    held, prompt = i + o / 2, profile.per_prefill_token_s
    more = o * profile.per_seq_s + o * profile.per_1k_kv_s * held / 1000 + prompt * i
    gamma = max((more - prompt * (i + o - 1)) / (o * held - (i + o - 1)), 0.0)
    batch = min(profile.max_batch, CACHE_SHARE * profile.kv_capacity_tokens / held)
    numbers = (profile.base_s, (more - gamma * o * held) / (i + o - 1), gamma, batch, i, o)
    return Engines(*(np.array([number]) for number in numbers))


def highest(times: Engines) -> float:
    """Requests/s at the end of the model's range."""
    return float(rate_bounds(times)[1][0])


# ---------------------------------------------------------------------------------------------------------------------
# What the model says


def predicted(times: Engines, rates: Sequence[float], replicas: int = 1) -> dict[str, FloatArray]:
    """
    Seconds of every figure, one row of `times` for every rate of a replica.

    Percentiles are those that the analyzer holds against objectives for a share of the requests.
    """
    rate, fleet = np.asarray(rates), np.full(len(rates), float(replicas))
    means = latencies(times, rate, fleet)
    figures = {"ttft": means.ttft, "itl": means.itl}
    for percentile, share in SHARES.items():
        kept = kept_times(times, rate, fleet, np.full(len(rates), share))
        figures |= {f"ttft_{percentile}": kept[0], f"itl_{percentile}": kept[1]}
    return figures


# ---------------------------------------------------------------------------------------------------------------------
# What the engine does


def simulated(profile: ServerProfile, trace: Trace, replicas: int = 1) -> Figures:
    """A trace through engines behind the least-loaded router; requests that arrive after the warm-up count."""
    cluster = Cluster([Deployment("ns/engine", "model", profile, initial_replicas=replicas)], {"model": trace})
    cluster.advance(trace.duration_s + DRAIN_S)
    log = cluster.requests()
    counted = log.arrival_s >= WARM * trace.duration_s
    ttft, answer = (log.first_token_s - log.arrival_s)[counted], (log.finish_s - log.first_token_s)[counted]
    gaps = log.output_tokens[counted] - 1
    long = gaps >= LEAST_ANSWER - 1
    figures = {"ttft": float(ttft.mean()), "itl": float(answer.sum() / gaps.sum())}
    for percentile, share in SHARES.items():
        figures[f"ttft_{percentile}"] = float(np.quantile(ttft, share))
        figures[f"itl_{percentile}"] = float(np.quantile(answer[long] / gaps[long], share))
    return figures


def measured(case: Case, rate: float, *, seeds: Iterable[int], requests: int) -> list[Figures]:
    """A run for each seed, at a rate of each replica."""
    total = rate * case.replicas
    traces = (poisson(seed, total, requests / total / (1 - WARM), case.mix.lengths) for seed in seeds)
    return [simulated(case.engine.profile, trace, case.replicas) for trace in traces]


def mean_and_half_width(runs: Sequence[Figures], figure: str) -> tuple[float, float]:
    """Seconds, and half the width of the 95 % confidence interval of the mean over runs (Student)."""
    values = np.array([run[figure] for run in runs])
    if len(values) < 2:
        return float(values.mean()), math.nan
    return float(values.mean()), float(
        stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    )


# ---------------------------------------------------------------------------------------------------------------------
# What the analyzer learns


def learnt(profile: ServerProfile, mix: Mix, loads: Sequence[float], *, seed: int = 1) -> Engines:
    """
    What the analyzer believes at each load, one row each.

    In an hour the load rises from 10 % to 90 % and falls back; the engine is scraped every 15 s. The derived parameters
    are the profile that policy gives. A row is the estimate when the load comes past on its way down.
    """
    engine = derived(profile, mix)
    top = highest(engine)
    half = 1800.0
    trace = piecewise(seed, [0.0, half, 2 * half], [0.1 * top, 0.9 * top, 0.1 * top], mix.lengths)
    table = RequestTable(trace.input_tokens.tolist(), trace.output_tokens.tolist(), trace.arrival_s.tolist())
    passed = [half * (1 + (0.9 - load) / 0.8) for load in loads]
    events: list[tuple[float, int]] = []
    server = Server(profile, table, events)
    prior = np.log([[engine.alpha[0], engine.beta[0], engine.gamma[0] or 1e-12]])
    estimate, scraped, request = unknown(1), [], 0
    believed = np.full((len(loads), 3), np.nan)
    while (t := SCRAPE_S * len(scraped)) <= 2 * half:
        while request < len(trace) and table.entered[request] <= t:
            _serve_until(server, table.entered[request])
            server.arrive(request, table.entered[request])
            events.clear()
            request += 1
        _serve_until(server, t)
        scraped.append(server.counters(t))
        if len(scraped) > WINDOW:
            sample = _sample(scraped, engine)
            estimate = improved(estimate, sample, prior, SCRAPE_S)
            for row, when in enumerate(passed):
                if t <= when + 1e-6:
                    believed[row] = np.ravel(estimate.parameters[:3])
    rows = np.zeros(len(loads), dtype=np.int64)
    return Engines(*believed.T, engine.batch[rows], engine.input_tokens[rows], engine.output_tokens[rows])


def _serve_until(server: Server, t: float) -> None:
    while server.end <= t:
        server.step()


def _sample(scraped: list, times: Engines) -> Sample:
    """What the last minute of scrapes tells; lengths are of the last five, as collectors ask for them."""
    old, new, long = scraped[-1 - WINDOW], scraped[-1], scraped[max(len(scraped) - 1 - 5 * WINDOW, 0)]

    def ratio(above: str, below: str, before) -> float:
        count = getattr(new, below) - getattr(before, below)
        return (getattr(new, above) - getattr(before, above)) / count if count else math.nan

    arrived, done = new.dispatched - old.dispatched, new.completed - old.completed
    columns = {
        "rate": arrived / (WINDOW * SCRAPE_S),
        "input_tokens": ratio("prompt_tokens", "completed", long),
        "output_tokens": ratio("generation_tokens", "completed", long),
        "ttft": ratio("ttft_sum", "ttft_count", old),
        "itl": ratio("itl_sum", "itl_count", old),
        "running": float(new.running) or math.nan,
        "batch": float(times.batch[0]),
        "replicas": 1.0,
        "fresh": 1 / WINDOW,
        "change": min(abs(math.log(max(arrived, 1e-12) / max(done, 1e-12))), 1.0),
    }
    return Sample(**{name: np.array([value]) for name, value in columns.items()})


# ---------------------------------------------------------------------------------------------------------------------
# Tables


class Compared(NamedTuple):
    """A case, what was simulated at every load, and what the model says with parameters of either kind."""

    case: Case
    runs: list[list[Figures]]
    times: dict[str, Engines]
    said: dict[str, dict[str, FloatArray]]


def compared(case: Case, *, seeds: int, requests: Mapping[int, int] = REQUESTS) -> Compared:
    """A case at every load."""
    profile = case.engine.profile
    one = derived(profile, case.mix)
    times = {"derived": one.take(np.zeros(len(LOADS), dtype=np.int64))}
    if case.replicas == 1:
        times["learnt"] = learnt(profile, case.mix, LOADS)
    rates = [load * highest(one) for load in LOADS]
    said = {kind: predicted(rows, rates, case.replicas) for kind, rows in times.items()}
    runs = [measured(case, rate, seeds=range(seeds), requests=requests[case.replicas]) for rate in rates]
    return Compared(case, runs, times, said)


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table for every case, then those of percentiles and of parameters."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_model_accuracy")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the user guide")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    found = []
    for case in cases():
        found.append(compared(case, seeds=options.seeds))
        print(f"\n{'### ' if options.markdown else '  '}{case.name}\n", flush=True)
        _print_residuals(found[-1], markdown=options.markdown)
    _print_percentiles(found, markdown=options.markdown)
    _print_parameters(found, markdown=options.markdown)


def _print_row(cells: Sequence[str], *, markdown: bool, widths: Sequence[int]) -> None:
    if markdown:
        print(f"| {' | '.join(cells)} |")
    else:
        print("  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    _print_row(head, markdown=markdown, widths=widths)
    if markdown:
        print("|" + "---|" * len(head))
    for row in rows:
        _print_row(row, markdown=markdown, widths=widths)


def off(said: float, value: float) -> str:
    """By how much the model is off; what it takes for more than it can serve is `full`."""
    return "full" if said > 10 * value else f"{said / value - 1:+.0%}"


def _shown(said: float, value: float, load: float, *, markdown: bool) -> str:
    """By how much the model is off, in bold where that needs a reason."""
    wide = abs(said / value - 1) > BOUND and load < BELOW
    return f"**{off(said, value)}**" if markdown and wide else off(said, value)


def _print_residuals(found: Compared, *, markdown: bool) -> None:
    """A line for every load: the simulated figures in ms with their intervals, and how far each model is off."""
    top = highest(derived(found.case.engine.profile, found.case.mix))
    rows = []
    for row, load in enumerate(LOADS):
        cells = [f"{load:.0%}", f"{load * top * found.case.replicas:.2f}"]
        for figure in HEADINGS:
            value, half = mean_and_half_width(found.runs[row], figure)
            cells.append(f"{value * 1e3:.1f} ± {half * 1e3:.1f}")
            cells += [_shown(said[figure][row], value, load, markdown=markdown) for said in found.said.values()]
        rows.append(cells)
    head = ["load", "requests/s"]
    for heading in HEADINGS.values():
        head += [f"{heading} ms", *found.said]
    _print_table(head, rows, markdown=markdown)


def _print_percentiles(found: Sequence[Compared], *, markdown: bool) -> None:
    """How far each percentile is off with derived parameters."""
    print(f"\n{'### ' if markdown else '  '}Percentiles\n")
    figures = [f"{name}_{percentile}" for name in ("ttft", "itl") for percentile in SHARES]
    rows = []
    for one in found:
        for load in PERCENTILES_AT:
            row = LOADS.index(load)
            said = ((one.said["derived"][name][row], mean_and_half_width(one.runs[row], name)[0]) for name in figures)
            rows.append([one.case.name, f"{load:.0%}", *(_shown(*pair, load, markdown=markdown) for pair in said)])
    head = [f"{name} {percentile}" for name in ("TTFT", "ITL") for percentile in SHARES]
    _print_table(["engines and lengths", "load", *head], rows, markdown=markdown)


def _print_parameters(found: Sequence[Compared], *, markdown: bool) -> None:
    """Parameters at half of the highest rate, and by how much that rate is off at every load."""
    print(f"\n{'### ' if markdown else '  '}Parameters\n")
    half = LOADS.index(0.5)
    rows = []
    for one in found:
        top = rate_bounds(one.times["derived"])[1][0]
        for kind, times in one.times.items():
            if one.case.replicas > 1:
                continue  # those of its replicas
            values = (times.alpha[half] * 1e3, times.beta[half] * 1e6, times.gamma[half] * 1e6)
            numbers = [f"{value:.{digits}f}" for value, digits in zip(values, (2, 1, 3), strict=True)]
            capacity = [off(rate, top) if kind == "learnt" else "" for rate in rate_bounds(times)[1]]
            rows.append([one.case.name, kind, *numbers, f"{times.batch[half]:.0f}", *capacity])
    head = ["engine and lengths", "parameters", "alpha ms", "beta µs", "gamma µs", "batch"]
    _print_table([*head, *(f"capacity at {load:.0%}" for load in LOADS)], rows, markdown=markdown)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
