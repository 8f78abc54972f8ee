"""Families whose full and windowed layers differ in shape: Llama-4, Gemma-4, MiMo-V2."""

from __future__ import annotations

from dataclasses import replace

from mfuroof.models.families.attention import attention_layers, heads_of
from mfuroof.models.families.mixture import dense_mlp, mlp_layers, moe_mlp, sparse_layers
from mfuroof.models.families.parts import Architecture, Layer, build
from mfuroof.models.families.traits import Traits
from mfuroof.models.fields import ALIASES, MAX_LAYERS, Fields
from mfuroof.models.specs import AttentionSpec, MlpSpec
from mfuroof.models.text import short

__all__ = ["read_gemma4", "read_llama4", "read_mimo_v2"]

NOPE_INTERVAL = 4


def read_llama4(f: Fields) -> Architecture:
    """Read Llama-4: chunked attention in three of four layers, experts in every ``interleave_moe_layer_step``-th.

    One expert of ``intermediate_size`` is always shared; dense layers are ``intermediate_size_mlp`` wide.
    """
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    f.raw("use_qk_norm")  # a norm without weights
    h, kv, width = heads_of(f, d)
    bias = f.flag("attention_bias")
    base = AttentionSpec("gqa", h, kv, width, width, qkv_bias=bias, out_bias=bias)
    chunk = f.optional("attention_chunk_size") or None
    nope, every = f.raw("no_rope_layers"), f.integer("no_rope_layer_interval", NOPE_INTERVAL, low=1)
    rope = f.per_layer("no_rope_layers", n) if nope else [(i + 1) % every for i in range(n)]
    types = f.per_layer("layer_types", n)
    if types is not None:
        rope = [kind == "chunked_attention" for kind in types]
    chunked = replace(base, sliding_window=chunk, chunked=True) if chunk else base
    experts = f.integer("num_experts", 0)
    dense = dense_mlp(f, Traits(), "intermediate_size_mlp" if f.raw("intermediate_size_mlp") else "intermediate_size")
    f.config = {"interleave_moe_layer_step": 1, **f.config}
    sparse = sparse_layers(f, n)
    moe = moe_mlp(f, Traits(), experts) if experts else dense
    moe = replace(moe, shared_intermediate_size=moe.moe_intermediate_size) if experts else dense
    layers: list[Layer] = [
        (chunked if r else base, moe if s else dense, 2 * d) for r, s in zip(rope or [1] * n, sparse, strict=True)
    ]
    return build(f, layers, hidden_size=d, extra_params=d, heads=(h, kv, width))


def read_gemma4(f: Fields) -> Architecture:
    """Read Gemma-4: wider heads and shared K = V in full layers, a dense MLP beside the experts."""
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    f.refuse("hidden_size_per_layer_input", "0: embeddings per layer cannot be represented")
    f.raw("vocab_size_per_layer_input")
    h, kv, width = heads_of(f, d, 256)
    k_eq_v = f.flag("attention_k_eq_v")
    wide = f.integer("global_head_dim", 512, low=1)
    wide_kv = f.optional("num_global_key_value_heads", low=1)
    wide_kv = wide_kv if k_eq_v and wide_kv else kv
    window = f.integer("sliding_window", 512, low=1)
    bias = f.flag("attention_bias")
    local = AttentionSpec("gqa", h, kv, width, width, sliding_window=window, qkv_bias=bias, out_bias=bias)
    full = AttentionSpec("gqa", h, wide_kv, wide, wide, qkv_bias=bias, out_bias=bias, k_eq_v=k_eq_v)
    types = f.per_layer("layer_types", n)
    if types is None:
        types = ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(n)]
    first_shared = n - f.integer("num_kv_shared_layers", 0, high=n if f.sound("num_hidden_layers") else MAX_LAYERS)
    doubled = f.flag("use_double_wide_mlp")
    mlp, norms = _gemma_mlp(f, d)
    layers = []
    for i, kind in enumerate(types):
        if kind not in ("sliding_attention", "full_attention"):
            f.problems.add("layer_types", short(kind), "sliding_attention or full_attention")
        a, reuse = (local if kind == "sliding_attention" else full), i >= first_shared
        a = replace(a, shared_kv=reuse, qk_norm_params=a.head_dim * (1 if reuse else 2))
        m = replace(mlp, intermediate_size=2 * mlp.intermediate_size) if reuse and doubled else mlp
        layers.append((a, m, norms))
    return build(f, layers, hidden_size=d, extra_params=d, heads=(h, kv, width), tie_default=True)


def _gemma_mlp(f: Fields, d: int) -> tuple[MlpSpec, int]:
    dense = dense_mlp(f, Traits())
    experts = f.integer("num_experts", 0)
    if not f.flag("enable_moe_block", experts > 0):
        f.raw("num_experts_per_tok"), f.raw("moe_intermediate_size")
        return dense, 4 * d
    moe = moe_mlp(f, Traits(), f.integer("num_experts", low=1))
    moe = replace(moe, dense_intermediate_size=dense.intermediate_size, router_params=d + moe.num_experts)
    return moe, 7 * d


def read_mimo_v2(f: Fields) -> Architecture:
    """Read MiMo-V2: keys wider than values, and windowed layers with heads of their own and sinks."""
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    t = Traits(out_bias=False)
    windows = ("layer_types", "sliding_window", *ALIASES["sliding_window"])  # of the other layers
    plain = Fields({k: v for k, v in f.config.items() if k not in windows}, f.problems)
    full = attention_layers(plain, t, n, d)[0]
    f.seen |= plain.seen
    window = f.integer("sliding_window", low=1)
    h = f.integer("swa_num_attention_heads", full.num_attention_heads, low=1)
    width = f.integer("swa_head_dim", full.head_dim, low=1)
    local = replace(
        full,
        num_attention_heads=h,
        num_key_value_heads=f.integer("swa_num_key_value_heads", 2 * full.num_key_value_heads, low=1),
        head_dim=width,
        v_head_dim=f.integer("swa_v_head_dim", full.v_head_dim, low=1),
        sliding_window=window,
        extra_params=h if f.flag("add_swa_attention_sink_bias", True) else 0,
    )
    if f.flag("add_full_attention_sink_bias"):
        full = replace(full, extra_params=full.num_attention_heads)
    pattern = f.per_layer("hybrid_layer_pattern", n)
    types = f.per_layer("layer_types", n)
    if types is not None:
        pattern = [int(kind == "sliding_attention") for kind in types]
    if pattern is None:
        pattern = [int(i != 0 and (i + 1) % 6 != 0) for i in range(n)]
    layers = [(local if p else full, m, 2 * d) for p, m in zip(pattern, mlp_layers(f, t, n, d), strict=True)]
    heads = (full.num_attention_heads, full.num_key_value_heads, full.head_dim)
    return build(f, layers, hidden_size=d, extra_params=d, heads=heads)
