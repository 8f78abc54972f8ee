"""Compressed attention of DeepSeek-V4, from measured latent attention.

Its heads share one key that is also their value, so a layer is the absorbed form of latent attention, with keys 512
wide instead of 576. Each query reads a window of tokens and, beside it, one entry for every ``ratio`` tokens before:
all of them at ratio 128, those a selector chose at ratio 4. No table holds it. What stands in, marked SUBSTITUTED, by
how many entries a query reads:

* decode: measured latent attention over as many entries: sparse blocks where the layer has a selector, dense ones where
  it has none; above the launch in proportion to the time per entry that the roofline gives;
* prefill: the utilisation that the absorbed attention of sparse blocks reaches on long prompts, over the pairs of
  the window and over those of the compressed history, whose entries cost 1/ratio of a token's; and one launch;
* scores: those of sparse blocks, their utilisation held, over one key for every ``ratio`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mfuroof._types import F64
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.models import AttentionSpec, CompressedSpec, LayerSpec, get_model
from mfuroof.ops.attention import AttentionLayers, AttentionShape
from mfuroof.ops.curves import Op
from mfuroof.ops.dsa import carried, sparse_shape
from mfuroof.ops.lattice import BATCH_OCTAVES, LENGTH_OCTAVES, DecodeGrid, PrefillGrid
from mfuroof.ops.layer import ACTIVATION_BYTES, Builder
from mfuroof.ops.mla import mla_layers
from mfuroof.ops.select import holdings
from mfuroof.ops.selector import score_shape, selector_gemms
from mfuroof.ops.sparse_block import SparseCore, sparse_core
from mfuroof.ops.transfer import Lattice
from mfuroof.precision import kv_format_of

__all__ = ["CompressedShape", "compressed_gemms", "compressed_layers"]

RELATIVE = "deepseek-ai/DeepSeek-V3.2"
"""Model whose latent attention stands in."""


@dataclass(frozen=True)
class CompressedShape(AttentionShape):
    """One shared key and value for every ``ratio`` tokens; ``head_dim`` wide, cached once on every rank."""

    ratio: int = 1

    @property
    def decode_flops_per_pair(self) -> float:
        """Per query and token, of which ``ratio`` share an entry. [FLOP]"""
        return 4.0 * self.heads * self.head_dim / self.ratio

    @property
    def query_bytes_per_token(self) -> float:
        """Queries and outputs, 16 bit; they count to the window, which every layer has. [bytes]"""
        return 4.0 * self.heads * self.head_dim if self.ratio == 1 else 0.0


def compressed_gemms(build: Builder, layer: LayerSpec) -> Iterator[Op]:
    """Yield the products around compressed attention: queries and keys, pooling, selector, grouped output, streams."""
    a, d, tp = layer.attention, build.model.hidden_size, build.parallel.tp_size
    c = _spec(a)
    inward, outward = build.model.module_dtype("mla", layer), build.model.module_dtype("o", layer)
    yield build.gemm("qkv_gemm", layer.count, inward, c.q_lora_rank + a.head_dim, d)
    yield build.gemm("q_up_gemm", layer.count, inward, a.num_attention_heads // tp * a.head_dim, c.q_lora_rank)
    if c.ratio:
        yield build.gemm("pool_gemm", layer.count, "bf16", 2 * c.pooled_features(a.head_dim), d)
    yield from selector_gemms(build, layer, c.q_lora_rank)
    local_rank = c.o_groups // tp * c.o_lora_rank
    yield build.gemm("o_gemm", layer.count, outward, local_rank, a.num_attention_heads * a.head_dim // c.o_groups)
    yield build.gemm("o_gemm", layer.count, outward, d, local_rank)
    if c.streams > 1:  # mixed into one before the attention and before the MLP, and written back after each
        n = c.streams
        yield build.gemm("mix_gemm", 2 * layer.count, "bf16", (2 + n) * n, n * d)
        yield build.elementwise("residual_mix", 2 * layer.count, float(ACTIVATION_BYTES * d * (3 * n + 2)))


def compressed_layers(build: Builder, layer: LayerSpec) -> Iterator[AttentionLayers]:
    """Yield the parts of the compressed attention of one kind: window, history, and the selector's scores.

    Raises
    ------
    MissingTableError
        No latent attention was measured on the GPU, or ``params.transfer`` forbids that it stands in, and
        ``params.missing`` is ``"raise"``.
    """
    a, p = layer.attention, build.measured.params
    c, missing = _spec(a), p.missing
    core = sparse_core(build, layer) if p.transfer else None
    near = _shape(build, a, 1)
    far = _shape(build, a, c.ratio) if c.ratio else None
    if core is None:
        if missing == "raise":
            raise _missing(build)
        shapes = [near, far, score_shape(a.indexer, c.ratio) if a.indexer is not None else None]
        for shape in shapes:
            if shape is not None:
                yield AttentionLayers.roofline(layer.count, shape, build.measured.hardware, missing)
        return
    stand_in = _latent_relative(build, layer)
    relative = sparse_shape(stand_in, stand_in.model.layers[-1], core.kv_dtype)
    entries = np.minimum(_LENGTHS, near.window)
    decode = _decode_over(build, layer, core, stand_in, near, relative)
    window_s = _read(decode, entries)
    launch_s = np.minimum(core.attend.launch_s, decode.time_s[: core.attend.launch_s.size, 0])
    utilisation = _utilisation(build, core, relative)
    window = _prefill(build, near, launch_s, utilisation)
    yield _layers(build, layer.count, near, replace(decode, time_s=window_s), window)
    if far is None:
        return
    chosen = a.indexer.topk_tokens if a.indexer is not None else np.inf
    beyond_s = _read(decode, entries + np.minimum(_LENGTHS / c.ratio, chosen)) - window_s
    history = _prefill(build, far, np.zeros_like(launch_s), utilisation)
    yield _layers(build, layer.count, far, replace(decode, time_s=beyond_s), history)
    if a.indexer is not None:
        all_s = core.decode.time_s - core.decode_up_to(core.topk).time_s
        scores, was = Lattice(all_s, decode.source, all_s[:, 0]), score_shape(core.selector)
        yield carried(build, layer.count, score_shape(a.indexer, c.ratio), scores, core.scores, was)


_LENGTHS = 2.0 ** np.arange(LENGTH_OCTAVES)


def _decode_over(
    build: Builder,
    layer: LayerSpec,
    core: SparseCore,
    stand_in: Builder,
    shape: CompressedShape,
    relative: AttentionShape,
) -> Lattice:
    """Return decode attention over a number of entries (columns), however many tokens they stand for."""
    if layer.attention.indexer is not None:
        lattice, last = core.decode, core.topk
    else:
        dense = mla_layers(stand_in, replace(stand_in.model.layers[-1], count=1)).decode
        lattice, last = Lattice(dense.time_s, dense.source, dense.time_s[:, 0]), int(_LENGTHS[-1])
    time = lattice.time_s.copy()
    column = int(np.log2(last))
    slope = (time[:, column] - time[:, column - 1]) / (_LENGTHS[column] - _LENGTHS[column - 1])
    after = last < _LENGTHS  # beyond the choice the measured times are those of the scores
    time[:, after] = time[:, column, None] + np.maximum(slope, 0.0)[:, None] * (_LENGTHS[after] - last)
    hardware, reference = build.measured.hardware, build.measured.reference
    if layer.attention.indexer is None:
        reference = hardware  # dense blocks come scaled
    grids = AttentionLayers.roofline(1, replace(shape, window=0), hardware, "roofline").decode_roofline_s()
    there = AttentionLayers.roofline(1, replace(relative, window=0), reference, "roofline").decode_roofline_s()
    return Lattice(time, lattice.source, time[:, 0]).scaled_area(grids[0, -1] / there[0, -1])


def _read(decode: Lattice, entries: F64) -> F64:
    """Return the columns of a decode lattice at numbers of entries, linear between them, on beyond the last."""
    out = np.empty((BATCH_OCTAVES, entries.size))
    for row, time in zip(out, decode.time_s, strict=True):
        row[:] = np.interp(entries, _LENGTHS, time)
    return out


def _utilisation(build: Builder, core: SparseCore, relative: AttentionShape) -> float:
    """Return the share of its roofline that the relative reaches above its launch, on prompts of four choices."""
    long = int(np.log2(4 * core.topk))
    roofline = AttentionLayers.roofline(1, relative, build.measured.reference, "roofline").prefill_roofline_s()
    above = core.attend.time_s[0, long] - core.attend.launch_s[0]
    return float(min(roofline[0, long] / above, 1.0)) if above > 0.0 else 1.0


def _prefill(build: Builder, shape: CompressedShape, launch_s: F64, utilisation: float) -> Lattice:
    """Return prefill attention of ``shape`` at that share of its roofline, behind a launch."""
    roofline = AttentionLayers.roofline(1, shape, build.measured.hardware, "roofline").prefill_roofline_s()
    time = launch_s[:, None] + roofline / utilisation
    return Lattice(time, np.full(time.shape, Source.SUBSTITUTED, np.uint8), launch_s)


def _layers(
    build: Builder, count: int, shape: CompressedShape, decode: Lattice, prefill: Lattice
) -> AttentionLayers:
    layers = replace(
        AttentionLayers.roofline(count, shape, build.measured.hardware, "roofline"),
        decode=DecodeGrid(decode.time_s, np.maximum(decode.source, np.uint8(Source.SUBSTITUTED))),
        prefill=PrefillGrid(prefill.launch_s, prefill.time_s, prefill.source),
    )
    return layers.repaired() if build.measured.params.monotone else layers


def _latent_relative(build: Builder, layer: LayerSpec) -> Builder:
    """Return a builder of the relative with as many heads, and the same cache format, parallelism and tables."""
    model = get_model(RELATIVE)
    last, heads = model.layers[-1], layer.attention.num_attention_heads
    attention = replace(last.attention, num_attention_heads=heads, num_key_value_heads=heads)
    layers = (*model.layers[:-1], replace(last, attention=attention))
    return replace(build, model=replace(model, layers=layers, kv_dtype=build.model.kv_dtype))


def _shape(build: Builder, a: AttentionSpec, ratio: int) -> CompressedShape:
    kv = kv_format_of(build.model.kv_dtype)
    window = a.sliding_window or 0
    if ratio > 1:
        window = a.indexer.topk_tokens * ratio if a.indexer is not None else 0
    return CompressedShape(
        heads=a.num_attention_heads // build.parallel.tp_size,
        kv_heads=1,
        head_dim=a.head_dim,
        window=window,
        attn_dtype="bf16",
        kv_dtype="bf16" if kv.name == "fp16" else kv.name,
        kv_bytes_per_token=a.head_dim * kv.bytes_per_element / ratio,
        ratio=ratio,
    )


def _spec(a: AttentionSpec) -> CompressedSpec:
    assert a.compressed is not None
    return a.compressed


def _missing(build: Builder) -> MissingTableError:
    tables = build.measured.tables
    return MissingTableError(
        f"sparse latent attention, which stands in for compressed attention, on {tables.gpu}",
        holdings(tables, "dsa_module_decode", "architecture", "gemm_dtype", "kv_dtype", "num_attention_heads"),
        'missing="roofline" prices it by its roofline, "nan" leaves it open.',
    )
