"""Attention of the generic families: heads, latent attention, sliding windows, indexers."""

from __future__ import annotations

import warnings
from dataclasses import replace

from mfuroof.errors import MfuroofWarning
from mfuroof.models.families.mixture import bias_of
from mfuroof.models.families.traits import Traits
from mfuroof.models.fields import Fields
from mfuroof.models.specs import AttentionSpec, IndexerSpec, MlaSpec
from mfuroof.models.text import short

__all__ = ["attention_layers", "heads_of", "windows"]

_FULL = ("full_attention", "attention", "global", "deepseek_sparse_attention", "indexed_attention", "mla")
_SLIDING = ("sliding_attention", "sliding_window", "local", "swa", "chunked_attention")


def heads_of(f: Fields, d: int, head_dim: int | None = None) -> tuple[int, int, int]:
    """Return (query heads, KV heads, head width); an explicit ``head_dim`` wins over hidden size / heads."""
    h = f.integer("num_attention_heads", low=1)
    kv = f.integer("num_key_value_heads", h, low=0 if f.lenient else 1) or h
    width = f.optional("head_dim", low=0 if f.lenient else 1) or head_dim
    if width is None:
        if d % h and f.sound("hidden_size", "num_attention_heads"):
            f.doubt("head_dim", "nothing", f"a head_dim, as hidden_size {d} is no multiple of {h} heads")
        width = max(1, d // h)
    if (kv > h or h % kv) and f.sound("num_attention_heads", "num_key_value_heads"):
        f.doubt("num_key_value_heads", kv, f"a divisor of num_attention_heads ({h})")
    return h, kv, width


def attention_layers(f: Fields, t: Traits, n: int, d: int) -> list[AttentionSpec]:
    """Return the attention of each layer."""
    latent = f.integer("kv_lora_rank", 0)
    base = _mla(f, t, latent, d) if latent else _gqa(f, t, d)
    specs = [replace(base, sliding_window=w) for w in windows(f, t, n)]
    return _with_indexers(f, specs)


def _gqa(f: Fields, t: Traits, d: int) -> AttentionSpec:
    h, kv, width = heads_of(f, d, t.head_dim)
    v_width = f.integer("v_head_dim", width, low=1)
    norm = {"head": 2 * width, "full": (h + kv) * width}.get(t.qk_norm, 0)
    if t.qk_norm == "key" and f.flag("use_qk_norm"):
        norm = 2 * width
    return AttentionSpec(
        "gqa",
        h,
        kv,
        width,
        v_width,
        qkv_bias=bias_of(f, t.qkv_bias, t.bias_default),
        out_bias=bias_of(f, t.out_bias, t.bias_default),
        head_gate=t.head_gate,
        qk_norm_params=norm,
        extra_params=h if t.sinks else 0,
    )


def _mla(f: Fields, t: Traits, latent: int, d: int) -> AttentionSpec:
    h = f.integer("num_attention_heads", low=1)
    f.raw("num_key_value_heads"), f.raw("head_dim"), f.raw("qk_head_dim")  # present, and meaningless here
    rope = f.integer("qk_rope_head_dim", 0)
    guess = f.integer("head_dim", max(1, d // h))
    missing = [k for k in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim") if f.raw(k) is None]
    if missing:
        text = f"kv_lora_rank is given without {', '.join(missing)}: heads of {guess} are assumed"
        warnings.warn(text, MfuroofWarning, stacklevel=2)
    mla = MlaSpec(
        q_lora_rank=f.optional("q_lora_rank") or None,
        kv_lora_rank=latent,
        qk_nope_head_dim=f.integer("qk_nope_head_dim", guess),
        qk_rope_head_dim=rope,
        v_head_dim=f.integer("v_head_dim", guess, low=1),
    )
    bias = bias_of(f, t.qkv_bias, t.bias_default)
    return AttentionSpec("mla", h, h, mla.qk_head_dim, mla.v_head_dim, qkv_bias=bias, out_bias=bias, mla=mla)


def windows(f: Fields, t: Traits, n: int) -> list[int | None]:
    """Return the window of each layer: ``layer_types``, else a pattern, else ``max_window_layers``, else all alike."""
    window = f.optional("sliding_window") or None
    if "sliding_window" not in f.config and window is None:
        window = t.window_default
    if not f.flag("use_sliding_window", True):
        window = None
    types = f.per_layer("layer_types", n)
    last_full = f.optional("max_window_layers")
    pattern = f.integer("sliding_window_pattern", 0)
    if types is not None:
        return [_typed_window(f, kind, window) for kind in types]
    if window is not None and pattern:
        return [None if (i + 1) % pattern == 0 else window for i in range(n)]
    if window is not None and last_full is not None and f.config.get("use_sliding_window"):
        return [window if i >= last_full else None for i in range(n)]
    return [window] * n


def _typed_window(f: Fields, kind: object, window: int | None) -> int | None:
    if kind in _FULL:
        return None
    if kind in _SLIDING:
        if window is None:
            f.problems.add("sliding_window", "nothing", f"a window, as layer_types has {kind!r}")
        return window
    f.problems.add("layer_types", short(kind), f"one of {', '.join((*_FULL, *_SLIDING))} for this kind of model")
    return None


def _with_indexers(f: Fields, specs: list[AttentionSpec]) -> list[AttentionSpec]:
    """Attach the sparse-attention indexer; layers marked ``shared`` reuse the selection of the layer before."""
    topk = f.integer("index_topk", 0)
    types = f.per_layer("indexer_types", len(specs))
    f.raw("index_topk_pattern")
    if not topk:
        return specs
    heads, width = f.integer("index_n_heads", low=1), f.integer("index_head_dim", low=1)
    if specs[0].mla is None or specs[0].mla.q_lora_rank is None:
        f.problems.add("index_topk", topk, "an indexer only beside latent attention with a q_lora_rank")
        return specs
    own, shared = IndexerSpec(heads, width, topk), IndexerSpec(0, 0, topk)
    kinds = types or ["full"] * len(specs)
    return [replace(s, indexer=own if k == "full" else shared) for s, k in zip(specs, kinds, strict=True)]
