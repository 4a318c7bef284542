"""
The three latency models: upstream's vectors in milliseconds, and the written-out formulas of the oracle.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import birth_death_loop as loop
from wva_core.errors import ParameterError
from wva_core.numerics.service_times import ServiceTimes, service_rates

PARAMETERS = ("alpha", "beta", "gamma", "delta")


def times(generation="g2", *, max_batch=8, input_tokens=100, output_tokens=10, **parameters):
    return ServiceTimes.of(
        generation,
        **{"alpha": 1.0, "beta": 0.01, "gamma": 0.001, **parameters},
        max_batch=max_batch,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


@pytest.mark.parametrize(
    ("tokens", "inside", "milliseconds"),
    [
        pytest.param(0, 4, 0, id="A8-g2-prefill-1"),
        pytest.param(1000, 1, 32, id="A8-g2-prefill-2"),
        pytest.param(2000, 8, 208, id="A8-g2-prefill-3"),
        pytest.param(500, 2.5, 29.25, id="A8-g2-prefill-4"),
    ],
)
def test_the_prefill_of_g2(tokens, inside, milliseconds):
    engine = times(alpha=10, beta=0.01, gamma=0.001, input_tokens=tokens, output_tokens=0)
    assert engine.prefill(inside)[0] == pytest.approx(milliseconds, abs=1e-6)


@pytest.mark.parametrize(
    ("inside", "milliseconds"),
    [
        pytest.param(1, 1.23, id="A8-g2-decode-1"),
        pytest.param(4, 1.575, id="A8-g2-decode-2"),
        pytest.param(8, 2.035, id="A8-g2-decode-3"),
        pytest.param(2.5, 1.4025, id="A8-g2-decode-4"),
    ],
)
def test_the_decode_of_g2(inside, milliseconds):
    engine = times(alpha=1, beta=0.1, gamma=0.01, input_tokens=1, output_tokens=1)
    assert engine.decode(inside)[0] == pytest.approx(milliseconds, abs=1e-6)


def test_a8_g2_service_rates():
    published = [0.0644953, 0.1126126, 0.1498876, 0.1796138, 0.2038736, 0.2240478, 0.2410883, 0.2556727]
    assert service_rates(times())[:, 0] == pytest.approx(published, abs=6e-8)


def test_a7_g0_service_rates():
    engine = times("g0", alpha=20.58, beta=0.41, max_batch=4, input_tokens=0, output_tokens=178)
    published = [2.676502e-4, 5.250446e-4, 7.727617e-4, 1.0113372e-3]
    assert service_rates(engine)[:, 0] == pytest.approx(published, rel=5e-7)


def test_a8_g1_one_token_without_input_is_one_decode():
    engine = times("g1", alpha=20.58, beta=0.41, gamma=5.2, delta=0.1, max_batch=4, input_tokens=0, output_tokens=1)
    published = [0.0476417, 0.0934579, 0.1375516, 0.1800180]
    assert service_rates(engine)[:, 0] == pytest.approx(published, abs=6e-8)


@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "accepted"),
    [
        pytest.param(0, 10, True, id="A8-create-1"),
        pytest.param(0, 1, True, id="A8-create-2"),
        pytest.param(100, 1, True, id="A8-create-3"),
        pytest.param(200, 20, True, id="A8-create-4"),
        pytest.param(0, 0, False, id="A8-create-5"),
        pytest.param(-1, -1, False, id="A8-create-6"),
        pytest.param(50, 0, False, id="A8-create-7"),
        pytest.param(100, -1, False, id="A8-create-8"),
        pytest.param(-1, 10, False, id="A8-create-9"),
        pytest.param(np.nan, 10, False, id="unknown"),
    ],
)
def test_which_lengths_are_usable(tokens_in, tokens_out, accepted):
    assert times(input_tokens=tokens_in, output_tokens=tokens_out).usable.tolist() == [accepted]


@pytest.mark.parametrize("generation", ["g1", "g2"])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"max_batch": 0}, id="A8-config-1"),
        pytest.param({"max_batch": -1}, id="A8-config-2"),
        pytest.param({"alpha": np.nan}, id="A8-config-4"),
        pytest.param({"alpha": -100.0}, id="no-positive-time"),
        pytest.param({"beta": -10.0}, id="no-positive-time-when-full"),
    ],
)
def test_which_parameters_are_not_usable(generation, wrong):
    assert times(generation, **wrong).usable.tolist() == [False]


def test_g0_needs_some_tokens():
    assert times("g0", input_tokens=np.array([0, 0, 5, -1]), output_tokens=np.array([0, 5, 0, 5])).usable.tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_an_unknown_generation_is_refused():
    with pytest.raises(ParameterError, match=r"^generation: is no latency model \(got 'g3'\); give one of g0, g1, g2$"):
        times("g3")


def test_the_queue_holds_ten_batches_more_in_g1_and_g2_and_in_all_in_g0():
    assert [int(times(generation).capacity[0]) for generation in ("g0", "g1", "g2")] == [80, 88, 88]


def test_rates_stay_where_an_engine_has_a_smaller_batch_than_others():
    rates = service_rates(times(max_batch=np.array([2, 8])))
    assert rates[1:, 0].tolist() == [rates[1, 0]] * 7


@given(
    st.sampled_from(["g0", "g1", "g2"]),
    st.tuples(*[st.floats(0, 10)] * 3, st.floats(0, 1)),
    st.integers(0, 3000),
    st.integers(1, 3000),
    st.floats(0, 512),
)
def test_work_is_the_written_out_sum_and_linear_in_the_batch(generation, parameters, tokens_in, tokens_out, inside):
    named = dict(zip(PARAMETERS, parameters, strict=True))
    engine = times(generation, **named, input_tokens=tokens_in, output_tokens=tokens_out)
    first, step, steps = loop.work(generation, inside, **named, tokens_in=tokens_in, tokens_out=tokens_out)
    assert engine.work(inside)[0] == pytest.approx(first + steps * step, rel=1e-12)
    assert engine.base[0] + engine.slope[0] * inside == pytest.approx(first + steps * step, rel=1e-12)


@given(st.sampled_from(["g1", "g2"]), st.floats(0, 8))
def test_the_effective_batch_takes_as_long(generation, inside):
    engine = times(generation, delta=0.02)
    assert engine.effective_batch(engine.work(inside))[0] == pytest.approx(inside, abs=1e-9)


def test_the_effective_batch_stays_between_nothing_and_a_full_one_and_is_unknown_without_a_slope():
    engine = times("g1", delta=0.02)
    assert engine.effective_batch(np.array([0.0])).tolist() == [0]
    assert engine.effective_batch(np.array([1e9])).tolist() == [8]
    assert np.isnan(times("g1", beta=0.0).effective_batch(np.array([5.0]))).all()


def test_compat_takes_the_prefill_off_even_without_input():
    # g1, 0 in and 3 out: S = 2 (1 + 0.01 n); upstream subtracts gamma = 0.001 from it nevertheless.
    engine = times("g1", input_tokens=0, output_tokens=3)
    service = engine.work(4.0)
    assert engine.effective_batch(service)[0] == pytest.approx(4)
    assert engine.effective_batch(service, compat=True)[0] == pytest.approx(4 - 0.001 / 0.02)


def test_some_rows_are_the_same_rows():
    engine = times(alpha=np.array([1.0, 2.0, 3.0]))
    assert engine.take(np.array([2, 0])).alpha.tolist() == [3.0, 1.0]
    assert len(engine) == 3
