"""
A scenario ready to run: every trace loaded, every profile looked up, every name checked.

`read_scenario` makes it of a file, whose keys `scenario_document` describes, so that nothing can fail for a slip of the
pen once a simulation runs.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from wva_core.domain import Fleet, Variant
from wva_core.errors import ParameterError, ScenarioError
from wva_core.numerics.scaling_behavior import HPA_DEFAULT_BEHAVIOR, Behavior, ScalingPolicy, ScalingRules
from wva_core.policy.documents import camel_case, read_document, validate
from wva_core.simulation.accounting import SloRule
from wva_core.simulation.cluster import Deployment, StartUp
from wva_core.simulation.feasibility import check_demand
from wva_core.simulation.profiles import ServerProfile, load_accelerator, load_profile
from wva_core.simulation.scenario_document import (
    ArrivalsSpec,
    BehaviorSpec,
    ContenderSpec,
    HpaRulesSpec,
    ModelSpec,
    ScenarioDocument,
    StartUpSpec,
    StaticSpec,
    TraceFileSpec,
    VariantSpec,
    WvaSpec,
)
from wva_core.simulation.workload import Lengths, Trace, gamma, poisson, ramp, read_trace, scale_rate, spike

__all__ = [
    "Contender",
    "HpaContender",
    "PolicyChange",
    "Scenario",
    "StaticContender",
    "WvaContender",
    "folder_name",
    "read_scenario",
]

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy that takes the place of the contender's at a time, seconds: a file, or the policy itself."""

    at_s: float
    file: Path | None
    policy: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WvaContender:
    """
    The engine under a policy; with `hpa`, it only advises and an HPA that reads its metric scales.

    `changes` are in the order of their times.
    """

    name: str
    description: str
    profile: str
    policy_file: Path | None
    policy: Mapping[str, Any]
    hpa: Behavior | None
    tolerance: float = 0.1
    changes: tuple[PolicyChange, ...] = ()
    kind: ClassVar[str] = "wva"


@dataclass(frozen=True, slots=True)
class HpaContender:
    """An HPA on a metric of the model servers, one per variant, and nothing else."""

    name: str
    description: str
    metric: str
    target: float
    behavior: Behavior
    tolerance: float = 0.1
    kind: ClassVar[str] = "hpa"


@dataclass(frozen=True, slots=True)
class StaticContender:
    """A fleet that never changes: replicas by variant key."""

    name: str
    description: str
    replicas: Mapping[str, int]
    kind: ClassVar[str] = "static"


