"""The pages about the command line and the observation: complete, and every example in them runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from wva_core.cli import main
from wva_core.cli.observation_document import ObservationDocument
from wva_core.policy.documents import written

ROOT = Path(__file__).parents[3]
CLI_PAGE = (ROOT / "docs/user-guide/cli.md").read_text(encoding="utf-8")
OBSERVATION_PAGE = (ROOT / "docs/user-guide/observation.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples/observations").glob("*"))


def commands(group=main, path="wva"):
    """Every command of the tree with its full name."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


COMMANDS = dict(commands())


def section(name):
    """The part of the page under the heading of a command, with those below it."""
    found = re.search(rf"^(#+) {re.escape(name)}$(.*?)(?=^#+ |\Z)", CLI_PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"{name} has no heading in docs/user-guide/cli.md"
    return found[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_its_usage(name):
    usage = section(name)
    for parameter in COMMANDS[name].params:
        for spelled in parameter.opts if isinstance(parameter, click.Option) else [parameter.human_readable_name]:
            assert spelled.lower() in usage.lower(), f"{name} takes {spelled}"


def test_every_option_is_explained_in_a_table():
    explained = set(re.findall(r"^\| `(--[a-z-]+)", CLI_PAGE, re.MULTILINE))
    taken = {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option.startswith("--")
    }
    assert explained == taken


def test_every_exit_code_is_explained():
    assert re.findall(r"^\| (\d+) \|", CLI_PAGE, re.MULTILINE) == ["0", "1", "2", "130"]


def shown_commands():
    pages = (CLI_PAGE, OBSERVATION_PAGE)
    return [line for page in pages for line in re.findall(r"^\$ (wva .*)$", page, re.MULTILINE)]


@pytest.mark.parametrize("line", shown_commands())
def test_every_shown_command_runs(wva, monkeypatch, line):
    monkeypatch.chdir(ROOT)
    result = wva(*shlex.split(line)[1:])
    assert result.exit_code == 0, result.output


def documented_keys(heading):
    table = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", OBSERVATION_PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"^\| `([A-Za-z.]+)`", table[1], re.MULTILINE)


def test_every_key_of_the_document_is_explained():
    empty = {
        "variants": [{"name": "a", "model": "m", "replicas": {}}],
        "replicas": [{"variant": "default/a"}],
        "models": [{"model": "m"}],
    }
    plain = written(ObservationDocument.model_validate_json(json.dumps({**empty, "inventory": {"H100": {}}})))
    counts = plain["variants"][0].pop("replicas")
    variant = [*plain["variants"][0], *(f"replicas.{key}" for key in counts)]
    assert sorted(documented_keys("variants")) == sorted(variant)
    assert documented_keys("replicas") == list(plain["replicas"][0])
    assert documented_keys("models") == list(plain["models"][0])
    assert documented_keys("inventory") == list(plain["inventory"]["H100"])


# What each example is there to show: desired replicas, and who is held.
SHOWN = {
    "hot-and-cold.yaml": ({"default/chat": 2}, []),
    "two-variants.yaml": ({"default/chat-h100": 2, "default/chat-l40s": 4}, []),
    "queue-unknown.yaml": ({"default/chat": 3}, ["default/chat"]),
    "starting.yaml": ({"default/chat": 4}, ["default/chat"]),
    "no-gpus-left.yaml": ({"prod/decode": 2, "prod/prefill": 1}, []),
}


def test_every_example_is_listed_and_tested():
    assert sorted(documented_keys_of_examples()) == sorted(path.name for path in EXAMPLES) == sorted(SHOWN)


def documented_keys_of_examples():
    return re.findall(r"^\| `([a-z-]+\.yaml)`", OBSERVATION_PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", SHOWN)
def test_every_example_shows_what_it_says(wva, name):
    result = wva("decide", ROOT / "examples/observations" / name, "--output", "json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    desired, held = SHOWN[name]
    assert {row["variant"]: row["desired"] for row in told["decisions"]} == desired
    assert [row["variant"] for row in told["held"]] == held


# What the comment at the top of an example invites to change, and what comes of it.
INVITED = {
    "hot-and-cold.yaml": ("kvUsage: 0.70", "kvUsage: 0.71", 3),
    "queue-unknown.yaml": ("}\n", ", waiting: 0}\n", 2),
}


@pytest.mark.parametrize("name", INVITED)
def test_the_change_an_example_invites_to_does_what_it_says(wva, tmp_path, name):
    before, after, desired = INVITED[name]
    head, rows = (ROOT / "examples/observations" / name).read_text(encoding="utf-8").split("\nreplicas:\n")
    changed = tmp_path / name
    changed.write_text(f"{head}\nreplicas:\n{rows.replace(before, after)}")
    (row,) = json.loads(wva("decide", changed, "--output", "json").stdout)["decisions"]
    assert row["desired"] == desired


def test_the_document_on_the_page_is_the_example():
    shown = re.search(r"```yaml\n(.*?)```", OBSERVATION_PAGE, re.DOTALL)[1]
    example = (ROOT / "examples/observations/hot-and-cold.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(shown) == yaml.safe_load(example)
