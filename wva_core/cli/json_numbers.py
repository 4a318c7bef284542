"""
Numbers in a JSON answer: JSON has none for "not known", and none without an end.
"""

from __future__ import annotations

import math

__all__ = ["known"]


def known(value: float) -> float | None:
    """A number for JSON, an int as it is; None where it is NaN or infinite."""
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None
