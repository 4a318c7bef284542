"""
The scenario file as typed data: which keys there are, what they take, and what one of them forbids another.

Internally names are Python's (`duration_seconds`), in documents camelCase (`durationSeconds`). Every key is optional
unless it has no default here. What keys say of each other is checked by `ScenarioDocument.conflicts` once each of them
is what it should be; what needs the tables of profiles, or the traces, by `wva_core.simulation.scenario`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from wva_core.policy.documents import camel_case
from wva_core.simulation.scrape import SIGNALS

__all__ = [
    "ArrivalsSpec",
    "BehaviorSpec",
    "BehindSpec",
    "Conflict",
    "ContenderSpec",
    "HpaRulesSpec",
    "HpaSpec",
    "ModelSpec",
    "ObjectivesSpec",
    "PolicyChangeSpec",
    "PolicyStepSpec",
    "ProfileSpec",
    "ScenarioDocument",
    "StartUpSpec",
    "StaticSpec",
    "TraceFileSpec",
    "VariantSpec",
    "WvaSpec",
]

_MONTH_S = 31 * 86_400.0
_MOST_REQUESTS = 20_000_000
"""More is a slip of the pen: about 4 GB of memory and some minutes per contender."""

_MOST_REPLICAS = 10_000
_LONGEST_NAME = 60  # of a contender, in a table and as a folder

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def _kubernetes_name(text: str) -> str:
    if len(text) > 63 or not _NAME.fullmatch(text):
        raise ValueError("is not a name in Kubernetes; use up to 63 small letters, digits, '-' and '.'")
    return text


def _contender_name(text: str) -> str:
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"has {len(text)} characters; use up to {_LONGEST_NAME}, and put the rest into description")
    return text


def _default_if_true(value: Any) -> Any:
    return {True: BehindSpec(), False: None}[value] if isinstance(value, bool) else value


_Name: TypeAlias = Annotated[str, AfterValidator(_kubernetes_name)]
_Text: TypeAlias = Annotated[str, Field(min_length=1)]
_Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Span: TypeAlias = Annotated[float, Field(gt=0, le=_MONTH_S)]
_Replicas: TypeAlias = Annotated[int, Field(ge=0, le=_MOST_REPLICAS)]
_Tolerance: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Conflict(NamedTuple):
    """Keys that do not go together, told of one of them; `key` is empty where the mapping as a whole is meant."""

    key: str
    problem: str
    value: object
    remedy: str

    def below(self, place: str) -> Conflict:
        """The same conflict, seen from further up."""
        return self._replace(key=f"{place}.{self.key}" if self.key else place)


def _unused(spec: BaseModel, law: str, choices: dict[str, set[str]]) -> Iterator[Conflict]:
    """Keys that the chosen law does not read: nothing is silently ignored."""
    for name in type(spec).model_fields:
        owners = [other for other, keys in choices.items() if name in keys]
        if name in spec.model_fields_set and owners and law not in owners:
            yield Conflict(
                camel_case(name),
                f"means nothing to law {law}",
                getattr(spec, name),
                f"remove it, or choose law {' or '.join(owners)}",
            )


class ObjectivesSpec(_Spec):
    """Latency objectives of every request."""

    ttft_seconds: _Positive
    tpot_seconds: _Positive
    min_tokens_for_mean: Annotated[int, Field(ge=2)] = 16


_START_UP_KEYS = {
    "constant": {"mean_seconds"},
    "lognormal": {"mean_seconds", "cv"},
    "uniform": {"low_seconds", "high_seconds"},
}


class StartUpSpec(_Spec):
    """How long a replica takes from scheduling to ready."""

    law: Literal["constant", "lognormal", "uniform"] = "constant"
    mean_seconds: _NotNegative = 120.0
    cv: _NotNegative = 0.3
    low_seconds: _NotNegative = 60.0
    high_seconds: _NotNegative = 180.0

    def conflicts(self) -> Iterator[Conflict]:
        """What does not go together."""
        yield from _unused(self, self.law, _START_UP_KEYS)
        if self.low_seconds > self.high_seconds:
            yield Conflict("lowSeconds", f"is above highSeconds, {self.high_seconds:g}", self.low_seconds, "swap them")


class TraceFileSpec(_Spec):
    """Traffic from a file, relative to the folder of the scenario."""

    file: _Text
    kind: Literal["recorded", "profile", "realised", "synthetic"] = "recorded"
    scale: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    attribution: str = ""


_ARRIVAL_KEYS = {
    "poisson": set[str](),
    "gamma": {"cv"},
    "ramp": {"end_rate"},
    "spike": {"spike_rate", "spike_start_seconds", "spike_length_seconds"},
}


class ArrivalsSpec(_Spec):
    """Traffic drawn from a law."""

    law: Literal["poisson", "gamma", "ramp", "spike"]
    rate: _Positive
    duration_seconds: _Span
    input_tokens: Annotated[int, Field(ge=0)] = 1024
    output_tokens: Annotated[int, Field(ge=1)] = 256
    lengths_from: str | None = Field(None, min_length=1)
    cv: float | None = Field(None, gt=0, allow_inf_nan=False)
    end_rate: float | None = Field(None, ge=0, allow_inf_nan=False)
    spike_rate: float | None = Field(None, ge=0, allow_inf_nan=False)
    spike_start_seconds: _NotNegative = 0.0
    spike_length_seconds: float | None = Field(None, gt=0, allow_inf_nan=False)

    def conflicts(self) -> Iterator[Conflict]:
        """What does not go together."""
        yield from _unused(self, self.law, _ARRIVAL_KEYS)
        for name in ("cv", "end_rate", "spike_rate", "spike_length_seconds"):
            if name in _ARRIVAL_KEYS[self.law] and getattr(self, name) is None:
                yield Conflict("law", f"needs {camel_case(name)}", self.law, "add it, or choose another law")
        if self.law == "spike" and self.spike_start_seconds >= self.duration_seconds:
            yield Conflict(
                "spikeStartSeconds",
                f"is not before the end of the traffic, {self.duration_seconds:g} s",
                self.spike_start_seconds,
                "lower it",
            )
        if self.lengths_from is not None and self.model_fields_set & {"input_tokens", "output_tokens"}:
            yield Conflict(
                "lengthsFrom",
                "gives lengths, and so do inputTokens and outputTokens",
                self.lengths_from,
                "remove it, or both of them",
            )
        most = max(self.rate, self.end_rate or 0.0, self.spike_rate or 0.0) * self.duration_seconds
        if most > _MOST_REQUESTS:
            yield Conflict(
                "durationSeconds",
                f"makes up to {most:.2g} requests, more than a simulation holds, {_MOST_REQUESTS:,}",
                self.duration_seconds,
                "lower it, or the rate",
            )


class ProfileSpec(_Spec):
    """Which row of the table of profiles an engine is."""

    model: str | None = Field(None, min_length=1)
    accelerator: _Text
    tp: Annotated[int, Field(ge=1)] = 1
    engine: str | None = Field(None, min_length=1)
    kind: Literal["measured", "published", "derived", "fixture"] | None = None
    precision: str | None = Field(None, min_length=1)
    max_batch: int | None = Field(None, ge=1, le=4096)
    max_batched_tokens: Annotated[int, Field(ge=1)] = 8192


_SHARES = {"kv_now", "kv_usage", "prefix_hit_rate"}
_pinned: dict[str, Any] = {
    name: (float | None, Field(None, ge=0, le=1 if name in _SHARES else None, allow_inf_nan=False)) for name in SIGNALS
}
_SignalsSpec = create_model("_SignalsSpec", __base__=_Spec, **_pinned)
"""What the scrape shows of every replica whatever happens, by signal."""


class VariantSpec(_Spec):
    """One way of serving a model."""

    name: _Name
    profile: ProfileSpec
    cost: float | None = Field(None, ge=0, allow_inf_nan=False)
    gpus_per_replica: int | None = Field(None, ge=1)
    min_replicas: _Replicas = 1
    max_replicas: int | None = Field(None, ge=1, le=_MOST_REPLICAS)
    initial_replicas: _Replicas = 1
    start_up: StartUpSpec | None = None
    drain_timeout_seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    signals: _SignalsSpec | None = None

    def conflicts(self) -> Iterator[Conflict]:
        """What does not go together."""
        if self.max_replicas is not None:
            for name in ("min_replicas", "initial_replicas"):
                count = getattr(self, name)
                if count > self.max_replicas:
                    yield Conflict(
                        camel_case(name),
                        f"is above maxReplicas, {self.max_replicas}",
                        count,
                        "lower it, or raise the other",
                    )
        if self.start_up is not None:
            for conflict in self.start_up.conflicts():
                yield conflict.below("startUp")

    @property
    def pinned_signals(self) -> dict[str, float]:
        """The signals that are pinned, by name."""
        return {} if self.signals is None else self.signals.model_dump(exclude_none=True)


class ModelSpec(_Spec):
    """A model in a namespace: its traffic and its variants."""

    model: _Text
    namespace: _Name = "default"
    trace: TraceFileSpec | None = None
    arrivals: ArrivalsSpec | None = None
    variants: Annotated[list[VariantSpec], Field(min_length=1)]

    def conflicts(self) -> Iterator[Conflict]:
        """What does not go together."""
        if self.trace is not None and self.arrivals is not None:
            yield Conflict("trace", "gives traffic, and so does arrivals", self.trace.file, "remove one of them")
        if self.arrivals is not None:
            for conflict in self.arrivals.conflicts():
                yield conflict.below("arrivals")
        for row, variant in enumerate(self.variants):
            for conflict in variant.conflicts():
                yield conflict.below(f"variants[{row}]")


class PolicyStepSpec(_Spec):
    """One rate policy of an HPA."""

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(ge=1)]
    period_seconds: Annotated[int, Field(ge=1, le=1800)]


class HpaRulesSpec(_Spec):
    """One direction of an HPA's `behavior`."""

    stabilization_window_seconds: float | None = Field(None, ge=0, le=3600)
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: list[PolicyStepSpec] | None = Field(None, min_length=1)
    tolerance: float | None = Field(None, ge=0, lt=1)


