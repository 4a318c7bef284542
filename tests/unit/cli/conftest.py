"""The command line in the same process, observations written on the spot, and distributions made for one test."""

from __future__ import annotations

import itertools
import json
import textwrap

import pytest
from click.testing import CliRunner
from stevedore.extension import ExtensionManager

from wva_core.cli import main

_numbers = itertools.count()


@pytest.fixture
def wva(monkeypatch):
    """Runs `wva ARGUMENTS` in a terminal of 80 columns and returns click's result."""
    monkeypatch.delenv("GLOBAL_OPT_INTERVAL", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def written(tmp_path):
    """Writes a document as JSON under a name and returns its path."""

    def write(document, name="observation.json"):
        path = tmp_path / name
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write


@pytest.fixture
def decided(wva, written):
    """Runs `wva decide --output json` on a document, and maybe a policy, and returns what it printed."""

    def decide(document, policy=None, exit_code=0):
        options = [] if policy is None else ["--policy", written(policy, "policy.json")]
        result = wva("decide", written(document), "--output", "json", *options)
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return decide


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """Puts a distribution with one plugin on the path: kind, name and the source of a class called Plugin."""

    def offer(kind, name, source, readme=""):
        module = f"wva_made_for_a_test_{next(_numbers)}"
        site = tmp_path / module
        package, info = site / module, site / f"{module}-1.2.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(textwrap.dedent(source))
        if readme:
            (package / "README.md").write_text(readme)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[wva.{kind}]\n{name} = {module}.plugin:Plugin\n")
        monkeypatch.syspath_prepend(str(site))
        # what a process has listed once it lists for good; here a distribution comes and goes while it runs
        monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})
        return module

    return offer
