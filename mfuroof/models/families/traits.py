"""What a model type implies without a key in its config, for families that differ only in such details."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["TRAITS", "Traits"]


@dataclass(frozen=True, slots=True)
class Traits:
    """Facts about a model type that its config does not say.

    Parameters
    ----------
    qkv_bias, out_bias, mlp_bias
        ``True`` or ``False`` always, or the key that decides.
    bias_default
        What the key means when missing.
    qk_norm
        ``""`` none, ``"head"`` one weight per head element for q and for k, ``"full"`` per element of all heads.
    norms
        Norm vectors of hidden size per layer.
    norm_arrays
        Arrays per norm: 2 where a norm has a bias.
    tie
        Whether embeddings are tied when the config does not say.
    window_default
        Sliding window assumed where the KEY is missing (null means none). [tokens]
    sinks, head_gate
        A learned sink per head; an output gate per head.
    shared_gate
        The shared expert is scaled by a gate row.
    router_bias, expert_bias
        Parameters per expert in the router; biases in experts.
    gated_mlp
        False where the MLP has two matrices.
    mixture
        Every model of the family has experts, so a config that is silent about their number is incomplete.
    exact
        False where configs in circulation leave parameters unsaid.
    """

    qkv_bias: bool | str = "attention_bias"
    out_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = "mlp_bias"
    bias_default: bool = False
    qk_norm: str = ""
    norms: int = 2
    norm_arrays: int = 1
    tie: bool = False
    head_dim: int | None = None
    window_default: int | None = None
    sinks: bool = False
    head_gate: bool = False
    shared_gate: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    gated_mlp: bool = True
    mixture: bool = False
    exact: bool = True


_QWEN3 = Traits(qk_norm="head")
_QWEN3_MOE = Traits(qk_norm="head", mixture=True)
_GEMMA = Traits(tie=True, head_dim=256)

TRAITS = MappingProxyType(
    {
        "": Traits(),
        "llama": Traits(),
        "mistral": Traits(qkv_bias=False, out_bias=False, window_default=4096),
        "mixtral": Traits(qkv_bias=False, out_bias=False, mixture=True),
        **dict.fromkeys(
            ("qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"),
            Traits(qkv_bias=True, out_bias=False),
        ),
        "qwen2_moe": Traits("qkv_bias", False, False, bias_default=True, shared_gate=True, mixture=True),
        "qwen3": _QWEN3,
        "qwen3_moe": _QWEN3_MOE,
        "qwen3_vl_text": _QWEN3,
        "qwen3_vl_moe_text": _QWEN3_MOE,
        "mimo": Traits(out_bias=False),
        "gpt_oss": Traits(sinks=True, router_bias=True, expert_bias=True, bias_default=True, mixture=True),
        "minimax_m2": Traits(qkv_bias=False, out_bias=False, qk_norm="full", mixture=True),
        "glm4_moe": Traits(out_bias=False, qk_norm="key", mixture=True),
        "step3p7": Traits(qk_norm="head", head_gate=True, exact=False),
        "step3p5": Traits(qk_norm="head", head_gate=True, exact=False),
        "phi3": Traits(False, False),
        "granite": Traits(),
        "granitemoe": Traits(mixture=True),
        "smollm3": Traits(),
        "ernie4_5": Traits("use_bias", "use_bias", "use_bias"),
        "olmo2": Traits(qk_norm="full"),
        "olmoe": Traits(qk_norm="full", mixture=True),
        "seed_oss": Traits(out_bias="attention_out_bias"),
        "glm4": Traits(out_bias=False, norms=4),
        "glm4_moe_lite": Traits(mixture=True),
        "cohere": Traits(norms=1, tie=True),
        "stablelm": Traits("use_qkv_bias", False, norm_arrays=2),
        "starcoder2": Traits("use_bias", "use_bias", "use_bias", True, norm_arrays=2, tie=True, gated_mlp=False),
        "gpt_neox": Traits(mlp_bias=True, bias_default=True, norm_arrays=2, gated_mlp=False),
        "arcee": Traits(gated_mlp=False),
        "deepseek_v2": Traits(),
        "deepseek_v3": Traits(),
        "deepseek_v32": Traits(),
        "kimi_k2": Traits(),
        "glm_moe_dsa": Traits(),
        "gemma": _GEMMA,
        "gemma2": Traits(tie=True, head_dim=256, norms=4, window_default=4096),
        "gemma3_text": Traits(tie=True, head_dim=256, norms=4, qk_norm="head", window_default=4096),
    }
)
"""Traits by ``model_type``; the empty name stands for a config without one."""