class BehaviorSpec(_Spec):
    """An HPA's `behavior`; what is left out is what Kubernetes fills in."""

    scale_up: HpaRulesSpec | None = None
    scale_down: HpaRulesSpec | None = None


class BehindSpec(_Spec):
    """How an HPA damps."""

    behavior: BehaviorSpec | None = None
    tolerance: _Tolerance = 0.1


class HpaSpec(BehindSpec):
    """An HPA on a metric of the model servers."""

    metric: Literal["waiting", "running", "kvUsage"]
    target: Annotated[float, Field(ge=0.001, allow_inf_nan=False)]


class PolicyChangeSpec(_Spec):
    """Another policy from some second on, swapped in between two cycles; memory stays."""

    at_seconds: _NotNegative
    policy: str | dict[str, Any]


class WvaSpec(_Spec):
    """The engine under a policy; `hpa: true` puts an HPA with the defaults of Kubernetes behind it."""

    profile: str | None = Field(None, min_length=1)
    policy: str | dict[str, Any] | None = None
    policy_changes: tuple[PolicyChangeSpec, ...] = ()
    hpa: Annotated[BehindSpec | None, BeforeValidator(_default_if_true)] = None


class StaticSpec(_Spec):
    """A fleet that never changes; variants that a mapping leaves out have no replicas."""

    replicas: int | dict[str, int]

    def conflicts(self) -> Iterator[Conflict]:
        """Numbers out of range."""
        written = {"replicas": self.replicas} if isinstance(self.replicas, int) else self.replicas
        for name, count in written.items():
            if not 0 <= count <= _MOST_REPLICAS:
                key = "replicas" if isinstance(self.replicas, int) else f"replicas.{name}"
                yield Conflict(key, "is out of range", count, f"give a whole number from 0 to {_MOST_REPLICAS}")


