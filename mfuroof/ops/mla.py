"""Latent attention (MLA) from measured whole blocks: projections taken out, so that a mixed step pays them once.

The tables time a whole attention block, projections included, for a pure decode or a pure prefill batch. An engine
runs the projections once over all tokens of a step and the attention proper per phase. So the block's GEMMs, read from
the GEMM tables at the block's own token count, are subtracted; what is left (absorption or expansion of the latent,
scores, values) stands on the attention lattices, never below its roofline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mfuroof._types import F64
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.models import AttentionSpec, LayerSpec, MlaSpec
from mfuroof.ops.attention import AttentionLayers, AttentionShape
from mfuroof.ops.curves import Op
from mfuroof.ops.lattice import DecodeGrid, PrefillGrid, decode_grid, prefill_grid
from mfuroof.ops.layer import Builder
from mfuroof.ops.select import holdings, rows
from mfuroof.ops.sources import MeasuredOps
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


def mla_gemms(build: Builder, layer: LayerSpec, dtype: str | None = None) -> Iterator[Op]:
    """Yield the projections around the attention proper: to the latents, to the queries, and out.

    ``dtype`` replaces the checkpoint's own format, as a measured block had it.
    """
    m, d = _spec(layer.attention), build.model.hidden_size
    heads = layer.attention.num_attention_heads // build.parallel.tp_size
    inward = dtype or build.model.module_dtype("mla", layer)
    if m.q_lora_rank is None:
        yield build.gemm("qkv_gemm", layer.count, inward, heads * m.qk_head_dim + m.cached_elements, d)
    else:
        yield build.gemm("qkv_gemm", layer.count, inward, m.q_lora_rank + m.cached_elements, d)
        yield build.gemm("q_up_gemm", layer.count, inward, heads * m.qk_head_dim, m.q_lora_rank)
    outward = dtype or build.model.module_dtype("o", layer)
    yield build.gemm("o_gemm", layer.count, outward, d, heads * m.v_head_dim)


def mla_layers(build: Builder, layer: LayerSpec) -> AttentionLayers:
    """Return the attention proper of the MLA layers of one kind.

    Raises
    ------
    MissingTableError
        No block of that many heads was measured and ``params.missing`` is ``"raise"``.
    """
    measured, p = build.measured, build.measured.params
    shape = _shape(build, layer, build.model.kv_dtype)
    grids = AttentionLayers.roofline(layer.count, shape, measured.hardware, p.missing)
    core = _core_of_block(build, layer, shape) or _core_of_kernels(build, layer, shape)
    if core is None:
        if p.missing == "raise":
            raise _missing(build, shape, layer)
        return grids
    there = AttentionLayers.roofline(layer.count, _shape(build, layer, core.kv_dtype), measured.reference, "roofline")
    decode = decode_grid(*core.decode, monotone=p.monotone)
    prefill = prefill_grid(*core.prefill, monotone=p.monotone, blend=p.prefill_blend)
    decode_s = np.maximum(decode.time_s, there.decode_roofline_s())
    prefill_s = np.maximum(prefill.time_s, there.prefill_roofline_s())
    launch_s, decode_code, prefill_code = prefill.launch_s, decode.source, prefill.source
    if core.kv_dtype != shape.kv_dtype or measured.hardware != measured.reference:
        decode_s = decode_s * (grids.decode_roofline_s() / there.decode_roofline_s())
        ratio = grids.prefill_roofline_s() / there.prefill_roofline_s()
        prefill_s, launch_s = prefill_s * ratio, launch_s * ratio[:, 0]
        decode_code = np.maximum(decode_code, np.uint8(Source.SUBSTITUTED))
        prefill_code = np.maximum(prefill_code, np.uint8(Source.SUBSTITUTED))
    layers = replace(
        grids, decode=DecodeGrid(decode_s, decode_code), prefill=PrefillGrid(launch_s, prefill_s, prefill_code)
    )
    return layers.repaired() if p.monotone else layers


Samples = tuple[np.ndarray, np.ndarray, F64]


@dataclass(frozen=True, eq=False)
class _Core:
    """Measured attention proper: (batch, cached tokens, time) of decode, (batch, new tokens, time) of prefill."""

    kv_dtype: str
    decode: Samples
    prefill: Samples


def _core_of_block(build: Builder, layer: LayerSpec, shape: MlaShape) -> _Core | None:
    """Return what is left of a measured block when its projections are taken out."""
    block = _find_block(build, layer, shape)
    if block is None:
        return None
    measured = build.measured
    home = MeasuredOps(measured.tables, measured.reference, measured.params, measured.reference)
    at_home = Builder(build.model, build.parallel, home, build.collectives)
    gemms = tuple(mla_gemms(at_home, layer, block.gemm_dtype))
    d, f = block.decode, block.prefill
    decode_s = _without_gemms(d["latency_s"], d["batch_size"], gemms, layer.count)
    prefill_s = _without_gemms(f["latency_s"], f["batch_size"] * f["new_tokens"], gemms, layer.count)
    return _Core(
        block.kv_dtype,
        (d["batch_size"], d["kv_len"] - 1, decode_s),  # measured at 2^i cached tokens and the new one
        (f["batch_size"], f["new_tokens"], prefill_s),
    )


def _core_of_kernels(build: Builder, layer: LayerSpec, shape: MlaShape) -> _Core | None:
    """Put the attention proper together from its kernels: absorption around decode, expansion before prefill."""
    tables, m = build.measured.tables, _spec(layer.attention)
    for kv_dtype in dict.fromkeys((shape.kv_dtype, "bf16", "fp8")):
        where: dict[str, str | int] = {
            "attn_dtype": "bf16",
            "kv_dtype": kv_dtype,
            "num_attention_heads": shape.heads,
        }
        d, f = (rows(tables, family, **where) for family in ("mla_decode", "mla_prefill"))
        if not d["latency_s"].size or not f["latency_s"].size:
            continue
        absorbed = np.zeros(d["latency_s"].size)
        for op in ("pre", "post"):
            bmm = rows(tables, "mla_bmm", op=op, dtype="bf16", num_attention_heads=shape.heads)
            if bmm["latency_s"].size:
                absorbed += np.interp(d["batch_size"], bmm["tokens"], bmm["latency_s"])
        expand = build.measured.gemm_curve(
            build.model.module_dtype("mla", layer),
            shape.heads * (m.qk_nope_head_dim + m.v_head_dim),
            m.kv_lora_rank,
        )
        expanded = expand.at((f["batch_size"] * f["new_tokens"]).astype(np.float64))
        cached = 2 ** np.round(np.log2(d["kv_len"])).astype(np.int64)
        return _Core(
            kv_dtype,
            (d["batch_size"], cached, d["latency_s"] + absorbed),
            (f["batch_size"], f["new_tokens"], f["latency_s"] + expanded),
        )
    return None


@dataclass(frozen=True, eq=False)
class _Block:
    """Measured rows of a whole MLA block, and the dtypes it was measured with."""

    gemm_dtype: str
    kv_dtype: str
    decode: dict[str, np.ndarray]
    prefill: dict[str, np.ndarray]


def _find_block(build: Builder, layer: LayerSpec, shape: MlaShape) -> _Block | None:
    """Return a measured block of that many heads: of the checkpoint's dtypes if there is one, else of another.

    The projections are taken out anyway, so a block with other projections leaves the same attention behind.
    """
    own = build.model.module_dtype("mla", layer)
    for gemm_dtype in dict.fromkeys((own, "bf16", "fp8_block", "nvfp4")):
        for kv_dtype in dict.fromkeys((shape.kv_dtype, "bf16", "fp8")):
            where = {"gemm_dtype": gemm_dtype, "attn_dtype": "bf16", "kv_dtype": kv_dtype}
            found = [
                rows(build.measured.tables, family, **where, num_attention_heads=shape.heads)
                for family in ("mla_module_decode", "mla_module_prefill")
            ]
            if all(f["latency_s"].size for f in found):
                return _Block(gemm_dtype, kv_dtype, *found)
    return None


def _shape(build: Builder, layer: LayerSpec, kv_dtype: str) -> MlaShape:
    m, kv = _spec(layer.attention), kv_format_of(kv_dtype)
    per_token = kv.mla_bytes_per_token or m.cached_elements * kv.bytes_per_element
    return MlaShape(
        heads=layer.attention.num_attention_heads // build.parallel.tp_size,
        kv_heads=1,
        head_dim=m.qk_head_dim,
        window=0,
        attn_dtype="bf16",
        kv_dtype="bf16" if kv.name == "fp16" else kv.name,
        kv_bytes_per_token=float(per_token),
        latent=m.kv_lora_rank,
        rope=m.qk_rope_head_dim,
        nope=m.qk_nope_head_dim,
        value=m.v_head_dim,
    )


def _spec(attention: AttentionSpec) -> MlaSpec:
    assert attention.mla is not None
    return attention.mla


def _without_gemms(block_s: F64, tokens: np.ndarray, gemms: tuple[Op, ...], count: int) -> F64:
    """Return block times less their projections, at least a tenth of the block: noise must not eat the rest."""
    counts = tokens.astype(np.float64)
    projections = sum(op.count / count * op.curve.at(counts) for op in gemms)
    return np.maximum(block_s - projections, 0.1 * block_s)


def _missing(build: Builder, shape: MlaShape, layer: LayerSpec) -> MissingTableError:
    tables = build.measured.tables
    return MissingTableError(
        f"an MLA block with {shape.heads} heads on {tables.gpu} ({tables.engine})",
        holdings(tables, "mla_module_decode", "gemm_dtype", "kv_dtype", "num_attention_heads"),
        'missing="roofline" prices it by its roofline, "nan" leaves it open.',
    )
