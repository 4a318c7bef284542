"""
How far the queueing model is off: its latencies against those of simulated engines, load by load.

One replica of three profiles gets Poisson arrivals, with requests that are all alike and with the lengths of recorded
conversations. The model is asked with parameters derived from the profile (`derived`) and with those that the analyzer
`queueing-model` believes when it has followed the same engine to that load (`learnt`). A third calculation (`mended`)
leaves two simplifications of the model out, to show that they are the reasons of its residuals. Loads are shares of the
highest rate that the derived model gives one replica. `--markdown` prints the tables of the user guide.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from wva_analyzers.queueing_model.estimator import Sample, improved, unknown
from wva_analyzers.queueing_model.pooled import Goals, latencies
from wva_core.numerics.birth_death import steady_state_of_work
from wva_core.numerics.service_times import ServiceTimes
from wva_core.numerics.sizing import analyze, rate_range
from wva_core.simulation.profiles import ServerProfile, load_profile
from wva_core.simulation.server import RequestTable, Server
from wva_core.simulation.workload import Lengths, Trace, piecewise, poisson, read_trace

TRACE = Path(__file__).parents[2] / "examples" / "traces" / "azure_2023_conv.csv.gz"
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
SEEDS = 8
REQUESTS = 6000  # counted in each run
WARM = 0.2  # share of a run before anything is counted
CACHE_SHARE = 0.9  # of the key/value cache that requests of mean length may fill, as the analyzer has it
LATE = 0.05
FIGURES = ("ttft", "ttft_p95", "itl", "itl_p95")
HEADINGS = ("TTFT", "TTFT p95", "ITL", "ITL p95")
BOUND = 0.15
BELOW = 0.8  # loads from which larger residuals need no reason
SCRAPE_S, WINDOW = 15.0, 4  # the analyzer's cycle, and scrapes in the window of a rate

FloatArray = NDArray[np.float64]


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
    input_square: float  # mean of the squares of prompt lengths
    input_p95: float


@dataclass(frozen=True)
class Measured:
    """One run: seconds of every figure, the mean batch, and of the first token the two parts it consists of."""

    ttft: float
    ttft_p95: float
    itl: float
    itl_p95: float
    batch: float
    until_start: float
    first_step: float


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
    """The recorded lengths, and requests that all have their mean lengths."""
    trace = read_trace(TRACE)
    mean_input, mean_output = float(trace.input_tokens.mean()), float(trace.output_tokens.mean())
    alike = (round(mean_input), round(mean_output))
    return (
        Mix(f"all {alike[0]} in, {alike[1]} out", alike, *map(float, alike), float(alike[0] ** 2), float(alike[0])),
        Mix(
            "azure_2023_conv",
            trace,
            mean_input,
            mean_output,
            float(np.mean(trace.input_tokens.astype(np.float64) ** 2)),
            float(np.quantile(trace.input_tokens, 1 - LATE)),
        ),
    )


def derived(profile: ServerProfile, mix: Mix) -> ServiceTimes:
    """
    The model's parameters from the four terms of a profile and the lengths.

    Three conditions: an empty step takes the same time; a prompt token takes the same time (beta + gamma); and one more
    request adds as much to every step as it does in a closed loop (beta c + gamma m). Prompts dearer than answers thus
    lower gamma, at most to 0.
    """
    i, o = mix.input_tokens, mix.output_tokens
    computed, held = (i + o) / (o + 1), i + o / 2
    slope = profile.per_seq_s + profile.per_1k_kv_s * held / 1000 + profile.per_prefill_token_s * i / o
    gamma = max((slope - profile.per_prefill_token_s * computed) / (held - computed), 0.0)
    batch = min(profile.max_batch, int(CACHE_SHARE * profile.kv_capacity_tokens / held))
    return ServiceTimes.of(
        "g2",
        alpha=profile.base_s,
        beta=(slope - gamma * held) / computed,
        gamma=gamma,
        max_batch=batch,
        input_tokens=i,
        output_tokens=o,
    )


def highest(times: ServiceTimes) -> float:
    """Requests/s at the end of the model's range."""
    return float(rate_range(times)[1][0])


