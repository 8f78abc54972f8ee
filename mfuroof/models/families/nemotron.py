"""NVIDIA's own: Nemotron-H (Mamba, attention, MLP and experts as separate blocks) and the NAS-pruned Llama."""

from __future__ import annotations

from collections.abc import Mapping

from mfuroof.models.families.attention import heads_of
from mfuroof.models.families.parts import Architecture, Layer, build
from mfuroof.models.fields import MAX_LAYERS, Fields
from mfuroof.models.specs import AttentionSpec, MambaSpec, MlpSpec
from mfuroof.models.text import short

__all__ = ["read_nemotron_h", "read_nemotron_nas"]

_BLOCKS = {
    "M": "mamba", "E": "moe", "*": "attention", "-": "mlp",
    "mamba": "mamba", "moe": "moe", "attention": "attention", "mlp": "mlp",
    "linear_attention": "mamba", "full_attention": "attention",
}  # fmt: skip
FFN_MULTIPLE = 256


def read_nemotron_h(f: Fields) -> Architecture:
    """Read Nemotron-H: one block a layer, from a pattern such as ``M-M*E`` or a list of names."""
    d = f.integer("hidden_size", low=1)
    blocks = _blocks(f)
    made: dict[str, Layer] = {}
    for kind in dict.fromkeys(blocks):
        made[kind] = _block(f, kind, d)
    if "moe" not in made:
        for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts"):
            f.raw(key)
        f.raw("shared_expert_intermediate_size"), f.raw("moe_latent_size")
    heads = heads_of(f, d)
    return build(f, [made[k] for k in blocks], hidden_size=d, extra_params=d, heads=heads)


def _blocks(f: Fields) -> list[str]:
    given = [key for key in ("layers_block_type", "layer_types") if f.raw(key) is not None]
    where = f.spelling(given[0] if given else "layers_block_type")
    pattern = f.raw(where)
    n = f.optional("num_hidden_layers", low=1)
    names = list(pattern) if isinstance(pattern, str | list) else []
    kinds = [_BLOCKS.get(k) if isinstance(k, str) else None for k in names]
    if not kinds or None in kinds or len(kinds) > MAX_LAYERS:
        expected = "a pattern of M, E, * and - or a list of mamba, moe, attention and mlp"
        f.problems.add(where, short(pattern), expected)
        return ["mlp"]
    if n is not None and n != len(kinds):
        f.problems.add("num_hidden_layers", n, f"{len(kinds)}, the length of {where}")
    return [k for k in kinds if k]


def _block(f: Fields, kind: str, d: int) -> Layer:
    none = AttentionSpec("none")
    if kind == "attention":
        h, kv, width = heads_of(f, d)
        return AttentionSpec("gqa", h, kv, width, width), MlpSpec("none"), d
    if kind == "mamba":
        return AttentionSpec("mamba", mamba=_mamba(f)), MlpSpec("none"), d
    act = f.text("hidden_act", "relu2")
    if kind == "mlp":
        width = f.integer("intermediate_size", low=1)
        return none, MlpSpec("dense", width, 2, act, bias=f.flag("mlp_bias")), d
    experts, k = f.integer("num_experts", low=1), f.integer("num_experts_per_tok", low=1)
    if k > experts and f.sound("num_experts"):
        f.problems.add("num_experts_per_tok", k, f"at most num_experts ({experts})")
    f.raw("n_shared_experts")
    moe = MlpSpec(
        "moe",
        num_matrices=2,
        activation=act,
        num_experts=experts,
        num_experts_per_tok=k,
        moe_intermediate_size=f.integer("moe_intermediate_size", low=1),
        shared_intermediate_size=f.integer("shared_expert_intermediate_size", 0),
        latent_size=f.integer("moe_latent_size", 0),
    )
    return none, moe, d


def _mamba(f: Fields) -> MambaSpec:
    spec = MambaSpec(
        num_heads=f.integer("mamba_num_heads", low=1),
        head_dim=f.integer("mamba_head_dim", low=1),
        state_size=f.integer("ssm_state_size", low=1),
        n_groups=f.integer("n_groups", 1, low=1),
        conv_kernel=f.integer("conv_kernel", 4, low=1),
        conv_bias=f.flag("use_conv_bias", True),
        proj_bias=f.flag("use_bias"),
    )
    f.raw("mamba_proj_bias"), f.raw("expand")
    return spec


def read_nemotron_nas(f: Fields) -> Architecture:
    """Read a NAS-pruned Llama: each of ``block_configs`` says what is left of one layer."""
    d = f.integer("hidden_size", low=1)
    n = f.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    h = f.integer("num_attention_heads", low=1)
    width = f.integer("head_dim", max(1, d // h), low=1)
    f.raw("num_key_value_heads"), f.raw("intermediate_size")
    blocks = f.per_layer("block_configs", n)
    if blocks is None and f.sound("block_configs"):
        f.problems.add("block_configs", "nothing", f"a list of {n} blocks")
    layers = [_nas_block(f, b, d, h, width) for b in blocks or []]
    kv = max((a.num_key_value_heads for a, _, _ in layers), default=h)
    return build(f, layers, hidden_size=d, extra_params=d, heads=(h, kv, width))


def _nas_block(f: Fields, block: object, d: int, h: int, width: int) -> Layer:
    parts = [block.get(k) if isinstance(block, Mapping) else None for k in ("attention", "ffn")]
    if not all(isinstance(p, Mapping) for p in parts):
        f.problems.add("block_configs", short(block), "an object with attention and ffn")
        return AttentionSpec("none"), MlpSpec("none"), 0
    attention, ffn = (Fields(p, f.problems) for p in parts if p is not None)
    norms = 0
    a, m = AttentionSpec("none"), MlpSpec("none")
    for part in (attention, ffn):
        part.refuse("replace_with_linear", "false: a linear replacement cannot be represented")
        part.refuse("sparsify", "null: sparsified blocks cannot be represented")
    if not attention.flag("no_op"):
        group = attention.integer("n_heads_in_group", low=1)
        if h % group and f.sound("num_attention_heads"):
            f.problems.add("n_heads_in_group", group, f"a divisor of num_attention_heads ({h})")
        bias = f.flag("attention_bias")
        window = attention.optional("window_length") or None
        kv = max(1, h // group)
        a = AttentionSpec("gqa", h, kv, width, width, sliding_window=window, qkv_bias=bias, out_bias=bias)
        norms += d
    if not ffn.flag("no_op"):
        mult = ffn.raw("ffn_mult")
        size = f.problems.number("ffn_mult", mult, 0.0, 64.0, open_low=True)
        inner = max(1, int(2 * size * d / 3))
        inner = -(-inner // FFN_MULTIPLE) * FFN_MULTIPLE
        m = MlpSpec("dense", inner, 3, f.text("hidden_act", "silu"), bias=f.flag("mlp_bias"))
        norms += d
    return a, m, norms
