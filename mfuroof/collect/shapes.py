"""The shapes a model asks of one GPU: weight matrices, attention heads and experts under tensor parallelism."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mfuroof.models import ModelConfig

__all__ = ["ExpertsKey", "Heads", "ModelShapes", "model_shapes"]

ExpertsKey = tuple[int, int, int, int, int, int]
"""Experts, experts per token, hidden size, width of one expert, tensor and expert parallel ranks."""
Heads = tuple[int, int, int]
"""Query heads, KV heads and head width of one GPU."""


@dataclass(frozen=True)
class ModelShapes:
    """What models have in common and apart, in the order it was met, without repetition.

    Attributes
    ----------
    sites
        Weight shapes (n, k), out and in features of one rank.
    heads
        Attention without a window.
    experts
        Routed experts.
    """

    sites: tuple[tuple[int, int], ...]
    heads: tuple[Heads, ...]
    experts: tuple[ExpertsKey, ...]


def model_shapes(models: Sequence[ModelConfig], tp_sizes: Sequence[int] = (1,)) -> ModelShapes:
    """Return the shapes of ``models`` on one of ``tp_sizes`` ranks; a degree that does not divide is left out.

    Experts are cut over the ranks, and beside that spread over them.
    """
    sites: dict[tuple[int, int], None] = {}
    heads: dict[Heads, None] = {}
    experts: dict[ExpertsKey, None] = {}
    for tp in tp_sizes:
        for model in models:
            hidden = model.hidden_size
            for layer in model.layers:
                a, m = layer.attention, layer.mlp
                if a.kind == "gqa" and a.num_attention_heads % tp == 0 and a.head_dim == a.v_head_dim:
                    local, kv = a.num_attention_heads // tp, max(1, a.num_key_value_heads // tp)
                    sites |= {((local + 2 * kv) * a.head_dim, hidden): None, (hidden, local * a.head_dim): None}
                    if not a.sliding_window:
                        heads[local, kv, a.head_dim] = None
                if m.kind == "dense" and m.intermediate_size % tp == 0:
                    width = m.intermediate_size // tp
                    sites |= {((m.num_matrices - 1) * width, hidden): None, (hidden, width): None}
                if m.kind == "moe" and m.moe_intermediate_size % tp == 0 and m.num_experts % tp == 0:
                    key = (m.num_experts, m.num_experts_per_tok, hidden, m.moe_intermediate_size)
                    experts |= {(*key, tp, 1): None, (*key, 1, tp): None}
                    sites[m.num_experts, hidden] = None
            sites[-(-model.vocab_size // tp), hidden] = None
    return ModelShapes(tuple(sites), tuple(heads), tuple(experts))
