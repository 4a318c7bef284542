"""
The hooks: every question the engine asks a plugin, in the order of a control cycle.

One class per kind of plugin. The engine calls one plugin at a time, by keyword, in the configured order; an
implementation may take fewer arguments than its specification. Adding an argument here is compatible; removing or
renaming one is a new `api`.

A plugin is a class with

- `api = "1"`,
- a nested pydantic model `Parameters` that forbids unknown keys (leave it out if there are none),
- for analyzers `signals` (what it reads) and `default_thresholds`,

made by the engine as `Plugin(parameters)`. It keeps no memory of its own between calls: what it needs next time it
returns as state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pluggy

from wva_core.domain import (
    Allocation,
    Assessment,
    Ballot,
    Fleet,
    FleetUpdate,
    FloatArray,
    Limits,
    Observation,
    Plan,
    Settings,
    SignalRequest,
    Signals,
    State,
)

if TYPE_CHECKING:
    from wva_core.hooks.runtime import Fence, Runtime

__all__ = [
    "API",
    "SPECS",
    "ActuationReport",
    "ActuatorSpec",
    "AnalyzerSpec",
    "CollectorSpec",
    "OptimizerSpec",
    "Prediction",
    "Thresholds",
    "hookimpl",
    "hookspec",
]

API = "1"
"""The contract version a plugin class states as `api`."""

hookspec = pluggy.HookspecMarker("wva")
hookimpl = pluggy.HookimplMarker("wva")
"""Marks a method as the implementation of a hook."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """
    Shares of the supply between which an analyzer leaves things as they are.

    Replicas are added while demand exceeds `scale_up` of the supply, and may go while it is below `scale_down` of it.
    """

    scale_up: float = 0.85
    scale_down: float = 0.70


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What an analyzer expects under an allocation: (V,) seconds, seconds and a fraction; NaN where it cannot say."""

    ttft: FloatArray
    itl: FloatArray
    utilization: FloatArray


@dataclass(frozen=True, slots=True)
class ActuationReport:
    """How many variants an actuator wrote, and what failed, by variant key."""

    written: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


class _LifecycleSpec:
    @hookspec
    def start(self, runtime: Runtime) -> None:
        """
        The plugin goes into service.

        Called once, before any other hook, on the plugin's own thread, for at most 30 s. `runtime` holds the clock, the
        metrics registry and the ports of this world. Raising, or being late, refuses the whole chain: the one in
        service goes on.

            @hookimpl
            def start(self, runtime):
                self.clock = runtime.clock
        """

    @hookspec
    def stop(self) -> None:
        """
        The plugin leaves service.

        Called once, on the plugin's own thread, after its last call returned, for at most 30 s; nothing waits for a
        plugin that is stuck in a call. What it raises is reported.

            @hookimpl
            def stop(self):
                self.connection.close()
        """


class CollectorSpec(_LifecycleSpec):
    """Collectors bring the world in. One or more; per cell the first in the configured order wins."""

    @hookspec
    def discover(self) -> FleetUpdate:  # type: ignore[empty-body]
        """
        The variants there are and their numbers now.

        Called at the start of every full cycle, on the plugin's own thread, in parallel with other collectors, for at
        most half of the cycle's interval. Return the same `Fleet` object as long as no variant appeared or went:
        everything built on it is kept then. A collector that only brings signals leaves this hook out.

        Set `complete=False` where something could not be listed. A call that raises or is late makes the cycle
        incomplete: nothing is taken for gone, and every target holds.

            @hookimpl
            def discover(self):
                return FleetUpdate(self.fleet, VariantTable.of(current=[3, 1]))
        """

    @hookspec
    def collect(self, fleet: Fleet, wanted: Sequence[SignalRequest]) -> Signals:  # type: ignore[empty-body]
        """
        The signals that live analyzers declared, as far as this collector knows them.

        Called once per cycle after `discover`, on the plugin's own thread, in parallel with other collectors, for at
        most half of what is left of the interval. `wanted` has no duplicates. The replica table has a row for every
        ready engine instance, reporting or not; what is not known is NaN, never 0.

        A call that raises or is late leaves its cells unknown for this cycle.

            @hookimpl
            def collect(self, fleet, wanted):
                index, order = ReplicaIndex.of(fleet, ["ns/chat"], ["chat-0"])
                return Signals(replicas=ReplicaTable.of(index, {"kv_usage": [0.4]}))
        """


