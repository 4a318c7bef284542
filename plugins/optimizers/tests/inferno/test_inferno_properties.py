"""The inferno optimizer on random problems: what the engine would refuse is never answered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wva_core.domain import LimitRows
from wva_core.domain.arrays import floats, integers
from wva_core.engine.verify import refusal
from wva_core.testing.samples import sample_ballot, sample_limits, sample_observation
from wva_optimizers.inferno import Inferno
from wva_optimizers.inferno.greedy import SaturationPolicy


def shared_rows(base, rng):
    """Up to three rows over some variants: full, free or exceeded, not known, with lower limits, some making room."""
    variants, uses, lower, upper = [], [], [], []
    for _ in range(int(rng.integers(0, 4))):
        some = np.sort(rng.choice(len(base), int(rng.integers(1, len(base) + 1)), replace=False))
        each = rng.choice([1.0, 2.0, 0.3, -1.0], len(some), p=[0.5, 0.2, 0.2, 0.1])
        used = float(each @ base[some])
        variants.append(some)
        uses.append(each)
        lower.append(rng.choice([-np.inf, used - 2]))
        upper.append(rng.choice([np.inf, np.nan, used, used + 3, used - 2]))
    return LimitRows(
        tuple(f"row {number}" for number in range(len(variants))),
        integers(np.cumsum([0, *(len(some) for some in variants)])),
        integers(np.concatenate([np.empty(0, dtype=np.int64), *variants])),
        floats(np.concatenate([np.empty(0), *uses])),
        floats(lower),
        floats(upper),
    )


def problem(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 30))
    seen = sample_observation(seed, count)
    bounds = sample_limits(seen)
    if rng.random() < 0.5:
        low = np.floor(seen.variants.base * rng.uniform(0.0, 1.4, count))
        bounds = replace(bounds, low=floats(low), high=floats(low + rng.integers(0, 4, count)))
    bounds = replace(bounds, rows=shared_rows(seen.variants.base, rng))
    if rng.random() < 0.3:
        bounds = replace(bounds, together=(integers(rng.choice(count, min(count, 3), replace=False)),))
    ballot = sample_ballot(seen, seed, known=rng.choice([1.0, 0.7]))
    policy = list(SaturationPolicy)[int(rng.integers(4))]
    plugin = Inferno(Inferno.Parameters(saturation_policy=policy, delayed_best_effort=bool(rng.integers(2))))
    return plugin, seen, ballot, bounds


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_what_the_limits_do_not_allow_is_never_answered(first):
    tried = 0
    for seed in range(first, first + 50):
        plugin, seen, ballot, bounds = problem(seed)
        base = seen.variants.base
        least_change = np.clip(base, np.ceil(bounds.low), np.floor(bounds.high))
        if refusal(least_change, base, bounds, seen.fleet, "") is not None:
            continue  # the limits contradict each other
        tried += 1
        answer = plugin.allocate(observation=seen, ballot=ballot, limits=bounds)
        assert refusal(answer.replicas, base, bounds, seen.fleet, f"seed {seed}") is None
    assert tried > 20
