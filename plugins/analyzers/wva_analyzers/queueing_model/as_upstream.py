"""
Upstream's judgement, for `compat`: its filter for each pod in turn, its objectives, its rate of one replica.

What differs from upstream on purpose: supply is that of replicas that serve or will, which the engine counts, and not
that of the replicas wished for, with which nothing could ever grow.

Source: upstream WVA v0.9, queueing-model analyzer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from wva_analyzers.queueing_model import kalman, objectives
from wva_analyzers.queueing_model.objectives import Source
from wva_analyzers.queueing_model.remembered import rows_of
from wva_core.domain import Assessment, BoolArray, FloatArray, Groups, Observation, Settings, State, Verdict
from wva_core.domain.arrays import floats, integers
from wva_core.numerics.service_times import ServiceTimes
from wva_core.numerics.sizing import size

__all__ = ["MAX_QUEUE", "busy_means", "overlaid"]

MAX_QUEUE = 100
"""Requests that may wait in front of a replica when its capacity is worked out."""

_REASONS = (
    (
        "{busy:.0f} busy replicas are asked for {demand_served:.2f} requests/s; objectives {goal_ttft_ms:.1f} ms and"
        " {goal_itl_ms:.2f} ms"
    ),
    "no replica reports that it is asked for anything; upstream has no demand then",
    "no replica reports its latencies and policy gives no objectives; upstream refuses the model",
    "learnt by the filter; the last sample's NIS was {nis:.3f}, {rejected:.0f} samples were rejected",
    "the filter has no parameters for this variant, or the objectives are out of reach",
)


def busy_means(
    arrival: FloatArray, columns: Mapping[str, FloatArray], groups: Groups
) -> tuple[FloatArray, FloatArray, dict[str, FloatArray]]:
    """
    Means over busy pods as upstream takes them: (G,) busy pods, their mean rate, and means weighted by rates.

    Pods without arrivals are not busy. NaN where no pod is.
    """
    busy = arrival > 0
    count = groups.count(busy).astype(np.float64)
    weight = np.where(busy, arrival, 0.0)
    total = groups.sum(weight)
    some = total > 0

    def mean(values: FloatArray) -> FloatArray:
        sums = groups.sum(np.where(busy, weight * values, 0.0))
        return np.divide(sums, total, out=np.full_like(total, np.nan), where=some)

    rate = np.divide(total, count, out=np.full_like(total, np.nan), where=some)
    return count, rate, {name: mean(values) for name, values in columns.items()}


def overlaid(
    answer: Assessment, observation: Observation, settings: Settings, state: State, compat: BoolArray
) -> Assessment:
    """The answer with the scopes in `compat` (S,) judged as upstream does."""
    fleet, replicas = observation.fleet, observation.replicas
    scope, by_variant = fleet.scope_of_variant, replicas.index.by_variant
    mine = compat[scope]
    columns = {name: replicas[name] for name in ("input_tokens", "output_tokens", "ttft", "itl")}
    arrival = replicas["arrival_rate"]
    x, P, nis, rejected = _recalled(state, observation)
    tuned = np.asarray(settings["tuning_enabled"], dtype=bool)[scope] & mine
    x, P, nis, rejected = _filtered(observation, x, P, nis, rejected, tuned)

    count, _, own = busy_means(arrival, columns, by_variant)
    busy_of_scope, _, whole = busy_means(arrival, columns, replicas.index.by_scope)
    batch = by_variant.max(np.where(replicas["max_batch"] > 0, replicas["max_batch"], np.nan))
    batch = np.where(np.isnan(batch), kalman.DEFAULT_BATCH, batch)
    ttft, itl = _objectives(observation, settings, x, whole)

    learnt = (x > 0).all(axis=1)
    times = ServiceTimes.of(
        "g2",
        alpha=x[:, 0] / 1000.0,
        beta=x[:, 1] / 1000.0,
        gamma=x[:, 2] / 1000.0,
        max_batch=batch,
        input_tokens=own["input_tokens"],
        output_tokens=own["output_tokens"],
    )
    with np.errstate(invalid="ignore"):
        sized = size(times, ttft=ttft[scope], itl=itl[scope], capacity=batch + MAX_QUEUE, compat=True)
    has_goal = (np.nan_to_num(ttft) > 0) & (np.nan_to_num(itl) > 0)
    usable = learnt & (count > 0) & (sized.throughput > 0) & has_goal[scope]
    capacity = np.where(usable, sized.throughput, np.nan)
    demand = np.where(busy_of_scope > 0, replicas.index.by_scope.sum(np.where(arrival > 0, arrival, 0.0)), np.nan)
    # upstream does not look at queues; here one that is not known is no reason to let replicas go
    complete = replicas.index.by_scope.all(~np.isnan(arrival) & ~np.isnan(replicas["waiting"]))
    idle = replicas.index.by_scope.any(~np.isnan(arrival)) & (busy_of_scope == 0)
    demand = np.where(idle & complete, 0.0, demand)

    offset = len(answer.reasons)
    frozen = np.isnan(demand) | ~has_goal
    verdict = np.where(frozen, Verdict.FREEZE, np.where(complete, Verdict.JUDGED, Verdict.NO_SHRINK))
    reason = offset + np.select([np.isnan(demand), ~has_goal], [1, 2], 0)
    return replace(
        answer,
        demand=floats(np.where(compat, demand, answer.demand)),
        capacity=floats(np.where(mine, capacity, answer.capacity)),
        verdict=integers(np.where(compat, verdict, answer.verdict)),
        reason=integers(np.where(compat, reason, 0 if answer.reason is None else answer.reason)),
        reasons=(*answer.reasons, *_REASONS),
        capacity_reason=integers(
            np.where(
                mine,
                offset + np.where(usable, 3, 4),
                0 if answer.capacity_reason is None else answer.capacity_reason,
            )
        ),
        details={
            **answer.details,
            "busy": busy_of_scope,
            "demand_served": np.where(compat, demand, np.nan),
            "goal_ttft_ms": np.where(compat, 1000.0 * ttft, answer.details["goal_ttft_ms"]),
            "goal_itl_ms": np.where(compat, 1000.0 * itl, answer.details["goal_itl_ms"]),
            "nis": nis,
            "rejected": rejected,
        },
        state={**answer.state, "filter": {"x": x, "P": P, "nis": nis, "rejected": rejected}},
    )


def _recalled(state: State, observation: Observation) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """(V, 3), (V, 3, 3), (V,) and (V,) of the filter, in the order of the fleet."""
    fleet = observation.fleet
    kept: Mapping[str, Any] | None = state.get("filter")
    variants = len(fleet)
    if kept is None:
        return (
            np.full((variants, 3), np.nan),
            np.full((variants, 3, 3), np.nan),
            np.full(variants, np.nan),
            np.zeros(variants),
        )
    rows, _ = rows_of(state, fleet)

    def taken(name: str, fill: float) -> FloatArray:
        column = np.asarray(kept[name], dtype=np.float64)
        result: FloatArray = np.concatenate((column, np.full((1, *column.shape[1:]), fill)))[rows]
        return result

    return taken("x", np.nan), taken("P", np.nan), taken("nis", np.nan), taken("rejected", 0.0)


def _filtered(
    observation: Observation, x: FloatArray, P: FloatArray, nis: FloatArray, rejected: FloatArray, tuned: BoolArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """State, covariance, last NIS and rejections after every busy pod had its turn; NaN where there is no filter."""
    replicas, by_variant = observation.replicas, observation.replicas.index.by_variant
    batch = np.where(replicas["max_batch"] > 0, replicas["max_batch"], kalman.DEFAULT_BATCH)
    pods = kalman.Environment(
        rate=replicas["arrival_rate"],
        input_tokens=replicas["input_tokens"],
        output_tokens=replicas["output_tokens"],
        batch=batch,
        ttft=1000.0 * replicas["ttft"],
        itl=1000.0 * replicas["itl"],
    )
    turns = _turns(pods, pods.valid & tuned[by_variant.of], by_variant)
    process = noise = low = high = None
    for turn, rows in enumerate(turns):
        variant = by_variant.of[rows]
        seen = pods.take(rows)
        if turn == 0:
            x, P, low, high, process, noise = _begun(x, P, variant, seen)
        assert low is not None and high is not None and process is not None and noise is not None  # noqa: S101, PT018
        able = np.isfinite(x[variant]).all(axis=1)
        rows_able = variant[able]
        if not len(rows_able):
            continue
        done = kalman.step(
            x[rows_able],
            P[rows_able],
            seen.take(able),
            process[rows_able],
            noise[rows_able],
            low[rows_able],
            high[rows_able],
        )
        x[rows_able], P[rows_able], nis[rows_able] = done.x, done.P, done.nis
        rejected[rows_able] += ~done.accepted
    return x, P, nis, rejected


def _turns(pods: kalman.Environment, valid: BoolArray, by_variant: Groups) -> list[Any]:
    """Rows of the first usable pod of each variant, then of the second, and so on: the least busy first."""
    rows = np.flatnonzero(valid)
    rows = rows[np.lexsort((pods.itl[rows], pods.ttft[rows], pods.rate[rows], by_variant.of[rows]))]
    owner = by_variant.of[rows]
    if not len(rows):
        return []
    starts = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1])))
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
    return [rows[rank == turn] for turn in range(int(rank.max()) + 1)]


def _begun(x: FloatArray, P: FloatArray, variant: Any, seen: kalman.Environment) -> tuple[FloatArray, ...]:
    """The filters of a cycle: what is stored, else a guess, else the default; and their limits and noises."""
    x, P = x.copy(), P.copy()
    low, high = (np.broadcast_to(bound, x.shape).copy() for bound in kalman.bounds_around(kalman.DEFAULT_STATE))
    fresh = np.isnan(np.sum(x[variant], axis=1))
    guessed, _ = kalman.guess(seen.ttft, seen.itl, seen.input_tokens, seen.output_tokens)
    found = np.all(np.isfinite(guessed), axis=1)
    start = np.where(found[:, None], guessed, kalman.DEFAULT_STATE)
    x[variant[fresh]] = start[fresh]
    around = kalman.bounds_around(start)
    low[variant[fresh]], high[variant[fresh]] = around[0][fresh], around[1][fresh]
    process = kalman.process_noise(x)
    P[variant[fresh]] = process[variant[fresh]]
    noise = np.full((len(x), 2, 2), np.nan)
    noise[variant] = kalman.observation_noise(seen.ttft, seen.itl)
    # a filter whose start the model has no answer for is not made
    impossible = fresh & ~np.isfinite(kalman.predicted(x[variant], seen)).all(axis=1)
    x[variant[impossible]] = np.nan
    P[variant[impossible]] = np.nan
    return x, P, low, high, process, noise


def _objectives(
    observation: Observation, settings: Settings, x: FloatArray, whole: Mapping[str, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """(S,) objectives in seconds: stated, else inferred from what is learnt, else from what is observed."""
    fleet = observation.fleet
    wanted = objectives.stated(fleet.scopes, settings)
    scope = fleet.scope_of_variant
    inferred = objectives.inferred_as_upstream(
        x[:, 0] / 1000.0,
        x[:, 1] / 1000.0,
        x[:, 2] / 1000.0,
        whole["input_tokens"][scope],
        whole["output_tokens"][scope],
        settings["slo_multiplier"][scope],
    )
    fallback = objectives.observed_as_upstream(whole["ttft"], whole["itl"])
    result = []
    for stated, own, observed in zip((wanted.ttft, wanted.itl), inferred, fallback, strict=True):
        learnt = fleet.by_scope.max(own)
        chosen = np.where(np.isnan(learnt), observed, learnt)
        result.append(np.where(wanted.source == Source.INFERRED, chosen, stated))
    return result[0], result[1]
