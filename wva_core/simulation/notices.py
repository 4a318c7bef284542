"""
What a reader of a report must know beside the numbers, each said once with when and how often.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Notices"]


@dataclass(slots=True)
class _Noted:
    text: str
    first_s: float | None
    times: int = 1


class Notices:
    """Sentences in the order in which they first came up."""

    __slots__ = ("_noted",)

    def __init__(self) -> None:
        self._noted: dict[str, _Noted] = {}

    def add(self, text: str, time_s: float | None = None, *, key: str = "") -> None:
        """
        Notes something; what has the same key (the text if none is given) is counted, and keeps its first words.

        Args:
            text: a sentence without a full stop.
            time_s: when it was so, s; left out for what holds throughout.
            key: what makes two texts the same thing.
        """
        noted = self._noted.get(key or text)
        if noted is None:
            self._noted[key or text] = _Noted(text, time_s)
        else:
            noted.times += 1

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each notice with its first time, and how often it came up if more than once."""
        return tuple(_sentence(noted) for noted in self._noted.values())


def _sentence(noted: _Noted) -> str:
    if noted.first_s is None:
        return noted.text
    if noted.times == 1:
        return f"{noted.text} (at {noted.first_s:.0f} s)"
    return f"{noted.text} (first at {noted.first_s:.0f} s, {noted.times} times)"
