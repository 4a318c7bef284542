"""`wva plugins`: listing without importing, what a plugin takes and reads, and what of the contract it breaks."""

from __future__ import annotations

import json

import pytest

GOOD = """
    from typing import Literal

    from pydantic import BaseModel, ConfigDict, Field
    from wva_core.domain import SignalRequest
    from wva_core.hooks import Thresholds, hookimpl

    class Plugin:
        \"\"\"Counts sheep.\"\"\"

        api = "1"
        signals = (SignalRequest("running", window_seconds=30.0), SignalRequest("queue_size", "scope", required=False))
        default_thresholds = Thresholds(0.9, 0.4)

        class Parameters(BaseModel):
            model_config = ConfigDict(extra="forbid")

            sheep_per_replica: float = Field(8.0, gt=0, le=64, description="How many sheep\\none replica carries.")
            breed: Literal["merino", "texel"] = "merino"
            shepherd: str | None = None
            dogs: int = Field(ge=1)

        def __init__(self, parameters):
            self.parameters = parameters

        @hookimpl
        def assess(self, observation):
            ...
"""

README = "# sheep\n\nCounts sheep that\nare running.\n\n## More\n"


def test_every_installed_plugin_is_listed_with_its_distribution(wva):
    rows = {(row["kind"], row["name"]): row for row in json.loads(wva("plugins", "list", "--output", "json").stdout)}
    assert rows["analyzers", "saturation-v1"]["distribution"] == "wva-analyzers"
    assert list(rows["optimizers", "stepwise"]) == ["kind", "name", "target", "distribution", "version"]
    table = wva("plugins", "list").stdout
    for kind, name in rows:
        assert any(kind in line and name in line for line in table.splitlines())


def test_listing_imports_nothing(wva, offered):
    offered("analyzers", "broken", "raise RuntimeError('imported')")
    result = wva("plugins", "list", "--kind", "analyzers")
    assert result.exit_code == 0
    assert "broken" in result.stdout


def test_one_kind_may_be_listed_alone(wva):
    rows = json.loads(wva("plugins", "list", "--kind", "optimizers", "--output", "json").stdout)
    assert {row["kind"] for row in rows} == {"optimizers"}


def test_show_tells_what_a_plugin_takes_and_reads(wva, offered):
    module = offered("analyzers", "sheep", GOOD, README)
    (told,) = json.loads(wva("plugins", "show", "sheep", "--output", "json").stdout)
    assert told == {
        "kind": "analyzers",
        "name": "sheep",
        "target": f"{module}.plugin:Plugin",
        "distribution": module,
        "version": "1.2",
        "summary": "Counts sheep that are running.",
        "hooks": ["assess"],
        "parameters": [
            {
                "name": "sheepPerReplica",
                "type": "number",
                "default": 8.0,
                "required": False,
                "constraint": "above 0, at most 64",
                "description": "How many sheep one replica carries.",
            },
            {
                "name": "breed",
                "type": "text",
                "default": "merino",
                "required": False,
                "constraint": "one of merino, texel",
                "description": "",
            },
            {
                "name": "shepherd",
                "type": "text",
                "default": None,
                "required": False,
                "constraint": "",
                "description": "",
            },
            {
                "name": "dogs",
                "type": "whole number",
                "default": None,
                "required": True,
                "constraint": "at least 1",
                "description": "",
            },
        ],
        "thresholds": {"scaleUp": 0.9, "scaleDown": 0.4},
        "signals": [
            {
                "signal": "running",
                "level": "replica",
                "windowSeconds": 30.0,
                "retentionSeconds": 0.0,
                "required": True,
            },
            {
                "signal": "queue_size",
                "level": "scope",
                "windowSeconds": 60.0,
                "retentionSeconds": 0.0,
                "required": False,
            },
        ],
    }


def test_show_without_a_readme_tells_the_first_paragraph_of_the_class(wva, offered):
    offered("analyzers", "sheep", GOOD)
    (told,) = json.loads(wva("plugins", "show", "sheep", "--output", "json").stdout)
    assert told["summary"] == "Counts sheep."


