"""
Where records stand on disk: two rings of segments in one directory, each segment an index and its blocks.

    RECORDS/
      observations/NNNNNNNN.jsonl  one index line a cycle, written after its block
                   NNNNNNNN.bin    the blocks
      decisions/   likewise

`observations` holds what is needed to compute a plan again: signals, policy, and at every full block the memory the
cycle started from. `decisions` holds what is needed to explain one: ballot, assessments, limits, plan and variants;
it is smaller and so reaches further back. A segment begins with a full block and so stands alone; the oldest goes when
its ring exceeds its cap. A block whose index line is missing or torn was never finished, and is as if never written.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import IO

import msgspec

from wva_core.errors import RecordError
from wva_core.telemetry.delta_coding import Rows

__all__ = [
    "DECISIONS",
    "FORMAT_VERSION",
    "OBSERVATIONS",
    "OPAQUE",
    "REPLICA_ROWS",
    "IndexLine",
    "Segment",
    "listed",
    "with_records",
]

OBSERVATIONS = "observations"
DECISIONS = "decisions"

FORMAT_VERSION = 1

_SURELY_A_LINE = 1024
"""Bytes of an index that hold a whole line for sure; a line has about 300."""

REPLICA_ROWS = Rows(
    names=(("index", "variant"), ("index", "pods"), ("index", "instances")), over=("observation", "replicas")
)
OPAQUE = frozenset({"policy", "fleet"})


class IndexLine(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the index says of one cycle; a line of JSON, for people and other tools as much as for the reader.

    Attributes:
        version: of the format.
        number: position in the directory, counted over restarts; joins the two rings.
        cycle, time: of the record, seconds.
        offset, length, crc: where the block is in the `.bin` beside, and the CRC-32 of its bytes.
        kind: `full` or `delta`.
        variants, scopes, replicas: how many rows were seen.
        changed: variants whose desired replicas differ from the current ones.
        failed: entries that had no say.
        degraded: as the plan says.
        quality: the worst `Quality` of any signal that was collected, in any scope with replicas; staleness apart.
        oldest: age of the oldest known value in seconds.
    """

    version: int
    number: int
    cycle: int
    time: float
    offset: int
    length: int
    crc: int
    kind: str
    variants: int = 0
    scopes: int = 0
    replicas: int = 0
    changed: int = 0
    failed: int = 0
    degraded: bool = False
    quality: str = ""
    oldest: float = 0.0

    @property
    def is_full(self) -> bool:
        """Whether decoding can start here."""
        return self.kind == "full"


_line_decoder = msgspec.json.Decoder(IndexLine)


@dataclass(frozen=True)
class Segment:
    """
    One segment of a ring, as far as it was finished.

    Attributes:
        ring: `observations` or `decisions`.
        number: of the segment in its ring.
        index, blocks: the two files.
    """

    ring: str
    number: int
    index: FilePath
    blocks: FilePath

    @cached_property
    def first(self) -> IndexLine | None:
        """The first index line, without reading the others; None where none was finished."""
        with self._open(self.index) as file:
            line = file.readline()
        return self._line(line, 1) if line.endswith(b"\n") else None

    @cached_property
    def lines(self) -> tuple[IndexLine, ...]:
        """The index lines whose blocks were finished, oldest first."""
        with self._open(self.index) as file:
            texts = file.read().split(b"\n")
        finished = texts[:-1]  # what follows the last line end is torn, or nothing
        lines = [self._line(text, row) for row, text in enumerate(finished, start=1)]
        try:
            size = self.blocks.stat().st_size
        except OSError as exc:
            raise self.unreadable(self.blocks, exc) from exc
        while lines and lines[-1].offset + lines[-1].length > size:
            lines.pop()
        return tuple(lines)

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return self.index.stat().st_size + self.blocks.stat().st_size

    def block(self, file: IO[bytes], line: IndexLine) -> bytes | None:
        """
        The bytes of one block; None for the last one if it is torn.

        Raises:
            RecordError: a block before the last is damaged.
        """
        file.seek(line.offset)
        data = file.read(line.length)
        if len(data) == line.length and zlib.crc32(data) == line.crc:
            return data
        if line is self.lines[-1]:
            return None
        raise RecordError(
            "is damaged",
            object=str(self.blocks),
            key=f"cycle {line.cycle}",
            remedy=f"move {self.index.name} and {self.blocks.name} away to read the rest",
        )

    def _line(self, text: bytes, row: int) -> IndexLine:
        try:
            plain = msgspec.json.decode(text)
            version = plain.get("version")
            if version == FORMAT_VERSION:
                return _line_decoder.decode(text)
        except (msgspec.MsgspecError, AttributeError) as exc:
            raise RecordError(
                f"is not an index line: {exc}",
                object=str(self.index),
                key=f"line {row}",
                remedy=f"move {self.index.name} and {self.blocks.name} away to read the rest",
            ) from exc
        raise RecordError(
            "is of a version this release does not read",
            object=str(self.index),
            key="version",
            value=version,
            remedy=f"read it with the release that wrote it; this one reads version {FORMAT_VERSION}",
        )

    def _open(self, path: FilePath) -> IO[bytes]:
        try:
            return path.open("rb")
        except OSError as exc:
            raise self.unreadable(path, exc) from exc

    @staticmethod
    def unreadable(path: FilePath, exc: OSError) -> RecordError:
        """The error for a file that is there and cannot be read."""
        return RecordError(
            f"cannot be read: {exc.strerror or exc}",
            object=str(path),
            remedy="check its permissions; a segment that a running writer just deleted is gone for good",
        )


def listed(directory: FilePath) -> list[Segment]:
    """Segments by their names alone, oldest first."""
    if not directory.is_dir():
        return []
    stems = sorted(path.stem for path in directory.glob("*.jsonl") if path.stem.isdigit())
    return [
        Segment(directory.name, int(stem), directory / f"{stem}.jsonl", directory / f"{stem}.bin") for stem in stems
    ]


def with_records(directory: FilePath) -> list[Segment]:
    """
    Segments with at least one finished record, oldest first.

    Only the small ones are looked into: an index larger than a few lines has a whole one.
    """

    def has_record(segment: Segment) -> bool:
        try:
            if segment.index.stat().st_size > _SURELY_A_LINE:
                return segment.blocks.exists()
        except OSError:  # the writer deleted it since
            return False
        return segment.blocks.exists() and len(segment.lines) > 0

    return [segment for segment in listed(directory) if has_record(segment)]
