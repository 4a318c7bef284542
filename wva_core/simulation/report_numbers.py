"""
How the numbers of a report are written, alike in its sentences, in its page and in the terminal.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["UNKNOWN", "fixed", "percent", "significant"]

UNKNOWN: Final = "–"
"""What stands for a value that is not known: None, NaN or an infinity."""


def fixed(value: float | None, decimals: int) -> str:
    """`value` with so many decimals and commas between thousands; `UNKNOWN` if it is not known."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """`value` with so many significant digits, never with an exponent; `UNKNOWN` if it is not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    value = float(f"{value:.{digits}g}")
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def percent(share: float | None) -> str:
    """
    A share of 1 in percent, to hundredths and without the sign; `UNKNOWN` if it is not known.

    Cut, not rounded: 100 is said only of something that missed nothing.
    """
    if share is None or not math.isfinite(share):
        return UNKNOWN
    return f"{math.floor(share * 1e4 + 1e-6) / 100:.2f}"  # 1e-6 forgives the binary fraction: 0.29 is 29.00
