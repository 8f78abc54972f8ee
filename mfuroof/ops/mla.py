"""Latent attention (MLA) from measured whole blocks: projections taken out, so that a mixed step pays them once.

The tables time a whole attention block, projections included, for a pure decode or a pure prefill batch. An engine
runs the projections once over all tokens of a step and the attention proper per phase. So the block's GEMMs, read from
the GEMM tables at the block's own token count, are subtracted; what is left (absorption or expansion of the latent,
scores, values) stands on the attention lattices, never below its roofline. A number of heads that was not measured is
interpolated between its neighbours.
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
from mfuroof.ops.transfer import Lattice, between_heads
from mfuroof.params import CostParams
from mfuroof.precision import kv_format_of

__all__ = [
    "GEMM_DTYPES",
    "KV_DTYPES",
    "MlaShape",
    "decode_lattice",
    "latent_shape",
    "mla_gemms",
    "mla_layers",
    "prefill_lattice",
    "without_gemms",
]

GEMM_DTYPES = ("bf16", "fp8_block", "nvfp4")
KV_DTYPES = ("bf16", "fp8")
"""What blocks were measured with; the checkpoint's own comes first."""


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


def mla_gemms(build: Builder, layer: LayerSpec, dtype: str | None = None, heads: int | None = None) -> Iterator[Op]:
    """Yield the projections around the attention proper: to the latents, to the queries, the output's gate, and out.

    ``dtype`` and ``heads`` replace the checkpoint's own format and this rank's heads, as a measured block had them;
    no measured block has a gate.
    """
    m, d = _spec(layer.attention), build.model.hidden_size
    gated = m.output_gate and dtype is None
    heads = heads or layer.attention.num_attention_heads // build.parallel.tp_size
    inward = dtype or build.model.module_dtype("mla", layer)
    if m.q_lora_rank is None:
        yield build.gemm("qkv_gemm", layer.count, inward, heads * m.qk_head_dim + m.cached_elements, d)
    else:
        yield build.gemm("qkv_gemm", layer.count, inward, m.q_lora_rank + m.cached_elements, d)
        yield build.gemm("q_up_gemm", layer.count, inward, heads * m.qk_head_dim, m.q_lora_rank)
    if gated:
        yield build.gemm("gate_gemm", layer.count, inward, heads * m.v_head_dim, d)
    outward = dtype or build.model.module_dtype("o", layer)
    yield build.gemm("o_gemm", layer.count, outward, d, heads * m.v_head_dim)


def mla_layers(build: Builder, layer: LayerSpec) -> AttentionLayers:
    """Return the attention proper of the MLA layers of one kind.

    Raises
    ------
    MissingTableError
        No block was measured whose heads may stand in, and ``params.missing`` is ``"raise"``.
    """
    measured, p = build.measured, build.measured.params
    shape = latent_shape(build, layer, build.model.kv_dtype)
    grids = AttentionLayers.roofline(layer.count, shape, measured.hardware, p.missing)
    core = _core(build, layer, shape)
    if core is None:
        if p.missing == "raise":
            raise _missing(build, shape, layer)
        return grids
    was = latent_shape(build, layer, core.kv_dtype)
    there = AttentionLayers.roofline(layer.count, was, measured.reference, "roofline")
    decode_s = np.maximum(core.decode.time_s, there.decode_roofline_s())
    prefill_s = np.maximum(core.prefill.time_s, there.prefill_roofline_s())
    launch_s, decode_code, prefill_code = core.prefill.launch_s, core.decode.source, core.prefill.source
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
    """Measured attention proper on the lattices, and what the cache held."""

    kv_dtype: str
    decode: Lattice
    prefill: Lattice


def _core(build: Builder, layer: LayerSpec, shape: MlaShape) -> _Core | None:
    """Return the attention proper: of these very heads if any table has them, else between measured numbers."""
    for exact in (True, False) if build.measured.params.transfer else (True,):
        core = _core_of_block(build, layer, shape, exact) or _core_of_kernels(build, layer, shape, exact)
        if core is not None:
            return core
    return None


