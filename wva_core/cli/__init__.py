"""
The command `wva`: one group, whose subcommands live in a module each and are imported when they are asked for.

Here, and nowhere else, an error becomes a line on standard error and an exit code:

    0    done
    1    a plugin or the world around the process failed, or a bug in wva itself
    2    what was typed or written down cannot be used
    130  interrupted from the keyboard
"""

from __future__ import annotations

import errno
import importlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from wva_core import __version__
from wva_core.errors import EnvironmentFault, OperatorError, PluginError

__all__ = ["COMMANDS", "INTERRUPTED", "LazyCommand", "LazyGroup", "main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as shells count."""


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, and what the list of commands says of it without importing it."""

    target: str
    summary: str


COMMANDS: dict[str, LazyCommand] = {
    "decide": LazyCommand("wva_core.cli.decide:decide", "One control cycle on a written-down observation."),
    "explain": LazyCommand("wva_core.cli.explain:explain", "Why a cycle gave what it gave."),
    "optimize": LazyCommand(
        "wva_core.cli.optimize:optimize", "The cheapest accelerators that keep the objectives of every server."
    ),
    "plugins": LazyCommand("wva_core.cli.plugins:plugins", "Installed plugins: what they are and whether they fit."),
    "policy": LazyCommand("wva_core.cli.policy:policy", "The policy of one model, and where every value comes from."),
    "simulate": LazyCommand(
        "wva_core.cli.simulate:simulate",
        "Replay SCENARIO with every contender and compare what they kept and what they cost.",
    ),
    "size": LazyCommand("wva_core.cli.size:size", "How many replicas a request rate needs to keep latency objectives."),
}
"""Every subcommand by name."""


class LazyGroup(click.Group):
    """
    A group that imports a command when it is called or asked for help, and ends every command in one place.

    Args:
        lazy: commands by name.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted; nothing is imported."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, imported now; None if there is none of that name."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self._lazy[cmd_name].target} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help text; nothing is imported."""
        rows = [(name, self._lazy[name].summary) for name in self.list_commands(ctx) if name in self._lazy]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; whatever it raises becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise  # click words and counts its own
        except KeyboardInterrupt:
            _end(ctx, "interrupted", INTERRUPTED)
        except OperatorError as error:
            _end(ctx, f"error: {_one_line(error)}", 2)
        except (PluginError, EnvironmentFault) as error:
            _end(ctx, f"error: {_one_line(error)}", 1)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output has gone; click ends quietly
            click.echo("".join(traceback.format_exception(error)), err=True)
            _end(ctx, f"error: this is a bug in wva {__version__}; please report it with the lines above", 1)


def _one_line(error: Exception) -> str:
    """What an error says, on one line whatever a file name or a foreign message brought along."""
    return " ".join(str(error).split())


def _end(ctx: click.Context, message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    ctx.exit(code)


@click.command(cls=LazyGroup, lazy=COMMANDS, name="wva", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wva")
def main() -> None:
    """
    How many replicas of each variant of a language model a cluster should run, and why.

    Every command that prints a table prints JSON with --output json.
    """
