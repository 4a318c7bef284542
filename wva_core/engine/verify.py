"""
Accepts or refuses an allocation; changes nothing.
"""

from __future__ import annotations

import numpy as np

from wva_core.domain import Fleet, FloatArray, Limits
from wva_core.errors import PluginFailure

__all__ = ["refusal"]

_ROUNDING = 1e-9


def refusal(
    replicas: FloatArray, base: FloatArray, limits: Limits, fleet: Fleet, optimizer: str
) -> PluginFailure | None:
    """
    Why an allocation cannot be carried out, or None.

    Args:
        replicas: (V,) the answer; NaN leaves a variant as it is.
        base: (V,) replicas that count as used already.
        limits: what it had to keep.
        optimizer: how messages name it.

    A shared row that is exceeded already, or that the lower limits alone exceed, may stay so, but no answer may add to
    it; and what a shrinking variant gives up counts as used until it is released.
    """

    def refused(row: int, problem: str) -> PluginFailure:
        return PluginFailure(
            problem,
            object=optimizer,
            key=fleet.keys[row],
            value=float(replicas[row]),
            remedy="every target holds; report this to the author of the optimizer",
        )

    given = ~np.isnan(replicas)
    broken = given & ((replicas != np.floor(replicas)) | (replicas < 0) | np.isinf(replicas))
    if np.any(broken):
        return refused(int(np.argmax(broken)), "is not a whole number of replicas")
    outside = given & ((replicas < limits.low) | (replicas > limits.high))
    outside |= given & np.isnan(limits.low)
    if np.any(outside):
        row = int(np.argmax(outside))
        return refused(row, f"is outside [{limits.low[row]:g}, {limits.high[row]:g}]")
    answered = np.where(given, replicas, base)
    # without a change no row can have been broken, which spares a steady cycle the sums
    if len(limits.rows) and np.any(answered != base):
        rows = limits.rows
        used_now = rows.usage(np.fmax(base, limits.low))
        used_then = rows.usage(np.fmax(answered, base))
        grown = used_then > used_now
        upper = np.where(np.isnan(rows.upper), -np.inf, rows.upper)
        # a row without a finite limit needs no tolerance, and minus infinity with one would be not a number
        scale = np.maximum(np.abs(np.where(np.isfinite(upper), upper, 0.0)), 1.0)
        over = grown & (used_then > upper + _ROUNDING * scale)
        if np.any(over):
            row = int(np.argmax(over))
            return PluginFailure(
                f"uses {used_then[row]:g} of {rows.upper[row]:g}",
                object=optimizer,
                key=rows.labels[row],
                remedy="every target holds; report this to the author of the optimizer",
            )
        left = rows.usage(answered)
        short = (left < rows.usage(base)) & (left < rows.lower - _ROUNDING * np.maximum(np.abs(rows.lower), 1.0))
        if np.any(short):
            row = int(np.argmax(short))
            return PluginFailure(
                f"leaves {left[row]:g} of at least {rows.lower[row]:g}",
                object=optimizer,
                key=rows.labels[row],
                remedy="every target holds; report this to the author of the optimizer",
            )
    for group in limits.together:
        known = replicas[group][~np.isnan(replicas[group])]
        if known.size and np.any(known == 0) and np.any(known > 0):
            return refused(
                int(group[0]), "belongs to a group that is all zero or all at least one, and the group is not"
            )
    return None
