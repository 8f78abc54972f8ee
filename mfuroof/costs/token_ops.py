"""The matrix products of one GPU as operations whose MFU is looked up, laid out as ``params.gemm_layout`` says."""

from __future__ import annotations

from mfuroof.costs.infersim_ops import infersim_ops
from mfuroof.costs.layered_work import format_rate, shard_share
from mfuroof.costs.token_op import ExpertKey, TokenOp
from mfuroof.costs.uniform_model import UniformModel
from mfuroof.errors import ConfigError, Problem
from mfuroof.hardware import Hardware
from mfuroof.models import LayerSpec, ModelConfig, Module
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS, Format

__all__ = ["head_op", "token_ops"]

_FUSED = {
    "self_attn.q_proj": "qkv",
    "self_attn.k_proj": "qkv",
    "self_attn.v_proj": "qkv",
    "mlp.gate_proj": "gate_up",
    "mlp.up_proj": "gate_up",
    "mlp.shared_experts.gate_proj": "shared_gate_up",
    "mlp.shared_experts.up_proj": "shared_gate_up",
}
"""Matrices that engines run as one product."""


def token_ops(model: ModelConfig, hardware: Hardware, parallel: Parallel, params: CostParams) -> list[TokenOp]:
    """Return every matrix product over tokens.

    Raises
    ------
    ConfigError
        A kind of layer without matrices that MFU tables know (linear attention, Mamba, compressed attention).
    """
    if params.gemm_layout == "infersim":
        return infersim_ops(model, hardware, parallel, params)
    if params.architecture != "layers":
        return _uniform(UniformModel.of(model, params), hardware, parallel, params)
    ops = []
    for layer in model.layers:
        if layer.attention.kind not in ("gqa", "mla", "none"):
            found = f"{layer.attention.kind} attention"
            expected = 'full or latent attention; cost="constant_mfu" and "kernels" price others'
            raise ConfigError(Problem(model.name or "model", found, expected))
        ops += _layer(model, layer, hardware, parallel, params)
    return ops


def _rate(fmt: Format, hardware: Hardware, params: CostParams) -> float:
    rate = hardware.peak("bf16") if params.table_peak == "bf16" else format_rate(hardware, fmt)
    return rate * params.flops_per_peak_flop


def _bandwidth(hardware: Hardware, params: CostParams) -> float:
    efficiency = params.bandwidth_efficiency * params.weight_bandwidth_efficiency
    return hardware.hbm_bytes_per_s * efficiency * params.bytes_per_peak_byte


def _uniform(u: UniformModel, hardware: Hardware, parallel: Parallel, params: CostParams) -> list[TokenOp]:
    """Seven matrices of the uniform transformer, with the whole head width; MLPs of experts are not seen."""
    d, kv, tp = u.hidden_size, u.kv_heads * (u.hidden_size // u.heads), parallel.tp_size
    shapes = [("q", d, d, d), ("k", d, kv, kv), ("v", d, kv, kv), ("o", d, d, d)]
    shapes += [(name, d, u.dense_width, u.dense_width) for name in ("gate", "up")[: u.matrices - 1]]
    shapes += [("down", u.dense_width, d, d)]
    fmt = FORMATS["bf16"]
    rate, bandwidth = _rate(fmt, hardware, params), _bandwidth(hardware, params)
    ops = []
    for name, k, n, _ in shapes:
        count = float(u.num_layers)
        if params.gemm_layout == "whole":
            count /= tp
        elif name in ("o", "down"):
            k = max(k // tp, 1)
        else:
            n = max(n // tp, 1)
        read = k * n * u.weight_bytes / bandwidth
        ops.append(TokenOp(name, count, k, n, fmt, 2.0 * k * n, rate, read, params.weight_floor))
    return ops


def _layer(
    model: ModelConfig, layer: LayerSpec, hardware: Hardware, parallel: Parallel, params: CostParams
) -> list[TokenOp]:
    groups: dict[tuple[str, Format], list[Module]] = {}
    for module in model.modules(layer):
        if module.matrix_params:
            fused = params.gemm_layout == "sharded" and module.kind != "experts"
            name = _FUSED.get(module.name, module.name) if fused else module.name
            name = "experts" if module.kind == "experts" else name
            groups.setdefault((name, model.format_in(layer, module.name)), []).append(module)
    ops = []
    for (name, fmt), modules in groups.items():
        if name == "experts":
            ops.append(_experts(model, layer, fmt, modules, hardware, parallel, params))
            continue
        k, n, count = modules[0].in_features, sum(m.out_features for m in modules), float(layer.count)
        shares = [shard_share(m, parallel.tp_size) for m in modules]
        if params.gemm_layout == "whole":
            count *= sum(m.out_features * s for m, s in zip(modules, shares, strict=True)) / n
        elif modules[0].shard == "rows":
            k = _whole(k * shares[0])
        else:
            n = _whole(sum(m.out_features * s for m, s in zip(modules, shares, strict=True)))
        read = fmt.matrix_bytes(n, k) / _bandwidth(hardware, params)
        rate = _rate(fmt, hardware, params)
        ops.append(TokenOp(name, count, k, n, fmt, 2.0 * k * n, rate, read, params.weight_floor))
    return ops


def _whole(width: float) -> int:
    return max(int(-(-width // 1)), 1)


def _experts(
    model: ModelConfig,
    layer: LayerSpec,
    fmt: Format,
    modules: list[Module],
    hardware: Hardware,
    parallel: Parallel,
    params: CostParams,
) -> TokenOp:
    m, tp = layer.mlp, parallel.moe_tp_size
    params_per_expert = sum(x.out_features * x.in_features for x in modules)
    flops = 2.0 * params_per_expert * m.num_experts_per_tok / parallel.tp_size
    stored = sum(model.module_bytes(layer, x) for x in modules) / (parallel.tp_size * parallel.dp_size)
    key = ExpertKey(
        m.num_experts,
        m.num_experts_per_tok,
        m.latent_size or model.hidden_size,
        m.moe_intermediate_size,
        parallel.tp_size * parallel.dp_size,
        tp,
    )
    read, rate = stored / _bandwidth(hardware, params), _rate(fmt, hardware, params)
    count, per_gpu = float(layer.count), parallel.dp_size / parallel.ep_size
    return TokenOp(
        "experts", count, 0, 0, fmt, flops, rate, read, params.weight_floor, key, per_gpu, parallel.dp_size
    )


def head_op(model: ModelConfig, hardware: Hardware, parallel: Parallel, params: CostParams) -> TokenOp | None:
    """Return the LM head over the requests that emit; None where the conventions leave it out."""
    if params.gemm_layout == "infersim" or params.architecture != "layers":
        return None
    fmt = model.format_in(None, "embed_tokens" if model.tie_word_embeddings else "lm_head")
    n, k = -(-model.vocab_size // parallel.tp_size), model.hidden_size
    read, rate = fmt.matrix_bytes(n, k) / _bandwidth(hardware, params), _rate(fmt, hardware, params)
    return TokenOp("lm_head", 1.0, k, n, fmt, 2.0 * k * n, rate, read, params.weight_floor)
