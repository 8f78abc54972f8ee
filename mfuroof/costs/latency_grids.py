"""Attention times of one layer from benchmark files: chosen, scaled to the model's shape, continued, made monotone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, U8, freeze
from mfuroof.core.attention_mfu import AFFINE_RATE, SQRT
from mfuroof.core.isotonic import isotonic, isotonic_grid
from mfuroof.core.sources import Source
from mfuroof.costs.refrozen import Refrozen
from mfuroof.costs.table_source import TableSource
from mfuroof.errors import MissingTableError
from mfuroof.hardware import Hardware
from mfuroof.params import CostParams
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.work import key_bytes, key_flops, kv_bytes, rank_key

__all__ = ["DecodeTimes", "PrefillTimes", "decode_times", "prefill_times"]

MAX_ROUNDS, TOLERANCE = 100, 1e-9
LENT = 1e-9
"""Distance of a table that stands in although its shape is the same. [octaves]"""


@dataclass(frozen=True, eq=False)
class DecodeTimes(Refrozen):
    """Seconds of decode attention over batch (rows) and KV length (columns, the first at 0).

    ``measured`` says which cells are data; ``code`` is the least a read of them may report.
    """

    batch: F64
    kv_len: F64
    seconds: F64
    measured: np.ndarray
    code: int
    octaves: float

    def scaled(self, factor: float) -> DecodeTimes:
        """Return the times of ``factor`` layers."""
        return DecodeTimes(
            self.batch, self.kv_len, freeze(self.seconds * factor), self.measured, self.code, self.octaves
        )

    def sources(self, batch: F64, kv_len: F64) -> tuple[U8, F64]:
        """Return source codes and distances to the data. [octaves]"""
        r = np.clip(np.searchsorted(self.batch, batch, side="right") - 1, 0, self.batch.size - 1)
        c = np.clip(np.searchsorted(self.kv_len, kv_len, side="right") - 1, 0, self.kv_len.size - 1)
        on_r, on_c = self.batch[r] == batch, self.kv_len[c] == kv_len
        on = on_r & on_c & self.measured[r, c]
        up_r = np.where(on_r, r, np.minimum(r + 1, self.batch.size - 1))
        up_c = np.where(on_c, c, np.minimum(c + 1, self.kv_len.size - 1))
        known = self.measured[r, c] & self.measured[up_r, c] & self.measured[r, up_c] & self.measured[up_r, up_c]
        inside = (batch >= self.batch[0]) & (batch <= self.batch[-1]) & (kv_len <= self.kv_len[-1]) & known
        code = np.where(on, Source.EXACT, np.where(inside, Source.INTERPOLATED, Source.EXTRAPOLATED))
        far = np.maximum(_octaves(batch, self.batch), _octaves(kv_len, self.kv_len[1:]))
        return np.maximum(code, self.code).astype(np.uint8), np.maximum(far, self.octaves)


@dataclass(frozen=True, eq=False)
class PrefillTimes(Refrozen):
    """Seconds of prefill attention of one prompt by length: ``launch_s`` and ``values`` of `core.attention_mfu`."""

    length: F64
    values: F64
    launch_s: float
    blend: float
    code: int
    octaves: float

    def scaled(self, factor: float) -> PrefillTimes:
        """Return the times of ``factor`` layers."""
        values = self.values * (np.sqrt(factor) if self.blend == SQRT else factor)
        return PrefillTimes(self.length, freeze(values), self.launch_s * factor, self.blend, self.code, self.octaves)

    def sources(self, length: F64) -> tuple[U8, F64]:
        """Return source codes and distances to the data. [octaves]"""
        known = self.length[1:]
        inside = (length >= known[0]) & (length <= known[-1])
        between = np.where(inside, Source.INTERPOLATED, Source.EXTRAPOLATED)
        code = np.where(np.isin(length, known), Source.EXACT, between)
        return np.maximum(code, self.code).astype(np.uint8), np.maximum(_octaves(length, known), self.octaves)


def _octaves(at: F64, known: F64) -> F64:
    right = np.minimum(np.searchsorted(known, at), known.size - 1)
    left = np.maximum(right - 1, 0)
    pair = np.stack([known[left], known[right]])
    return np.asarray(np.abs(np.log2(np.maximum(at, 1.0) / pair)).min(axis=0))


def decode_times(
    source: TableSource,
    family: str,
    key: tuple[int, ...],
    tp: int,
    kv_dtype: str,
    params: CostParams,
    at_one_s: float,
) -> DecodeTimes:
    """Return decode times of one layer; ``at_one_s`` is its time at MFU 1 per request and cached token. [s]

    Another shape, cache dtype or GPU lends its share of the roofline. Beyond the lengths it was measured at, on either
    side, a batch row goes on with the slope that the next smaller batch shows there, the first row in proportion; below
    the first length of all each row goes on affinely, at least at 0.
    """
    found = _choose(source, family, "decode", key, tp, params, kv_dtype)
    if found is None:
        grid = np.array([[0.0, at_one_s], [0.0, 2.0 * at_one_s]])
        code, scale = _absent(params)
        ones = freeze([1.0, 2.0]), freeze([0.0, 1.0])
        return DecodeTimes(*ones, freeze(grid * scale), np.zeros(grid.shape, bool), code, np.nan)
    file, octaves, cached = found
    keep = file.select(kv_dtype=cached)
    batch, kv, time = file.count("batch_size")[keep], file.count("kv_len")[keep], file.latency_s()[keep]
    shape, rank = {"batch_size": batch, "kv_len": kv}, _rank(family, key, tp)
    ours = time * _held_roofline(source, family, "decode", shape, rank_key(file), rank, cached, kv_dtype)
    rows, cols = np.unique(batch), np.unique(kv)
    grid = np.full((rows.size, cols.size), np.nan)
    for r, c, t in sorted(zip(np.searchsorted(rows, batch), np.searchsorted(cols, kv), ours, strict=True)):
        grid[r, c] = t
    measured = np.isfinite(grid)
    grid = _continued(grid, rows, cols)
    slope = (grid[:, 1] - grid[:, 0]) / (cols[1] - cols[0]) if cols.size > 1 else grid[:, 0] / cols[0]
    grid = np.concatenate([np.maximum(grid[:, 0] - slope * cols[0], 0.0)[:, None], grid], axis=1)
    measured = np.concatenate([np.zeros((rows.size, 1), bool), measured], axis=1)
    if params.monotone:
        isotonic_grid(grid, MAX_ROUNDS, TOLERANCE)
    code = Source.SUBSTITUTED if octaves > 0 else Source.EXACT
    return DecodeTimes(freeze(rows), freeze(np.concatenate([[0.0], cols])), freeze(grid), measured, code, octaves)


def _continued(grid: F64, rows: F64, cols: F64) -> F64:
    for r in range(rows.size):
        known = np.flatnonzero(np.isfinite(grid[r]))
        inside = slice(known[0], known[-1] + 1)
        grid[r, inside] = np.interp(cols[inside], cols[known], grid[r, known])
        for c in range(known[0] - 1, -1, -1):
            if r == 0:
                grid[r, c] = grid[r, c + 1] * cols[c] / cols[c + 1]
            else:
                less = rows[r] / rows[r - 1] * (grid[r - 1, c + 1] - grid[r - 1, c])
                grid[r, c] = max(grid[r, c + 1] - less, grid[r - 1, c])
        last = known[-1]
        for c in range(last + 1, cols.size):
            if r == 0:
                grid[r, c] = grid[r, last] * cols[c] / cols[last]
            else:
                grid[r, c] = grid[r, last] + rows[r] / rows[r - 1] * (grid[r - 1, c] - grid[r - 1, last])
    return grid


def prefill_times(
    source: TableSource, family: str, key: tuple[int, ...], tp: int, params: CostParams, at_one_s: float
) -> PrefillTimes:
    """Return prefill times of one layer; ``at_one_s`` is its time at MFU 1 per query-key pair. [s]"""
    blend = SQRT if params.prefill_blend == "sqrt" else AFFINE_RATE
    found = _choose(source, family, "prefill", key, tp, params, "")
    if found is None:
        code, scale = _absent(params)
        lengths = np.array([0.0, 1.0])
        values = 0.5 * at_one_s * lengths if blend == AFFINE_RATE else np.sqrt(0.5 * at_one_s) * lengths
        return PrefillTimes(freeze(lengths), freeze(values * scale), 0.0, blend, code, np.nan)
    file, octaves, _ = found
    length, time = file.count("seq_len"), file.latency_s()
    rank = _rank(family, key, tp)
    scaled = time * _held_roofline(source, family, "prefill", {"seq_len": length}, rank_key(file), rank, "bf16", "bf16")
    lengths, index = np.unique(length, return_inverse=True)
    ours = np.array([np.median(scaled[index == i]) for i in range(lengths.size)])
    if params.monotone:
        raw = ours.copy()
        isotonic(raw, ours)
    root = np.sqrt(ours)
    slope = (root[1] - root[0]) / (lengths[1] - lengths[0]) if lengths.size > 1 else root[0] / lengths[0]
    start = max(root[0] - slope * lengths[0], 0.0)  # the root of the time at length 0
    code = Source.SUBSTITUTED if octaves > 0 else Source.EXACT
    knots = freeze(np.concatenate([[0.0], lengths]))
    if blend == SQRT:
        return PrefillTimes(knots, freeze(np.concatenate([[start], root])), 0.0, blend, code, octaves)
    launch = min(start**2, ours[0])
    rate = (ours - launch) / lengths
    if params.monotone:
        raw = rate.copy()
        isotonic(raw, rate)
    return PrefillTimes(knots, freeze(np.concatenate([[0.0], rate])), float(launch), blend, code, octaves)


def _absent(params: CostParams) -> tuple[int, float]:
    if params.missing == "nan":
        return Source.MISSING, np.nan
    return Source.ROOFLINE, 1.0


def _rank(family: str, key: tuple[int, ...], tp: int) -> tuple[int, ...]:
    """Return the table key of one rank."""
    sharded = 2 if family == "mha" else 1
    return tuple(max(1, value // tp) if i < sharded else value for i, value in enumerate(key))


def _held_roofline(
    source: TableSource,
    family: str,
    phase: str,
    shape: Mapping[str, F64],
    measured: tuple[int, ...],
    wanted: tuple[int, ...],
    measured_cache: str,
    cache: str,
) -> F64:
    """Return the roofline of a shape on the GPU that is asked for over that of the measured one; 1 if they are one."""

    def roofline(key: tuple[int, ...], kv_dtype: str, gpu: Hardware) -> F64:
        compute = key_flops(family, phase, key, shape) / gpu.peak("bf16")
        moved = key_bytes(family, phase, key, shape, kv_bytes(kv_dtype))
        return np.maximum(compute, 0.0 if moved is None else moved / gpu.hbm_bytes_per_s)

    return roofline(wanted, cache, source.hardware) / roofline(measured, measured_cache, source.reference)


def _choose(
    source: TableSource, family: str, phase: str, key: tuple[int, ...], tp: int, params: CostParams, kv_dtype: str
) -> tuple[BenchFile, float, str] | None:
    """Return the file of a configuration, how far it is in octaves, and the cache dtype of the rows to read.

    This model's at tp, a rank's like it, the nearest of that cache dtype, or the nearest of all.
    """
    files, cache = source.data.select(source.gpu, family, phase), kv_dtype
    of_dtype = [f for f in files if not kv_dtype or f.select(kv_dtype=kv_dtype).any()]
    rank = _rank(family, key, tp)
    exact = next((f for f in of_dtype if f.tp == tp and f.key == key), None)
    exact = exact or next((f for f in of_dtype if rank_key(f) == rank), None)
    if exact is not None:
        return exact, 0.0, cache
    if not files or not params.transfer:
        if params.missing == "raise":
            sought = f"{source.gpu} {phase} attention {'-'.join(map(str, rank))}"
            sought += f", {kv_dtype} cache" if kv_dtype else ""
            raise MissingTableError(sought, [f.path for f in files], 'missing="roofline" prices it by its roofline')
        return None

    def far(file: BenchFile) -> float:
        return max(abs(float(np.log2(a / b))) for a, b in zip(rank_key(file), rank, strict=True))

    nearest = min(of_dtype or files, key=far)
    if not of_dtype and kv_dtype:
        cache = nearest.columns["kv_dtype"][0]
    return nearest, max(far(nearest), LENT), cache
