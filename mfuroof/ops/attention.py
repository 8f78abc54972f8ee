"""Attention of one kind of layer on one GPU: its measured grids, and the work behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mfuroof._types import F64
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.hardware import Hardware
from mfuroof.ops.lattice import (
    BATCH_OCTAVES,
    LENGTH_OCTAVES,
    PREFILL_BATCH_OCTAVES,
    DecodeGrid,
    PrefillGrid,
    decode_grid,
    prefill_grid,
    rising,
    rising_prefill,
)
from mfuroof.ops.select import holdings
from mfuroof.ops.transfer import AttentionKey, Lattice, find_lattice
from mfuroof.tables.store import KernelTables

__all__ = ["AttentionLayers", "AttentionShape"]


@dataclass(frozen=True)
class AttentionShape:
    """One attention layer as one GPU sees it.

    Attributes
    ----------
    heads, kv_heads, head_dim
        Local heads, local KV heads, and the width of each.
    window
        Tokens a query can see; 0 for all. [tokens]
    attn_dtype, kv_dtype
        What the scores are computed in, and what the cache holds.
    kv_bytes_per_token
        Of this layer on this GPU. [bytes]
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int
    attn_dtype: str
    kv_dtype: str
    kv_bytes_per_token: float

    @property
    def key(self) -> AttentionKey:
        """Key of the shape in the attention tables."""
        return AttentionKey(
            self.attn_dtype, self.kv_dtype, self.heads, self.kv_heads, self.head_dim, self.window
        )

    @property
    def peak_dtype(self) -> str:
        """Format whose peak rate is the roofline of the products: 16-bit, whatever the cache holds."""
        return "bf16"

    @property
    def decode_flops_per_pair(self) -> float:
        """Work for one query to attend to one key: a product for the score and one for the value. [FLOP]"""
        return 4.0 * self.heads * self.head_dim

    @property
    def prefill_flops_per_pair(self) -> float:
        """The same in prefill; it differs where prefill expands a latent cache first. [FLOP]"""
        return self.decode_flops_per_pair

    def bytes_moved(self, context: F64, new_tokens: F64 | float) -> F64:
        """Return what one request moves in one layer: the cache it can see, its queries and its outputs. [bytes]"""
        seen = np.minimum(context + new_tokens, (self.window or np.inf) + new_tokens - 1.0)
        return self.kv_bytes_per_token * seen + self.query_bytes_per_token * new_tokens

    @property
    def query_bytes_per_token(self) -> float:
        """Queries read and outputs written for one new token, 16 bit. [bytes]"""
        return 4.0 * self.heads * self.head_dim


