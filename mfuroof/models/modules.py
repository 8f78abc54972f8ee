"""The list of a layer's matrices: the one place that knows how many parameters an architecture has.

Counts, weight bytes, precision per module and sharding are all sums over this list.
"""

from __future__ import annotations

from dataclasses import dataclass

from mfuroof.models.specs import AttentionSpec, CompressedSpec, LayerSpec, LinearSpec, MlpSpec

__all__ = ["MODULE_KINDS", "Module", "attention_modules", "layer_modules", "mlp_modules", "top_modules"]

MODULE_KINDS = (
    "embedding",
    "lm_head",
    "qkv",
    "o",
    "mla",
    "indexer",
    "linear_attention",
    "mamba",
    "gate_up",
    "down",
    "router",
    "experts",
    "shared_experts",
    "norm",
)
"""Kinds of modules: the components of a parameter count, and what a precision can be given for."""


@dataclass(frozen=True, slots=True)
class Module:
    """One weight matrix, or a bundle of small parameters.

    Parameters
    ----------
    name
        Path inside the layer in the commonest spelling, for example ``self_attn.q_proj``.
    out_features, in_features
        Shape of one copy; ``in_features`` 0 means there is no matrix, only ``extra``.
    copies, active_copies
        How often it exists (experts), and how many of them one token passes.
    extra
        Parameters per copy beside the matrix (bias, norms); never quantised.
    shard
        How tensor parallelism splits it: ``heads`` or ``columns`` and ``rows`` (exactly), ``kv`` (by KV heads,
        replicated when there are fewer than ranks), ``expert``, ``vocab``, ``none`` (replicated).
    units
        How many pieces it can be cut into at most (heads, KV heads, groups); 0 for any number.
    """

    name: str
    kind: str
    out_features: int
    in_features: int
    copies: int = 1
    active_copies: int = 1
    extra: int = 0
    shard: str = "none"
    units: int = 0
    quantisable: bool = True

    @property
    def matrix_params(self) -> int:
        """Parameters in matrices, over all copies."""
        return self.copies * self.out_features * self.in_features

    @property
    def params(self) -> int:
        """All parameters, over all copies."""
        return self.copies * (self.out_features * self.in_features + self.extra)

    @property
    def active_params(self) -> int:
        """Parameters one token uses."""
        return self.active_copies * (self.out_features * self.in_features + self.extra)


def top_modules(vocab_size: int, hidden_size: int, tied: bool, extra_params: int) -> tuple[Module, ...]:
    """Return what is outside the layers: embedding, LM head (unless tied), final norm."""
    modules = [Module("embed_tokens", "embedding", vocab_size, hidden_size, shard="vocab")]
    if not tied:
        modules.append(Module("lm_head", "lm_head", vocab_size, hidden_size, shard="vocab"))
    return (*modules, *_norm("norm", extra_params))


def _norm(name: str, params: int) -> list[Module]:
    return [Module(name, "norm", 0, 0, extra=params, quantisable=False)] if params else []


def layer_modules(layer: LayerSpec, hidden_size: int) -> tuple[Module, ...]:
    """Return every module of one occurrence of ``layer``."""
    return (
        *attention_modules(layer.attention, hidden_size),
        *mlp_modules(layer.mlp, hidden_size),
        *_norm("norms", layer.norm_params),
    )


def attention_modules(a: AttentionSpec, hidden_size: int) -> tuple[Module, ...]:
    """Return the modules of an attention, linear attention or Mamba block."""
    rest = _norm("self_attn.norms", a.qk_norm_params + a.extra_params)
    if a.kind == "none":
        return tuple(rest)
    build = {"gqa": _gqa, "mla": _mla, "compressed": _compressed, "linear": _linear, "mamba": _mamba}[a.kind]
    return (*build(a, hidden_size), *_indexer(a, hidden_size), *rest)


def _gqa(a: AttentionSpec, d: int) -> list[Module]:
    q = a.num_attention_heads * a.head_dim * (2 if a.gated else 1)
    k, v = a.num_key_value_heads * a.head_dim, a.num_key_value_heads * a.v_head_dim
    b, kv_units = int(a.qkv_bias), a.num_key_value_heads
    modules = [Module("self_attn.q_proj", "qkv", q, d, extra=b * q, shard="heads", units=a.num_attention_heads)]
    if not a.shared_kv:
        modules.append(Module("self_attn.k_proj", "qkv", k, d, extra=b * k, shard="kv", units=kv_units))
        if not a.k_eq_v:
            modules.append(Module("self_attn.v_proj", "qkv", v, d, extra=b * v, shard="kv", units=kv_units))
    if a.head_gate:
        h = a.num_attention_heads
        modules.append(Module("self_attn.g_proj", "qkv", h, d, shard="heads", units=h))
    o_in, o_bias = a.num_attention_heads * a.v_head_dim, d if a.out_bias else 0
    modules.append(Module("self_attn.o_proj", "o", d, o_in, extra=o_bias, shard="rows", units=a.num_attention_heads))
    return modules


