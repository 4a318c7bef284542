"""
Targets of the percentage-based saturation mode for one scope, written as its definition's own steps.

`variants` are dictionaries with name, analysed, base, cost, pending, settling, min_replicas, max_replicas. NaN is the
answer for a variant that gets none.
"""

from __future__ import annotations

import math


def step(variants, *, up, down):
    """Targets by name."""
    analysed = [one for one in variants if one["analysed"]]
    targets = {one["name"]: math.nan for one in variants} | {one["name"]: one["base"] for one in analysed}
    if not any(one["settling"] for one in analysed):
        costs = {one["name"]: 10.0 if math.isnan(one["cost"]) else one["cost"] for one in variants}
        if up:
            able = [one["name"] for one in analysed if one["pending"] == 0]
            if able:
                targets[min(able, key=lambda name: (costs[name], name))] += 1
        elif down:
            able = [one["name"] for one in analysed if one["base"] > 1]
            if able:
                targets[max(able, key=lambda name: (costs[name], name))] -= 1
    for one in analysed:
        name = one["name"]
        targets[name] = min(max(targets[name], one["min_replicas"]), one["max_replicas"])
    return targets
