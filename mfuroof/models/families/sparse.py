"""Families with attention of their own: DeepSeek-V4 (compressed) and MiniMax-M3 (block-sparse)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mfuroof.models.families.attention import heads_of
from mfuroof.models.families.mixture import moe_mlp, sparse_layers
from mfuroof.models.families.parts import Architecture, build
from mfuroof.models.families.traits import Traits
from mfuroof.models.fields import MAX_LAYERS, Fields
from mfuroof.models.specs import OVERLAPPING_RATIO, AttentionSpec, CompressedSpec, IndexerSpec, MlpSpec
from mfuroof.models.text import short

__all__ = ["read_deepseek_v4", "read_minimax_m3"]


def read_deepseek_v4(f: Fields) -> Architecture:
    """Read DeepSeek-V4: one shared K = V head, history compressed by ``compress_ratios``, hyper-connections.

    Each residual mixer of ``hc_mult`` = N streams has (2 + N) N rows over N hidden sizes; ratio-4 layers select
    ``index_topk`` entries, ratio-128 layers read all.
    """
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    h, kv, width = heads_of(f, d)
    if kv != 1:
        f.problems.add("num_key_value_heads", kv, "1, the shared head of compressed attention")
    ratios = f.per_layer("compress_ratios", n, spare=8) or _ratios_by_type(f, n)
    if ratios is None or not all(type(r) is int and 0 <= r <= 2**16 for r in ratios):
        if f.sound("compress_ratios", "layer_types"):
            f.problems.add("compress_ratios", short(ratios), "a list of whole numbers, one a layer")
        ratios = [0] * n
    groups, rank = f.integer("o_groups", low=1), f.integer("o_lora_rank", low=1)
    q_rank, rope = f.integer("q_lora_rank", low=1), f.integer("qk_rope_head_dim", 0)
    if h * width % groups and f.sound("hidden_size", "num_attention_heads", "head_dim", "o_groups"):
        f.problems.add("o_groups", groups, f"a divisor of heads times head_dim ({h * width})")
    indexer = IndexerSpec(
        f.integer("index_n_heads", low=1), f.integer("index_head_dim", low=1), f.integer("index_topk", low=1), "csa"
    )
    base = AttentionSpec("compressed", h, 1, width, width, f.integer("sliding_window", low=1), extra_params=h)
    streams = f.integer("hc_mult", low=1, high=64)
    by_ratio = {
        r: replace(
            base,
            compressed=CompressedSpec(q_rank, rope, groups, rank, r, streams),
            indexer=indexer if r == OVERLAPPING_RATIO else None,
        )
        for r in dict.fromkeys(ratios)
    }
    moe = moe_mlp(f, Traits(), f.integer("num_experts", low=1))
    (
        f.raw("num_hash_layers"),
        f.raw("mlp_layer_types"),
    )  # the first layers route by a table of token ids, not counted as parameters
    mixer = (2 + streams) * streams * (streams * d + 1) + 3
    layers = [(by_ratio[r], moe, 2 * d + 2 * mixer) for r in ratios]
    head = streams * streams * d + streams + 1
    return build(f, layers, hidden_size=d, extra_params=d + head, heads=(h, 1, width))


def _ratios_by_type(f: Fields, n: int) -> list[int] | None:
    """Return the ratios of a config that names the kinds of layers instead."""
    types, rates = f.per_layer("layer_types", n), f.raw("compress_rates")
    if types is None or not isinstance(rates, Mapping):
        return None
    return [0 if kind == "sliding_attention" else rates.get(kind, -1) for kind in types]


def read_minimax_m3(f: Fields) -> Architecture:
    """Read MiniMax-M3: grouped-query attention that reads the best ``sparse_topk_blocks`` blocks of keys."""
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    h, kv, width = heads_of(f, d)
    f.refuse("attention_output_gate", "false: the gate's shape is not known")
    norm = 2 * width if f.flag("use_qk_norm", True) else 0
    full = AttentionSpec("gqa", h, kv, width, width, qk_norm_params=norm)
    marks = [0] * n
    sparse = full
    config, types = f.nested("sparse_attention_config"), f.per_layer("layer_types", n)
    if config is not None and config.flag("use_sparse_attention", True):
        marks = config.per_layer("sparse_attention_freq", n) or [1] * n
        sparse = replace(full, indexer=_blocks(config, _NESTED))
    elif types is not None and any(kind != "full_attention" for kind in types):
        marks = [int(kind != "full_attention") for kind in types]
        sparse = replace(full, indexer=_blocks(f, _FLAT))
    for key in (*_FLAT, "index_local_blocks"):
        f.raw(key)
    t = Traits()
    moe = moe_mlp(f, t, f.integer("num_experts", low=1))
    f.raw("n_shared_experts")
    dense = MlpSpec("dense", f.integer("dense_intermediate_size", low=1), 3, f.text("hidden_act", "silu"))
    where = sparse_layers(f, n)
    layers = [(sparse if s else full, moe if w else dense, 2 * d) for s, w in zip(marks, where, strict=True)]
    return build(f, layers, hidden_size=d, extra_params=d, heads=(h, kv, width))


_NESTED = ("sparse_num_index_heads", "sparse_index_dim", "sparse_topk_blocks", "sparse_block_size")
_FLAT = ("index_n_heads", "index_head_dim", "index_topk_blocks", "index_block_size")


def _blocks(f: Fields, keys: tuple[str, str, str, str]) -> IndexerSpec:
    f.raw("index_local_blocks")
    heads, width, topk, size = (f.integer(key, low=1) for key in keys)
    return IndexerSpec(heads, width, topk, "block", size)
