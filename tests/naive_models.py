"""Parameter counts written out by hand, importing nothing of the package."""

from __future__ import annotations


def dense_params(
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    vocab_size: int,
    head_dim: int = 0,
    matrices: int = 3,
    norms: int = 2,
    qk_norm: int = 0,
    tied: bool = False,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    bloom: bool = False,
) -> int:
    d, f = hidden_size, intermediate_size
    hd = head_dim or d // num_attention_heads
    q, kv = num_attention_heads * hd, num_key_value_heads * hd
    attention = d * q + 2 * d * kv + q * d + qk_norm
    attention += (q + 2 * kv) * qkv_bias + d * out_bias
    mlp = matrices * d * f + ((matrices - 1) * f + d) * mlp_bias
    norm = d * (2 if bloom else 1)
    layer = attention + mlp + norms * norm
    return num_hidden_layers * layer + vocab_size * d * (1 if tied else 2) + norm * (2 if bloom else 1)


def mixture_params(
    hidden_size: int,
    moe_intermediate_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    vocab_size: int,
    n_routed_experts: int,
    n_shared_experts: int,
    num_experts_per_tok: int,
    first_k_dense_replace: int,
) -> tuple[int, int]:
    d = hidden_size
    hd = d // num_attention_heads
    attention = 2 * d * num_attention_heads * hd + 2 * d * num_key_value_heads * hd + 2 * d
    expert = 3 * d * moe_intermediate_size
    dense = attention + 3 * d * intermediate_size
    common = attention + n_routed_experts * d + n_shared_experts * expert
    sparse_layers = num_hidden_layers - first_k_dense_replace
    rest = first_k_dense_replace * dense + sparse_layers * common + 2 * vocab_size * d + d
    return rest + sparse_layers * n_routed_experts * expert, rest + sparse_layers * num_experts_per_tok * expert


def latent_params(
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    vocab_size: int,
    kv_lora_rank: int,
    q_lora_rank: int,
    qk_nope_head_dim: int,
    qk_rope_head_dim: int,
    v_head_dim: int,
) -> int:
    d, h = hidden_size, num_attention_heads
    query = d * q_lora_rank + q_lora_rank + q_lora_rank * h * (qk_nope_head_dim + qk_rope_head_dim)
    cached = d * (kv_lora_rank + qk_rope_head_dim) + kv_lora_rank
    up = kv_lora_rank * h * (qk_nope_head_dim + v_head_dim)
    out = h * v_head_dim * d
    layer = query + cached + up + out + 3 * d * intermediate_size + 2 * d
    return num_hidden_layers * layer + 2 * vocab_size * d + d
