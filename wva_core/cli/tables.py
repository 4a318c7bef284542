"""
Tables the command line prints about a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from wva_core.simulation.report import ContenderResult, best_in
from wva_core.simulation.report_numbers import fixed, percent, significant

__all__ = ["contenders_table"]

_PERCENTILES = ("p50", "p95", "p99")


def contenders_table(results: Sequence[ContenderResult]) -> Table:
    """
    The contenders of a simulation side by side, three lines each for the three percentiles, in the given order.

    The best value of a column is bold and carries a star; partial contenders do not compete, unknown values are a dash.
    In 100 columns a name of 38 characters stands on one line; in 80 it is broken, and the numbers stay whole.
    """
    best = best_in(results)

    def cell(result: ContenderResult, key: str, text: str) -> Text:
        # The place of the star is kept free beside the others, so that digits stand below digits.
        return Text(f"{text}*", style="bold") if result.name in best[key] else Text(f"{text} ")

    lines = Text("\n").join
    notes = ["In time: requests that met both objectives. TTFT: time to first token. TPOT: time per output token."]
    if any(best.values()):
        notes.append("* best of its kind.")
    if any(result.partial for result in results):
        notes.append("Partial: stopped before the end, not compared.")
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0),
        leading=1,
        caption=" ".join(notes),
        caption_justify="left",
    )
    table.add_column("Contender", overflow="fold")
    for heading in (
        "In time\n% ",
        "Cost\nUSD ",
        "GPU\nhours ",
        "",
        "TTFT\ns ",
        "TPOT\nms ",
        "Scale\nactions",
        "Reversals\nper hour",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        name = Text(result.name)
        if result.partial:
            name.append(" (partial)", style="italic")

        table.add_row(
            name,
            cell(result, "attainment", percent(result.attainment)),
            cell(result, "cost_usd", fixed(result.cost_usd, 2)),
            cell(result, "gpu_hours", fixed(result.gpu_hours, 1)),
            "\n".join(_PERCENTILES),
            lines(
                cell(result, f"ttft_s.{p}", significant(s)) for p, s in zip(_PERCENTILES, result.ttft_s, strict=True)
            ),
            lines(
                cell(result, f"tpot_s.{p}", significant(1000 * s))
                for p, s in zip(_PERCENTILES, result.tpot_s, strict=True)
            ),
            f"{result.scale_actions:,}",
            fixed(result.reversals_per_hour, 1),
        )
    return table
