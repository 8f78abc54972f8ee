"""Decoder-only transformers whose keys say it all: Llama, Mistral, Qwen, Mixtral, gpt-oss, DeepSeek, GLM, Gemma 1-3."""

from __future__ import annotations

from mfuroof.models.families.attention import attention_layers
from mfuroof.models.families.mixture import mlp_layers
from mfuroof.models.families.parts import Architecture, build
from mfuroof.models.families.traits import TRAITS, Traits
from mfuroof.models.fields import MAX_LAYERS, Fields
from mfuroof.models.text import short

__all__ = ["read_generic"]


def read_generic(f: Fields, traits: Traits | None = None, *, exact: bool = True) -> Architecture:
    """Return the architecture of a config whose ``model_type`` is in `TRAITS` (or that has none)."""
    t = traits or TRAITS[f.text("model_type")]
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    _all_softmax(f, n)
    attention = attention_layers(f, t, n, d)
    mlps = mlp_layers(f, t, n, d)
    norm = d * t.norm_arrays
    layers = [(a, m, norm * t.norms) for a, m in zip(attention, mlps, strict=True)]
    first = attention[0]
    heads = (first.num_attention_heads, first.num_key_value_heads, first.head_dim)
    return build(f, layers, hidden_size=d, extra_params=norm, heads=heads, tie_default=t.tie, exact=exact and t.exact)


def _all_softmax(f: Fields, n: int) -> None:
    """Refuse MiniMax's ``attn_type_list`` where a layer is not 1, softmax attention (0 is lightning attention)."""
    kinds = f.per_layer("attn_type_list", n)
    if kinds is not None and any(kind != 1 for kind in kinds):
        expected = "1 for every layer: nothing reads the linear attention of the others, and it shapes layers"
        f.problems.add("attn_type_list", short(kinds), expected)
