"""
Reads what a `RecordWriter` left: cycles in order, or the one at a time, without decoding what lies between.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator
from pathlib import Path as FilePath
from typing import Any

from wva_core.domain.fleet import Fleet
from wva_core.domain.record import Record, fleet_from_plain, index_from_plain
from wva_core.errors import ParameterError, RecordError
from wva_core.telemetry.delta_coding import DeltaDecoder, Path, Rows, nested
from wva_core.telemetry.record_segments import (
    DECISIONS,
    OBSERVATIONS,
    REPLICA_ROWS,
    IndexLine,
    Segment,
    with_records,
)

__all__ = ["RecordReader"]


class _RingReader:
    """One ring: where records are, and their leaves in order."""

    def __init__(self, directory: FilePath, rows: Rows | None) -> None:
        self.segments = with_records(directory)
        self._rows = rows

    def locate(self, key: Callable[[IndexLine], float], value: float, *, after: bool = False) -> tuple[int, int] | None:
        """
        (segment, line) of the newest record whose key is not above `value`, or with `after` the oldest not below it.

        Reads the first line of O(log segments) segments and the index of one.
        """

        def first(segment: Segment) -> float:
            assert segment.first is not None  # noqa: S101 - segments without a line are not listed
            return key(segment.first)

        place = bisect_right(self.segments, value, key=first) - 1
        if after:
            place = max(bisect_left(self.segments, value, key=first) - 1, 0)
            while place < len(self.segments):
                line = bisect_left(self.segments[place].lines, value, key=key)
                if line < len(self.segments[place].lines):
                    return place, line
                place += 1
            return None
        while place >= 0:
            line = bisect_right(self.segments[place].lines, value, key=key) - 1
            if line >= 0:
                return place, line
            place -= 1
        return None

    def before(self, place: tuple[int, int]) -> tuple[int, int] | None:
        """The record before one."""
        segment, line = place
        while line == 0 and segment > 0:
            segment, line = segment - 1, len(self.segments[segment - 1].lines)
        return (segment, line - 1) if line else None

    def checkpoint(self, place: tuple[int, int]) -> tuple[int, int]:
        """The full block from which a record can be decoded."""
        segment, line = place
        lines = self.segments[segment].lines
        return segment, next(row for row in range(line, -1, -1) if lines[row].is_full)

    def walk(self, place: tuple[int, int] | None) -> Iterator[tuple[IndexLine, dict[Path, Any], bytes | None]]:
        """Lines with leaves and checkpoint from one record on. Leaves are those of the moment: use them at once."""
        if place is None:
            return
        start = place[1]
        for segment in self.segments[place[0] :]:
            yield from self._walk_segment(segment, start)
            start = 0

    def _walk_segment(self, segment: Segment, start: int) -> Iterator[tuple[IndexLine, dict[Path, Any], bytes | None]]:
        lines = segment.lines
        begin = next((row for row in range(min(start, len(lines) - 1), -1, -1) if lines[row].is_full), None)
        if begin is None:
            return
        decoder = DeltaDecoder(self._rows)
        try:
            with segment.blocks.open("rb") as file:
                for row in range(begin, len(lines)):
                    block = segment.block(file, lines[row])
                    if block is None:
                        return
                    aside = self._decoded(decoder, segment, lines[row], block)
                    if row >= start:
                        yield lines[row], decoder.leaves, aside
        except OSError as exc:
            raise segment.unreadable(segment.blocks, exc) from exc

    @staticmethod
    def _decoded(decoder: DeltaDecoder, segment: Segment, line: IndexLine, block: bytes) -> Any:
        try:
            return decoder.decode(block, full=line.is_full)
        except ParameterError as exc:
            raise RecordError(
                exc.problem,
                object=str(segment.blocks),
                key=f"cycle {line.cycle}",
                remedy=f"move {segment.index.name} and {segment.blocks.name} away to read the rest",
            ) from exc


class RecordReader:
    """
    Reads what a `RecordWriter` left, also while it is still writing: what is there when the reader is made.

    Times are assumed not to go back within one directory.

    Raises:
        RecordError: there is no such directory, or no record in it.
    """

    def __init__(self, directory: str | FilePath) -> None:
        self.directory = FilePath(directory)
        if not self.directory.is_dir():
            raise RecordError(
                "is not a directory", object=str(directory), remedy="name the directory that records are written to"
            )
        self._observations = _RingReader(self.directory / OBSERVATIONS, REPLICA_ROWS)
        self._decisions = _RingReader(self.directory / DECISIONS, None)
        if not self._decisions.segments:
            inside = sorted(path.parent.name for path in self.directory.glob(f"*/{DECISIONS}"))
            raise RecordError(
                "holds no records itself" if inside else "holds no records",
                object=str(directory),
                remedy=f"name one of the folders in it: {', '.join(inside[:10])}"
                if inside
                else f"name a directory with {OBSERVATIONS}/ and {DECISIONS}/ in it, once a cycle was written",
            )
        self._shared: dict[str, tuple[Any, Any]] = {}

    def segments(self) -> tuple[Segment, ...]:
        """The segments of both rings, oldest first within each."""
        return (*self._observations.segments, *self._decisions.segments)

    def span(self) -> tuple[float, float]:
        """Times of the first and the last record."""
        first = self._decisions.segments[0].first
        last = self._last_line()
        assert first is not None  # noqa: S101 - segments without a line are not listed
        return first.time, last.time

    def index(self) -> Iterator[IndexLine]:
        """What the index says of every cycle, oldest first, without reading a block."""
        for segment in self._decisions.segments:
            yield from segment.lines

    def read(
        self,
        start: float | None = None,
        end: float | None = None,
        models: Collection[str] | None = None,
        *,
        from_checkpoint: bool = False,
        decisions_only: bool = False,
    ) -> Iterator[Record]:
        """
        Records in the order of their cycles.

        Args:
            start, end: only records between these times, both included, seconds.
            models: only these models, in every namespace (see `Record.restricted`).
            from_checkpoint: begin at the newest record not after `start` that has its memory, to replay from there.
            decisions_only: also the records of which only the decision is left (`observed` is False).

        Raises:
            RecordError: nothing lies in that range, or a file cannot be read.

        Cost: index files of the segments that are used, and their blocks from the first one before `start`.
        """
        count = 0
        for record in self._joined(start, end, from_checkpoint=from_checkpoint, decisions_only=decisions_only):
            count += 1
            yield record if models is None else record.restricted(models)
        if count == 0:
            first, last = self.span()
            raise RecordError(
                f"holds no {'' if decisions_only else 'complete '}record in that range",
                object=str(self.directory),
                key=f"{'start' if start is None else start} .. {'end' if end is None else end}",
                remedy=f"ask for times between {first:g} and {last:g}",
            )

    def latest(self) -> Record:
        """The newest record."""
        return self._at(self._decisions.locate(_by_number, self._last_line().number))

    def at(self, time: float) -> Record:
        """
        The newest record that is not after `time`, seconds.

        Raises:
            RecordError: all records are after it.

        Cost: the index of one segment per ring, and its blocks up to that record.
        """
        place = self._decisions.locate(_by_time, time)
        if place is None:
            first, last = self.span()
            raise RecordError(
                "holds no record that old",
                object=str(self.directory),
                key="time",
                value=time,
                remedy=f"ask for a time between {first:g} and {last:g}",
            )
        return self._at(place)

    def _last_line(self) -> IndexLine:
        for segment in reversed(self._decisions.segments):
            if segment.lines:
                return segment.lines[-1]
        raise self._nothing_finished()

    def _nothing_finished(self) -> RecordError:
        return RecordError(
            "holds no finished record", object=str(self.directory), remedy="wait for the next cycle to be written"
        )

    def _at(self, place: tuple[int, int] | None) -> Record:
        while place is not None:
            decision = next(self._decisions.walk(place), None)
            if decision is not None:
                number = decision[0].number
                seen = self._observations.locate(_by_number, number)
                observation = next(self._observations.walk(seen), None)
                if observation is not None and observation[0].number != number:
                    observation = None
                return self._record(decision, observation)
            # the block was torn: what is asked for is the one before it
            place = self._decisions.before(place)
        raise self._nothing_finished()

    def _joined(
        self, start: float | None, end: float | None, *, from_checkpoint: bool, decisions_only: bool
    ) -> Iterator[Record]:
        place: tuple[int, int] | None = (0, 0)
        if start is not None:
            place = self._decisions.locate(_by_time, start, after=True)
        if from_checkpoint:
            place = self._replayable(start)
        if place is None:
            return
        first = self._decisions.segments[place[0]].lines[place[1]].number
        seen_from = self._observations.locate(_by_number, first, after=True)
        observations = self._observations.walk(seen_from)
        if not decisions_only and not from_checkpoint and seen_from is not None:
            # decisions reach further back: skip what has no observation without decoding it
            oldest = self._observations.segments[seen_from[0]].lines[seen_from[1]].number
            place = self._decisions.locate(_by_number, max(first, oldest), after=True)
        observation = next(observations, None)
        for decision in self._decisions.walk(place):
            line = decision[0]
            if end is not None and line.time > end:
                return
            while observation is not None and observation[0].number < line.number:
                observation = next(observations, None)
            if observation is not None and observation[0].number == line.number:
                yield self._record(decision, observation)
            elif decisions_only:
                yield self._record(decision, None)

    def _replayable(self, start: float | None) -> tuple[int, int] | None:
        """The decision of the newest checkpoint not after `start`; of the oldest there is, where none is so old."""
        if not self._observations.segments:
            return None
        place = None if start is None else self._observations.locate(_by_time, start)
        segment, line = self._observations.checkpoint((0, 0) if place is None else place)
        number = self._observations.segments[segment].lines[line].number
        return self._decisions.locate(_by_number, number, after=True)

    def _record(self, decision: tuple[IndexLine, dict[Path, Any], Any], observation: Any) -> Record:
        line, leaves, _ = decision
        plain = nested(leaves)
        plain |= {"cycle": line.cycle, "time": line.time, "observed": observation is not None}
        index = None
        if observation is not None:
            plain |= nested(observation[1])
            plain["memory"] = observation[2]
        try:
            rows = self._kept_equal("variants", plain["fleet"])
            plain["policy"] = self._kept_equal("policy", plain["policy"])
            fleet: Fleet = self._kept("fleet", (rows,), lambda: fleet_from_plain(rows))
            if observation is not None:
                # one index while neither it nor the fleet changes, so that what is built on it is kept as well
                parts = plain["index"]
                key = (fleet, *(parts[name] for name in ("variant", "pods", "instances")))
                index = self._kept("index", key, lambda: index_from_plain(parts, fleet))
            return Record.from_plain(plain, fleet=fleet, index=index)
        except (ParameterError, KeyError, TypeError, IndexError) as exc:
            raise RecordError(
                f"does not fit this release: {exc}",
                object=str(self.directory),
                key=f"cycle {line.cycle}",
                remedy="read it with the release that wrote it",
            ) from exc

    def _kept_equal(self, name: str, value: Any) -> Any:
        """The equal object of last time, else this one: segments repeat what did not change."""
        before = self._shared.get(name)
        if before is None or (before[0] is not value and before[0] != value):
            before = self._shared[name] = (value, None)
        return before[0]

    def _kept(self, name: str, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """The object made from the same leaves last time, else a new one."""
        before = self._shared.get(name)
        if before is None or len(before[0]) != len(key) or any(a is not b for a, b in zip(before[0], key, strict=True)):
            before = self._shared[name] = (key, make())
        return before[1]


def _by_time(line: IndexLine) -> float:
    return line.time


def _by_number(line: IndexLine) -> float:
    return line.number
