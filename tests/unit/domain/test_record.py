"""A record becomes plain data and comes back equal to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.telemetry.made_records import bits_of, first_record, fleet_of
from wva_core.domain import Fleet, Observation, Variant, VariantTable
from wva_core.domain.codec import decode, encode
from wva_core.domain.record import Record, fleet_from_plain, fleet_to_plain


@pytest.mark.parametrize("models", [1, 4])
def test_a_record_comes_back_equal_to_the_bit(models):
    record = first_record(fleet_of(models), 3)
    again = Record.from_plain(decode(encode(record.to_plain())))
    assert bits_of(again, memory=True) == bits_of(record, memory=True)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 4), min_size=2, max_size=2))
def test_a_record_of_any_numbers_comes_back_equal_to_the_bit(seed, instances):
    record = first_record(fleet_of(1), instances, seed)
    assert bits_of(Record.from_plain(decode(encode(record.to_plain())))) == bits_of(record)


def test_the_bits_of_an_unusual_nan_survive():
    # a quiet NaN with a payload: equal to no number, and not the NaN that numpy makes
    payload = np.array([0x7FF8_0000_0000_BEEF], dtype=np.uint64).view(np.float64)
    fleet = Fleet([Variant("ns", "a", "m")])
    record = first_record(fleet, 1)
    table = VariantTable.of([1.0], cost=payload)
    assert table.cost.view(np.uint64)[0] == 0x7FF8_0000_0000_BEEF
    record = Record.from_plain({**record.to_plain(), "variants": record.to_plain()["variants"] | {"cost": table.cost}})
    again = Record.from_plain(decode(encode(record.to_plain())))
    assert again.observation.variants.cost.view(np.uint64)[0] == 0x7FF8_0000_0000_BEEF


def test_decoded_columns_are_read_only():
    again = Record.from_plain(decode(encode(first_record(fleet_of(2), 2).to_plain())))
    for column in (again.plan.desired, again.observation.replicas["kv_usage"], again.ballot.votes[0].required):
        assert not column.flags.writeable


def test_a_fleet_comes_back_equal():
    fleet = Fleet(
        [
            Variant("b", "x", "m", role="prefill", service_class="gold", launch={"tp": 2, "flags": ["a"]}),
            Variant("a", "y", "m", engine="sglang", pool="p"),
        ]
    )
    assert fleet_from_plain(decode(encode(fleet_to_plain(fleet)))) == fleet


def test_states_of_analyzers_are_left_to_memory():
    record = first_record(fleet_of(1), 1)
    again = Record.from_plain(record.to_plain())
    assert all(not one.state for one in again.assessments.values())
    assert again.memory is not None
    assert again.memory.states["load"]["seen"].tolist() == [0.0, 1.0, 2.0]


def test_a_record_without_observation_knows_its_variants_and_no_signal():
    plain = first_record(fleet_of(2), 2).to_plain()
    again = Record.from_plain({**plain, "observation": None, "observed": False})
    assert not again.observed
    assert np.array_equal(again.observation.variants.current, plain["variants"]["current"])
    assert len(again.observation.replicas) == 0
    assert np.all(np.isnan(again.observation.scopes["queue_size"]))


def test_a_restricted_record_has_the_rows_of_its_models_and_no_others():
    record = first_record(fleet_of(3), 2)
    some = record.restricted({"org/model-00001"})
    whole = record.observation
    # two variants a model, two instances a variant, sorted by model: variants 2 and 3, rows 4 to 7, scope 1
    assert [variant.model for variant in some.observation.fleet.variants] == ["org/model-00001"] * 2
    assert some.plan.fleet is some.observation.fleet
    assert np.array_equal(some.plan.desired, record.plan.desired[2:4], equal_nan=True)
    assert np.array_equal(some.observation.replicas["ttft"], whole.replicas["ttft"][4:8], equal_nan=True)
    assert some.observation.replicas.index.pods == whole.replicas.index.pods[4:8]
    assert np.array_equal(some.observation.scopes["queue_size"], whole.scopes["queue_size"][1:2])
    assert np.array_equal(some.assessments["load"].details["demand"], record.assessments["load"].demand[1:2])
    assert np.array_equal(some.ballot.votes[0].capacity, record.ballot.votes[0].capacity[2:4], equal_nan=True)
    assert some.limits.rows.labels == record.limits.rows.labels
    assert some.limits.rows.variant.tolist() == [0, 1]
    assert [group.tolist() for group in some.limits.together] == []
    assert some.memory is None


def test_a_restricted_record_keeps_what_goes_together():
    record = first_record(fleet_of(3), 2)
    # groups are [0] and [0, 5]; the last model has variants 4 and 5
    assert [group.tolist() for group in record.restricted({"org/model-00002"}).limits.together] == [[1]]


def test_nothing_given_is_nothing_known():
    fleet = fleet_of(1)
    record = first_record(fleet, 1)
    empty = Observation.of(0.0, fleet, VariantTable.of([1, 1]))
    plain = Record(1, 0.0, {}, empty, {}, {}, record.ballot, record.limits, record.plan).to_plain()
    again = Record.from_plain(decode(encode(plain)))
    assert again.memory is None
    assert again.base is None
    assert np.all(np.isnan(again.observation.replicas["kv_usage"]))
