"""Older decoders with a two-matrix MLP of four hidden sizes where the config is silent: BLOOM, GPT-2, Falcon."""

from __future__ import annotations

from mfuroof.models.families.attention import heads_of
from mfuroof.models.families.parts import Architecture, build
from mfuroof.models.fields import ALIASES, MAX_LAYERS, Fields
from mfuroof.models.specs import AttentionSpec, MlpSpec

__all__ = ["read_bloom", "read_falcon", "read_gpt2"]

GPT2_POSITIONS = 1024
"""Rows of GPT-2's table of positions where ``n_positions`` is missing (``GPT2Config`` of transformers)."""


def read_bloom(f: Fields) -> Architecture:
    """Read BLOOM: multi-head attention and a two-matrix MLP, biases everywhere, a norm after the embedding."""
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    h, kv, width = heads_of(f, d)
    attention = AttentionSpec("gqa", h, kv, width, width, qkv_bias=True, out_bias=True)
    layers = [(attention, _mlp(f, d, "gelu", bias=True), 4 * d)] * n
    return build(f, layers, hidden_size=d, extra_params=4 * d, heads=(h, kv, width), tie_default=True)


def read_gpt2(f: Fields) -> Architecture:
    """Read GPT-2: multi-head attention, biases everywhere, a table of learned positions."""
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    h, kv, width = heads_of(f, d)
    attention = AttentionSpec("gqa", h, kv, width, width, qkv_bias=True, out_bias=True)
    layers = [(attention, _mlp(f, d, "gelu_new", bias=True), 4 * d)] * n
    extra = d * (2 + f.integer("n_positions", GPT2_POSITIONS, low=1))
    return build(f, layers, hidden_size=d, extra_params=extra, heads=(h, kv, width), tie_default=True)


def read_falcon(f: Fields) -> Architecture:
    """Read Falcon: one KV head unless ``multi_query`` is false, or ``num_kv_heads`` of the new decoder architecture.

    Attention and MLP run side by side (``parallel_attn``) behind one norm, or two in the new architecture, whose
    later models go back to one (``num_ln_in_parallel_attn``); behind each other they have a norm each.
    """
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    new, bias = f.flag("new_decoder_architecture"), f.flag("bias")
    multi_query, parallel = f.flag("multi_query", True), f.flag("parallel_attn", True)
    if new:
        heads = heads_of(f, d)
    else:  # the KV heads written there mean nothing
        own = ("num_key_value_heads", *ALIASES["num_key_value_heads"])
        config = {k: v for k, v in f.config.items() if k not in own}
        plain = Fields(config | ({own[0]: 1} if multi_query else {}), f.problems, lenient=f.lenient)
        heads = heads_of(plain, d)
        f.seen |= plain.seen
    h, kv, width = heads
    norms = f.integer("num_ln_in_parallel_attn", 2 if new else 1, low=1, high=2)
    norms = norms if new or parallel else 2
    attention = AttentionSpec("gqa", h, kv, width, width, qkv_bias=bias, out_bias=bias)
    layers = [(attention, _mlp(f, d, "gelu", bias=bias), 2 * d * norms)] * n
    return build(f, layers, hidden_size=d, extra_params=2 * d, heads=heads, tie_default=True)


def _mlp(f: Fields, d: int, act: str, *, bias: bool) -> MlpSpec:
    """Return the MLP; a missing width is 4 hidden sizes.

    So the configuration classes of transformers document it: ``n_inner`` of ``GPT2Config`` and ``ffn_hidden_size`` of
    ``FalconConfig`` are "4 times hidden size" when None; ``BloomMLP`` has no key for it at all.
    """
    return MlpSpec("dense", f.integer("intermediate_size", 4 * d, low=1), 2, f.text("hidden_act", act), bias=bias)
