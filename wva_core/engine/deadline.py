"""
How much of a cycle's time is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Deadline"]


class Deadline:
    """
    A budget of real seconds that every step of one cycle draws on; None never ends.

    Real time, whatever clock the world runs on: it protects the process, it decides nothing.
    """

    __slots__ = ("_end", "_stopwatch")

    def __init__(self, seconds: float | None = None, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._stopwatch = stopwatch
        self._end = None if seconds is None else stopwatch() + seconds

    @property
    def is_endless(self) -> bool:
        """Whether nothing is ever late; calls then need no thread of their own."""
        return self._end is None

    def remaining(self) -> float | None:
        """Seconds left, never negative; None where there is no end."""
        return None if self._end is None else max(0.0, self._end - self._stopwatch())

    def step(self) -> Deadline:
        """A deadline for one step: half of what is left, so that a late step leaves time to those after it."""
        left = self.remaining()
        return Deadline(None if left is None else left / 2, self._stopwatch)
