"""BLIS's two MFU databases: the older one with floor lookups, and v2, which interpolates; on the column as written.

The attention configuration is chosen by the prefill files: the exact one, else the nearest by unweighted Euclid over
(heads, KV heads, head dim), the first by file name on a tie. A value below 0.0001 counts as zero and is replaced by
the non-zero row nearest to the query (GEMM of the older one: by the first non-zero row of the file).

``blis_floor``: prefill reads the largest length that does not exceed the query, else the nearest; decode the
Euclidean-nearest row among those below on both axes, else of all; without a file for tp, that of tp 1. GEMM takes the
smallest covering weight, else that of the last row of the file, then the last row in file order whose m does not
exceed the query, else the smallest m.

``blis_v2``: prefill is linear in length, decode bilinear over the axes' values where an absent cell counts as zero,
GEMM takes the smallest covering weight, else the largest, and is linear in m; all clamped. Without a file for tp, the
nearest tp, the lower on a tie.

References
----------
.. [1] inference-sim/inference-sim, ``sim/mfu_database.go`` of pull request 448, and its older public revision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mfuroof._types import F64, freeze
from mfuroof.core import scan
from mfuroof.errors import MissingTableError
from mfuroof.lookup import Details
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.peer_rows import details, first_seen, peer_rows, steps_by_last

if TYPE_CHECKING:
    from mfuroof.tables.bench import BenchData

__all__ = ["ZERO", "attention", "gemm"]

ZERO = 1e-4
"""Values below count as zero; also what v2 answers where it has nothing."""


def attention(
    data: BenchData, gpu: str, phase: str, key: tuple[int, ...], tp: int, at: list[F64], rule: str
) -> Details:
    """Return the MFU of attention; ``key`` is (heads, KV heads, head dim) of the model."""
    prefill = data.select(gpu, "mha", "prefill")
    if not prefill:
        raise MissingTableError(f"{gpu} prefill attention, whose files choose the configuration", [])
    chosen = next((f for f in prefill if f.stem == "-".join(map(str, key))), None)
    substituted = chosen is None
    if chosen is None:
        distance = [sum((a - b) ** 2 for a, b in zip(f.key, key, strict=True)) for f in prefill]
        chosen = prefill[int(np.argmin(distance))]
    if phase == "prefill":
        seq_len, mfu = peer_rows(chosen, ("seq_len", "mfu"))
        zeros = freeze(np.zeros(seq_len.size))
        columns, asked = [zeros, seq_len], [freeze(np.zeros(at[0].size)), freeze(at[0])]
        path = chosen.path
    else:
        files = [f for f in data.select(gpu, "mha", "decode") if f.stem.startswith(f"{chosen.stem}-tp") and f.tp]
        file = _tp_file(files, chosen.stem, tp, rule)
        if file is None:
            if rule == "blis_floor":
                existing = [f.path for f in data.select(gpu, "mha", "decode")]
                raise MissingTableError(f"{gpu} decode attention {chosen.stem}-tp{tp} or -tp1", existing)
            return _nothing(at)
        substituted = substituted or file.tp != tp
        *columns, mfu = peer_rows(file, ("batch_size", "kv_len", "mfu"))
        asked, path = [freeze(q) for q in at], file.path
    if not mfu.size:
        raise MissingTableError(f"{gpu} {phase} attention in {path}", ["a header only"])
    read = _floor_attention if rule == "blis_floor" else _blended_attention
    values, points, replaced = read(columns, mfu, asked, repeats=phase == "prefill", path=path)
    inside = np.ones(values.size, dtype=bool)
    for q, column in zip(asked, columns, strict=True):
        inside &= (q >= column.min()) & (q <= column.max())
    return details(values, asked, points, inside, replaced | substituted)


def _tp_file(files: list[BenchFile], stem: str, tp: int, rule: str) -> BenchFile | None:
    by_tp = {f.tp: f for f in files if f.tp is not None and f.stem == f"{stem}-tp{f.tp}"}
    if tp in by_tp or not by_tp:
        return by_tp.get(tp)
    if rule == "blis_floor":
        return by_tp.get(1)
    return by_tp[min(by_tp, key=lambda other: (abs(other - tp), other))]


def _floor_attention(
    columns: list[F64], mfu: F64, at: list[F64], repeats: bool, path: str
) -> tuple[F64, list[F64], np.ndarray]:
    row = np.empty(at[0].size, np.int64)
    scan.nearest_under(*columns, *at, row)
    values = mfu[row]
    replaced = _replace_zeros(values, mfu, [*columns, freeze(np.zeros(mfu.size))], at, True)
    if (values < ZERO).any():
        raise MissingTableError(f"an MFU above zero in {path}", ["zeros only"])
    row = np.where(replaced >= 0, replaced, row)
    return values, [column[row] for column in columns], replaced >= 0


def _blended_attention(
    columns: list[F64], mfu: F64, at: list[F64], repeats: bool, path: str
) -> tuple[F64, list[F64], np.ndarray]:
    values = np.empty(at[0].size)
    axes = [freeze(np.unique(column)) for column in columns]
    if repeats:
        site = np.empty(values.size, np.int64)
        one, offsets, curve = freeze(np.zeros(1)), *_curves([np.arange(mfu.size)], columns[1], mfu)
        scan.site_values(one, one, offsets, *curve, at[1], at[0], at[0], values, site)
    else:
        cells = np.zeros((axes[0].size, axes[1].size))
        for y, x, value in zip(*columns, mfu, strict=True):  # of repeats the last counts
            cells[np.searchsorted(axes[0], y), np.searchsorted(axes[1], x)] = value
        scan.bilinear_or_zero(*axes, freeze(cells.ravel()), *at, values)
    replaced = _replace_zeros(values, mfu, [*columns, freeze(np.zeros(mfu.size))], at, True)
    values[values < ZERO] = ZERO
    points = [_nearest_value(axis, q) for axis, q in zip(axes, at, strict=True)]
    points = [np.where(replaced >= 0, c[replaced], p) for c, p in zip(columns, points, strict=True)]
    return values, points, replaced >= 0


def gemm(data: BenchData, gpu: str, at: list[F64], rule: str) -> Details:
    """Return the MFU of a GEMM at (m, k, n)."""
    files = data.select(gpu, "gemm")
    if not files:
        raise MissingTableError(f"{gpu} GEMM", [])
    m, k, n, mfu = peer_rows(files[0], ("m", "k", "n", "mfu"))
    if not mfu.size:
        raise MissingTableError(f"{gpu} GEMM in {files[0].path}", ["a header only"])
    asked = [freeze(q) for q in at]
    sites, groups = first_seen(k, n)
    site_k, site_n = (freeze(column) for column in zip(*sites, strict=True))
    inside = (at[0] >= m.min()) & (at[0] <= m.max())
    if rule == "blis_v2":
        values, site = np.empty(at[0].size), np.empty(at[0].size, np.int64)
        offsets, curve = _curves(groups, m, mfu)
        scan.site_values(site_k, site_n, offsets, *curve, *asked, values, site)
        replaced = _replace_zeros(values, mfu, [m, k, n], asked, False)
        values[values < ZERO] = ZERO
        points = [_nearest_value(np.unique(m), at[0]), site_k[site], site_n[site]]
        points = [np.where(replaced >= 0, c[replaced], p) for c, p in zip((m, k, n), points, strict=True)]
        used_k, used_n, zero = points[1], points[2], replaced >= 0
    else:
        steps = [steps_by_last(m[rows]) for rows in groups]
        offsets = freeze(np.cumsum([0, *(starts.size for starts, _ in steps)]), np.int64)
        starts = freeze(np.concatenate([starts for starts, _ in steps]))
        rows = freeze(np.concatenate([group[own] for group, (_, own) in zip(groups, steps, strict=True)]), np.int64)
        below = freeze([group[np.argmin(m[group])] for group in groups], np.int64)
        row = np.empty(at[0].size, np.int64)
        last_site = sites.index((float(k[-1]), float(n[-1])))
        scan.site_rows(site_k, site_n, offsets, starts, rows, np.inf, last_site, below, *asked, row)
        zero = mfu[row] < ZERO
        nonzero = np.flatnonzero(mfu >= ZERO)
        if zero.any() and not nonzero.size:
            raise MissingTableError(f"an MFU above zero in {files[0].path}", ["zeros only"])
        row = np.where(zero, nonzero[:1] if nonzero.size else 0, row)
        values, points = mfu[row], [m[row], k[row], n[row]]
        used_k, used_n = points[1], points[2]
    return details(values, at, points, inside, zero | (used_k != at[1]) | (used_n != at[2]))


def _curves(groups: list[np.ndarray], m: F64, mfu: F64) -> tuple[np.ndarray, tuple[F64, F64, F64]]:
    """Sort each group's rows by m; of repeats keep the first and the last in file order."""
    grids, firsts, lasts = [], [], []
    for rows in groups:
        order = rows[np.argsort(m[rows], kind="stable")]
        changed = m[order][1:] != m[order][:-1]
        grids.append(m[order][np.append(True, changed)])
        firsts.append(mfu[order][np.append(True, changed)])
        lasts.append(mfu[order][np.append(changed, True)])
    offsets = freeze(np.cumsum([0, *(grid.size for grid in grids)]), np.int64)
    return offsets, (freeze(np.concatenate(grids)), freeze(np.concatenate(firsts)), freeze(np.concatenate(lasts)))


def _replace_zeros(values: F64, mfu: F64, columns: list[F64], at: list[F64], root: bool) -> np.ndarray:
    """Replace values that count as zero by the nearest row that does not, in place; return those rows, else -1."""
    replaced = np.full(values.size, -1, np.int64)
    if (values < ZERO).any():
        asked = [*at, freeze(np.zeros(values.size))][:3]
        scan.replace_below(ZERO, mfu, *columns, root, *asked, values, replaced)
    return replaced


def _nearest_value(axis: F64, q: F64) -> F64:
    upper = np.clip(np.searchsorted(axis, q), 0, axis.size - 1)
    lower = np.maximum(upper - 1, 0)
    return np.where(q - axis[lower] <= axis[upper] - q, axis[lower], axis[upper])


def _nothing(at: list[F64]) -> Details:
    found = details(np.full(at[0].size, ZERO), at, at, True, True)
    found.distance[:] = np.inf
    return found
