"""
Growth of many variants fitted into limits they share: whole replicas, the most urgent variant first.

A shared limit is a row `sum(coefficient * replicas) <= upper` over a few variants: accelerators of a type, a budget in
dollars. Rows are sparse: entry `i` says that one replica of variant `variant_of_entry[i]` uses `coefficient[i]` of row
`row_of_entry[i]`.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROUNDING", "fit_growth", "usage_of_rows"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

ROUNDING = 1e-9
"""Relative to the limit: sums of prices such as 0.1 + 0.2 may miss a budget of 0.3 by an ulp."""


def fit_growth(
    base: FloatArray,
    wanted: FloatArray,
    order: IntArray,
    row_of_entry: IntArray,
    variant_of_entry: IntArray,
    coefficient: FloatArray,
    upper: FloatArray,
) -> tuple[FloatArray, IntArray]:
    """
    The replicas each variant may have when growth from `base` towards `wanted` has to fit into shared rows.

    Variants are served in `order`; each gets as many whole replicas as all its rows have room for, up to `wanted`, and
    what it gets is gone for those after it. A variant that wants no more than `base` gets `wanted`, whatever the rows
    say: a row that is exceeded never stops a shrink. What a shrinking variant gives up is not handed on, because it is
    in use until it is released.

    Args:
        base: (V,) whole replicas that count against the rows already; NaN counts as nothing.
        wanted: (V,) whole replicas asked for; infinity asks for as many as fit.
        order: (V,) every variant once, most urgent first.
        row_of_entry: (N,) row of each entry; a variant has at most one entry in a row.
        variant_of_entry: (N,) variant of each entry.
        coefficient: (N,) what one replica uses. 0 uses nothing; negative makes room; NaN lets its variant not grow,
            and its row neither if the variant has replicas.
        upper: (L,) infinity is unlimited, NaN allows no growth.

    Returns:
        (V,) replicas in total, `base <= granted <= wanted` for those that grow, NaN where `base` or `wanted` is NaN;
        (V,) the row that left the fewest replicas to a variant that did not get all it wanted (the first of several),
        else -1.

    Cost: rows with room for everything that is wanted cost a few passes over the entries; only variants in rows
    without are served one after the other, about 0.5 µs an entry.
    Source: own; a plain loop over the definition is the oracle of its tests.
    """
    granted = np.where(np.isnan(base), np.nan, wanted).astype(np.float64, copy=False)
    binding = np.full(len(base), -1, dtype=np.int64)
    growth = np.floor(granted - base)
    slack = ROUNDING * np.abs(upper)
    room = upper - usage_of_rows(base, row_of_entry, variant_of_entry, coefficient, len(upper))

    asks = (growth > 0)[variant_of_entry] & (coefficient != 0)
    claims = np.zeros(len(coefficient))
    uses = asks & ~(coefficient < 0)
    claims[uses] = coefficient[uses] * growth[variant_of_entry[uses]]
    claimed = np.bincount(row_of_entry, weights=claims, minlength=len(upper))
    contested = ~(claimed <= room + slack)

    entries = np.flatnonzero(asks & contested[row_of_entry])
    if len(entries):
        rank = np.empty(len(base), dtype=np.int64)
        rank[order] = np.arange(len(order))
        entries = entries[np.lexsort((row_of_entry[entries], rank[variant_of_entry[entries]]))]
        variants = variant_of_entry[entries]
        starts = np.flatnonzero(np.diff(variants, prepend=-1))
        fitting, tightest = _serve(
            growth[variants[starts]].tolist(),
            [*starts.tolist(), len(entries)],
            row_of_entry[entries].tolist(),
            coefficient[entries].tolist(),
            room.tolist(),
            slack.tolist(),
        )
        binding[variants[starts]] = tightest
        short = np.array(tightest) >= 0
        cut = variants[starts][short]
        granted[cut] = base[cut] + np.array(fitting)[short]
    return granted, binding


def usage_of_rows(
    replicas: FloatArray, row_of_entry: IntArray, variant_of_entry: IntArray, coefficient: FloatArray, rows: int
) -> FloatArray:
    """
    (L,) what these (V,) replicas use of each row; NaN where one uses an amount that is not known.

    A variant without replicas, or with an unknown number, uses nothing, whatever its coefficient.
    """
    of_entry = replicas[variant_of_entry]
    there = of_entry > 0
    used = np.zeros(len(coefficient))
    used[there] = coefficient[there] * of_entry[there]
    return np.bincount(row_of_entry, weights=used, minlength=rows).astype(np.float64, copy=False)


def _serve(
    growth: list[float],
    starts: list[int],
    rows: list[int],
    uses: list[float],
    room: list[float],
    slack: list[float],
) -> tuple[list[float], list[int]]:
    """Replicas added to each claimant in turn, and the row that stopped it; `room` is used up on the way."""
    fitting, tightest = [], []
    for claimant, most in enumerate(growth):
        entries = range(starts[claimant], starts[claimant + 1])
        fits, tight = most, -1
        for entry in entries:
            row, use = rows[entry], uses[entry]
            left = room[row] + slack[row]
            if use < 0 or fits * use <= left:
                continue
            allowed = float(math.floor(left / use)) if left > 0 and use > 0 else 0.0  # NaN fails both
            if allowed < fits:
                fits, tight = allowed, row
        if fits > 0:
            for entry in entries:
                room[rows[entry]] -= fits * uses[entry]
        fitting.append(fits)
        tightest.append(tight)
    return fitting, tightest
