"""How far lattice reads are from measurements."""

from __future__ import annotations

import numpy as np

from mfuroof._types import F64, I64, U8
from mfuroof.core._jit import jit
from mfuroof.core.sources import EXTRAPOLATED, INTERPOLATED

__all__ = ["raise_by_lattice"]


@jit
def raise_by_lattice(
    codes: U8, away: F64, batch: F64, length: F64, count: F64, step: I64, source: U8, distance: F64
) -> None:
    """Raise each step's worst code and largest distance by its reads of one octave lattice.

    ``codes`` and ``away`` (rows, columns) hold the code of each lattice point and its distance to the nearest
    measured one; read j belongs to ``step[j]`` and counts if there is something to read. A distance is that of the
    nearest corner plus the way to it, in octaves.
    """
    last_row, last_column = codes.shape[0] - 1, codes.shape[1] - 1
    for j in range(batch.size):
        if count[j] <= 0.0 or batch[j] <= 0.0 or length[j] <= 0.0:
            continue
        row, column = np.log2(batch[j]), np.log2(length[j])
        i0, j0 = int(min(row, last_row)), int(min(column, last_column))
        i1 = min(i0 + int(row > i0), last_row)
        j1 = min(j0 + int(column > j0), last_column)
        code = max(max(codes[i0, j0], codes[i0, j1]), max(codes[i1, j0], codes[i1, j1]))
        if row > i0 or column > j0:
            code = max(code, INTERPOLATED)
        if row > last_row or column > last_column:
            code = max(code, EXTRAPOLATED)
        nearest = np.inf
        for i in (i0, i1):
            for k in (j0, j1):
                dy, dx = row - i, column - k  # a few octaves: np.hypot guards against overflow at twice the time
                nearest = min(nearest, away[i, k] + np.sqrt(dy * dy + dx * dx))
        at = step[j]
        source[at] = max(source[at], code)
        distance[at] = max(distance[at], nearest)
