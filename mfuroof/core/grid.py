"""Lookups on ragged grids: rows of a first coordinate, each a curve over its own columns.

Row r owns ``cols[offsets[r]:offsets[r + 1]]``. What is not measured is a gap: between two rows a blend answers only
where both have data, and a gap is never a zero.
"""

from __future__ import annotations

import math

import numpy as np

from mfuroof._types import F64, I16, I64, U8
from mfuroof.core._jit import inlined, jit, read
from mfuroof.core.lookup import (
    BLANK,
    CEILING,
    CLAMP,
    FAR,
    FLOOR,
    LINEAR,
    LOGLOG,
    NEAREST_L1,
    NEAREST_L2,
    OWN,
    blend,
    bucketed_cell,
    curve_read,
    fraction,
    mix,
)
from mfuroof.core.search import Int, floor_index, octaves
from mfuroof.core.sources import CLAMPED, EXACT, INTERPOLATED, MISSING

__all__ = [
    "grid_clamp",
    "grid_details",
    "grid_lookup",
    "grid_nearest",
    "grid_read",
    "grid_row",
    "metric",
    "plane_linear",
]


@inlined
def grid_row(rows: F64, rule: int, policy: Int, y: float) -> tuple[Int, float, int]:
    """Row that answers for y under floor, ceiling or a blend (its lower row), the y used, and the source code."""
    last = rows.size - 1
    if math.isnan(y):
        return -1, math.nan, MISSING
    if y < rows[0] or y > rows[last]:
        below = y < rows[0]
        edge = 0 if below else last
        own = (rule == FLOOR and not below) or (rule == CEILING and below)
        if policy == CLAMP or (policy == OWN and own):
            return edge, rows[edge], CLAMPED
        return -1, math.nan, MISSING
    r = floor_index(rows, np.int64(0), rows.size, y)
    if rows[r] == y:
        return r, y, EXACT
    if rule == CEILING:
        return r + 1, y, INTERPOLATED
    return r, y, INTERPOLATED


@inlined
def metric(rule: int, dy: float, dx: float) -> float:
    """L1 distance, or the square of the L2 distance."""
    dy, dx = min(abs(dy), FAR), min(abs(dx), FAR)
    return dy + dx if rule == NEAREST_L1 else dy * dy + dx * dx


@jit
def grid_nearest(
    rows: F64, offsets: I64, cols: F64, rule: int, y: float, x: float
) -> tuple[Int, Int]:
    """Row and position of the nearest point; ties: lower row, then nearer column, then lower column."""
    best = math.inf
    best_row: Int = -1
    best_at: Int = -1
    if math.isinf(y):
        y = rows[0] if y < 0.0 else rows[rows.size - 1]
    if math.isinf(x):
        x = float(np.min(cols) if x < 0.0 else np.max(cols))
    for r in range(rows.size):
        lo, hi = offsets[r], offsets[r + 1]
        j = floor_index(cols, lo, hi, x)
        if j < lo or (j + 1 < hi and x - cols[j] > cols[j + 1] - x):
            j += 1
        d = metric(rule, y - rows[r], x - cols[j])
        if d < best:
            best, best_row, best_at = d, r, j
    return best_row, best_at


@jit
def grid_read(
    rows: F64,
    offsets: I64,
    cols: F64,
    values: F64,
    rule: int,
    policy_y: int,
    policy_x: int,
    y: float,
    x: float,
) -> tuple[float, int, float, float]:
    """Read a ragged grid at (y, x): value, source code, and row and column of the nearest point that was used."""
    missing = math.nan, MISSING, math.nan, math.nan
    if math.isnan(y) or math.isnan(x):
        return missing
    if rule == NEAREST_L1 or rule == NEAREST_L2:
        r, j = grid_nearest(rows, offsets, cols, rule, y, x)
        out_y = y < rows[0] or y > rows[rows.size - 1]
        out_x = x < cols[offsets[r]] or x > cols[offsets[r + 1] - 1]
        if (out_y and policy_y == BLANK) or (out_x and policy_x == BLANK):
            return missing
        code = EXACT if rows[r] == y and cols[j] == x else INTERPOLATED
        return values[j], CLAMPED if out_y or out_x else code, rows[r], cols[j]
    r, y, code = grid_row(rows, rule, policy_y, y)
    if r < 0:
        return missing
    lo, hi = offsets[r], offsets[r + 1]
    if rule == FLOOR or rule == CEILING or rows[r] == y:
        v, col_code, point = curve_read(cols, values, lo, hi, rule, policy_x, x)
        return v, max(code, col_code), rows[r], point
    # Between two rows only their common columns answer; beyond them is a gap, which the policy for x decides.
    lo1, hi1 = offsets[r + 1], offsets[r + 2]
    left, right = max(cols[lo], cols[lo1]), min(cols[hi - 1], cols[hi1 - 1])
    if x < left or x > right:
        if policy_x != CLAMP:
            return missing
        code = CLAMPED
        if left <= right:
            x = min(max(x, left), right)
    v0, _, p0 = curve_read(cols, values, lo, hi, rule, np.int64(CLAMP), x)
    v1, _, p1 = curve_read(cols, values, lo1, hi1, rule, np.int64(CLAMP), x)
    t = fraction(rule, rows[r], rows[r + 1], y)
    v = mix(rule, v0, v1, t)
    if y - rows[r] <= rows[r + 1] - y:
        return v, code, rows[r], p0
    return v, code, rows[r + 1], p1


