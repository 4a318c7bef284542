"""
`wva explain`: why a cycle gave what it gave, from its record.
"""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from wva_core.domain.record import Record
    from wva_core.engine.predictions import Predictions
    from wva_core.telemetry.explanation import (
        AnswerExplanation,
        Explanation,
        PredictionExplanation,
        ScopeExplanation,
        SignalExplanation,
        VariantExplanation,
    )
    from wva_core.telemetry.record_reader import RecordReader

__all__ = ["explain"]

_CALENDAR = 1e8
"""Seconds from which a time is a date (1973) and not the clock of a simulation."""

_FILE_WIDTH = 120

_UNIT_WIDTH = 12
"""Characters of a unit in the heading of a column; the table of the analyzers has it whole."""


@click.command()
@click.argument("records", type=click.Path(path_type=Path))
@click.option("--model", metavar="M", help="Only this model.")
@click.option("--namespace", metavar="N", help="Only this namespace.")
@click.option(
    "--at",
    metavar="T",
    help="The newest cycle not after T: seconds, an ISO time (UTC unless it says otherwise), "
    "or with a minus sign seconds before the last cycle. The last cycle by default.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(records: Path, model: str | None, namespace: str | None, at: str | None, output: str) -> None:
    """
    Why a cycle gave what it gave.

    RECORDS is the directory that a process or a simulation wrote its records to. Shown are, for each model: what every
    variant got and which limit decided, the votes, what each analyzer said, what it expects of the planned replicas,
    and the signals with their quality.
    """
    from wva_core.telemetry.explanation import explain as explained
    from wva_core.telemetry.record_reader import RecordReader

    reader = RecordReader(records)
    record = reader.latest() if at is None else reader.at(_moment(at, reader))
    explained(record, model, namespace)  # what cannot be shown is refused before anything is worked out for it
    expected, unpredicted = _expected(records, record)
    explanation = explained(record, model, namespace, expected=expected, unpredicted=unpredicted)
    if output == "json":
        import json

        click.echo(json.dumps(explanation.to_plain(), indent=2, allow_nan=False))
        return
    from rich.console import Console

    # what goes into a file or a pager has no screen to fit
    console = Console(highlight=False)
    _render(console if console.is_terminal else Console(highlight=False, width=_FILE_WIDTH), explanation)


def _expected(records: Path, record: Record) -> tuple[Predictions, str]:
    """What analyzers expect of a recorded plan; or why none of them can be asked."""
    if not record.observed:  # said in a line of its own
        return {}, ""
    from wva_core.app import recorded_predictions
    from wva_core.cli.foreign_output import foreign_output_to_stderr
    from wva_core.errors import WvaError

    try:
        with foreign_output_to_stderr():
            return recorded_predictions(records, record), ""
    except WvaError as exc:
        return {}, str(exc)


def _moment(text: str, reader: RecordReader) -> float:
    """
    Seconds that `--at` means.

    Raises:
        RecordError: it is neither a number nor a time.
    """
    from datetime import UTC, datetime
    from math import isfinite

    from wva_core.errors import RecordError

    try:
        seconds = float(text)
    except ValueError:
        try:
            date = datetime.fromisoformat(text)
        except ValueError as exc:
            raise RecordError(
                "is not a time",
                object="--at",
                value=text,
                remedy="use seconds, a time such as 2026-01-31T03:00:00, or -600 for ten minutes before the end",
            ) from exc
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not isfinite(seconds):
        raise RecordError("is not a time", object="--at", value=text, remedy="use a number of seconds")
    return reader.span()[1] + seconds if text.lstrip().startswith("-") else seconds


# ---------------------------------------------------------------------------------------------------------------------
# Text


def _when(seconds: float) -> str:
    from datetime import UTC, datetime

    if seconds < _CALENDAR:
        return f"{seconds:g} s"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _render(console: Console, told: Explanation) -> None:
    from rich.markup import escape
    from rich.text import Text

    console.print(
        f"[bold]Cycle {told.cycle}[/] at {_when(told.time)}   mode {told.mode}   answer {told.status}"
        + ("   [bold red]DEGRADED[/]" if told.degraded else "")
    )
    for name, why in told.failures.items():
        console.print(Text.assemble(("! ", "bold red"), (name, "bold"), f" had no say: {why}"))
    if not told.complete:
        console.print("[bold red]![/] the fleet could not be listed completely: nothing is taken for gone")
    for notice in told.notices:
        console.print(f"[yellow]![/] {escape(notice)}")
    if not told.observed:
        console.print("[yellow]![/] the signals of this cycle are no longer kept; only the decision is")
    if told.unpredicted:
        console.print(f"[yellow]![/] nothing is expected of this plan: {escape(told.unpredicted)}")
    for scope in told.scopes:
        console.print()
        _render_scope(console, scope)
    if not told.scopes:
        console.print("No model was known in this cycle.")


def _render_scope(console: Console, scope: ScopeExplanation) -> None:
    from rich.markup import escape
    from rich.rule import Rule

    console.print(Rule(f"[bold]{escape(scope.label)}[/]", align="left", style="dim"))
    for variant in scope.variants:
        console.print(_verdict(variant))
    console.print(_ballot(scope))
    for table in (_steps(scope), _choices(scope)):
        console.print(table)
    for variant in scope.variants:
        if variant.capacity_sentence:
            console.print(f"capacity of {escape(_short(variant.variant))}: {escape(variant.capacity_sentence)}")
    if any(answer.verdict != "failed" for answer in scope.answers):
        console.print(_answers(scope.answers))
    for answer in scope.answers:
        if answer.sentence:
            console.print(f"{escape(answer.analyzer)}: {escape(answer.sentence)}")
    if any(not one.failure for one in scope.predictions):
        console.print(_predictions(scope.predictions))
    for analyzer, failure in dict.fromkeys((one.analyzer, one.failure) for one in scope.predictions if one.failure):
        console.print(f"{escape(analyzer)} expects nothing: {escape(failure)}")
    if scope.signals:
        console.print(_signals(scope.signals))


_COLOURS = {"grow": "green", "shrink": "cyan", "steady": "default", "frozen": "yellow", "held": "yellow"}


def _verdict(variant: VariantExplanation) -> RenderableType:
    """The line that is read first: what it has, what it gets, and why."""
    from rich.text import Text

    from wva_core.telemetry.explanation import figure

    change = variant.desired - variant.current
    colour = "green" if change > 0 else "cyan" if change < 0 else "bold" if change == 0 else "yellow"
    step = f" ({change:+g})" if change < 0 or change > 0 else ""
    text = Text.assemble(
        (_short(variant.variant), "bold"),
        f"  {figure(variant.current)} → ",
        (f"{figure(variant.desired)}{step}", colour),
        f"  {variant.sentence}",
    )
    if variant.binding:
        text.append(f": {variant.binding}", "yellow")
    if variant.stalled:
        text.append("  STALLED: target not reached, or replicas pending, beyond the settle time", "bold red")
    return text


def _ballot(scope: ScopeExplanation) -> RenderableType:
    from rich.text import Text

    ballot = scope.ballot
    parts: list[Any] = ["votes: ", (ballot.outcome, _COLOURS[ballot.outcome])]
    if ballot.growth_by:
        parts.append(f"; more required by {', '.join(ballot.growth_by)}")
    if ballot.shrink_blocked_by and not ballot.growth_by:
        parts.append(f"; shrinking waits for {', '.join(ballot.shrink_blocked_by)}")
    parts.append(f"; sized by {ballot.anchor}" if ballot.anchor else "; no analyzer can size a replica here")
    if not isnan(ballot.priority):
        parts.append(f"; priority {ballot.priority:g}")
    return Text.assemble(*parts)


def _short(key: str) -> str:
    """A variant without its namespace, which the heading names."""
    return key.partition("/")[2] or key


def _cell(value: float) -> str:
    """A number in a table: `-` is not known."""
    from wva_core.telemetry.explanation import figure

    text = figure(value)
    return {"unknown": "-", "unlimited": "∞", "-unlimited": "-∞"}.get(text, text)


def _span(low: float, high: float) -> str:
    one, other = _cell(low), _cell(high)
    return one if one == other else f"{one}..{other}"


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        last = column == "unit"
        table.add_column(column, justify="left" if number == 0 or last else "right", no_wrap=True, overflow="ellipsis")
    return table


def _steps(scope: ScopeExplanation) -> RenderableType:
    """From what is there to what there should be."""
    from rich.markup import escape

    table = _table("replicas", "now", "ready", "pending", "base", "wanted", "allowed", "desired")
    for one in scope.variants:
        replicas = (one.current, one.ready, one.pending, one.base, one.wanted)
        desired = f"[bold]{_cell(one.desired)}[/]"
        table.add_row(escape(_short(one.variant)), *map(_cell, replicas), _span(one.low, one.high), desired)
    return table  # type: ignore[no-any-return]


def _choices(scope: ScopeExplanation) -> RenderableType:
    """What the optimizer chose among."""
    from rich.markup import escape

    unit = next((answer.unit for answer in scope.answers if answer.analyzer == scope.ballot.anchor), "")
    shown = f" ({unit})" if 0 < len(unit) <= _UNIT_WIDTH else ""
    table = _table("choices", "on", "GPUs", "USD/h", f"capacity{shown}", "room")
    for one in scope.variants:
        figures = map(_cell, (one.gpus, one.cost, one.capacity, one.room))
        table.add_row(escape(_short(one.variant)), escape(one.accelerator), *figures)
    return table  # type: ignore[no-any-return]


def _answers(answers: tuple[AnswerExplanation, ...]) -> RenderableType:
    from rich.markup import escape

    table = _table("analyzer", "verdict", "demand", "supply", "capacity", "required", "spare", "unit")
    for one in answers:
        if one.verdict == "failed":  # said above, and below in its own words
            continue
        capacity = _span(one.capacity_low, one.capacity_high)
        figures = (_cell(one.demand), _cell(one.supply), capacity, _cell(one.required), _cell(one.spare))
        table.add_row(escape(one.analyzer), one.verdict.replace("_", " "), *figures, escape(one.unit))
    return table  # type: ignore[no-any-return]


def _predictions(predictions: tuple[PredictionExplanation, ...]) -> RenderableType:
    """What is expected at the planned replicas, and in parentheses what was seen at those there were."""
    from rich.markup import escape

    several = len({one.analyzer for one in predictions}) > 1
    table = _table("expected (seen)", "replicas", "TTFT ms", "ITL ms", "batch filled")
    for one in predictions:
        if one.failure:
            continue
        table.add_row(
            escape(f"{_short(one.variant)} by {one.analyzer}" if several else _short(one.variant)),
            _cell(one.replicas),
            f"{_cell(1e3 * one.ttft)} ({_cell(1e3 * one.seen_ttft)})",
            f"{_cell(1e3 * one.itl)} ({_cell(1e3 * one.seen_itl)})",
            f"{_share(one.utilization)} ({_share(one.seen_utilization)})",
        )
    return table  # type: ignore[no-any-return]


def _share(fraction: float) -> str:
    return "-" if isnan(fraction) else f"{fraction:.0%}"


_UNITS = {"tokens/request": "tok/req", "requests/s": "req/s", "tokens/s": "tok/s", "requests": "req", "fraction": ""}
"""Short enough for a table of eight columns on a terminal of eighty."""

_QUALITY = {"ok": "green", "partial": "yellow", "conflicting": "yellow", "stale": "red", "missing": "bold red"}


def _signals(signals: tuple[SignalExplanation, ...]) -> RenderableType:
    from rich.markup import escape

    table = _table("signal", "min", "mean", "max", "known", "age s", "quality", "unit")
    for one in signals:
        table.add_row(
            escape(one.signal) if one.level == "replica" else f"{escape(one.signal)} [dim]({one.level})[/]",
            *map(_cell, (one.minimum, one.mean, one.maximum)),
            f"{one.known}/{one.total}",
            _cell(one.age),
            f"[{_QUALITY[one.quality]}]{one.quality}[/]",
            escape(_UNITS.get(one.unit, one.unit)),
        )
    return table  # type: ignore[no-any-return]
