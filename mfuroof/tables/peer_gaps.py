"""Where BLIS's interpolating revision leans on a cell of a decode grid that holds no utilisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.peer_blis import ZERO, configuration, decode_file
from mfuroof.tables.peer_rows import peer_rows

if TYPE_CHECKING:
    from mfuroof.tables.bench import BenchData

__all__ = ["empty_corner"]


def empty_corner(
    data: BenchData, gpu: str, key: tuple[int, ...], tp: int, at: Sequence[F64], mfu: F64
) -> str | None:
    """Name a cell that counts as zero beside others that do not, in the blend of one of the queries.

    The rule blends utilisation; with a zero among its corners it falls towards zero near that corner and the time
    grows without bound: a decode step may come out at seconds.

    Parameters
    ----------
    data, gpu, key, tp
        As `mfuroof.tables.peer_blis.attention`.
    at
        Batch and KV length of the queries, (q,) each. [requests, tokens]
    mfu
        What the rule answers (q,).

    Returns
    -------
    str or None
        File and cell of the query with the lowest answer; None where no blend leans on one.
    """
    file = decode_file(data, gpu, configuration(data, gpu, key).stem, tp, "blis_v2")
    if file is None:
        return None
    rows, cols, cells = data.once(("blis_v2 cells", file.path), lambda: _cells(file))
    if cells.min() >= ZERO:
        return None
    r0, r1 = _bracket(rows, at[0])
    c0, c1 = _bracket(cols, at[1])
    corners = [(r, c) for r in (r0, r1) for c in (c0, c1)]
    values = np.stack([cells[r, c] for r, c in corners])
    mixed = np.flatnonzero((values.min(axis=0) < ZERO) & (values.max(axis=0) >= ZERO))
    if not mixed.size:
        return None
    worst = int(mixed[np.argmin(mfu[mixed])])
    r, c = corners[int(np.argmin(values[:, worst]))]
    return f"{file.path} at batch_size {rows[r[worst]]:.0f}, kv_len {cols[c[worst]]:.0f}"


def _cells(file: BenchFile) -> tuple[F64, F64, F64]:
    batch, kv_len, mfu = peer_rows(file, ("batch_size", "kv_len", "mfu"))
    rows, cols = np.unique(batch), np.unique(kv_len)
    cells = np.zeros((rows.size, cols.size))
    cells[np.searchsorted(rows, batch), np.searchsorted(cols, kv_len)] = mfu
    return rows, cols, cells


def _bracket(axis: F64, x: F64) -> tuple[I64, I64]:
    """Return the points around each value, twice the same where it is one of them or outside."""
    inside = np.clip(x, axis[0], axis[-1])
    upper = np.searchsorted(axis, inside)
    return np.where(axis[upper] == inside, upper, np.maximum(upper - 1, 0)), upper
