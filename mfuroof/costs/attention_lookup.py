"""Where the MFU of an attention request comes from: our latency grids, a bucket table, or a rule of `BenchData`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mfuroof._types import F64, I64, U8, freeze
from mfuroof.batch import RaggedColumns, UniformColumns
from mfuroof.core import attention_mfu as kernel
from mfuroof.costs.latency_grids import DecodeTimes, PrefillTimes, decode_times, prefill_times
from mfuroof.costs.refrozen import Refrozen
from mfuroof.costs.table_source import TableSource, or_policy, without_time
from mfuroof.errors import MfuroofWarning
from mfuroof.lookup import Details
from mfuroof.params import CostParams
from mfuroof.tables.peer_gaps import empty_corner
from mfuroof.tables.peer_infersim import zero_cell

__all__ = ["DecodeLookup", "PrefillLookup", "bind_lookups"]


class DecodeLookup(Protocol):
    """MFU of decode attention of every group of a batch."""

    def fill(self, columns: UniformColumns | RaggedColumns, constants: F64, out: F64) -> None:
        """Write the MFU of each step (uniform) or of each group of the steps' range (ragged)."""

    def sources(self, batch: F64, kv_len: F64) -> tuple[U8, F64]:
        """Return source codes and distances of like requests."""


class PrefillLookup(Protocol):
    """MFU of prefill attention of every group of a batch."""

    def fill(self, contexts: I64, new_tokens: I64, constants: F64, out: F64) -> None:
        """Write the MFU of each request; columns of one value are constant."""

    def sources(self, length: F64) -> tuple[U8, F64]:
        """Return source codes and distances of whole prompts."""