class ContenderSpec(_Spec):
    """Who scales."""

    name: Annotated[str, Field(min_length=1), AfterValidator(_contender_name)]
    description: str = ""
    wva: WvaSpec | None = None
    hpa: HpaSpec | None = None
    static: StaticSpec | None = None

    def conflicts(self) -> Iterator[Conflict]:
        """What does not go together."""
        kinds = [kind for kind in ("wva", "hpa", "static") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            what = f"is {' and '.join(kinds)} at once" if kinds else "is neither wva, hpa nor static"
            yield Conflict("", what, self.name, "keep one of them" if kinds else "add one of them")
        if self.static is not None:
            for conflict in self.static.conflicts():
                yield conflict.below("static")


class ScenarioDocument(_Spec):
    """A scenario as a person writes it."""

    name: _Text
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    duration_seconds: float | None = Field(None, gt=0, le=_MONTH_S)
    warmup_seconds: _NotNegative = 0.0
    scrape_seconds: Annotated[float, Field(ge=1, le=300)] = 15.0
    objectives: ObjectivesSpec
    start_up: StartUpSpec = StartUpSpec()
    models: Annotated[list[ModelSpec], Field(min_length=1)]
    gpus: dict[str, Annotated[int, Field(ge=0)]] = {}
    router: Literal["least-loaded", "sticky"] = "least-loaded"
    request_timeout_seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    contenders: Annotated[list[ContenderSpec], Field(min_length=1)]

    def conflicts(self) -> Iterator[Conflict]:
        """What keys say against each other, with their paths in the document."""
        for conflict in self.start_up.conflicts():
            yield conflict.below("startUp")
        for row, model in enumerate(self.models):
            for conflict in model.conflicts():
                yield conflict.below(f"models[{row}]")
        for row, contender in enumerate(self.contenders):
            for conflict in contender.conflicts():
                yield conflict.below(f"contenders[{row}]")
