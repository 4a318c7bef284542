"""The tutorial "Writing a plugin" shows the files that are there, and its commands do what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "concurrency-target"
TEXT = (ROOT / "docs" / "developer-guide" / "writing-a-plugin.md").read_text(encoding="utf-8")

SHOWN = dict(re.findall(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
FENCED = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line[2:] for kind, block in FENCED if kind == "console" for line in block.splitlines()]


def files() -> set[str]:
    """Files of the example that a person wrote and that are not empty."""
    found = [path for path in EXAMPLE.rglob("*") if path.is_file() and path.stat().st_size]
    relative = [path.relative_to(EXAMPLE) for path in found]
    hidden = {"__pycache__", "build", "dist"}
    return {
        path.as_posix()
        for path in relative
        if not any(part in hidden or part.startswith(".") or part.endswith(".egg-info") for part in path.parts)
    }


def test_the_tutorial_shows_every_file_of_the_example():
    assert set(SHOWN) == files()


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_a_file_is_shown_as_it_is(name):
    assert SHOWN[name] == (EXAMPLE / name).read_text(encoding="utf-8")


def test_every_block_is_a_file_or_a_command():
    assert len(FENCED) == len(SHOWN) + sum(kind == "console" for kind, _ in FENCED)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("wva ")])
def test_a_command_succeeds(command, tmp_path):
    words = shlex.split(command)
    if "--out" in words:
        words[words.index("--out") + 1] = str(tmp_path / "report")
    run = subprocess.run(
        [Path(sys.executable).with_name("wva"), *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "concurrency-target" in run.stdout
