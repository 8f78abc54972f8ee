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

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mfuroof._types import F64, I64, freeze
from mfuroof.core import scan
from mfuroof.errors import MissingTableError
from mfuroof.lookup import Details
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.peer_rows import Steps, answer, first_seen, peer_rows, steps_by_last

if TYPE_CHECKING:
    from mfuroof.tables.bench import BenchData

__all__ = ["ZERO", "attention", "configuration", "decode_file", "gemm"]

ZERO = 1e-4
"""Values below count as zero; also what v2 answers where it has nothing."""

Curves = tuple[F64, F64, I64, F64, F64, F64]
"""Sites and curves of v2: k, n, offsets, m, and the first and the last value of each repeated m."""


Read = tuple[F64, Callable[[], list[F64]], NDArray[np.bool_]]
"""Values, the points they lean on (on demand), and which of them replaced a zero."""


def attention(
    data: BenchData, gpu: str, phase: str, key: tuple[int, ...], tp: int, at: Sequence[F64], rule: str, details: bool
) -> Details:
    """Return the MFU of attention; ``key`` is (heads, KV heads, head dim) of the model."""
    chosen = configuration(data, gpu, key)
    other = chosen.key != key
    if phase == "prefill":
        seq_len, mfu = _rows(chosen, ("seq_len", "mfu"))
        columns, asked = [freeze(np.zeros(mfu.size)), seq_len], [freeze(np.zeros(at[0].size)), freeze(at[0])]
    else:
        file = decode_file(data, gpu, chosen.stem, tp, rule)
        if file is None and rule == "blis_floor":
            existing = [f.path for f in data.select(gpu, "mha", "decode")]
            raise MissingTableError(f"{gpu} decode attention {chosen.stem}-tp{tp} or -tp1", existing)
        if file is None:
            nowhere = [np.full(q.size, np.nan) for q in at]
            return answer(np.full(at[0].size, ZERO), at, details, lambda: (nowhere, at, True))
        other = other or file.tp != tp
        *columns, mfu = _rows(file, ("batch_size", "kv_len", "mfu"))
        asked = [freeze(q) for q in at]
    read = _under if rule == "blis_floor" else _blended
    values, points, replaced = read(columns, mfu, asked, phase == "prefill")
    return answer(values, asked, details, lambda: (points(), columns, replaced | other))


def _rows(file: BenchFile, names: tuple[str, ...]) -> list[F64]:
    rows = peer_rows(file, names)
    if not rows[0].size:
        raise MissingTableError(f"a row of {file.path} below its first line", [])
    return rows


def configuration(data: BenchData, gpu: str, key: tuple[int, ...]) -> BenchFile:
    """Return the prefill file whose configuration stands for (heads, KV heads, head dim)."""
    prefill = data.select(gpu, "mha", "prefill")
    if not prefill:
        raise MissingTableError(f"{gpu} prefill attention, whose files choose the configuration", [])
    exact = next((f for f in prefill if f.stem == "-".join(map(str, key))), None)
    if exact is not None:
        return exact
    distance = [sum((a - b) ** 2 for a, b in zip(f.key, key, strict=True)) for f in prefill]
    return prefill[int(np.argmin(distance))]


def decode_file(data: BenchData, gpu: str, stem: str, tp: int, rule: str) -> BenchFile | None:
    """Return the decode file of a configuration that stands for tp, None where there is none."""
    files = data.select(gpu, "mha", "decode")
    by_tp = {f.tp: f for f in files if f.tp is not None and f.stem == f"{stem}-tp{f.tp}"}
    if tp in by_tp or not by_tp:
        return by_tp.get(tp)
    if rule == "blis_floor":
        return by_tp.get(1)
    return by_tp[min(by_tp, key=lambda other: (abs(other - tp), other))]


def _under(columns: Sequence[F64], mfu: F64, at: Sequence[F64], repeats: bool) -> Read:
    row = np.empty(at[0].size, np.int64)
    scan.nearest_under(columns[0], columns[1], at[0], at[1], row)
    values = mfu[row]
    replaced = _replace_zeros(values, mfu, columns, at, True)
    if (values < ZERO).any():
        raise MissingTableError("an MFU that is not zero", ["zeros only"])
    row = np.where(replaced >= 0, replaced, row)
    return values, lambda: [column[row] for column in columns], replaced >= 0


def _blended(columns: Sequence[F64], mfu: F64, at: Sequence[F64], repeats: bool) -> Read:
    values = np.empty(at[0].size)
    axes = [freeze(np.unique(column)) for column in columns]
    if repeats:  # a curve, whose repeated lengths are kept apart; a grid keeps the last of them
        curves = _curves(columns[1], columns[0], columns[0], mfu)
        scan.site_values(*curves, at[1], at[0], at[0], values, np.empty(values.size, np.int64))
    else:
        cells = np.zeros((axes[0].size, axes[1].size))
        cells[np.searchsorted(axes[0], columns[0]), np.searchsorted(axes[1], columns[1])] = mfu
        scan.bilinear_or_zero(axes[0], axes[1], freeze(cells.ravel()), at[0], at[1], values)
    replaced = _replace_zeros(values, mfu, columns, at, True)
    values[values < ZERO] = ZERO
    return values, lambda: _points(columns, axes, at, replaced), replaced >= 0


