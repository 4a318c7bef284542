"""What is remembered: round trips through the checkpoint, and alignment when variants come and go."""

from dataclasses import replace

import numpy as np
import pytest

from wva_core.domain import Fleet, History, Memory, Variant
from wva_core.domain.codec import decode, encode
from wva_core.errors import ParameterError
from wva_core.testing.builders import fleet_of

NAN = float("nan")


def remembered(fleet):
    count = len(fleet)
    return Memory(
        fleet=fleet,
        cycle=7,
        target=np.arange(count, dtype=float),
        target_since=np.arange(count, dtype=float) * 10,
        pending_since=np.full(count, NAN),
        wishes=History((1.0, 2.0), (np.arange(count) + 0.5, np.arange(count) + 1.5)),
        changes=History((2.0,), (np.arange(count) - 1.0,)),
        informative={"mine": np.arange(len(fleet.scopes), dtype=float)},
        first_seen=np.arange(len(fleet.scopes)) + 100.0,
        states={"mine": {"version": 1, "seen": np.arange(3.0), "text": "x"}},
    )


def columns(memory):
    return {
        "target": memory.target,
        "target_since": memory.target_since,
        "pending_since": memory.pending_since,
        "wishes": memory.wishes.matrix(len(memory.fleet)),
        "changes": memory.changes.matrix(len(memory.fleet)),
        "informative": memory.informative["mine"],
        "first_seen": memory.first_seen,
    }


def assert_same(one, other):
    assert one.fleet == other.fleet
    assert (one.cycle, one.wishes.times, one.changes.times) == (other.cycle, other.wishes.times, other.changes.times)
    for name, column in columns(one).items():
        np.testing.assert_array_equal(column, columns(other)[name], err_msg=name)


def test_a_checkpoint_gives_the_memory_back_to_the_bit():
    memory = remembered(fleet_of("a", "b", "c"))
    again = Memory.from_bytes(memory.to_bytes())
    assert_same(memory, again)
    assert again.to_bytes() == memory.to_bytes()
    state = again.states["mine"]
    assert (state["version"], state["text"], state["seen"].tolist()) == (1, "x", [0.0, 1.0, 2.0])


def test_nothing_remembered_survives_too():
    again = Memory.from_bytes(Memory.empty(fleet_of("a")).to_bytes())
    assert (again.cycle, np.isnan(again.target).tolist(), len(again.wishes)) == (0, [True], 0)


def test_every_property_of_a_variant_comes_back():
    variant = Variant(
        namespace="ns",
        name="a",
        model="m",
        accelerator="H100",
        role="decode",
        service_class="gold",
        scale_target="Deployment/a",
        pool="p",
        engine="",
        launch={"max_num_seqs": 256},
    )
    fleet = Fleet([variant, Variant("ns", "b", "m")])
    assert Memory.from_bytes(Memory.empty(fleet).to_bytes()).fleet == fleet


def test_variants_that_come_and_go_take_only_their_own_along():
    before = remembered(fleet_of("b", "c", "d"))
    after = before.aligned(fleet_of("a", "c", "d", "e"))
    assert np.array_equal(after.target, [NAN, 1, 2, NAN], equal_nan=True)
    assert np.array_equal(after.wishes.matrix(4), [[NAN, 1.5, 2.5, NAN], [NAN, 2.5, 3.5, NAN]], equal_nan=True)
    assert np.array_equal(after.changes.matrix(4), [[NAN, 0, 1, NAN]], equal_nan=True)
    assert (after.cycle, dict(after.states)) == (7, dict(before.states))


def test_scopes_that_come_and_go_take_their_liveness_along():
    def fleet(*models):
        return Fleet(Variant("ns", model, model) for model in models)

    after = remembered(fleet("m", "n")).aligned(fleet("l", "n"))
    assert np.array_equal(after.informative["mine"], [NAN, 1.0], equal_nan=True)
    assert np.array_equal(after.first_seen, [NAN, 101.0], equal_nan=True)


def test_a_variant_that_went_and_came_back_is_new():
    memory = remembered(fleet_of("a", "b"))
    again = memory.aligned(fleet_of("b")).aligned(fleet_of("a", "b"))
    assert np.array_equal(again.target, [NAN, 1.0], equal_nan=True)


def test_alignment_with_an_equal_fleet_changes_nothing():
    memory = remembered(fleet_of("a", "b"))
    assert memory.aligned(memory.fleet) is memory
    other = fleet_of("a", "b")
    assert memory.aligned(other).fleet is other
    assert_same(memory.aligned(other), memory)


def test_memory_of_nobody_aligns_with_anybody():
    fleet = fleet_of("a", "b")
    after = Memory.empty().aligned(fleet)
    assert (len(after.target), len(after.first_seen)) == (2, 1)
    assert len(remembered(fleet).aligned(Fleet(())).target) == 0


def test_a_history_forgets_what_is_as_old_as_it_keeps():
    history = History()
    for time in (0.0, 15.0, 30.0, 60.0):
        history = history.appended(time, np.array([time]), 45.0)
    assert history.times == (30.0, 60.0)
    assert history.matrix(1).tolist() == [[30.0], [60.0]]


@pytest.mark.parametrize("data", [b"", b"\xc1", encode([1, 2]), encode({"version": 99})])
def test_what_is_no_checkpoint_is_refused(data):
    with pytest.raises(ParameterError):
        Memory.from_bytes(data)


def test_a_checkpoint_of_another_version_is_told():
    with pytest.raises(ParameterError) as caught:
        Memory.from_bytes(encode({"version": 99}))
    assert str(caught.value) == (
        "checkpoint: version: is not a checkpoint of this version (got 99);"
        " use one written by a release with checkpoint version 1, or start without"
    )


@pytest.mark.parametrize(
    "damage", [{"target": None}, {"target": np.zeros(5)}, {"wishes": []}, {"variants": [{"name": "a"}]}]
)
def test_a_damaged_checkpoint_is_told(damage):
    plain = decode(remembered(fleet_of("a", "b")).to_bytes())
    with pytest.raises(ParameterError, match=r"checkpoint: is damaged: .*; use another one, or start without"):
        Memory.from_bytes(encode({**plain, **damage}))


def test_a_state_that_is_no_plain_data_cannot_be_written():
    memory = replace(Memory.empty(fleet_of("a")), states={"mine": {"model": object()}})
    with pytest.raises(ParameterError, match="codec: cannot be written"):
        memory.to_bytes()
