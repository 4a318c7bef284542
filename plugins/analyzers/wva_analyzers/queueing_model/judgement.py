"""
From an observation and what is remembered to demand, capacity and a verdict for every scope.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wva_analyzers.queueing_model import estimator, objectives
from wva_analyzers.queueing_model.capacity import (
    Capacity,
    behind_one_router,
    capacity_of,
    engines_of,
    lateness,
    profiles_of,
)
from wva_analyzers.queueing_model.lead_time import LoadHistory, followed, planned, watched
from wva_analyzers.queueing_model.objectives import Objectives, Source
from wva_analyzers.queueing_model.remembered import Remembered, later_start_up, recall
from wva_analyzers.queueing_model.seen import RATE_WINDOW, Load, lengths_of, load_of, mix_of, sample_of
from wva_core.domain import (
    Assessment,
    BoolArray,
    FloatArray,
    IntArray,
    Observation,
    Settings,
    State,
    Verdict,
)

__all__ = ["REASONS", "judged"]

_CYCLE_SECONDS = 15.0  # taken for the first cycle's distance to one before it
_BLIND_SECONDS = 45.0
# From a change of the load until it is fully seen and acted on: most of the rates' window, and a cycle.

_WORK_SQUARE = 2.0
# Mean square of the work of a request by its squared mean; lengths are taken for exponential, as in the model.

_MOST_POOLED = 1e4  # replicas; beyond, pooling gains nothing more

REASONS = (
    "",
    (
        "{offered:.2f} requests/s arrive and {waiting:.0f} requests wait; {planned:.2f} requests/s are planned for,"
        " within {goal_ttft_ms:.0f} ms to the first token and {goal_itl_ms:.1f} ms between tokens on average"
    ),
    "no replica and no gateway reports how many requests arrive",
    "requests are served, but no replica reports the time to first token",
    "requests are served, but no replica reports the time between tokens",
    "policy has service classes, but none with this name promises anything for this model; add it to serviceClasses",
    "nothing is known of the replicas yet; give a profile for this model and accelerator, or wait for latencies",
    (
        "the objectives are out of reach even without load; the nearest that hold are targetTTFT"
        " {feasible_ttft_ms:.0f} and targetITL {feasible_itl_ms:.1f}"
    ),
    "some replicas do not report what arrives or waits; nothing shrinks until they do",
    "the load was followed for less than the {ahead_seconds:.0f} s a new replica takes; nothing shrinks yet",
    (
        "learnt from live latencies: alpha {alpha_ms:.2f} ms, beta {beta_us:.2f} µs/token, gamma {gamma_us:.4f}"
        " µs/token ({used:.0f} samples, {discounted:.0f} counted less for being far off, {unusable:.0f} unusable)"
    ),
    "no latency was seen on this variant, and policy gives no profile for its model and accelerator",
    "the objectives are out of reach on this accelerator even without load",
    (
        "{offered:.2f} requests/s arrive and {waiting:.0f} requests wait; {planned:.2f} requests/s are planned for,"
        " so that {goal_percent:g} % of them have {goal_ttft_ms:.0f} ms to the first token and {goal_itl_ms:.1f} ms"
        " between tokens at most"
    ),
    (
        "behind the same router its replicas, full with fewer requests, would take more from those that run than they"
        " would add"
    ),
)
(
    _PLANNED,
    _NO_LOAD,
    _NO_TTFT,
    _NO_ITL,
    _UNKNOWN_CLASS,
    _NOTHING_KNOWN,
    _OUT_OF_REACH,
    _INCOMPLETE,
    _YOUNG,
    _LEARNT,
    _NO_PARAMETERS,
    _UNREACHABLE,
    _PLANNED_FOR_MOST,
    _IN_THE_WAY,
) = range(1, len(REASONS))


def judged(observation: Observation, settings: Settings, state: State) -> Assessment:
    """
    The answer for the whole fleet, with everything that explains it and the state for the next cycle.

    Cost: estimation and about thirty passes of the queueing model over all variants.
    """
    fleet, table = observation.fleet, observation.variants
    scope = fleet.scope_of_variant
    before = recall(state, fleet)
    seconds = observation.time - before.time if np.isfinite(before.time) else _CYCLE_SECONDS
    profile, profile_batch = profiles_of(fleet, settings["profiles"].tolist())
    own = lengths_of(observation, before.mix[:, :2])
    mix = mix_of(observation, own, before.mix[:, 2], profile_batch)
    sample = sample_of(observation, mix, seconds)
    tuned = np.asarray(settings["tuning_enabled"], dtype=bool)[scope]
    learnable = replace(sample, rate=np.where(tuned, sample.rate, np.nan))
    estimate = estimator.improved(before.estimate, learnable, profile, seconds)
    load = load_of(observation, before.queued, seconds)

    engines = engines_of(estimate, mix)
    wanted = objectives.stated(fleet.scopes, settings)
    multiplier = settings["slo_multiplier"]
    there = np.maximum(fleet.by_scope.sum(np.nan_to_num(table.base)), 1.0)
    first = capacity_of(engines, fleet, wanted, multiplier, there[scope])
    start_up = later_start_up(before, table, observation.time)
    late, share = lateness(engines, fleet, wanted, settings, first, there)
    history, ahead, plan = _planned(observation, settings, before, load, first, start_up, late, share)
    # Pooling gains with the size that is asked for, not with the size that is there.
    with np.errstate(divide="ignore", invalid="ignore"):
        asked = np.nan_to_num(plan[scope] / first.rate, nan=1.0, posinf=_MOST_POOLED)
    capacity = capacity_of(engines, fleet, wanted, multiplier, np.clip(asked, 1.0, _MOST_POOLED))
    shared = behind_one_router(engines, fleet, capacity.rate, np.nan_to_num(table.base))

    allowed = load.offered * np.nan_to_num(capacity.ttft) / 2.0  # what may wait without a first token being late
    excess = np.maximum(load.backlog - np.nan_to_num(allowed), 0.0)
    demand = plan + excess / settings["drain_seconds"]
    young = ~watched(history, observation.time, ahead)
    verdict, reason = _verdicts(observation, load, capacity, wanted, demand, young)
    out_of_reach = capacity.rate <= 0
    alpha, beta, gamma = estimate.parameters
    remembered = Remembered(
        time=observation.time,
        estimate=estimate,
        mix=np.stack((mix.own_input, mix.own_output, mix.batch), axis=1),
        start_up=start_up,
        pending_since=table.pending_since,
        queued=load.gateway,
        history=history,
    )
    return Assessment.of(
        fleet,
        unit="requests/s of the mix seen now",
        demand=demand,
        capacity=np.where(out_of_reach, np.nan, shared),
        verdict=verdict,
        reason=reason,
        reasons=REASONS,
        capacity_reason=np.select(
            [out_of_reach, np.isnan(capacity.rate), np.isnan(shared)],
            [_UNREACHABLE, _NO_PARAMETERS, _IN_THE_WAY],
            _LEARNT,
        ),
        details={
            "offered": load.offered,
            "waiting": load.backlog,
            "planned": demand,
            "ahead_seconds": ahead,
            "goal_ttft_ms": 1000.0 * capacity.ttft,
            "goal_itl_ms": 1000.0 * capacity.itl,
            "goal_percent": np.where(wanted.for_mean, np.nan, 100.0 * wanted.quantile),
            "objective_source": wanted.source.astype(np.float64),
            "feasible_ttft_ms": -1000.0 * fleet.by_scope.max(-capacity.idle_ttft),
            "feasible_itl_ms": -1000.0 * fleet.by_scope.max(-capacity.idle_itl),
            "alpha_ms": 1e3 * alpha,
            "beta_us": 1e6 * beta,
            "gamma_us": 1e6 * gamma,
            "input_tokens": mix.input_tokens,
            "output_tokens": mix.output_tokens,
            "batch": mix.batch,
            "used": estimate.used,
            "discounted": estimate.discounted,
            "unusable": estimate.unusable,
            "surprise": estimate.surprise,
        },
        state=remembered.plain(fleet),
    )


def _planned(
    observation: Observation,
    settings: Settings,
    before: Remembered,
    load: Load,
    capacity: Capacity,
    start_up: FloatArray,
    late: FloatArray,
    share: FloatArray,
) -> tuple[LoadHistory, FloatArray, FloatArray]:
    """History, (S,) seconds it looks ahead, and (S,) requests/s to plan for; the history counts replicas."""
    fleet = observation.fleet
    assumed = np.where(np.isnan(start_up), settings["start_up_seconds"][fleet.scope_of_variant], start_up)
    ahead = np.nan_to_num(fleet.by_scope.max(assumed)) + _BLIND_SECONDS
    known = capacity.rate > 0
    count = fleet.by_scope.count(known)
    # Counted by what a replica serves at most, which does not depend on objectives.
    typical = fleet.by_scope.sum(np.where(known, capacity.most, 0.0)) / np.maximum(count, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(count > 0, load.offered / typical, np.nan)
    history = followed(before.history, observation.time, needed, ahead)
    scatter = np.divide(_WORK_SQUARE / RATE_WINDOW, typical, out=np.zeros_like(typical), where=typical > 0)
    plan = planned(history, needed, scatter, late, share) * typical
    return history, ahead, np.where(np.isnan(plan), load.offered, plan)


def _verdicts(
    observation: Observation, load: Load, capacity: Capacity, wanted: Objectives, demand: FloatArray, young: BoolArray
) -> tuple[IntArray, IntArray]:
    """(S,) verdict and reason; what freezes comes first."""
    replicas, by_scope = observation.replicas, observation.replicas.index.by_scope
    fleet = observation.fleet
    served = by_scope.any(replicas["request_rate"] > 0) & by_scope.any(replicas["arrival_rate"] > 0)
    silent = {name: served & ~by_scope.any(~np.isnan(replicas[name])) for name in ("ttft", "itl")}
    some = fleet.by_scope.any(capacity.rate > 0)
    reached = ~fleet.by_scope.any(capacity.rate <= 0) | some
    # Requests come, but not one was answered of late: no reason to shrink, whatever is believed.
    stuck = (load.offered > 0) & ~by_scope.any(~np.isnan(replicas["ttft"]))
    conditions: list[tuple[BoolArray, Verdict, int]] = [
        (np.isnan(demand), Verdict.FREEZE, _NO_LOAD),
        (silent["ttft"], Verdict.FREEZE, _NO_TTFT),
        (silent["itl"], Verdict.FREEZE, _NO_ITL),
        (wanted.source == Source.UNKNOWN_CLASS, Verdict.FREEZE, _UNKNOWN_CLASS),
        (~reached, Verdict.FREEZE, _OUT_OF_REACH),
        (~some, Verdict.FREEZE, _NOTHING_KNOWN),
        (~load.complete | stuck, Verdict.NO_SHRINK, _INCOMPLETE),
        (young, Verdict.NO_SHRINK, _YOUNG),
    ]
    where = [condition for condition, _, _ in conditions]
    verdict = np.select(where, [int(one) for _, one, _ in conditions], int(Verdict.JUDGED))
    planned_for = np.where(wanted.for_mean, _PLANNED, _PLANNED_FOR_MOST)
    return verdict, np.select(where, [reason for _, _, reason in conditions], planned_for)
