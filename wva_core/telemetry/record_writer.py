"""
Writes what cycles leave behind, off the cycle's thread, into the two rings of `record_segments`.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path as FilePath
from typing import IO, Any, Self

import msgspec
import numpy as np

from wva_core.domain.fleet import Fleet
from wva_core.domain.observation import Observation, Quality, ReplicaIndex
from wva_core.domain.record import (
    Record,
    assessment_to_plain,
    ballot_to_plain,
    fleet_to_plain,
    index_to_plain,
    limits_to_plain,
    observation_to_plain,
    plan_to_plain,
    variants_to_plain,
)
from wva_core.errors import EnvironmentFault, ParameterError, RecordError
from wva_core.telemetry.delta_coding import DeltaEncoder, Path, Rows, flattened
from wva_core.telemetry.record_segments import (
    DECISIONS,
    FORMAT_VERSION,
    OBSERVATIONS,
    OPAQUE,
    REPLICA_ROWS,
    IndexLine,
    listed,
)

__all__ = ["RecordWriter"]

_MEBIBYTE = 1024 * 1024

_SHARE = 8
"""A segment closes at this part of its ring's cap, so that losing the oldest one loses little."""

_line_encoder = msgspec.json.Encoder()


class _Ring:
    """One ring of segments, as its only writer sees it."""

    def __init__(self, directory: FilePath, cap: int, segment_cycles: int, rows: Rows | None) -> None:
        self.directory = directory
        self.cap = cap
        self.segment_cycles = segment_cycles
        self.encoder = DeltaEncoder(rows)
        self.next_number = 0
        self._sizes: dict[int, int] | None = None  # bytes by segment, oldest first; None: not looked at yet
        self._segment = -1
        self._cycles = 0
        self._offset = 0
        self._files: tuple[IO[bytes], IO[bytes]] | None = None  # index, blocks

    def open(self) -> None:
        """Makes the directory, and learns what earlier processes left in it."""
        if self._sizes is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        sizes: dict[int, int] = {}
        for path in self.directory.iterdir():
            if path.suffix in {".jsonl", ".bin"} and path.stem.isdigit():
                sizes[int(path.stem)] = sizes.get(int(path.stem), 0) + path.stat().st_size
        self._sizes = dict(sorted(sizes.items()))
        self._segment = max(sizes, default=-1)
        for segment in reversed(listed(self.directory)):
            with suppress(RecordError):  # an older or newer format: its numbers are not ours
                if segment.lines:
                    self.next_number = segment.lines[-1].number + 1
                    break

    def append(self, line: dict[str, Any], leaves: dict[Path, Any], aside: Callable[[], Any]) -> None:
        """
        One more block and its index line; `aside` is asked for what goes with a full block only.

        Raises:
            OSError: the disk refuses; the next block is a full one in a new segment.
        """
        try:
            if self._files is None or self._cycles >= self.segment_cycles or self._offset * _SHARE >= self.cap:
                self._roll()
            kind = "full" if self.encoder.is_full else "delta"
            block = self.encoder.encode(leaves, aside() if self.encoder.is_full else None)
            self._write({**line, "length": len(block), "crc": zlib.crc32(block), "kind": kind}, block)
        except BaseException:
            self.encoder.reset()
            self.close()
            raise

    def _roll(self) -> None:
        self.close()
        self.encoder.reset()
        self._segment += 1
        self._cycles = self._offset = 0
        stem = self.directory / f"{self._segment:08d}"
        blocks = stem.with_suffix(".bin").open("wb")
        try:
            index = stem.with_suffix(".jsonl").open("wb")
        except BaseException:
            blocks.close()
            raise
        self._files = (index, blocks)
        self._known[self._segment] = 0

    @property
    def _known(self) -> dict[int, int]:
        assert self._sizes is not None, "opened first"  # noqa: S101 - open() precedes every append
        return self._sizes

    def _write(self, line: dict[str, Any], block: bytes) -> None:
        assert self._files is not None, "rolled first"  # noqa: S101 - append() rolls before it writes
        index, blocks = self._files
        text = _line_encoder.encode(IndexLine(**line, version=FORMAT_VERSION, offset=self._offset)) + b"\n"
        self._make_room(len(block) + len(text))
        blocks.write(block)
        blocks.flush()
        index.write(text)
        index.flush()
        self._offset += len(block)
        self._cycles += 1
        self._known[self._segment] += len(block) + len(text)

    def _make_room(self, size: int) -> None:
        while sum(self._known.values()) + size > self.cap and len(self._known) > 1:
            oldest = min(self._known)
            # the index first: without it a reader takes the segment for gone
            for suffix in (".jsonl", ".bin"):
                (self.directory / f"{oldest:08d}{suffix}").unlink(missing_ok=True)
            del self._known[oldest]

    def close(self) -> None:
        """Closes the segment; the next block begins a new one."""
        files, self._files = self._files, None
        for file in files or ():
            with suppress(OSError):
                file.close()


