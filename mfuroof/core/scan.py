"""Scans of short lists of measured rows in file order, for rules that other programs define that way.

Each kernel returns the row that answers, so that callers read any column of it; -1 where none does. Ties go to the
first row in file order.
"""

from __future__ import annotations

import math

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.core._jit import jit
from mfuroof.core.gemm import ceiling_site, largest_site
from mfuroof.core.search import Int, floor_index

__all__ = [
    "bilinear_or_zero",
    "bracket_mean",
    "nearest_by_l1",
    "nearest_not_below",
    "nearest_under",
    "replace_below",
    "site_rows",
    "site_values",
    "step_rows",
]


@jit
def nearest_by_l1(a: F64, b: F64, x: F64, y: F64, row: I64) -> None:
    """Row with the smallest |a - x| + |b - y|."""
    for i in range(x.size):
        best, found = math.inf, -1
        for r in range(a.size):
            d = abs(a[r] - x[i]) + abs(b[r] - y[i])
            if d < best:
                best, found = d, r
        row[i] = found


@jit
def nearest_under(a: F64, b: F64, x: F64, y: F64, row: I64) -> None:
    """Row nearest by Euclid among those with a <= x and b <= y; among all where there is none."""
    for i in range(x.size):
        best, found, under = math.inf, -1, False
        for r in range(a.size):
            below = a[r] <= x[i] and b[r] <= y[i]
            if under and not below:
                continue
            da, db = a[r] - x[i], b[r] - y[i]
            d = math.sqrt(da * da + db * db)
            if d < best or (below and not under):
                best, found, under = d, r, below
        row[i] = found


@jit
def nearest_not_below(
    threshold: float, value: F64, a: F64, b: F64, c: F64, root: bool, x: float, y: float, z: float
) -> int:
    """Row nearest to (x, y, z) by Euclid among those whose value reaches a threshold; -1 if none does.

    ``root`` compares distances instead of their squares, which may round two of them to one.
    """
    best, found = math.inf, -1
    for r in range(value.size):
        if value[r] >= threshold:
            da, db, dc = a[r] - x, b[r] - y, c[r] - z
            d = da * da + db * db + dc * dc
            d = math.sqrt(d) if root else d
            if d < best:
                best, found = d, r
    return found


@jit
def step_rows(starts: F64, rows: I64, x: F64, row: I64) -> None:
    """Row of the last step that starts at or below x; -1 below the first."""
    for i in range(x.size):
        j = floor_index(starts, np.int64(0), starts.size, x[i])
        row[i] = rows[j] if j >= 0 else -1


@jit
def site_rows(
    site_k: F64,
    site_n: F64,
    offsets: I64,
    starts: F64,
    rows: I64,
    reach: float,
    otherwise: int,
    below: I64,
    m: F64,
    k: F64,
    n: F64,
    row: I64,
) -> None:
    """Two stages: the covering site nearest to (k, n), then the step of its m.

    A site farther than ``reach`` (squared) does not count; then ``otherwise`` is the site, or none if negative.
    ``below`` is the row of each site for an m below its steps.
    """
    for i in range(m.size):
        s = ceiling_site(site_k, site_n, k[i], n[i])
        if s >= 0:
            dk, dn = site_k[s] - k[i], site_n[s] - n[i]
            if not dk * dk + dn * dn < reach:
                s = -1
        if s < 0:
            s = otherwise
        row[i] = -1
        if s >= 0:
            j = floor_index(starts, offsets[s], offsets[s + 1], m[i])
            row[i] = rows[j] if j >= offsets[s] else below[s]


@jit
def bracket_mean(grid: F64, first: F64, last: F64, lo: int, hi: int, x: float) -> float:
    """Blend between grid points as a + (b - a) t, clamped; repeats of a point have a first and a last value.

    An exact hit reads the first of the repeats, but at or above the end the last; a blend leans on the repeats that
    face each other.
    """
    if x <= grid[lo]:
        return float(first[lo])
    if x >= grid[hi - 1]:
        return float(last[hi - 1])
    j = floor_index(grid, lo, hi, x)
    if grid[j] == x:
        return float(first[j])
    t = (x - grid[j]) / (grid[j + 1] - grid[j])
    return float(last[j] + (first[j + 1] - last[j]) * t)


@jit
def site_values(
    site_k: F64,
    site_n: F64,
    offsets: I64,
    grid: F64,
    first: F64,
    last: F64,
    m: F64,
    k: F64,
    n: F64,
    out: F64,
    site: I64,
) -> None:
    """Two stages: the covering site nearest to (k, n), else the largest, then a clamped blend along m."""
    for i in range(m.size):
        s = ceiling_site(site_k, site_n, k[i], n[i])
        if s < 0:
            s = largest_site(site_k, site_n)
        site[i] = s
        out[i] = bracket_mean(grid, first, last, offsets[s], offsets[s + 1], m[i])


@jit
def clamped_bracket(grid: F64, x: float) -> tuple[Int, Int]:
    """Find the grid points at or around x; twice the end where x is at or beyond it."""
    last = grid.size - 1
    if x <= grid[0]:
        return 0, 0
    if x >= grid[last]:
        return last, last
    j = floor_index(grid, np.int64(0), grid.size, x)
    return (j, j) if grid[j] == x else (j, j + 1)


@jit
def bilinear_or_zero(rows: F64, cols: F64, cells: F64, y: F64, x: F64, out: F64) -> None:
    """Bilinear blend, clamped, over the product of the axes; of ``cells`` (row-major) what was not measured is 0."""
    width = cols.size
    for i in range(x.size):
        r0, r1 = clamped_bracket(rows, y[i])
        c0, c1 = clamped_bracket(cols, x[i])
        top, bottom = cells[r0 * width + c0], cells[r0 * width + c1]
        if r0 != r1:
            t = (y[i] - rows[r0]) / (rows[r1] - rows[r0])
            top = top + (cells[r1 * width + c0] - top) * t
            bottom = bottom + (cells[r1 * width + c1] - bottom) * t
        if c0 != c1:
            top = top + (bottom - top) * ((x[i] - cols[c0]) / (cols[c1] - cols[c0]))
        out[i] = top


@jit
def replace_below(
    threshold: float,
    value: F64,
    a: F64,
    b: F64,
    c: F64,
    root: bool,
    x: F64,
    y: F64,
    z: F64,
    out: F64,
    replaced: I64,
) -> None:
    """Replace every out[i] below a threshold by the nearest row's value that is not; ``replaced`` names the row."""
    for i in range(x.size):
        replaced[i] = -1
        if out[i] < threshold:
            replaced[i] = nearest_not_below(threshold, value, a, b, c, root, x[i], y[i], z[i])
            if replaced[i] >= 0:
                out[i] = value[replaced[i]]
