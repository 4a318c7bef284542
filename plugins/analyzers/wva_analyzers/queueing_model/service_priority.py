"""
Who is served first where not all can be: the priorities of the service classes, by scope.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wva_analyzers.queueing_model.parameters import ServiceClass
from wva_core.domain import FloatArray, Scope, Settings

__all__ = ["priorities"]


def priorities(scopes: Sequence[Scope], settings: Settings) -> FloatArray:
    """
    (S,) priority of the class that a scope is of, 1 before 2; NaN where policy has no such class.

    A scope without a class has the priority of the first one that promises something for its model: upstream looks
    classes up by model.
    """
    result = np.full(len(scopes), np.nan)
    known: dict[int, tuple[dict[str, int], dict[str, int]]] = {}
    for row, (scope, classes) in enumerate(zip(scopes, settings["service_classes"].tolist(), strict=True)):
        if not classes:
            continue
        if id(classes) not in known:
            known[id(classes)] = _by_name_and_model(classes)
        by_name, by_model = known[id(classes)]
        found = by_name.get(scope.service_class) if scope.service_class else by_model.get(scope.model)
        result[row] = np.nan if found is None else found
    return result


def _by_name_and_model(classes: Sequence[ServiceClass]) -> tuple[dict[str, int], dict[str, int]]:
    by_model: dict[str, int] = {}
    for one in classes:
        for promise in one.data:
            by_model.setdefault(promise.model, one.priority)
    return {one.name: one.priority for one in classes}, by_model
