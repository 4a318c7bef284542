"""
Key paths such as `analyzers[0].parameters.kvCacheThreshold`, and plain data addressed and merged by them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["ancestors", "is_below", "join_key", "leaves", "merge_keys", "nodes", "says"]


def join_key(path: str, key: Any) -> str:
    """The path of a key inside the mapping at `path`; a key that is not a plain word is quoted."""
    if not re.fullmatch(r"[\w-]+", str(key)):
        return f"{path}[{json.dumps(str(key), ensure_ascii=False)}]"
    return f"{path}.{key}" if path else str(key)


def nodes(data: Any, path: str = "") -> Iterator[tuple[str, Any, bool]]:
    """
    Every value in `data` with its path, and whether it is a leaf, containers before what is in them.

    A leaf is what is neither a mapping with keys nor a list with a mapping in it.
    """
    children: list[tuple[str, Any]] = []
    if isinstance(data, Mapping):
        children = [(join_key(path, key), value) for key, value in data.items()]
    elif isinstance(data, list | tuple) and any(isinstance(item, Mapping) for item in data):
        children = [(f"{path}[{row}]", item) for row, item in enumerate(data)]
    if path:
        yield path, data, not children
    for below, value in children:
        yield from nodes(value, below)


def leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of `data` with their paths, without mappings that have no keys."""
    for below, value, is_leaf in nodes(data, path):
        if is_leaf and not (isinstance(value, Mapping) and not value):
            yield below, value


def ancestors(path: str) -> Iterator[str]:
    """The path itself, then what it stands in, outwards."""
    while path:
        yield path
        path = re.sub(r'(\.[\w-]+|\[\d+\]|\["(?:[^"\\]|\\.)*"\]|^[\w-]+)$', "", path)


def is_below(path: str, above: str) -> bool:
    """Whether `path` is `above` or stands inside it."""
    return path == above or path.startswith((f"{above}.", f"{above}["))


def merge_keys(below: Any, above: Any) -> Any:
    """`above` over `below`: mappings key by key at every depth, everything else as a whole."""
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {**below, **{key: merge_keys(below.get(key), value) for key, value in above.items()}}
    return above


def says(said: Mapping[str, tuple[Any, bool]], path: str) -> str | None:
    """
    Where a source says what is at `path`: there, or as part of a leaf above it; None if it leaves it to others.

    An empty text means that it replaces a list around the path without saying what is there: the default applies.

    Args:
        said: the nodes of the source, path to value and whether that is a leaf.
        path: of a leaf.
    """
    for above in ancestors(path):
        if above in said:
            value, is_leaf = said[above]
            if isinstance(value, Mapping):
                return None
            return above if above == path or is_leaf else ""
    return None
