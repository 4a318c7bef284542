"""
The binary search of the original controller, step by step: direction found out, stopped by a relative tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

TOLERANCE = 1e-6
STEPS = 100


def within(x: float, target: float, tolerance: float) -> bool:
    """Whether a value counts as its target."""
    if x == target:
        return True
    if target == 0 or tolerance < 0:
        return False
    return abs((x - target) / target) <= tolerance


def search(function: Callable[[float], float], low: float, high: float, target: float) -> tuple[float, int]:
    """The argument, and -1, 0 or 1: the target is before the range, in it, or behind it."""
    if low > high:
        raise ValueError("invalid range")
    at_low, at_high = function(low), function(high)
    for x, value in ((low, at_low), (high, at_high)):
        if within(value, target, TOLERANCE):
            return x, 0
    rises = at_low < at_high
    if (target < at_low) if rises else (target > at_low):
        return low, -1
    if (target > at_high) if rises else (target < at_high):
        return high, 1
    x = low
    for _ in range(STEPS):
        x = 0.5 * (low + high)
        value = function(x)
        if within(value, target, TOLERANCE):
            break
        if (target > value) == rises:
            low = x
        else:
            high = x
    return x, 0
