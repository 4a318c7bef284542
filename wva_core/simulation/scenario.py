"""
A scenario as a person writes it: models with their traffic and variants, objectives, and the contenders to compare.

`read_scenario` gives a `Scenario` in which every trace is loaded, every profile looked up and every name checked, so
that nothing can fail for a typing error once a simulation runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wva_core.domain import Fleet, Variant
from wva_core.errors import InfeasibleError, ParameterError, ScenarioError, WvaError
from wva_core.numerics.scaling_behavior import HPA_DEFAULT_BEHAVIOR, Behavior, ScalingPolicy, ScalingRules
from wva_core.policy.documents import read_document, validate
from wva_core.simulation.accounting import SloRule
from wva_core.simulation.cluster import Deployment, StartUp
from wva_core.simulation.profiles import ServerProfile, load_accelerator, load_profile
from wva_core.simulation.workload import Trace, gamma, poisson, ramp, read_trace, scale_rate, spike

__all__ = ["Contender", "HpaContender", "Scenario", "StaticContender", "WvaContender", "read_scenario"]

_Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count: TypeAlias = Annotated[int, Field(ge=0)]


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Objectives(_Written):
    ttft_seconds: _Positive
    tpot_seconds: _Positive
    min_tokens_for_mean: Annotated[int, Field(ge=2)] = 16


class _StartUp(_Written):
    law: Literal["constant", "lognormal", "uniform"] = "constant"
    mean_seconds: _NotNegative = 120.0
    cv: _NotNegative = 0.3
    low_seconds: _NotNegative = 60.0
    high_seconds: _NotNegative = 180.0

    @model_validator(mode="after")
    def _ordered(self) -> _StartUp:
        if self.low_seconds > self.high_seconds:
            raise ValueError("lowSeconds is above highSeconds; swap them")
        return self


class _TraceFile(_Written):
    file: str
    kind: Literal["recorded", "realised", "synthetic"] = "recorded"
    scale: _Positive = 1.0
    attribution: str = ""


class _Arrivals(_Written):
    law: Literal["poisson", "gamma", "ramp", "spike"]
    rate: _Positive
    duration_seconds: _Positive
    input_tokens: Annotated[int, Field(ge=0)] = 1024
    output_tokens: Annotated[int, Field(ge=1)] = 256
    lengths_from: str | None = None
    cv: _Positive = 1.0
    end_rate: _NotNegative | None = None
    spike_rate: _NotNegative | None = None
    spike_start_seconds: _NotNegative = 0.0
    spike_length_seconds: _NotNegative = 0.0

    @model_validator(mode="after")
    def _complete(self) -> _Arrivals:
        if self.law == "ramp" and self.end_rate is None:
            raise ValueError("a ramp needs endRate")
        if self.law == "spike" and (self.spike_rate is None or not self.spike_length_seconds):
            raise ValueError("a spike needs spikeRate, spikeStartSeconds and spikeLengthSeconds")
        return self


class _Profile(_Written):
    model: str | None = None
    accelerator: str
    tp: Annotated[int, Field(ge=1)] = 1
    engine: str | None = None
    kind: Literal["measured", "published", "derived", "fixture"] | None = None
    precision: str | None = None
    max_batch: Annotated[int, Field(ge=1)] | None = None
    max_batched_tokens: Annotated[int, Field(ge=1)] = 8192


class _Variant(_Written):
    name: str
    profile: _Profile
    cost: _NotNegative | None = None
    gpus_per_replica: Annotated[int, Field(ge=1)] | None = None
    min_replicas: _Count = 0
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    initial_replicas: _Count = 1
    start_up: _StartUp | None = None
    drain_timeout_seconds: _Positive | None = None
    signals: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ordered(self) -> _Variant:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("maxReplicas is below minReplicas; raise it")
        if self.max_replicas is not None and self.max_replicas < self.initial_replicas:
            raise ValueError("initialReplicas is above maxReplicas; lower it")
        return self


class _Model(_Written):
    model: str
    namespace: str = "default"
    trace: _TraceFile | None = None
    arrivals: _Arrivals | None = None
    variants: Annotated[list[_Variant], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_source(self) -> _Model:
        if self.trace is not None and self.arrivals is not None:
            raise ValueError("traffic comes from trace or from arrivals, not from both; remove one")
        return self


class _PolicyStep(_Written):
    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(ge=0)]
    period_seconds: Annotated[int, Field(ge=1, le=1800)]


class _Rules(_Written):
    stabilization_window_seconds: Annotated[float, Field(ge=0, le=3600)] | None = None
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: list[_PolicyStep] | None = None
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None


class _Behavior(_Written):
    scale_up: _Rules | None = None
    scale_down: _Rules | None = None


class _BehindWva(_Written):
    behavior: _Behavior | None = None
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.1


class _HpaAlone(_BehindWva):
    metric: Literal["waiting", "running", "kvUsage"]
    target: _Positive


class _Wva(_Written):
    profile: str | None = None
    policy: str | dict[str, Any] | None = None
    hpa: _BehindWva | bool = False


class _Static(_Written):
    replicas: _Count | dict[str, _Count]


class _Contender(_Written):
    name: str
    description: str = ""
    wva: _Wva | None = None
    hpa: _HpaAlone | None = None
    static: _Static | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> _Contender:
        if sum(part is not None for part in (self.wva, self.hpa, self.static)) != 1:
            raise ValueError("a contender is exactly one of wva, hpa or static")
        return self


class _Document(_Written):
    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 1
    duration_seconds: _Positive | None = None
    warmup_seconds: _NotNegative = 0.0
    scrape_seconds: _Positive = 15.0
    objectives: _Objectives
    start_up: _StartUp = _StartUp()
    models: Annotated[list[_Model], Field(min_length=1)]
    gpus: dict[str, _Count] = Field(default_factory=dict)
    router: Literal["least-loaded", "sticky"] = "least-loaded"
    request_timeout_seconds: _Positive | None = None
    contenders: Annotated[list[_Contender], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class WvaContender:
    """
    The engine under a policy; with `hpa`, it only advises and an HPA that reads its metric scales.
    """

    name: str
    description: str
    profile: str
    policy_file: Path | None
    policy: Mapping[str, Any]
    hpa: Behavior | None
    tolerance: float = 0.1
    kind: str = "wva"


@dataclass(frozen=True, slots=True)
class HpaContender:
    """An HPA on a metric of the model servers, one per variant, and nothing else."""

    name: str
    description: str
    metric: str
    target: float
    behavior: Behavior
    tolerance: float = 0.1
    kind: str = "hpa"


@dataclass(frozen=True, slots=True)
class StaticContender:
    """A fleet that never changes: replicas by variant key."""

    name: str
    description: str
    replicas: Mapping[str, int]
    kind: str = "static"


Contender: TypeAlias = WvaContender | HpaContender | StaticContender


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """
    A scenario ready to run.

    Attributes:
        source: file it was read from.
        traces: by model name.
        trace_notes: by model name, how the load was made to fit, and whom it is owed to.
        deployments: one per variant.
        fleet: the same variants as the engine sees them.
        min_replicas, max_replicas: by variant key.
        gpus: by accelerator type; a type left out is unlimited.
        duration_s: when traffic and score end.
        rule: objectives and warm-up.
    """

    name: str
    description: str
    source: str
    seed: int
    duration_s: float
    scrape_s: float
    traces: Mapping[str, Trace]
    trace_notes: Mapping[str, tuple[str, str]]
    deployments: tuple[Deployment, ...]
    fleet: Fleet
    min_replicas: Mapping[str, int]
    max_replicas: Mapping[str, int | None]
    gpus: Mapping[str, int]
    router: Literal["least-loaded", "sticky"]
    request_timeout_s: float
    rule: SloRule
    contenders: tuple[Contender, ...]
    warnings: tuple[str, ...] = field(default=())


def read_scenario(
    path: str | Path, *, trace: str | Path | None = None, seed: int | None = None, only: tuple[str, ...] = ()
) -> Scenario:
    """
    A scenario from its file.

    Args:
        path: YAML or JSON; the files it names are relative to its folder.
        trace: a trace to run in place of the scenario's, which must then have one model.
        seed: in place of the scenario's.
        only: names of the contenders to keep; all if empty.

    Raises:
        ScenarioError: something written cannot be used; names file, key, value and remedy.
        TraceError: a trace has a malformed row.
        InfeasibleError: at no time could the largest allowed fleet serve the demand.
    """
    source = str(path)
    document = validate(_Document, read_document(path, ScenarioError), source, ScenarioError)
    folder = Path(path).parent
    if seed is not None:
        document = document.model_copy(update={"seed": seed})
    deployments: list[Deployment] = []
    variants: list[Variant] = []
    least: dict[str, int] = {}
    most: dict[str, int | None] = {}
    for row, model in enumerate(document.models):
        for column, variant in enumerate(model.variants):
            place = f"models[{row}].variants[{column}]"
            deployment = _deployment(model, variant, document, source, place)
            if deployment.variant in least:
                raise ScenarioError(
                    "two variants have this name",
                    object=source,
                    key=f"{place}.name",
                    value=variant.name,
                    remedy="give each variant of a namespace a name of its own",
                )
            deployments.append(deployment)
            variants.append(Variant(model.namespace, variant.name, model.model, deployment.accelerator))
            least[deployment.variant], most[deployment.variant] = variant.min_replicas, variant.max_replicas
    traces, notes = _traces(document, folder, source, trace)
    duration = document.duration_seconds or max((one.duration_s for one in traces.values()), default=0.0)
    if duration <= 0:
        raise ScenarioError(
            "no model has traffic, so nothing says how long to run",
            object=source,
            key="durationSeconds",
            remedy="give durationSeconds, or a trace or arrivals to a model",
        )
    if document.warmup_seconds >= duration:
        raise ScenarioError(
            f"is not shorter than the scenario, which lasts {duration:g} s",
            object=source,
            key="warmupSeconds",
            value=document.warmup_seconds,
            remedy="lower it",
        )
    scenario = Scenario(
        name=document.name,
        description=document.description,
        source=source,
        seed=document.seed,
        duration_s=duration,
        scrape_s=document.scrape_seconds,
        traces={model: one.until(duration) for model, one in traces.items()},
        trace_notes=notes,
        deployments=tuple(deployments),
        fleet=Fleet(variants),
        min_replicas=least,
        max_replicas=most,
        gpus=document.gpus,
        router=document.router,
        request_timeout_s=document.request_timeout_seconds or math.inf,
        rule=SloRule(
            document.objectives.ttft_seconds,
            document.objectives.tpot_seconds,
            document.objectives.min_tokens_for_mean,
            document.warmup_seconds,
        ),
        contenders=_contenders(document, folder, source, tuple(least), only),
    )
    return replace(scenario, warnings=_check_capacity(scenario))


def _deployment(model: _Model, variant: _Variant, document: _Document, source: str, place: str) -> Deployment:
    written = variant.profile
    try:
        profile = load_profile(
            written.model or model.model,
            written.accelerator,
            written.tp,
            written.engine,
            written.kind,
            precision=written.precision,
            max_batch=written.max_batch,
            max_batched_tokens=written.max_batched_tokens,
        )
        cost = variant.cost
        if cost is None:
            cost = load_accelerator(profile.accelerator).price_usd_per_h * profile.tp
        start = variant.start_up or document.start_up
        return Deployment(
            variant=f"{model.namespace}/{variant.name}",
            model=_routed_as(model),
            profile=profile,
            gpus_per_replica=variant.gpus_per_replica or profile.tp,
            cost_usd_per_h=cost,
            start_up=StartUp(start.law, start.mean_seconds, start.cv, start.low_seconds, start.high_seconds),
            initial_replicas=variant.initial_replicas,
            drain_timeout_s=variant.drain_timeout_seconds or math.inf,
            pinned_signals=variant.signals,
        )
    except WvaError as exc:
        raise ScenarioError(
            f"{exc.object}: {exc.problem}" if exc.object else exc.problem,
            object=source,
            key=f"{place}.profile",
            value=exc.key or exc.value,
            remedy=exc.remedy,
        ) from exc


def _routed_as(model: _Model) -> str:
    """Requests are routed per model and namespace."""
    return f"{model.namespace}/{model.model}"


def _traces(
    document: _Document, folder: Path, source: str, override: str | Path | None
) -> tuple[dict[str, Trace], dict[str, tuple[str, str]]]:
    if override is not None and len(document.models) > 1:
        raise ScenarioError(
            f"has {len(document.models)} models, and one trace cannot stand for all of them",
            object=source,
            key="models",
            remedy="run a scenario with one model, or name the traces in the scenario",
        )
    traces: dict[str, Trace] = {}
    notes: dict[str, tuple[str, str]] = {}
    for row, model in enumerate(document.models):
        name = _routed_as(model)
        if override is not None:
            traces[name] = read_trace(override)
            notes[name] = ("rates as given", "")
            continue
        traffic = model.trace or model.arrivals
        if traffic is None:
            continue
        try:
            traces[name], notes[name] = _trace(traffic, folder, document.seed + row)
        except ParameterError as exc:
            raise ScenarioError(
                exc.problem, object=source, key=f"models[{row}].{'trace' if model.trace else 'arrivals'}", value=exc.value, remedy=exc.remedy
            ) from exc
    return traces, notes


def _trace(traffic: _TraceFile | _Arrivals, folder: Path, seed: int) -> tuple[Trace, tuple[str, str]]:
    if isinstance(traffic, _TraceFile):
        trace = read_trace(folder / traffic.file, kind=traffic.kind)
        if traffic.scale == 1.0:
            return trace, ("rates as published", traffic.attribution)
        how = (
            "thinned at random, which pulls bursts towards Poisson"
            if traffic.scale < 1
            else "copies shifted in time on top of each other, thinned to the rest"
        )
        return scale_rate(trace, traffic.scale, seed=seed), (
            f"{traffic.scale:g} times the published rate ({how}); time is not compressed",
            traffic.attribution,
        )
    lengths: tuple[int, int] | Trace = (traffic.input_tokens, traffic.output_tokens)
    if traffic.lengths_from is not None:
        lengths = read_trace(folder / traffic.lengths_from)
    span = traffic.duration_seconds
    if traffic.law == "poisson":
        trace = poisson(seed, traffic.rate, span, lengths)
    elif traffic.law == "gamma":
        trace = gamma(seed, traffic.rate, traffic.cv, span, lengths)
    elif traffic.law == "ramp":
        trace = ramp(seed, traffic.rate, traffic.end_rate or 0.0, span, lengths)
    else:
        trace = spike(
            seed,
            traffic.rate,
            traffic.spike_rate or 0.0,
            traffic.spike_start_seconds,
            traffic.spike_length_seconds,
            span,
            lengths,
        )
    return trace, (f"drawn with seed {seed}", "")


def _contenders(
    document: _Document, folder: Path, source: str, variants: tuple[str, ...], only: tuple[str, ...]
) -> tuple[Contender, ...]:
    names = [contender.name for contender in document.contenders]
    for row, name in enumerate(names):
        if name in names[:row]:
            raise ScenarioError(
                "two contenders have this name",
                object=source,
                key=f"contenders[{row}].name",
                value=name,
                remedy="rename one of them",
            )
    for name in only:
        if name not in names:
            raise ScenarioError(
                "is not a contender of this scenario",
                object=source,
                key="--only",
                value=name,
                remedy=f"name one of {', '.join(names)}",
            )
    return tuple(
        _contender(contender, folder, source, f"contenders[{row}]", variants)
        for row, contender in enumerate(document.contenders)
        if not only or contender.name in only
    )


def _contender(written: _Contender, folder: Path, source: str, place: str, variants: tuple[str, ...]) -> Contender:
    if written.wva is not None:
        policy = written.wva.policy
        behind = written.wva.hpa
        if behind is True:
            behind = _BehindWva()
        return WvaContender(
            name=written.name,
            description=written.description,
            profile=written.wva.profile or ("" if policy is not None else "saturation-v1"),
            policy_file=folder / policy if isinstance(policy, str) else None,
            policy=policy if isinstance(policy, Mapping) else {},
            hpa=_behavior(behind.behavior) if isinstance(behind, _BehindWva) else None,
            tolerance=behind.tolerance if isinstance(behind, _BehindWva) else 0.1,
        )
    if written.hpa is not None:
        return HpaContender(
            written.name,
            written.description,
            written.hpa.metric,
            written.hpa.target,
            _behavior(written.hpa.behavior),
            written.hpa.tolerance,
        )
    replicas = written.static.replicas if written.static is not None else 0
    if isinstance(replicas, Mapping):
        by_name = {key.rpartition("/")[2]: key for key in variants}
        keys = {by_name.get(name, name): count for name, count in replicas.items()}
        unknown = [name for name in keys if name not in variants]
        if unknown:
            raise ScenarioError(
                "is not a variant of this scenario",
                object=source,
                key=f"{place}.static.replicas",
                value=unknown[0],
                remedy=f"name one of {', '.join(variants)}",
            )
        return StaticContender(written.name, written.description, {key: keys.get(key, 0) for key in variants})
    if len(variants) > 1:
        raise ScenarioError(
            f"there are {len(variants)} variants",
            object=source,
            key=f"{place}.static.replicas",
            value=replicas,
            remedy=f"say how many of each: {', '.join(variants)}",
        )
    return StaticContender(written.name, written.description, {variants[0]: replicas})


def _behavior(written: _Behavior | None) -> Behavior:
    """What an HPA makes of a written `behavior`: its defaults fill in what is left out."""
    if written is None:
        return HPA_DEFAULT_BEHAVIOR
    return Behavior(
        _rules(written.scale_up, HPA_DEFAULT_BEHAVIOR.scale_up),
        _rules(written.scale_down, HPA_DEFAULT_BEHAVIOR.scale_down),
    )


def _rules(written: _Rules | None, default: ScalingRules) -> ScalingRules:
    if written is None:
        return default
    window = written.stabilization_window_seconds
    return ScalingRules(
        default.stabilization_window_seconds if window is None else window,
        written.select_policy,
        default.policies
        if written.policies is None
        else tuple(ScalingPolicy(step.type, step.value, step.period_seconds) for step in written.policies),
        written.tolerance,
    )


_WINDOW_S = 300.0
"""Demand is compared with capacity over windows of this length, about the start-up time of a replica."""


def requests_per_second(profile: ServerProfile, input_tokens: float, output_tokens: float) -> float:
    """
    Requests of a mean length that one engine can finish per second, at its fullest batch.

    Source: throughput b / (o × time per output token) of the closed loop of `profiles`, with the batch b that fits.
    """
    tokens = input_tokens + output_tokens
    batch = min(profile.max_batch, max(1.0, profile.kv_capacity_tokens / max(tokens, 1.0)))
    step = (
        profile.base_s
        + profile.per_seq_s * batch
        + profile.per_1k_kv_s * batch * (input_tokens + output_tokens / 2) / 1000
        + profile.per_prefill_token_s * batch * input_tokens / max(output_tokens, 1.0)
    )
    return batch / (max(output_tokens, 1.0) * step)


def _check_capacity(scenario: Scenario) -> tuple[str, ...]:
    """
    Warnings where demand is beyond the largest allowed fleet for part of the time.

    Raises:
        InfeasibleError: it is so throughout.
    """
    warnings: list[str] = []
    for model, trace in scenario.traces.items():
        mine = [deployment for deployment in scenario.deployments if deployment.model == model]
        if not len(trace) or any(deployment.pinned_signals for deployment in mine):
            continue
        windows = np.arange(0.0, max(scenario.duration_s, 1e-9), _WINDOW_S)
        window = np.searchsorted(windows, trace.arrival_s, side="right") - 1
        count = np.bincount(window, minlength=len(windows))
        prompt = np.bincount(window, weights=trace.input_tokens, minlength=len(windows))
        answer = np.bincount(window, weights=trace.output_tokens, minlength=len(windows))
        length = np.minimum(windows + _WINDOW_S, scenario.duration_s) - windows
        busy = count > 0
        demand = count[busy] / length[busy]
        capacity = np.array(
            [
                _largest_fleet(scenario, mine, p / n, a / n)
                for p, a, n in zip(prompt[busy], answer[busy], count[busy], strict=True)
            ]
        )
        over = demand > capacity
        if np.all(over):
            raise InfeasibleError(
                f"needs {demand.min():.3g} to {demand.max():.3g} requests/s throughout, and the largest fleet that"
                f" gpus and maxReplicas allow serves {capacity.max():.3g}",
                object=scenario.source,
                key=f"model {model}",
                remedy="allow more GPUs or replicas, use faster accelerators, or scale the traffic down",
            )
        if np.any(over):
            warnings.append(
                f"model {model}: demand is beyond the largest allowed fleet in {over.sum()} of {over.size} windows of"
                f" {_WINDOW_S:.0f} s; no contender can keep the objectives there"
            )
    return tuple(warnings)


def _largest_fleet(scenario: Scenario, deployments: list[Deployment], prompt: float, answer: float) -> float:
    """Requests/s of the largest fleet, the variants that serve most per GPU first."""
    free = dict(scenario.gpus)
    rates = [requests_per_second(deployment.profile, prompt, answer) for deployment in deployments]
    total = 0.0
    order = sorted(range(len(deployments)), key=lambda i: -rates[i] / max(deployments[i].gpus_per_replica, 1))
    for i in order:
        deployment = deployments[i]
        most = scenario.max_replicas[deployment.variant]
        room = math.inf if most is None else float(most)
        if deployment.accelerator in free:
            room = min(room, free[deployment.accelerator] // deployment.gpus_per_replica)
        if room == math.inf:
            return math.inf
        if deployment.accelerator in free:
            free[deployment.accelerator] -= int(room) * deployment.gpus_per_replica
        total += room * rates[i]
    return total
