"""The actuator `simulation` on a small world: when it scales, and what it leaves alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wva_actuators.simulation.plugin import SimulationActuator
from wva_core.domain import Mode, Plan, Reason
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.errors import ContractError
from wva_core.hooks import Fence, Runtime
from wva_core.simulation.scenario import read_scenario
from wva_core.simulation.world import World

SCENARIO = """
name: three variants
durationSeconds: 600
objectives: {ttftSeconds: 5, tpotSeconds: 0.15}
models:
  - model: meta-llama/Llama-3.1-8B-Instruct
    variants:
      - {name: a, profile: {accelerator: L4, kind: derived}, initialReplicas: 2}
      - {name: b, profile: {accelerator: L4, kind: derived}, initialReplicas: 2}
      - {name: c, profile: {accelerator: L4, kind: derived}, initialReplicas: 2}
contenders:
  - name: engine
    wva: {policy: {}}
"""


@pytest.fixture
def world(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    scenario = read_scenario(path)
    return World(scenario, scenario.contenders[0])


@pytest.fixture
def actuator(world):
    made = SimulationActuator(SimulationActuator.Parameters())
    made.start(Runtime(world.clock, ports={"simulation": world}))
    return made


def plan(world, desired, mode=Mode.ACT):
    fleet = world.scenario.fleet
    column, count = floats(desired), len(fleet)
    return Plan(
        time=0.0,
        fleet=fleet,
        current=floats(np.full(count, 2.0)),
        desired=column,
        wanted=column,
        low=floats(np.zeros(count)),
        high=floats(np.full(count, np.inf)),
        reason=integers(np.full(count, Reason.GROW)),
        binding_row=integers(np.full(count, -1)),
        stalled=booleans(np.zeros(count, dtype=bool)),
        mode=mode,
    )


def replicas(world):
    """What every deployment was told to have, and what is alive."""
    told = [world.wanted[key] for key in world.scenario.fleet.keys]
    assert told == [world.cluster.counts(key).current for key in world.scenario.fleet.keys]
    return told


class LoweredAfter(Fence):
    """A fence that is lowered once it was asked some times."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    @property
    def current(self):
        self.left -= 1
        return self.left >= 0


def test_a_world_without_a_simulation_is_refused(world):
    with pytest.raises(ContractError, match="actuator simulation: needs the port 'simulation'"):
        SimulationActuator(SimulationActuator.Parameters()).start(Runtime(world.clock))


def test_a_plan_is_carried_out_up_and_down_and_to_zero(world, actuator):
    assert actuator.act(plan(world, [5, 1, 0]), Fence()).written == 3
    assert replicas(world) == [5, 1, 0]


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.ACT])
def test_nothing_is_scaled_in_any_other_mode(world, actuator, mode):
    assert actuator.act(plan(world, [5, 1, 0], mode), Fence()).written == 0
    assert replicas(world) == [2, 2, 2]


def test_a_target_that_is_not_known_leaves_its_deployment_alone(world, actuator):
    assert actuator.act(plan(world, [math.nan, 3, math.nan]), Fence()).written == 1
    assert replicas(world) == [2, 3, 2]


def test_what_is_as_it_should_be_is_not_written_again(world, actuator):
    actuator.act(plan(world, [5, 2, 2]), Fence())
    assert actuator.act(plan(world, [5, 2, 3]), Fence()).written == 1


def test_nothing_is_written_behind_a_lowered_fence(world, actuator):
    fence = Fence()
    fence.lower()
    assert actuator.act(plan(world, [5, 1, 0]), fence).written == 0
    assert replicas(world) == [2, 2, 2]


def test_a_fence_that_falls_halfway_stops_the_writes_after_it(world, actuator):
    assert actuator.act(plan(world, [5, 1, 0]), LoweredAfter(2)).written == 2
    assert replicas(world) == [5, 1, 2]
