"""
The array types of the project, and the few operations on groups of rows that every layer needs.

Sums per group go through `np.bincount`: it adds in row order, so the result equals a plain loop to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoolArray", "FloatArray", "Groups", "IntArray", "booleans", "floats", "integers", "or_zero"]

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


def or_zero(values: FloatArray) -> FloatArray:
    """
    `values` with 0 where one is not known: for sums to which an unknown number shall add nothing.

    Infinity stays, unlike with `np.nan_to_num`, which also takes four times as long for a few rows.
    """
    return np.where(np.isnan(values), 0.0, values)


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """
    A partition of N rows into G groups: who belongs where, and the rows of each group side by side.

    Attributes:
        of: (N,) group of each row.
        order: (N,) rows sorted by group, in row order inside a group.
        offsets: (G + 1,) group g owns `order[offsets[g]:offsets[g + 1]]`.
        in_order: the rows of a group stand side by side already, in the order of the groups.
    """

    of: IntArray
    order: IntArray
    offsets: IntArray
    in_order: bool

    @classmethod
    def by(cls, group_of_row: IntArray, count: int) -> Groups:
        """Groups of rows by their group number, `count` groups in all (some may be empty)."""
        of = integers(group_of_row)
        order = np.argsort(of, kind="stable")
        offsets = np.concatenate(([0], np.cumsum(np.bincount(of, minlength=count))))
        return cls(of, integers(order), integers(offsets), bool(np.all(of[1:] >= of[:-1])))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, group: int) -> IntArray:
        """Rows of one group, ascending."""
        return self.order[self.offsets[group] : self.offsets[group + 1]]

    def sizes(self) -> IntArray:
        """(G,) rows in each group."""
        return self.offsets[1:] - self.offsets[:-1]

    def sum(self, values: FloatArray) -> FloatArray:
        """(G,) sums in row order; a NaN in a group makes its sum NaN; 0 for an empty group."""
        totals: FloatArray = np.bincount(self.of, weights=values, minlength=len(self)).astype(np.float64, copy=False)
        return totals

    def count(self, mask: BoolArray) -> IntArray:
        """(G,) number of rows where `mask` holds."""
        # what holds for every row or for none is the usual case, and costs one look
        if mask.all():
            return self.sizes()
        counts = np.zeros(len(self), dtype=np.int64)
        if mask.any():
            filled, starts = self._filled()
            counts[filled] = np.add.reduceat(self._together(mask), starts, dtype=np.int64)
        return counts

    def any(self, mask: BoolArray) -> BoolArray:
        """(G,) whether `mask` holds for a row of the group; False for an empty group."""
        if mask.all():
            return self.sizes() > 0
        result = np.zeros(len(self), dtype=bool)
        if mask.any():
            filled, starts = self._filled()
            result[filled] = np.logical_or.reduceat(self._together(mask), starts)
        return result

    def all(self, mask: BoolArray) -> BoolArray:
        """(G,) whether `mask` holds for every row of the group; True for an empty group."""
        return ~self.any(~mask)

    def max(self, values: FloatArray) -> FloatArray:
        """(G,) largest known value of each group; NaN where none is known."""
        result = np.full(len(self), np.nan)
        filled, starts = self._filled()
        if filled.size:
            # the largest of a group does not depend on the order in which it is found, unlike a sum
            result[filled] = np.fmax.reduceat(self._together(values), starts)
        return result

    def _filled(self) -> tuple[IntArray, IntArray]:
        """Groups with a row, and where each of them starts."""
        filled = np.flatnonzero(self.sizes() > 0)
        return filled, self.offsets[filled]

    def _together(self, values: NDArray[Any]) -> NDArray[Any]:
        """`values` with the rows of each group side by side."""
        return values if self.in_order else values[self.order]

    def spread(self, values: FloatArray) -> FloatArray | np.float64:
        """(N,) the value of each row's group; one number, which broadcasts alike, where all groups have the same."""
        if len(values) and (values == values[0]).all():
            number: np.float64 = values[0]
            return number
        return values[self.of]
