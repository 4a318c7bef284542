"""
`wva size`: how many replicas a request rate needs to keep latency objectives, and what they then do.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from wva_core.cli.json_numbers import known
from wva_core.cli.quantities import minutely_rates, number, seconds, whole_number
from wva_core.errors import InputError

__all__ = ["size"]

_SMALLEST_SHOWN = 1e-6
"""Milliseconds; an objective that is to be suggested is never shown below."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What runs already: the accelerator, how many replicas, and what they cost."""

    accelerator: str
    replicas: int
    cost: float


@dataclass(frozen=True, slots=True)
class _Objectives:
    """Seconds and tokens/s, NaN where there is none; `share` of requests where it is not the mean."""

    itl: float
    wait: float
    ttft: float
    tps: float
    share: float | None


@click.command()
@click.option("--model", type=click.Choice(["g0", "g1", "g2"]), required=True, help="Latency model.")
@click.option("--alpha", required=True, metavar="TIME", help="Fixed time of a step, such as 20.58ms.")
@click.option("--beta", required=True, metavar="TIME", help="Time of a step for each request (g2: each token).")
@click.option("--gamma", metavar="TIME", help="g1: fixed time of a prefill; g2: memory time of a token.")
@click.option("--delta", metavar="TIME", help="g1: time of a prefill for each input token and request.")
@click.option("--max-batch", required=True, metavar="N", help="Requests that a replica serves together at most.")
@click.option("--tokens", metavar="N", help="g0: tokens of a request.")
@click.option("--input-tokens", metavar="N", help="g1, g2: input tokens of a request.")
@click.option("--output-tokens", metavar="N", help="g1, g2: output tokens of a request.")
@click.option(
    "--rate",
    required=True,
    multiple=True,
    metavar="RATE",
    help="Requests that arrive, such as 40/min; several, or first..last..step, give a table.",
)
@click.option("--slo-itl", metavar="TIME", help="Objective: time between tokens.")
@click.option("--slo-wait", metavar="TIME", help="Objective of g0: 95th percentile of the wait.")
@click.option("--slo-ttft", metavar="TIME", help="Objective of g1 and g2: time to first token, wait and prefill.")
@click.option("--slo-tps", metavar="N", help="Objective: output tokens per second of all replicas.")
@click.option("--percentile", metavar="P", help="Of --slo-ttft, such as 95; its mean without.")
@click.option("--unit-cost", metavar="COST", help="Cost of one replica.")
@click.option("--current", metavar="NAME:N[:COST]", help="Accelerator and replicas that run now, and their unit cost.")
@click.option("--accelerator", metavar="NAME", help="Accelerator to size for; by default that of --current.")
@click.option("--min-replicas", default="1", show_default=True, metavar="N", help="At least so many replicas.")
@click.option("--compat", is_flag=True, help="Count time to first token and --slo-tps as the original controller does.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Table or JSON.")
def size(
    model: str,
    rate: tuple[str, ...],
    min_replicas: str,
    unit_cost: str | None,
    current: str | None,
    accelerator: str | None,
    output: str,
    *,
    compat: bool,
    **typed: str | None,
) -> None:
    """
    How many replicas a request rate needs to keep latency objectives.

    Every figure is of one replica, but replicas, cost and value. docs/user-guide/sizing.md explains the three latency
    models and all figures.
    """
    least = whole_number("--min-replicas", min_replicas, 0)
    price = math.nan if unit_cost is None else number("--unit-cost", unit_cost, 0, "give the cost of one replica")
    held = _held(current, accelerator, price)
    here = held.accelerator if accelerator is None else accelerator
    rates = [value for text in rate for value in minutely_rates("--rate", text)]
    rows = _rows(model, typed, rates, least, compat=compat)
    for row in rows:
        cost = row["replicas"] * price
        # To or from nothing at all is a change of accelerator, as upstream has it.
        same = bool(current) and row["replicas"] > 0 and here == held.accelerator
        row["cost"], row["value"] = cost, _value(held, row["replicas"], cost, same=same)
    if output == "json":
        told = [{key: known(value) for key, value in row.items()} for row in rows]
        click.echo(json.dumps(told[0] if len(told) == 1 else {"rates": told}, indent=2, allow_nan=False))
    else:
        _print(rows, moved=current is not None)


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


def _held(current: str | None, accelerator: str | None, price: float) -> _Held:
    """What `--current` says; nothing without it."""
    if current is None:
        return _Held("", 0, 0.0)
    name, *rest = current.split(":")
    if not name or len(rest) not in {1, 2}:
        raise InputError(
            "does not say what runs", key="--current", value=current, remedy="write accelerator and replicas as A100:2"
        )
    replicas = whole_number("--current", rest[0], 0)
    if len(rest) == 2:
        each = number("--current", rest[1], 0, "give the cost of one replica last, as in A100:2:40")
    elif accelerator not in {None, name} and not math.isnan(price):
        raise InputError(
            "does not say what a replica costs on another accelerator than --accelerator",
            key="--current",
            value=current,
            remedy=f"add it, as in {current}:40",
        )
    else:
        each = price
    return _Held(name, replicas, replicas * each if replicas else 0.0)


