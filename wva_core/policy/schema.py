"""
The scaling policy as typed data: what an operator can ask for, and the defaults.

Internally names are Python's (`settle_seconds`), in documents camelCase (`settleSeconds`). Everything here is one
layer's view: a key that a document leaves out may come from another layer, so conditions between keys are checked
after merging (`wva_core.policy.layers`).
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wva_core.domain import Mode
from wva_core.numerics.scaling_behavior import Behavior, ScalingPolicy, ScalingRules
from wva_core.policy.documents import camel_case

__all__ = [
    "AnalyzerOverride",
    "BallotSpec",
    "BehaviorSpec",
    "BoundsSpec",
    "MatchSpec",
    "OptimizerSpec",
    "OverrideSpec",
    "PluginSpec",
    "PolicyDocument",
    "PolicySpec",
    "RateSpec",
    "RulesSpec",
    "ThresholdsSpec",
    "parse_duration",
]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_MIN_INTERVAL_SECONDS = 1.0  # upstream WVA v0.9, GLOBAL_OPT_INTERVAL


def parse_duration(text: str) -> float:
    """
    Seconds of a duration as Go writes it: `15s`, `1m30s`, `1.5h`, `500ms`.

    Raises:
        ValueError: it is not one; a bare number has no unit and is not one either.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("is not a duration; give a number with a unit, such as 15s, 1m30s or 0.5h")
    return math.fsum(float(number) * _UNITS[unit] for number, unit in parts)


def _interval(value: Any) -> Any:
    seconds = parse_duration(value) if isinstance(value, str) else value
    short = isinstance(seconds, int | float) and not isinstance(seconds, bool) and not seconds >= _MIN_INTERVAL_SECONDS
    if short or seconds == math.inf:
        raise ValueError("is not an interval of at least one second; give seconds, or a duration such as 15s or 1m30s")
    return seconds


def _pattern(value: Any) -> Any:
    if value == "":
        raise ValueError("matches nothing; name what to match, use * for any text, or remove the key")
    return value


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=camel_case, populate_by_name=True)


class ThresholdsSpec(_Spec):
    """Shares of the supply between which things stay as they are; what is left out is the analyzer's default."""

    scale_up: float | None = Field(None, gt=0, le=1)
    scale_down: float | None = Field(None, gt=0, le=1)


class OptimizerSpec(_Spec):
    """The plugin that decides replicas."""

    type: str = Field(min_length=1)
    name: str = Field("", min_length=1)
    parameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _name_is_type(self) -> OptimizerSpec:
        if not self.name:
            object.__setattr__(self, "name", self.type)
        return self


class PluginSpec(OptimizerSpec):
    """
    One analyzer of the brain.

    Attributes:
        type: the plugin.
        name: how this entry is called in overrides, votes and explanations; the type unless said.
        enabled: whether it is asked and votes.
        required: whether it keeps its veto against shrinking while it has nothing to say.
        score: weight where weights matter.
        thresholds: in place of the plugin's own.
        parameters: of the plugin.
    """

    enabled: bool = True
    required: bool = True
    score: float = Field(1.0, gt=0, allow_inf_nan=False)
    thresholds: ThresholdsSpec | None = None


class BallotSpec(_Spec):
    """
    How assessments become votes.

    Attributes:
        compat: decide on liveness and thresholds as upstream WVA v0.9 does.
        live_intervals: how many intervals an assessment counts as recent.
    """

    compat: bool = False
    live_intervals: int = Field(3, ge=1)


class RateSpec(_Spec):
    """How far replicas may move in one period; as `policies` of an HPA's `behavior`."""

    type: Literal["Pods", "Percent"]
    value: int = Field(gt=0)
    period_seconds: int = Field(gt=0, le=1800)  # limits of autoscaling/v2


class RulesSpec(_Spec):
    """The damping of one direction; as `scaleUp` or `scaleDown` of an HPA's `behavior`, but without its defaults."""

    stabilization_window_seconds: int = Field(0, ge=0, le=3600)  # limits of autoscaling/v2
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: tuple[RateSpec, ...] = ()

    def rules(self) -> ScalingRules:
        """The same for the functions that apply it."""
        return ScalingRules(
            stabilization_window_seconds=float(self.stabilization_window_seconds),
            select_policy=self.select_policy,
            policies=tuple(ScalingPolicy(rate.type, rate.value, float(rate.period_seconds)) for rate in self.policies),
        )


class BehaviorSpec(_Spec):
    """The damping of both directions; nothing said is no damping."""

    scale_up: RulesSpec = RulesSpec()
    scale_down: RulesSpec = RulesSpec()

    def behavior(self) -> Behavior:
        """The same for the functions that apply it."""
        return Behavior(scale_up=self.scale_up.rules(), scale_down=self.scale_down.rules())


class BoundsSpec(_Spec):
    """
    What holds an answer back.

    Attributes:
        settle_seconds: how long a target not reached, or a pending replica, freezes its scope.
        stale_after_seconds: from which age on a signal allows no shrinking.
        unavailable_after_seconds: from which age on a signal counts as missing.
        behavior: stabilisation windows and rates.
    """

    settle_seconds: float = Field(300.0, ge=0, allow_inf_nan=False)
    stale_after_seconds: float = Field(60.0, gt=0, allow_inf_nan=False)
    unavailable_after_seconds: float = Field(300.0, gt=0, allow_inf_nan=False)
    behavior: BehaviorSpec = BehaviorSpec()


_Pattern = Annotated[str, BeforeValidator(_pattern)]


class MatchSpec(_Spec):
    """Which models an override is for: exact texts, or patterns in which `*` stands for any text."""

    model_id: _Pattern | None = Field(None, alias="modelID")
    namespace: _Pattern | None = None

    @model_validator(mode="after")
    def _names_something(self) -> MatchSpec:
        if self.model_id is None and self.namespace is None:
            raise ValueError("matches nothing in particular; give modelID, namespace or both")
        return self


class AnalyzerOverride(_Spec):
    """What differs in one analyzer; key by key over the entry of that name."""

    name: str = Field(min_length=1)
    enabled: bool | None = None
    score: float | None = Field(None, gt=0, allow_inf_nan=False)
    thresholds: ThresholdsSpec | None = None
    parameters: dict[str, Any] = {}


class OverrideSpec(_Spec):
    """What differs for some models."""

    name: str = ""
    match: MatchSpec
    analyzers: tuple[AnalyzerOverride, ...] = ()
    bounds: BoundsSpec | None = None


class PolicyDocument(_Spec):
    """One layer of policy: a document, a profile, or what another source gives in its form."""

    profile: str | None = Field(None, min_length=1)
    mode: Mode = Mode.ADVISE
    interval: Annotated[float, "seconds of at least 1, or a duration such as 15s", BeforeValidator(_interval)] = 15.0
    analyzers: tuple[PluginSpec, ...] = ()
    optimizer: OptimizerSpec | None = None
    ballot: BallotSpec = BallotSpec()
    bounds: BoundsSpec = BoundsSpec()
    overrides: tuple[OverrideSpec, ...] = ()


class PolicySpec(PolicyDocument):
    """The whole policy after merging: as a document, but the brain is there."""

    analyzers: tuple[PluginSpec, ...]
    optimizer: OptimizerSpec