def _mla(a: AttentionSpec, d: int) -> list[Module]:
    m, h = a.mla, a.num_attention_heads
    assert m is not None
    b = int(a.qkv_bias)
    q_out, cached = h * m.qk_head_dim, m.cached_elements
    if m.q_lora_rank is None:
        modules = [Module("self_attn.q_proj", "mla", q_out, d, shard="heads", units=h)]
    else:
        modules = [
            Module("self_attn.q_a_proj", "mla", m.q_lora_rank, d, extra=b * m.q_lora_rank),
            Module("self_attn.q_b_proj", "mla", q_out, m.q_lora_rank, shard="heads", units=h),
            *_norm("self_attn.q_a_layernorm", m.q_lora_rank),
        ]
    modules += [
        Module("self_attn.kv_a_proj_with_mqa", "mla", cached, d, extra=b * cached),
        *_norm("self_attn.kv_a_layernorm", m.kv_lora_rank),
        Module(
            "self_attn.kv_b_proj",
            "mla",
            h * (m.qk_nope_head_dim + m.v_head_dim),
            m.kv_lora_rank,
            shard="heads",
            units=h,
        ),
        Module("self_attn.o_proj", "o", d, h * m.v_head_dim, extra=d if a.out_bias else 0, shard="rows", units=h),
    ]
    if m.output_gate:
        modules.append(Module("self_attn.g_proj", "mla", h * m.v_head_dim, d, shard="heads", units=h))
    return modules