def _value(held: _Held, replicas: int, cost: float, *, same: bool) -> float:
    from wva_core.numerics.transition_value import transition_value

    return float(transition_value(same, held.replicas, held.cost, replicas, cost))


_TAKES = {
    "g0": ("tokens", "slo_wait"),
    "g1": ("gamma", "delta", "input_tokens", "output_tokens", "slo_ttft", "percentile"),
    "g2": ("gamma", "input_tokens", "output_tokens", "slo_ttft", "percentile"),
}
"""Options that only some latency models take."""

_NEEDS = {
    "g0": ("tokens",),
    "g1": ("gamma", "delta", "input_tokens", "output_tokens"),
    "g2": ("gamma", "input_tokens", "output_tokens"),
}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_options(model: str, typed: dict[str, str | None]) -> None:
    """Refuses what the latency model does not take, and what it cannot do without."""
    for name in sorted({name for names in _TAKES.values() for name in names}):
        takers = [other for other, names in _TAKES.items() if name in names]
        if typed[name] is not None and model not in takers:
            raise InputError(
                f"is nothing to the latency model {model}",
                key=_option(name),
                value=typed[name],
                remedy=f"leave it out, or use --model {' or '.join(takers)}",
            )
    for name in _NEEDS[model]:
        if typed[name] is None:
            raise InputError(
                f"is missing, and the latency model {model} needs it",
                key=_option(name),
                remedy=f"give {', '.join(_option(other) for other in _NEEDS[model])}",
            )


def _objectives(typed: dict[str, str | None]) -> _Objectives:
    def time(name: str) -> float:
        text = typed[name]
        return math.nan if text is None else seconds(_option(name), text, positive=True)

    text, share = typed["percentile"], None
    if text is not None:
        remedy = "give a number between 0 and 99.9, such as 95"
        percent = number("--percentile", text, 0, remedy)
        if not 0 < percent <= 99.9:
            raise InputError("is out of range", key="--percentile", value=text, remedy=remedy)
        if typed["slo_ttft"] is None:
            raise InputError(
                "is of no objective", key="--percentile", value=text, remedy="give --slo-ttft, or leave it out"
            )
        share = percent / 100
    tokens = typed["slo_tps"]
    tps = math.nan
    if tokens is not None:
        remedy = "give tokens per second above 0, or leave it out for no objective"
        tps = number("--slo-tps", tokens.removesuffix("/s"), 0, remedy)
        if tps == 0:
            raise InputError("is not above 0", key="--slo-tps", value=tokens, remedy=remedy)
    return _Objectives(time("slo_itl"), time("slo_wait"), time("slo_ttft"), tps, share)


# ---------------------------------------------------------------------------------------------------------------------
# What comes out


def _rows(
    model: str, typed: dict[str, str | None], rates: list[float], least: int, *, compat: bool
) -> list[dict[str, Any]]:
    """One row for each rate; times in milliseconds, rates by the minute."""
    from wva_core.numerics import service_times, sizing

    _check_options(model, typed)
    objectives = _objectives(typed)
    length = {
        name: number(_option(name), typed[name] or "0", 0, "give the mean number of tokens of a request, from 0")
        for name in _NEEDS[model]
        if name.endswith("tokens")
    }
    tokens = length.get("output_tokens", length.get("tokens", 0.0))
    if model != "g0" and 0 < tokens < 1:
        raise InputError(
            "is less than one token",
            key="--output-tokens",
            value=typed["output_tokens"],
            remedy="give at least 1, or 0 where nothing is known to be asked",
        )
    parameters = {
        name: seconds(f"--{name}", text) for name in ("alpha", "beta", "gamma", "delta") if (text := typed[name])
    }
    times = service_times.ServiceTimes.of(
        model,
        **parameters,
        max_batch=whole_number("--max-batch", typed["max_batch"] or "", 1),
        input_tokens=length.get("input_tokens", 0.0),
        output_tokens=tokens,
    )
    if parameters["alpha"] + parameters["beta"] == 0 or (tokens > 0 and not times.usable[0]):
        raise InputError(
            "makes serving a request take no time",
            key="--alpha",
            value=typed["alpha"],
            remedy="give a time above 0 for --alpha or --beta",
        )
    if tokens == 0:
        return [_unused(model, sizing.zero_load(times), rate, least) for rate in rates]
    sized = sizing.size(
        times,
        itl=objectives.itl,
        wait=objectives.wait / sizing.WAIT_MARGIN,
        ttft=None if model == "g0" else objectives.ttft,
        tps=objectives.tps,
        quantile=objectives.share,
        compat=compat,
    )
    if sized.status[0] == sizing.SizingStatus.BELOW:
        _refuse(sized, typed, sizing.WAIT_MARGIN)
    each = float(sized.rate[0] if model == "g0" else sized.throughput[0])
    found = []
    for rate in rates:
        if rate == 0:
            found.append(_unused(model, sizing.zero_load(times), rate, least))
            continue
        arriving = all_have_to = rate / 60
        if not math.isnan(objectives.tps):
            asked = objectives.tps / tokens
            # Upstream forgets what arrives where a throughput is asked for.
            arriving, all_have_to = (asked, asked) if compat else (arriving, max(arriving, asked))
        replicas = max(math.ceil(all_have_to / each), least, 1)
        found.append(_sized(times, rate, each, arriving / replicas, replicas, objectives.share))
    return found


