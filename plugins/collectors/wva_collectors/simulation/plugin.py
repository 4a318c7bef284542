"""
The collector that observes a simulated world through its port `simulation`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wva_core.domain import (
    SCOPE_SIGNALS,
    Columns,
    Fleet,
    FleetUpdate,
    Inventory,
    ReplicaIndex,
    ReplicaTable,
    SignalRequest,
    Signals,
    VariantTable,
)
from wva_core.hooks import Runtime, hookimpl
from wva_core.hooks.catalog import NoParameters
from wva_core.simulation.world import World

__all__ = ["SimulationCollector"]


class SimulationCollector:
    """
    Shows variants, replica counts, GPUs and scraped signals of a simulated world.

    Counts are what the scale targets say at this moment; signals are what the last scrapes hold, with the windows that
    a metrics store would apply.
    """

    api = "1"
    Parameters = NoParameters

    def __init__(self, parameters: NoParameters) -> None:
        self.parameters = parameters
        self._index: (
            tuple[tuple[list[str], list[str]], ReplicaIndex, np.ndarray[tuple[int], np.dtype[np.int64]]] | None
        ) = None

    @hookimpl
    def start(self, runtime: Runtime) -> None:
        """Takes hold of the world."""
        self._world: World = runtime.port("simulation", "collector simulation")
        scenario = self._world.scenario
        keys = scenario.fleet.keys
        deployments = self._world.cluster.deployments
        self._min = [scenario.min_replicas[key] for key in keys]
        self._max = [np.inf if (most := scenario.max_replicas[key]) is None else most for key in keys]
        self._cost = [deployments[key].cost_usd_per_h for key in keys]
        self._gpus = [deployments[key].gpus_per_replica for key in keys]

    @hookimpl
    def discover(self) -> FleetUpdate:
        """The deployments of the scenario and their replicas now."""
        world = self._world
        fleet = world.scenario.fleet
        counts = [world.cluster.counts(key) for key in fleet.keys]
        table = VariantTable.of(
            [one.current for one in counts],
            ready=[one.ready for one in counts],
            pending=[one.pending for one in counts],
            cost=self._cost,
            gpus=self._gpus,
            min_replicas=self._min,
            max_replicas=self._max,
        )
        gpus = world.cluster.gpu_capacity
        used = world.cluster.gpu_used
        inventory = Inventory(
            tuple(gpus),
            np.array(list(gpus.values()), dtype=float),
            np.array([used[name] for name in gpus], dtype=float),
        )
        return FleetUpdate(fleet, table, inventory)

    @hookimpl
    def collect(self, fleet: Fleet, wanted: Sequence[SignalRequest]) -> Signals:
        """What the last scrapes say of every ready replica, and of the gateway."""
        world = self._world
        retention = max((request.retention_seconds for request in wanted), default=0.0)
        seen = world.scraper.snapshot(retention or None)
        index, order = self._rows(fleet, seen.variants, seen.pods)
        replica_names = {request.signal for request in wanted if request.level == "replica"}
        replicas = ReplicaTable.of(
            index,
            {name: column[order] for name, column in seen.signals.items() if name in replica_names},
            {name: column[order] for name, column in seen.ages.items() if name in replica_names},
        )
        row_of_model = {model: row for row, model in enumerate(seen.models)}
        # a scope that only another collector knows reads as not known
        rows = np.array([row_of_model.get(f"{scope.namespace}/{scope.model}", -1) for scope in fleet.scopes])
        gateway = {
            "queue_size": seen.queue_size,
            "queue_bytes": seen.queue_bytes,
            "arrival_rate": seen.arrival_rate,
            "requests_retained": seen.requests_retained,
        }
        scopes = Columns(
            len(fleet.scopes),
            SCOPE_SIGNALS,
            {name: np.append(column, np.nan)[rows] for name, column in gateway.items()},
            {name: np.full(len(rows), seen.scope_age) for name in gateway},
        )
        return Signals(replicas=replicas, scopes=scopes)

    def _rows(
        self, fleet: Fleet, variants: list[str], pods: list[str]
    ) -> tuple[ReplicaIndex, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """The index of the ready pods, kept while they stay the same."""
        names = (variants, pods)
        if self._index is None or self._index[0] != names:
            self._index = (names, *ReplicaIndex.of(fleet, variants, pods))
        return self._index[1], self._index[2]
