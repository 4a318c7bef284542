"""
What a record costs: handing it over, encoding it, and its bytes, against writing the whole thing every cycle.

10,000 variants with 10 engine instances each, 15 signals an instance, of which 0, 10 or 100 % of the cells change from
cycle to cycle; then the same with 1 % of the pods replaced. The yardstick is `codec.encode` of the whole record, made
in the same run.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.unit.telemetry.made_records import first_record, fleet_of, index_of, next_record, with_replicas
from wva_core.domain.codec import encode
from wva_core.domain.record import Record
from wva_core.telemetry.record_reader import RecordReader
from wva_core.telemetry.record_segments import DECISIONS, OBSERVATIONS
from wva_core.telemetry.record_writer import RecordWriter

ROUNDS = 5


def best_ms(call: Callable[[], object]) -> float:
    """Milliseconds of one call; the quietest of a few."""
    gc.collect()
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def whole(record: Record) -> bytes:
    """The record as one block, with everything in it but the memory."""
    return encode({**record.to_plain(), "memory": None})


def ring_bytes(directory: Path) -> int:
    """Bytes of all blocks and index lines."""
    return sum(path.stat().st_size for ring in (OBSERVATIONS, DECISIONS) for path in (directory / ring).iterdir())


def case(name: str, records: list[Record]) -> None:
    """Print one line: the second record and later ones, which are deltas."""
    full_ms = min(best_ms(lambda record=record: whole(record)) for record in records[1:])
    full_bytes = len(whole(records[-1]))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        writer = RecordWriter(directory, 2**33, 2**33, synchronous=True)
        first_ms = best_ms(lambda: writer.append(records[0]))
        before = ring_bytes(directory)
        encode_ms = [best_ms(lambda record=record: writer.append(record)) for record in records[1:]]
        size = (ring_bytes(directory) - before) / (len(records) - 1)
        writer.close()
        read_ms = best_ms(RecordReader(directory).latest)
    with (
        tempfile.TemporaryDirectory() as folder,
        RecordWriter(folder, 2**33, 2**33, queue_size=100) as writer,
        writer._writing,  # the thread waits meanwhile: what is measured is the cycle's side alone
    ):
        handed_us = 1e3 * min(best_ms(lambda record=record: writer.append(record)) for record in records)
    print(
        f"  {name:32} hand over {handed_us:6.1f} us   first block {first_ms:7.1f} ms   then {min(encode_ms):7.1f} ms "
        f"({min(encode_ms) / full_ms:5.2f} of whole)   {size / 1e3:9.1f} kB ({size / full_bytes:6.4f} of whole)   "
        f"read the last of {len(records)} {read_ms:7.1f} ms"
    )


def main() -> None:
    """Print one line per case."""
    fleet = fleet_of(5000, 2)
    first = first_record(fleet, 10)
    print(f"  whole record: {len(whole(first)) / 1e6:.1f} MB in {best_ms(lambda: whole(first)):.0f} ms")
    for share in (0.0, 0.1, 1.0):
        records = [first]
        for cycle in range(ROUNDS):
            records.append(next_record(records[-1], cycle + 1, share))
        case(f"{share:.0%} of the cells", records)
    records = [first]
    counts = np.full(len(fleet), 10)
    for cycle in range(ROUNDS):
        counts[cycle::100] += 1
        moved = next_record(records[-1], cycle + 1, 0.1)
        records.append(with_replicas(moved, index_of(fleet, counts.tolist()), cycle))
    case("10% of the cells, 100 new pods", records)


if __name__ == "__main__":
    main()
