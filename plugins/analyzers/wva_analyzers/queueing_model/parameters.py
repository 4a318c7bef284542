"""
What an operator may set, in the words of policy documents: objectives, service classes and known service parameters.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["ClassObjective", "Parameters", "Profile", "ServiceClass"]


def _camel_case(name: str) -> str:
    """The spelling of documents, as policy writes it."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_camel_case, populate_by_name=True)


class Profile(_Model):
    """Service parameters of one model on one accelerator; generation g2, as measured or published."""

    model: str = Field(min_length=1, description="as the fleet names it")
    accelerator: str = Field(min_length=1, description="as the fleet names it")
    alpha_ms: float = Field(gt=0, allow_inf_nan=False, description="fixed time of a step")
    beta_ms_per_token: float = Field(gt=0, allow_inf_nan=False, description="computing time of a token")
    gamma_ms_per_token: float = Field(gt=0, allow_inf_nan=False, description="memory time of a token in the cache")
    max_batch: int | None = Field(None, ge=1, description="requests served together, where the engine does not say")


class ClassObjective(_Model):
    """What one class is promised for one model."""

    model: str = Field(min_length=1)
    slo_ttft: float = Field(alias="slo-ttft", gt=0, allow_inf_nan=False, description="milliseconds to the first token")
    slo_tpot: float = Field(alias="slo-tpot", gt=0, allow_inf_nan=False, description="milliseconds between tokens")


class ServiceClass(_Model):
    """A service class, in the form of upstream's `service-classes-config`."""

    name: str = Field(min_length=1)
    priority: int = Field(10, ge=1, description="1 is served first where not all can be; for the optimizer")
    data: tuple[ClassObjective, ...] = ()


class Parameters(_Model):
    """Objectives, what is known beforehand, and how load is met."""

    target_ttft: float | None = Field(
        None, alias="targetTTFT", ge=0, allow_inf_nan=False, description="milliseconds to the first token"
    )
    target_itl: float | None = Field(
        None, alias="targetITL", ge=0, allow_inf_nan=False, description="milliseconds between tokens"
    )
    target_quantile: float | None = Field(
        0.99, gt=0, lt=1, description="share of requests that has to keep stated objectives; null is for their mean"
    )
    slo_multiplier: float = Field(
        3.0, gt=1, allow_inf_nan=False, description="inferred objectives: those of a utilisation of 1 - 1/k"
    )
    service_classes: tuple[ServiceClass, ...] = Field((), description="objectives by class and model")
    profiles: tuple[Profile, ...] = Field((), description="service parameters known beforehand")
    tuning_enabled: bool = Field(default=True, description="learn service parameters from what replicas show")
    drain_seconds: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="within which requests that wait are to be worked off"
    )
    start_up_seconds: float = Field(
        120.0, ge=0, allow_inf_nan=False, description="time to a ready replica, until it was observed"
    )
    coverage: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="share of requests that meet no more load than was planned for, where objectives are for the mean",
    )
    compat: bool = Field(default=False, description="judge as upstream WVA v0.9 does, its filter included")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Parameters:
        if bool(self.target_ttft) != bool(self.target_itl):
            raise ValueError("targetTTFT and targetITL belong together; give both, or leave both out")
        if self.compat and "target_quantile" in self.model_fields_set and self.target_quantile is not None:
            raise ValueError("upstream knows no quantiles; leave out targetQuantile or compat")
        for name, keys in (
            ("profiles", [f"{one.model} on {one.accelerator}" for one in self.profiles]),
            ("serviceClasses", [one.name for one in self.service_classes]),
            *((f"serviceClasses[{one.name}].data", [at.model for at in one.data]) for one in self.service_classes),
        ):
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ValueError(f"{name} gives {twice!r} twice; keep one of them")
        return self