@dataclass(frozen=True, eq=False)
class _TableLookup:
    """A rule of `BenchData`, asked for every batch."""

    source: TableSource
    family: str
    phase: str
    key: tuple[int, ...]
    tp: int
    kv_dtype: str
    cap: float

    def read(self, *at: F64) -> Any:
        """Return MFU with source and distance at (batch, KV length) or at (length,)."""
        whole = [np.asarray(x).astype(np.int64) for x in at]
        data, gpu, rule = self.source.data, self.source.gpu, self.source.rule
        options: dict[str, Any] = {"rule": rule, "details": True, "tp": self.tp}
        if not self.source.peer:
            options["missing"] = "nearest" if self.source.transfer else "raise"
        method: Any
        if self.phase == "prefill":
            method = data.attn_prefill_mfu if self.family == "mha" else data.mla_prefill_mfu
        else:
            method = data.attn_decode_mfu if self.family == "mha" else data.mla_decode_mfu
            options["kv_dtype"] = self.kv_dtype
        return or_policy(self.source, lambda: method(gpu, *self.key, *whole, **options), whole[0].shape)

    def priced(self, *at: F64) -> Details:
        """Return `read` where that gives a time: an MFU of zero has none, and is answered as ``missing`` says.

        Warns
        -----
        MfuroofWarning
            Once a table: a blend of BLIS leans on a cell that was not measured.
        """
        found = self.read(*at)
        if self.source.rule == "blis_v2" and self.phase == "decode":
            self._warn_of_gaps(at, np.asarray(found.values))
        zero = np.flatnonzero(np.asarray(found.values) == 0.0)
        if not zero.size:
            return found
        tp, sharded = self.tp, 2 if self.family == "mha" else 1
        rank = tuple(value // tp if i < sharded else value for i, value in enumerate(self.key))
        dtypes = {"kv_dtype": self.kv_dtype} if self.phase == "decode" else {}
        query = [float(x[zero[0]]) for x in at]
        cell = zero_cell(self.source.data, self.family, self.phase, self.source.gpu, rank, query, dtypes)
        return without_time(self.source, found, zero, cell)

    def _warn_of_gaps(self, at: tuple[F64, ...], mfu: F64) -> None:
        data = self.source.data
        said: list[str] = data.once(("blis_v2 gap", self.source.gpu, self.key, self.tp), list)
        cell = None if said else empty_corner(data, self.source.gpu, self.key, self.tp, at, mfu)
        if cell is not None:
            said.append(cell)
            text = f"BLIS's rule reads {cell}, absent or printed as 0, as zero: steps near it come out far too slow. "
            warnings.warn(text + 'CostParams(lookup_rule="latency") continues the grid instead', MfuroofWarning, 3)


@dataclass(frozen=True, eq=False)
class TableDecode(_TableLookup):
    """Decode MFU by a rule of `BenchData`."""

    def fill(self, columns: UniformColumns | RaggedColumns, constants: F64, out: F64) -> None:
        """See `DecodeLookup`."""
        batch, context = _decode_requests(columns, out.size)
        kv = np.minimum(context, self.cap) + constants[2]
        there = (batch > 0) & (kv > 0)
        out[:] = 1.0
        if there.any():
            out[there] = np.asarray(self.priced(batch[there], kv[there]).values, np.float64)

    def sources(self, batch: F64, kv_len: F64) -> tuple[U8, F64]:
        """See `DecodeLookup`."""
        found = self.priced(batch, np.minimum(kv_len, self.cap + 1.0))
        return np.asarray(found.source), np.asarray(found.distance)


@dataclass(frozen=True, eq=False)
class TablePrefill(_TableLookup):
    """Prefill MFU by a rule of `BenchData` at exact lengths."""

    def fill(self, contexts: I64, new_tokens: I64, constants: F64, out: F64) -> None:
        """See `PrefillLookup`."""
        there = np.broadcast_to(new_tokens > 0, out.shape)  # a step without prompts asks nothing of the table
        lengths, index = np.unique(np.broadcast_to(contexts + new_tokens, out.shape)[there], return_inverse=True)
        out[:] = 1.0
        if lengths.size:
            out[there] = np.asarray(self.priced(lengths).values, np.float64)[index.reshape(-1)]

    def sources(self, length: F64) -> tuple[U8, F64]:
        """See `PrefillLookup`."""
        found = self.priced(length)
        return np.asarray(found.source), np.asarray(found.distance)


@dataclass(frozen=True, eq=False)
class BucketPrefill(Refrozen):
    """Prefill MFU at powers of two, read once."""

    lengths: F64
    mfu: F64
    codes: U8
    distances: F64

    def fill(self, contexts: I64, new_tokens: I64, constants: F64, out: F64) -> None:
        """See `PrefillLookup`."""
        kernel.bucket_mfu(self.mfu, self.lengths[0], self.lengths[-1], contexts, new_tokens, out)

    def sources(self, length: F64) -> tuple[U8, F64]:
        """See `PrefillLookup`."""
        at = np.searchsorted(self.lengths, np.clip(length, self.lengths[0], self.lengths[-1]))
        return self.codes[at], self.distances[at]


@dataclass(frozen=True, eq=False)
class GridDecode:
    """Decode MFU from a grid of times of our own."""

    times: DecodeTimes
    at_one_s: float
    cap: float

    def fill(self, columns: UniformColumns | RaggedColumns, constants: F64, out: F64) -> None:
        """See `DecodeLookup`."""
        grid = (self.times.batch, self.times.kv_len, self.times.seconds, self.at_one_s, self.cap)
        if isinstance(columns, UniformColumns):
            kernel.decode_uniform(constants, *grid, columns.decode_batch, columns.decode_context, out)
        else:
            requests = columns.decode_offsets, columns.decode_contexts, columns.decode_counts
            kernel.decode_ragged(constants, *grid, *requests, out)

    def sources(self, batch: F64, kv_len: F64) -> tuple[U8, F64]:
        """See `DecodeLookup`."""
        return self.times.sources(batch, np.minimum(kv_len, self.cap + 1.0))


@dataclass(frozen=True, eq=False)
class CurvePrefill:
    """Prefill MFU from a curve of times of our own."""

    times: PrefillTimes
    at_one_s: float
    cap: float
    launch_kept: bool

    def fill(self, contexts: I64, new_tokens: I64, constants: F64, out: F64) -> None:
        """See `PrefillLookup`."""
        t = self.times
        curve = (t.length, t.values, t.launch_s, t.blend, self.launch_kept, self.at_one_s, self.cap)
        kernel.prefill_curve(constants, *curve, contexts, new_tokens, out)

    def sources(self, length: F64) -> tuple[U8, F64]:
        """See `PrefillLookup`."""
        return self.times.sources(length)


def _decode_requests(columns: UniformColumns | RaggedColumns, size: int) -> tuple[I64, I64]:
    """Return batch and context of each step or group."""
    if isinstance(columns, UniformColumns):
        return np.broadcast_to(columns.decode_batch, size), np.broadcast_to(columns.decode_context, size)
    offsets = columns.decode_offsets
    span = slice(offsets[0], offsets[-1])
    groups = np.diff(offsets)
    counts = np.broadcast_to(columns.decode_counts, columns.decode_contexts.shape)[span]
    running = np.concatenate([[0], np.cumsum(counts)])
    local = offsets - offsets[0]
    return np.repeat(running[local[1:]] - running[local[:-1]], groups), columns.decode_contexts[span]


def bind_lookups(
    source: TableSource,
    family: str,
    key: tuple[int, ...],
    prefill_key: tuple[int, ...],
    tp: int,
    kv_dtype: str,
    params: CostParams,
    *,
    cap: float,
    layer_s: tuple[float, float],
    count: int,
) -> tuple[DecodeLookup, PrefillLookup]:
    """Return both lookups of one kind of layer.

    Parameters
    ----------
    key, prefill_key
        Numbers of the table file, of the whole model.
    layer_s
        Seconds of one layer at MFU 1, per cached token of a decode request and per unit of the prefill square.
    count
        Layers of the kind.
    """
    cache = kv_dtype if kv_dtype != "fp16" else "bf16"
    if params.lookup_rule == "latency":
        decode = decode_times(source, family, key, tp, cache, params, layer_s[0])
        prefill = prefill_times(source, family, prefill_key, tp, params, layer_s[1])
        return (
            GridDecode(decode.scaled(count), count * layer_s[0], cap),
            CurvePrefill(prefill.scaled(count), count * layer_s[1], cap, params.prefix_launch_kept),
        )
    table = TableDecode(source, family, "decode", key, tp, cache, cap)
    exact = TablePrefill(source, family, "prefill", prefill_key, tp, cache, cap)
    table.read(np.ones(1), np.ones(1))  # raises here, not in the first step
    exact.read(np.ones(1))
    if not params.prefill_bucket_min:
        return table, exact
    lengths = [float(params.prefill_bucket_min)]
    while lengths[-1] < params.prefill_bucket_max:
        lengths.append(2.0 * lengths[-1])
    found = exact.read(np.array(lengths))
    mfu = np.asarray(found.values, np.float64)
    buckets = BucketPrefill(
        freeze(lengths),
        freeze(np.where(mfu > 0.0, mfu, np.nan)),
        freeze(found.source, np.uint8),
        freeze(found.distance),
    )
    return table, buckets
