"""
A system that a person wrote down for `wva optimize`: accelerators, models, service classes, servers and what there is.

Times are milliseconds, rates requests per minute and costs USD per hour, as in the files of the original optimizer; the
names of the keys are its own. They are explained in docs/user-guide/optimize.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from wva_core.domain import LOWEST_PRIORITY
from wva_core.errors import InputError
from wva_core.policy.documents import camel_case, read_document, validate

__all__ = [
    "DEFAULT_CLASS",
    "SATURATION_POLICIES",
    "AcceleratorRow",
    "LoadRow",
    "PerformanceRow",
    "PowerRow",
    "ServerRow",
    "ServiceClassRow",
    "System",
    "SystemDocument",
    "TargetRow",
    "latest_by_name",
    "read_system",
]

DEFAULT_CLASS = "Free"
"""Service class of a server that names none (upstream WVA v0.4)."""

SATURATION_POLICIES = ("None", "PriorityExhaustive", "PriorityRoundRobin", "RoundRobin")
"""Known names, spelled exactly so; any other text means None."""

Name = Annotated[str, Field(min_length=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), "a finite number of at least 0"]
Count = Annotated[int, Field(ge=0, le=2**31 - 1), "a whole number from 0 to 2147483647"]

_Row = TypeVar("_Row", "AcceleratorRow", "ServerRow")


def _either_case(key: str, default: float | None) -> Any:
    """A field that published files also spell with a capital letter."""
    return Field(default, validation_alias=AliasChoices(key, key[0].upper() + key[1:]))


class _Rows(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=camel_case, populate_by_name=True)


class PowerRow(_Rows):
    """Electric power of an accelerator, W, over its utilisation: two straight lines that meet at `midUtil`."""

    idle: Amount
    full: Amount
    mid_power: Amount
    mid_util: Annotated[float, Field(gt=0, lt=1)]

    def at(self, utilization: float) -> float:
        """Power in W; beyond 0 and 1 the lines go on."""
        if utilization <= self.mid_util:
            return self.idle + (self.mid_power - self.idle) / self.mid_util * utilization
        return self.mid_power + (self.full - self.mid_power) / (1 - self.mid_util) * (utilization - self.mid_util)


class AcceleratorRow(_Rows):
    """One kind of unit that can be had: so many cards of a type, at a price that covers them all."""

    name: Name
    type: str = ""
    multiplicity: Annotated[int, Field(ge=1)] = 1
    mem_size: Amount = 0.0
    mem_bw: Amount = Field(0.0, alias="memBW")
    power: PowerRow | None = None
    cost: Amount

    @property
    def card(self) -> str:
        """The type its cards are counted under; its name where none is given."""
        return self.type or self.name


class DecodeParameters(_Rows):
    """Of the second model (G1), ms: a decode step takes alpha + beta n."""

    alpha: Amount
    beta: Amount


class PrefillParameters(_Rows):
    """Of the second model (G1), ms: a prefill takes gamma + delta tokens n."""

    gamma: Amount
    delta: Amount


class ServiceParameters(_Rows):
    """Of the third model (G2), ms: overhead of an iteration, and computing and memory time of a token."""

    alpha: Amount
    beta: Amount
    gamma: Amount


class PerformanceRow(_Rows):
    """How one model performs on one accelerator; the parameters say which latency model is meant."""

    name: Name
    acc: Name
    acc_count: int = 1
    max_batch_size: Count = 0
    at_tokens: Count | None = None
    alpha: Amount | None = None
    beta: Amount | None = None
    decode_parms: DecodeParameters | None = None
    prefill_parms: PrefillParameters | None = None
    service_parms: ServiceParameters | None = None
    perf_parms: ServiceParameters | None = None

    @model_validator(mode="after")
    def _one_latency_model(self) -> PerformanceRow:
        flat = (self.alpha is not None) + (self.beta is not None)
        second = (self.decode_parms is not None) + (self.prefill_parms is not None)
        third = (self.service_parms is not None) + (self.perf_parms is not None)
        if (flat, second, third) not in {(2, 0, 0), (0, 2, 0), (0, 0, 1)}:
            raise ValueError(
                "does not describe exactly one latency model; give serviceParms, or decodeParms and prefillParms,"
                " or alpha and beta"
            )
        return self

    @property
    def generation(self) -> str:
        """`g0`, `g1` or `g2`."""
        return "g0" if self.alpha is not None else "g1" if self.decode_parms is not None else "g2"

    @property
    def units(self) -> int:
        """Accelerators a replica takes; a count that is not positive means one."""
        return max(self.acc_count, 1)

    @property
    def parameters_ms(self) -> dict[str, float]:
        """The parameters by their letters."""
        parts = (self.decode_parms, self.prefill_parms, self.service_parms, self.perf_parms)
        letters = {letter: value for part in parts if part is not None for letter, value in part}
        return letters or {"alpha": self.alpha or 0.0, "beta": self.beta or 0.0}


class TargetRow(_Rows):
    """What a service class promises for one model; 0 promises nothing."""

    model: Name
    slo_itl: Amount = Field(0.0, alias="slo-itl")
    slo_ttft: Amount = Field(0.0, alias="slo-ttft")
    slo_ttw: Amount = Field(0.0, alias="slo-ttw")
    slo_tps: Amount = Field(0.0, alias="slo-tps")


class ServiceClassRow(_Rows):
    """A service class with its promises: a list of them, or one in the row itself, as the oldest files have it."""

    name: str = ""
    priority: int = LOWEST_PRIORITY
    model_targets: tuple[TargetRow, ...] = ()
    model: str = ""
    slo_itl: Amount = Field(0.0, alias="slo-itl")
    slo_ttft: Amount = Field(0.0, alias="slo-ttft")
    slo_ttw: Amount = Field(0.0, alias="slo-ttw")
    slo_tps: Amount = Field(0.0, alias="slo-tps")

    @model_validator(mode="after")
    def _promises_name_a_model(self) -> ServiceClassRow:
        if not self.model and any((self.slo_itl, self.slo_ttft, self.slo_ttw, self.slo_tps)):
            raise ValueError("promises something for no model; give model, or put the promise under modelTargets")
        return self

    @property
    def label(self) -> str:
        """Its name; the default class where none is given."""
        return self.name or DEFAULT_CLASS

    @property
    def targets(self) -> tuple[TargetRow, ...]:
        """All its promises."""
        if not self.model:
            return self.model_targets
        own = {alias: getattr(self, alias.replace("-", "_")) for alias in ("slo-itl", "slo-ttft", "slo-ttw", "slo-tps")}
        return (*self.model_targets, TargetRow(model=self.model, **own))


class LoadRow(_Rows):
    """Requests of a server: how many a minute, and their mean lengths in tokens (G0: `avgLength`, of both together)."""

    arrival_rate: Amount
    avg_in_tokens: Amount = _either_case("avgInTokens", 0.0)
    avg_out_tokens: Amount = _either_case("avgOutTokens", 0.0)
    avg_length: Amount | None = _either_case("avgLength", None)
    arrival_cov: Amount = Field(0.0, alias="arrivalCOV")
    service_cov: Amount = Field(0.0, alias="serviceCOV")


class AllocationRow(_Rows):
    """What a server has; of its figures only accelerator, replicas and load are read."""

    accelerator: str = ""
    num_replicas: Count = 0
    max_batch: Count = 0
    cost: Amount = 0.0
    itl_average: Amount = 0.0
    ttft_average: Amount = 0.0
    wait_average: Amount = 0.0
    load: LoadRow | None = None


class ServerRow(_Rows):
    """One service of one model to one class: whoever gets an allocation."""

    name: Name
    service_class: str = Field("", alias="class")
    model: Name
    keep_accelerator: bool = False
    min_num_replicas: Count = 0
    max_batch_size: Count = 0
    current_alloc: AllocationRow = AllocationRow()
    desired_alloc: AllocationRow | None = None

    @property
    def class_label(self) -> str:
        """Its class; the default one where none is given."""
        return self.service_class or DEFAULT_CLASS


class OptimizerRow(_Rows):
    """How the original optimizer was set; of the last two only the keys are known."""

    unlimited: bool = False
    delayed_best_effort: bool = False
    saturation_policy: str = "None"
    heterogeneous: bool = False
    milpsolver: bool = False
    use_cplex: bool = False


class CapacityRow(_Rows):
    """Cards of one type that there are."""

    type: Name
    count: Count


class AcceleratorData(_Rows):
    """The list of accelerators."""

    accelerators: tuple[AcceleratorRow, ...] = ()


class ModelData(_Rows):
    """The list of performance rows."""

    models: tuple[PerformanceRow, ...] = ()


class ServiceClassData(_Rows):
    """The list of service classes."""

    service_classes: tuple[ServiceClassRow, ...] = ()


class ServerData(_Rows):
    """The list of servers."""

    servers: tuple[ServerRow, ...] = ()


class OptimizerData(_Rows):
    """The settings of the optimizer."""

    optimizer: OptimizerRow


class CapacityData(_Rows):
    """The list of cards."""

    count: tuple[CapacityRow, ...] = ()


class System(_Rows):
    """Everything an optimizer is asked about."""

    accelerator_data: AcceleratorData = AcceleratorData()
    model_data: ModelData = ModelData()
    service_class_data: ServiceClassData = ServiceClassData()
    server_data: ServerData = ServerData()
    optimizer_data: OptimizerData
    capacity_data: CapacityData = CapacityData()


class SystemDocument(_Rows):
    """The whole document."""

    system: System


def read_system(path: str | Path) -> System:
    """
    The system in a JSON or YAML file.

    Raises:
        InputError: the file or something in it cannot be used; names file, key, value and remedy.
    """
    return validate(SystemDocument, read_document(path, InputError), str(path), InputError).system


def latest_by_name(rows: Iterable[_Row]) -> tuple[dict[str, _Row], list[str]]:
    """Rows by name, and the names that came more than once: the last row of a name counts."""
    by_name: dict[str, _Row] = {}
    again = []
    for row in rows:
        if row.name in by_name:
            again.append(row.name)
        by_name[row.name] = row
    return by_name, again