Contender: TypeAlias = WvaContender | HpaContender | StaticContender


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """
    A scenario ready to run.

    Attributes:
        source: file it was read from.
        traces: by model name.
        trace_notes: by model name, how the load was made to fit, and whom it is owed to.
        deployments: one per variant, in the order of their keys.
        fleet: the same variants as the engine sees them.
        min_replicas, max_replicas: by variant key; no maximum is None.
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

    The order in which models and variants are written changes nothing.

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
    document = validate(ScenarioDocument, read_document(path, ScenarioError), str(path), ScenarioError)
    reader = _Reader(str(path), document, document.seed if seed is None else seed)
    for conflict in document.conflicts():
        raise reader.refused(*conflict)
    return reader.scenario(trace, only)


def folder_name(contender: str) -> str:
    """The name of a contender as that of a folder: letters, digits, `-`, `_` and inner dots."""
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in contender)
    return "-" + safe[1:] if safe.startswith(".") else safe


@dataclass(frozen=True, slots=True)
class _Reader:
    """A document on its way to a scenario, and how messages name its parts."""

    source: str
    document: ScenarioDocument
    seed: int

    def refused(self, key: str, problem: str, value: object, remedy: str) -> ScenarioError:
        return ScenarioError(problem, object=self.source, key=key, value=value, remedy=remedy)

    def file(self, name: str) -> Path:
        return Path(self.source).parent / name

    def scenario(self, override: str | Path | None, only: tuple[str, ...]) -> Scenario:
        document = self.document
        self._check_models()
        if override is not None and len(document.models) > 1:
            raise self.refused(
                "--trace",
                f"cannot stand for all {len(document.models)} models of the scenario",
                str(override),
                "run a scenario with one model, or name the traces in the scenario",
            )
        written = self._variants()
        deployments = tuple(deployment for deployment, _ in written.values())
        least = {key: spec.min_replicas for key, (_, spec) in written.items()}
        most = {key: spec.max_replicas for key, (_, spec) in written.items()}
        gpus = self._gpus(deployments)
        self._check_fit(gpus, deployments)
        contenders = self._contenders(tuple(written), most, only)
        for row, static in contenders.items():
            if isinstance(static, StaticContender):
                self._check_fit(gpus, deployments, static.replicas, f"contenders[{row}].static.replicas")
        traces, notes, span = self._traffic(override)
        duration = span if document.duration_seconds is None else document.duration_seconds
        if duration <= 0:
            raise ScenarioError(
                "is missing, and no model has traffic that would say how long to run",
                object=self.source,
                key="durationSeconds",
                remedy="give it, or give trace or arrivals to a model",
            )
        if document.warmup_seconds >= duration:
            raise self.refused(
                "warmupSeconds",
                f"leaves nothing to score of the {duration:g} s that the scenario lasts",
                document.warmup_seconds,
                "lower it, or raise durationSeconds",
            )
        traces = {model: one.until(duration) for model, one in traces.items()}
        objectives = document.objectives
        return Scenario(
            name=document.name,
            description=document.description,
            source=self.source,
            seed=self.seed,
            duration_s=duration,
            scrape_s=document.scrape_seconds,
            traces=traces,
            trace_notes=notes,
            deployments=deployments,
            fleet=Fleet(
                Variant(deployment.variant.partition("/")[0], deployment.name, model, deployment.accelerator)
                for deployment in deployments
                for model in [deployment.model.partition("/")[2]]
            ),
            min_replicas=least,
            max_replicas=most,
            gpus=gpus,
            router=document.router,
            request_timeout_s=_or_never(document.request_timeout_seconds),
            rule=SloRule(
                objectives.ttft_seconds,
                objectives.tpot_seconds,
                objectives.min_tokens_for_mean,
                document.warmup_seconds,
            ),
            contenders=tuple(contenders.values()),
            warnings=check_demand(self.source, duration, traces, deployments, most, gpus),
        )

    # ----------------------------------------------------------------------------------------------------------------
    # Variants

    def _check_models(self) -> None:
        twice = _first_twice(_routed_as(model) for model in self.document.models)
        if twice is not None:
            raise self.refused(
                f"models[{twice}].model",
                "is a second entry for this model in this namespace",
                self.document.models[twice].model,
                "put its variants into the first entry, or give it another namespace",
            )

    def _variants(self) -> dict[str, tuple[Deployment, VariantSpec]]:
        """Deployments by variant, in the order of their keys, each with what was written."""
        variants: dict[str, tuple[Deployment, VariantSpec]] = {}
        for row, model in enumerate(self.document.models):
            for column, variant in enumerate(model.variants):
                place = f"models[{row}].variants[{column}]"
                deployment = self._deployment(model, variant, place)
                if deployment.variant in variants:
                    raise self.refused(
                        f"{place}.name",
                        f"is the second variant of this name in namespace {model.namespace}",
                        variant.name,
                        "give each variant of a namespace a name of its own",
                    )
                variants[deployment.variant] = deployment, variant
        return dict(sorted(variants.items()))

    def _deployment(self, model: ModelSpec, variant: VariantSpec, place: str) -> Deployment:
        profile = self._profile(model, variant, f"{place}.profile")
        gpus = variant.gpus_per_replica or profile.tp
        return Deployment(
            variant=f"{model.namespace}/{variant.name}",
            model=_routed_as(model),
            profile=profile,
            gpus_per_replica=gpus,
            cost_usd_per_h=self._price(profile, f"{place}.cost") * gpus if variant.cost is None else variant.cost,
            start_up=_start_up(variant.start_up or self.document.start_up),
            initial_replicas=variant.initial_replicas,
            drain_timeout_s=_or_never(variant.drain_timeout_seconds),
            pinned_signals=variant.pinned_signals,
        )

    def _profile(self, model: ModelSpec, variant: VariantSpec, place: str) -> ServerProfile:
        written = variant.profile
        try:
            return load_profile(
                written.model or model.model,
                written.accelerator,
                written.tp,
                written.engine,
                written.kind,
                precision=written.precision,
                max_batch=written.max_batch,
                max_batched_tokens=written.max_batched_tokens,
            )
        except ScenarioError as exc:
            raise ScenarioError(f"{exc.key} {exc.problem}", object=self.source, key=place, remedy=exc.remedy) from exc
        except ParameterError as exc:
            raise self._respelled(exc, place) from exc

    def _price(self, profile: ServerProfile, place: str) -> float:
        try:
            price = load_accelerator(profile.accelerator).price_usd_per_h
        except ScenarioError:
            price = math.nan
        if math.isnan(price):
            raise ScenarioError(
                f"is missing, and the table of accelerators has no price for {profile.accelerator}",
                object=self.source,
                key=place,
                remedy="give USD per hour and replica",
            )
        return price

    def _respelled(self, error: ParameterError, place: str) -> ScenarioError:
        """What a part of the simulation refused, in the words of the document."""
        return ScenarioError(
            _in_camel_case(error.problem),
            object=self.source,
            key=".".join(part for part in (place, camel_case(error.key)) if part),
            remedy=_in_camel_case(error.remedy),
            **({"value": error.value} if error.has_value else {}),
        )

    def _gpus(self, deployments: Sequence[Deployment]) -> dict[str, int]:
        """GPUs by type, as the profiles spell the types."""
        spelled = {deployment.accelerator.lower(): deployment.accelerator for deployment in deployments}
        gpus: dict[str, int] = {}
        for kind, count in self.document.gpus.items():
            if kind.lower() not in spelled:
                raise self.refused(
                    "gpus", "names a type on which no variant runs", kind, _name_one_of(kind, spelled.values())
                )
            gpus[spelled[kind.lower()]] = count
        return gpus

    def _check_fit(
        self,
        gpus: Mapping[str, int],
        deployments: Sequence[Deployment],
        replicas: Mapping[str, int] | None = None,
        place: str = "",
    ) -> None:
        """Refuses a fleet that needs more GPUs than there are: the initial one, or that of `replicas`."""
        needed: Counter[str] = Counter()
        for deployment in deployments:
            count = deployment.initial_replicas if replicas is None else replicas[deployment.variant]
            needed[deployment.accelerator] += count * deployment.gpus_per_replica
        for kind, count in needed.items():
            if count > gpus.get(kind, math.inf):
                raise self.refused(
                    f"gpus.{kind}",
                    f"is less than the {count} that {place or 'initialReplicas'} takes",
                    gpus[kind],
                    "raise it, or lower the replicas",
                )

    # ----------------------------------------------------------------------------------------------------------------
    # Traffic

    def _traffic(self, override: str | Path | None) -> tuple[dict[str, Trace], dict[str, tuple[str, str]], float]:
        """Traces and notes by model, and how long the longest lasts."""
        traces: dict[str, Trace] = {}
        notes: dict[str, tuple[str, str]] = {}
        span = 0.0
        order = sorted(_routed_as(model) for model in self.document.models)
        for row, model in enumerate(self.document.models):
            name, place = _routed_as(model), f"models[{row}]"
            seed = self.seed + order.index(name)  # models draw differently, in whatever order they are written
            if override is not None:
                traces[name], notes[name] = read_trace(override), ("rates as given", "")
            elif model.trace is not None:
                traces[name], notes[name] = self._from_file(model.trace, seed, f"{place}.trace")
            elif model.arrivals is not None:
                traces[name] = self._drawn(model.arrivals, seed, f"{place}.arrivals")
                notes[name] = (f"drawn with seed {seed}", "")
                span = max(span, model.arrivals.duration_seconds)
                continue
            else:
                continue
            span = max(span, math.floor(traces[name].duration_s) + 1.0)  # whole seconds, the last arrival among them
        return traces, notes, span

    def _from_file(self, written: TraceFileSpec, seed: int, place: str) -> tuple[Trace, tuple[str, str]]:
        trace = read_trace(self.file(written.file), kind=written.kind)
        if written.scale == 1.0:
            return trace, ("rates as published", written.attribution)
        if written.scale < 1:
            how = "thinned at random, which pulls bursts towards Poisson"
        else:
            how = "copies shifted in time on top of each other, thinned to the rest"
        scaled = self._made(lambda: scale_rate(trace, written.scale, seed=seed), place)
        if not len(scaled):
            raise self.refused(f"{place}.scale", "leaves no request of the trace", written.scale, "raise it")
        return scaled, (
            f"{written.scale:g} times the published rate ({how}); time is not compressed",
            written.attribution,
        )

    def _drawn(self, written: ArrivalsSpec, seed: int, place: str) -> Trace:
        lengths: Lengths = (written.input_tokens, written.output_tokens)
        if written.lengths_from is not None:
            lengths = read_trace(self.file(written.lengths_from))
        span, rate = written.duration_seconds, written.rate
        laws: dict[str, Callable[[], Trace]] = {
            "poisson": lambda: poisson(seed, rate, span, lengths),
            "gamma": lambda: gamma(seed, rate, written.cv or 1.0, span, lengths),
            "ramp": lambda: ramp(seed, rate, written.end_rate or 0.0, span, lengths),
            "spike": lambda: spike(
                seed,
                rate,
                written.spike_rate or 0.0,
                written.spike_start_seconds,
                written.spike_length_seconds or 0.0,
                span,
                lengths,
            ),
        }
        return self._made(laws[written.law], place)

    def _made(self, make: Callable[[], _Made], place: str) -> _Made:
        try:
            return make()
        except ParameterError as exc:
            raise self._respelled(exc, place) from exc

    # ----------------------------------------------------------------------------------------------------------------
    # Contenders

    def _contenders(
        self, variants: tuple[str, ...], most: Mapping[str, int | None], only: tuple[str, ...]
    ) -> dict[int, Contender]:
        """The contenders to run, by their row in the document."""
        written = self.document.contenders
        names = [contender.name for contender in written]
        twice = _first_twice(names)
        if twice is not None:
            raise self.refused(
                f"contenders[{twice}].name", "is the second contender of this name", names[twice], "rename one of them"
            )
        twice = _first_twice(folder_name(name).casefold() for name in names)
        if twice is not None:
            folder = folder_name(names[twice])
            other = next(name for name in names if folder_name(name).casefold() == folder.casefold())
            raise self.refused(
                f"contenders[{twice}].name",
                f"would keep its records in the same folder as {other!r}, {folder}",
                names[twice],
                "rename one of them",
            )
        for name in only:
            if name not in names:
                raise self.refused("--only", "is not a contender of this scenario", name, _name_one_of(name, names))
        return {
            row: self._contender(contender, f"contenders[{row}]", variants, most)
            for row, contender in enumerate(written)
            if not only or contender.name in only
        }

    def _contender(
        self, written: ContenderSpec, place: str, variants: tuple[str, ...], most: Mapping[str, int | None]
    ) -> Contender:
        if written.wva is not None:
            return self._wva(written, written.wva)
        if written.hpa is not None:
            return HpaContender(
                written.name,
                written.description,
                written.hpa.metric,
                written.hpa.target,
                _behavior(written.hpa.behavior),
                written.hpa.tolerance,
            )
        assert written.static is not None, "one of three"  # noqa: S101 - the document says so
        replicas = self._static(written.static, f"{place}.static.replicas", variants)
        for variant, count in replicas.items():
            limit = most[variant]
            if limit is not None and count > limit:
                raise self.refused(
                    f"{place}.static.replicas",
                    f"is above maxReplicas of {variant}, {limit}",
                    count,
                    "lower it, or raise maxReplicas",
                )
        return StaticContender(written.name, written.description, replicas)

    def _wva(self, written: ContenderSpec, wva: WvaSpec) -> WvaContender:
        policy = wva.policy
        behind = wva.hpa
        return WvaContender(
            name=written.name,
            description=written.description,
            profile=wva.profile or ("saturation-v1" if policy is None else ""),
            policy_file=self.file(policy) if isinstance(policy, str) else None,
            policy=policy if isinstance(policy, Mapping) else {},
            hpa=None if behind is None else _behavior(behind.behavior),
            tolerance=0.0 if behind is None else behind.tolerance,
            changes=tuple(
                PolicyChange(
                    change.at_seconds,
                    self.file(change.policy) if isinstance(change.policy, str) else None,
                    change.policy if isinstance(change.policy, Mapping) else {},
                )
                for change in sorted(wva.policy_changes, key=lambda change: change.at_seconds)
            ),
        )

    def _static(self, written: StaticSpec, place: str, variants: tuple[str, ...]) -> dict[str, int]:
        """Replicas by variant key."""
        if isinstance(written.replicas, int):
            if len(variants) > 1:
                raise self.refused(
                    place,
                    f"does not say how many of each of the {len(variants)} variants",
                    written.replicas,
                    f"give a mapping with some of {', '.join(variants)}",
                )
            return {variants[0]: written.replicas}
        replicas = dict.fromkeys(variants, 0)
        for name, count in written.replicas.items():
            meant = [key for key in variants if name in (key, key.partition("/")[2])]
            if len(meant) > 1:
                raise self.refused(
                    place, "names variants of several namespaces", name, f"name one of {', '.join(meant)}"
                )
            if not meant:
                raise self.refused(
                    place, "names a variant that this scenario does not have", name, _name_one_of(name, variants)
                )
            replicas[meant[0]] = count
        return replicas


def _routed_as(model: ModelSpec) -> str:
    """Requests are routed per model and namespace."""
    return f"{model.namespace}/{model.model}"


def _first_twice(names: Iterable[str]) -> int | None:
    """The row of the first name that was there before."""
    seen: set[str] = set()
    for row, name in enumerate(names):
        if name in seen:
            return row
        seen.add(name)
    return None


def _name_one_of(name: str, names: Iterable[str]) -> str:
    """A remedy: the names there are, the nearest one first."""
    known = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"name one of {', '.join(known)}"


def _in_camel_case(text: str) -> str:
    return re.sub(r"[a-z]+(?:_[a-z]+)+", lambda found: camel_case(found[0]), text)


def _or_never(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _start_up(written: StartUpSpec) -> StartUp:
    return StartUp(written.law, written.mean_seconds, written.cv, written.low_seconds, written.high_seconds)


def _behavior(written: BehaviorSpec | None) -> Behavior:
    """What an HPA makes of a written `behavior`: its defaults fill in what is left out."""
    if written is None:
        return HPA_DEFAULT_BEHAVIOR
    return Behavior(
        _rules(written.scale_up, HPA_DEFAULT_BEHAVIOR.scale_up),
        _rules(written.scale_down, HPA_DEFAULT_BEHAVIOR.scale_down),
    )


def _rules(written: HpaRulesSpec | None, default: ScalingRules) -> ScalingRules:
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
