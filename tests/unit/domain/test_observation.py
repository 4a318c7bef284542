"""What is seen: columns, their age, and how far a signal can be trusted in each scope."""

from dataclasses import replace

import numpy as np
import pytest

from wva_core.domain import REPLICA_SIGNALS, Columns, Fleet, Observation, Quality, ReplicaIndex, ReplicaTable, Variant
from wva_core.errors import ParameterError
from wva_core.testing.builders import fleet_of, observe

NAN = float("nan")


def test_a_signal_nobody_collected_is_not_known():
    columns = Columns(2, REPLICA_SIGNALS, {"waiting": [0.0, 1.0]})
    assert np.isnan(columns["kv_usage"]).tolist() == [True, True]
    assert (list(columns), len(columns)) == (["waiting"], 1)


def test_a_name_that_is_no_signal_is_a_mistake():
    with pytest.raises(ParameterError, match="columns: kv: is not a signal; use one of kv_usage"):
        Columns(1, REPLICA_SIGNALS)["kv"]
    with pytest.raises(ParameterError, match="columns: kv: is not a signal"):
        Columns(1, REPLICA_SIGNALS, {"kv": [1.0]})


def test_a_column_of_another_length_is_refused():
    with pytest.raises(ParameterError, match=r"columns: waiting: has shape \(3,\); give one number for each of 2 rows"):
        Columns(2, REPLICA_SIGNALS, {"waiting": [1, 2, 3]})


def test_age_is_that_of_known_values():
    columns = Columns(2, None, {"x": [1.0, NAN], "y": [1.0, 1.0]}, {"x": [5.0, 6.0]})
    assert np.array_equal(columns.age("x"), [5.0, NAN], equal_nan=True)
    assert columns.age("y").tolist() == [0.0, 0.0]


def test_rows_stand_in_the_order_of_variant_pod_and_instance():
    fleet = fleet_of("a", "b")
    keys = ["ns/b", "ns/a", "ns/a", "ns/a"]
    index, order = ReplicaIndex.of(fleet, keys, ["p0", "p2", "p1", "p1"], ["", "", "1", "0"])
    assert order.tolist() == [3, 2, 1, 0]
    assert (index.pods, index.instances) == (("p1", "p1", "p2", "p0"), ("0", "1", "", ""))
    # two instances of one pod are one scale unit
    assert index.unit_of_replica.tolist() == [0, 0, 1, 2]


def test_a_row_of_no_variant_is_refused():
    with pytest.raises(ParameterError, match="replicas: ns/z: is not a variant of the fleet; list it under variants"):
        ReplicaIndex.of(fleet_of("a"), ["ns/z"], ["p"])


def quality(values, ages=None, *, stale_after=60.0, conflict=False):
    seen = observe([{"name": "a"}], [{"variant": "a"}] * len(values))
    table = ReplicaTable.of(seen.replicas.index, {"kv_usage": values}, {} if ages is None else {"kv_usage": ages})
    seen = replace(seen, replicas=table, conflicts={"kv_usage": np.array([True])} if conflict else {})
    return Quality(seen.quality("kv_usage", stale_after)[0])


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (quality([0.5, 0.5]), Quality.OK),
        (quality([0.5, NAN]), Quality.PARTIAL),
        (quality([NAN, NAN]), Quality.MISSING),
        (quality([]), Quality.MISSING),
        (quality([0.5, 0.5], [0.0, 59.9]), Quality.OK),
        (quality([0.5, 0.5], [0.0, 60.0]), Quality.STALE),
        (quality([0.5, NAN], [0.0, 99.0]), Quality.PARTIAL),
        (quality([0.5, NAN], [99.0, 0.0]), Quality.STALE),
        (quality([0.5, 0.5], conflict=True), Quality.CONFLICTING),
        (quality([0.5, NAN], conflict=True), Quality.CONFLICTING),
        (quality([0.5, 0.5], [0.0, 60.0], conflict=True), Quality.STALE),
        (quality([0.5, 0.5], [0.0, 60.0], stale_after=np.array([61.0])), Quality.OK),
    ],
)
def test_the_worst_that_applies_is_told(case, expected):
    assert case == expected


def test_a_signal_of_scopes_is_known_stale_or_missing():
    fleet = Fleet(Variant("ns", name, name) for name in "abc")
    table = observe([{"name": name, "model": name} for name in "abc"]).variants
    scopes = Columns(3, None, {"arrival_rate": [1.0, 1.0, NAN]}, {"arrival_rate": [0.0, 60.0, 0.0]})
    seen = Observation.of(0.0, fleet, table, scopes=scopes)
    found = seen.quality("arrival_rate", np.full(3, 60.0), "scope")
    assert found.tolist() == [Quality.OK, Quality.STALE, Quality.MISSING]