# ---------------------------------------------------------------------------------------------------------------------
# What the model says


def predicted(times: ServiceTimes, rates: Sequence[float]) -> dict[str, FloatArray]:
    """
    Seconds of every figure, one row of `times` for every rate.

    The percentiles are those times of which the analyzer sees a twentieth of the requests late.
    """
    rate, alone, none = np.asarray(rates), np.ones(len(rates)), np.full(len(rates), np.nan)
    means = latencies(times, rate, alone, Goals(none, none, none))
    figures = {"ttft": means.ttft, "itl": means.itl, "batch": means.in_service}
    for name in ("ttft", "itl"):
        low, high = np.zeros(len(rates)), np.full(len(rates), 1e4)
        for _ in range(60):
            middle = (low + high) / 2
            goal = {"ttft": none, "itl": none, name: middle}
            late = getattr(latencies(times, rate, alone, Goals(**goal, quantile=none)), f"late_{name}") > LATE
            low, high = np.where(late, middle, low), np.where(late, high, middle)
        figures[f"{name}_p95"] = np.where(np.isfinite(getattr(means, name)), high, np.inf)
    return figures


def mended(times: ServiceTimes, mix: Mix, rates: Sequence[float]) -> dict[str, FloatArray]:
    """
    Mean latencies without two simplifications of the model.

    Own work counts once: a request makes o steps, and its own tokens are among those of the batch, so it is o (alpha +
    slope n) seconds in service.

    Prompts are processed in steps. A request waits for the end of the step under way, then shares the next one with all
    prompts that came meanwhile. With a prompt token taking p seconds, rho = lam p i, and D a step without prompts,
    steps have T' = D + p (prompt tokens that arrive during T), hence E T = D / (1 - rho) and
    Var T = lam p^2 E i^2 E T / (1 - rho^2). An arrival meets steps in proportion to their length:

        TTFT = wait + D + p i + (1/2 + rho) E T^2 / E T
    """
    rate = np.asarray(rates)
    o, slope, prompt_token = times.output_tokens, times._iteration_slope, times.beta + times.gamma
    queue = steady_state_of_work(rate, o * times.alpha, o * slope, times.max_batch, times.capacity)
    itl = (queue.service - times.prefill(queue.in_service)) / (o - 1)
    rho = rate * prompt_token * mix.input_tokens
    variance = rate * prompt_token**2 * mix.input_square * itl / (1 - rho**2)
    met = (variance + itl**2) / itl
    ttft = queue.wait + (1 - rho) * itl + prompt_token * mix.input_tokens + queue.busy * (0.5 + rho) * met
    return {"ttft": ttft, "itl": itl}


# ---------------------------------------------------------------------------------------------------------------------
# What the engine does


def simulated(profile: ServerProfile, trace: Trace) -> Measured:
    """One engine through a trace; requests that arrive after the warm-up count."""
    table = RequestTable(trace.input_tokens.tolist(), trace.output_tokens.tolist(), trace.arrival_s.tolist())
    arrivals, started = table.entered, [math.nan] * len(trace)
    events: list[tuple[float, int]] = []
    server = Server(profile, table, events)

    def note() -> None:
        for request in server._starters:
            if math.isnan(started[request]):
                started[request] = server._t0

    for request, t in enumerate(arrivals):
        while server.end <= t:
            server.step()
            note()
        server.arrive(request, t)
        note()
        events.clear()
    while server.end < math.inf:
        server.step()
        note()
    arrived, output = trace.arrival_s, trace.output_tokens
    counted = arrived >= WARM * trace.duration_s
    first, finish = np.array(table.first), np.array(table.finish)
    ttft, answer = (first - arrived)[counted], (finish - first)[counted]
    gaps = output[counted] - 1
    wait = (np.array(started) - arrived)[counted]
    span = trace.duration_s * (1 - WARM)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_token = (answer / gaps)[gaps > 0]
    return Measured(
        ttft=float(ttft.mean()),
        ttft_p95=float(np.quantile(ttft, 1 - LATE)),
        itl=float(answer.sum() / gaps.sum()),
        itl_p95=float(np.quantile(per_token, 1 - LATE)),
        batch=float((ttft - wait + answer).sum() / span),
        until_start=float(wait.mean()),
        first_step=float((ttft - wait).mean()),
    )


