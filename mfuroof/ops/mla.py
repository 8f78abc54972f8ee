"""Latent attention (MLA) from measured whole blocks: projections taken out, so that a mixed step pays them once.

The tables time a whole attention block, projections included, for a pure decode or a pure prefill batch. An engine
runs the projections once over all tokens of a step and the attention proper per phase. So the block's GEMMs, read from
the GEMM tables at the block's own token count, are subtracted; what is left (absorption or expansion of the latent,
scores, values) stands on the attention lattices, never below its roofline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64
from mfuroof.errors import MissingTableError
from mfuroof.models import AttentionSpec, LayerSpec, MlaSpec
from mfuroof.ops.attention import AttentionLayers, AttentionShape
from mfuroof.ops.curves import Op
from mfuroof.ops.lattice import DecodeGrid, PrefillGrid, decode_grid, prefill_grid
from mfuroof.ops.layer import Builder
from mfuroof.ops.select import holdings, rows
from mfuroof.precision import kv_format_of

__all__ = ["MlaShape", "mla_gemms", "mla_layers"]


@dataclass(frozen=True)
class MlaShape(AttentionShape):
    """A latent attention layer: the cache is one latent vector a token, whatever the heads and ranks."""

    latent: int = 0
    rope: int = 0
    nope: int = 0
    value: int = 0

    @property
    def decode_flops_per_pair(self) -> float:
        """Absorbed form: scores over latent and rotary part, values over the latent. [FLOP]"""
        return 2.0 * self.heads * (2 * self.latent + self.rope)

    @property
    def prefill_flops_per_pair(self) -> float:
        """Expanded form: scores over both parts of a head, values over its own width. [FLOP]"""
        return 2.0 * self.heads * (self.nope + self.rope + self.value)


def mla_gemms(build: Builder, layer: LayerSpec) -> Iterator[Op]:
    """Yield the projections around the attention proper: to the latents, to the queries, and out."""
    m, d = _spec(layer.attention), build.model.hidden_size
    heads = layer.attention.num_attention_heads // build.parallel.tp_size
    dtype = build.model.module_dtype("mla", layer)
    if m.q_lora_rank is None:
        yield build.gemm("qkv_gemm", layer.count, dtype, heads * m.qk_head_dim + m.cached_elements, d)
    else:
        yield build.gemm("qkv_gemm", layer.count, dtype, m.q_lora_rank + m.cached_elements, d)
        yield build.gemm("q_up_gemm", layer.count, dtype, heads * m.qk_head_dim, m.q_lora_rank)
    yield build.gemm("o_gemm", layer.count, build.model.module_dtype("o", layer), d, heads * m.v_head_dim)


def mla_layers(build: Builder, layer: LayerSpec) -> AttentionLayers:
    """Return the attention proper of the MLA layers of one kind.

    Raises
    ------
    MissingTableError
        No block of that many heads and those dtypes was measured and ``params.missing`` is ``"raise"``.
    """
    m, measured = _spec(layer.attention), build.measured
    heads = layer.attention.num_attention_heads // build.parallel.tp_size
    kv = kv_format_of(build.model.kv_dtype)
    per_token = kv.mla_bytes_per_token or m.cached_elements * kv.bytes_per_element
    shape = MlaShape(
        heads, 1, m.qk_head_dim, 0, "bf16", "bf16" if kv.name == "fp16" else kv.name, float(per_token),
        m.kv_lora_rank, m.qk_rope_head_dim, m.qk_nope_head_dim, m.v_head_dim,
    )  # fmt: skip
    peak, bandwidth = measured.hardware.peak("bf16"), measured.hardware.hbm_bytes_per_s
    empty = AttentionLayers.roofline(layer.count, shape, peak, bandwidth, measured.params.missing)
    gemms = tuple(mla_gemms(build, layer))
    found = {name: _rows(build, layer, shape, name) for name in ("mla_module_decode", "mla_module_prefill")}
    if any(not r["latency_s"].size for r in found.values()):
        if measured.params.missing == "raise":
            raise _missing(build, shape, layer)
        return empty
    p = measured.params
    decode = found["mla_module_decode"]
    cached = decode["kv_len"] - 1  # measured at 2^i cached tokens and the new one
    core = _without_gemms(decode["latency_s"], decode["batch_size"], gemms, layer.count)
    decode_lattice = decode_grid(decode["batch_size"], cached, core, monotone=p.monotone)
    prefill = found["mla_module_prefill"]
    core = _without_gemms(prefill["latency_s"], prefill["batch_size"] * prefill["new_tokens"], gemms, layer.count)
    prefill_lattice = prefill_grid(
        prefill["batch_size"], prefill["new_tokens"], core, monotone=p.monotone, blend=p.prefill_blend
    )
    return AttentionLayers(
        layer.count,
        shape,
        DecodeGrid(np.maximum(decode_lattice.time_s, empty.decode_roofline_s()), decode_lattice.source),
        PrefillGrid(
            prefill_lattice.launch_s,
            np.maximum(prefill_lattice.time_s, empty.prefill_roofline_s()),
            prefill_lattice.source,
        ),
        peak,
        bandwidth,
    )


def _spec(attention: AttentionSpec) -> MlaSpec:
    assert attention.mla is not None
    return attention.mla


def _without_gemms(block_s: F64, tokens: np.ndarray, gemms: tuple[Op, ...], count: int) -> F64:
    """Return block times less their projections, at least a tenth of the block: noise must not eat the rest."""
    counts = tokens.astype(np.float64)
    projections = sum(op.count / count * op.curve.at(counts) for op in gemms)
    return np.maximum(block_s - projections, 0.1 * block_s)


def _rows(build: Builder, layer: LayerSpec, shape: MlaShape, family: str) -> dict[str, np.ndarray]:
    dtype = build.model.module_dtype("mla", layer)
    return rows(
        build.measured.tables,
        family,
        gemm_dtype="bf16" if dtype == "fp16" else dtype,
        attn_dtype="bf16",
        kv_dtype=shape.kv_dtype,
        num_attention_heads=shape.heads,
    )


def _missing(build: Builder, shape: MlaShape, layer: LayerSpec) -> MissingTableError:
    tables = build.measured.tables
    return MissingTableError(
        f"an MLA block with {shape.heads} heads, {build.model.module_dtype('mla', layer)} projections and "
        f"{shape.kv_dtype} KV on {tables.gpu} ({tables.engine})",
        holdings(tables, "mla_module_decode", "gemm_dtype", "kv_dtype", "num_attention_heads"),
        'missing="roofline" prices it by its roofline, "nan" leaves it open.',
    )
