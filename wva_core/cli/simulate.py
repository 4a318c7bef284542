"""
`wva simulate`: contenders through a scenario, a table, and a report.
"""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from wva_core.simulation.report import ContenderResult, ValidationRow
    from wva_core.simulation.scenario import Scenario

__all__ = ["simulate"]

_VALIDATION_LIMIT_PCT = 5.0


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
    help="Folder for report.json, report.html and the records of every cycle.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="What goes to standard output.")
def simulate(
    scenario: Path, only: tuple[str, ...], trace: Path | None, seed: int | None, out: Path, output: str
) -> None:
    """
    Replay SCENARIO with every contender and compare what they kept and what they cost.

    Ctrl-C ends the run; what was simulated so far is still written, marked partial.
    """
    from rich.console import Console

    from wva_core import app
    from wva_core.simulation.report import report_document, write_report
    from wva_core.simulation.scenario import read_scenario

    console = Console(stderr=output == "json")
    loaded = read_scenario(scenario, trace=trace, seed=seed, only=only)
    facts = app.facts(loaded)
    console.print(
        f"[bold]{facts.name}[/bold]: {facts.trace.requests:,} requests in {facts.trace.span_s / 60:.0f} minutes"
        f" ({facts.trace.name}, {facts.trace.kind}), {len(loaded.contenders)} contenders, seed {facts.seed}",
        highlight=False,
    )
    for warning in loaded.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}", highlight=False)
    checked = app.validation(loaded)
    _print_validation(console, checked)
    results = _run(console, loaded, out)
    partial = bool(results and results[-1].partial) or len(results) < len(loaded.contenders)
    json_path, html_path = write_report(out, facts, checked, results, partial=partial)
    if output == "json":
        import json

        click.echo(json.dumps(report_document(facts, checked, results, partial=partial)))
        return
    _print_results(console, results)
    console.print(facts.rule, style="dim", highlight=False)
    if partial:
        console.print("[yellow]interrupted: the report is partial[/yellow]")
    console.print(f"report: {html_path}\ndata:   {json_path}", highlight=False, soft_wrap=True)
    for folder in sorted((out / "records").glob("*")):
        console.print(f"cycles: {folder} (try: wva explain {folder})", highlight=False, soft_wrap=True)


def _print_validation(console: Console, rows: list[ValidationRow]) -> None:
    """The simulator against the closed formula, before any ranking is shown."""
    from rich.table import Table

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
    if worst > _VALIDATION_LIMIT_PCT:
        console.print(
            f"[yellow]warning:[/yellow] the simulator is off by {worst:.1f} %, more than {_VALIDATION_LIMIT_PCT:g} %;"
            " do not trust the ranking below",
            highlight=False,
        )


def _run(console: Console, scenario: Scenario, out: Path) -> list[ContenderResult]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from wva_core import app

    results: list[ContenderResult] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[minutes]:>4.0f} simulated minutes"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        tasks = {
            contender.name: progress.add_task(contender.name, total=scenario.duration_s, minutes=0.0)
            for contender in scenario.contenders
        }

        def tell(name: str, time: float) -> None:
            progress.update(tasks[name], completed=time, minutes=time / 60)

        for result in app.run_scenario(scenario, records=out / "records", progress=tell):
            results.append(result)
            if not result.partial:
                tell(result.name, scenario.duration_s)
    return results


def _print_results(console: Console, results: list[ContenderResult]) -> None:
    from wva_core.cli.tables import contenders_table

    console.print(contenders_table(results))
    for result in results:
        for notice in result.notices[:5]:
            console.print(f"{result.name}: {notice}", style="dim", highlight=False)
        if len(result.notices) > 5:
            console.print(f"{result.name}: and {len(result.notices) - 5} more notices in the report", style="dim")
