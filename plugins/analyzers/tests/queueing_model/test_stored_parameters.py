"""
What upstream asserts of its parameter store and of the vectors in it, on the state that takes the store's place here.

Upstream keeps parameters in an object under `namespace/variant`; here they are rows of a state, in the order of the
fleet they were learnt on, and the engine keeps the state.
"""

import numpy as np
import pytest

from wva_analyzers.queueing_model import QueueingModel
from wva_analyzers.queueing_model.parameters import Parameters
from wva_core.domain import Variant
from wva_core.domain.codec import decode, encode
from wva_core.testing import observe, settings

X = [[5.1, 0.051, 5.1e-5]]
BUSY = {"arrival_rate": 0.5, "request_rate": 0.5, "input_tokens": 100, "output_tokens": 100, "max_batch": 64}
LATENCIES = {"waiting": 0, "ttft": 0.0103, "itl": 0.0053}


def cycle(state, *variants, busy=True):
    """One cycle under `compat` over variants as (namespace, name); returns the state after it."""
    seen = observe(
        [{"namespace": namespace, "name": name, "model": name} for namespace, name in variants],
        [{"variant": f"{namespace}/{name}", **BUSY, **LATENCIES} for namespace, name in variants if busy],
    )
    chosen = Parameters.model_validate({"compat": True})
    return dict(QueueingModel(chosen).assess(seen, settings(chosen, seen), state).state)


def parameters(state, namespace, name):
    return state["filter"]["x"][state["variants"].index(f"{namespace}/{name}")]


@pytest.mark.parametrize(
    ("namespace", "name", "key"),
    [pytest.param("ns1", "gpt-4", "ns1/gpt-4", id="F4-key-1"), pytest.param("", "", "/", id="F4-key-2")],
)
def test_parameters_are_kept_by_namespace_and_variant(namespace, name, key):
    assert Variant(namespace, name, "model").key == key


def test_f4_of_an_unknown_variant_nothing_is_known():
    learnt = cycle({}, ("ns1", "a"))
    assert np.isfinite(parameters(learnt, "ns1", "a")).all()
    assert np.isnan(parameters(cycle(learnt, ("ns1", "b"), busy=False), "ns1", "b")).all()


def test_f4_what_is_learnt_later_takes_the_place_of_what_was_known():
    first = cycle({}, ("ns1", "a"))
    second = cycle(first, ("ns1", "a"))
    assert len(second["variants"]) == 1
    assert not np.array_equal(parameters(first, "ns1", "a"), parameters(second, "ns1", "a"))


def test_f4_namespaces_and_variants_are_apart():
    learnt = cycle({}, ("ns1", "a"))
    everybody = cycle(learnt, ("ns1", "a"), ("ns2", "a"), ("ns1", "b"), busy=False)
    np.testing.assert_array_equal(parameters(everybody, "ns1", "a"), parameters(learnt, "ns1", "a"))
    assert np.isnan(parameters(everybody, "ns2", "a")).all()
    assert np.isnan(parameters(everybody, "ns1", "b")).all()


def test_f5_a_state_without_a_filter_has_no_parameters_and_no_covariance():
    # upstream's helpers give (0, 0, 0) and nothing for vectors that are too short; here not known is NaN
    state = cycle({}, ("ns1", "a"), busy=False)
    assert np.isnan(state["filter"]["x"]).all()
    assert np.isnan(state["filter"]["P"]).all()


def test_f5_a_covariance_is_kept_row_by_row():
    state = cycle({}, ("ns1", "a"))
    before = state["filter"]["P"]
    after = decode(encode(state))["filter"]["P"]
    assert after.shape == (1, 3, 3)
    assert after.ravel().tolist() == [before[0, row, column] for row in range(3) for column in range(3)]


def test_f5_state_vectors_have_three_entries_and_no_more():
    state = cycle(cycle({}, ("ns1", "a")), ("ns1", "a"), ("ns1", "b"))
    assert state["filter"]["x"].shape == (2, 3)
