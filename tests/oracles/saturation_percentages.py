"""
The percentage-based saturation analysis, one replica at a time, in plain loops over lists and dictionaries.

Written from its definition and apart from the package on purpose. Every value is known; floats are added in the order
of the rows, as the definition's own loops do.
"""

from __future__ import annotations


def analyse(replicas, K=0.80, Q=5.0, ks=0.10, qs=3.0):
    """
    One scope: `replicas` are (variant, kv, waiting).

    Returns a dictionary with `n`, `saturated`, `AK`, `AQ`, `up`, `down`, and `avg_kv`, `max_kv`, `max_queue` by
    variant.
    """
    variants = {}
    saturated = 0
    for variant, kv, waiting in replicas:
        one = variants.setdefault(variant, {"spare_kv": 0.0, "spare_q": 0.0, "m": 0, "kvs": [], "qs": []})
        one["kvs"].append(kv)
        one["qs"].append(waiting)
        if kv >= K or waiting >= Q:
            saturated += 1
        else:
            one["spare_kv"] += K - kv
            one["spare_q"] += Q - waiting
            one["m"] += 1
    n = sum(one["m"] for one in variants.values())
    AK = AQ = 0.0
    if n:
        for name in sorted(variants):
            one = variants[name]
            if one["m"]:
                AK += one["spare_kv"] / one["m"] * one["m"]
                AQ += one["spare_q"] / one["m"] * one["m"]
        AK /= n
        AQ /= n
    up = bool(replicas) and (ks > AK or qs > AQ)
    down = False
    if n >= 2:
        f = n / (n - 1)
        down = K - (K - AK) * f >= ks and Q - (Q - AQ) * f >= qs
    return {
        "n": n,
        "saturated": saturated,
        "AK": AK,
        "AQ": AQ,
        "up": up,
        "down": down,
        "avg_kv": {name: sum(one["kvs"]) / len(one["kvs"]) for name, one in variants.items()},
        "max_kv": {name: max(one["kvs"]) for name, one in variants.items()},
        "max_queue": {name: max(one["qs"]) for name, one in variants.items()},
    }