def measured(profile: ServerProfile, mix: Mix, rate: float, *, seeds: Iterable[int], requests: int) -> list[Measured]:
    """A run for each seed."""
    duration = requests / rate / (1 - WARM)
    return [simulated(profile, poisson(seed, rate, duration, mix.lengths)) for seed in seeds]


def mean_and_half_width(runs: Sequence[Measured], figure: str) -> tuple[float, float]:
    """Seconds, and half the width of the 95 % confidence interval of the mean over runs (Student)."""
    values = np.array([getattr(run, figure) for run in runs])
    if len(values) < 2:
        return float(values.mean()), math.nan
    return float(values.mean()), float(
        stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    )


# ---------------------------------------------------------------------------------------------------------------------
# What the analyzer learns


def learnt(
    profile: ServerProfile, mix: Mix, loads: Sequence[float], *, seed: int = 1, without_steps: bool = False
) -> ServiceTimes:
    """
    What the analyzer believes at each load, one row each.

    In an hour the load rises from 10 % to 90 % and falls back; the engine is scraped every 15 s. The derived parameters
    are the profile that policy gives. A row is the estimate when the load comes past on its way down. `without_steps`
    takes off the samples what `mended` adds to the time to first token, to show what learning it does.
    """
    times = derived(profile, mix)
    top = highest(times)
    half = 1800.0
    trace = piecewise(seed, [0.0, half, 2 * half], [0.1 * top, 0.9 * top, 0.1 * top], mix.lengths)
    table = RequestTable(trace.input_tokens.tolist(), trace.output_tokens.tolist(), trace.arrival_s.tolist())
    passed = [half * (1 + (0.9 - load) / 0.8) for load in loads]
    events: list[tuple[float, int]] = []
    server = Server(profile, table, events)
    prior = np.log([[times.alpha[0], times.beta[0], times.gamma[0] or 1e-12]])
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
            sample = _sample(scraped, times)
            if without_steps and sample.rate[0] > 0:
                rate = np.minimum(sample.rate, 0.95 * top)
                steps = mended(times, mix, rate)["ttft"] - analyze(times, rate).ttft
                sample = replace(sample, ttft=np.maximum(sample.ttft - steps, 1e-4))
            estimate = improved(estimate, sample, prior, SCRAPE_S)
            for row, when in enumerate(passed):
                if t <= when + 1e-6:
                    believed[row] = np.ravel(estimate.parameters[:3])
    return ServiceTimes.of(
        "g2",
        alpha=believed[:, 0],
        beta=believed[:, 1],
        gamma=believed[:, 2],
        max_batch=times.max_batch,
        input_tokens=mix.input_tokens,
        output_tokens=mix.output_tokens,
    )


def _serve_until(server: Server, t: float) -> None:
    while server.end <= t:
        server.step()


