"""How checkpoints call a module: its name here, spelled the way its family spells it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NAMINGS", "Naming", "naming_of", "spellings"]

_PREFIXES = (
    "model.layers.{}.",
    "layers.{}.",
    "model.language_model.layers.{}.",
    "language_model.model.layers.{}.",
    "backbone.layers.{}.",
)
_TOPS = ("model.", "", "model.language_model.", "language_model.model.", "language_model.", "backbone.")
_TOP = {"embed_tokens": ("embed_tokens", "embeddings", "wte", "embed"), "lm_head": ("lm_head", "head", "output")}

_W = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
_FUSED = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}
_ATTENTION = {
    "q_proj": ("qkv_proj",), "k_proj": ("qkv_proj",), "v_proj": ("qkv_proj",),
    "wq_a": ("q_a_proj",), "wq_b": ("q_b_proj",), "wkv": ("kv_proj",), "wo_a": ("o_a_proj",), "wo_b": ("o_b_proj",),
    "kv_a_proj_with_mqa": ("fused_qkv_a_proj_with_mqa",), "q_a_proj": ("fused_qkv_a_proj_with_mqa",),
}  # fmt: skip
_LINEAR = {
    "in_proj_qkv": "in_proj_qkvz",
    "in_proj_z": "in_proj_qkvz",
    "in_proj_b": "in_proj_ba",
    "in_proj_a": "in_proj_ba",
}


@dataclass(frozen=True, slots=True)
class Naming:
    """Paths of the parts of a layer, inside the layer, in every spelling a family uses."""

    dense: tuple[str, ...] = ("mlp",)
    experts: tuple[str, ...] = ("mlp.experts",)
    routers: tuple[str, ...] = ("mlp.gate", "mlp.router")
    shared: tuple[str, ...] = ("mlp.shared_experts", "mlp.shared_expert")
    attention: tuple[str, ...] = ("self_attn",)
    mixer: str = "mixer"


_SPARSE_BLOCK = Naming(
    dense=("mlp", "block_sparse_moe.mlp"),
    experts=("block_sparse_moe.experts", "mlp.experts"),
    routers=("block_sparse_moe.gate", "mlp.gate"),
    shared=("block_sparse_moe.shared_experts", "mlp.shared_experts"),
)
_FFN = Naming(
    dense=("ffn", "mlp"),
    experts=("ffn.experts", "mlp.experts"),
    routers=("ffn.gate", "mlp.gate"),
    shared=("ffn.shared_experts", "mlp.shared_experts"),
    attention=("attn", "self_attn"),
)

NAMINGS = {
    "mixtral": _SPARSE_BLOCK,
    "minimax_m2": _SPARSE_BLOCK,
    "minimax_m3": _SPARSE_BLOCK,
    "minimax_m3_vl": _SPARSE_BLOCK,
    "deepseek_v4": _FFN,
    "deepseek_ref": _FFN,
    "llama4_text": Naming(
        ("feed_forward",), ("feed_forward.experts",), ("feed_forward.router",), ("feed_forward.shared_expert",)
    ),
    "gemma4_text": Naming(experts=("experts", "moe"), routers=("router.proj", "router")),
    "nemotron_h": Naming(("mixer",), ("mixer.experts",), ("mixer.gate",), ("mixer.shared_experts",), ("mixer",)),
    "step3p7": Naming(experts=("moe", "mlp.experts"), routers=("moe.gate", "mlp.gate"), shared=("share_expert",)),
    "kimi_linear": Naming(
        experts=("block_sparse_moe.experts", "mlp.experts"),
        routers=("block_sparse_moe.gate", "mlp.gate"),
        shared=("block_sparse_moe.shared_experts", "mlp.shared_experts"),
    ),
    "bloom": Naming(attention=("self_attention", "self_attn")),
}
"""Naming by ``model_type``; the rest spell it the common way."""

_COMMON = Naming()


def naming_of(model_type: str) -> Naming:
    """Return how checkpoints of a model type call their modules."""
    return NAMINGS.get(model_type, _COMMON)


def spellings(name: str, layer: int | None, naming: Naming = _COMMON) -> tuple[str, ...]:
    """Return every full name a checkpoint may use for the module ``name`` of layer ``layer`` (None: outside)."""
    if layer is None:
        return tuple(f"{top}{s}" for s in _TOP.get(name, (name,)) for top in _TOPS)
    return tuple(prefix.format(layer) + s for s in _local(name, naming) for prefix in _PREFIXES)


def _local(name: str, n: Naming) -> tuple[str, ...]:
    path, _, last = name.rpartition(".")
    if name == "mlp.gate":
        return n.routers
    if path == "mlp.experts":
        leaves = (f"0.{last}", f"0.{_W[last]}", _FUSED.get(last, last))
        return tuple(f"{p}.{leaf}" for p in n.experts for leaf in leaves)
    if path == "mlp.shared_experts":
        return tuple(f"{p}.{leaf}" for p in n.shared for leaf in (last, _FUSED.get(last, last)))
    if path == "mlp":
        return tuple(f"{p}.{leaf}" for p in n.dense for leaf in (last, _FUSED.get(last, last)))
    if path.startswith("self_attn"):
        rest = path.removeprefix("self_attn")
        return tuple(f"{p}{rest}.{leaf}" for p in n.attention for leaf in (last, *_ATTENTION.get(last, ())))
    if path == "linear_attn" and last in _LINEAR:
        return (name, f"linear_attn.{_LINEAR[last]}")
    return (name,)
