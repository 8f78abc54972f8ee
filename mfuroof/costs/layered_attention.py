"""Attention of one kind of layer: scores and values per query-key pair, cache traffic, recurrent states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mfuroof.costs.workload import NO_WORK, Reach, Work
from mfuroof.hardware import Hardware
from mfuroof.models import AttentionSpec, LayerSpec, ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS, KvFormat, kv_format_of

__all__ = ["AttentionWork", "attention_work"]

INDEX_SCALE = 1.0 + 4.0 / 128.0
"""Bytes per element of an indexer's fp8 keys with one fp32 scale per 128."""
STATE_BYTES = 4.0
STATE_FLOPS = 6.0
"""Per element of a recurrent state and token: decay, two rank-one products, one read-out."""


@dataclass(frozen=True)
class AttentionWork:
    """All layers of one kind on one GPU: reaches, token work of recurrent kernels, bytes written and kept."""

    reaches: tuple[Reach, ...] = ()
    token: Work = NO_WORK
    write_bytes: float = 0.0
    state_bytes: float = 0.0


def attention_work(
    model: ModelConfig, layer: LayerSpec, hardware: Hardware, parallel: Parallel, params: CostParams
) -> AttentionWork:
    """Return the attention work of all occurrences of ``layer``."""
    a, tp = layer.attention, parallel.tp_size
    kv = kv_format_of(model.kv_dtype)
    rate = hardware.peak("bf16")

    def work(flops: float) -> Work:
        return Work(layer.count * flops, layer.count * flops / rate)

    heads = a.num_attention_heads / min(tp, max(a.num_attention_heads, 1))
    if a.kind == "gqa":
        return _grouped(a, layer.count, tp, kv, params, heads, work)
    if a.kind == "mla":
        return _latent(a, layer.count, kv, params, heads, work)
    if a.kind == "compressed":
        return _compressed(a, layer.count, kv, params, heads, work)
    recurrent = a.linear or a.mamba
    if recurrent is None:
        return AttentionWork()
    pieces = a.linear.num_value_heads if a.linear else a.mamba.n_groups if a.mamba else 1
    share = 1.0 / min(tp, pieces)
    conv = FORMATS[model.dtype].bytes_per_weight * recurrent.conv_elements
    per_token = (STATE_FLOPS * recurrent.state_elements + 2.0 * recurrent.conv_elements) * share
    moved = 2.0 * layer.count * share * (STATE_BYTES * recurrent.state_elements + conv)
    return AttentionWork(token=work(per_token), state_bytes=moved)


def _grouped(
    a: AttentionSpec, count: int, tp: int, kv: KvFormat, params: CostParams, heads: float, work: Callable[[float], Work]
) -> AttentionWork:
    pair = work(heads * (2.0 * (a.head_dim + a.v_head_dim) + params.softmax_flops_per_score))
    kv_heads = a.num_key_value_heads / min(tp, max(a.num_key_value_heads, 1))
    stored = count * kv_heads * (a.head_dim + a.v_head_dim) * kv.bytes_per_element
    main = Reach(_limit(a, a.sliding_window), pair, pair, NO_WORK, stored)
    index, index_bytes = _indexer(a, count, work, 1)
    return AttentionWork((main, *index), write_bytes=0.0 if a.shared_kv else stored + index_bytes)


def _latent(
    a: AttentionSpec, count: int, kv: KvFormat, params: CostParams, heads: float, work: Callable[[float], Work]
) -> AttentionWork:
    """Decode attends in the latent space; prefill expands the cached latents to heads first.

    With a sparse selector prefill attends in the latent space as well.
    """
    m = a.mla
    assert m is not None
    soft = params.softmax_flops_per_score
    absorbed = work(heads * (2.0 * (m.cached_elements + m.kv_lora_rank) + soft))
    expanded = work(heads * (2.0 * (m.qk_head_dim + m.v_head_dim) + soft))
    expansion = work(heads * 2.0 * m.kv_lora_rank * (m.qk_nope_head_dim + m.v_head_dim))
    packed = kv.mla_bytes_per_token
    stored = count * (packed if packed is not None else m.cached_elements * kv.bytes_per_element)
    sparse = a.indexer is not None
    main = Reach(
        _limit(a, a.sliding_window),
        absorbed if sparse else expanded,
        absorbed,
        NO_WORK if sparse else expansion,
        stored,
    )
    index, index_bytes = _indexer(a, count, work, 1)
    return AttentionWork((main, *index), write_bytes=stored + index_bytes)


def _compressed(
    a: AttentionSpec, count: int, kv: KvFormat, params: CostParams, heads: float, work: Callable[[float], Work]
) -> AttentionWork:
    """One shared key-value head: a window of tokens, and beside it one entry per ``ratio`` tokens."""
    c = a.compressed
    assert c is not None
    per_pair = heads * (4.0 * a.head_dim + params.softmax_flops_per_score)
    stored = count * a.head_dim * kv.bytes_per_element
    near = Reach(a.sliding_window, work(per_pair), work(per_pair), NO_WORK, stored)
    if not c.ratio:
        return AttentionWork((near,), write_bytes=stored)
    pair = work(per_pair / c.ratio)
    far = Reach(_limit(a, None, c.ratio), pair, pair, NO_WORK, stored / c.ratio)
    index, index_bytes = _indexer(a, count, work, c.ratio)
    return AttentionWork((near, far, *index), write_bytes=stored + stored / c.ratio + index_bytes)


def _limit(a: AttentionSpec, window: int | None, ratio: int = 1) -> int | None:
    """Most keys a query attends to: its window, or what its selector lets through. [tokens]"""
    chosen = a.indexer.topk_tokens * ratio if a.indexer is not None else None
    limits = [x for x in (window, chosen) if x is not None]
    return min(limits) if limits else None


def _indexer(
    a: AttentionSpec, count: int, work: Callable[[float], Work], ratio: int
) -> tuple[tuple[Reach, ...], float]:
    """Scores of the selector over all cached tokens, on every rank, and the bytes of its keys per token."""
    i = a.indexer
    if i is None:
        return (), 0.0
    pair = work(2.0 * i.num_heads * i.head_dim / ratio)
    stored = count * i.head_dim * INDEX_SCALE / ratio
    return (Reach(None, pair, pair, NO_WORK, stored),), stored
