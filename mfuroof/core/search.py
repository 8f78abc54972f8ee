"""Search: where a query stands on a sorted grid. No values are read here and nothing is blended.

Every function takes a slice ``grid[lo:hi]``, so that the rows of a ragged table are searched in place. Grids are
strictly ascending and finite; a query may be any float, infinities and NaN included.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from mfuroof._types import F64, I16
from mfuroof.core._jit import inlined, jit

__all__ = ["Int", "count_bucketed", "floor_index", "octaves"]

Int: TypeAlias = int | np.int64
"""A whole number of a kernel. Callers spell constants ``np.int64(0)``: a literal would compile a second kernel."""

LOG2_E = 1.0 / math.log(2.0)


@inlined
def floor_index(grid: F64, lo: Int, hi: Int, x: float) -> Int:
    """Index of the largest grid point <= x; ``lo - 1`` below the slice and for NaN."""
    while lo < hi:
        mid = (lo + hi) >> 1
        if grid[mid] <= x:  # False for NaN, which therefore ends below the slice
            lo = mid + 1
        else:
            hi = mid
    return lo - 1


@jit
def count_bucketed(buckets: I16, padded_grid: F64, shift: int, base: int, depth: int, x: float) -> int:
    """Count the grid points <= x without a search; the grid is not negative.

    The leading bits of a float that is not negative order like the float itself, so ``bits >> shift`` addresses a
    bucket directly; ``buckets[b]`` counts the points in lower buckets, and at most ``depth`` points share one.
    ``padded_grid`` ends with a NaN, which stops the count.

    The short loop, with unsigned indices, is deliberate: written out, the compiler vectorises it with gathers, which
    run at 0.6 of this speed; with signed indices every access first tests for a negative one, at 0.5 of it.
    """
    v = x if x > 0.0 else 0.0  # also turns -0.0 and NaN into +0.0; callers mask NaN
    key = np.float64(v).view(np.uint64) >> np.uint64(shift)
    b = min(max(key, np.uint64(base)) - np.uint64(base), np.uint64(buckets.size - 1))
    count = np.uint64(buckets[b])
    for _ in range(depth):
        count += np.uint64(v >= padded_grid[count])
    return int(count)


@jit
def octaves(q: float, p: float) -> float:
    """Distance between two points of an axis: |log2(q / p)|; where one is not positive, its continuation by asinh."""
    if q == p:
        return 0.0
    if q > 0.0 and p > 0.0:
        return abs(math.log2(q) - math.log2(p))
    return abs(math.asinh(q) - math.asinh(p)) * LOG2_E