@dataclass(frozen=True, eq=False)
class AttentionLayers:
    """All attention layers of one shape: how many, and their two grids (of one layer)."""

    count: int
    shape: AttentionShape
    decode: DecodeGrid
    prefill: PrefillGrid
    peak_flops_per_s: float
    hbm_bytes_per_s: float

    @classmethod
    def read(
        cls,
        count: int,
        shape: AttentionShape,
        tables: KernelTables,
        *,
        hardware: Hardware,
        reference: Hardware,
        monotone: bool,
        blend: str,
        missing: str,
        transfer: bool = True,
    ) -> AttentionLayers:
        """Read the grids of ``shape`` from the tables.

        Raises
        ------
        MissingTableError
            The shape is in no table, none related to it may stand in, and ``missing`` is ``"raise"``.
        """
        layers = cls.roofline(count, shape, hardware, missing)
        there = cls.roofline(count, shape, reference, "roofline")
        elsewhere = (hardware.peak("bf16"), hardware.hbm_bytes_per_s) != (there.peak_flops_per_s, there.hbm_bytes_per_s)

        def read_decode(found: dict[str, np.ndarray]) -> Lattice:
            grid = decode_grid(found["batch_size"], found["kv_len"], found["latency_s"], monotone=monotone)
            return Lattice(grid.time_s, grid.source, grid.time_s[:, 0])

        def read_prefill(found: dict[str, np.ndarray]) -> Lattice:
            grid = prefill_grid(
                found["batch_size"], found["new_tokens"], found["latency_s"], monotone=monotone, blend=blend
            )
            return Lattice(grid.time_s, grid.source, grid.launch_s)

        decode, prefill = layers.decode, layers.prefill
        lattice = find_lattice(tables, "attn_decode", shape.key, read_decode, transfer=transfer)
        if lattice is not None:
            if elsewhere:
                lattice = lattice.carried(layers.decode_roofline_s() / there.decode_roofline_s())
            decode = DecodeGrid(lattice.time_s, lattice.source)
        elif missing == "raise":
            raise _missing(tables, "attn_decode", shape)
        lattice = find_lattice(tables, "attn_prefill", shape.key, read_prefill, transfer=transfer)
        if lattice is not None:
            if elsewhere:
                lattice = lattice.carried(layers.prefill_roofline_s() / there.prefill_roofline_s())
            prefill = PrefillGrid(lattice.launch_s, lattice.time_s, lattice.source)
        elif missing == "raise":
            raise _missing(tables, "attn_prefill", shape)
        layers = replace(layers, decode=decode, prefill=prefill)
        return layers.repaired() if monotone else layers

    @classmethod
    def roofline(cls, count: int, shape: AttentionShape, hardware: Hardware, missing: str) -> AttentionLayers:
        """Return grids without data: the roofline, or NaN where ``missing`` is not ``"roofline"``."""
        peak_flops_per_s, hbm_bytes_per_s = hardware.peak(shape.peak_dtype), hardware.hbm_bytes_per_s
        nan, code = (1.0, Source.ROOFLINE) if missing == "roofline" else (np.nan, Source.MISSING)
        decode_codes = np.full((BATCH_OCTAVES, LENGTH_OCTAVES), code, np.uint8)
        prefill_codes = np.full((PREFILL_BATCH_OCTAVES, LENGTH_OCTAVES), code, np.uint8)
        empty = cls(
            count,
            shape,
            DecodeGrid(np.empty((0, 0)), decode_codes),
            PrefillGrid(np.empty(0), np.empty((0, 0)), prefill_codes),
            peak_flops_per_s,
            hbm_bytes_per_s,
        )
        decode, prefill = nan * empty.decode_roofline_s(), nan * empty.prefill_roofline_s()
        return replace(
            empty,
            decode=DecodeGrid(decode, decode_codes),
            prefill=PrefillGrid(prefill[:, 0].copy(), prefill, prefill_codes),
        )

    def repaired(self) -> AttentionLayers:
        """Return the same layers with grids that rise along both axes, none below its roofline."""
        decode = rising(self.decode.time_s, self.decode_roofline_s())
        launch, prefill = rising_prefill(self.prefill.launch_s, self.prefill.time_s, self.prefill_roofline_s())
        return replace(
            self,
            decode=replace(self.decode, time_s=decode),
            prefill=replace(self.prefill, launch_s=launch, time_s=prefill),
        )

    def slowed(self, factor: float) -> AttentionLayers:
        """Return the same layers with every kernel taking ``factor`` times as long."""
        decode = replace(self.decode, time_s=self.decode.time_s * factor)
        prefill = replace(self.prefill, time_s=self.prefill.time_s * factor, launch_s=self.prefill.launch_s * factor)
        return replace(self, decode=decode, prefill=prefill)

    def decode_roofline_s(self) -> F64:
        """Return the time no decode kernel can beat, on the decode lattice. [s]"""
        batch = 2.0 ** np.arange(BATCH_OCTAVES)[:, None]
        kv_len = np.minimum(2.0 ** np.arange(LENGTH_OCTAVES), self.shape.window or np.inf)
        compute = batch * kv_len * self.shape.decode_flops_per_pair / self.peak_flops_per_s
        memory = batch * (kv_len * self.shape.kv_bytes_per_token + self.shape.query_bytes_per_token)
        return np.maximum(compute, memory / self.hbm_bytes_per_s)

    def prefill_roofline_s(self) -> F64:
        """Return the time no prefill kernel can beat, on the prefill lattice. [s]"""
        batch = 2.0 ** np.arange(PREFILL_BATCH_OCTAVES)[:, None]
        length = 2.0 ** np.arange(LENGTH_OCTAVES)
        reach = np.minimum(length, self.shape.window or np.inf)
        compute = batch * reach * (length - 0.5 * reach) * self.shape.prefill_flops_per_pair / self.peak_flops_per_s
        memory = batch * self.shape.bytes_moved(np.zeros(1), length)
        return np.maximum(compute, memory / self.hbm_bytes_per_s)


def _missing(tables: KernelTables, family: str, shape: AttentionShape) -> MissingTableError:
    sought = (
        f"{family} with {shape.heads} heads, {shape.kv_heads} KV heads, head_dim {shape.head_dim}, "
        f"window {shape.window}, {shape.attn_dtype} scores, {shape.kv_dtype} KV on {tables.gpu} ({tables.engine})"
    )
    sizes = ("num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window")
    exists = holdings(tables, family, *sizes, "attn_dtype", "kv_dtype")
    dtypes = f"{shape.attn_dtype} {shape.kv_dtype}"
    near = [e for e in exists if e.split()[2] == str(shape.head_dim) and e.endswith(dtypes)]
    shown = [f"heads, KV heads, head_dim, window, dtypes: {'; '.join(near or exists)}"] if exists else []
    return MissingTableError(sought, shown, 'missing="roofline" prices it by its roofline, "nan" leaves it open.')