def _compressed(a: AttentionSpec, d: int) -> list[Module]:
    c, h, hd = a.compressed, a.num_attention_heads, a.head_dim
    assert c is not None
    groups, rank = c.o_groups, c.o_groups * c.o_lora_rank
    modules = [
        Module("self_attn.wq_a", "mla", c.q_lora_rank, d),
        *_norm("self_attn.q_norm", c.q_lora_rank),
        Module("self_attn.wq_b", "mla", h * hd, c.q_lora_rank, shard="heads", units=h),
        Module("self_attn.wkv", "mla", hd, d),
        *_norm("self_attn.kv_norm", hd),
        Module("self_attn.wo_a", "o", rank, h * hd // groups, shard="heads", units=groups),
        Module("self_attn.wo_b", "o", d, rank, shard="rows", units=groups),
    ]
    return modules + (_compressor("self_attn.compressor", hd, c, d) if c.ratio else [])


def _compressor(name: str, width: int, c: CompressedSpec, d: int) -> list[Module]:
    """Pool ``ratio`` tokens into one entry."""
    out = c.pooled_features(width)
    return [
        Module(f"{name}.wkv", "indexer", out, d, quantisable=False),
        Module(f"{name}.wgate", "indexer", out, d, quantisable=False),
        *_norm(f"{name}.norm", c.ratio * out + width),
    ]


def _indexer(a: AttentionSpec, d: int) -> list[Module]:
    i = a.indexer
    if i is None or not i.num_heads:
        return []
    if i.kind == "block":
        return [
            Module("self_attn.index_q_proj", "indexer", i.num_heads * i.head_dim, d),
            Module("self_attn.index_k_proj", "indexer", i.head_dim, d),
            *_norm("self_attn.index_norm", 2 * i.head_dim),
        ]
    rank = a.mla.q_lora_rank if a.mla else a.compressed.q_lora_rank if a.compressed else None
    assert rank is not None
    modules = [
        Module("self_attn.indexer.wq_b", "indexer", i.num_heads * i.head_dim, rank),
        Module("self_attn.indexer.weights_proj", "indexer", i.num_heads, d, quantisable=False),
    ]
    if i.kind == "csa":
        assert a.compressed is not None
        return modules + _compressor("self_attn.indexer.compressor", i.head_dim, a.compressed, d)
    return [
        *modules,
        Module("self_attn.indexer.wk", "indexer", i.head_dim, d),
        *_norm("self_attn.indexer.k_norm", 2 * i.head_dim),
    ]


def _linear(a: AttentionSpec, d: int) -> list[Module]:
    s = a.linear
    assert s is not None
    h = s.num_value_heads
    conv = (2 * s.key_dim + s.value_dim) * s.conv_kernel
    out = Module("linear_attn.out_proj", "linear_attention", d, s.value_dim, shard="rows", units=h)
    if s.variant == "kda":
        names = (("q_proj", s.key_dim), ("k_proj", s.key_dim), ("v_proj", s.value_dim))
        modules = [Module(f"self_attn.{n}", "linear_attention", w, d, shard="heads", units=h) for n, w in names]
        modules += [
            Module("self_attn.b_proj", "linear_attention", h, d, shard="heads", units=h, quantisable=False),
            Module("self_attn.f_a_proj", "linear_attention", s.key_head_dim, d),
            Module("self_attn.f_b_proj", "linear_attention", s.value_dim, s.key_head_dim, shard="heads", units=h),
            *_kda_gate(s, d),
            Module("self_attn.o_proj", "linear_attention", d, s.value_dim, shard="rows", units=h),
        ]
        small = conv + h + s.value_dim + s.value_head_dim
        return [*modules, Module("self_attn.state", "linear_attention", 0, 0, extra=small, quantisable=False)]
    return [
        Module(
            "linear_attn.in_proj_qkv",
            "linear_attention",
            2 * s.key_dim + s.value_dim,
            d,
            shard="heads",
            units=s.num_key_heads,
        ),
        Module("linear_attn.in_proj_z", "linear_attention", s.value_dim, d, shard="heads", units=h),
        Module("linear_attn.in_proj_b", "linear_attention", h, d, shard="heads", units=h),
        Module("linear_attn.in_proj_a", "linear_attention", h, d, shard="heads", units=h),
        out,
        Module("linear_attn.state", "linear_attention", 0, 0, extra=conv + 2 * h + s.value_head_dim, quantisable=False),
    ]


def _kda_gate(s: LinearSpec, d: int) -> list[Module]:
    h, kind = s.num_value_heads, "linear_attention"
    if not s.gate_rank:
        return [Module("self_attn.g_proj", kind, s.value_dim, d, shard="heads", units=h)]
    return [
        Module("self_attn.g_a_proj", kind, s.gate_rank, d),
        Module("self_attn.g_b_proj", kind, s.value_dim, s.gate_rank, shard="heads", units=h),
    ]


def _mamba(a: AttentionSpec, d: int) -> list[Module]:
    s = a.mamba
    assert s is not None
    in_out = s.inner_size + s.conv_dim + s.num_heads
    small = s.conv_dim * (s.conv_kernel + int(s.conv_bias)) + 3 * s.num_heads + s.inner_size
    return [
        Module("mixer.in_proj", "mamba", in_out, d, extra=int(s.proj_bias) * in_out, shard="heads", units=s.n_groups),
        Module("mixer.out_proj", "mamba", d, s.inner_size, extra=int(s.proj_bias) * d, shard="rows", units=s.n_groups),
        Module("mixer.state", "mamba", 0, 0, extra=small, quantisable=False),
    ]


def mlp_modules(m: MlpSpec, hidden_size: int) -> tuple[Module, ...]:
    """Return the modules of a dense MLP or a mixture of experts."""
    if m.kind == "none":
        return ()
    rest = _norm("mlp.norms", m.extra_params)
    if m.kind == "dense":
        return (*_mlp("mlp", m.intermediate_size, m, hidden_size, m.bias), *rest)
    return (*_moe(m, hidden_size), *rest)


def _mlp(path: str, width: int, m: MlpSpec, d: int, bias: bool, kind: str = "") -> list[Module]:
    b, up_kind, down_kind = int(bias), kind or "gate_up", kind or "down"
    names = ("gate_proj", "up_proj") if m.num_matrices == 3 else ("up_proj",)
    up = [Module(f"{path}.{n}", up_kind, width, d, extra=b * width, shard="columns") for n in names]
    return [*up, Module(f"{path}.down_proj", down_kind, d, width, extra=b * d, shard="rows")]


def _moe(m: MlpSpec, d: int) -> list[Module]:
    n, k, inner, width = m.num_experts, m.num_experts_per_tok, m.latent_size or d, m.moe_intermediate_size
    b = int(m.expert_bias)
    modules = [Module("mlp.gate", "router", n, d, extra=m.router_params)]
    names = ("gate_proj", "up_proj") if m.num_matrices == 3 else ("up_proj",)
    modules += [
        Module(f"mlp.experts.{name}", "experts", width, inner, n, k, extra=b * width, shard="expert") for name in names
    ]
    modules.append(Module("mlp.experts.down_proj", "experts", inner, width, n, k, extra=b * inner, shard="expert"))
    if m.latent_size:
        modules += [
            Module("mlp.fc1_latent_proj", "shared_experts", m.latent_size, d),
            Module("mlp.fc2_latent_proj", "shared_experts", d, m.latent_size),
        ]
    if m.shared_intermediate_size:
        modules += _mlp("mlp.shared_experts", m.shared_intermediate_size, m, d, False, "shared_experts")
    if m.shared_gate:
        modules.append(Module("mlp.shared_expert_gate", "shared_experts", 1, d, quantisable=False))
    if m.dense_intermediate_size:
        modules += _mlp("mlp", m.dense_intermediate_size, m, d, False)
    return modules
