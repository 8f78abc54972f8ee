"""Linear attention (delta nets) and Mamba-2 layers, from measured convolution and state kernels.

Their cost does not depend on what is cached: a decode token updates one state, a prompt's cost grows with its new
tokens. On the attention lattices that is a layer with a window of one token: the decode grid is flat along the KV
length, and the share of a chunk is its new tokens.

Of Mamba-2 only the convolution was measured. Its state kernel does what a gated delta net's does, a decay, an update
and a read of a matrix per head, so delta-net heads of the same number of state elements stand in, marked SUBSTITUTED.
Kimi delta attention (KDA) is a gated delta net that decays each channel of the state on its own instead of each head:
the same state, read and written as often, and the same products, so gated heads of its size stand in, marked alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mfuroof._types import F64
from mfuroof.core.sources import Source
from mfuroof.errors import ConfigError, MissingTableError, Problem
from mfuroof.models import AttentionSpec, LayerSpec
from mfuroof.ops.attention import AttentionLayers, AttentionShape
from mfuroof.ops.curves import Op
from mfuroof.ops.lattice import BATCH_OCTAVES, LENGTH_OCTAVES, DecodeGrid, PrefillGrid, prefill_grid
from mfuroof.ops.layer import Builder
from mfuroof.ops.select import holdings, rows
from mfuroof.tables.store import KernelTables, available, load_tables

__all__ = ["RecurrentShape", "recurrent_gemms", "recurrent_layers"]

FAMILY = "gdn"
STAND_IN_WIDTH = 128
"""Key and value width of the measured delta-net heads that stand for Mamba's."""
STATE_BYTES = 4
"""Of one element of the recurrent state: 32-bit in every engine. [bytes]"""


@dataclass(frozen=True)
class RecurrentShape(AttentionShape):
    """A recurrent layer: ``heads`` value heads whose state has ``head_dim`` x ``state_dim`` elements each."""

    state_dim: int = 0
    shared_heads: int = 0

    def bytes_moved(self, context: F64, new_tokens: F64 | float) -> F64:
        """Return what one request moves in one layer: its state once, and the vectors in and out. [bytes]"""
        there = (np.asarray(new_tokens) > 0).astype(np.float64)
        return self.kv_bytes_per_token * there + self.query_bytes_per_token * new_tokens + 0.0 * context

    @property
    def decode_flops_per_pair(self) -> float:
        """Work of one token: decay, update and read of the state, two operations an element each. [FLOP]"""
        return 6.0 * self.heads * self.head_dim * self.state_dim


