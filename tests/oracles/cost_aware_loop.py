"""
Joint growth and dearest-first shrinking of one model at a time, in plain loops over dictionaries; no numpy, no rows.

`literal=True` follows the published loop of upstream WVA v0.9 line by line. The default differs in what is said of it:
roles without need are left out, every analyzer counts in its own unit, and the last replica of a role stays.

A model is a list of roles. A role has `need`, `spare`, `gates` and `score` (lists over the analyzers) and `variants`;
a variant has `name`, `cost`, `prc` (its capacity by the anchor), `own` (by each analyzer; 0 is not known), `start`,
`low` and `high`.
"""

from __future__ import annotations

import math
from statistics import median


def move(model, *, literal=False):
    """Replicas by variant name after one cycle of one model."""
    target = {variant["name"]: variant["start"] for role in model for variant in role["variants"]}
    if any(need > 0 for role in model for need in role["need"]):
        (grow_literally if literal else grow_in_own_units)(model, target)
    else:
        for role in model:
            shrink(role, target, literal=literal)
    return target


def by_price(role):
    return sorted(
        (variant for variant in role["variants"] if variant["prc"] > 0),
        key=lambda variant: variant["cost"] / variant["prc"],
    )


def grow_literally(model, target):
    needs = [list(role["need"]) for role in model]
    while any(need > 0 for mine in needs for need in mine):
        picks = []
        for role in model:
            pick = next((v for v in by_price(role) if v["high"] - target[v["name"]] >= 1), None)
            if pick is None:
                return
            picks.append(pick)
        whole, most, shares = [], [], []
        for pick, mine in zip(picks, needs, strict=True):
            asked = [math.ceil(need / own) for need, own in zip(mine, pick["own"], strict=True) if own > 0]
            n = min(max([0, *asked]), pick["high"] - target[pick["name"]])
            need = max(mine)
            whole.append(n)
            most.append(need)
            shares.append(n * pick["prc"] / need if need > 0 else 1.0)
        share = min(shares)
        if share <= 0:
            return
        steps = [
            max(math.floor(share * need / pick["prc"]), min(1, n)) if need > 0 else 0
            for pick, n, need in zip(picks, whole, most, strict=True)
        ]
        if not any(steps):
            return
        for pick, mine, step in zip(picks, needs, steps, strict=True):
            target[pick["name"]] += step
            for i, need in enumerate(mine):
                mine[i] = max(0.0, need - step * pick["prc"])


def grow_in_own_units(model, target):
    needs = [list(role["need"]) for role in model]
    while any(need > 0 for mine in needs for need in mine):
        picked = []
        for role, mine in zip(model, needs, strict=True):
            if not any(need > 0 for need in mine):
                continue
            for variant in by_price(role):
                replicas = [need / own if own > 0 else 0.0 for need, own in zip(mine, variant["own"], strict=True)]
                if variant["high"] - target[variant["name"]] >= 1 and max(replicas) > 0:
                    picked.append((role, mine, variant, replicas))
                    break
            else:
                return
        parts = []
        for _, _, variant, replicas in picked:
            n = min(max(math.ceil(one) for one in replicas), variant["high"] - target[variant["name"]])
            parts.append((n / max(replicas), n))
        share = min(part for part, _ in parts)
        for (role, mine, variant, replicas), (part, n) in zip(picked, parts, strict=True):
            step = n if part == share else max(math.floor(share * max(replicas)), 1)
            target[variant["name"]] += step
            for i, need in enumerate(mine):
                known = [other["own"][i] for other in role["variants"] if other["own"][i] > 0]
                own = variant["own"][i] if variant["own"][i] > 0 else median(known) if known else 0.0
                enough = variant["own"][i] > 0 and step >= replicas[i] > 0
                mine[i] = 0.0 if enough else max(0.0, need - step * own)


def shrink(role, target, *, literal):
    gating = [i for i, gates in enumerate(role["gates"]) if gates]
    spare = list(role["spare"])
    if not gating or any(spare[i] <= 0 for i in gating):
        return

    def weight(variant):
        return sum(score * own for score, own in zip(role["score"], variant["own"], strict=True))

    order = sorted(role["variants"], key=lambda v: (-v["cost"], weight(v), v["name"]))
    for position, variant in enumerate(order):
        if variant["prc"] <= 0:
            continue
        name = variant["name"]
        n = target[name] - variant["low"]
        for i in gating:
            if variant["own"][i] > 0:
                n = min(n, math.floor(spare[i] / variant["own"][i]))
        if literal:
            dearer = any(target[other["name"]] > 0 for other in order[:position])
            if position == len(order) - 1 and target[name] - n < 1 and not dearer:
                n = target[name] - 1
        else:
            n = min(n, sum(target[other["name"]] for other in role["variants"]) - 1)
        if n > 0:
            target[name] -= n
            for i, own in enumerate(variant["own"]):
                spare[i] = max(0.0, spare[i] - n * own)
