"""Health of the process as a function of when things happened."""

from __future__ import annotations

import math

import pytest

from wva_core.errors import ParameterError
from wva_core.telemetry.probes import liveness, readiness

NEVER = math.nan


@pytest.mark.parametrize(
    ("now", "cycling_since", "last_cycle", "is_live"),
    [
        (145.0, 0.0, 100.0, True),  # three intervals of 15 s after the last cycle, to the second
        (145.1, 0.0, 100.0, False),
        (100.0, 0.0, 100.0, True),
        (45.0, 0.0, NEVER, True),  # the first cycle gets as long
        (46.0, 0.0, NEVER, False),
        (9_999.0, NEVER, NEVER, True),  # stands by
        (9_999.0, NEVER, 100.0, True),  # led once, stands by now
        (540.0, 500.0, 100.0, True),  # leads again; the cycle of the first time does not count against it
        (546.0, 500.0, 100.0, False),
    ],
)
def test_live_is_a_finished_cycle_within_three_intervals(now, cycling_since, last_cycle, is_live):
    answer = liveness(now, cycling_since=cycling_since, last_cycle=last_cycle, interval=15.0)
    assert answer.ok is is_live


def test_a_longer_interval_gives_more_time():
    assert not liveness(100.0, cycling_since=0.0, last_cycle=0.0, interval=15.0).ok
    assert liveness(100.0, cycling_since=0.0, last_cycle=0.0, interval=60.0).ok


def test_a_stuck_loop_says_for_how_long_and_what_to_do():
    answer = liveness(220.0, cycling_since=0.0, last_cycle=100.0, interval=15.0)
    assert answer.text == (
        "no cycle finished for 120 s, over 3 intervals of 15 s; the loop is stuck and the process should be restarted"
        " (its log names the plugin it waits for)"
    )


@pytest.mark.parametrize("interval", [0.0, -1.0, math.nan])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ParameterError, match="liveness probe: interval: is not positive"):
        liveness(0.0, cycling_since=0.0, last_cycle=0.0, interval=interval)


@pytest.mark.parametrize(
    ("cycling_since", "last_cycle", "is_ready"),
    [(0.0, NEVER, False), (0.0, 15.0, True), (500.0, 15.0, False), (500.0, 500.0, True), (NEVER, NEVER, True)],
)
def test_ready_is_a_first_cycle_or_standing_by(cycling_since, last_cycle, is_ready):
    assert readiness(cycling_since=cycling_since, last_cycle=last_cycle).ok is is_ready