def test_the_text_of_show_fits_80_columns(wva, offered):
    offered("analyzers", "sheep", GOOD, README)
    result = wva("plugins", "show", "sheep")
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    for word in ("sheepPerReplica", "merino", "running (replica, 30 s)", "scaleUp 0.9, scaleDown 0.4", "Counts sheep"):
        assert word in result.stdout


def test_parameters_are_shown_as_they_are_typed_in_a_policy(wva):
    (told,) = json.loads(wva("plugins", "show", "saturation-v1", "--output", "json").stdout)
    assert [(row["name"], row["default"]) for row in told["parameters"]] == [
        ("kvCacheThreshold", 0.8),
        ("queueLengthThreshold", 5.0),
        ("kvSpareTrigger", 0.1),
        ("queueSpareTrigger", 3.0),
    ]


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_name_that_nobody_offers_is_refused(wva, command):
    result = wva("plugins", command, "stepwize", "--kind", "optimizers")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: optimizers: stepwize: no installed plugin has this name; installed: cost-")


def test_plugins_that_keep_the_contract_are_ok(wva, offered):
    offered("analyzers", "sheep", GOOD)
    result = wva("plugins", "check", "saturation-v1", "stepwise", "sheep")
    assert result.exit_code == 0
    assert result.stdout == "analyzer saturation-v1: ok\noptimizer stepwise: ok\nanalyzer sheep: ok\n"


BROKEN = {
    "unimportable": ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError"),
    "other api": (GOOD.replace('api = "1"', 'api = "7"'), "is written for another contract (got '7')"),
    "misspelled hook": (GOOD.replace("def assess", "def asess"), "assess"),
    "open parameters": (GOOD.replace('extra="forbid"', 'extra="ignore"'), "accepts unknown keys"),
    "own defaults refused": (
        GOOD.replace("dogs: int = Field(ge=1)", "dogs: int = Field(0, ge=1, validate_default=True)"),
        "refuses its own defaults",
    ),
    "cannot be made": (
        GOOD.replace("dogs: int = Field(ge=1)", "dogs: int = 1").replace("self.parameters = parameters", "1 / 0"),
        "cannot be made: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize(("source", "problem"), BROKEN.values(), ids=BROKEN)
def test_what_is_to_be_mended_is_told_beside_those_that_are_ok(wva, offered, source, problem):
    offered("analyzers", "sheep", source)
    result = wva("plugins", "check", "sheep", "stepwise")
    assert result.exit_code == 1
    broken, fine = result.stdout.splitlines()
    assert broken.startswith("analyzer sheep: ")
    assert problem in broken
    assert fine == "optimizer stepwise: ok"
    rows = json.loads(wva("plugins", "check", "sheep", "stepwise", "--output", "json").stdout)
    assert [(row["name"], row["ok"]) for row in rows] == [("sheep", False), ("stepwise", True)]


def test_one_name_offered_twice_is_to_be_mended(wva, offered):
    offered("analyzers", "sheep", GOOD)
    offered("analyzers", "sheep", GOOD)
    result = wva("plugins", "check", "sheep")
    assert result.exit_code == 1
    assert result.stdout.startswith("analyzer sheep: analyzers: sheep: is offered by more than one distribution")


def test_check_all_checks_everything_that_is_installed(wva):
    names = {row["name"] for row in json.loads(wva("plugins", "list", "--output", "json").stdout)}
    told = json.loads(wva("plugins", "check", "--all", "--output", "json").stdout)
    assert {row["name"] for row in told} == names
    assert [row for row in told if not row["ok"]] == []


@pytest.mark.parametrize("arguments", [[], ["stepwise", "--all"]])
def test_check_wants_names_or_all(wva, arguments):
    result = wva("plugins", "check", *arguments)
    assert result.exit_code == 2
    assert "give the names of plugins, or --all" in result.stderr
