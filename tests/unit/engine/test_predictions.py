"""What analyzers expect of a plan: what they are asked with, and what becomes of an answer that is none."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.engine.parts import analyzer, brain, fixed, optimizer, runtime, steps
from wva_core.domain import Memory
from wva_core.engine import decide
from wva_core.engine.predictions import can_predict, predictions
from wva_core.errors import PluginFailure
from wva_core.hooks import API, Prediction, hookimpl
from wva_core.hooks.catalog import NoParameters
from wva_core.hooks.chain import Entry
from wva_core.testing.builders import observe

SEEN = observe([{"name": "a", "current": 2}, {"name": "b", "current": 1}], [{"variant": "a"}, {"variant": "b"}])


def oracle(answer, *, assess=None, name="oracle"):
    """An entry over an analyzer that counts its calls as state and predicts with `answer`."""

    def counting(observation, settings, state):
        return replace(steps()(observation, settings, state), state={"calls": state.get("calls", 0) + 1})

    class Oracle:
        api = API

        def __init__(self, parameters):
            pass

        @hookimpl
        def assess(self, observation, settings, state):
            return (assess or counting)(observation, settings, state)

        predict = hookimpl(answer)

    return Entry.of("analyzers", Oracle, NoParameters(), type_name=name)


def decided(*entries, replicas=(4, 1), memory=None):
    whole = brain(list(entries), optimizer(fixed(*replicas)))
    whole.start(runtime())
    return decide(SEEN, whole, memory or Memory.empty(SEEN.fleet)), whole


def test_an_analyzer_predicts_for_the_plan_with_the_state_its_assessment_left():
    asked = {}

    def predict(self, observation, allocation, settings, state):
        asked.update(observation=observation, settings=settings, state=state)
        return Prediction(ttft=1.0 / allocation.replicas, itl=allocation.replicas, utilization=[0.5, 0.25])

    decision, whole = decided(oracle(predict))
    told = predictions(decision, whole)["oracle"]
    # 4 and 1 replicas are planned
    assert told.ttft.tolist() == [0.25, 1.0]
    assert told.itl.tolist() == [4.0, 1.0]
    assert told.utilization.tolist() == [0.5, 0.25]
    assert asked["state"] == {"calls": 1}
    assert asked["observation"] is decision.observation
    assert asked["settings"] is whole.settings(SEEN.fleet).analyzers["oracle"]


def test_any_other_number_of_replicas_can_be_asked_about():
    def predict(self, allocation):
        return Prediction(*[allocation.replicas] * 3)

    decision, whole = decided(oracle(predict))
    asked = np.array([7, np.nan])
    np.testing.assert_array_equal(predictions(decision, whole, asked)["oracle"].ttft, asked)


def test_an_implementation_may_take_fewer_arguments():
    def predict(self, observation, allocation):
        return Prediction(*np.full((3, len(observation.fleet)), 0.5))

    decision, whole = decided(oracle(predict))
    assert predictions(decision, whole)["oracle"].itl.tolist() == [0.5, 0.5]


def test_an_analyzer_that_had_no_say_and_one_that_cannot_predict_are_not_asked():
    def fails(observation, settings, state):
        raise RuntimeError("a bad day")

    decision, whole = decided(oracle(lambda self: None, assess=fails), analyzer(steps(), name="mute"))
    assert predictions(decision, whole) == {}
    assert can_predict(whole)
    assert not can_predict(brain([analyzer(steps())], optimizer(fixed(1, 1))))


def raising(self, observation):
    raise ValueError("no batch is that large")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (raising, "analyzer oracle: predict: raised ValueError: no batch is that large"),
        (lambda self: 3.0, "analyzer oracle: predict.answer: is not what the hook returns (got 'float'); return Pred"),
        (
            lambda self: Prediction(np.ones(2), np.ones(3), np.ones(2)),
            "analyzer oracle: predict.itl: is not what the hook returns (got (3,)); return an array of",
        ),
        (
            lambda self: Prediction(np.array(["a", "b"]), np.ones(2), np.ones(2)),
            "analyzer oracle: predict.ttft: is not what the hook returns (got 'ndarray'); return an array of numbers",
        ),
    ],
    ids=["raises", "other-type", "other-shape", "no-numbers"],
)
def test_what_keeps_an_analyzer_from_predicting_stands_in_place_of_its_answer_alone(answer, message):
    def predict(self, allocation):
        return Prediction(*[allocation.replicas] * 3)

    decision, whole = decided(oracle(answer), oracle(predict, name="other"))
    told = predictions(decision, whole)
    assert isinstance(told["oracle"], PluginFailure)
    assert str(told["oracle"]).startswith(message)
    assert told["other"].ttft.tolist() == [4.0, 1.0]


def test_columns_of_a_prediction_cannot_be_written_to():
    def predict(self, allocation):
        return Prediction(*np.ones((3, 2)))

    decision, whole = decided(oracle(predict))
    assert not predictions(decision, whole)["oracle"].ttft.flags.writeable
