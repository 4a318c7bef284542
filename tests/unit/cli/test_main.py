"""The command group: exit codes, one line for each error, and imports only where something is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from wva_core import __version__
from wva_core.cli import COMMANDS, LazyGroup, main
from wva_core.errors import (
    ContractError,
    EnvironmentFault,
    InfeasibleError,
    ParameterError,
    PluginFailure,
    PolicyError,
    TraceError,
    UnknownPluginError,
)


def group_that_raises(error):
    """A group like `wva` with one command, `fail`."""
    group = LazyGroup(name="wva", lazy={})

    @group.command()
    def fail():
        raise error

    return group


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            PolicyError("is wrong", object="p.yaml", key="a.b", value=1, remedy="mend it"),
            2,
            "p.yaml: a.b: is wrong (got 1); mend it",
        ),
        (TraceError("is no number", object="t.csv", line=3, column="b"), 2, "t.csv: line 3, column b: is no number"),
        (UnknownPluginError("has no such name", object="analyzers"), 2, "analyzers: has no such name"),
        (InfeasibleError("asks for too much", object="s.yaml"), 2, "s.yaml: asks for too much"),
        (ContractError("is no class", object="analyzer x"), 1, "analyzer x: is no class"),
        (PluginFailure("raised\nover two lines", object="analyzer x"), 1, "analyzer x: raised over two lines"),
        (EnvironmentFault("disk is full", object="/out"), 1, "/out: disk is full"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_one_line_and_an_exit_code(error, code, line):
    result = CliRunner().invoke(group_that_raises(error), ["fail"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"error: {line}\n")


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), ParameterError("is of the wrong shape")])
def test_a_bug_shows_its_traceback_and_asks_to_be_reported(error):
    result = CliRunner().invoke(group_that_raises(error), ["fail"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert str(error) in result.stderr
    assert result.stderr.endswith(f"error: this is a bug in wva {__version__}; please report it with the lines above\n")


def test_ctrl_c_ends_with_130():
    result = CliRunner().invoke(group_that_raises(KeyboardInterrupt()), ["fail"])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_words_of_click_keep_their_exit_code():
    assert CliRunner().invoke(group_that_raises(click.ClickException("no")), ["fail"]).exit_code == 1
    assert CliRunner().invoke(group_that_raises(click.UsageError("no")), ["fail"]).exit_code == 2


def test_an_unknown_command_is_refused(wva):
    result = wva("decied")
    assert result.exit_code == 2
    assert "decied" in result.stderr


def test_help_lists_every_command_with_its_summary(wva):
    for flag in ("-h", "--help"):
        result = wva(flag)
        assert result.exit_code == 0
        words = " ".join(result.stdout.split())
        for name, command in COMMANDS.items():
            assert f"{name} {command.summary}" in words
        assert max(len(line) for line in result.stdout.splitlines()) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_is_the_first_paragraph_of_its_help(name):
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert " ".join((command.help or "").split("\n\n")[0].split()) == COMMANDS[name].summary


def test_the_version_is_told(wva):
    assert wva("--version").stdout == f"wva, version {__version__}\n"


def modules_after(code):
    """Names of the modules a new process has imported after running the code."""
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {name.partition(".")[0] for name in json.loads(out.splitlines()[-1])}


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"numpy", "scipy", "pydantic", "rich", "stevedore", "pluggy", "yaml", "click", "prometheus_client"}
    assert not modules_after("import wva_core") & heavy


def test_help_imports_no_command():
    heavy = {"numpy", "scipy", "pydantic", "rich", "stevedore", "pluggy", "yaml", "prometheus_client"}
    code = "from click.testing import CliRunner; from wva_core.cli import main; CliRunner().invoke(main, ['--help'])"
    assert not modules_after(code) & heavy


def test_the_exit_code_reaches_the_shell(tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text("variants: []\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text("variants: 3\n")
    for path, code in ((good, 0), (bad, 2)):
        ran = subprocess.run(
            [sys.executable, "-c", "from wva_core.cli import main; main()", "decide", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"COLUMNS": "80"},
        )
        assert ran.returncode == code, ran.stderr
    assert ran.stderr == f"error: {bad}: variants: is not a list (got 3); give a list\n"
