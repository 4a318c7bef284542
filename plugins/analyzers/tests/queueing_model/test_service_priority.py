"""Who is served first: the priority of a scope's service class."""

import numpy as np
import pytest

from wva_analyzers.queueing_model import QueueingModel
from wva_analyzers.queueing_model.parameters import Parameters
from wva_analyzers.queueing_model.service_priority import priorities
from wva_core.testing.builders import observe, settings

# upstream's service-classes-config: Premium for `default`, Freemium for `granite`
CLASSES = [
    {"name": "Premium", "priority": 1, "data": [{"model": "default", "slo-ttft": 500, "slo-tpot": 24}]},
    {"name": "Freemium", "priority": 10, "data": [{"model": "granite", "slo-ttft": 2000, "slo-tpot": 200}]},
]


def told(model, service_class="", classes=CLASSES):
    seen = observe([{"name": "a", "model": model, "service_class": service_class}])
    asked = settings(Parameters.model_validate({"serviceClasses": classes}), seen)
    return priorities(seen.fleet.scopes, asked)[0]


@pytest.mark.parametrize(
    ("model", "service_class", "priority"),
    [
        ("default", "Premium", 1.0),
        ("granite", "Premium", 1.0),  # the class decides, even where it promises nothing for the model
        ("default", "Freemium", 10.0),
        ("granite", "", 10.0),  # without a class by the model, as upstream looks it up
        ("default", "", 1.0),
    ],
)
def test_a_scope_has_the_priority_of_its_class(model, service_class, priority):
    assert told(model, service_class) == priority


@pytest.mark.parametrize(("model", "service_class", "classes"), [
    ("default", "Gold", CLASSES), ("llama", "", CLASSES), ("default", "Premium", []),
])  # fmt: skip
def test_what_policy_does_not_name_has_none(model, service_class, classes):
    assert np.isnan(told(model, service_class, classes))


def test_the_analyzer_tells_it_beside_its_judgement():
    seen = observe([{"name": "a", "model": "granite"}, {"name": "b", "model": "llama"}])
    chosen = Parameters.model_validate({"serviceClasses": CLASSES})
    answer = QueueingModel(chosen).assess(seen, settings(chosen, seen), {})
    np.testing.assert_array_equal(answer.priority, [10.0, np.nan])
