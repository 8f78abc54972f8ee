"""Least-squares repair of measured curves that fall where physics does not.

Own kernels instead of ``scipy.optimize.isotonic_regression``: importing scipy.optimize takes 0.45 s, more than the
whole rest of a bind, for thirty lines; the tests compare the two.
"""

from __future__ import annotations

import numpy as np

from mfuroof._types import F64
from mfuroof.core._jit import jit

__all__ = ["isotonic", "isotonic_grid"]


@jit
def isotonic(values: F64, out: F64) -> None:
    """Write the non-decreasing sequence nearest to ``values`` (least squares): pool adjacent violators."""
    n = values.size
    mean, size = np.empty(n), np.empty(n, np.int64)
    blocks = 0
    for i in range(n):
        mean[blocks], size[blocks] = values[i], 1
        while blocks > 0 and mean[blocks - 1] > mean[blocks]:
            both = size[blocks - 1] + size[blocks]
            mean[blocks - 1] = (size[blocks - 1] * mean[blocks - 1] + size[blocks] * mean[blocks]) / both
            size[blocks - 1] = both
            blocks -= 1
        blocks += 1
    at = 0
    for block in range(blocks):
        for _ in range(size[block]):
            out[at] = mean[block]
            at += 1


@jit
def isotonic_grid(grid: F64, max_rounds: int, tolerance: float) -> int:
    """Make ``grid`` non-decreasing along both axes in place; return the rounds it took.

    The axes take turns until nothing moves by more than ``tolerance`` (relative); a running maximum ends it, so that
    the result is exactly monotone.
    """
    rows, columns = grid.shape
    rounds = 0
    moved = np.inf
    while rounds < max_rounds and moved > tolerance:
        moved = 0.0
        for axis in range(2):
            lines = rows if axis == 0 else columns
            for line in range(lines):
                before = grid[line, :].copy() if axis == 0 else grid[:, line].copy()
                after = np.empty(before.size)
                isotonic(before, after)
                for k in range(before.size):
                    if after[k] != before[k]:
                        moved = max(moved, abs(after[k] - before[k]) / max(abs(before[k]), 1e-300))
                        if axis == 0:
                            grid[line, k] = after[k]
                        else:
                            grid[k, line] = after[k]
        rounds += 1
    for i in range(rows):
        for j in range(columns):
            if i > 0:
                grid[i, j] = max(grid[i, j], grid[i - 1, j])
            if j > 0:
                grid[i, j] = max(grid[i, j], grid[i, j - 1])
    return rounds
