"""Weights and KV as BLIS counts them: one formula for every architecture.

Exact at one rank; the KV bytes of one of several ranks are ours (replicated heads included).
"""

from __future__ import annotations

from math import ceil

from mfuroof.models import ModelConfig
from mfuroof.precision import FORMATS

__all__ = ["flat_kv_bytes_per_token", "flat_weight_bytes"]


def flat_weight_bytes(model: ModelConfig) -> float:
    """Return the bytes of all weights: the parameters of a Llama-like model, all of one width.

    Biases, MLA projections, gates beyond one router and norms of queries and keys are not counted. [bytes]
    """
    d, layers, heads = model.hidden_size, model.num_hidden_layers, model.num_key_value_heads
    attention = layers * (2 * d * d + 2 * d * heads * model.head_dim + 2 * d)
    top = model.vocab_size * d * (1 if model.tie_word_embeddings else 2) + d
    return float(int((top + attention + _mlp_params(model)) * model.quantization.weight_bytes_nominal))


def _mlp_params(model: ModelConfig) -> int:
    d, layers = model.hidden_size, model.num_hidden_layers
    if model.num_experts < 2:
        return layers * 3 * d * model.intermediate_size
    mixture = next(s.mlp for s in model.layers if s.mlp.num_experts)
    dense = _leading_dense_layers(model)
    width = next((s.mlp.intermediate_size for s in model.layers if s.mlp.kind == "dense"), model.intermediate_size)
    routed = 3 * d * mixture.moe_intermediate_size * mixture.num_experts
    shared = 3 * d * mixture.shared_intermediate_size
    return dense * 3 * d * width + (layers - dense) * (routed + shared + mixture.num_experts * d)


def _leading_dense_layers(model: ModelConfig) -> int:
    """Return the dense layers before the first mixture where all after it are mixtures; 0 where they alternate."""
    mixtures = sorted(i for s in model.layers if s.mlp.num_experts for i in s.layer_indices)
    contiguous = mixtures == list(range(mixtures[0], model.num_hidden_layers))
    return mixtures[0] if contiguous else 0


def flat_kv_bytes_per_token(model: ModelConfig, tp_size: int) -> float:
    """Return the KV bytes of one token on one rank, every layer alike, in the compute dtype."""
    element = FORMATS[model.dtype].bytes_per_weight
    mla = next((s.attention.mla for s in model.layers if s.attention.mla is not None), None)
    if mla is not None:
        return model.num_hidden_layers * mla.cached_elements * element
    local_heads = ceil(model.num_key_value_heads / tp_size)
    return model.num_hidden_layers * 2 * model.head_dim * local_heads * element
