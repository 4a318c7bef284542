"""
What the replicas show, brought to variants and scopes: lengths, samples to learn from, and the rate that is offered.

A rate of zero is a measurement; a latency that nobody reports is not. Sums leave unknown rows out and say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wva_analyzers.queueing_model.estimator import Sample
from wva_core.domain import BoolArray, FloatArray, Groups, Observation

__all__ = ["RATE_WINDOW", "Load", "Mix", "lengths_of", "load_of", "mix_of", "sample_of"]

RATE_WINDOW = 60.0
"""Seconds over which collectors form rates."""

_PATIENT_REQUESTS = 30.0
# Requests in a rate window from which the lengths of that window count as much as all before.

_CACHE_SHARE = 0.9
# Of the key/value cache that requests of mean length may fill: their lengths differ, and the next prompt needs room.


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """
    The requests of each variant, and how many of them an engine serves together; (V,), NaN not known.

    Attributes:
        input_tokens, output_tokens: per request; those of the whole scope, so that capacities share one unit.
        own_input, own_output: those of the variant's replicas alone.
        batch: requests served together: the engine's limit, or what its cache holds of this mix.
    """

    input_tokens: FloatArray
    output_tokens: FloatArray
    own_input: FloatArray
    own_output: FloatArray
    batch: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """
    What is asked of each scope; (S,).

    Attributes:
        offered: requests/s that arrive, those that pile up in the gateway included; NaN not known.
        backlog: requests that wait, in gateway and engines.
        gateway: requests in the gateway; NaN where there is none.
        complete: nothing that is part of the load is missing.
    """

    offered: FloatArray
    backlog: FloatArray
    gateway: FloatArray
    complete: BoolArray


def _mean(values: FloatArray, weights: FloatArray, groups: Groups) -> FloatArray:
    """(G,) weighted mean of the known values; NaN where none is known."""
    known = np.isfinite(values) & (weights > 0)
    total = groups.sum(np.where(known, weights, 0.0))
    sums = groups.sum(np.where(known, values * np.where(known, weights, 0.0), 0.0))
    return np.divide(sums, total, out=np.full_like(total, np.nan), where=total > 0)


def lengths_of(observation: Observation, remembered: FloatArray) -> FloatArray:
    """
    (V, 2) input and output tokens of a request, by variant; NaN not known.

    They are those remembered, moved to those of the last minute as far as there were requests in it: a shift of lengths
    under load shows at once, and a few odd requests in a quiet minute do not turn everything over.

    Args:
        observation: of this cycle.
        remembered: (V, 2) of the cycle before; NaN unknown.
    """
    replicas = observation.replicas
    by_variant = replicas.index.by_variant
    served = _served(observation)
    weight = np.maximum(np.nan_to_num(replicas["arrival_rate"]), served) + 1e-9
    own, counts = [], by_variant.sum(served)
    for column, (length, rate) in enumerate(
        (("input_tokens", "input_token_rate"), ("output_tokens", "output_token_rate"))
    ):
        long = _mean(replicas[length], weight, by_variant)
        known = np.isfinite(replicas[rate]) & (served > 0)
        requests = by_variant.sum(np.where(known, served, 0.0))
        tokens = by_variant.sum(np.where(known, replicas[rate], 0.0))
        recent = np.divide(tokens, requests, out=long.copy(), where=(requests > 0) & (tokens > 0))
        before = np.where(np.isnan(remembered[:, column]), long, remembered[:, column])
        heard = np.where(requests > 0, requests, counts) * RATE_WINDOW
        trust = heard / (heard + _PATIENT_REQUESTS)
        both = before + trust * (recent - before)
        own.append(np.where(np.isnan(both), np.where(np.isnan(before), recent, before), both))
    return np.stack((own[0], np.maximum(own[1], 1.0)), axis=1)


def _served(observation: Observation) -> FloatArray:
    """(R,) requests/s that replicas answer; 0 where not known."""
    return np.nan_to_num(np.fmax(observation.replicas["request_rate"], 0.0))


def mix_of(observation: Observation, own: FloatArray, remembered: FloatArray, known_batch: FloatArray) -> Mix:
    """
    The mix of requests seen now.

    Args:
        observation: of this cycle.
        own: (V, 2) as `lengths_of` has them.
        remembered: (V,) batch of the cycle before, for variants that show nothing now; NaN unknown.
        known_batch: (V,) batch that policy gives, where the engine does not say; NaN for none.
    """
    replicas, fleet = observation.replicas, observation.fleet
    by_variant, scope = replicas.index.by_variant, fleet.scope_of_variant
    counts = by_variant.sum(_served(observation)) + 1e-9
    mean_input, mean_output = (_mean(column, counts, fleet.by_scope)[scope] for column in own.T)
    limit = by_variant.max(replicas["max_batch"])
    cache = by_variant.max(replicas["kv_capacity_tokens"])
    with np.errstate(divide="ignore", invalid="ignore"):
        fits = _CACHE_SHARE * cache / (mean_input + mean_output / 2.0)
    batch = np.fmin(limit, np.maximum(fits, 1.0))
    batch = np.where(np.isnan(batch), known_batch, batch)
    batch = np.where(np.isnan(batch), remembered, batch)
    return Mix(mean_input, mean_output, own[:, 0], own[:, 1], np.maximum(batch, 1.0))


def sample_of(observation: Observation, mix: Mix, seconds: float) -> Sample:
    """What those replicas of each variant show that report latencies, `seconds` after the sample before."""
    replicas = observation.replicas
    groups = replicas.index.by_variant
    arrived, finished = replicas["arrival_rate"], replicas["request_rate"]
    told = (arrived > 0) & np.isfinite(replicas["ttft"]) & np.isfinite(replicas["itl"])
    weight = np.where(told, arrived, 0.0)
    count = groups.count(told).astype(np.float64)
    rate = np.divide(groups.sum(weight), count, out=np.full_like(count, np.nan), where=count > 0)
    done = _mean(finished, weight, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(np.log(np.maximum(rate, 1e-12) / np.maximum(done, 1e-12)))
    running = np.where(replicas["running"] > 0, replicas["running"], np.nan)
    return Sample(
        rate=np.where(count > 0, rate, np.where(groups.any(arrived == 0), 0.0, np.nan)),
        input_tokens=mix.own_input,
        output_tokens=mix.own_output,
        ttft=_mean(replicas["ttft"], weight, groups),
        itl=_mean(replicas["itl"], weight, groups),
        running=_mean(running, weight, groups),
        batch=mix.batch,
        replicas=np.maximum(observation.fleet.by_scope.sum(np.nan_to_num(observation.variants.ready)), 1.0)[
            observation.fleet.scope_of_variant
        ],
        change=np.minimum(np.nan_to_num(change, nan=0.0), 1.0),
        fresh=np.full(len(rate), np.clip(seconds / RATE_WINDOW, 0.05, 1.0)),
    )


def load_of(observation: Observation, queued_before: FloatArray, seconds: float) -> Load:
    """
    The rate that is offered to each scope, and what waits.

    A request in the gateway is in no replica's rate yet: what piles up there is added. The gateway's own rate counts
    where one service class has the model for itself; where it is known, replicas that do not report yet hide nothing.

    Args:
        observation: of this cycle.
        queued_before: (S,) requests in the gateway a cycle ago; NaN not known.
        seconds: since then.
    """
    replicas = observation.replicas
    by_scope = replicas.index.by_scope
    arrived, waiting = replicas["arrival_rate"], replicas["waiting"]
    reported = by_scope.sum(np.nan_to_num(arrived))
    any_known, all_known = by_scope.any(~np.isnan(arrived)), by_scope.all(~np.isnan(arrived))
    share = _share_of_model(observation, reported)
    gateway_rate = observation.scopes["arrival_rate"] * np.where(share < 1.0, np.nan, 1.0)
    queue = observation.scopes["queue_size"] * share
    piling = np.nan_to_num((queue - queued_before) / seconds) if seconds > 0 else np.zeros_like(queue)
    offered = np.fmax(np.where(any_known, reported, np.nan), gateway_rate) + np.maximum(piling, 0.0)
    seen = np.isfinite(gateway_rate) | (all_known & any_known)
    return Load(
        offered=offered,
        backlog=by_scope.sum(np.nan_to_num(waiting)) + np.nan_to_num(queue),
        gateway=queue,
        complete=seen & by_scope.all(~np.isnan(waiting)) & (by_scope.sizes() > 0),
    )


def _share_of_model(observation: Observation, reported: FloatArray) -> FloatArray:
    """(S,) share of a scope in what is told of its model as a whole: 1 where its class has the model for itself."""
    fleet = observation.fleet
    names = {name: row for row, name in enumerate(dict.fromkeys((one.namespace, one.model) for one in fleet.models))}
    classes = np.zeros(len(names))
    for one in fleet.models:
        classes[names[one.namespace, one.model]] += 1
    if np.all(classes <= 1):
        return np.ones(len(fleet.scopes))
    model = np.array([names[one.namespace, one.model] for one in fleet.scopes], dtype=np.int64)
    total = np.bincount(model, weights=np.nan_to_num(reported), minlength=len(names))[model]
    many = classes[model] > 1
    return np.where(many, np.divide(reported, total, out=1.0 / classes[model], where=total > 0), 1.0)
