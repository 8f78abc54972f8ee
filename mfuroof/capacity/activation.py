"""Activations of the largest step: an estimate from the model's widths, on one rank."""

from __future__ import annotations

from mfuroof.models import ModelConfig
from mfuroof.models.specs import AttentionSpec, MlpSpec
from mfuroof.parallel import Parallel

__all__ = ["activation_bytes"]

_ELEMENT = 2
"""Activations are 16-bit whatever the weights are; quantised copies of them are smaller. [bytes]"""
_LOGIT = 2 + 4 + 4
"""One logit as the GEMM writes it, as the sampler's 32-bit copy, and as its probability. [bytes]"""


def activation_bytes(model: ModelConfig, parallel: Parallel, max_batched_tokens: int, max_num_seqs: int) -> float:
    """Return the largest set of activations alive at once.

    Either the residual stream with the input and output of the widest operation of a layer, for all tokens of the
    step, or the logits of all its sequences over the whole vocabulary; the two are never alive together. [bytes]
    """
    tp = parallel.tp_size
    widest = max(
        (max(_attention_width(s.attention, tp), _mlp_width(s.mlp, parallel, model.hidden_size)) for s in model.layers),
        default=0.0,
    )
    body = max_batched_tokens * _ELEMENT * (2 * model.hidden_size + widest)
    return max(body, float(max_num_seqs * _LOGIT * model.vocab_size))


def _attention_width(a: AttentionSpec, tp: int) -> float:
    """Elements per token of the projections of one rank and the attention output."""
    heads = a.num_attention_heads / tp
    if a.mla is not None:
        m = a.mla
        return heads * (m.qk_head_dim + (m.qk_nope_head_dim + m.v_head_dim) + m.v_head_dim) + m.cached_elements
    if a.linear is not None:
        return (2 * a.linear.key_dim + 3 * a.linear.value_dim) / tp
    if a.mamba is not None:
        return (2 * a.mamba.inner_size + a.mamba.conv_dim) / tp
    kv_heads = max(a.num_key_value_heads / tp, 1.0)
    v_dim = a.v_head_dim or a.head_dim
    return heads * (a.head_dim * (2 if a.gated else 1) + v_dim) + kv_heads * (a.head_dim + v_dim)


def _mlp_width(m: MlpSpec, parallel: Parallel, hidden_size: int) -> float:
    """Elements per token between up and down projection; an expert's for each of the experts a token passes."""
    if m.kind == "none":
        return 0.0
    if m.kind == "dense":
        return m.num_matrices * m.intermediate_size / parallel.tp_size
    width = m.moe_intermediate_size / parallel.moe_tp_size
    routed = m.num_experts_per_tok * (max((m.num_matrices - 1) * width, m.latent_size or hidden_size) + width)
    beside = m.num_matrices * (m.shared_intermediate_size + m.dense_intermediate_size) / parallel.tp_size
    return max(routed, beside)
