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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._types import F64, I64, freeze
from mfuroof.core import scan
from mfuroof.errors import MissingTableError
from mfuroof.lookup import Details
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.peer_rows import Steps, answer, peer_rows, steps_by_last
from mfuroof.units import US

if TYPE_CHECKING:
    from mfuroof.tables.bench import BenchData

__all__ = ["DEFAULT_MFU", "attention", "gated_delta_net", "gemm", "grouped", "zero_cell"]

DEFAULT_MFU = {"h20": 0.6, "h800": 0.35, "h200": 0.4, "gb200": 0.5}
"""What it assumes where a table has no answer."""

MISSING_PREFILL_FILE_MFU = 0.9
_AXES = {"prefill": ("seq_len",), "decode": ("batch_size", "kv_len")}
REACH = 1e9
"""Squared distance from which a covering GEMM weight no longer counts."""


def attention(
    data: BenchData,
    family: str,
    phase: str,
    gpu: str,
    key: tuple[int, ...],
    at: Sequence[F64],
    dtypes: Mapping[str, str],
    default_mfu: float | None,
    details: bool,
) -> Details:
    """Return the MFU of attention of one rank; ``key`` has the heads of the rank."""
    stem = "-".join(map(str, key))
    file = next((f for f in data.select(gpu, family, phase) if f.stem == stem), None)
    if file is None:
        default = _default(gpu, default_mfu) if phase == "decode" else MISSING_PREFILL_FILE_MFU
        return _all_default(default, at, details)
    if phase == "prefill":
        return _stepped(peer_rows(file, (*_AXES[phase], "mfu")), at, gpu, default_mfu, details)
    batch, kv_len, mfu = peer_rows(file, (*_AXES[phase], "mfu"), file.select(**dtypes))
    if not batch.size:
        raise MissingTableError(f"{gpu} decode attention with a {dtypes['kv_dtype']} cache", [file.path])
    row = np.empty(at[0].size, np.int64)
    scan.nearest_by_l1(batch, kv_len, freeze(at[0]), freeze(at[1]), row)
    columns = [batch, kv_len]
    return answer(_rounded(mfu)[row], at, details, lambda: ([c[row] for c in columns], columns, False))


def zero_cell(
    data: BenchData,
    family: str,
    phase: str,
    gpu: str,
    key: tuple[int, ...],
    at: Sequence[float],
    dtypes: Mapping[str, str],
) -> str:
    """Name the row of `attention` that answers one query with 0: its file and shape."""
    stem = "-".join(map(str, key))
    (file,) = [f for f in data.select(gpu, family, phase) if f.stem == stem]
    keep = file.select(**dtypes) if phase == "decode" else None
    axes = peer_rows(file, _AXES[phase], keep)
    if phase == "decode":
        apart = sum(np.abs(axis - x) for axis, x in zip(axes, at, strict=True))
        row = int(np.argmin(apart))
    else:
        longer = np.flatnonzero(axes[0] > at[0])
        row = int(longer[0]) - 1 if longer.size else axes[0].size - 1
    shape = ", ".join(f"{name} {axis[row]:.0f}" for name, axis in zip(_AXES[phase], axes, strict=True))
    return f"{file.path} at {shape}"


def gemm(data: BenchData, gpu: str, at: Sequence[F64], default_mfu: float | None, details: bool) -> Details:
    """Return the MFU of a GEMM at (m, k, n)."""
    files = data.select(gpu, "gemm")
    if not files:
        return _all_default(_default(gpu, default_mfu), at, details)
    (m, k, n, mfu), steps = data.once(("infersim gemm", files[0].path), lambda: _gemm_steps(files[0]))
    row = np.empty(at[0].size, np.int64)
    none = freeze(np.full(steps[0].size, -1), np.int64)
    asked_m, asked_k, asked_n = (freeze(q) for q in at)
    scan.site_rows(*steps, REACH, -1, none, asked_m, asked_k, asked_n, row)
    return _by_row(row, mfu, [m, k, n], at, gpu, default_mfu, details)


