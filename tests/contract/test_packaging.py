"""The distributions of this repository agree with each other, with the pins and with the import contracts."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import wva_core

ROOT = Path(__file__).parents[2]
KINDS = ("actuators", "analyzers", "collectors", "optimizers")
PROJECTS = sorted(
    [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("examples/*/pyproject.toml")]
)


def read(path: Path) -> dict:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def plugin_folders() -> set[str]:
    """Where each declared plugin lives: its folder, or the whole package of a distribution with a single one."""
    folders = set()
    for path in PROJECTS:
        groups = read(path)["project"].get("entry-points", {})
        for kind in KINDS:
            for target in groups.get(f"wva.{kind}", {}).values():
                folders.add(target.partition(":")[0].removesuffix(".plugin"))
    return folders


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def contract(name: str) -> dict:
    contracts = read(ROOT / "pyproject.toml")["tool"]["importlinter"]["contracts"]
    return next(entry for entry in contracts if entry["name"] == name)


def test_every_declared_plugin_is_kept_apart_from_the_others():
    assert set(contract("Plugins do not know each other")["modules"]) == plugin_folders()


def test_every_plugin_distribution_is_under_the_contracts():
    packages = {folder.partition(".")[0] for folder in plugin_folders()}
    assert set(contract("The core never imports a plugin")["forbidden_modules"]) == packages
    assert set(contract("A plugin uses errors, domain, numerics and hooks")["source_modules"]) == packages


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_folder_is_named_like_its_entry_point(kind):
    entries = read(ROOT / "plugins" / kind / "pyproject.toml")["project"]["entry-points"][f"wva.{kind}"]
    for name, target in entries.items():
        assert target.startswith(f"wva_{kind}.{name.replace('-', '_')}.plugin:")


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_every_requirement_is_pinned_to_a_version_it_allows(project):
    table = read(project)
    extras = table["project"].get("optional-dependencies", {}).values()
    wanted = [
        *table["project"]["dependencies"],
        *table["build-system"]["requires"],
        *(one for extra in extras for one in extra),
    ]
    ours = {canonicalize_name(read(path)["project"]["name"]) for path in PROJECTS}
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name not in ours:
            assert requirement.specifier.contains(pins()[name]), f"{requirement} is pinned to {pins()[name]}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_plugin_distributions_are_released_together_with_the_core(kind):
    project = read(ROOT / "plugins" / kind / "pyproject.toml")["project"]
    assert project["version"] == wva_core.__version__
    core = next(one for one in map(Requirement, project["dependencies"]) if one.name == "wva-core")
    assert core.specifier.contains(wva_core.__version__, prereleases=True)


def test_the_traces_are_the_published_ones():
    text = (ROOT / "examples" / "traces" / "README.md").read_text(encoding="utf-8")
    listed = {name: digest for digest, name in re.findall(r"^ {4}([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)}
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "examples" / "traces").glob("*.csv.gz")
    }
    assert present
    assert listed == present
