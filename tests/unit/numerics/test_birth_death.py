"""
Finite queues with a speed that depends on their fill: closed forms, published figures, and a plain loop as the oracle.
"""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.oracles import birth_death_loop as loop
from wva_core.errors import ParameterError
from wva_core.numerics.birth_death import (
    Occupancy,
    steady_state,
    steady_state_of_work,
    wait_exceedance,
    wait_quantile,
)

FIELDS = ("inside", "in_service", "queue", "throughput", "response", "service", "wait", "busy", "blocking")


def solve(lam, mu, capacity, **more):
    """One queue, as a dictionary; `mu` lists its rates."""
    found = steady_state([lam], np.array([[rate] for rate in mu], dtype=float), len(mu), capacity, **more)
    return {name: float(getattr(found, name)[0]) for name in Occupancy.__slots__}


# (id, K, lam, mu, figures to the digits of the table)
SINGLE_SERVER = [
    ("A8-mm1k-1", 3, 0.5, 2, {"inside": 0.317647, "throughput": 0.494118, "response": 0.642857, "wait": 0.142857}),
    (
        "A8-mm1k-2",
        3,
        1.5,
        2,
        {"inside": 1.148571, "throughput": 1.268571, "response": 0.905405, "wait": 0.405405, "queue": 0.514286},
    ),
    ("A8-mm1k-3", 3, 2, 2, {"inside": 1.5, "throughput": 1.5, "response": 1.0, "wait": 0.5}),
    ("A8-mm1k-4", 1, 0.5, 1, {"inside": 1 / 3, "throughput": 1 / 3, "response": 1, "wait": 0}),
    (
        "A8-mm1k-5",
        5,
        1.5,
        3,
        {"inside": 0.904762, "throughput": 1.476190, "response": 0.612903, "service": 0.333333, "wait": 0.279570},
    ),
    ("A8-mm1k-6", 10, 9.9, 1, {"inside": 9.887640, "throughput": 1.0, "wait": 8.887640}),
]


@pytest.mark.parametrize(
    ("capacity", "lam", "mu", "figures"), [case[1:] for case in SINGLE_SERVER], ids=[case[0] for case in SINGLE_SERVER]
)
def test_a_single_server_has_the_tabulated_means(capacity, lam, mu, figures):
    found = solve(lam, [mu], capacity)
    assert {name: found[name] for name in figures} == pytest.approx(figures, abs=6e-7)


@pytest.mark.parametrize(
    ("capacity", "lam", "mu", "p"),
    [
        (3, 0.5, 2, [0.7529412, 0.1882353, 0.0470588, 0.0117647]),
        (3, 1.5, 2, [0.3657143, 0.2742857, 0.2057143, 0.1542857]),
        (3, 2, 2, [0.25, 0.25, 0.25, 0.25]),
        (1, 0.5, 1, [2 / 3, 1 / 3]),
    ],
    ids=["A8-mm1k-1", "A8-mm1k-2", "A8-mm1k-3", "A8-mm1k-4"],
)
def test_the_first_and_last_state_have_the_tabulated_probability(capacity, lam, mu, p):
    found = solve(lam, [mu], capacity)
    assert (1 - found["busy"], found["blocking"]) == pytest.approx((p[0], p[-1]), abs=6e-8)
    assert found["inside"] == pytest.approx(sum(n * share for n, share in enumerate(p)), abs=3e-7)
    assert loop.probabilities(lam, [mu], capacity) == pytest.approx(p, abs=6e-8)  # the oracle keeps the table, too


def test_a8_mm1k_5_first_state():
    assert 1 - solve(1.5, [3], 5)["busy"] == pytest.approx(0.5079365, abs=6e-8)


def test_a8_mm1k_7_a_finite_queue_takes_any_load():
    # Upstream refuses rates of K times the server's and beyond. A finite queue has a steady state there as everywhere:
    # with rho = 11 and K = 10, L = 10 - 1/(rho - 1) + 11/(rho^11 - 1) by the closed form of the M/M/1/K queue.
    found = solve(11, [1], 10)
    assert found["inside"] == pytest.approx(10 - 1 / 10 + 11 / (11**11 - 1), rel=1e-12)
    assert found["throughput"] == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf], ids=["A8-mm1k-8a", "A8-mm1k-8b", "nan", "infinite"])
