"""InferSim's composition of a layer: how it fuses, shards and prices the matrix products.

Every layer is alike: a mixture has experts in all of them. A dense MLP is one operation at the MFU of its gate and up
projections over all GPUs; expert and dense weights are read once per layer at least. Rank sizes are whole quotients.

References
----------
.. [1] alibaba/InferSim, ``layers/attn.py``, ``layers/moe.py``, ``models/model.py``, state of 2026-05.
"""

from __future__ import annotations

from dataclasses import replace

from mfuroof.costs.token_op import ExpertKey, TokenOp
from mfuroof.errors import ConfigError, Problem
from mfuroof.hardware import Hardware
from mfuroof.models import AttentionSpec, MlpSpec, ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS, Format

__all__ = ["infersim_layer", "infersim_ops"]


def infersim_layer(model: ModelConfig) -> tuple[AttentionSpec, MlpSpec]:
    """Return the attention and the MLP that stand for every layer; windows and selectors are not seen.

    Raises
    ------
    ConfigError
        Attention of a kind this composition does not have, or of more than one shape.
    """
    blind = {"sliding_window": None, "chunked": False, "indexer": None, "qk_norm_params": 0, "extra_params": 0}
    attention = {replace(layer.attention, **blind) for layer in model.layers}  # type: ignore[arg-type]
    kinds = sorted({a.kind for a in attention})
    if len(attention) > 1 or kinds[0] not in ("gqa", "mla"):
        found = f"{len(attention)} kinds of attention ({', '.join(kinds)})"
        raise ConfigError(Problem(model.name or "model", found, "one kind of full or latent attention for this preset"))
    sparse = [layer.mlp for layer in model.layers if layer.mlp.kind == "moe"]
    return next(iter(attention)), sparse[0] if sparse else model.layers[0].mlp


def infersim_ops(model: ModelConfig, hardware: Hardware, parallel: Parallel, params: CostParams) -> list[TokenOp]:
    """Return the matrix products of one GPU."""
    a, mlp = infersim_layer(model)
    fp8 = _eight_bit(model)
    fmt = FORMATS["fp8" if fp8 else "bf16"]
    rate = hardware.peak(fmt.name) * params.flops_per_peak_flop
    bandwidth = hardware.hbm_bytes_per_s * params.bandwidth_efficiency * params.bytes_per_peak_byte
    layers, d, tp = model.num_hidden_layers, model.hidden_size, parallel.tp_size

    def gemm(name: str, k: int, n: int) -> TokenOp:
        return TokenOp(name, layers, k, n, fmt, 2.0 * k * n, rate)

    heads = a.num_attention_heads // tp
    if a.mla is not None:
        m = a.mla
        rank = m.q_lora_rank or 0
        ops = [
            gemm("q_down", d, rank),
            gemm("q_up", rank, heads * m.qk_head_dim),
            gemm("kv_down", d, m.cached_elements),
            gemm("q_absorb", heads * m.qk_nope_head_dim, m.kv_lora_rank),
            gemm("v_absorb", heads * m.kv_lora_rank, m.v_head_dim),
            gemm("o", heads * m.v_head_dim, d),
        ]
    else:
        kv_heads = a.num_key_value_heads // tp
        qkv = ((2 if a.gated else 1) * heads + 2 * kv_heads) * a.head_dim
        ops = [gemm("qkv", d, qkv), gemm("o", heads * a.head_dim, d)]
    return ops + _mlp(model, mlp, parallel, fmt, rate, bandwidth)


def _mlp(
    model: ModelConfig, mlp: MlpSpec, parallel: Parallel, fmt: Format, rate: float, bandwidth: float
) -> list[TokenOp]:
    tp, world, layers, d = parallel.tp_size, parallel.num_gpus, model.num_hidden_layers, model.hidden_size
    if mlp.kind == "moe":
        width, per_token, experts = mlp.moe_intermediate_size, mlp.num_experts_per_tok, mlp.num_experts
        key = ExpertKey(experts, per_token, d, width, world, tp)
    else:
        width, per_token, experts, key = mlp.intermediate_size, 1, 1, None
    flops = 6.0 * d * (width // tp) * per_token
    read = 3.0 * d * width * fmt.nominal_bytes * experts / world / bandwidth
    routed = TokenOp("experts" if key else "mlp", layers, d, width * 2 // world, fmt, flops, rate, read, True, key)
    if not mlp.shared_intermediate_size:
        return [routed]
    shared = width // tp * (mlp.shared_intermediate_size // width)
    return [
        routed,
        TokenOp("shared_up", layers, d, 2 * shared, fmt, 4.0 * d * shared, rate),
        TokenOp("shared_down", layers, shared, d, fmt, 2.0 * d * shared, rate),
    ]


def _eight_bit(model: ModelConfig) -> bool:
    formats = [model.module_format(kind) for kind in ("experts" if model.is_moe else "down", "o")]
    return any(f.nominal_bytes == 1.0 and f.compute_class == "fp8" for f in formats)