def _core_of_block(build: Builder, layer: LayerSpec, shape: MlaShape, exact: bool) -> _Core | None:
    """Return what is left of a measured block when its projections are taken out.

    A block of the checkpoint's dtypes if there is one, else of others: what is left hardly depends on the projections.
    """
    home, own, tables = _at_home(build), build.model.module_dtype("mla", layer), build.measured.tables
    for gemm_dtype in dict.fromkeys((own, *GEMM_DTYPES)):
        for kv_dtype in dict.fromkeys((shape.kv_dtype, *KV_DTYPES)):
            where = {"gemm_dtype": gemm_dtype, "attn_dtype": "bf16", "kv_dtype": kv_dtype}
            known = _known_heads(build, ("mla_module_decode", "mla_module_prefill"), where)
            if not known.size or (exact and shape.heads not in known):
                continue

            def decode(heads: int, where: dict[str, str] = where) -> Lattice:
                d = rows(tables, "mla_module_decode", **where, num_attention_heads=heads)
                gemms = tuple(mla_gemms(home, layer, where["gemm_dtype"], heads))
                time = without_gemms(d["latency_s"], d["batch_size"], gemms, layer.count)
                return decode_lattice((d["batch_size"], d["kv_len"] - 1, time), build.measured.params)

            def prefill(heads: int, where: dict[str, str] = where) -> Lattice:
                f = rows(tables, "mla_module_prefill", **where, num_attention_heads=heads)
                gemms = tuple(mla_gemms(home, layer, where["gemm_dtype"], heads))
                time = without_gemms(f["latency_s"], f["batch_size"] * f["new_tokens"], gemms, layer.count)
                return prefill_lattice((f["batch_size"], f["new_tokens"], time), build.measured.params)

            return _Core(
                kv_dtype, between_heads(known, shape.heads, decode), between_heads(known, shape.heads, prefill)
            )
    return None


def _core_of_kernels(build: Builder, layer: LayerSpec, shape: MlaShape, exact: bool) -> _Core | None:
    """Put the attention proper together from its kernels: absorption around decode, expansion before prefill."""
    tables, m = build.measured.tables, _spec(layer.attention)
    for kv_dtype in dict.fromkeys((shape.kv_dtype, *KV_DTYPES)):
        where = {"attn_dtype": "bf16", "kv_dtype": kv_dtype}
        known = _known_heads(build, ("mla_decode", "mla_prefill"), where)
        if not known.size or (exact and shape.heads not in known):
            continue

        def decode(heads: int, where: dict[str, str] = where) -> Lattice:
            d = rows(tables, "mla_decode", **where, num_attention_heads=heads)
            absorbed = np.zeros(d["latency_s"].size)
            for op in ("pre", "post"):
                bmm = rows(tables, "mla_bmm", op=op, dtype="bf16", num_attention_heads=heads)
                if bmm["latency_s"].size:
                    absorbed += np.interp(d["batch_size"], bmm["tokens"], bmm["latency_s"])
            cached = 2 ** np.round(np.log2(d["kv_len"])).astype(np.int64)
            return decode_lattice((d["batch_size"], cached, d["latency_s"] + absorbed), build.measured.params)

        def prefill(heads: int, where: dict[str, str] = where) -> Lattice:
            f = rows(tables, "mla_prefill", **where, num_attention_heads=heads)
            expand = build.measured.gemm_curve(
                build.model.module_dtype("mla", layer), heads * (m.qk_nope_head_dim + m.v_head_dim), m.kv_lora_rank
            )
            expanded = expand.at((f["batch_size"] * f["new_tokens"]).astype(np.float64))
            samples = f["batch_size"], f["new_tokens"], f["latency_s"] + expanded
            return prefill_lattice(samples, build.measured.params)

        return _Core(kv_dtype, between_heads(known, shape.heads, decode), between_heads(known, shape.heads, prefill))
    return None


def _known_heads(build: Builder, families: tuple[str, str], where: dict[str, str]) -> np.ndarray:
    """Return the numbers of heads, ascending, of which both families hold rows."""
    decode, prefill = (rows(build.measured.tables, family, **where) for family in families)
    if not decode["latency_s"].size or not prefill["latency_s"].size:
        return np.empty(0, np.int64)
    return np.intersect1d(decode["num_attention_heads"], prefill["num_attention_heads"])


def decode_lattice(samples: Samples, params: CostParams) -> Lattice:
    """Return (batch, cached tokens, time) rows on the decode lattice."""
    grid = decode_grid(*samples, monotone=params.monotone)
    return Lattice(grid.time_s, grid.source, grid.time_s[:, 0])


def prefill_lattice(samples: Samples, params: CostParams) -> Lattice:
    """Return (batch, new tokens, time) rows on the prefill lattice."""
    grid = prefill_grid(*samples, monotone=params.monotone, blend=params.prefill_blend)
    return Lattice(grid.time_s, grid.source, grid.launch_s)


def _at_home(build: Builder) -> Builder:
    """Return a builder of the GPU that was measured, to price the projections of a measured block."""
    measured = build.measured
    home = MeasuredOps(measured.tables, measured.reference, measured.params, measured.reference)
    return replace(build, measured=home)


def latent_shape(build: Builder, layer: LayerSpec, kv_dtype: str) -> MlaShape:
    """Return a latent attention layer as one rank sees it, its cache held in ``kv_dtype``."""
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


def without_gemms(block_s: F64, tokens: np.ndarray, gemms: tuple[Op, ...], count: int) -> F64:
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
