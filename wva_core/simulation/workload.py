"""
Request traces: when requests arrive and how many tokens they carry.

A trace is read from a file, or made from a seed. To fit it to a fleet its rate is scaled by superposing shifted copies
and by thinning at random; time is never compressed, because that would also shrink the swings of the load relative to
the start-up time of replicas, which is what an autoscaler is judged on.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wva_core.errors import ParameterError, TraceError

__all__ = [
    "Lengths",
    "Trace",
    "gamma",
    "piecewise",
    "poisson",
    "ramp",
    "read_trace",
    "scale_rate",
    "spike",
    "superpose",
    "thin",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
Kind: TypeAlias = Literal["recorded", "profile", "realised", "synthetic"]

_COLUMNS = ("arrival_s", "input_tokens", "output_tokens")
_LARGEST_COUNT = 2**53  # whole numbers are exact in a float64 up to here


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """
    Requests in the order of their arrival.

    Args:
        arrival_s: (N,) float64, not decreasing, seconds from the start of the trace.
        input_tokens: (N,) int64, 0 or more.
        output_tokens: (N,) int64, 1 or more.
        name: what reports call it.
        kind: `recorded` (every row was one real request), `profile` (a measured series of rates), `realised` (requests
            drawn from measured aggregates) or `synthetic`.

    Raises:
        ParameterError: lengths differ, arrivals are not sorted, or a value is out of range.
    """

    arrival_s: FloatArray
    input_tokens: IntArray
    output_tokens: IntArray
    name: str = "trace"
    kind: Kind = "synthetic"

    def __post_init__(self) -> None:
        """Check the columns and make them read-only."""
        arrival = np.array(self.arrival_s, dtype=np.float64)
        prompts = np.array(self.input_tokens, dtype=np.int64)
        answers = np.array(self.output_tokens, dtype=np.int64)
        if not arrival.shape == prompts.shape == answers.shape == (arrival.size,):
            raise ParameterError("columns differ in length", object=f"trace {self.name}", remedy="give equal columns")
        if arrival.size:
            if not (np.isfinite(arrival).all() and arrival[0] >= 0 and (np.diff(arrival) >= 0).all()):
                raise ParameterError(
                    "must be finite, not negative and not decreasing",
                    object=f"trace {self.name}",
                    key="arrival_s",
                    remedy="sort the arrivals and count from 0",
                )
            if prompts.min() < 0:
                raise ParameterError(
                    "must be 0 or more",
                    object=f"trace {self.name}",
                    key="input_tokens",
                    value=int(prompts.min()),
                    remedy="mend the prompt lengths",
                )
            if answers.min() < 1:
                raise ParameterError(
                    "must be at least 1",
                    object=f"trace {self.name}",
                    key="output_tokens",
                    value=int(answers.min()),
                    remedy="leave out requests without an answer",
                )
        for column, values in zip(_COLUMNS, (arrival, prompts, answers), strict=True):
            values.flags.writeable = False
            object.__setattr__(self, column, values)

    def __len__(self) -> int:
        return int(self.arrival_s.size)

    @property
    def duration_s(self) -> float:
        """Time of the last arrival, s; 0 for an empty trace."""
        return float(self.arrival_s[-1]) if len(self) else 0.0

    @property
    def mean_rate(self) -> float:
        """Requests per second from 0 to the last arrival; NaN if that is no time."""
        return len(self) / self.duration_s if self.duration_s > 0 else math.nan

    def until(self, end_s: float) -> Trace:
        """The requests that arrive before `end_s`."""
        stop = int(np.searchsorted(self.arrival_s, end_s, side="left"))
        return Trace(self.arrival_s[:stop], self.input_tokens[:stop], self.output_tokens[:stop], self.name, self.kind)


Lengths: TypeAlias = tuple[int, int] | Trace
"""Token counts of made-up requests: one fixed (input, output), or a trace whose pairs are drawn with replacement."""


# --------------------------------------------------------------------------------------------------------------------
# Files


def read_trace(path: str | Path, *, name: str | None = None, kind: Kind = "recorded") -> Trace:
    """
    A trace from a CSV file, plain or gzipped.

    The first line names the columns; `arrival_s`, `input_tokens` and `output_tokens` must be among them, others are
    ignored.

    Args:
        path: `.csv` or `.csv.gz`.
        name: what reports call it; the file name without its endings if left out.
        kind: how the rows came about.

    Raises:
        TraceError: the file cannot be read, or a row is malformed: not a number, not a whole number of tokens,
            negative, unsorted, a column missing, an answer without tokens. Names file, line, column and value.

    Cost: about 0.2 s for 250,000 rows; the slow reader runs only to find the fault.
    """
    path = Path(path)
    text = _read_text(path)
    title = path.name.removesuffix(".gz").removesuffix(".csv") if name is None else name
    header_line, _, body = text.partition("\n")
    header = [cell.strip() for cell in next(csv.reader([header_line]), [])]
    for column in _COLUMNS:
        if column not in header:
            raise TraceError(
                "the column is missing",
                object=str(path),
                line=1,
                column=column,
                value=header_line.strip(),
                remedy=f"name the columns {', '.join(_COLUMNS)} in the first line",
            )
    places = tuple(header.index(column) for column in _COLUMNS)
    if not body.strip():
        raise TraceError("has no requests", object=str(path), line=1, remedy="give at least one row")
    try:
        # With exactly the three columns numpy also notices rows of another length.
        used = None if len(header) == len(_COLUMNS) else places
        values = np.loadtxt(io.StringIO(body), delimiter=",", usecols=used, comments=None, ndmin=2)
        if used is None:
            values = values[:, places] if values.shape[1] == len(header) else np.full((1, 3), np.nan)
    except (ValueError, IndexError):
        values = np.full((1, 3), np.nan)
    if not _is_clean(values):
        values = _read_slowly(path, text, header, places)
    return Trace(values[:, 0], values[:, 1].astype(np.int64), values[:, 2].astype(np.int64), title, kind)


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, zlib.error) as exc:
        raise TraceError(f"cannot be read: {exc}", object=str(path), remedy="check the path and the file") from exc
    except UnicodeDecodeError as exc:
        raise TraceError("is not text in UTF-8", object=str(path), remedy="write the trace as CSV in UTF-8") from exc


def _is_clean(values: FloatArray) -> bool:
    """Whether (N, 3) numbers are finite, in range and sorted."""
    arrival, tokens = values[:, 0], values[:, 1:]
    return bool(
        np.isfinite(values).all()
        and arrival[0] >= 0
        and (arrival[1:] >= arrival[:-1]).all()
        and (tokens == np.floor(tokens)).all()
        and (tokens <= _LARGEST_COUNT).all()
        and tokens[:, 0].min() >= 0
        and tokens[:, 1].min() >= 1
    )


def _read_slowly(path: Path, text: str, header: list[str], places: tuple[int, ...]) -> FloatArray:
    """Read row by row, to raise at the first malformed cell; what this accepts is good."""
    rows: list[tuple[float, ...]] = []
    previous = 0.0
    reader = csv.reader(io.StringIO(text))
    next(reader)
    for cells in reader:
        if not cells:
            continue
        line = reader.line_num
        if len(cells) != len(header):
            missing = next((header[place] for place in range(len(cells), len(header))), "")
            raise TraceError(
                f"has {len(cells)} columns, the first line names {len(header)}",
                object=str(path),
                line=line,
                column=missing,
                value=",".join(cells),
                remedy="give each row one value per column",
            )
        row = []
        for column, place in zip(_COLUMNS, places, strict=True):
            fault, remedy, number = _judge_cell(column, cells[place], previous)
            if fault:
                raise TraceError(fault, object=str(path), line=line, column=column, value=cells[place], remedy=remedy)
            row.append(number)
        previous = row[0]
        rows.append(tuple(row))
    return np.array(rows, dtype=np.float64).reshape(-1, len(_COLUMNS))


def _judge_cell(column: str, cell: str, previous: float) -> tuple[str, str, float]:
    """What is wrong with a cell (empty: nothing), the remedy, and its number."""
    try:
        number = float(cell)
    except ValueError:
        return "is not a number", "write a plain decimal number", math.nan
    if not math.isfinite(number):
        return "is not a finite number", "write a plain decimal number, or leave the row out", number
    if number < 0:
        return "is negative", "count from 0 upwards", number
    if column == "arrival_s":
        if number < previous:
            return f"is before the row above, at {previous:g} s", "sort the rows by arrival", number
    elif number != math.floor(number) or number > _LARGEST_COUNT:
        return "is not a whole number of tokens", "write whole token counts", number
    elif column == "output_tokens" and number < 1:
        return "an answer has at least one token", "leave out requests without an answer", number
    return "", "", number


# --------------------------------------------------------------------------------------------------------------------
# Synthetic arrivals


def poisson(seed: int, rate: float, duration_s: float, lengths: Lengths, *, name: str = "poisson") -> Trace:
    """Arrivals without memory at `rate` requests/s for `duration_s` seconds."""
    return piecewise(seed, [0.0, duration_s], [rate, rate], lengths, name=name)


def ramp(seed: int, rate: float, end_rate: float, duration_s: float, lengths: Lengths, *, name: str = "ramp") -> Trace:
    """Arrivals whose rate goes in a straight line from `rate` to `end_rate` requests/s."""
    return piecewise(seed, [0.0, duration_s], [rate, end_rate], lengths, name=name)


def spike(
    seed: int,
    rate: float,
    spike_rate: float,
    start_s: float,
    length_s: float,
    duration_s: float,
    lengths: Lengths,
    *,
    name: str = "spike",
) -> Trace:
    """Arrivals at `rate` requests/s, but at `spike_rate` for `length_s` seconds from `start_s`."""
    end_s = min(start_s + length_s, duration_s)
    return piecewise(
        seed,
        [0.0, start_s, start_s, end_s, end_s, duration_s],
        [rate, rate, spike_rate, spike_rate, rate, rate],
        lengths,
        name=name,
    )


def piecewise(
    seed: int,
    times_s: FloatArray | list[float],
    rates: FloatArray | list[float],
    lengths: Lengths,
    *,
    name: str = "piecewise",
    kind: Kind = "synthetic",
) -> Trace:
    """
    A Poisson process whose rate runs in straight lines through the points (times_s, rates).

    Two points at one time are a jump. A measured series of rates becomes requests this way (`kind="realised"`).

    Args:
        seed: of the arrivals and lengths.
        times_s: (P,) from 0, not decreasing.
        rates: (P,) requests/s, 0 or more.
        lengths: token counts.
        name: what reports call it.
        kind: `synthetic`, or `realised` for a measured series.

    Source: own; the number of arrivals is Poisson with the integral of the rate as its mean, and given the number they
    are independent draws with the rate as density (Kingman, Poisson Processes, 2.4), here by inverting the integral.
    """
    times = np.asarray(times_s, dtype=np.float64)
    rate = np.asarray(rates, dtype=np.float64)
    if times.shape != rate.shape or times.size < 2 or times[0] < 0 or (np.diff(times) < 0).any():
        raise ParameterError(
            "needs two or more points in the order of time",
            object=f"trace {name}",
            key="times_s",
            value=times.tolist(),
            remedy="give as many times as rates, not decreasing",
        )
    if not (np.isfinite(rate).all() and (rate >= 0).all() and np.isfinite(times).all()):
        raise ParameterError(
            "must be finite and 0 or more",
            object=f"trace {name}",
            key="rates",
            value=rate.tolist(),
            remedy="mend the rates",
        )
    rng = np.random.default_rng(seed)
    width = np.diff(times)
    mass = np.concatenate(([0.0], np.cumsum(width * (rate[1:] + rate[:-1]) / 2)))
    u = np.sort(rng.random(rng.poisson(mass[-1]))) * mass[-1]
    piece = np.clip(np.searchsorted(mass, u, side="right") - 1, 0, width.size - 1)
    # Within a piece the integral is r0 x + s x²/2; its inverse in the form that also holds for a slope s of 0.
    r0 = rate[piece]
    slope = (rate[piece + 1] - r0) / np.where(width[piece] > 0, width[piece], 1.0)
    rest = u - mass[piece]
    root = r0 + np.sqrt(np.maximum(r0 * r0 + 2 * slope * rest, 0.0))
    x = np.divide(2 * rest, root, out=np.zeros_like(rest), where=root > 0)
    arrival = np.maximum.accumulate(np.minimum(times[piece] + x, times[-1]))
    prompts, answers = _draw_lengths(rng, arrival.size, lengths)
    return Trace(arrival, prompts, answers, name, kind)


def gamma(seed: int, rate: float, cv: float, duration_s: float, lengths: Lengths, *, name: str = "gamma") -> Trace:
    """
    A renewal process whose gaps follow a Gamma law with mean 1/rate and coefficient of variation `cv`.

    `cv` 1 is Poisson, above 1 comes in bursts, below 1 is more regular.
    """
    if not (rate > 0 and cv > 0 and duration_s >= 0):
        raise ParameterError(
            "rate and cv must be positive and duration_s 0 or more",
            object=f"trace {name}",
            value={"rate": rate, "cv": cv, "duration_s": duration_s},
            remedy="mend them",
        )
    rng = np.random.default_rng(seed)
    shape = 1.0 / (cv * cv)
    parts: list[FloatArray] = []
    end = 0.0
    size = int(rate * duration_s * 1.1) + 16
    while end < duration_s:
        part = end + np.cumsum(rng.gamma(shape, 1.0 / (rate * shape), size))
        parts.append(part)
        end = float(part[-1])
    arrival = np.concatenate(parts) if parts else np.empty(0)
    arrival = arrival[arrival < duration_s]
    prompts, answers = _draw_lengths(rng, arrival.size, lengths)
    return Trace(arrival, prompts, answers, name)


def _draw_lengths(rng: np.random.Generator, size: int, lengths: Lengths) -> tuple[IntArray, IntArray]:
    if isinstance(lengths, Trace):
        if not len(lengths):
            raise ParameterError(
                "has no requests to draw lengths from", object=f"trace {lengths.name}", remedy="give another trace"
            )
        rows = rng.integers(0, len(lengths), size)
        return lengths.input_tokens[rows], lengths.output_tokens[rows]
    prompt, answer = lengths
    return np.full(size, prompt, dtype=np.int64), np.full(size, answer, dtype=np.int64)


# --------------------------------------------------------------------------------------------------------------------
# Scaling the rate


def superpose(trace: Trace, copies: int, *, shift_s: float = 37.0) -> Trace:
    """
    `copies` of a trace on top of each other, copy c shifted by c `shift_s` and wrapped around at the end.

    Multiplies the rate and keeps the duration. Copies smooth bursts shorter than the shift; a shift that is short
    against the swings of the load keeps those.
    """
    if copies < 1:
        raise ParameterError(
            "must be at least 1", object="superpose", key="copies", value=copies, remedy="thin to lower a rate"
        )
    span = trace.duration_s
    shifted = [trace.arrival_s]
    for copy in range(1, copies):
        moved = trace.arrival_s + copy * shift_s
        shifted.append(np.mod(moved, span) if span > 0 else trace.arrival_s)
    arrival = np.concatenate(shifted)
    order = np.argsort(arrival, kind="stable")
    name = trace.name if copies == 1 else f"{trace.name} ×{copies}"
    return Trace(
        arrival[order],
        np.tile(trace.input_tokens, copies)[order],
        np.tile(trace.output_tokens, copies)[order],
        name,
        trace.kind if copies == 1 else _drawn(trace.kind),
    )


def thin(trace: Trace, keep: float, *, seed: int) -> Trace:
    """Each request with probability `keep`, independently; pulls bursts towards Poisson."""
    if not 0 <= keep <= 1:
        raise ParameterError(
            "must lie in 0..1", object="thin", key="keep", value=keep, remedy="superpose to raise a rate"
        )
    kept = np.random.default_rng(seed).random(len(trace)) < keep
    return Trace(
        trace.arrival_s[kept],
        trace.input_tokens[kept],
        trace.output_tokens[kept],
        trace.name if keep == 1 else f"{trace.name} thinned to {keep:.4g}",
        trace.kind,
    )


def scale_rate(trace: Trace, factor: float, *, seed: int, shift_s: float = 37.0) -> Trace:
    """The trace at `factor` times its rate: as many copies as needed, then thinned to the rest."""
    if not (math.isfinite(factor) and factor > 0):
        raise ParameterError(
            "must be a positive number", object="scale_rate", key="factor", value=factor, remedy="give the ratio"
        )
    copies = math.ceil(factor)
    scaled = thin(superpose(trace, copies, shift_s=shift_s), factor / copies, seed=seed)
    name = trace.name if factor == 1 else f"{trace.name} at {factor:.4g} times its rate"
    return Trace(scaled.arrival_s, scaled.input_tokens, scaled.output_tokens, name, scaled.kind)


def _drawn(kind: Kind) -> Kind:
    """What a recorded trace becomes when its rows are no longer one real request each."""
    return "realised" if kind == "recorded" else kind
