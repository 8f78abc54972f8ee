"""Rows to compiled tables and back.

The rule for repeated keys, everywhere: the median of the repeats, and `merged` says how many rows that removed.
A median of an even count is the mean of the middle two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64, I64, ArrayLike
from mfuroof.tables.compiled import GemmSites, Table1D, Table2D

__all__ = ["compile_1d", "compile_2d", "compile_matrix", "compile_sites", "decompile"]


def compile_1d(axis: str, x: ArrayLike, values: ArrayLike) -> Table1D:
    """Compile measured points in any order into a curve.

    Parameters
    ----------
    axis
        Name of the coordinate.
    x, values
        Measured points (n,), n >= 1, finite; repeats are merged into their median.

    Raises
    ------
    InputError
        Not numeric, not finite, empty, or of different lengths.
    """
    keys, merged_values, merged = _merge({axis: x}, values)
    return Table1D(axis, keys[0], merged_values, merged)


def compile_2d(axes: tuple[str, str], y: ArrayLike, x: ArrayLike, values: ArrayLike) -> Table2D:
    """Compile measured points in any order into a ragged grid: only measured points are stored.

    Parameters
    ----------
    axes
        Names of the row and the column coordinate.
    y, x, values
        Row coordinate, column coordinate and value of each point (p,), p >= 1, finite.

    Raises
    ------
    InputError
        As `compile_1d`.
    """
    keys, merged_values, merged = _merge({axes[0]: y, axes[1]: x}, values)
    starts = _starts(keys[:1])
    return Table2D(axes, keys[0][starts[:-1]], starts, keys[1], merged_values, merged)


def compile_matrix(axes: tuple[str, str], rows: ArrayLike, cols: ArrayLike, matrix: ArrayLike) -> Table2D:
    """Compile a matrix (r, c) whose NaN entries were not measured; a zero is a measured zero.

    Raises
    ------
    InputError
        The matrix is not (len(rows), len(cols)), or nothing in it was measured.
    """
    problems = Problems()
    y, x = np.asarray(rows, dtype=np.float64), np.asarray(cols, dtype=np.float64)
    cells = np.asarray(matrix, dtype=np.float64)
    if cells.shape != (y.size, x.size):
        problems.add("matrix", f"shape {cells.shape}", f"({y.size}, {x.size}), rows x columns")
        problems.raise_if_any()
    there = ~np.isnan(cells)
    at_y, at_x = np.broadcast_arrays(y[:, None], x[None, :])
    return compile_2d(axes, at_y[there], at_x[there], cells[there])


def compile_sites(m: ArrayLike, k: ArrayLike, n: ArrayLike, values: ArrayLike) -> GemmSites:
    """Compile measured GEMMs in any order into curves over m at each weight shape (k, n).

    Parameters
    ----------
    m, k, n, values
        Tokens, in features, out features and value of each row (p,), p >= 1, finite.

    Raises
    ------
    InputError
        As `compile_1d`.
    """
    keys, merged_values, merged = _merge({"k": k, "n": n, "m": m}, values)
    starts = _starts(keys[:2])
    first = starts[:-1]
    return GemmSites(keys[0][first], keys[1][first], starts, keys[2], merged_values, merged)


def decompile(table: Table1D | Table2D | GemmSites) -> dict[str, F64]:
    """Return the measured rows of a table as columns, sorted by key: coordinates by name, then ``values``."""
    if isinstance(table, Table1D):
        return {table.axis: table.grid, "values": table.values}
    width = np.diff(table.offsets)
    if isinstance(table, Table2D):
        return {table.axes[0]: np.repeat(table.rows, width), table.axes[1]: table.cols, "values": table.values}
    sites = {"k": np.repeat(table.k, width), "n": np.repeat(table.n, width)}
    return {**sites, "m": table.m, "values": table.values}


def _merge(keys: dict[str, ArrayLike], values: ArrayLike) -> tuple[list[F64], F64, int]:
    """Sort rows by key and value and replace each run of equal keys by its median."""
    columns = _columns({**keys, "values": values})
    order = np.lexsort(columns[::-1])
    sorted_columns = [column[order] for column in columns]
    starts = _starts(sorted_columns[:-1])
    first, count = starts[:-1], np.diff(starts)
    low = sorted_columns[-1][first + (count - 1) // 2]
    high = sorted_columns[-1][first + count // 2]
    median = np.where(low == high, low, 0.5 * low + 0.5 * high)
    return [column[first] for column in sorted_columns[:-1]], median, int(order.size - first.size)


def _columns(given: dict[str, ArrayLike]) -> list[F64]:
    problems = Problems()
    columns: list[F64] = []
    for name, column in given.items():
        try:
            columns.append(np.asarray(column, dtype=np.float64) + 0.0)
        except (TypeError, ValueError, OverflowError):
            problems.add(name, f"{type(column).__name__} that is no numeric array", "numbers")
            continue
        if columns[-1].ndim != 1 or not columns[-1].size:
            problems.add(name, f"shape {columns[-1].shape}", "one dimension and at least one row")
        elif not np.isfinite(columns[-1]).all():
            at = int(np.flatnonzero(~np.isfinite(columns[-1]))[0])
            problems.add(f"{name}[{at}]", float(columns[-1][at]), "a finite number")
    if not problems and len({column.size for column in columns}) > 1:
        lengths = ", ".join(f"{c.size} {n}" for n, c in zip(given, columns, strict=True))
        problems.add("rows", lengths, "equal lengths")
    problems.raise_if_any()
    return columns


def _starts(keys: list[Any]) -> I64:
    """Where each run of equal sorted keys begins, and the end."""
    changed = np.zeros(keys[0].size - 1, dtype=bool)
    for key in keys:
        changed |= key[1:] != key[:-1]
    return np.concatenate([[0], np.flatnonzero(changed) + 1, [keys[0].size]]).astype(np.int64)
