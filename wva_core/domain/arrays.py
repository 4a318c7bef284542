"""
The array types of the project, and the few operations on groups of rows that every layer needs.

Sums per group go through `np.bincount`: it adds in row order, so the result equals a plain loop to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoolArray", "FloatArray", "Groups", "IntArray", "booleans", "floats", "integers"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


def _read_only(values: object, dtype: type) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.copy() if array is values else array
        array.flags.writeable = False
    return array


def floats(values: object) -> FloatArray:
    """
    `values` as a read-only column of float64; NaN stays not known.

    A column that is read-only already is handed on as it is; a writable one is copied, so that nobody can change it.
    """
    return _read_only(values, np.float64)


def integers(values: object) -> IntArray:
    """`values` as a read-only column of int64, as in `floats`."""
    return _read_only(values, np.int64)


def booleans(values: object) -> BoolArray:
    """`values` as a read-only column of truth values, as in `floats`."""
    return _read_only(values, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """
    A partition of N rows into G groups: who belongs where, and the rows of each group side by side.

    Attributes:
        of: (N,) group of each row.
        order: (N,) rows sorted by group, in row order inside a group.
        offsets: (G + 1,) group g owns `order[offsets[g]:offsets[g + 1]]`.
    """

    of: IntArray
    order: IntArray
    offsets: IntArray

    @classmethod
    def by(cls, group_of_row: IntArray, count: int) -> Groups:
        """Groups of rows by their group number, `count` groups in all (some may be empty)."""
        of = integers(group_of_row)
        order = np.argsort(of, kind="stable")
        offsets = np.concatenate(([0], np.cumsum(np.bincount(of, minlength=count))))
        return cls(of, integers(order), integers(offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, group: int) -> IntArray:
        """Rows of one group, ascending."""
        return self.order[self.offsets[group] : self.offsets[group + 1]]

    def sizes(self) -> IntArray:
        """(G,) rows in each group."""
        return np.diff(self.offsets)

    def sum(self, values: FloatArray) -> FloatArray:
        """(G,) sums in row order; a NaN in a group makes its sum NaN; 0 for an empty group."""
        totals: FloatArray = np.bincount(self.of, weights=values, minlength=len(self)).astype(np.float64, copy=False)
        return totals

    def count(self, mask: BoolArray) -> IntArray:
        """(G,) number of rows where `mask` holds."""
        return np.bincount(self.of[mask], minlength=len(self))

    def any(self, mask: BoolArray) -> BoolArray:
        """(G,) whether `mask` holds for a row of the group; False for an empty group."""
        result = np.zeros(len(self), dtype=bool)
        result[self.of[mask]] = True
        return result

    def all(self, mask: BoolArray) -> BoolArray:
        """(G,) whether `mask` holds for every row of the group; True for an empty group."""
        return ~self.any(~mask)

    def max(self, values: FloatArray) -> FloatArray:
        """(G,) largest known value of each group; NaN where none is known."""
        result = np.full(len(self), -np.inf)
        known = ~np.isnan(values)
        np.maximum.at(result, self.of[known], values[known])
        return np.where(self.any(known), result, np.nan)
