"""
Numbers with a unit as they are typed behind an option: durations, rates, and plain numbers with bounds.

A unit is never guessed: a bare number is refused, and so is a unit that is not listed. Every refusal names the option,
what was typed, and what may be.
"""

from __future__ import annotations

import math
import re

from wva_core.errors import InputError

__all__ = ["minutely_rate", "minutely_rates", "number", "seconds", "whole_number"]

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_PER_MINUTE = {"/s": 60.0, "/min": 1.0, "/h": 1 / 60}
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*(\D*)")
_MOST_RATES = 1000


def seconds(option: str, text: str, *, positive: bool = False) -> float:
    """
    Seconds of a duration such as `20.58ms`, `1.5s` or `410us`.

    Raises:
        InputError: it is none, or below 0, or 0 where it has to be positive.
    """
    return _scaled(option, text, _SECONDS, "24ms, 0.5s or 410us", positive=positive)


def minutely_rate(option: str, text: str) -> float:
    """
    Requests per minute of a rate such as `40/min`, `0.5/s` or `900/h`.

    Raises:
        InputError: it is none, or below 0.
    """
    return _scaled(option, text, _PER_MINUTE, "40/min, 0.5/s or 900/h", positive=False)


def minutely_rates(option: str, text: str) -> list[float]:
    """
    Requests per minute of one rate, or of all from the first to the last in steps: `10/min..100/min..10/min`.

    Raises:
        InputError: a part is no rate, the step is 0, the last is below the first, or there are more than 1000.
    """
    parts = text.split("..")
    if len(parts) == 1:
        return [minutely_rate(option, text)]
    if len(parts) != 3:
        raise InputError(
            "is not a range of rates",
            key=option,
            value=text,
            remedy="write first, last and step, such as 10/min..100/min..10/min",
        )
    first, last, step = (minutely_rate(option, part) for part in parts)
    if step <= 0 or last < first:
        raise InputError(
            "is a range that goes nowhere",
            key=option,
            value=text,
            remedy="give a step above 0 and a last rate not below the first",
        )
    steps = (last - first) / step
    if steps >= _MOST_RATES:
        raise InputError(
            f"has more than {_MOST_RATES} rates", key=option, value=text, remedy=f"give a step above {step}/min"
        )
    return [first + row * step for row in range(math.floor(steps * (1 + 1e-12) + 1e-12) + 1)]


def number(option: str, text: str, least: float, remedy: str) -> float:
    """
    A number not below `least`, and finite.

    Raises:
        InputError: it is not; `remedy` is what to do about it.
    """
    value = float(text) if re.fullmatch(_NUMBER, text) else math.nan
    if not least <= value < math.inf:
        raise InputError(
            "is not a number" if math.isnan(value) else "is out of range", key=option, value=text, remedy=remedy
        )
    return value


def whole_number(option: str, text: str, least: int) -> int:
    """
    A whole number not below `least`.

    Raises:
        InputError: it is not.
    """
    remedy = f"give a whole number from {least}"
    value = number(option, text, least, remedy)
    if value != int(value) or value > 2**31:
        raise InputError("is not a whole number of this size", key=option, value=text, remedy=remedy)
    return int(value)


def _scaled(option: str, text: str, units: dict[str, float], examples: str, *, positive: bool) -> float:
    found = _QUANTITY.fullmatch(text.strip())
    unit = found[2].strip() if found else ""
    remedy = f"write a number and a unit, such as {examples}"
    if found is None:
        raise InputError("is not a quantity", key=option, value=text, remedy=remedy)
    if not unit:
        raise InputError("has no unit", key=option, value=text, remedy=remedy)
    if unit not in units:
        raise InputError(f"has the unit {unit}, which is not known here", key=option, value=text, remedy=remedy)
    value = float(found[1]) * units[unit]
    if not math.isfinite(value):
        raise InputError("is too large", key=option, value=text, remedy=remedy)
    if value < 0 or (positive and value == 0):
        raise InputError(
            "is not above 0" if positive else "is below 0",
            key=option,
            value=text,
            remedy="give a positive one, or leave the option out for no objective" if positive else remedy,
        )
    return value