def _gemm_steps(file: BenchFile) -> tuple[list[F64], Steps]:
    m, k, n, mfu = peer_rows(file, ("m", "k", "n", "mfu"))
    return [m, k, n, _rounded(mfu)], steps_by_last(m, k, n)


def grouped(
    data: BenchData,
    gpu: str,
    phase: str,
    key: Mapping[str, int],
    projection: str,
    at: Sequence[F64],
    default_mfu: float | None,
    details: bool,
) -> Details:
    """Return the MFU of one projection of the routed experts; ``key`` is exact."""
    files = data.select(gpu, "grouped_gemm", phase)
    if not files:
        return _all_default(_default(gpu, default_mfu), at, details)
    file = files[0]
    keep = np.ones(len(file), dtype=bool)
    for name, value in key.items():
        keep &= file.columns[name] == value
    tokens, mfu = peer_rows(file, (file.layout.axes[0], f"{projection}_mfu"), keep)
    if phase == "prefill":
        return _stepped([tokens, mfu], at, gpu, default_mfu, details)
    if not tokens.size:
        return _all_default(_default(gpu, default_mfu), at, details)
    row = _nearest(tokens, at[0])
    return answer(_rounded(mfu)[row], at, details, lambda: ([tokens[row]], [tokens], False))


def gated_delta_net(file: BenchFile, tokens: F64, details: bool) -> Details:
    """Return the time of all kernels at the nearest row, in proportion to tokens. [s]"""
    times = tuple(column.name for column in file.layout.columns if column.kind == "time")
    measured, *columns = peer_rows(file, (file.layout.axes[0], *times))
    if not measured.size:
        raise MissingTableError(f"a row of {file.path} below its first line", [])
    row = _nearest(measured, tokens)
    ratio = measured[row] / tokens
    total = np.zeros(tokens.size)
    for column in columns:
        total = total + column[row] / ratio
    return answer(total * US, [tokens], details, lambda: ([measured[row]], [measured], False))


def _nearest(measured: F64, asked: F64) -> I64:
    row = np.empty(asked.size, np.int64)
    zeros, other_zeros = freeze(np.zeros(measured.size)), freeze(np.zeros(asked.size))
    scan.nearest_by_l1(measured, zeros, freeze(asked), other_zeros, row)
    return row


def _stepped(rows: list[F64], at: Sequence[F64], gpu: str, default_mfu: float | None, details: bool) -> Details:
    """Read rows in file order up to the first that exceeds the query."""
    starts, mfu = rows
    reached = np.maximum.accumulate(starts)
    last = np.append(reached[1:] != reached[:-1], True)[: starts.size]
    row = np.empty(at[0].size, np.int64)
    scan.step_rows(freeze(reached[last]), freeze(np.flatnonzero(last), np.int64), freeze(at[0]), row)
    return _by_row(row, _rounded(mfu), [starts], at, gpu, default_mfu, details)


def _by_row(
    row: I64, mfu: F64, columns: list[F64], at: Sequence[F64], gpu: str, default_mfu: float | None, details: bool
) -> Details:
    """Read the rows that answer, and the default where none does."""
    unanswered = row < 0
    default = round(_default(gpu, default_mfu), 3) if unanswered.any() else np.nan
    values = np.append(mfu, default)[row]

    def describe() -> tuple[Sequence[F64], Sequence[F64], Any]:
        return [np.append(column, np.nan)[row] for column in columns], columns, unanswered

    return answer(values, at, details, describe)


def _all_default(default: float, at: Sequence[F64], details: bool) -> Details:
    values = np.full(at[0].size, round(default, 3))
    return answer(values, at, details, lambda: ([np.full(values.size, np.nan) for _ in at], at, True))


def _default(gpu: str, given: float | None) -> float:
    known = DEFAULT_MFU.get(gpu.casefold()) if given is None else given
    if known is None:
        sought = f"this shape on {gpu}, of which InferSim has no default MFU either"
        known_defaults = [f"defaults of {', '.join(DEFAULT_MFU)}"]
        raise MissingTableError(sought, known_defaults, "default_mfu= of a lookup or missing= of CostParams sets one")
    return known


def _rounded(mfu: F64) -> F64:
    return np.array([round(value, 3) for value in mfu.tolist()], dtype=np.float64)