@inlined
def edge_or(v0: float, v1: float, t: float) -> float:
    """Blend whose ends are the points themselves, to the last bit."""
    return blend(v0, v1, t) if t < 1.0 else v1


@jit
def plane_linear(
    row_buckets: I16,
    rows: F64,
    row_shift: int,
    row_base: int,
    row_depth: int,
    col_buckets: I16,
    cols: F64,
    col_shift: int,
    col_base: int,
    col_depth: int,
    values: F64,
    clamp_y: bool,
    clamp_x: bool,
    y: F64,
    x: F64,
    out: F64,
) -> None:
    """out[i] = the bilinear blend on a grid whose rows share their columns, found by direct address.

    The same arithmetic as `grid_read`, whose two bisections and choices among rules cost it a factor of ten.
    ``rows`` and ``cols`` are padded; both have two points or more.
    """
    height, width = rows.size - 1, cols.size - 1
    for i in range(x.size):
        r, ty = bucketed_cell(row_buckets, rows, row_shift, row_base, row_depth, height, y[i])
        j, tx = bucketed_cell(col_buckets, cols, col_shift, col_base, col_depth, width, x[i])
        low, high = r * width + j, (r + 1) * width + j
        v0 = edge_or(read(values, low), read(values, low + 1), tx)
        v1 = edge_or(read(values, high), read(values, high + 1), tx)
        v = edge_or(v0, v1, ty)
        inside = (clamp_y or (rows[0] <= y[i] <= rows[height - 1])) and (
            clamp_x or (cols[0] <= x[i] <= cols[width - 1])
        )
        out[i] = v if inside and not math.isnan(y[i]) and not math.isnan(x[i]) else math.nan


@jit
def grid_lookup(
    rows: F64,
    offsets: I64,
    cols: F64,
    values: F64,
    rule: int,
    policy_y: int,
    policy_x: int,
    y: F64,
    x: F64,
    out: F64,
) -> None:
    """out[i] = the grid at (y[i], x[i])."""
    for i in range(x.size):
        out[i] = grid_read(rows, offsets, cols, values, rule, policy_y, policy_x, y[i], x[i])[0]


@jit
def grid_details(
    rows: F64,
    offsets: I64,
    cols: F64,
    values: F64,
    rule: int,
    policy_y: int,
    policy_x: int,
    y: F64,
    x: F64,
    out: F64,
    source: U8,
    distance: F64,
) -> None:
    """As `grid_lookup`, with the source code and the larger of the two axes' distances in octaves."""
    for i in range(x.size):
        out[i], code, py, px = grid_read(rows, offsets, cols, values, rule, policy_y, policy_x, y[i], x[i])
        source[i] = code
        distance[i] = max(octaves(y[i], py), octaves(x[i], px)) if code != MISSING else np.nan


@jit
def grid_clamp(
    rows: F64, offsets: I64, cols: F64, rule: int, y: F64, x: F64, at_y: F64, at_x: F64
) -> None:
    """Move every query to the nearest place where the grid answers: where utilisation is held from."""
    for i in range(x.size):
        if math.isnan(y[i]) or math.isnan(x[i]):
            at_y[i], at_x[i] = np.nan, np.nan
            continue
        if rule == NEAREST_L1 or rule == NEAREST_L2:
            r, _ = grid_nearest(rows, offsets, cols, rule, y[i], x[i])
            at_y[i] = min(max(y[i], rows[0]), rows[rows.size - 1])
            at_x[i] = min(max(x[i], cols[offsets[r]]), cols[offsets[r + 1] - 1])
            continue
        r, at_y[i], code = grid_row(rows, rule, np.int64(CLAMP), y[i])
        left, right = cols[offsets[r]], cols[offsets[r + 1] - 1]
        if (rule == LINEAR or rule == LOGLOG) and code == INTERPOLATED:
            left = max(left, cols[offsets[r + 1]])
            right = min(right, cols[offsets[r + 2] - 1])
        at_x[i] = min(max(x[i], left), right) if left <= right else x[i]
