"""Scenarios run once for all tests of this folder, and scenarios written on the spot."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from wva_core import app
from wva_core.simulation.report import ContenderResult
from wva_core.simulation.scenario import Scenario, read_scenario
from wva_core.telemetry.record_reader import RecordReader

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios"


class Ran(NamedTuple):
    """A scenario, what came of its contenders by name, and the folders of their records."""

    scenario: Scenario
    results: dict[str, ContenderResult]
    records: Path

    def folder(self, name):
        return next(app.records_folder(self.records, one) for one in self.scenario.contenders if one.name == name)

    def cycles(self, name):
        return list(RecordReader(self.folder(name)).read())


def run(scenario, records):
    return Ran(scenario, {one.name: one for one in app.run_scenario(scenario, records=records)}, records)


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """Runs an example scenario in full, once."""

    @cache
    def once(name):
        return run(read_scenario(EXAMPLES / f"{name}.yaml"), tmp_path_factory.mktemp(name))

    return once


@pytest.fixture
def written(tmp_path):
    """Writes a scenario document and returns its path."""

    def write(document, name="scenario.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    return write