def _points(columns: Sequence[F64], axes: Sequence[F64], at: Sequence[F64], replaced: I64) -> list[F64]:
    """Return the nearest point of each axis, or the row that replaced a zero."""
    near = []
    for axis, q in zip(axes, at, strict=True):
        upper = np.clip(np.searchsorted(axis, q), 0, axis.size - 1)
        lower = np.maximum(upper - 1, 0)
        near.append(np.where(q - axis[lower] <= axis[upper] - q, axis[lower], axis[upper]))
    return [np.where(replaced >= 0, column[replaced], p) for column, p in zip(columns, near, strict=True)]


def gemm(data: BenchData, gpu: str, at: Sequence[F64], rule: str, details: bool) -> Details:
    """Return the MFU of a GEMM at (m, k, n)."""
    files = data.select(gpu, "gemm")
    if not files:
        raise MissingTableError(f"{gpu} GEMM", [])
    file = files[0]
    m, k, n, mfu = _rows(file, ("m", "k", "n", "mfu"))
    columns, asked = [m, k, n], [freeze(q) for q in at]
    asked_m, asked_k, asked_n = asked
    values: F64 = np.empty(at[0].size)
    if rule == "blis_v2":
        curves = data.once(("blis_v2", file.path), lambda: _curves(m, k, n, mfu))
        site = np.empty(at[0].size, np.int64)
        scan.site_values(*curves, asked_m, asked_k, asked_n, values, site)
        replaced = _replace_zeros(values, mfu, columns, asked, False)
        values[values < ZERO] = ZERO
        used = [curves[0][site], curves[1][site]]

        def points_of() -> list[F64]:
            near = _points([m], [np.unique(m)], [asked_m], replaced)
            return [*near, *(np.where(replaced >= 0, c[replaced], u) for c, u in zip((k, n), used, strict=True))]

    else:
        steps, below, last_site = data.once(("blis_floor", file.path), lambda: _gemm_steps(m, k, n))
        row = np.empty(at[0].size, np.int64)
        scan.site_rows(*steps, np.inf, last_site, below, asked_m, asked_k, asked_n, row)
        nonzero = np.flatnonzero(mfu >= ZERO)
        zero = mfu[row] < ZERO
        if zero.any() and not nonzero.size:
            raise MissingTableError("an MFU that is not zero", ["zeros only"])
        replaced = np.where(zero, 0, -1)
        row[zero] = nonzero[0] if nonzero.size else -1
        values = mfu[row]

        def points_of() -> list[F64]:
            return [column[row] for column in columns]

    def describe() -> tuple[Sequence[F64], Sequence[F64], Any]:
        points = points_of()
        stands_in = (replaced >= 0) | (points[1] != at[1]) | (points[2] != at[2])
        return points, columns, stands_in

    return answer(values, at, details, describe)


def _gemm_steps(m: F64, k: F64, n: F64) -> tuple[Steps, I64, int]:
    """Compile the steps, the row of the smallest m of each site, and the site of the last row."""
    steps = steps_by_last(m, k, n)
    _, _, groups = first_seen(k, n)
    below = freeze([group[np.argmin(m[group])] for group in groups], np.int64)
    last = next(i for i, group in enumerate(groups) if m.size - 1 in group)
    return steps, below, last


def _curves(m: F64, k: F64, n: F64, mfu: F64) -> Curves:
    """Sort the rows of each site by m; of repeats keep the first and the last in file order."""
    site_k, site_n, groups = first_seen(k, n)
    parts: list[tuple[F64, F64, F64]] = []
    for group in groups:
        rows = group[np.argsort(m[group], kind="stable")]
        changed = m[rows][1:] != m[rows][:-1]
        first, last = rows[np.append(True, changed)], rows[np.append(changed, True)]
        parts.append((m[first], mfu[first], mfu[last]))
    offsets = freeze(np.cumsum([0, *(part[0].size for part in parts)]), np.int64)
    grid, first_value, last_value = (freeze(np.concatenate(column)) for column in zip(*parts, strict=True))
    return site_k, site_n, offsets, grid, first_value, last_value


def _replace_zeros(values: F64, mfu: F64, columns: Sequence[F64], at: Sequence[F64], root: bool) -> I64:
    """Replace values that count as zero by the nearest row that does not, in place; return those rows, else -1."""
    replaced = np.full(values.size, -1, np.int64)
    if (values < ZERO).any():
        a, b, c = [*columns, freeze(np.zeros(mfu.size))][:3]
        x, y, z = [*at, freeze(np.zeros(values.size))][:3]
        scan.replace_below(ZERO, mfu, a, b, c, root, x, y, z, values, replaced)
    return replaced
