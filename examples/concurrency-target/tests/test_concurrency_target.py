"""What the analyzer says, on small fleets; and that it keeps the contract of all analyzers."""

import math
from typing import ClassVar

import numpy as np
import pytest

from wva_core.domain import Verdict
from wva_core.testing import AnalyzerConformance, observe, settings
from wva_example_concurrency import ConcurrencyTarget


class TestContract(AnalyzerConformance):
    plugin = "concurrency-target"
    parameters: ClassVar = {"target": 8}


def assess(replicas, queue_size=math.nan):
    seen = observe(
        variants=[{"name": "chat"}],
        replicas=[{"variant": "chat", **row} for row in replicas],
        scopes=[{"queue_size": queue_size}],
    )
    parameters = ConcurrencyTarget.Parameters(target=8)
    return ConcurrencyTarget(parameters).assess(seen, settings(parameters, seen))


def test_demand_is_every_request_that_runs_or_waits():
    answer = assess([{"running": 6, "waiting": 0}, {"running": 8, "waiting": 3}], queue_size=5)
    assert answer.demand.tolist() == [6 + 8 + 3 + 5]
    assert answer.capacity.tolist() == [8]
    assert answer.verdict.tolist() == [Verdict.JUDGED]


def test_without_a_gateway_there_is_no_queue():
    assert assess([{"running": 6, "waiting": 1}]).demand.tolist() == [7]


@pytest.mark.parametrize("silent", [{}, {"running": 3}, {"waiting": 3}])
def test_a_silent_replica_forbids_shrinking_and_counts_for_nothing_else(silent):
    answer = assess([{"running": 6, "waiting": 1}, silent])
    assert answer.demand.tolist() == [7]
    assert answer.verdict.tolist() == [Verdict.NO_SHRINK]


@pytest.mark.parametrize("replicas", [[], [{}], [{"running": 3}]])
def test_with_nothing_known_the_last_target_stays(replicas):
    answer = assess(replicas, queue_size=5)
    assert answer.verdict.tolist() == [Verdict.FREEZE]
    assert np.isnan(answer.demand).all()
