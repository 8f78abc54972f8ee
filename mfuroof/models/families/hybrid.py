"""Hybrids of full and linear attention: Qwen3-Next, Qwen3.5/3.6 (gated delta net), Kimi-Linear and Kimi-K3 (KDA)."""

from __future__ import annotations

from dataclasses import replace

from mfuroof.models.families.attention import attention_layers
from mfuroof.models.families.mixture import mlp_layers
from mfuroof.models.families.parts import Architecture, build
from mfuroof.models.families.traits import Traits
from mfuroof.models.fields import MAX_LAYERS, Fields
from mfuroof.models.specs import AttentionSpec, LinearSpec, MlpSpec
from mfuroof.models.text import short

__all__ = ["read_kimi_linear", "read_qwen_hybrid"]

_QWEN = Traits(qk_norm="head", shared_gate=True)


def read_qwen_hybrid(f: Fields) -> Architecture:
    """Read Qwen3-Next, Qwen3.5 and Qwen3.6: every ``full_attention_interval``-th layer is gated full attention."""
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    types = f.per_layer("layer_types", n)
    every = f.integer("full_attention_interval", 4, low=1)
    if types is None:
        types = ["full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(n)]
    plain = Fields({k: v for k, v in f.config.items() if k != "layer_types"}, f.problems)
    full = replace(attention_layers(plain, _QWEN, n, d)[0], gated=f.flag("attn_output_gate", True))
    f.seen |= plain.seen
    linear = AttentionSpec("linear", linear=_gated_delta(f))
    attention = [_pick(f, kind, full, linear) for kind in types]
    layers = [(a, m, 2 * d) for a, m in zip(attention, mlp_layers(f, _QWEN, n, d), strict=True)]
    heads = (full.num_attention_heads, full.num_key_value_heads, full.head_dim)
    return build(f, layers, hidden_size=d, extra_params=d, heads=heads)


def _pick(f: Fields, kind: object, full: AttentionSpec, linear: AttentionSpec) -> AttentionSpec:
    if kind not in ("full_attention", "linear_attention"):
        f.problems.add("layer_types", short(kind), "full_attention or linear_attention")
    return full if kind == "full_attention" else linear


def _gated_delta(f: Fields) -> LinearSpec:
    return LinearSpec(
        num_key_heads=f.integer("linear_num_key_heads", low=1),
        num_value_heads=f.integer("linear_num_value_heads", low=1),
        key_head_dim=f.integer("linear_key_head_dim", low=1),
        value_head_dim=f.integer("linear_value_head_dim", low=1),
        conv_kernel=f.integer("linear_conv_kernel_dim", 4, low=1),
    )


def read_kimi_linear(f: Fields) -> Architecture:
    """Read Kimi-Linear and Kimi-K3: latent attention beside delta attention, experts on a latent width in K3.

    Kimi-K3's residual blocks (``attn_res_block_size``) carry parameters no public text describes: they are left out
    and the count is marked inexact.
    """
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    kda, where = _delta(f, n)
    plain = Fields({k: v for k, v in f.config.items() if k != "layer_types"}, f.problems)
    full = attention_layers(plain, Traits(), n, d)[0]
    f.seen |= plain.seen
    if full.mla is None:
        f.problems.add("kv_lora_rank", "nothing", "the rank of the latent attention beside the linear one")
    else:
        full = replace(full, mla=replace(full.mla, output_gate=f.flag("mla_use_output_gate")))
    mlps = [_latent(f, m) for m in mlp_layers(f, Traits(), n, d)]
    layers = [(full if is_full else kda, m, 2 * d) for is_full, m in zip(where, mlps, strict=True)]
    inexact = bool(f.integer("attn_res_block_size", 0)) | f.flag("latent_moe_use_norm")
    return build(f, layers, hidden_size=d, extra_params=d, heads=_heads(full), exact=not inexact)


def _delta(f: Fields, n: int) -> tuple[AttentionSpec, list[bool]]:
    """Return the linear attention and which layers are full, from the nested object or from ``layer_types``."""
    config, types = f.nested("linear_attn_config"), f.per_layer("layer_types", n)
    if config is None:
        h, width = f.integer("linear_num_heads", low=1), f.integer("linear_head_dim", low=1)
        kernel, rank = f.integer("linear_conv_kernel_dim", 4, low=1), width
        if types is None or not {"full_attention", "linear_attention"}.issuperset(map(str, types)):
            f.problems.add("linear_attn_config", "nothing", "an object with kda_layers and full_attn_layers")
        where = [kind == "full_attention" for kind in types or [""] * n]
    else:
        h, width = config.integer("num_heads", low=1), config.integer("head_dim", low=1)
        kernel = config.integer("short_conv_kernel_size", 4, low=1)
        rank = 0 if config.flag("use_full_rank_gate") else width
        full, kda = config.raw("full_attn_layers"), config.raw("kda_layers")
        listed = [*full, *kda] if isinstance(full, list) and isinstance(kda, list) else []
        if not all(type(i) is int for i in listed) or (
            f.sound("num_hidden_layers") and sorted(listed) != list(range(1, n + 1))
        ):
            f.problems.add("linear_attn_config", "full_attn_layers and kda_layers", f"each of 1..{n} in one of them")
            full = []
        where = [i + 1 in full for i in range(n)]
    return AttentionSpec("linear", linear=LinearSpec(h, h, width, width, kernel, "kda", rank)), where


def _heads(a: AttentionSpec) -> tuple[int, int, int]:
    return a.num_attention_heads, a.num_key_value_heads, a.head_dim


def _latent(f: Fields, m: MlpSpec) -> MlpSpec:
    size = f.integer("moe_latent_size", 0)
    return replace(m, latent_size=size) if m.kind == "moe" and size else m