class AnalyzerSpec(_LifecycleSpec):
    """Analyzers turn signals into demand and capacity. One or more; growth follows the largest need."""

    @hookspec
    def assess(self, observation: Observation, settings: Settings, state: State) -> Assessment:  # type: ignore[empty-body]
        """
        Demand per scope and capacity per replica, in one unit of the analyzer's choice.

        Called once per cycle for the whole fleet, on the plugin's own thread, one analyzer after the other, each for at
        most half of what is left of the interval. Arguments are read-only; `settings` holds this analyzer's parameters
        as columns per scope, `state` what the previous call returned (empty at first). The same arguments must give the
        same answer.

        NaN demand freezes a scope, NaN capacity keeps a variant from growing; never invent a zero. A call that raises
        or is late costs this analyzer its vote and its new state, nothing else.

            @hookimpl
            def assess(self, observation, settings):
                running = observation.replicas.index.by_scope.sum(observation.replicas["running"])
                capacity = settings["per_replica"][observation.fleet.scope_of_variant]
                return Assessment.of(observation.fleet, unit="requests", demand=running, capacity=capacity)
        """

    @hookspec
    def predict(  # type: ignore[empty-body]
        self, observation: Observation, allocation: Allocation, settings: Settings, state: State
    ) -> Prediction:
        """
        Latency and utilisation to expect under an allocation. Optional.

        Called when a person asks (`wva explain`, `wva decide`), on the plugin's own thread, never in the cycle itself:
        `wva explain` decides the recorded cycle again for it. `observation` and `settings` are those of `assess`,
        `state` is what that call to `assess` returned: what was learnt of this very observation is in it. Replicas
        that are NaN stay at `observation.variants.base`. The same arguments must give the same answer.

        What is not known is NaN. What it raises is shown in place of the answer.

            @hookimpl
            def predict(self, observation, allocation, state):
                step = np.asarray(state["step_seconds"])
                busy = observation.replicas.index.by_variant.sum(observation.replicas["running"])
                return Prediction(ttft=step, itl=step, utilization=busy / (allocation.replicas * state["batch"]))
        """


class OptimizerSpec(_LifecycleSpec):
    """The optimizer decides replicas. Exactly one."""

    @hookspec
    def allocate(self, observation: Observation, ballot: Ballot, limits: Limits) -> Allocation:  # type: ignore[empty-body]
        """
        Whole replicas for every variant, from the ballot and within the limits.

        Called once per cycle with the static limits, and once more if bounds that depend on time are narrower, on the
        plugin's own thread, each time for at most half of what is left of the interval. Start from
        `observation.variants.base`. A scope whose anchor is -1 is held: leave it at NaN. Budgets are counted, not
        timed, so that the same arguments give the same answer.

        A call that raises, is late, or returns what the limits do not allow leaves every target as it is.

            @hookimpl
            def allocate(self, observation, ballot, limits):
                return Allocation(np.clip(observation.variants.base, limits.low, limits.high))
        """


class ActuatorSpec(_LifecycleSpec):
    """Actuators carry a plan out or publish it. One or more."""

    @hookspec
    def act(self, plan: Plan, fence: Fence) -> ActuationReport:  # type: ignore[empty-body]
        """
        The plan, made true as far as this actuator is concerned.

        Called once per cycle after the plan is verified, on the plugin's own thread, in parallel with other actuators,
        for what is left of the interval. Check `fence.current` before every write: it turns False when a newer plan
        exists or leadership is lost. A NaN target says nothing about that variant: leave it as it is.

        A call that raises is reported; the next plan is handed over all the same. One that is late is reported, and
        the actuator gets the next plan once it has come back.

            @hookimpl
            def act(self, plan, fence):
                if fence.current:
                    self.snapshot = plan
                return ActuationReport(written=len(plan.fleet))
        """

    @hookspec
    def stand_down(self) -> None:
        """
        Leadership is lost: publish nothing and write nothing from now on, until the next `act`.

        Called once, on the plugin's own thread, after a call to `act` that is under way. What it raises is reported.

            @hookimpl
            def stand_down(self):
                self.snapshot = None
        """


SPECS: dict[str, tuple[type, tuple[str, ...]]] = {
    "collectors": (CollectorSpec, ()),
    "analyzers": (AnalyzerSpec, ("assess",)),
    "optimizers": (OptimizerSpec, ("allocate",)),
    "actuators": (ActuatorSpec, ("act",)),
}
"""By kind: the specification class and the hooks a plugin of that kind must implement."""