def _unused(model: str, idle: Any, rate: float, least: int) -> dict[str, Any]:
    """The row of a replica without load."""
    row = {
        "rate_per_min": rate,
        "replicas": least,
        "cost": math.nan,
        "value": math.nan,
        "service_time_ms": 1e3 * idle.itl[0] if least else 0.0,
        "wait_time_ms": 0.0,
        "rho": 0.0,
        "max_rate_per_min": 60 * idle.max_rate[0] if least else 0.0,
    }
    if model != "g0":
        row |= {
            "ttft_ms": 1e3 * idle.ttft[0] if least else 0.0,
            "itl_ms": row["service_time_ms"],
            "throughput_rps": rate / 60 / least if least else 0.0,
        }
    return row


def _sized(times: Any, rate: float, each: float, load: float, replicas: int, share: float | None) -> dict[str, Any]:
    """The row of some replicas; `each` is what one of them may serve, and `load` what arrives at it."""
    from wva_core.numerics.birth_death import wait_quantile
    from wva_core.numerics.sizing import analyze

    found = analyze(times, load)
    row = {
        "rate_per_min": rate,
        "replicas": replicas,
        "cost": math.nan,
        "value": math.nan,
        "service_time_ms": 1e3 * found.itl[0],
        "wait_time_ms": 1e3 * found.wait[0],
        "rho": (found.busy if times.generation == "g0" else found.utilization)[0],
        "max_rate_per_min": 60 * each,
    }
    if times.generation != "g0":
        row |= {"ttft_ms": 1e3 * found.ttft[0], "itl_ms": 1e3 * found.itl[0], "throughput_rps": found.throughput[0]}
        if share is not None:
            row["ttft_percentile_ms"] = 1e3 * (wait_quantile(found.occupancy, share) + found.prefill)[0]
    return row


def _refuse(sized: Any, typed: dict[str, str | None], margin: float) -> None:
    """Raises for the first objective that even a replica with next to nothing to do does not keep."""
    for name, rate, idle in (
        ("slo_ttft", sized.rate_ttft, sized.idle_ttft),
        ("slo_itl", sized.rate_itl, sized.idle_itl),
        ("slo_wait", sized.rate_wait, margin * sized.idle_wait),
    ):
        if np.isnan(rate[0]):
            raise InputError(
                "cannot be kept, however many replicas there are: a replica with next to nothing to do takes longer",
                key=_option(name),
                value=typed[name],
                remedy=f"give at least {_rounded_up(1e3 * float(idle[0]))}ms",
            )


def _rounded_up(milliseconds: float) -> str:
    """A number with at most five digits that matter, not below the one given."""
    shown = max(milliseconds, _SMALLEST_SHOWN)
    digits = 4 - math.floor(math.log10(shown))
    scale = 10.0**digits
    text = f"{math.ceil(shown * scale) / scale:.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_COLUMNS = {
    "rate_per_min": "rate/min",
    "replicas": "replicas",
    "cost": "cost",
    "value": "value",
    "service_time_ms": "ITL ms",
    "wait_time_ms": "wait ms",
    "ttft_ms": "TTFT ms",
    "ttft_percentile_ms": "tail ms",
    "rho": "rho",
    "max_rate_per_min": "max/min",
}
"""Figures of the table and what they are called there."""


def _print(rows: list[dict[str, Any]], *, moved: bool) -> None:
    """The table: `value` only where something runs already, and the wait as a part of the time to first token."""
    hidden = set() if moved else {"value"}
    if any("ttft_ms" in row for row in rows):
        hidden.add("wait_time_ms")
    shown = [
        key for key in _COLUMNS if key not in hidden and any(known(row.get(key, math.nan)) is not None for row in rows)
    ]
    # Not a table that shrinks to the terminal: a number that is cut off is another number.
    lines = [[_COLUMNS[key] for key in shown], *([_cell(row.get(key, math.nan)) for key in shown] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(shown))]
    for line in lines:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else "–" if not math.isfinite(value) else f"{value:.5g}"
