"""
Every plugin this repository declares, under the conformance kit.

The classes are made from the declarations, so a new plugin is checked as soon as it is declared.
"""

import tomllib
from pathlib import Path

import pytest

from wva_core.domain import Fleet
from wva_core.hooks import Runtime, catalog
from wva_core.simulation.scenario import read_scenario
from wva_core.simulation.world import World
from wva_core.testing import (
    ActuatorConformance,
    AnalyzerConformance,
    CollectorConformance,
    OptimizerConformance,
)

ROOT = Path(__file__).parents[2]
KITS = {
    "actuators": ActuatorConformance,
    "analyzers": AnalyzerConformance,
    "collectors": CollectorConformance,
    "optimizers": OptimizerConformance,
}


def declared(kind: str) -> list[str]:
    """Names of the plugins of one kind that our distributions declare."""
    text = (ROOT / "plugins" / kind / "pyproject.toml").read_text(encoding="utf-8")
    return sorted(tomllib.loads(text)["project"]["entry-points"][f"wva.{kind}"])


class InSimulation:
    """A simulated world after its first minute, for the plugins that need one."""

    def world(self) -> World:
        scenario = read_scenario(ROOT / "examples" / "scenarios" / "steady.yaml")
        world = World(scenario, scenario.contenders[0])
        for second in range(0, 61, 15):
            world.cluster.advance(float(second))
            world.clock.time = float(second)
            world.scraper.sample()
        return world

    def runtime(self) -> Runtime:
        world = self.world()
        return Runtime(clock=world.clock, ports={"simulation": world})


class ActingInSimulation(InSimulation):
    """An actuator can only be given plans for what its world has."""

    def fleet(self) -> Fleet:
        return self.world().scenario.fleet


WORLDS = {("collectors", "simulation"): InSimulation, ("actuators", "simulation"): ActingInSimulation}


def _class(kind: str, name: str) -> type:
    bases = (WORLDS[kind, name], KITS[kind]) if (kind, name) in WORLDS else (KITS[kind],)
    title = "Test" + "".join(part.capitalize() for part in f"{kind[:-1]}-{name}".split("-"))
    return type(title, bases, {"plugin": name, "__module__": __name__})


for _kind in KITS:
    for _name in declared(_kind):
        _made = _class(_kind, _name)
        globals()[_made.__name__] = _made


@pytest.mark.parametrize("kind", KITS)
def test_what_is_declared_is_installed(kind):
    assert set(declared(kind)) <= {item.name for item in catalog.listing(kind)}
