"""
What the health probes of the process answer; pure functions of when things happened.

All times are seconds of one clock that never goes back. NaN is "has not happened".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wva_core.errors import ParameterError

__all__ = ["LIVE_INTERVALS", "Health", "liveness", "readiness"]

LIVE_INTERVALS = 3.0
"""Intervals without a finished cycle after which the process counts as stuck."""


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to a probe, and the sentence that goes with it."""

    ok: bool
    text: str


def liveness(
    now: float, *, cycling_since: float, last_cycle: float, interval: float, intervals: float = LIVE_INTERVALS
) -> Health:
    """
    Whether the loop still turns: a cycle finished within the last few intervals.

    The first cycle gets as long from when the loop began. A process that stands by has no loop to be stuck.

    Args:
        now: time of the probe.
        cycling_since: when this process began to run cycles, at its start or when it became the leader; NaN while it
            stands by.
        last_cycle: when the last cycle finished; NaN if none has.
        interval: between cycles, as configured now.
        intervals: how many of them may pass; the boundary is still live.

    Raises:
        ParameterError: the interval is not positive.
    """
    if not interval > 0:
        raise ParameterError(
            "is not positive", object="liveness probe", key="interval", value=interval, remedy="give seconds"
        )
    if math.isnan(cycling_since):
        return Health(ok=True, text="stands by: another process runs the cycles")
    has_finished = not math.isnan(last_cycle) and last_cycle >= cycling_since
    silent = now - (last_cycle if has_finished else cycling_since)
    if silent > intervals * interval:
        return Health(
            ok=False,
            text=f"no cycle finished for {silent:.0f} s, over {intervals:g} intervals of {interval:g} s; the loop is"
            " stuck and the process should be restarted (its log names the plugin it waits for)",
        )
    if has_finished:
        return Health(ok=True, text=f"the last cycle finished {silent:.0f} s ago")
    return Health(ok=True, text=f"the first cycle has been under way for {silent:.0f} s")


def readiness(*, cycling_since: float, last_cycle: float) -> Health:
    """
    Whether this process does its work: the first cycle is done, or it stands by.

    Args:
        cycling_since, last_cycle: as in `liveness`.
    """
    if math.isnan(cycling_since):
        return Health(ok=True, text="stands by: another process runs the cycles")
    if math.isnan(last_cycle) or last_cycle < cycling_since:
        return Health(ok=False, text="the first cycle is not done yet; nothing is published before it")
    return Health(ok=True, text="cycles run")
