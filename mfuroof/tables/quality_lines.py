"""Lines of a kernel table: the rows that differ in one count alone, and what the neighbours of a row imply for it.

Physics behind the implications: a kernel with more to do is not faster, and time per unit of work does not grow
(a launch is shared by more work; utilisation rises until it saturates). Between a smaller shape ``(x1, t1)`` and a
larger one ``(x2, t2)`` of the same line a time at ``x`` therefore lies in

    [max(t1, t2 (x / x2)^p), min(t2, t1 (x / x1)^p)]

with p = 1, or 2 along the length of a prompt whose attention area is a square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfuroof._types import F64, I64
from mfuroof.tables.schema import LATENCY, family, key_codes

__all__ = ["AXES", "Bounds", "Lines", "axes_of", "bounds", "lines", "power"]

AXES = ("m", "n", "k", "tokens", "batch_size", "new_tokens", "kv_len", "elements")
"""Key columns along which a kernel has more to do."""
_SQUARES = ("attn_prefill", "mla_prefill", "mla_module_prefill", "dsa_module_prefill")


def axes_of(name: str) -> tuple[str, ...]:
    """Return the axes of a family, in the order of its keys."""
    return tuple(key for key in family(name).keys if key in AXES)


def power(name: str, axis: str) -> float:
    """Return the largest power of ``axis`` that the work of a family grows with."""
    return 2.0 if axis == "new_tokens" and name in _SQUARES else 1.0


@dataclass(frozen=True, eq=False)
class Lines:
    """All lines of a table along one axis, laid end to end.

    Attributes
    ----------
    axis
        The count that varies.
    row
        Row of the table of each position (n,).
    x
        The count there, ascending within a line (n,).
    time_s
        The latency there (n,). [s]
    start
        Whether a line begins at a position (n,).
    """

    axis: str
    row: I64
    x: F64
    time_s: F64
    start: NDArray[np.bool_]

    @property
    def pairs(self) -> I64:
        """Positions whose next one is in the same line."""
        return np.flatnonzero(~self.start[1:])

    @property
    def inner(self) -> I64:
        """Positions with a neighbour on both sides."""
        return np.flatnonzero(~self.start[1:-1] & ~self.start[2:]) + 1

    @property
    def line(self) -> I64:
        """Number of the line of each position (n,)."""
        return np.cumsum(self.start) - 1


def lines(table: pa.Table, name: str, axis: str) -> Lines:
    """Return the lines of a validated table along one key column; lines of a single row are among them."""
    others = group_ids(table, [key for key in family(name).keys if key != axis])
    x = key_codes(table, axis)
    order = np.lexsort((x, others))
    start = np.ones(order.size, dtype=bool)
    start[1:] = np.diff(others[order]) != 0
    return Lines(axis, order, x[order].astype(np.float64), table.column(LATENCY).to_numpy()[order], start)


def group_ids(table: pa.Table, keys: list[str]) -> I64:
    """Return a number for each row (n,), the same where all ``keys`` are."""
    ids = np.zeros(table.num_rows, np.int64)
    largest = 1
    for key in keys:
        distinct, code = np.unique(key_codes(table, key), return_inverse=True)
        if largest > 2**62 // max(distinct.size, 1):  # renumbering costs a sort, overflow an error
            _, ids = np.unique(ids, return_inverse=True)
            largest = table.num_rows
        ids = ids * distinct.size + code.reshape(-1)
        largest *= max(distinct.size, 1)
    return ids


@dataclass(frozen=True, eq=False)
class Bounds:
    """What the neighbours of each row imply along one axis; NaN where there is none or where they contradict.

    Attributes
    ----------
    low_s, high_s
        Range of the time of each row (rows,). [s]
    two_sided
        Whether there is a neighbour on both sides (rows,).
    """

    low_s: F64
    high_s: F64
    two_sided: NDArray[np.bool_]


CONTRADICTION = 1.02
"""Neighbours whose range is empty by more than this accuse one another, and say nothing about what lies between."""


def bounds(of: Lines, exponent: float) -> Bounds:
    """Return what each row's neighbours on a line imply for its time (see the module)."""
    n = of.row.size
    low, high = np.full(n, -np.inf), np.full(n, np.inf)
    left = of.pairs
    right = left + 1
    grown = (of.x[right] / of.x[left]) ** exponent
    low[right] = of.time_s[left]
    high[right] = of.time_s[left] * grown
    low[left] = np.maximum(low[left], of.time_s[right] / grown)
    high[left] = np.minimum(high[left], of.time_s[right])
    two_sided = np.zeros(n, dtype=bool)
    two_sided[of.inner] = True
    known = np.isfinite(low) & np.isfinite(high) & (low <= CONTRADICTION * high)
    out: dict[str, Any] = {}
    for key, values in (("low_s", np.where(known, low, np.nan)), ("high_s", np.where(known, high, np.nan))):
        out[key] = np.empty(n)
        out[key][of.row] = values
    sides = np.empty(n, dtype=bool)
    sides[of.row] = two_sided
    return Bounds(out["low_s"], out["high_s"], sides)
