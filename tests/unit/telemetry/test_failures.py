"""What failures are counted as; made by the calls that really fail."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from wva_core.engine.verify import refusal
from wva_core.hooks import hookimpl
from wva_core.hooks.chain import Entry
from wva_core.telemetry.failures import component_of, error_type_of
from wva_core.telemetry.names import ErrorType
from wva_core.testing.builders import limits, observe


class Obedient:
    """An analyzer that does what a test says."""

    api = "1"

    class Parameters(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, parameters):
        self.does = lambda: None

    @hookimpl
    def assess(self, observation):
        return self.does()


@pytest.fixture
def entry():
    made = Entry.of("analyzers", Obedient, Obedient.Parameters(), type_name="obedient")
    yield made
    made.stop()


def ask(entry, timeout=None):
    failure = entry.call("assess", timeout, observation=None, settings=None, state=None).failure
    return None if failure is None else error_type_of(failure)


def test_an_exception_is_raised(entry):
    entry.plugin.does = lambda: 1 / 0
    assert ask(entry) is ErrorType.RAISED


def test_no_answer_is_an_unusable_one(entry):
    assert ask(entry) is ErrorType.UNUSABLE_ANSWER


def test_late_calls_are_late_and_then_quarantined(entry):
    come_back, has_come_back = threading.Event(), threading.Event()

    def wait():
        assert come_back.wait(30)
        has_come_back.set()
        return 1

    entry.plugin.does = wait
    assert ask(entry, timeout=0.0) is ErrorType.LATE
    assert ask(entry) is ErrorType.QUARANTINED  # has still not come back
    assert error_type_of(entry._stuck("stand_down")) is ErrorType.QUARANTINED
    come_back.set()
    assert has_come_back.wait(30)


@pytest.mark.parametrize(
    ("label", "component"),
    [
        ("analyzer latency", "analyzer"),
        ("collector prometheus", "collector"),
        ("optimizer cost-aware", "optimizer"),
        ("actuator prometheus-gauge", "actuator"),
        ("subscriber CycleLog", "controller"),
    ],
)
def test_components_are_kinds_of_plugins_and_the_controller(label, component):
    assert component_of(label) == component


def test_an_allocation_that_is_refused_is_an_unusable_answer():
    seen = observe([{"name": "v", "max_replicas": 3}])
    refused = refusal(np.array([4.0]), seen.variants.base, limits(seen), seen.fleet, "optimizer mine")
    assert refused is not None
    assert error_type_of(refused) is ErrorType.UNUSABLE_ANSWER
