"""
`wva simulate`: contenders through a scenario, a table, and a report.
"""

from __future__ import annotations

import math
import shlex
import signal
import threading
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from wva_core.cli import INTERRUPTED
from wva_core.cli.foreign_output import foreign_output_to_stderr
from wva_core.errors import EnvironmentFault

if TYPE_CHECKING:
    from rich.console import Console

    from wva_core.app import Log
    from wva_core.simulation.report import ContenderResult, ValidationRow
    from wva_core.simulation.scenario import Scenario

__all__ = ["simulate"]


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--only", multiple=True, metavar="CONTENDER", help="Run only this contender; may be given several times.")
@click.option("--trace", type=click.Path(path_type=Path), help="Run this trace (.csv or .csv.gz) instead.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of every random draw, instead of the scenario's.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("wva-report"),
    show_default=True,
    help="Folder for report.json, report.html and the records of every cycle; those of an earlier run are replaced.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="What goes to standard output.")
@click.option("--verbose", "-v", count=True, help="Log what changes to standard error; twice, every cycle.")
def simulate(
    scenario: Path, only: tuple[str, ...], trace: Path | None, seed: int | None, out: Path, output: str, verbose: int
) -> None:
    """
    Replay SCENARIO with every contender and compare what they kept and what they cost.

    Ctrl-C ends the run: what was simulated so far is still written, marked partial, and the exit code is 130. A second
    Ctrl-C ends it at once, without a report.
    """
    from rich.console import Console
    from rich.markup import escape

    from wva_core import app
    from wva_core.simulation.report import report_document, write_report
    from wva_core.simulation.scenario import read_scenario

    console = Console(stderr=output == "json")
    loaded = read_scenario(scenario, trace=trace, seed=seed, only=only)
    app.check_contenders(loaded)
    _make_folder(out)
    facts = app.facts(loaded)
    console.print(
        f"[bold]{escape(facts.name)}[/bold]: {facts.trace.requests:,} requests in {facts.trace.span_s / 60:.0f} minutes"
        f" ({escape(facts.trace.name)}, {facts.trace.kind}), {_count(len(loaded.contenders), 'contender')},"
        f" seed {facts.seed}",
        highlight=False,
    )
    for warning in loaded.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)
    checked = app.validation(loaded)
    _print_validation(console, checked)
    # standard output is for one document: what a solver of an optimizer prints there must not get into it
    with foreign_output_to_stderr() if output == "json" else nullcontext():
        results = _run(console, loaded, out / "records", _log(verbose))
    partial = any(result.partial for result in results) or len(results) < len(loaded.contenders)
    json_path, html_path = write_report(out, facts, checked, results, partial=partial)
    if output == "json":
        import json

        click.echo(json.dumps(report_document(facts, checked, results, partial=partial), allow_nan=False))
    else:
        _print_results(console, results)
        console.print(facts.rule, style="dim", highlight=False)
        console.print(f"report: {html_path}\ndata:   {json_path}", highlight=False, soft_wrap=True, markup=False)
        _print_records(console, loaded, results, out / "records")
    if partial:
        click.echo(f"interrupted: the report is partial, {_progress_made(loaded, results)}", err=True)
        click.get_current_context().exit(INTERRUPTED)


def _make_folder(out: Path) -> None:
    """The folder of the report, before anything is simulated for it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise EnvironmentFault(
            f"cannot be made: {exc.strerror or exc}", object=str(out), remedy="choose another folder with --out"
        ) from exc


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _progress_made(scenario: Scenario, results: list[ContenderResult]) -> str:
    whole = sum(not result.partial for result in results)
    return f"{whole} of {_count(len(scenario.contenders), 'contender')} went through"


class _Interrupts:
    """
    Ctrl-C, held back until the simulation is between two instants; a second one ends the process at once.

    Outside the main thread signals cannot be held back, and nothing is.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._came:
            click.echo("interrupted twice: no report is written", err=True)
            raise SystemExit(INTERRUPTED)
        self._came = True

    def check(self) -> None:
        """Raises what Ctrl-C raises, if it came."""
        if self._came:
            raise KeyboardInterrupt


def _print_validation(console: Console, rows: list[ValidationRow]) -> None:
    """The simulator against the closed formula, before any ranking is shown."""
    from rich.table import Table

    from wva_core.simulation.report import VALIDATION_LIMIT_PCT

    for profile, group in groupby(rows, key=lambda row: row.profile):
        console.print(f"simulator against the closed-loop formula: {profile}", highlight=False)
        table = Table(box=None)
        for name in ("requests in the loop", "formula ms/token", "simulated", "difference", "fit's own error"):
            table.add_column(name, justify="right")
        for row in group:
            table.add_row(
                str(row.batch),
                f"{row.predicted_ms:.2f}",
                f"{row.simulated_ms:.2f}",
                f"{row.error_pct:+.2f} %",
                "not stated" if math.isnan(row.fit_error_pct) else f"{row.fit_error_pct:.1f} %",
            )
        console.print(table)
    worst = max((abs(row.error_pct) for row in rows), default=0.0)
    if worst > VALIDATION_LIMIT_PCT:
        console.print(
            f"[yellow]warning:[/yellow] the simulator is off by {worst:.1f} %, more than {VALIDATION_LIMIT_PCT:g} %;"
            " do not trust the ranking below",
            highlight=False,
        )


def _log(verbose: int) -> Log | None:
    """The log that `-v` asks for, on standard error."""
    if not verbose:
        return None
    import structlog

    from wva_core.telemetry.log_output import configure_logging

    configure_logging("debug" if verbose > 1 else "info")
    log: Log = structlog.get_logger()
    return log


def _run(console: Console, scenario: Scenario, records: Path, log: Log | None) -> list[ContenderResult]:
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from wva_core import app

    results: list[ContenderResult] = []
    with (
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[minutes]:>4.0f} simulated minutes"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        ) as progress,
        _Interrupts() as interrupts,
    ):
        tasks = {
            contender.name: progress.add_task(escape(contender.name), total=scenario.duration_s, minutes=0.0)
            for contender in scenario.contenders
        }

        def tell(name: str, time: float) -> None:
            progress.update(tasks[name], completed=time, minutes=time / 60)
            interrupts.check()

        for result in app.run_scenario(scenario, records=records, progress=tell, log=log):
            results.append(result)
            if not result.partial:
                progress.update(tasks[result.name], completed=scenario.duration_s)
    return results


def _print_records(console: Console, scenario: Scenario, results: list[ContenderResult], records: Path) -> None:
    """Where the cycles of this run are; folders of other runs are not named."""
    from wva_core import app

    for contender in scenario.contenders[: len(results)]:
        folder = app.records_folder(records, contender)
        if contender.kind == "wva" and folder.is_dir():
            console.print(
                f"cycles: {folder} (try: wva explain {shlex.quote(str(folder))})",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )


def _print_results(console: Console, results: list[ContenderResult]) -> None:
    from wva_core.cli.tables import contenders_table

    console.print(contenders_table(results))
    for result in results:
        for notice in result.notices[:5]:
            console.print(f"{result.name}: {notice}", style="dim", highlight=False, markup=False)
        if len(result.notices) > 5:
            more = _count(len(result.notices) - 5, "more notice")
            console.print(f"{result.name}: and {more} in the report", style="dim", highlight=False, markup=False)
