"""What `compat` makes of observations: upstream's vectors for inputs, objectives and capacity."""

import numpy as np
import pytest

from wva_analyzers.queueing_model import QueueingModel
from wva_analyzers.queueing_model.as_upstream import MAX_QUEUE, busy_means
from wva_analyzers.queueing_model.objectives import inferred_as_upstream, observed_as_upstream
from wva_core.domain import Groups, Verdict
from wva_core.engine.ballot import vote_of
from wva_core.numerics.service_times import ServiceTimes
from wva_core.numerics.sizing import size
from wva_core.testing import observe, settings


def columns(*values):
    return tuple(np.array([float(value)]) for value in values)


def test_c2_means_over_busy_pods():
    groups = Groups.by(np.zeros(3, dtype=np.int64), 1)
    busy, rate, means = busy_means(
        np.array([2.0, 1.0, 0.0]),
        {
            "input_tokens": np.array([1000.0, 400.0, 7.0]),
            "output_tokens": np.array([200.0, 100.0, 7.0]),
            "ttft": np.array([0.5, 0.2, 7.0]),
            "itl": np.array([0.02, 0.01, 7.0]),
        },
        groups,
    )
    assert busy[0] == 2
    assert rate[0] == 1.5
    assert means["input_tokens"][0] == 800
    assert means["output_tokens"][0] == pytest.approx(166.6667, abs=1e-4)
    assert means["ttft"][0] == pytest.approx(0.4)
    assert means["itl"][0] == pytest.approx(0.0166667, abs=1e-7)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param((5, 0.05, 5e-5, 100, 100, 3), (20.005, 15.057525), id="C5a"),
        pytest.param((7, 0.03, 0.0004, 1024, 256, 3), (52.1296, 21.491), id="C5b"),
    ],
)
def test_c5_inferred_objectives(given, expected):
    assert [one[0] for one in inferred_as_upstream(*columns(*given))] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("given", "expected"),
    [pytest.param((0.8, 0.02), (1.2, 0.03), id="C5c"), pytest.param((8, 0.4), (10, 0.5), id="C5d")],
)
def test_c5_objectives_from_what_is_observed(given, expected):
    assert [one[0] for one in observed_as_upstream(*columns(*given))] == pytest.approx(expected)


def test_c6_capacity_of_one_replica():
    times = ServiceTimes.of(
        "g2", alpha=0.007, beta=3e-5, gamma=4e-7, max_batch=256, input_tokens=1024, output_tokens=256
    )
    sized = size(times, ttft=0.5, itl=0.05, capacity=256 + MAX_QUEUE, compat=True)
    assert sized.rate_ttft[0] == pytest.approx(5.90580, abs=1e-5)
    assert sized.rate_itl[0] == pytest.approx(5.33062, abs=1e-5)
    assert sized.throughput[0] == pytest.approx(5.33062, abs=1e-5)


def fleet(rates, **variant):
    return observe(
        variants=[{"name": "v", "accelerator": "H100", **variant}],
        replicas=[
            {
                "variant": "v",
                "arrival_rate": rate,
                "waiting": 0,
                "input_tokens": 1024,
                "output_tokens": 256,
                "max_batch": 256,
                **({} if rate == 0 else {"ttft": 0.06, "itl": 0.01}),
            }
            for rate in rates
        ],
    )


def assess(seen, state=None, **parameters):
    chosen = QueueingModel.Parameters(compat=True, **parameters)
    asked = settings(chosen, seen, scale_up=1.0, scale_down=0.85)
    return QueueingModel(chosen).assess(seen, asked, {} if state is None else state), asked


def learnt(seen):
    """A state in which the filter has learnt the parameters of C.6."""
    state = dict(assess(seen)[0].state)
    state["filter"] = {
        **state["filter"],
        "x": np.array([[7.0, 0.03, 0.0004]]),
        "P": np.zeros((1, 3, 3)),
    }
    return state


GOALS = {"targetTTFT": 500, "targetITL": 50, "tuningEnabled": False}


def test_c6_demand_capacity_and_spare_with_the_supply_of_replicas_that_are_there():
    # C.6 states supply 5.33062 for the one replica wished for; here it is the one that serves: the same number
    seen = fleet([2, 1.5, 0.5], current=1)
    answer, asked = assess(seen, learnt(seen), **GOALS)
    assert answer.demand.tolist() == [4.0]
    assert answer.capacity[0] == pytest.approx(5.33062, abs=1e-5)
    vote = vote_of("q", answer, seen, asked)
    assert vote.supply[0] == pytest.approx(5.33062, abs=1e-5)
    assert vote.demand[0] / vote.supply[0] == pytest.approx(0.750381, abs=1e-6)
    assert vote.required.tolist() == [0.0]


def test_c6_more_than_the_replicas_carry_asks_to_grow():
    seen = fleet([4, 4], current=1)
    answer, asked = assess(seen, learnt(seen), **GOALS)
    # upstream counts the two replicas it wishes for as supply already, and never requires anything
    assert vote_of("q", answer, seen, asked).required[0] == pytest.approx(8 - 5.33062, abs=1e-5)


def test_parameters_are_kept_between_cycles_and_across_fleets():
    seen = fleet([0.5])
    first, _ = assess(seen, targetTTFT=500, targetITL=50)
    learnt_x = first.state["filter"]["x"]
    wider = observe(
        variants=[{"name": "a"}, {"name": "v", "accelerator": "H100"}],
        replicas=[{"variant": "v", "arrival_rate": 0.0, "waiting": 0}],
    )
    second, _ = assess(wider, dict(first.state), targetTTFT=500, targetITL=50)
    assert np.isnan(second.state["filter"]["x"][0]).all()
    np.testing.assert_array_equal(second.state["filter"]["x"][1], learnt_x[0])


def test_pods_without_arrivals_are_no_demand_and_no_sample():
    answer, _ = assess(fleet([0, 0]), targetTTFT=500, targetITL=50)
    assert answer.demand.tolist() == [0.0]
    assert answer.verdict.tolist() == [Verdict.JUDGED]
    assert np.isnan(answer.capacity).all()


def test_only_scopes_in_compat_are_judged_as_upstream_does():
    seen = observe(
        variants=[{"name": "a", "model": "a"}, {"name": "b", "model": "b"}],
        replicas=[
            {
                "variant": name,
                "arrival_rate": 1.0,
                "waiting": 0,
                "input_tokens": 100,
                "output_tokens": 100,
                "ttft": 0.0103,
                "itl": 0.0053,
                "max_batch": 64,
            }
            for name in ("a", "b")
        ],
    )
    chosen = QueueingModel.Parameters()
    asked = settings(chosen, seen, compat=[False, True])
    answer = QueueingModel(chosen).assess(seen, asked, {})
    plain = QueueingModel(chosen).assess(seen, settings(chosen, seen), {})
    assert answer.capacity[0] == plain.capacity[0]
    assert answer.capacity[1] != plain.capacity[1]
