"""Lookups on curves and ragged grids: a search gives an index, a rule blends, a policy says what happens outside.

Codes are small integers, so that one compiled kernel serves every rule. A lookup returns the value, its source
code (`mfuroof.core.sources`) and the measured point it leans on.
"""

from __future__ import annotations

import math

import numpy as np

from mfuroof._types import F64, I16, I64, U8
from mfuroof.core._jit import jit
from mfuroof.core.search import count_bucketed, floor_index, octaves
from mfuroof.core.sources import CLAMPED, EXACT, INTERPOLATED, MISSING

__all__ = [
    "BLANK",
    "CEILING",
    "CLAMP",
    "FLOOR",
    "LINEAR",
    "LOGLOG",
    "NEAREST_L1",
    "NEAREST_L2",
    "OWN",
    "curve_bucketed",
    "curve_details",
    "curve_floor",
    "curve_linear",
    "curve_lookup",
    "curve_read",
    "grid_clamp",
    "grid_details",
    "grid_lookup",
    "grid_read",
]

FLOOR, CEILING, NEAREST_L1, NEAREST_L2, LINEAR, LOGLOG = range(6)
OWN, CLAMP, BLANK = range(3)
"""Outside the grid: the rule's own reach (floor answers above, ceiling below, nearest everywhere), the edge, or NaN."""

FAR = 1e150
"""Differences are capped here before they are squared, so that no metric overflows."""


@jit
def blend(v0: float, v1: float, t: float) -> float:
    """Linear blend that rises and falls with ``t`` and never leaves the bracket."""
    v = v0 + t * (v1 - v0)
    return min(max(v, min(v0, v1)), max(v0, v1))


@jit
def fraction(rule: int, x0: float, x1: float, x: float) -> float:
    """Where x stands between x0 < x1, as a fraction of the bracket or of its logarithm."""
    if rule == LOGLOG:
        span = math.log(x1) - math.log(x0)
        return (math.log(x) - math.log(x0)) / span if span > 0.0 else 0.0
    return (x - x0) / (x1 - x0)


@jit
def mix(rule: int, v0: float, v1: float, t: float) -> float:
    """Blend two values, or for log-log their logarithms."""
    if rule == LOGLOG:
        v = math.exp(blend(math.log(v0), math.log(v1), t))
        return min(max(v, min(v0, v1)), max(v0, v1))
    return blend(v0, v1, t)


@jit
def curve_blend(
    grid: F64, values: F64, lo: int, hi: int, j: int, rule: int, policy: int, x: float
) -> tuple[float, int, float]:
    """As `curve_read`, where ``j`` is already known to be the floor index of x."""
    if math.isnan(x):
        return math.nan, MISSING, math.nan
    last = hi - 1
    if x < grid[lo] or x > grid[last]:
        below = x < grid[lo]
        edge = lo if below else last
        own = (rule == FLOOR and not below) or (rule == CEILING and below) or rule == NEAREST_L1 or rule == NEAREST_L2
        if policy == CLAMP or (policy == OWN and own):
            return values[edge], CLAMPED, grid[edge]
        return math.nan, MISSING, math.nan
    if grid[j] == x:
        return values[j], EXACT, grid[j]
    x0, x1 = grid[j], grid[j + 1]
    near = j if x - x0 <= x1 - x else j + 1  # ties go to the lower point
    if rule == FLOOR:
        return values[j], INTERPOLATED, x0
    if rule == CEILING:
        return values[j + 1], INTERPOLATED, x1
    if rule == NEAREST_L1 or rule == NEAREST_L2:
        return values[near], INTERPOLATED, grid[near]
    return mix(rule, values[j], values[j + 1], fraction(rule, x0, x1, x)), INTERPOLATED, grid[near]


@jit
def curve_read(
    grid: F64, values: F64, lo: int, hi: int, rule: int, policy: int, x: float
) -> tuple[float, int, float]:
    """Read the curve ``grid[lo:hi]`` at x: value, source code, and the nearest measured point that was used."""
    return curve_blend(grid, values, lo, hi, floor_index(grid, lo, hi, x), rule, policy, x)