def recurrent_gemms(build: Builder, layer: LayerSpec) -> Iterator[Op]:
    """Yield the projections into and out of a recurrent layer."""
    a, d, tp = layer.attention, build.model.hidden_size, build.parallel.tp_size
    low_ranks: tuple[int, ...] = ()  # every rank projects to these in full, and from them to its own heads
    if a.linear is not None:
        s = a.linear
        kind, inner = "linear_attention", s.value_dim
        inward = 2 * s.key_dim + 2 * s.value_dim + 2 * s.num_value_heads
        if s.variant == "kda":
            low_ranks = (s.key_head_dim, s.gate_rank) if s.gate_rank else (s.key_head_dim,)  # decays, output gate
            inward = 2 * s.key_dim + (1 if s.gate_rank else 2) * s.value_dim + s.num_value_heads
    else:
        assert a.mamba is not None
        kind, inner = "mamba", a.mamba.inner_size
        inward = a.mamba.inner_size + a.mamba.conv_dim + a.mamba.num_heads
    dtype = build.model.module_dtype(kind, layer)
    yield build.gemm("qkv_gemm", layer.count, dtype, max(inward // tp, 1) + sum(low_ranks), d)
    for rank in low_ranks:
        yield build.gemm("gate_gemm", layer.count, dtype, max(inner // tp, 1), rank)
    yield build.gemm("o_gemm", layer.count, dtype, d, max(inner // tp, 1))


def recurrent_layers(build: Builder, layer: LayerSpec) -> AttentionLayers:
    """Return the state kernels of the recurrent layers of one kind.

    Raises
    ------
    ConfigError
        A kind of linear attention that no table family covers.
    MissingTableError
        The family was not measured on the GPU under any engine, and ``params.missing`` is ``"raise"``.
    """
    measured, params = build.measured, build.measured.params
    shape = _shape(layer.attention, build.parallel.tp_size, build)
    grids = AttentionLayers.roofline(layer.count, shape, measured.hardware, params.missing)
    where, same_kind = _measured_kind(layer.attention)
    found = _nearest(measured.tables, where, shape, same_kind)
    if found is not None and not found[3] and not params.transfer:
        found = None
    if found is None:
        if params.missing == "raise":
            raise MissingTableError(
                f"recurrent layers with {shape.heads} heads of {shape.head_dim} on {measured.tables.gpu}",
                holdings(measured.tables, FAMILY, "num_value_heads", *where),
                'missing="roofline" prices it by its roofline, "nan" leaves it open.',
            )
        return grids
    decode_s, prefill, factor, exact = found
    there = AttentionLayers.roofline(layer.count, shape, measured.reference, "roofline")
    lattice = prefill_grid(*prefill, monotone=params.monotone, blend=params.prefill_blend)
    decode = np.repeat((decode_s * factor)[:, None], LENGTH_OCTAVES, axis=1)
    launch = lattice.launch_s
    whole = launch[:, None] + (lattice.time_s - launch[:, None]) * factor
    moved = measured.hardware != measured.reference
    if moved:
        decode = decode * (grids.decode_roofline_s() / there.decode_roofline_s())
        ratio = grids.prefill_roofline_s() / there.prefill_roofline_s()
        whole, launch = whole * ratio, launch * ratio[:, 0]
    least = Source.EXACT if exact and not moved else Source.SUBSTITUTED
    layers = replace(
        grids,
        decode=DecodeGrid(np.maximum(decode, grids.decode_roofline_s()), np.full(decode.shape, least, np.uint8)),
        prefill=PrefillGrid(
            launch, np.maximum(whole, grids.prefill_roofline_s()), np.maximum(lattice.source, np.uint8(least))
        ),
    )
    return layers.repaired() if params.monotone else layers


def _shape(a: AttentionSpec, tp: int, build: Builder) -> RecurrentShape:
    if a.linear is not None:
        heads, width, state, shared = a.linear.num_value_heads, a.linear.value_head_dim, a.linear.key_head_dim, 0
        shared = a.linear.num_key_heads
    else:
        assert a.mamba is not None
        heads, width, state, shared = a.mamba.num_heads, a.mamba.head_dim, a.mamba.state_size, a.mamba.n_groups
    local = max(heads // tp, 1)
    return RecurrentShape(
        heads=local,
        kv_heads=local,
        head_dim=width,
        window=1,
        attn_dtype="bf16",
        kv_dtype="bf16",
        kv_bytes_per_token=2.0 * STATE_BYTES * local * width * state,  # the state is read and written
        state_dim=state,
        shared_heads=max(shared // tp, 1),
    )


def _measured_kind(a: AttentionSpec) -> tuple[dict[str, int], bool]:
    """Return the key columns of the delta nets that are, or stand for, this layer, and whether they are its kind."""
    if a.linear is None:
        return {"key_head_dim": STAND_IN_WIDTH, "value_head_dim": STAND_IN_WIDTH}, False
    if a.linear.variant not in ("gdn", "kda"):
        expected = "gdn, the kind that was measured, or kda, for which it stands in"
        raise ConfigError(Problem("linear attention", a.linear.variant, expected))
    widths = {"key_head_dim": a.linear.key_head_dim, "value_head_dim": a.linear.value_head_dim}
    return widths, a.linear.variant == "gdn"


Found = tuple[F64, tuple[np.ndarray, np.ndarray, F64], float, bool]


def _nearest(
    tables: KernelTables, where: dict[str, int], shape: RecurrentShape, same_kind: bool
) -> Found | None:
    """Return decode times by batch, prefill rows, a factor for the heads, and whether shape and engine are exact."""
    heads = shape.heads * shape.head_dim * shape.state_dim / (where["key_head_dim"] * where["value_head_dim"])
    same_kind = same_kind and heads == shape.heads and shape.head_dim == where["value_head_dim"]
    engines = [tables.engine, *(e for e in available().get(tables.gpu, {}) if e != tables.engine)]
    for engine in engines:
        source = tables if engine == tables.engine else load_tables(tables.gpu, engine)
        held = rows(source, FAMILY, **where)
        if not held["latency_s"].size:
            continue
        far = np.abs(np.log2(held["num_value_heads"] / heads))
        far = far + 0.01 * np.abs(np.log2(held["num_key_heads"] / shape.shared_heads))  # decides between equals
        best = int(np.argmin(far))
        chosen = {name: int(held[name][best]) for name in ("num_key_heads", "num_value_heads")}
        batch, _, time = _summed(source, "decode", **where, **chosen)
        prefill = _summed(source, "prefill", **where, **chosen)
        if not time.size or not prefill[2].size:
            continue
        lattice = 2.0 ** np.arange(BATCH_OCTAVES)
        by_batch = np.interp(lattice, batch, np.maximum.accumulate(time))
        by_batch = np.where(lattice > batch[-1], by_batch * lattice / batch[-1], by_batch)
        exact = engine == tables.engine and far[best] == 0.0 and same_kind
        return by_batch, prefill, heads / chosen["num_value_heads"], exact
    return None


def _summed(source: KernelTables, phase: str, **where: int) -> tuple[np.ndarray, np.ndarray, F64]:
    """Return batch, new tokens and the time of convolution and state kernel together, where both were measured."""
    conv, core = (rows(source, FAMILY, phase=phase, op=op, **where) for op in ("conv", "core"))
    key = [part["batch_size"] << 32 | part["new_tokens"] for part in (conv, core)]
    both, first, second = np.intersect1d(*key, return_indices=True)
    time = conv["latency_s"][first] + core["latency_s"][second]
    return both >> 32, both & 0xFFFFFFFF, time
