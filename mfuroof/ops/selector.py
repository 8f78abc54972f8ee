"""The selector of a sparse attention: its projections, and the scores of every new token against all that is cached.

A selector keeps one small FP8 key per cached token (or per ``ratio`` tokens), scores it against a few query heads, and
hands the best tokens to the attention proper. Its heads are not sharded: every rank scores everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mfuroof.core.sources import Source
from mfuroof.models import IndexerSpec, LayerSpec
from mfuroof.ops.attention import AttentionLayers, AttentionShape
from mfuroof.ops.curves import Op
from mfuroof.ops.lattice import DecodeGrid, PrefillGrid
from mfuroof.ops.layer import Builder

__all__ = ["ScoreShape", "score_layers", "score_shape", "selector_gemms"]

SCALE_BLOCK = 128
"""Key elements that share one 32-bit scale."""
DECODE_UTILISATION = 0.7
PREFILL_UTILISATION = 0.4
"""Of the roofline, as the blocks of DeepSeek-V3.2 reach them on H200: the slope of 512 requests over their cache
(38 ps a token where the bytes take 28), and of the longest prompts over their square (21 ps a pair of 8.3)."""


@dataclass(frozen=True)
class ScoreShape(AttentionShape):
    """Scores of a selector: ``heads`` query heads against one key of ``head_dim`` for every ``ratio`` tokens."""

    ratio: int = 1

    @property
    def peak_dtype(self) -> str:
        """FP8, where the GPU has it."""
        return "fp8"

    @property
    def decode_flops_per_pair(self) -> float:
        """One product of a query and a key per head; there are no values. [FLOP]"""
        return 2.0 * self.heads * self.head_dim / self.ratio

    @property
    def query_bytes_per_token(self) -> float:
        """Queries read, 8 bit; the scores may stay on chip. [bytes]"""
        return float(self.heads * self.head_dim)


def score_shape(i: IndexerSpec, ratio: int = 1) -> ScoreShape:
    """Return the scores of a selector over keys that stand for ``ratio`` tokens each."""
    stored = i.head_dim * (1.0 + 4.0 / SCALE_BLOCK)
    return ScoreShape(i.num_heads, 1, i.head_dim, 0, "fp8", "fp8", stored / ratio, ratio)


def selector_gemms(build: Builder, layer: LayerSpec, query_rank: int, dtype: str | None = None) -> Iterator[Op]:
    """Yield the projections of a selector: its queries from what is ``query_rank`` wide, its keys and head weights.

    ``dtype`` replaces the checkpoint's own format, as a measured block had it.
    """
    i, d, a = layer.attention.indexer, build.model.hidden_size, layer.attention
    if i is None or not i.num_heads:
        return
    own = dtype or build.model.module_dtype("indexer", layer)
    yield build.gemm("selector_gemm", layer.count, own, i.num_heads * i.head_dim, query_rank)
    if i.kind == "csa":
        assert a.compressed is not None
        pooled = 2 * a.compressed.pooled_features(i.head_dim)  # keys and what weighs them, before they are pooled
        yield build.gemm("selector_gemm", layer.count, "bf16", i.num_heads + pooled, d)
        return
    yield build.gemm("selector_gemm", layer.count, own, i.head_dim, d)
    if i.kind == "dsa":
        yield build.gemm("selector_gemm", layer.count, "bf16", i.num_heads, d)


def score_layers(build: Builder, count: int, shape: ScoreShape) -> AttentionLayers:
    """Return the scores by their roofline and the utilisation that selectors reach elsewhere, marked SUBSTITUTED."""
    measured = build.measured
    bare = AttentionLayers.roofline(count, shape, measured.hardware, "roofline")
    decode_s, prefill_s = bare.decode.time_s / DECODE_UTILISATION, bare.prefill.time_s / PREFILL_UTILISATION
    code = np.uint8(Source.SUBSTITUTED)
    layers = replace(
        bare,
        decode=DecodeGrid(decode_s, np.full(decode_s.shape, code)),
        prefill=PrefillGrid(prefill_s[:, 0].copy(), prefill_s, np.full(prefill_s.shape, code)),
    )
    return layers.repaired() if measured.params.monotone else layers
