"""
What the operator asked of one analyzer, as columns per scope.

Resolved when policy or fleet changes, never once per cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wva_core.domain.arrays import FloatArray
from wva_core.errors import ParameterError

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """
    Parameters of one analyzer, (S,) each, by the field names of its `Parameters`.

    Numbers are float64 columns (NaN where a parameter is None), everything else object columns.

    Attributes:
        parameters: the columns.
        scale_up: (S,) share of the capacity that demand may use before replicas are added; not positive = not judged.
        scale_down: (S,) share of the capacity below which replicas may go; not positive = not judged.
        score: (S,) weight of this analyzer where weights matter.
    """

    parameters: Mapping[str, np.ndarray[Any, Any]]
    scale_up: FloatArray
    scale_down: FloatArray
    score: FloatArray

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        try:
            return self.parameters[name]
        except KeyError:
            raise ParameterError(
                "is not a parameter of this plugin",
                object="settings",
                key=name,
                remedy=f"use one of {', '.join(self.parameters) or '(none)'}",
            ) from None