class RecordWriter:
    """
    Writes records into a directory, on a thread of its own, never in the way of the cycle.

    A full queue drops its oldest record, counts it in `dropped`, and makes the next block a full one with its memory,
    so that the gap can be replayed around. A disk that refuses is kept in `error` and told to `on_error` once per
    fault; writing is tried again with every record, and `error` is None again once it succeeds.

    Args:
        directory: where; made when it does not exist. Records of earlier processes are continued.
        observations_bytes, decisions_bytes: caps of the two rings. One block is always kept, however large.
        segment_cycles: records per segment.
        queue_size: records that may wait.
        on_error: told of a fault, on the writing thread.
        synchronous: write inside `append`, without a thread: for worlds whose time waits, such as a simulation.
    """

    def __init__(
        self,
        directory: str | FilePath,
        observations_bytes: int = 256 * _MEBIBYTE,
        decisions_bytes: int = 64 * _MEBIBYTE,
        segment_cycles: int = 240,
        *,
        queue_size: int = 8,
        on_error: Callable[[EnvironmentFault], None] | None = None,
        synchronous: bool = False,
    ) -> None:
        for key, value in (
            ("observations_bytes", observations_bytes),
            ("decisions_bytes", decisions_bytes),
            ("segment_cycles", segment_cycles),
            ("queue_size", queue_size),
        ):
            if value < 1:
                raise ParameterError("must be positive", object="record writer", key=key, value=value)
        self.directory = FilePath(directory)
        self.dropped = 0
        self.written = 0
        self.error: EnvironmentFault | None = None
        self._on_error = on_error
        self._observations = _Ring(self.directory / OBSERVATIONS, observations_bytes, segment_cycles, REPLICA_ROWS)
        self._decisions = _Ring(self.directory / DECISIONS, decisions_bytes, segment_cycles, None)
        self._number = -1
        self._shared = _SharedParts()
        self._queue: deque[Record] = deque()
        self._queue_size = queue_size
        self._gap = False
        self._closed = False
        self._filled = threading.Condition()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        if not synchronous:
            self._thread = threading.Thread(target=self._run, name="record-writer", daemon=True)
            self._thread.start()

    def append(self, record: Record) -> None:
        """
        Hands a record over. Never raises on account of the disk.

        Raises:
            ParameterError: the writer is closed.

        Cost: microseconds, whatever the size of the fleet: records are immutable and nothing is copied.
        """
        with self._filled:
            if self._closed:
                raise ParameterError("is closed", object="record writer", key=str(self.directory))
            if len(self._queue) >= self._queue_size:
                self._queue.popleft()
                self.dropped += 1
                self._gap = True
            self._queue.append(record)
            self._filled.notify()
        if self._thread is None:
            self._drain()

    def close(self) -> None:
        """Writes what waits, then closes the files. Calling it again does nothing."""
        with self._filled:
            self._closed = True
            self._filled.notify()
        if self._thread is not None:
            self._thread.join()
        self._drain()
        self._observations.close()
        self._decisions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._queue or self._closed)
                if self._closed and not self._queue:
                    return
            self._drain()

    def _drain(self) -> None:
        while True:
            with self._writing:
                with self._filled:
                    if not self._queue:
                        return
                    record = self._queue.popleft()
                    gap, self._gap = self._gap, False
                self._write(record, gap=gap)

    def _write(self, record: Record, *, gap: bool) -> None:
        try:
            if self._number < 0:
                self._observations.open()
                self._decisions.open()
                self._number = max(self._observations.next_number, self._decisions.next_number)
            if gap:
                self._observations.encoder.reset()
                self._decisions.encoder.reset()
            line = {"number": self._number, **_summary(record)}
            self._number += 1
            self._observations.append(
                line,
                self._shared.observation(record),
                lambda: None if record.memory is None else record.memory.to_bytes(),
            )
            self._decisions.append(line, self._shared.decision(record), lambda: None)
        except OSError as exc:
            self._refused(
                record,
                f"cannot be written: {exc.strerror or exc}",
                "free space, or make the directory writable; cycles go on without records until then",
                exc,
            )
        except Exception as exc:  # noqa: BLE001 - what a plugin left in its answer must not end the thread
            self._refused(record, f"cannot be written: {exc}", "mend the plugin whose answer is not plain data", exc)
        else:
            self.written += 1
            self.error = None

    def _refused(self, record: Record, problem: str, remedy: str, cause: Exception) -> None:
        first = self.error is None
        self.error = EnvironmentFault(problem, object=str(self.directory), key=f"cycle {record.cycle}", remedy=remedy)
        self.error.__cause__ = cause
        if first and self._on_error is not None:
            self._on_error(self.error)


