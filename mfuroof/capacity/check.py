"""Which tensor-parallel degrees a model can have: heads are whole."""

from __future__ import annotations

from mfuroof.models import ModelConfig
from mfuroof.models.specs import AttentionSpec

__all__ = ["tp_obstacle", "valid_tp_sizes"]


def tp_obstacle(model: ModelConfig, tp_size: int) -> str:
    """Return why ``tp_size`` ranks cannot share the heads of ``model``; an empty text where they can.

    Query heads (and heads of linear attention and Mamba) must divide evenly. KV heads must too, or else be so few
    that each is copied to a whole number of ranks.
    """
    for spec in model.layers:
        for what, heads in _heads(spec.attention):
            if heads % tp_size:
                return f"{heads} {what}"
        kv_heads = spec.attention.num_key_value_heads if spec.attention.kind == "gqa" else 0
        if kv_heads and kv_heads % tp_size and tp_size % kv_heads:
            return f"{kv_heads} key-value heads"
    return ""


def _heads(a: AttentionSpec) -> list[tuple[str, int]]:
    if a.linear is not None:
        return [("value heads", a.linear.num_value_heads), ("key heads", a.linear.num_key_heads)]
    if a.mamba is not None:
        return [("Mamba heads", a.mamba.num_heads)]
    return [("attention heads", a.num_attention_heads)] if a.kind != "none" else []


def valid_tp_sizes(model: ModelConfig) -> tuple[int, ...]:
    """Return every tensor-parallel degree the heads of ``model`` allow, ascending."""
    most = min((heads for s in model.layers for _, heads in _heads(s.attention)), default=1)
    return tuple(tp for tp in range(1, most + 1) if not tp_obstacle(model, tp))
