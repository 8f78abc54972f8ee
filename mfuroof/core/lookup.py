"""Lookups on curves: a search gives an index, a rule blends, a policy says what happens outside.

Codes are small integers, so that one compiled kernel serves every rule. A lookup returns the value, its source
code (`mfuroof.core.sources`) and the measured point it leans on.
"""

from __future__ import annotations

import math

import numpy as np

from mfuroof._types import F64, I16, U8
from mfuroof.core._jit import inlined, jit, read
from mfuroof.core.search import Int, count_bucketed, floor_index, octaves
from mfuroof.core.sources import CLAMPED, EXACT, INTERPOLATED, MISSING

__all__ = [
    "BLANK",
    "CEILING",
    "CLAMP",
    "FAR",
    "FLOOR",
    "LINEAR",
    "LOGLOG",
    "NEAREST_L1",
    "NEAREST_L2",
    "OWN",
    "blend",
    "bucketed_cell",
    "curve_bucketed",
    "curve_details",
    "curve_floor",
    "curve_linear",
    "curve_lookup",
    "curve_read",
    "fraction",
    "mix",
]

FLOOR, CEILING, NEAREST_L1, NEAREST_L2, LINEAR, LOGLOG = range(6)
OWN, CLAMP, BLANK = range(3)
"""Outside the grid: the rule's own reach (floor answers above, ceiling below, nearest everywhere), the edge, or NaN."""

FAR = 1e150
"""Differences are capped here before they are squared, so that no metric overflows."""


@inlined
def blend(v0: float, v1: float, t: float) -> float:
    """Linear blend that rises and falls with ``t`` and never leaves the bracket."""
    v = v0 + t * (v1 - v0)
    return min(max(v, min(v0, v1)), max(v0, v1))


@inlined
def fraction(rule: int, x0: float, x1: float, x: float) -> float:
    """Where x stands between x0 < x1, as a fraction of the bracket or of its logarithm."""
    if rule == LOGLOG:
        span = math.log(x1) - math.log(x0)
        return (math.log(x) - math.log(x0)) / span if span > 0.0 else 0.0
    return (x - x0) / (x1 - x0)


@inlined
def mix(rule: int, v0: float, v1: float, t: float) -> float:
    """Blend two values, or for log-log their logarithms."""
    if rule == LOGLOG:
        v = math.exp(blend(math.log(v0), math.log(v1), t))
        return min(max(v, min(v0, v1)), max(v0, v1))
    return blend(v0, v1, t)


@inlined
def curve_blend(
    grid: F64, values: F64, lo: Int, hi: Int, j: Int, rule: int, policy: Int, x: float
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


@inlined
def curve_read(
    grid: F64, values: F64, lo: Int, hi: Int, rule: int, policy: Int, x: float
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


@inlined
def bucketed_cell(
    buckets: I16, padded_grid: F64, shift: int, base: int, depth: int, points: int, x: float
) -> tuple[Int, float]:
    """Cell of a grid of two points or more that holds x, found by direct address, and the place in it [0, 1]."""
    q = x if x >= padded_grid[0] else padded_grid[0]
    q = q if q <= padded_grid[points - 1] else padded_grid[points - 1]
    j = min(count_bucketed(buckets, padded_grid, shift, base, depth, q), points - 1) - 1
    x0, x1 = read(padded_grid, j), read(padded_grid, j + 1)
    return j, (q - x0) / (x1 - x0)


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
