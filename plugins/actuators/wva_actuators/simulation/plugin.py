"""
The actuator that carries a plan out in a simulated world through its port `simulation`.
"""

from __future__ import annotations

import numpy as np

from wva_core.domain import Mode, Plan
from wva_core.hooks import ActuationReport, Fence, Runtime, hookimpl
from wva_core.hooks.catalog import NoParameters
from wva_core.simulation.world import World

__all__ = ["SimulationActuator"]


class SimulationActuator:
    """
    Sets the replicas of simulated deployments to the plan's, where the plan's mode is `act`.

    A target that is not known leaves its deployment alone.
    """

    api = "1"
    Parameters = NoParameters

    def __init__(self, parameters: NoParameters) -> None:
        self.parameters = parameters

    @hookimpl
    def start(self, runtime: Runtime) -> None:
        """Takes hold of the world."""
        self._world: World = runtime.port("simulation", "actuator simulation")

    @hookimpl
    def act(self, plan: Plan, fence: Fence) -> ActuationReport:
        """Scales every variant whose target differs from what it should have."""
        if plan.mode is not Mode.ACT:
            return ActuationReport()
        written = 0
        for key, desired in zip(plan.fleet.keys, plan.desired.tolist(), strict=True):
            if np.isnan(desired) or self._world.wanted[key] == desired:
                continue
            if not fence.current:
                break
            self._world.scale(key, int(desired))
            written += 1
        return ActuationReport(written)
