"""
The actuator that publishes the plan in the metrics registry of the process.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field

from wva_actuators.prometheus_gauge.exposition import Snapshot, families, published
from wva_core.domain import Fleet, Plan
from wva_core.errors import ContractError
from wva_core.hooks import ActuationReport, Fence, Runtime, hookimpl

__all__ = ["PrometheusGauge"]


class PrometheusGauge(Collector):
    """
    Publishes desired and current replicas of every variant, for an HPA or KEDA to follow.

    It is itself the collector that a scrape asks: it renders the snapshot of one plan, whole.
    """

    api = "1"

    class Parameters(BaseModel):
        """What is published besides the three gauges and the counter."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        inferno_names: bool = Field(True, description="Publish the `inferno_*` names of releases 0.0 to 0.4 as well.")
        controller_instance: str = Field(
            "", description="Value of the label `controller_instance`; empty leaves the label out."
        )

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._snapshot: Snapshot | None = None
        self._registry: CollectorRegistry | None = None

    @hookimpl
    def start(self, runtime: Runtime) -> None:
        """Registers with the metrics registry of the process."""
        if runtime.metrics is None:
            raise ContractError(
                "this world serves no metrics",
                object="actuator prometheus-gauge",
                remedy="use it where a metrics registry exists, or choose another actuator",
            )
        try:
            runtime.metrics.register(self)
        except ValueError as exc:
            raise ContractError(
                "another collector of this process publishes the same names already",
                object="actuator prometheus-gauge",
                key="wva_desired_replicas",
                remedy="list this actuator once",
            ) from exc
        self._registry = runtime.metrics

    @hookimpl
    def stop(self) -> None:
        """Withdraws every series and the registration."""
        self._snapshot = None
        if self._registry is not None:
            self._registry.unregister(self)
            self._registry = None

    @hookimpl
    def act(self, plan: Plan, fence: Fence) -> ActuationReport:
        """Replaces what is published by this plan, in one step."""
        snapshot = published(plan, self._snapshot)
        if not fence.current:
            return ActuationReport()
        self._snapshot = snapshot
        return ActuationReport(written=len(plan.fleet))

    @hookimpl
    def stand_down(self) -> None:
        """Withdraws every series: whoever leads now publishes them."""
        self._snapshot = None

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets."""
        snapshot = self._snapshot
        if snapshot is None:
            return iter(())
        return families(
            snapshot,
            aliases=self.parameters.inferno_names,
            controller_instance=self.parameters.controller_instance,
        )

    def describe(self) -> Iterator[Metric]:
        """The names, so that a second publisher of them is refused."""
        return families(_NOTHING, aliases=self.parameters.inferno_names)


_NOTHING = Snapshot(Fleet(()), np.empty(0), np.empty(0))
