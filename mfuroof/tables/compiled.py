"""Compiled tables: sorted, contiguous, read-only arrays that kernels read without a question.

Everything is checked once, in the constructor, which copies what it is given. Rows with equal keys are a question of
meaning, not of storage: `mfuroof.tables.compile` merges them before it builds a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64, I16, I64, ArrayLike, freeze

__all__ = ["Buckets", "GemmSites", "Table1D", "Table2D"]

LIMIT = 1e150
"""Largest magnitude of a coordinate or a value: differences and their squares stay finite."""

MAX_BUCKETS = 32768
"""64 KiB of int16: an index that leaves the first-level cache and has one point a bucket still reads 990 M/s where a
smaller one with two has 690."""

MAX_DEPTH = 8


class Buckets(NamedTuple):
    """Direct-address index over a curve; see `mfuroof.core.search.count_bucketed`."""

    counts: I16
    grid: F64
    values: F64
    shift: int
    base: int
    depth: int


@dataclass(frozen=True, eq=False)
class Table1D:
    """A measured curve.

    Attributes
    ----------
    axis
        Name of the coordinate, for people.
    grid
        Coordinates (n,), n >= 1; sorted on construction, no two equal. [unit of the axis]
    values
        Measured values (n,), finite. [unit of the measurement]
    merged
        Rows that repeated a coordinate and were merged into their median before this table was built.

    Raises
    ------
    InputError
        Not numeric, not one-dimensional, empty, of different lengths, not finite, or a repeated coordinate.
    """

    axis: str
    grid: F64
    values: F64
    merged: int = 0

    def __post_init__(self) -> None:
        problems = Problems()
        grid = _column(f"{self.axis} grid", self.grid, problems)
        values = _column(f"{self.axis} values", self.values, problems)
        _same_length(f"{self.axis} table", {"grid": grid, "values": values}, problems)
        problems.raise_if_any()
        order = np.argsort(grid, kind="stable")
        grid, values = grid[order], values[order]
        _no_repeats(f"{self.axis} grid", grid[1:] == grid[:-1], grid, problems)
        problems.raise_if_any()
        _set(self, grid=grid, values=values)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.axis, self.grid, self.values, self.merged)

    def __len__(self) -> int:
        return int(self.grid.size)

    @cached_property
    def buckets(self) -> Buckets | None:
        """Direct-address index, or None where the grid is negative somewhere or too dense for a small one."""
        return _buckets(self.grid, self.values)


@dataclass(frozen=True, eq=False)
class Table2D:
    """A measured grid whose rows may have different columns (compressed rows); what is not there is a gap.

    Attributes
    ----------
    axes
        Names of the row and the column coordinate.
    rows
        Row coordinates (r,), r >= 1, strictly ascending.
    offsets
        Where each row begins in ``cols`` and ``values`` (r + 1,); every row has a point.
    cols
        Column coordinates (p,), strictly ascending within a row.
    values
        Measured values (p,), finite.
    merged
        Rows that repeated a point and were merged into their median.

    Raises
    ------
    InputError
        Not numeric, empty, lengths or offsets that do not fit, not finite, or not strictly ascending.
    """

    axes: tuple[str, str]
    rows: F64
    offsets: I64
    cols: F64
    values: F64
    merged: int = 0

    def __post_init__(self) -> None:
        problems = Problems()
        name = " x ".join(self.axes)
        rows = _column(f"{name} rows", self.rows, problems)
        cols = _column(f"{name} cols", self.cols, problems)
        values = _column(f"{name} values", self.values, problems)
        _same_length(f"{name} table", {"cols": cols, "values": values}, problems)
        problems.raise_if_any()
        offsets = _offsets(f"{name} offsets", self.offsets, rows.size, cols.size, problems)
        problems.raise_if_any()
        _ascending(f"{name} rows", rows[1:] <= rows[:-1], rows, problems)
        _ascending(f"{name} cols", _falls_within(cols, offsets), cols, problems)
        problems.raise_if_any()
        _set(self, axes=tuple(self.axes), rows=rows, offsets=offsets, cols=cols, values=values)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.axes, self.rows, self.offsets, self.cols, self.values, self.merged)

    def __len__(self) -> int:
        return int(self.cols.size)

    @cached_property
    def buckets(self) -> tuple[Buckets, Buckets] | None:
        """Direct-address indices over rows and columns; None where rows differ in their columns, or as for a curve."""
        width = self.cols.size // self.rows.size
        if width * self.rows.size != self.cols.size or min(width, self.rows.size) < 2:
            return None
        if (np.diff(self.offsets) != width).any() or (self.cols.reshape(-1, width) != self.cols[:width]).any():
            return None
        rows, cols = _buckets(self.rows, self.rows), _buckets(self.cols[:width], self.cols[:width])
        return None if rows is None or cols is None else (rows, cols)


@dataclass(frozen=True, eq=False)
class GemmSites:
    """Measured GEMM curves over m at scattered weight shapes (k, n).

    Attributes
    ----------
    k, n
        In and out features of each site (s,), s >= 1, ascending by k, then n. [features]
    offsets
        Where each site's curve begins in ``m`` and ``values`` (s + 1,).
    m
        Tokens (p,), strictly ascending within a site. [tokens]
    values
        Measured values (p,), finite.
    merged
        Rows that repeated an (m, k, n) and were merged into their median.

    Raises
    ------
    InputError
        As `Table2D`.
    """

    k: F64
    n: F64
    offsets: I64
    m: F64
    values: F64
    merged: int = 0

    def __post_init__(self) -> None:
        problems = Problems()
        k, n = _column("gemm k", self.k, problems), _column("gemm n", self.n, problems)
        m, values = _column("gemm m", self.m, problems), _column("gemm values", self.values, problems)
        _same_length("gemm sites", {"k": k, "n": n}, problems)
        _same_length("gemm curves", {"m": m, "values": values}, problems)
        problems.raise_if_any()
        offsets = _offsets("gemm offsets", self.offsets, k.size, m.size, problems)
        problems.raise_if_any()
        falls = (k[1:] < k[:-1]) | ((k[1:] == k[:-1]) & (n[1:] <= n[:-1]))
        _ascending("gemm sites by (k, n)", falls, k, problems)
        _ascending("gemm m", _falls_within(m, offsets), m, problems)
        problems.raise_if_any()
        _set(self, k=k, n=n, offsets=offsets, m=m, values=values)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.k, self.n, self.offsets, self.m, self.values, self.merged)

    def __len__(self) -> int:
        return int(self.m.size)


def _set(table: object, **fields: Any) -> None:
    for name, value in fields.items():
        dtype = np.int64 if name == "offsets" else np.float64
        object.__setattr__(table, name, freeze(value, dtype) if isinstance(value, np.ndarray) else value)


def _column(where: str, given: ArrayLike, problems: Problems) -> F64:
    try:
        column = np.array(given, dtype=np.float64) + 0.0  # a copy of our own; -0.0 becomes 0.0
    except (TypeError, ValueError, OverflowError):
        problems.add(where, f"{type(given).__name__} that is no numeric array", "numbers")
        return np.zeros(0)
    if column.ndim != 1 or column.size == 0:
        problems.add(where, f"shape {column.shape}", "one dimension and at least one point")
        return np.zeros(0)
    bad = np.flatnonzero(~(np.abs(column) <= LIMIT))
    if bad.size:
        problems.add(f"{where}[{bad[0]}]", float(column[bad[0]]), f"finite numbers, at most {LIMIT:g} in magnitude")
    return column


def _same_length(where: str, columns: dict[str, F64], problems: Problems) -> None:
    sizes = {name: column.size for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        problems.add(where, ", ".join(f"{s} {n}" for n, s in sizes.items()), "equal lengths")


def _offsets(where: str, given: ArrayLike, parts: int, points: int, problems: Problems) -> I64:
    offsets = np.array(given)
    fits = offsets.ndim == 1 and offsets.dtype.kind in "iu" and offsets.size == parts + 1
    if fits:
        offsets = offsets.astype(np.int64)
        fits = offsets[0] == 0 and offsets[-1] == points and bool((np.diff(offsets) > 0).all())
    if not fits:
        problems.add(where, str(np.array(given).tolist())[:80], f"{parts + 1} ascending integers from 0 to {points}")
    return offsets


def _falls_within(points: F64, offsets: I64) -> np.ndarray[Any, np.dtype[np.bool_]]:
    falls = np.asarray(points[1:] <= points[:-1])
    falls[offsets[1:-1] - 1] = False  # a new part may begin lower
    return falls


def _ascending(where: str, falls: Any, points: F64, problems: Problems) -> None:
    if falls.any():
        at = int(np.flatnonzero(falls)[0])
        problems.add(f"{where}[{at + 1}]", f"{points[at + 1]:g} after {points[at]:g}", "strictly ascending points")


def _no_repeats(where: str, same: Any, points: F64, problems: Problems) -> None:
    if same.any():
        at = int(np.flatnonzero(same)[0])
        problems.add(where, f"{points[at]:g} twice", "distinct points", "Merge repeated measurements first.")


def _buckets(grid: F64, values: F64) -> Buckets | None:
    if grid[0] < 0.0 or grid.size > np.iinfo(np.int16).max:
        return None
    bits = grid.view(np.uint64)
    for depth in range(1, MAX_DEPTH + 1):
        shift = _coarsest_shift(bits, depth)
        keys = bits >> np.uint64(shift)
        size = int(keys[-1] - keys[0]) + 2
        if size <= MAX_BUCKETS:
            counts = np.searchsorted(keys - keys[0], np.arange(size, dtype=np.uint64), side="left")
            padded = np.append(grid, np.nan)
            below = np.concatenate([[np.nan], values])
            return Buckets(freeze(counts, np.int16), freeze(padded), freeze(below), shift, int(keys[0]), depth)
    return None


def _coarsest_shift(bits: Any, depth: int) -> int:
    """Shift that leaves the fewest buckets with at most ``depth`` points in any of them."""
    for shift in range(52, 0, -1):
        keys = bits >> np.uint64(shift)
        if keys.size <= depth or (keys[depth:] > keys[:-depth]).all():
            return shift
    return 0