def test_a_service_rate_has_to_be_positive(rate):
    with pytest.raises(ParameterError, match=r"^queue 1: mu: with 2 inside is not a positive service rate \(got "):
        steady_state([1, 1], [[1, 1], [1, rate]], 2, 10)


def test_a_service_rate_that_is_never_read_may_be_anything():
    assert steady_state([1.0], [[2.0], [math.nan]], 1, 3).inside[0] == steady_state([1.0], [[2.0]], 1, 3).inside[0]


@pytest.mark.parametrize("rate", [-1.0, math.inf], ids=["A8-mm1k-9", "infinite"])
def test_an_arrival_rate_has_to_be_finite_and_not_below_zero(rate):
    with pytest.raises(ParameterError, match=r"^queue 1: lam: is not an arrival rate \(got .*\); give requests/s"):
        steady_state([1, rate], [[1, 1]], 1, 10)


@pytest.mark.parametrize(("batch", "capacity", "key"), [(0, 5, "batch"), (1, 0, "capacity")])
def test_a_batch_and_a_capacity_are_at_least_one(batch, capacity, key):
    with pytest.raises(ParameterError, match=f"^queue 0: {key}: is below 1"):
        steady_state([1], [[1]], batch, capacity)


def test_a_batch_needs_as_many_service_rates():
    with pytest.raises(ParameterError, match=r"batch: is more than there are service rates \(got 3\); .* there are 2"):
        steady_state([1, 1], [[1, 1], [2, 2]], [2, 3], 5)


def test_work_has_to_be_positive():
    with pytest.raises(ParameterError, match="is not positive with 4 inside"):
        steady_state_of_work([1], [1], [-0.25], 4, 5)


def test_a8_mm1k_10_no_arrivals_take_the_time_of_a_lone_request():
    found = solve(0, [2, 3], 10)
    assert (found["response"], found["service"], found["wait"]) == (0.5, 0.5, 0)
    assert (found["inside"], found["throughput"], found["busy"], found["blocking"]) == (0, 0, 0, 0)


def test_an_unknown_arrival_rate_leaves_only_its_own_queue_unknown():
    found = steady_state([math.nan, 1.5], [[3.0, 3.0]], 1, 5)
    for name in Occupancy.__slots__:
        assert np.isnan(getattr(found, name)).tolist() == [True, False], name
    assert found.inside[1] == solve(1.5, [3], 5)["inside"]


def test_no_queue_is_no_error():
    assert steady_state([], np.empty((3, 0)), 2, 5).inside.tolist() == []


STATE_DEPENDENT = [
    ("A8-sd-1", 5, 0.5, [1, 2, 3], (0.502631, 0.499825, 0.499825, 1.005614, 1, 0.005614, 0.393897)),
    ("A8-sd-2", 5, 1.5, [1, 2, 3], (1.576271, 1.454237, 1.454237, 1.083916, 1, 0.083916, 0.783051)),
    ("A8-sd-3", 5, 2.8, [1, 2, 3], (2.848112, 2.303691, 2.303691, 1.236325, 1, 0.236325, 0.944384)),
    ("A8-sd-4", 4, 1, [2, 4, 6], (0.501053, 0.498947, 0.997895, 0.502110, 0.5, 0.002110, 0.393684)),
    ("A8-sd-5", 5, 0.5, [1, 2], (0.531067, 0.499414, 0.499414, 1.063380, 1, 0.063380, 0.399766)),
]


@pytest.mark.parametrize(
    ("capacity", "lam", "mu", "figures"),
    [case[1:] for case in STATE_DEPENDENT],
    ids=[case[0] for case in STATE_DEPENDENT],
)
def test_a_state_dependent_server_has_the_tabulated_means(capacity, lam, mu, figures):
    found = solve(lam, mu, capacity)
    names = ("inside", "in_service", "throughput", "response", "service", "wait", "busy")
    assert tuple(found[name] for name in names) == pytest.approx(figures, abs=6e-7)


