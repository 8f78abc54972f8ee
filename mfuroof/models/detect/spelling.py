"""How checkpoints call a module: its name here, spelled the ways the families spell it."""

from __future__ import annotations

__all__ = ["spellings"]

_PREFIXES = (
    "model.layers.{}.",
    "layers.{}.",
    "model.language_model.layers.{}.",
    "language_model.model.layers.{}.",
    "language_model.layers.{}.",
    "backbone.layers.{}.",
    "transformer.h.{}.",
)
_TOPS = ("model.", "", "model.language_model.", "language_model.model.", "language_model.", "backbone.")

_PROJECTIONS = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
_FUSED = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj"}
_QKV = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj"}
_V4 = {"wq_a": "q_a_proj", "wq_b": "q_b_proj", "wkv": "kv_proj", "wo_a": "o_a_proj", "wo_b": "o_b_proj"}
_TOP = {"embed_tokens": ("embed_tokens", "embeddings", "wte", "embed"), "lm_head": ("lm_head", "head", "output")}
_ROUTERS = ("mlp.gate", "mlp.router", "block_sparse_moe.gate", "feed_forward.router", "mixer.gate", "router.proj", "ffn.gate")
_EXPERTS = ("mlp.experts", "block_sparse_moe.experts", "feed_forward.experts", "mixer.experts", "ffn.experts", "experts")
_SHARED = (
    "mlp.shared_experts",
    "mlp.shared_expert",
    "block_sparse_moe.shared_experts",
    "feed_forward.shared_expert",
    "mixer.shared_experts",
    "ffn.shared_experts",
    "share_expert",
)
_DENSE = ("mlp", "feed_forward", "mixer", "ffn", "block_sparse_moe.mlp")


def spellings(name: str, layer: int | None) -> tuple[str, ...]:
    """Return every full name a checkpoint may use for the module ``name`` of layer ``layer`` (None: outside)."""
    if layer is None:
        return tuple(f"{top}{s}" for s in _TOP.get(name, (name,)) for top in _TOPS)
    return tuple(prefix.format(layer) + s for s in _local(name) for prefix in _PREFIXES)


def _local(name: str) -> tuple[str, ...]:
    path, _, last = name.rpartition(".")
    if name == "mlp.gate":
        return _ROUTERS
    if path == "mlp.experts":
        spelled = [f"{p}.{leaf}" for p in _EXPERTS for leaf in (f"0.{last}", f"0.{_PROJECTIONS[last]}", _FUSED[last])]
        return tuple(spelled)
    if path == "mlp.shared_experts":
        return tuple(f"{p}.{leaf}" for p in _SHARED for leaf in (last, _FUSED[last], _PROJECTIONS[last]))
    if path == "mlp" and last in _PROJECTIONS:
        return tuple(f"{p}.{leaf}" for p in _DENSE for leaf in (last, _FUSED[last]))
    if path == "mlp":
        return (name, f"mixer.{last}")
    if path.startswith("self_attn"):
        leaves = [last, *([_QKV[last]] if last in _QKV else []), *([_V4[last]] if last in _V4 else [])]
        if last == "kv_a_proj_with_mqa":
            leaves.append("fused_qkv_a_proj")
        paths = [path.replace("self_attn", p, 1) for p in ("self_attn", "attn", "mixer", "attention")]
        return tuple(f"{p}.{leaf}" for p in paths for leaf in leaves)
    if path == "linear_attn":
        fused = {"in_proj_qkv": "in_proj_qkvz", "in_proj_z": "in_proj_qkvz", "in_proj_b": "in_proj_ba", "in_proj_a": "in_proj_ba"}
        return (name, f"linear_attn.{fused[last]}") if last in fused else (name,)
    return (name,)
