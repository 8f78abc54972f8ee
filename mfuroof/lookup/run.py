"""From a table and coordinates to the kernel that reads it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64, U8, ArrayLike, freeze
from mfuroof.core import gemm, grid, lookup
from mfuroof.tables.compiled import GemmSites, Table1D, Table2D

__all__ = ["Details", "Table", "arrays_of", "axes_of", "coordinates", "run_details", "run_values"]

Table: TypeAlias = Table1D | Table2D | GemmSites

VALUES: dict[type, Any] = {
    Table1D: lookup.curve_lookup,
    Table2D: grid.grid_lookup,
    GemmSites: gemm.sites_lookup,
}
DETAILS: dict[type, Any] = {
    Table1D: lookup.curve_details,
    Table2D: grid.grid_details,
    GemmSites: gemm.sites_details,
}

CHUNK = 1 << 16
"""Fewest queries worth a thread of their own."""


class Details(NamedTuple):
    """Values with where each comes from; all of the broadcast shape of the queries."""

    values: Any
    source: Any
    """`Source` codes, uint8."""
    distance: Any
    """Distance to the measured point leaned on, the largest of the axes; NaN where there is none. [octaves]"""


def axes_of(table: Table) -> tuple[str, ...]:
    """Return the names of the coordinates, in the order in which they are given."""
    if isinstance(table, Table1D):
        return (table.axis,)
    return table.axes if isinstance(table, Table2D) else ("m", "k", "n")


def arrays_of(table: Table) -> tuple[Any, ...]:
    """Return the arrays that the kernels of this kind of table take first."""
    if isinstance(table, Table1D):
        return table.grid, table.values
    if isinstance(table, Table2D):
        return table.rows, table.offsets, table.cols, table.values
    return table.k, table.n, table.offsets, table.m, table.values


def coordinates(table: Table, at: tuple[ArrayLike, ...]) -> tuple[list[F64], tuple[int, ...]]:
    """Return the coordinates as flat frozen arrays, and the shape they broadcast to."""
    names = axes_of(table)
    problems = Problems()
    if len(at) != len(names):
        problems.add("coordinates", f"{len(at)}", f"{len(names)}: {', '.join(names)}")
        problems.raise_if_any()
    arrays = [_numbers(name, given, problems) for name, given in zip(names, at, strict=True)]
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        problems.add("coordinates", " and ".join(str(a.shape) for a in arrays), "shapes that broadcast")
    problems.raise_if_any()
    return [freeze(np.broadcast_to(a, shape).ravel()) for a in arrays], shape


def _numbers(name: str, given: ArrayLike, problems: Problems) -> Any:
    try:
        array = np.asarray(given)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.asarray("")
    if array.dtype.kind not in "iufb":
        problems.add(name, f"{type(given).__name__} that is no numeric array", "numbers")
        return np.zeros(0)
    return array


def run_values(
    table: Table, rule: int, policies: list[int], at: list[F64], threads: int = 1, out: F64 | None = None
) -> tuple[F64, U8, F64]:
    """Read values only; the other two arrays are empty."""
    out = np.empty(at[0].size) if out is None else out
    index = table.buckets if isinstance(table, Table1D) else None
    if isinstance(table, Table2D) and rule == lookup.LINEAR and table.buckets is not None:
        clamped = [policy == lookup.CLAMP for policy in policies]
        axes = [entry for b in table.buckets for entry in (b.counts, b.grid, b.shift, b.base, b.depth)]
        _share(grid.plane_linear, (*axes, table.values, *clamped), [*at, out], threads)
    elif index is None:
        _share(VALUES[type(table)], (*arrays_of(table), rule, *policies), [*at, out], threads)
    elif rule == lookup.FLOOR:
        below = index.values[1] if policies[0] == lookup.CLAMP else np.nan
        limit = index.grid[-2] if policies[0] == lookup.BLANK else np.inf
        _share(lookup.curve_floor, (*index, float(below), float(limit)), [*at, out], threads)
    elif rule == lookup.LINEAR and len(table) > 1:
        clamps = policies[0] == lookup.CLAMP
        edges = (float(table.values[0]), float(table.values[-1])) if clamps else (np.nan, np.nan)
        _share(lookup.curve_linear, (index.counts, index.grid, table.values, *index[3:], *edges), [*at, out], threads)
    else:
        head = (index.counts, index.grid, table.values, *index[3:], rule, *policies)
        _share(lookup.curve_bucketed, head, [*at, out], threads)
    return out, np.empty(0, np.uint8), np.empty(0)


def run_details(
    table: Table, rule: int, policies: list[int], at: list[F64], threads: int = 1, out: F64 | None = None
) -> tuple[F64, U8, F64]:
    """Read values with their source codes and distances."""
    size = at[0].size
    out = np.empty(size) if out is None else out
    source, distance = np.empty(size, np.uint8), np.empty(size)
    _share(DETAILS[type(table)], (*arrays_of(table), rule, *policies), [*at, out, source, distance], threads)
    return out, source, distance


def _share(kernel: Callable[..., Any], head: tuple[Any, ...], arrays: list[Any], threads: int) -> None:
    """Run a kernel over flat arrays, in ``threads`` pieces where they are long enough."""
    problems = Problems()
    threads = problems.positive_int("threads", threads)
    problems.raise_if_any()
    size = arrays[0].size
    pieces = min(threads, size // CHUNK)
    if pieces <= 1:
        kernel(*head, *arrays)
        return
    cuts = np.linspace(0, size, pieces + 1, dtype=np.int64)
    spans = [slice(a, b) for a, b in pairwise(cuts)]
    with ThreadPoolExecutor(pieces) as pool:
        list(pool.map(lambda span: kernel(*head, *(array[span] for array in arrays)), spans))
