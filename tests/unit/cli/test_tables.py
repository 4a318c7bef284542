"""The table of contenders in the terminal."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from wva_core.cli.tables import contenders_table
from wva_core.simulation.report import ContenderResult, Series

NOTHING = np.array([])
BEST = ContenderResult(
    name="saturation-v1 through an HPA",
    kind="wva",
    description="",
    attainment=0.99995,
    cost_usd=1310.628,
    gpu_hours=336.06,
    requests_in=3,
    done=3,
    failed=0,
    in_flight=0,
    ttft_s=(0.18, 1.9, 12.5),
    tpot_s=(0.0181, 0.0292, 0.142),
    scale_actions=1234,
    reversals_per_hour=3.04,
    partial=False,
    notices=(),
    series=Series(NOTHING, NOTHING, NOTHING, NOTHING, {}),
)
OTHER = replace(BEST, name="static fleet", attainment=0.9, cost_usd=1400.0, ttft_s=(0.18, 2.0, math.nan))


def printed(*results: ContenderResult, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(contenders_table(results))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_contender_is_three_lines_with_its_best_values_starred():
    lines = [line.split() for line in printed(BEST, OTHER, width=100)]
    start = next(number for number, words in enumerate(lines) if words[:1] == ["saturation-v1"])
    assert lines[start : start + 3] == [
        [
            "saturation-v1",
            "through",
            "an",
            "HPA",
            "99.99*",
            "1,310.63*",
            "336.1",
            "p50",
            "0.180",
            "18.1",
            "1,234",
            "3.0",
        ],
        ["p95", "1.90*", "29.2"],
        ["p99", "12.5", "142"],
    ]
    assert lines[start + 4][:4] == ["static", "fleet", "90.00", "1,400.00"]
    assert lines[start + 6] == ["p99", "–", "142"]


@pytest.mark.parametrize("width", [100, 80])
def test_numbers_stay_whole_in_the_width_of_a_terminal(width: int):
    lines = printed(BEST, replace(OTHER, name="an-autoscaler-whose-name-has-no-spaces-at-all"), width=width)
    text = " ".join(lines)
    assert max(map(len, lines)) <= width
    for number in ("99.99*", "1,310.63*", "336.1", "0.180", "1.90*", "12.5", "18.1", "29.2", "142", "1,234", "3.0"):
        assert f" {number}" in text
    assert "…" not in text


def test_a_name_of_ordinary_length_stands_on_one_line_in_100_columns():
    assert any("saturation-v1 through an HPA" in line for line in printed(BEST, OTHER, width=100))


def test_a_partial_contender_is_said_to_be_one_and_not_compared():
    text = " ".join(printed(BEST, replace(OTHER, partial=True), width=100))
    assert "static fleet (partial)" in text
    assert "Partial: stopped before the end, not compared." in text
    assert "*" not in text


def test_names_are_not_read_as_markup():
    assert any("[bold]x[/bold]" in line for line in printed(replace(BEST, name="[bold]x[/bold]"), width=100))
