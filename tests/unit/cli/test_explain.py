"""`wva explain` on records of a run: what the analyzers expect of a plan, worked out from its records."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from tests.unit.ladder import LADDER
from wva_core import app
from wva_core.errors import RecordError
from wva_core.simulation.scenario import read_scenario
from wva_core.telemetry.record_reader import RecordReader

COUNTING = """
    import numpy as np
    from wva_core.domain import Assessment
    from wva_core.hooks import Prediction, hookimpl

    class Plugin:
        api = "1"

        def __init__(self, parameters):
            pass

        @hookimpl
        def assess(self, observation, state):
            fleet = observation.fleet
            need = np.full(len(fleet.scopes), 2.0)
            return Assessment.of(
                fleet, unit="replicas", demand=need, capacity=np.ones(len(fleet)), state={"n": state.get("n", 0) + 1}
            )

        @hookimpl
        def predict(self, observation, allocation, state):
            return Prediction(allocation.replicas, np.full(1, state["n"]), np.full(1, observation.time))
"""


@pytest.fixture
def recorded(tmp_path):
    """Runs a contender with one analyzer through ten minutes and returns the folder of its records."""

    def run(analyzer):
        policy = {"analyzers": [{"type": analyzer}], "optimizer": {"type": "stepwise"}}
        document = {**LADDER, "contenders": [{"name": "wva", "wva": {"policy": policy}}]}
        path = tmp_path / "scenario.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        scenario = read_scenario(path)
        app.run_contender(scenario, scenario.contenders[0], records=tmp_path / "records")
        return tmp_path / "records"

    return run


@pytest.fixture
def counting(offered, recorded):
    """The records of an analyzer that expects the number of its cycles so far."""
    offered("analyzers", "counting", COUNTING)
    return recorded("counting")


def test_a_recorded_plan_is_predicted_with_what_had_been_learnt_by_then(counting):
    # cycles at 0, 15, 30 ... s: the one at 285 s is the twentieth
    told = app.recorded_predictions(counting, RecordReader(counting).at(290.0))["counting"]
    assert (told.itl[0], told.utilization[0]) == (20, 285.0)
    assert told.ttft[0] == RecordReader(counting).at(290.0).plan.desired[0]


def test_a_plan_that_would_be_another_one_today_is_not_predicted(counting):
    record = RecordReader(counting).latest()
    other = replace(record, plan=replace(record.plan, desired=record.plan.desired + 1))
    with pytest.raises(RecordError, match=r"cycle \d+: is decided otherwise by the plugins installed now"):
        app.recorded_predictions(counting, other)


def test_nothing_is_decided_again_where_no_analyzer_predicts(recorded, tmp_path):
    record = RecordReader(recorded("saturation-v1")).latest()
    assert app.recorded_predictions(tmp_path / "nowhere", record) == {}


def test_explain_shows_what_is_expected_of_the_plan(counting, wva):
    text = wva("explain", counting, "--at", 290).stdout
    assert "expected (seen)" in text
    told = json.loads(wva("explain", counting, "--at", 290, "--output", "json").stdout)
    (expected,) = told["scopes"][0]["predictions"]
    assert (expected["analyzer"], expected["itl"], expected["seen_itl"]) == ("counting", 20.0, None)
    assert told["unpredicted"] == ""
