"""InferSim's lookups on the MFU column as written.

Decode attention reads the row nearest by |batch| + |KV length|; prefill attention and grouped prefill the last row
before the first longer one, in file order; GEMM the smallest covering weight, then the last row in file order whose m
does not exceed the query; grouped decode the nearest batch. What is missing becomes a default of the GPU. Everything
is rounded to three decimals, and a file's first line is taken for a header even where it is a measurement.

References
----------
.. [1] alibaba/InferSim, ``mfu/mfu.py`` and ``hardware/gpu.py``, state of 2026-05.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mfuroof._types import F64, I64, freeze
from mfuroof.core import scan
from mfuroof.errors import MissingTableError
from mfuroof.lookup import Details
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.peer_rows import details, first_seen, peer_rows, steps_by_last
from mfuroof.units import US

if TYPE_CHECKING:
    from mfuroof.tables.bench import BenchData

__all__ = ["DEFAULT_MFU", "attention", "gated_delta_net", "gemm", "grouped"]

DEFAULT_MFU = {"h20": 0.6, "h800": 0.35, "h200": 0.4, "gb200": 0.5}
"""What it assumes where a table has no answer."""

MISSING_PREFILL_FILE_MFU = 0.9
REACH = 1e9
"""Squared distance from which a covering GEMM weight no longer counts."""


def attention(
    data: BenchData,
    family: str,
    phase: str,
    gpu: str,
    key: tuple[int, ...],
    at: list[F64],
    dtypes: Mapping[str, str],
    default_mfu: float | None,
) -> Details:
    """Return the MFU of attention of one rank; ``key`` has the heads of the rank."""
    stem = "-".join(map(str, key))
    file = next((f for f in data.select(gpu, family, phase) if f.stem == stem), None)
    if file is None:
        default = _default(gpu, default_mfu) if phase == "decode" else MISSING_PREFILL_FILE_MFU
        return _all_default(round(default, 3), at)
    if phase == "prefill":
        seq_len, mfu = peer_rows(file, ("seq_len", "mfu"))
        return _stepped(seq_len, _rounded(mfu), at, gpu, default_mfu)
    batch, kv_len, mfu = peer_rows(file, ("batch_size", "kv_len", "mfu"), file.select(**dtypes))
    if not batch.size:
        raise MissingTableError(f"{gpu} decode attention with a {dtypes['kv_dtype']} cache in {file.path}", [file.path])
    row = np.empty(at[0].size, np.int64)
    scan.nearest_by_l1(batch, kv_len, freeze(at[0]), freeze(at[1]), row)
    points = [batch[row], kv_len[row]]
    inside = (at[0] >= batch.min()) & (at[0] <= batch.max()) & (at[1] >= kv_len.min()) & (at[1] <= kv_len.max())
    return details(_rounded(mfu)[row], at, points, inside, False)


def gemm(data: BenchData, gpu: str, at: list[F64], default_mfu: float | None) -> Details:
    """Return the MFU of a GEMM at (m, k, n)."""
    files = data.select(gpu, "gemm")
    if not files:
        return _all_default(round(_default(gpu, default_mfu), 3), at)
    m, k, n, mfu = peer_rows(files[0], ("m", "k", "n", "mfu"))
    sites, groups = first_seen(k, n)
    steps = [steps_by_last(m[rows]) for rows in groups]
    offsets = freeze(np.cumsum([0, *(starts.size for starts, _ in steps)]), np.int64)
    starts = freeze(np.concatenate([starts for starts, _ in steps]))
    rows = freeze(np.concatenate([group[own] for group, (_, own) in zip(groups, steps, strict=True)]), np.int64)
    site_k, site_n = (freeze(column) for column in zip(*sites, strict=True))
    row = np.empty(at[0].size, np.int64)
    none = freeze(np.full(len(sites), -1), np.int64)
    scan.site_rows(site_k, site_n, offsets, starts, rows, REACH, -1, none, *map(freeze, at), row)
    return _by_row(row, _rounded(mfu), [m, k, n], at, gpu, default_mfu)


def grouped(
    data: BenchData,
    gpu: str,
    phase: str,
    key: Mapping[str, int],
    projection: str,
    at: list[F64],
    default_mfu: float | None,
) -> Details:
    """Return the MFU of one projection of the routed experts; ``key`` is exact."""
    files = data.select(gpu, "grouped_gemm", phase)
    if not files:
        return _all_default(round(_default(gpu, default_mfu), 3), at)
    file = files[0]
    keep = np.ones(len(file), dtype=bool)
    for name, value in key.items():
        keep &= file.columns[name] == value
    tokens, mfu = peer_rows(file, (file.layout.axes[0], f"{projection}_mfu"), keep)
    if phase == "prefill":
        return _stepped(tokens, _rounded(mfu), at, gpu, default_mfu)
    if not tokens.size:
        return _all_default(round(_default(gpu, default_mfu), 3), at)
    row = np.empty(at[0].size, np.int64)
    zeros = freeze(np.zeros(tokens.size))
    scan.nearest_by_l1(tokens, zeros, freeze(at[0]), freeze(np.zeros(at[0].size)), row)
    inside = (at[0] >= tokens.min()) & (at[0] <= tokens.max())
    return details(_rounded(mfu)[row], at, [tokens[row]], inside, False)


def gated_delta_net(file: BenchFile, tokens: F64) -> Details:
    """Return the time of all kernels at the nearest row, in proportion to tokens. [s]"""
    times = tuple(column.name for column in file.layout.columns if column.kind == "time")
    measured, *columns = peer_rows(file, (file.layout.axes[0], *times))
    row = np.empty(tokens.size, np.int64)
    zeros = freeze(np.zeros(measured.size))
    scan.nearest_by_l1(measured, zeros, freeze(tokens), freeze(np.zeros(tokens.size)), row)
    ratio = measured[row] / tokens
    total = np.zeros(tokens.size)
    for column in columns:
        total = total + column[row] / ratio
    inside = (tokens >= measured.min()) & (tokens <= measured.max())
    return details(total * US, [tokens], [measured[row]], inside, False)


def _stepped(starts: F64, mfu: F64, at: list[F64], gpu: str, default_mfu: float | None) -> Details:
    """Read rows in file order up to the first that exceeds the query."""
    reached = np.maximum.accumulate(starts) if starts.size else starts
    last = np.append(reached[1:] != reached[:-1], True)[: starts.size]
    row = np.empty(at[0].size, np.int64)
    scan.step_rows(freeze(reached[last]), freeze(np.flatnonzero(last), np.int64), freeze(at[0]), row)
    return _by_row(row, mfu, [starts], at, gpu, default_mfu)


def _by_row(row: I64, mfu: F64, columns: list[F64], at: list[F64], gpu: str, default_mfu: float | None) -> Details:
    """Read the rows that answer, and the default where none does."""
    unanswered = row < 0
    default = round(_default(gpu, default_mfu), 3) if unanswered.any() else np.nan
    if not mfu.size:
        return _all_default(default, at)
    values = np.where(unanswered, default, mfu[row])
    points = [np.where(unanswered, q, column[row]) for q, column in zip(at, columns, strict=True)]
    inside = np.ones(row.size, dtype=bool)
    for q, column in zip(at, columns, strict=True):
        inside &= (q >= column.min()) & (q <= column.max())
    found = details(values, at, points, inside, unanswered)
    found.distance[unanswered] = np.inf
    return found


def _all_default(default: float, at: list[F64]) -> Details:
    size = at[0].size
    found = details(np.full(size, default), at, at, True, True)
    found.distance[:] = np.inf
    return found


def _default(gpu: str, given: float | None) -> float:
    if given is not None:
        return given
    known = DEFAULT_MFU.get(gpu.casefold())
    if known is None:
        sought = f"an answer for {gpu} by InferSim's rule, which has no default MFU for this GPU"
        raise MissingTableError(sought, list(DEFAULT_MFU), "default_mfu= sets one")
    return known


def _rounded(mfu: F64) -> F64:
    return np.array([round(value, 3) for value in mfu.tolist()], dtype=np.float64)