def test_a8_sd_6_equal_rates_are_a_single_server_with_more_counted_in_service():
    # Five rates of 3 and K = 5: the same chain as M/M/1/5, but nobody is counted as waiting.
    found, single = solve(1.5, [3] * 5, 5), solve(1.5, [3], 5)
    assert (found["inside"], found["throughput"]) == pytest.approx((single["inside"], single["throughput"]), rel=1e-12)
    assert (found["service"], found["wait"]) == pytest.approx((0.612903, 0), abs=6e-7)


def test_room_for_fewer_than_a_batch_is_a_loss_system():
    # Erlang's loss formula, two servers of rate 1 and 1 request/s: B = (1/2) / (1 + 1 + 1/2) = 1/5.
    found = solve(1, [1, 2, 3], 2)
    assert (found["blocking"], found["in_service"], found["wait"]) == pytest.approx((0.2, 0.8, 0), rel=1e-14)


@st.composite
def queues(draw):
    batch = draw(st.integers(1, 12) | st.integers(1, 256))
    capacity = draw(st.just(1) | st.integers(1, 40) | st.integers(1, 11 * batch))
    rates = st.floats(1e-3, 1e3)
    mu = draw(st.lists(rates, min_size=batch, max_size=batch) if batch <= 12 else st.just(None))
    if mu is None:
        base, slope = draw(st.floats(1e-3, 10)), draw(st.floats(0, 1))
        mu = [n / (base + slope * n) for n in range(1, batch + 1)]
    load = draw(st.floats(1e-6, 50) | st.floats(0.999999, 1.000001) | st.just(1.0))
    return load * mu[-1], mu, capacity


@settings(deadline=None, max_examples=300)
@given(queues())
@example((1.0, [1.0], 1))
@example((50.0, [1.0] * 3, 2560))
def test_every_mean_is_that_of_the_plain_loop(queue):
    # 1e-9: the loop itself adds up to 2,800 logarithms of about 1 ulp each.
    lam, mu, capacity = queue
    found, expected = solve(lam, mu, capacity), loop.occupancy(lam, mu, capacity)
    for name in FIELDS:
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-280), name


@settings(deadline=None, max_examples=50)
@given(queues(), st.floats(0, 5))
def test_the_distribution_of_the_wait_is_that_of_the_plain_loop(queue, relative):
    lam, mu, capacity = queue
    assume(capacity / mu[-1] * relative < 300 / mu[-1])  # the loop's e^-x has to be a number
    seconds = relative * capacity / mu[-1]
    found = steady_state([lam], np.array(mu)[:, None], len(mu), capacity)
    # 1e-5: where the series has ends that are alike, the code spreads them by 1e-6.
    assert wait_exceedance(found, seconds)[0] == pytest.approx(
        loop.wait_exceedance(lam, mu, capacity, seconds), rel=1e-5, abs=1e-9
    )


@settings(deadline=None, max_examples=50)
@given(queues(), st.floats(0.01, 0.999))
def test_the_quantile_of_the_wait_is_exceeded_by_the_rest(queue, q):
    lam, mu, capacity = queue
    found = steady_state([lam], np.array(mu)[:, None], len(mu), capacity)
    quantile = wait_quantile(found, q)
    if quantile[0] == 0:
        assert found.delayed[0] <= 1 - q
    else:
        assert wait_exceedance(found, quantile)[0] == pytest.approx(1 - q, rel=1e-6)


def test_without_a_limit_the_wait_is_exponential():
    # M/M/1: P(W > t) = rho exp(-mu (1 - rho) t); 5000 places are as good as any number at rho = 0.8.
    found = steady_state([0.8], [[1.0]], 1, 5001)
    assert wait_exceedance(found, 10.0)[0] == pytest.approx(0.8 * math.exp(-2), rel=1e-9)
    assert wait_quantile(found, 0.95)[0] == pytest.approx(math.log(0.8 / 0.05) / 0.2, rel=1e-8)


def test_the_mean_wait_is_the_area_under_its_distribution():
    found = steady_state([2.5], [[1.0], [1.8], [2.4]], 3, 20)
    seconds = np.linspace(0, 60, 60001)
    tail = [wait_exceedance(found, t)[0] for t in seconds]
    assert np.trapezoid(tail, seconds) == pytest.approx(found.wait[0], rel=1e-5)  # the trapezoid rule's own error