class _SharedParts:
    """Leaves of a record; those of parts that are kept over cycles stay the same objects while the parts do."""

    def __init__(self) -> None:
        self._fleet: tuple[Fleet | None, Any] = (None, None)
        self._index: tuple[ReplicaIndex | None, Any] = (None, None)

    def _fleet_plain(self, fleet: Fleet) -> Any:
        if self._fleet[0] is not fleet:
            self._fleet = (fleet, self._fleet[1] if self._fleet[0] == fleet else fleet_to_plain(fleet))
        return self._fleet[1]

    def _index_plain(self, index: ReplicaIndex) -> Any:
        if self._index[0] is not index:
            self._index = (index, index_to_plain(index))
        return self._index[1]

    def _common(self, record: Record) -> dict[str, Any]:
        return {
            "policy": record.policy,
            "fleet": self._fleet_plain(record.observation.fleet),
            "failures": dict(record.failures),
            "variants": variants_to_plain(record.observation.variants),
            "base": record.base,
        }

    def observation(self, record: Record) -> dict[Path, Any]:
        """Leaves of what is needed to compute the plan again."""
        parts = {
            **self._common(record),
            "index": self._index_plain(record.observation.replicas.index),
            "observation": observation_to_plain(record.observation),
            "observed": record.observed,
        }
        return flattened(parts, OPAQUE)

    def decision(self, record: Record) -> dict[Path, Any]:
        """Leaves of what is needed to explain the plan."""
        parts = {
            **self._common(record),
            "assessments": {name: assessment_to_plain(one) for name, one in record.assessments.items()},
            "ballot": ballot_to_plain(record.ballot),
            "limits": limits_to_plain(record.limits),
            "plan": plan_to_plain(record.plan),
        }
        return flattened(parts, OPAQUE)


def _summary(record: Record) -> dict[str, Any]:
    seen, plan = record.observation, record.plan
    worst, oldest = _worst(seen)
    return {
        "cycle": record.cycle,
        "time": float(record.time),
        "variants": len(seen.fleet),
        "scopes": len(seen.fleet.scopes),
        "replicas": len(seen.replicas),
        "changed": int(np.count_nonzero(~np.isnan(plan.desired) & (plan.desired != plan.current))),
        "failed": len(record.failures),
        "degraded": bool(plan.degraded),
        "quality": worst.name.lower(),
        "oldest": oldest,
    }


def _worst(seen: Observation) -> tuple[Quality, float]:
    """
    The worst quality of any collected signal in any scope that has replicas, staleness apart, and the oldest age.

    Told like `Observation.quality`, but for the whole fleet at once: a tenth of its cost.
    """
    worst, oldest = Quality.OK, 0.0
    by_scope = seen.replicas.index.by_scope
    for name, values in seen.replicas.columns.items():
        unknown = np.isnan(values)
        if unknown.any():
            known = ~unknown
            lacking = by_scope.any(unknown) & ~by_scope.any(known)
            worst = max(worst, Quality.MISSING if lacking.any() else Quality.PARTIAL)
        if name in seen.conflicts and np.any(seen.conflicts[name]):
            worst = max(worst, Quality.CONFLICTING)
    for name, values in seen.scopes.items():
        if np.isnan(values).any():
            worst = Quality.MISSING
        if name in seen.conflicts and np.any(seen.conflicts[name]):
            worst = max(worst, Quality.CONFLICTING)
    for columns in (seen.replicas.columns, seen.scopes):
        for ages in columns.ages().values():
            known_ages = ages[~np.isnan(ages)]
            oldest = max(oldest, float(known_ages.max(initial=0.0)))
    return worst, oldest
