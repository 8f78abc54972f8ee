"""Attention of the mfu_table cost: kinds of layer, their work at MFU 1, and where the MFU of a request comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof.costs.attention_lookup import DecodeLookup, PrefillLookup, bind_lookups
from mfuroof.costs.infersim_ops import infersim_layer
from mfuroof.costs.table_source import TableSource
from mfuroof.costs.uniform_model import UniformModel
from mfuroof.hardware import Hardware
from mfuroof.models import AttentionSpec, ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import kv_format_of

__all__ = ["AttentionKind", "attention_kinds"]

NO_CAP = 2.0**60


@dataclass(frozen=True, eq=False)
class AttentionKind:
    """All layers of one kind on one GPU.

    Attributes
    ----------
    cap
        Cached tokens a query sees at most.
    decode_s, prefill_s
        Seconds at MFU 1 of all these layers: per cached token of a decode request, and per unit of the prefill square
        (`causal_divisor` of which is charged). [s]
    decode_read_s, prefill_read_s
        Seconds to read one cached token; 0 where that is no floor. [s]
    decode, prefill
        Lookups.
    """

    cap: float
    decode_s: float
    prefill_s: float
    decode_read_s: float
    prefill_read_s: float
    decode: DecodeLookup
    prefill: PrefillLookup

    @property
    def row(self) -> tuple[float, float, float, float, float]:
        """Row of `mfuroof.core.mfu_table.ATTENTION`."""
        return self.cap, self.decode_s, self.prefill_s, self.decode_read_s, self.prefill_read_s


@dataclass(frozen=True)
class _Shape:
    """One layer's attention: table key of the model (unsharded), work per pair by phase, cache bytes per token."""

    family: str
    key: tuple[int, ...]
    prefill_key: tuple[int, ...]
    cap: float
    decode_flops: float
    prefill_flops: float
    read_bytes: float


def attention_kinds(
    model: ModelConfig, hardware: Hardware, parallel: Parallel, params: CostParams, source: TableSource
) -> tuple[AttentionKind, ...]:
    """Return the kinds of attention layer of a model, bound to the tables.

    Raises
    ------
    MissingTableError
        No table of a shape, and ``params.missing`` is ``"raise"``.
    """
    counted: dict[_Shape, int] = {}
    for shape, count in _shapes(model, parallel, params):
        counted[shape] = counted.get(shape, 0) + count
    rate = hardware.peak("bf16") * params.flops_per_peak_flop
    bandwidth = hardware.hbm_bytes_per_s * params.bandwidth_efficiency * params.bytes_per_peak_byte
    kinds = []
    for shape, count in counted.items():
        decode_s, prefill_s = count * shape.decode_flops / rate, count * shape.prefill_flops / rate
        read = count * shape.read_bytes / bandwidth if params.kv_floor else 0.0
        decode, prefill = bind_lookups(
            source,
            shape.family,
            shape.key,
            shape.prefill_key,
            parallel.tp_size,
            model.kv_dtype,
            params,
            cap=shape.cap,
            layer_s=(decode_s / count, prefill_s / count),
            count=count,
        )
        kinds.append(AttentionKind(shape.cap, decode_s, prefill_s, read, read, decode, prefill))
    return tuple(kinds)


def _shapes(model: ModelConfig, parallel: Parallel, params: CostParams) -> list[tuple[_Shape, int]]:
    tp = parallel.tp_size
    if params.gemm_layout == "infersim":
        attention, _ = infersim_layer(model)
        return [(_peer_shape(attention, model, tp), model.num_hidden_layers)]
    if params.architecture != "layers":
        u = UniformModel.of(model, params)
        width = u.hidden_size // u.heads
        flops = 4.0 * u.heads * width / tp
        read = 2.0 * u.kv_heads * u.head_dim * u.act_bytes / tp
        key = (u.heads, u.kv_heads, width)
        return [(_Shape("mha", key, key, NO_CAP, flops, flops, read), u.num_layers)]
    return [
        (_own_shape(layer.attention, model, tp), layer.count)
        for layer in model.layers
        if layer.attention.kind in ("gqa", "mla")
    ]


def _own_shape(a: AttentionSpec, model: ModelConfig, tp: int) -> _Shape:
    heads = a.num_attention_heads / min(tp, a.num_attention_heads)
    kv = kv_format_of(model.kv_dtype)
    cap = NO_CAP if a.sliding_window is None else a.sliding_window - 1.0
    if a.mla is not None:
        m = a.mla
        stored = kv.mla_bytes_per_token if kv.mla_bytes_per_token else m.cached_elements * kv.bytes_per_element
        decode = 2.0 * heads * (m.cached_elements + m.kv_lora_rank)
        prefill = 2.0 * heads * (m.qk_head_dim + m.v_head_dim)
        key = (a.num_attention_heads, m.kv_lora_rank, m.qk_rope_head_dim)
        expanded = (a.num_attention_heads, m.qk_nope_head_dim, m.qk_rope_head_dim)
        return _Shape("mla", key, expanded, cap, decode, prefill, float(stored))
    flops = 2.0 * heads * (a.head_dim + a.v_head_dim)
    stored = (a.head_dim + a.v_head_dim) * kv.bytes_per_element
    read = stored * a.num_key_value_heads / min(tp, max(a.num_key_value_heads, 1))
    key = (a.num_attention_heads, a.num_key_value_heads, a.head_dim)
    return _Shape("mha", key, key, cap, flops, flops, read)


def _peer_shape(a: AttentionSpec, model: ModelConfig, tp: int) -> _Shape:
    """InferSim's: whole quotients of heads, the whole cache on every rank, latent heads not split over ranks."""
    element = 1.0 if kv_format_of(model.kv_dtype).bytes_per_element <= 1.0 else 2.0
    if a.mla is not None:
        m, heads = a.mla, a.num_attention_heads
        decode = 2.0 * heads * (m.cached_elements + m.kv_lora_rank)
        prefill = 2.0 * heads * (m.qk_head_dim + m.v_head_dim)
        key, expanded = (heads, m.kv_lora_rank, m.qk_rope_head_dim), (heads, m.qk_nope_head_dim, m.qk_rope_head_dim)
        return _Shape("mla", key, expanded, NO_CAP, decode, prefill, m.cached_elements * element)
    flops = 4.0 * (a.num_attention_heads // tp) * a.head_dim
    key = (a.num_attention_heads, a.num_key_value_heads, a.head_dim)
    return _Shape("mha", key, key, NO_CAP, flops, flops, 2.0 * a.num_key_value_heads * a.head_dim * element)


def rows(kinds: tuple[AttentionKind, ...]) -> np.ndarray:
    """Return the rows that the kernels read (kinds, 5)."""
    return np.array([kind.row for kind in kinds], dtype=np.float64).reshape(len(kinds), 5)
