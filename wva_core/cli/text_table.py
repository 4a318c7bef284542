"""
Tables and sentences on standard output, folded to the width of the terminal (80 columns where there is none).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_table", "print_text"]


def _console() -> Console:
    return Console(highlight=False)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Sequence[str] = (), right: Sequence[str] = ()
) -> None:
    """
    Prints a table; nothing in a cell is markup, and what does not fit is folded rather than cut off.

    Args:
        columns: names.
        rows: cells in the order of the columns.
        whole: columns whose cells are never broken over lines; they have to be short.
        right: those of them that are aligned to the right.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in {*whole, *right}
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _console().print(table)


def print_text(text: str, style: str = "") -> None:
    """Prints a sentence, wrapped between words."""
    _console().print(Text(text, style=style))