def test_everybody_waits_longer_than_a_negative_time_and_nobody_without_a_place():
    found = steady_state([1.0, 1.0, math.nan], [[1.0, 1.0, 1.0]], 1, [5, 1, 5])
    assert wait_exceedance(found, -1.0).tolist()[:2] == [1.0, 1.0]
    assert wait_exceedance(found, 0.0)[1] == 0
    assert wait_quantile(found, 0.5)[1] == 0
    assert np.isnan(wait_exceedance(found, 1.0)[2])
    assert np.isnan(wait_quantile(found, 0.5)[2])


@pytest.mark.parametrize("q", [-0.1, 1.0, math.nan])
def test_a_quantile_is_a_share(q):
    with pytest.raises(ParameterError, match=r"^q: is not a share"):
        wait_quantile(steady_state([1.0], [[2.0]], 1, 5), q)


@settings(deadline=None, max_examples=100)
@given(queues(), st.floats(1.001, 3))
def test_more_arrivals_mean_more_inside_longer_waits_and_more_turned_away(queue, factor):
    lam, mu, capacity = queue
    assume(mu == sorted(mu))
    calm, rush = solve(lam, mu, capacity), solve(lam * factor, mu, capacity)
    for name in ("inside", "in_service", "throughput", "wait", "busy", "blocking"):
        assert rush[name] >= calm[name] * (1 - 1e-12), name


@settings(deadline=None, max_examples=100)
@given(queues())
def test_laws_of_every_queue(queue):
    # A8-law: Little's law, nothing is served that did not arrive, probabilities are probabilities.
    lam, mu, capacity = queue
    found = solve(lam, mu, capacity)
    assert found["inside"] == pytest.approx(found["throughput"] * found["response"], rel=1e-12)
    assert 0 <= found["throughput"] <= lam
    assert found["inside"] <= capacity
    for name in ("busy", "blocking", "delayed"):
        assert 0 <= found[name] <= 1 + 1e-12, name


@settings(deadline=None, max_examples=25)
@given(st.lists(queues(), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_many_queues_are_solved_as_each_alone(many, random):
    random.shuffle(many)
    deepest = max(len(mu) for _, mu, _ in many)
    table = np.full((deepest, len(many)), np.nan)
    for row, (_, mu, _) in enumerate(many):
        table[: len(mu), row] = mu
    found = steady_state(
        [lam for lam, _, _ in many], table, [len(mu) for _, mu, _ in many], [capacity for *_, capacity in many]
    )
    for row, (lam, mu, capacity) in enumerate(many):
        alone = solve(lam, mu, capacity)
        for name in FIELDS:
            assert getattr(found, name)[row] == pytest.approx(alone[name], rel=1e-13), name


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-3, 10), st.floats(0, 1), st.integers(1, 256), st.integers(1, 500), st.floats(1e-6, 50))
def test_work_that_is_linear_is_a_table_of_rates(base, slope, batch, capacity, load):
    mu = [n / (base + slope * n) for n in range(1, batch + 1)]
    found, expected = steady_state_of_work([load * mu[-1]], base, slope, batch, capacity), None
    expected = solve(load * mu[-1], mu, capacity)
    for name in FIELDS:
        assert getattr(found, name)[0] == pytest.approx(expected[name], rel=1e-11), name


def test_the_wait_keeps_its_digits_where_a_difference_of_means_has_none():
    # A lightly loaded replica: W is 1e-13 of R, so R - S has lost all but a few digits.
    lam, mu = 0.05, [n / (4 + 0.01 * n) for n in range(1, 9)]
    found, expected = solve(lam, mu, 80), loop.occupancy(lam, mu, 80)
    assert found["wait"] < 1e-11 * found["response"]
    assert found["wait"] == pytest.approx(expected["wait"], rel=1e-11)


def test_the_busy_probability_can_be_left_out():
    assert math.isnan(solve(1.5, [1, 2, 3], 5, with_busy=False)["busy"])


def test_more_queues_than_one_block_keep_their_order():
    lam = np.linspace(0.1, 5, 20_001)
    batch = 1 + np.arange(20_001) % 7
    found = steady_state_of_work(lam, 1.0, 0.1, batch, 70)
    for row in (0, 8191, 8192, 20_000):
        alone = steady_state_of_work(lam[row], 1.0, 0.1, batch[row], 70)
        assert found.inside[row] == pytest.approx(alone.inside[0], rel=1e-13)
