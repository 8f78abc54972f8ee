"""Decoder-only transformers whose keys say it all: Llama, Mistral, Qwen, Mixtral, gpt-oss, DeepSeek, GLM, Gemma 1-3."""

from __future__ import annotations

from mfuroof.models.families.attention import attention_layers
from mfuroof.models.families.mixture import mlp_layers
from mfuroof.models.families.parts import Architecture, build
from mfuroof.models.families.traits import TRAITS, Traits
from mfuroof.models.fields import MAX_LAYERS, Fields

__all__ = ["read_generic"]


def read_generic(f: Fields, traits: Traits | None = None, *, exact: bool = True) -> Architecture:
    """Return the architecture of a config whose ``model_type`` is in `TRAITS` (or that has none)."""
    t = traits or TRAITS[f.text("model_type")]
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    attention = attention_layers(f, t, n, d)
    mlps = mlp_layers(f, t, n, d)
    norm = d * t.norm_arrays
    layers = [(a, m, norm * t.norms) for a, m in zip(attention, mlps, strict=True)]
    first = attention[0]
    heads = (first.num_attention_heads, first.num_key_value_heads, first.head_dim)
    return build(f, layers, hidden_size=d, extra_params=norm, heads=heads, tie_default=t.tie, exact=exact and t.exact)