@jit
def curve_lookup(grid: F64, values: F64, rule: int, policy: int, x: F64, out: F64) -> None:
    """out[i] = the curve at x[i], found by bisection."""
    for i in range(x.size):
        out[i] = curve_read(grid, values, np.int64(0), grid.size, rule, policy, x[i])[0]


@jit
def curve_bucketed(
    buckets: I16,
    padded_grid: F64,
    values: F64,
    shift: int,
    base: int,
    depth: int,
    rule: int,
    policy: int,
    x: F64,
    out: F64,
) -> None:
    """out[i] = the curve at x[i], found by direct address; ``values`` are not padded."""
    for i in range(x.size):
        j = count_bucketed(buckets, padded_grid, shift, base, depth, x[i]) - 1
        out[i] = curve_blend(padded_grid, values, np.int64(0), values.size, j, rule, policy, x[i])[0]


@jit
def curve_details(
    grid: F64, values: F64, rule: int, policy: int, x: F64, out: F64, source: U8, distance: F64
) -> None:
    """As `curve_lookup`, with the source code and the distance to the data in octaves (NaN where missing)."""
    for i in range(x.size):
        out[i], code, point = curve_read(grid, values, np.int64(0), grid.size, rule, policy, x[i])
        source[i] = code
        distance[i] = octaves(x[i], point) if code != MISSING else np.nan


@jit
def curve_floor(
    buckets: I16,
    padded_grid: F64,
    padded_values: F64,
    shift: int,
    base: int,
    depth: int,
    below: float,
    limit: float,
    x: F64,
    out: F64,
) -> None:
    """Read the floor of every x by direct address: ``below`` under the grid, NaN above ``limit`` and for NaN."""
    first = padded_grid[0]
    for i in range(x.size):
        v = padded_values[np.uint64(count_bucketed(buckets, padded_grid, shift, base, depth, x[i]))]
        v = v if x[i] >= first else below
        out[i] = v if x[i] <= limit else np.nan


@jit
def curve_linear(
    buckets: I16,
    padded_grid: F64,
    values: F64,
    shift: int,
    base: int,
    depth: int,
    below: float,
    above: float,
    x: F64,
    out: F64,
) -> None:
    """Blend linearly at every x by direct address, on a curve of two points or more; NaN for NaN.

    The same arithmetic as `curve_bucketed`, whose choice among rules costs it a factor of five.
    """
    first, last = padded_grid[0], padded_grid[values.size - 1]
    for i in range(x.size):
        q = x[i] if x[i] >= first else first
        q = q if q <= last else last
        j = np.uint64(min(count_bucketed(buckets, padded_grid, shift, base, depth, q), values.size - 1))
        x0, x1, v0, v1 = padded_grid[j - np.uint64(1)], padded_grid[j], values[j - np.uint64(1)], values[j]
        v = blend(v0, v1, (q - x0) / (x1 - x0)) if q < x1 else v1
        v = v if x[i] >= first else below
        v = v if x[i] <= last else above
        out[i] = v if x[i] == x[i] else np.nan


@jit
def grid_row(rows: F64, rule: int, policy: int, y: float) -> tuple[int, float, int]:
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


@jit
def metric(rule: int, dy: float, dx: float) -> float:
    """L1 distance, or the square of the L2 distance."""
    dy, dx = min(abs(dy), FAR), min(abs(dx), FAR)
    return dy + dx if rule == NEAREST_L1 else dy * dy + dx * dx


@jit
def grid_nearest(
    rows: F64, offsets: I64, cols: F64, rule: int, y: float, x: float
) -> tuple[int, int]:
    """Row and position of the nearest point; ties: lower row, then nearer column, then lower column."""
    best, best_row, best_at = math.inf, -1, -1
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
