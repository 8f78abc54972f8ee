"""DeepSeek sparse attention: a selector scores all that is cached, attention reads at most what it chose.

The two parts grow differently behind a cached prefix, so each has lattices of its own: attention over at most ``topk``
tokens is a latent attention with a window of that length, the scores are an attention without one. Both come out of
measured blocks (`mfuroof.ops.sparse_block`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mfuroof._types import F64
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.models import LayerSpec
from mfuroof.ops.attention import AttentionLayers, AttentionShape
from mfuroof.ops.lattice import DecodeGrid, PrefillGrid
from mfuroof.ops.layer import Builder
from mfuroof.ops.mla import MlaShape, latent_shape, mla_layers
from mfuroof.ops.select import holdings
from mfuroof.ops.selector import score_layers, score_shape
from mfuroof.ops.sparse_block import sparse_core
from mfuroof.ops.transfer import Lattice, cut_to_window

__all__ = ["SparseShape", "carried", "dsa_layers", "sparse_shape"]


@dataclass(frozen=True)
class SparseShape(MlaShape):
    """Latent attention over chosen tokens: absorbed in prefill too, as every query reads tokens of its own."""

    @property
    def prefill_flops_per_pair(self) -> float:
        """As in decode. [FLOP]"""
        return self.decode_flops_per_pair


def dsa_layers(build: Builder, layer: LayerSpec) -> Iterator[AttentionLayers]:
    """Yield the two parts of the sparse attention layers of one kind: attention over the choice, and the scores.

    Layers without a selector of their own are the first part alone. Where no sparse block was measured under any
    engine, dense latent attention cut to the choice stands in, and the scores are priced by `score_layers`.

    Raises
    ------
    MissingTableError
        No latent attention at all was measured, or none that may stand in, and ``params.missing`` is ``"raise"``.
    """
    i, kv_dtype = layer.attention.indexer, build.model.kv_dtype
    assert i is not None
    core, shape, p = sparse_core(build, layer), sparse_shape(build, layer, kv_dtype), build.measured.params
    if core is None and not p.transfer:
        if p.missing == "raise":
            raise _missing(build, shape)
        for bare in (shape, score_shape(i)) if i.num_heads else (shape,):
            yield AttentionLayers.roofline(layer.count, bare, build.measured.hardware, p.missing)
        return
    if core is None:
        yield _dense_cut(build, layer, shape)
        if i.num_heads:
            yield score_layers(build, layer.count, score_shape(i))
        return
    read = min(i.topk_tokens, core.topk)
    was = replace(sparse_shape(build, layer, core.kv_dtype), window=read)
    attend, prefill = core.decode_up_to(read), core.attend
    if read < core.topk:  # a smaller choice than the measured one: its share of the pairs
        whole = replace(was, window=core.topk)
        prefill = prefill.scaled_area(_prefill_roofline_s(build, was) / _prefill_roofline_s(build, whole))
    if not i.num_heads and p.transfer:  # dense attention over as many tokens has no selector's launches either
        dense = _dense_cut(build, layer, shape).decode.time_s
        codes = np.maximum(attend.source, np.uint8(Source.SUBSTITUTED))
        attend = replace(attend, time_s=np.minimum(attend.time_s, dense), source=codes)
    yield carried(build, layer.count, shape, attend, prefill, was)
    if i.num_heads:
        beyond = core.decode.time_s - attend.time_s
        scores = Lattice(beyond, core.decode.source, beyond[:, 0])
        yield carried(build, layer.count, score_shape(i), scores, core.scores, score_shape(core.selector))


def carried(
    build: Builder, count: int, shape: AttentionShape, decode: Lattice, prefill: Lattice, was: AttentionShape
) -> AttentionLayers:
    """Return lattices of the shape ``was`` on the measured GPU as those of ``shape`` on the one that is asked for."""
    measured = build.measured
    grids = AttentionLayers.roofline(count, shape, measured.hardware, "roofline")
    there = AttentionLayers.roofline(count, was, measured.reference, "roofline")
    decode = replace(decode, time_s=np.maximum(decode.time_s, there.decode_roofline_s()))
    prefill = replace(prefill, time_s=np.maximum(prefill.time_s, there.prefill_roofline_s()))
    if shape != was or measured.hardware != measured.reference:
        decode = decode.carried(grids.decode_roofline_s() / there.decode_roofline_s())
        prefill = prefill.carried(grids.prefill_roofline_s() / there.prefill_roofline_s())
    layers = replace(
        grids,
        decode=DecodeGrid(decode.time_s, decode.source),
        prefill=PrefillGrid(prefill.launch_s, prefill.time_s, prefill.source),
    )
    return layers.repaired() if measured.params.monotone else layers


def sparse_shape(build: Builder, layer: LayerSpec, kv_dtype: str) -> SparseShape:
    """Return attention over the choice of a selector as one rank sees it."""
    i, dense = layer.attention.indexer, latent_shape(build, layer, kv_dtype)
    assert i is not None
    return SparseShape(**{**vars(dense), "window": i.topk_tokens})


def _dense_cut(build: Builder, layer: LayerSpec, shape: SparseShape) -> AttentionLayers:
    """Return dense latent attention over no more than the choice."""
    dense = mla_layers(build, layer)
    decode = cut_to_window(
        Lattice(dense.decode.time_s, dense.decode.source, dense.decode.time_s[:, 0]), shape.window, decode=True
    )
    prefill = cut_to_window(
        Lattice(dense.prefill.time_s, dense.prefill.source, dense.prefill.launch_s), shape.window, decode=False
    )
    cut = replace(
        AttentionLayers.roofline(layer.count, shape, build.measured.hardware, "roofline"),
        decode=DecodeGrid(decode.time_s, decode.source),
        prefill=PrefillGrid(prefill.launch_s, prefill.time_s, prefill.source),
    )
    return cut.repaired() if build.measured.params.monotone else cut


def _prefill_roofline_s(build: Builder, shape: SparseShape) -> F64:
    return AttentionLayers.roofline(1, shape, build.measured.reference, "roofline").prefill_roofline_s()


def _missing(build: Builder, shape: SparseShape) -> MissingTableError:
    tables = build.measured.tables
    return MissingTableError(
        f"a sparse attention block with {shape.heads} heads on {tables.gpu} ({tables.engine})",
        holdings(tables, "dsa_module_decode", "architecture", "gemm_dtype", "kv_dtype", "num_attention_heads"),
        'missing="roofline" prices it by its roofline, "nan" leaves it open; transfer=True lets a relative stand in.',
    )
