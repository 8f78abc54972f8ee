"""A model as some peers see it: layers of one kind, a head width by division, one weight width."""

from __future__ import annotations

from dataclasses import dataclass

from mfuroof.models import ModelConfig
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS, kv_format_of

__all__ = ["UniformModel", "ignored"]


@dataclass(frozen=True)
class UniformModel:
    """Symbols of the uniform transformer.

    Parameters
    ----------
    hidden_size, num_layers, heads, kv_heads
        As declared; ``kv_heads`` falls back to ``heads``.
    head_dim
        hidden_size / heads, not rounded, whatever the model declares.
    dense_width, dense_layers, moe_width, moe_layers
        MLP widths and how many layers have which.
    num_experts, experts_per_token
        Routed experts; 0 where the model is taken as dense.
    matrices
        Matrices per MLP.
    act_bytes, weight_bytes
        Bytes of one activation or cached element, and of one weight. [bytes]
    """

    hidden_size: int
    num_layers: int
    heads: int
    kv_heads: int
    head_dim: float
    dense_width: int
    dense_layers: int
    moe_width: int
    moe_layers: int
    num_experts: int
    experts_per_token: int
    matrices: int
    act_bytes: float
    weight_bytes: float

    @classmethod
    def of(cls, model: ModelConfig, params: CostParams) -> UniformModel:
        """Return what ``params.architecture`` leaves of a model."""
        d, layers, heads = model.hidden_size, model.num_hidden_layers, model.num_attention_heads
        experts = model.num_experts if params.architecture == "uniform" else 0
        width = model.intermediate_size if model.intermediate_size > 0 else 4 * d
        moe_layers = _moe_layers(model) if experts >= 2 else 0
        own_width = model.intermediate_size_mlp if params.architecture == "uniform" else 0
        act = FORMATS[model.dtype].bytes_per_weight
        return cls(
            hidden_size=d,
            num_layers=layers,
            heads=heads,
            kv_heads=model.num_key_value_heads or heads,
            head_dim=d / heads,
            dense_width=own_width or width,
            dense_layers=layers - moe_layers,
            moe_width=(model.moe_intermediate_size or width) if moe_layers else 0,
            moe_layers=moe_layers,
            num_experts=experts if moe_layers else 0,
            experts_per_token=model.num_experts_per_tok if moe_layers else 0,
            matrices=params.mlp_matrices or 3,
            act_bytes=act,
            weight_bytes=weight_bytes(model, act) if params.architecture == "uniform" else act,
        )

    @property
    def attention_params(self) -> float:
        """Weights of the four projections of one layer."""
        return 2.0 * self.hidden_size**2 + 2.0 * self.hidden_size * self.kv_heads * self.head_dim

    @property
    def expert_params(self) -> float:
        """Weights of one expert."""
        return float(self.matrices * self.hidden_size * self.moe_width)

    @property
    def dense_params(self) -> float:
        """Weights of one dense MLP."""
        return float(self.matrices * self.hidden_size * self.dense_width)

    @property
    def kv_elements(self) -> float:
        """Cached elements per token over all layers."""
        return 2.0 * self.num_layers * self.kv_heads * self.head_dim


def weight_bytes(model: ModelConfig, act_bytes: float) -> float:
    """Return bytes per weight as one number: nominal bits of the quantised ones, else of the dtype. [bytes]"""
    q = model.quantization
    return q.weight_bytes_nominal if q.method != "none" or q.source == "override" else act_bytes


def _moe_layers(model: ModelConfig) -> int:
    """Layers with experts: all, or by the peer's rule one in ``step + 1`` where they are interleaved."""
    step, layers = model.interleave_moe_layer_step, model.num_hidden_layers
    return layers // (step + 1) if step > 0 else layers


def ignored(model: ModelConfig, params: CostParams) -> list[str]:
    """Return what these conventions do not see of a model, in words; for warnings."""
    texts = []
    name = model.name or "this model"
    dense = params.architecture == "uniform_dense"
    formats = {model.module_dtype(kind) for kind in ("qkv", "o", "mla", "gate_up", "down", "experts")} - {model.dtype}
    if dense and formats:
        texts.append(f"the preset ignores the precision of {name} ({', '.join(sorted(formats))} weights)")
    if kv_format_of(model.kv_dtype).bytes_per_element != FORMATS[model.dtype].bytes_per_weight:
        texts.append(f"the preset ignores the precision of the KV cache of {name} ({model.kv_dtype})")
    if dense and model.is_moe:
        texts.append(f"the preset ignores the experts of {name}")
    if any(layer.attention.mla is not None for layer in model.layers):
        texts.append(f"the preset ignores the latent attention (MLA) of {name}")
    return texts
