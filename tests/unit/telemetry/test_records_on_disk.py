"""Two rings of segments: what is written comes back, and what breaks costs no more than itself."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.telemetry.made_records import (
    bits_of,
    first_record,
    fleet_of,
    index_of,
    memory_of,
    next_record,
    run_of,
    with_replicas,
)
from wva_core.errors import EnvironmentFault, ParameterError, RecordError
from wva_core.telemetry import record_writer
from wva_core.telemetry.record_reader import RecordReader
from wva_core.telemetry.record_segments import DECISIONS, OBSERVATIONS
from wva_core.telemetry.record_writer import RecordWriter


def write(directory, records, **options):
    with RecordWriter(directory, synchronous=True, **options) as writer:
        for record in records:
            writer.append(record)
    assert writer.error is None
    return writer


def files(directory, ring):
    return sorted((directory / ring).iterdir())


def ring_bytes(directory, ring):
    return sum(path.stat().st_size for path in files(directory, ring))


# --- what comes back


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_records_come_back_equal_to_the_bit(tmp_path, share):
    records = list(run_of(10, share=share))
    write(tmp_path, records, segment_cycles=4)
    assert [bits_of(record) for record in RecordReader(tmp_path).read()] == [bits_of(record) for record in records]


def test_memory_stands_at_the_start_of_every_segment_and_nowhere_else(tmp_path):
    write(tmp_path, run_of(10), segment_cycles=4)
    read = list(RecordReader(tmp_path).read())
    assert [record.memory is not None for record in read] == [position % 4 == 0 for position in range(10)]
    assert [record.memory.cycle for record in read if record.memory] == [7, 11, 15]


def test_a_change_of_fleet_policy_and_instances_inside_a_segment_comes_back(tmp_path):
    small, large = first_record(fleet_of(2), 2), first_record(fleet_of(3), [1, 0, 2, 5, 0, 1], seed=1)
    records = [
        small,
        next_record(small, 1),
        replace(large, cycle=9, time=small.time + 30),
        replace(next_record(large, 2), time=small.time + 45, policy={"mode": "act", "overrides": [1, 2.5, None]}),
        replace(with_replicas(large, index_of(large.plan.fleet, [1, 2, 2, 4, 0, 1])), time=small.time + 60),
        replace(with_replicas(large, index_of(large.plan.fleet, 2, first=3)), time=small.time + 75),
    ]
    write(tmp_path, records)
    assert len(files(tmp_path, OBSERVATIONS)) == 2
    assert [bits_of(record) for record in RecordReader(tmp_path).read()] == [bits_of(record) for record in records]


def test_parts_that_did_not_change_are_the_same_objects(tmp_path):
    write(tmp_path, run_of(6), segment_cycles=3)
    first, *rest = RecordReader(tmp_path).read()
    assert all(record.observation.fleet is first.observation.fleet for record in rest)
    assert all(record.policy is first.policy for record in rest)
    assert rest[0].observation.replicas.index is first.observation.replicas.index
    assert first.plan.fleet is first.observation.fleet


def test_several_processes_continue_one_directory(tmp_path):
    records = list(run_of(9))
    write(tmp_path, records[:4])
    write(tmp_path, records[4:])
    read = list(RecordReader(tmp_path).read())
    assert [bits_of(record) for record in read] == [bits_of(record) for record in records]
    assert [record.memory is not None for record in read] == [position in {0, 4} for position in range(9)]
    assert [line.number for line in RecordReader(tmp_path).index()] == list(range(9))


def test_an_empty_fleet_is_written_and_read(tmp_path):
    write(tmp_path, [replace(first_record(fleet_of(1), 0), failures={})])
    assert len(RecordReader(tmp_path).latest().observation.replicas) == 0


def test_the_index_says_what_happened_in_words(tmp_path):
    record = first_record(fleet_of(3), 2)
    columns = record.observation.replicas.columns
    unknown = {**columns, "ttft": np.full(columns.rows, np.nan)}
    seen = replace(
        record.observation, replicas=replace(record.observation.replicas, columns=type(columns)(12, None, unknown))
    )
    desired = record.plan.current.copy()
    desired[:2] += 1
    write(tmp_path, [replace(record, observation=seen, plan=replace(record.plan, desired=desired))])
    line = msgspec.json.decode((tmp_path / DECISIONS / "00000000.jsonl").read_bytes())
    assert line["kind"] == "full"
    assert line["cycle"] == 7
    assert line["time"] == record.time
    assert (line["variants"], line["scopes"], line["replicas"]) == (6, 3, 12)
    assert (line["changed"], line["failed"], line["degraded"]) == (2, 1, True)
    assert line["quality"] == "missing"


# --- ranges and random access


def test_a_range_holds_both_its_ends(tmp_path):
    records = list(run_of(10))
    write(tmp_path, records, segment_cycles=4)
    read = RecordReader(tmp_path).read(records[3].time, records[6].time)
    assert [record.cycle for record in read] == [record.cycle for record in records[3:7]]


def test_a_replay_begins_at_the_checkpoint_before_its_start(tmp_path):
    records = list(run_of(10))
    write(tmp_path, records, segment_cycles=4)
    first, *rest = RecordReader(tmp_path).read(records[6].time, records[8].time, from_checkpoint=True)
    assert first.memory is not None
    assert [first.cycle, *(record.cycle for record in rest)] == [record.cycle for record in records[4:9]]


def test_only_the_models_that_are_asked_for(tmp_path):
    write(tmp_path, run_of(3))
    for record in RecordReader(tmp_path).read(models=["org/model-00002"]):
        assert {variant.model for variant in record.plan.fleet.variants} == {"org/model-00002"}


@settings(max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.lists(st.floats(0, 200), min_size=1, max_size=4),
    st.lists(st.integers(0, 12), max_size=2),
)
def test_random_access_equals_reading_in_order(tmp_path_factory, count, segment_cycles, offsets, restarts):
    directory = tmp_path_factory.mktemp("records")
    records = list(run_of(count, models=1, instances=1))
    cuts = sorted({0, count, *(cut for cut in restarts if cut < count)})
    for start, stop in pairwise(cuts):
        write(directory, records[start:stop], segment_cycles=segment_cycles)
    for offset in offsets:
        time = records[0].time + offset
        expected = [record for record in RecordReader(directory).read() if record.time <= time][-1]
        found = RecordReader(directory).at(time)
        assert bits_of(found, memory=True) == bits_of(expected, memory=True)
    assert bits_of(RecordReader(directory).latest()) == bits_of(records[-1])


def test_random_access_reads_only_the_segments_it_needs(tmp_path):
    records = list(run_of(40, models=1))
    write(tmp_path, records, segment_cycles=5)
    # all other segments hold bytes that nothing could read
    for ring in (OBSERVATIONS, DECISIONS):
        for path in files(tmp_path, ring):
            if path.suffix == ".bin" and path.stem != "00000003":
                path.write_bytes(b"\xff" * path.stat().st_size)
    assert RecordReader(tmp_path).at(records[17].time).cycle == records[17].cycle


# --- rings


def test_rings_keep_their_caps_and_the_newest(tmp_path):
    records = list(run_of(60, share=1.0))
    caps = {OBSERVATIONS: 60_000, DECISIONS: 30_000}
    with RecordWriter(tmp_path, caps[OBSERVATIONS], caps[DECISIONS], synchronous=True) as writer:
        for record in records:
            writer.append(record)
            assert all(ring_bytes(tmp_path, ring) <= cap for ring, cap in caps.items())
    assert not (tmp_path / OBSERVATIONS / "00000000.bin").exists()
    read = list(RecordReader(tmp_path).read())
    assert 1 < len(read) < 60
    assert [bits_of(record) for record in read] == [bits_of(record) for record in records[-len(read) :]]
    # losing the oldest segment loses a small part
    assert all(ring_bytes(tmp_path, ring) > cap // 2 for ring, cap in caps.items())


def test_a_cap_smaller_than_one_block_keeps_the_newest_block(tmp_path):
    records = list(run_of(5))
    write(tmp_path, records, observations_bytes=10, decisions_bytes=10)
    assert [record.cycle for record in RecordReader(tmp_path).read()] == [records[-1].cycle]


def test_what_an_earlier_process_left_counts_towards_the_cap(tmp_path):
    records = list(run_of(40, share=1.0))
    write(tmp_path, records[:20])
    write(tmp_path, records[20:], observations_bytes=60_000)
    assert ring_bytes(tmp_path, OBSERVATIONS) <= 60_000


def test_decisions_outlive_observations(tmp_path):
    records = list(run_of(40, share=1.0))
    write(tmp_path, records, segment_cycles=4, observations_bytes=60_000)
    reader = RecordReader(tmp_path)
    complete, every = list(reader.read()), list(reader.read(decisions_only=True))
    assert len(complete) < len(every) == 40
    assert all(record.observed for record in complete)
    assert [record.observed for record in every] == [position >= 40 - len(complete) for position in range(40)]
    old = reader.at(records[2].time)
    assert not old.observed
    assert np.array_equal(old.plan.desired, records[2].plan.desired, equal_nan=True)
    assert np.array_equal(old.observation.variants.ready, records[2].observation.variants.ready)


# --- crashes and disks


@pytest.mark.parametrize("ring", [OBSERVATIONS, DECISIONS])
@pytest.mark.parametrize("lost", [1, 40, 200])
def test_a_torn_index_line_is_as_if_never_written(tmp_path, ring, lost):
    records = list(run_of(6))
    write(tmp_path, records)
    path = tmp_path / ring / "00000000.jsonl"
    os.truncate(path, path.stat().st_size - lost)
    read = list(RecordReader(tmp_path).read())
    assert [bits_of(record) for record in read] == [bits_of(record) for record in records[:5]]


@pytest.mark.parametrize("ring", [OBSERVATIONS, DECISIONS])
def test_a_torn_block_is_as_if_never_written(tmp_path, ring):
    records = list(run_of(6))
    write(tmp_path, records)
    path = tmp_path / ring / "00000000.bin"
    os.truncate(path, path.stat().st_size - 1)
    read = list(RecordReader(tmp_path).read())
    assert [record.cycle for record in read] == [record.cycle for record in records[:5]]


def test_a_last_block_of_wrong_bytes_is_as_if_never_written(tmp_path):
    records = list(run_of(6))
    write(tmp_path, records)
    for ring in (OBSERVATIONS, DECISIONS):
        path = tmp_path / ring / "00000000.bin"
        path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    reader = RecordReader(tmp_path)
    assert [record.cycle for record in reader.read()] == [record.cycle for record in records[:5]]
    assert reader.latest().cycle == records[4].cycle


def test_writing_goes_on_after_a_torn_tail(tmp_path):
    records = list(run_of(8))
    write(tmp_path, records[:4])
    for ring in (OBSERVATIONS, DECISIONS):
        path = tmp_path / ring / "00000000.jsonl"
        os.truncate(path, path.stat().st_size - 10)
    write(tmp_path, records[4:])
    cycles = [record.cycle for record in RecordReader(tmp_path).read()]
    assert cycles == [record.cycle for position, record in enumerate(records) if position != 3]


def test_a_block_damaged_in_the_middle_is_named(tmp_path):
    records = list(run_of(6))
    write(tmp_path, records)
    path = tmp_path / OBSERVATIONS / "00000000.bin"
    data = bytearray(path.read_bytes())
    data[100:110] = b"\0" * 10
    path.write_bytes(data)
    with pytest.raises(RecordError) as refusal:
        list(RecordReader(tmp_path).read())
    assert str(refusal.value) == (
        f"{path}: cycle 7: is damaged; move 00000000.jsonl and 00000000.bin away to read the rest"
    )


def test_a_segment_without_a_finished_record_is_passed_over(tmp_path):
    records = list(run_of(6))
    write(tmp_path, records, segment_cycles=2)
    for ring in (OBSERVATIONS, DECISIONS):
        os.truncate(tmp_path / ring / "00000001.jsonl", 20)
    reader = RecordReader(tmp_path)
    assert [record.cycle for record in reader.read()] == [records[row].cycle for row in (0, 1, 4, 5)]
    assert reader.at(records[3].time).cycle == records[1].cycle


def test_a_disk_that_refuses_is_told_once_and_never_to_the_cycle(tmp_path):
    told = []
    (tmp_path / "records").write_text("a file where a directory should be")
    records = list(run_of(4))
    with RecordWriter(tmp_path / "records", on_error=told.append, synchronous=True) as writer:
        writer.append(records[0])
        writer.append(records[1])
        assert [type(fault) for fault in told] == [EnvironmentFault]
        assert writer.error is not None
        assert writer.error.key == "cycle 8"
        assert "make the directory writable" in str(writer.error)
        (tmp_path / "records").unlink()  # the operator mends it
        writer.append(records[2])
        writer.append(records[3])
        assert writer.error is None
    assert len(told) == 1
    read = list(RecordReader(tmp_path / "records").read())
    assert [bits_of(record) for record in read] == [bits_of(record) for record in records[2:]]
    assert read[0].memory is not None


def test_after_a_failed_write_the_next_record_stands_alone(tmp_path, monkeypatch):
    records = list(run_of(4))
    told = []
    with RecordWriter(tmp_path, on_error=told.append, synchronous=True) as writer:
        writer.append(records[0])
        with monkeypatch.context() as patch:
            # the disk is full in the middle of a block
            def full_disk(ring, line, block):
                ring._files[1].write(block[:10])
                ring._files[1].flush()
                raise OSError(28, "No space left on device")

            patch.setattr(record_writer._Ring, "_write", full_disk)
            writer.append(records[1])
        writer.append(records[2])
        writer.append(records[3])
    assert "No space left on device" in str(told[0])
    read = list(RecordReader(tmp_path).read())
    assert [bits_of(record) for record in read] == [bits_of(records[row]) for row in (0, 2, 3)]
    assert [record.memory is not None for record in read] == [True, True, False]


def test_an_answer_that_is_not_plain_data_costs_its_own_record_only(tmp_path):
    records = list(run_of(3))
    odd = replace(records[1], failures={"slow": object()})
    told = []
    with RecordWriter(tmp_path, on_error=told.append, synchronous=True) as writer:
        for record in (records[0], odd, records[2]):
            writer.append(record)
    assert "not plain data" in str(told[0])
    assert [record.cycle for record in RecordReader(tmp_path).read()] == [7, 9]


# --- the queue


def test_a_full_queue_drops_its_oldest_and_the_next_block_has_its_memory(tmp_path):
    records = list(run_of(9))
    writer = RecordWriter(tmp_path, queue_size=3)
    with writer._writing:  # the thread takes nothing from the queue meanwhile
        for record in records[:8]:
            writer.append(record)
        assert writer.dropped == 5
    writer.close()
    assert writer.written == 3
    assert [record.cycle for record in RecordReader(tmp_path).read()] == [record.cycle for record in records[5:8]]


def test_a_gap_inside_a_segment_is_followed_by_a_checkpoint(tmp_path):
    records = list(run_of(8))
    writer = RecordWriter(tmp_path, queue_size=2, synchronous=True)
    for record in records[:3]:
        writer.append(record)
    with writer._filled:  # as when three more came while the thread was busy
        writer._queue.extend(records[4:5])
        writer._gap = True
    for record in records[5:]:
        writer.append(record)
    writer.close()
    read = list(RecordReader(tmp_path).read())
    kept = [*records[:3], *records[4:]]
    assert [bits_of(record) for record in read] == [bits_of(record) for record in kept]
    assert [record.memory is not None for record in read] == [True, False, False, True, False, False, False]
    assert len(files(tmp_path, OBSERVATIONS)) == 2
    assert bits_of(RecordReader(tmp_path).at(records[6].time)) == bits_of(records[6])


def test_a_thread_writes_what_was_handed_over(tmp_path):
    records = list(run_of(20))
    with RecordWriter(tmp_path, queue_size=100) as writer:
        for record in records:
            writer.append(record)
    assert writer.dropped == 0
    assert [bits_of(record) for record in RecordReader(tmp_path).read()] == [bits_of(record) for record in records]


def test_a_closed_writer_takes_nothing(tmp_path):
    writer = RecordWriter(tmp_path, synchronous=True)
    writer.close()
    writer.close()
    with pytest.raises(ParameterError, match="is closed"):
        writer.append(first_record(fleet_of(1), 1))


@pytest.mark.parametrize("option", ["observations_bytes", "decisions_bytes", "segment_cycles", "queue_size"])
def test_sizes_must_be_positive(tmp_path, option):
    with pytest.raises(ParameterError, match=option):
        RecordWriter(tmp_path, **{option: 0})


def test_the_memory_is_made_plain_for_checkpoints_only(tmp_path):
    asked = []

    class Counted:
        def to_bytes(self):
            asked.append(1)
            return memory_of(fleet_of(3), 7).to_bytes()

    write(tmp_path, [replace(record, memory=Counted()) for record in run_of(6)], segment_cycles=3)
    assert len(asked) == 2


# --- refusals


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(RecordError) as refusal:
        RecordReader(tmp_path / "nowhere")
    assert str(refusal.value) == (
        f"{tmp_path / 'nowhere'}: is not a directory; name the directory that records are written to"
    )


def test_a_directory_without_records_is_named(tmp_path):
    with pytest.raises(RecordError) as refusal:
        RecordReader(tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path}: holds no records; "
        "name a directory with observations/ and decisions/ in it, once a cycle was written"
    )


def test_another_version_is_refused_with_what_to_do(tmp_path):
    write(tmp_path, run_of(2))
    path = tmp_path / DECISIONS / "00000000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":9'))
    with pytest.raises(RecordError) as refusal:
        RecordReader(tmp_path).latest()
    assert str(refusal.value) == (
        f"{path}: version: is of a version this release does not read (got 9); "
        "read it with the release that wrote it; this one reads version 1"
    )


def test_an_index_that_is_not_json_is_named(tmp_path):
    write(tmp_path, run_of(3))
    path = tmp_path / DECISIONS / "00000000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"nonsense\n" + lines[2])
    with pytest.raises(RecordError, match=r"00000000\.jsonl: line 2: is not an index line"):
        RecordReader(tmp_path).latest()


def test_a_time_before_the_first_record_is_refused_with_the_range(tmp_path):
    write(tmp_path, (replace(record, time=1000.0 + 15 * row) for row, record in enumerate(run_of(3))))
    with pytest.raises(RecordError) as refusal:
        RecordReader(tmp_path).at(999.0)
    assert str(refusal.value) == (
        f"{tmp_path}: time: holds no record that old (got 999.0); ask for a time between 1000 and 1030"
    )
    with pytest.raises(RecordError, match=r"2000\.0 \.\. end: holds no complete record in that range"):
        list(RecordReader(tmp_path).read(2000.0))
