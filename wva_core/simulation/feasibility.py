"""
Demand of a scenario against what the largest allowed fleet can serve, before anything runs.

Both are upper bounds in favour of the scenario: an engine at its fullest batch, every GPU on the variant that serves
most per GPU. So what is found infeasible is; what is found feasible may still miss its objectives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wva_core.domain.arrays import BoolArray, FloatArray
from wva_core.errors import InfeasibleError
from wva_core.simulation.cluster import Deployment
from wva_core.simulation.profiles import ServerProfile, closed_loop_seconds_per_token
from wva_core.simulation.workload import Trace

__all__ = ["WINDOW_S", "check_demand", "requests_per_second"]

WINDOW_S = 300.0
"""Demand is compared with capacity over windows of this length, a few start-up times of a replica."""


def requests_per_second(profile: ServerProfile, input_tokens: float, output_tokens: float) -> float:
    """
    Requests of a mean length that one engine can finish per second, at its fullest batch.

    `b / (o × seconds per token)` of the closed loop, which grows with the batch b; b is what the engine runs at once,
    or what its cache holds of sequences half way through their answer.
    """
    prompt, answer = int(input_tokens), max(1, int(output_tokens))
    held = int(profile.kv_capacity_tokens / max(prompt + answer / 2, 1.0))
    batch = min(profile.max_batch, max(1, held))
    return batch / (answer * closed_loop_seconds_per_token(profile, batch, prompt, answer))


@dataclass(frozen=True, slots=True, eq=False)
class _Demand:
    """One model's requests per window and what serving them takes; (W,) each."""

    rate: FloatArray  # requests/s; 0 in a window without
    capacity: FloatArray  # requests/s of the largest fleet of this model alone
    gpus: FloatArray  # fewest GPUs that serve the rate; 0 where a variant needs no limited type

    @property
    def is_busy(self) -> BoolArray:
        return self.rate > 0


def check_demand(
    source: str,
    duration_s: float,
    traces: Mapping[str, Trace],
    deployments: Sequence[Deployment],
    max_replicas: Mapping[str, int | None],
    gpus: Mapping[str, int],
) -> tuple[str, ...]:
    """
    Warnings where demand is beyond the largest allowed fleet for part of the time.

    Args:
        source: the file, for messages.
        duration_s: when traffic ends.
        traces: requests by model.
        deployments: the variants; models with a variant of pinned signals are left out.
        max_replicas: by variant; None is unlimited.
        gpus: by accelerator type; a type left out is unlimited.

    Raises:
        InfeasibleError: demand is beyond it throughout: in every window with requests.
    """
    warnings: list[str] = []
    demands: list[_Demand] = []
    for model, trace in traces.items():
        mine = [deployment for deployment in deployments if deployment.model == model]
        if not len(trace) or any(deployment.pinned_signals for deployment in mine):
            continue
        demand = _demand(trace, duration_s, mine, max_replicas, gpus)
        demands.append(demand)
        busy = demand.is_busy
        over = busy & (demand.rate > demand.capacity)
        if np.array_equal(over, busy):
            raise InfeasibleError(
                f"needs {_span(demand.rate[busy])} requests/s throughout, and the largest fleet that gpus and"
                f" maxReplicas allow serves {_span(demand.capacity[busy])}",
                object=source,
                key=f"model {model}",
                remedy="allow more GPUs or replicas, take faster accelerators, or scale the traffic down",
            )
        if np.any(over):
            warnings.append(_warning(f"model {model}: demand is", over, busy))
    if len(demands) > 1:
        warnings += _check_together(source, demands, deployments, gpus)
    return tuple(warnings)


def _check_together(
    source: str, demands: Sequence[_Demand], deployments: Sequence[Deployment], gpus: Mapping[str, int]
) -> list[str]:
    """Several models on the same GPUs: as `check_demand`."""
    there = sum(gpus[kind] for kind in {deployment.accelerator for deployment in deployments} if kind in gpus)
    needed: FloatArray = np.sum([demand.gpus for demand in demands], axis=0)
    busy: BoolArray = np.any([demand.is_busy for demand in demands], axis=0)
    over = busy & (needed > there)
    if np.array_equal(over, busy):
        raise InfeasibleError(
            f"all models together need at least {_span(needed[busy])} GPUs throughout, and there are {there}",
            object=source,
            key="gpus",
            remedy="allow more GPUs, take faster accelerators, or scale the traffic down",
        )
    return [_warning("all models together: demand is", over, busy)] if np.any(over) else []


def _demand(
    trace: Trace,
    duration_s: float,
    deployments: Sequence[Deployment],
    max_replicas: Mapping[str, int | None],
    gpus: Mapping[str, int],
) -> _Demand:
    starts = np.arange(0.0, duration_s, WINDOW_S)
    window = np.searchsorted(starts, trace.arrival_s, side="right") - 1
    count = np.bincount(window, minlength=len(starts)).astype(np.float64)
    rate = count / (np.minimum(starts + WINDOW_S, duration_s) - starts)
    prompt = np.bincount(window, weights=trace.input_tokens, minlength=len(starts)) / np.maximum(count, 1.0)
    answer = np.bincount(window, weights=trace.output_tokens, minlength=len(starts)) / np.maximum(count, 1.0)
    capacity, needed = np.full(len(starts), np.inf), np.zeros(len(starts))
    for row in np.flatnonzero(count).tolist():
        rates = [requests_per_second(deployment.profile, prompt[row], answer[row]) for deployment in deployments]
        capacity[row] = _largest_fleet(deployments, rates, max_replicas, gpus)
        if all(deployment.accelerator in gpus for deployment in deployments):
            needed[row] = rate[row] / max(
                served / deployment.gpus_per_replica for served, deployment in zip(rates, deployments, strict=True)
            )
    return _Demand(rate, capacity, needed)


def _largest_fleet(
    deployments: Sequence[Deployment],
    rates: Sequence[float],
    max_replicas: Mapping[str, int | None],
    gpus: Mapping[str, int],
) -> float:
    """Requests/s of the largest fleet: on each type of GPU the variants that serve most per GPU first."""
    free: dict[str, float] = dict(gpus)
    total = 0.0
    order = sorted(range(len(deployments)), key=lambda row: -rates[row] / deployments[row].gpus_per_replica)
    for row in order:
        deployment = deployments[row]
        kind, size, most = deployment.accelerator, deployment.gpus_per_replica, max_replicas[deployment.variant]
        room = math.inf if most is None else float(most)
        if kind in free:
            room = min(room, free[kind] / size)
            if sum(other.accelerator == kind for other in deployments) == 1:
                room = math.floor(room)  # parts of a replica only where another variant could fill the rest
            free[kind] -= room * size
        if room == math.inf:
            return math.inf
        total += room * rates[row]
    return total


def _warning(what: str, over: BoolArray, busy: BoolArray) -> str:
    return (
        f"{what} beyond the largest allowed fleet in {np.count_nonzero(over)} of {np.count_nonzero(busy)} windows of"
        f" {WINDOW_S:g} s; no contender can keep the objectives there"
    )


def _span(values: FloatArray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