def _sample(scraped: list, times: ServiceTimes) -> Sample:
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
        "batch": float(times.max_batch[0]),
        "replicas": 1.0,
        "change": min(abs(math.log(max(arrived, 1e-12) / max(done, 1e-12))), 1.0),
    }
    return Sample(**{name: np.array([value]) for name, value in columns.items()})


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def main(arguments: Sequence[str] = ()) -> None:
    """Print a block of lines for every profile and mix."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_model_accuracy")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the user guide")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args(arguments)
    parts, parameters = [], []
    for engine in engines():
        for mix in mixes():
            one = derived(engine.profile, mix)
            times, taught = one.take(np.zeros(len(LOADS), dtype=np.int64)), learnt(engine.profile, mix, LOADS)
            rates = [load * highest(one) for load in LOADS]
            model = {
                "derived": predicted(times, rates),
                "learnt": predicted(taught, rates),
                "mended": mended(times, mix, rates),
            }
            runs = [
                measured(engine.profile, mix, rate, seeds=range(options.seeds), requests=options.requests)
                for rate in rates
            ]
            print(f"\n{'### ' if options.markdown else '  '}{engine.name}, {mix.name}\n")
            _print_residuals(model, runs, rates, markdown=options.markdown)
            parts += [(engine, mix, row, one, model, runs[row]) for row, load in enumerate(LOADS) if load in {0.1, 0.5}]
            kinds = {"derived": times, "learnt": taught}
            if isinstance(mix.lengths, Trace):
                kinds["learnt without steps"] = learnt(engine.profile, mix, LOADS, without_steps=True)
            parameters += [(engine, mix, kind, rows, highest(one)) for kind, rows in kinds.items()]
    _print_parts(parts, markdown=options.markdown)
    _print_parameters(parameters, markdown=options.markdown)


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


def _print_residuals(model: dict, runs: list[list[Measured]], rates: Sequence[float], *, markdown: bool) -> None:
    """A line for every load: the simulated figures in ms with their intervals, and how far each model is off."""
    rows = []
    for row, (load, rate) in enumerate(zip(LOADS, rates, strict=True)):
        cells = [f"{load:.0%}", f"{rate:.2f}"]
        for figure in FIGURES:
            value, half = mean_and_half_width(runs[row], figure)
            cells.append(f"{value * 1e3:.1f} ± {half * 1e3:.1f}")
            for said in model.values():
                if figure in said:
                    shown = off(said[figure][row], value)
                    wide = abs(said[figure][row] / value - 1) > BOUND and load < BELOW
                    cells.append(f"**{shown}**" if markdown and wide else shown)
        rows.append(cells)
    head = ["load", "requests/s"]
    for figure, heading in zip(FIGURES, HEADINGS, strict=True):
        head += [f"{heading} ms", *(kind for kind, said in model.items() if figure in said)]
    _print_table(head, rows, markdown=markdown)


def _print_parameters(found: list, *, markdown: bool) -> None:
    """Parameters at half of the highest rate, and by how much that rate is off at every load."""
    print(f"\n{'### ' if markdown else '  '}Parameters\n")
    half = LOADS.index(0.5)
    rows = []
    for engine, mix, kind, times, top in found:
        values = (times.alpha[half] * 1e3, times.beta[half] * 1e6, times.gamma[half] * 1e6)
        rates = rate_range(times)[1]
        capacity = [off(rate, top) for rate in rates] if kind != "derived" else [""] * len(LOADS)
        numbers = [f"{value:.{digits}f}" for value, digits in zip(values, (2, 1, 3), strict=True)]
        rows.append([engine.name, mix.name, kind, *numbers, str(times.max_batch[half]), *capacity])
    head = ["engine", "lengths", "parameters", "alpha ms", "beta µs", "gamma µs", "batch"]
    _print_table(head + [f"capacity at {load:.0%}" for load in LOADS], rows, markdown=markdown)


def _print_parts(found: list, *, markdown: bool) -> None:
    """Of what the time to first token consists."""
    print(f"\n{'### ' if markdown else '  '}The parts of the time to first token\n")
    rows = []
    for engine, mix, row, times, model, runs in found:
        start, step, late = (mean_and_half_width(runs, name)[0] for name in ("until_start", "first_step", "ttft_p95"))
        said = model["derived"]
        prefill = float(times.prefill(said["batch"][row])[0])
        long = float(times.alpha[0] + (times.beta + times.gamma)[0] * mix.input_p95)
        seconds = (start, step, said["ttft"][row] - prefill, prefill, late, long)
        rows.append([engine.name, mix.name, f"{LOADS[row]:.0%}", *(f"{1e3 * one:.0f}" for one in seconds)])
    simulated_parts = ["until its step starts", "step with its prompt"]
    head = ["engine", "lengths", "load", *simulated_parts, "model's wait", "prefill", "p95", "p95 prompt alone"]
    _print_table(head, rows, markdown=markdown)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
