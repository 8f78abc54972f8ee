"""The operation list of a decoder on one GPU: what runs in a step, how often, and at which shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mfuroof._boundary import Problems
from mfuroof.errors import ConfigError, Problem
from mfuroof.models import AttentionSpec, LayerSpec, MlpSpec, ModelConfig
from mfuroof.ops.attention import AttentionLayers, AttentionShape
from mfuroof.ops.curves import Op
from mfuroof.ops.elementwise import elementwise
from mfuroof.ops.sources import MeasuredOps
from mfuroof.parallel import Parallel
from mfuroof.precision import format_of, kv_format_of

__all__ = ["ForwardPass", "check_parallel", "forward_pass"]

ACTIVATION_BYTES = 2
"""Of one element of the residual stream and of what kernels hand on: 16-bit in every engine. [bytes]"""


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Everything one GPU runs in a step: operations over tokens and over sequences, and the attention layers."""

    ops: tuple[Op, ...]
    attention: tuple[AttentionLayers, ...]


def check_parallel(model: ModelConfig, parallel: Parallel) -> None:
    """Raise `InputError` where heads, widths or vocabulary do not divide over the tensor-parallel ranks."""
    tp = parallel.tp_size
    problems = Problems()
    for layer in model.layers:
        a, m = layer.attention, layer.mlp
        if a.num_attention_heads % tp:
            problems.add("tp_size", tp, f"a divisor of the {a.num_attention_heads} attention heads of {model.name}")
        if a.num_key_value_heads and a.num_key_value_heads % tp and tp % a.num_key_value_heads:
            problems.add("tp_size", tp, f"a divisor or a multiple of the {a.num_key_value_heads} KV heads")
        if m.kind == "dense" and m.intermediate_size % tp:
            problems.add("tp_size", tp, f"a divisor of the MLP width {m.intermediate_size}")
    unique = list(dict.fromkeys(problems))
    problems[:] = unique
    problems.raise_if_any()


def forward_pass(model: ModelConfig, parallel: Parallel, measured: MeasuredOps) -> ForwardPass:
    """Return what one GPU runs in a step of ``model``.

    Raises
    ------
    InputError
        The model does not divide over the ranks.
    ConfigError
        A kind of layer that this cost cannot price.
    MissingTableError
        A table is missing and ``params.missing`` is ``"raise"``.
    """
    check_parallel(model, parallel)
    ops = [_embedding(model, measured)]
    for layer in model.layers:
        ops.extend(_layer_ops(model, layer, parallel, measured))
    if parallel.tp_size > 1:
        ops.extend(_all_reduces(model, parallel, measured))
    ops.append(_lm_head(model, parallel, measured))
    attention = tuple(_attention(model, layer, parallel, measured) for layer in model.layers)
    return ForwardPass(tuple(ops), attention)


def _embedding(model: ModelConfig, measured: MeasuredOps) -> Op:
    return _elementwise("embedding", 1, float(ACTIVATION_BYTES * model.hidden_size), measured)


def _elementwise(name: str, count: float, bytes_per_token: float, measured: MeasuredOps) -> Op:
    p = measured.params
    return elementwise(
        name,
        count,
        bytes_per_token,
        hbm_bytes_per_s=measured.hardware.hbm_bytes_per_s,
        efficiency=p.elementwise_bandwidth_efficiency,
        launch_s=p.elementwise_launch_s,
    )


def _gemm(name: str, count: float, dtype: str, n: int, k: int, measured: MeasuredOps, axis: str = "tokens") -> Op:
    fmt = format_of(dtype)
    return Op(
        name,
        "tokens" if axis == "tokens" else "sequences",
        count,
        measured.gemm_curve(fmt.name, n, k),
        flops_per_count=2.0 * n * k,
        peak_flops_per_s=measured.hardware.peak(fmt.name),
        fixed_bytes=fmt.matrix_bytes(n, k),
        bytes_per_count=float(ACTIVATION_BYTES * (n + k)),
    )


def _layer_ops(model: ModelConfig, layer: LayerSpec, parallel: Parallel, measured: MeasuredOps) -> Iterator[Op]:
    d = model.hidden_size
    # Each norm reads the residual and the block's output and writes both the sum and the normalised vector.
    yield _elementwise("norm", 2 * layer.count, 4.0 * ACTIVATION_BYTES * d, measured)
    yield from _attention_gemms(model, layer, parallel, measured)
    yield from _mlp_ops(model, layer, parallel, measured)


def _attention_gemms(model: ModelConfig, layer: LayerSpec, parallel: Parallel, measured: MeasuredOps) -> Iterator[Op]:
    a, d, tp = layer.attention, model.hidden_size, parallel.tp_size
    if a.kind != "gqa":
        raise ConfigError(_unpriced(model, f"{a.kind} attention"))
    heads, kv_heads = a.num_attention_heads // tp, local_kv_heads(a, tp)
    query = heads * a.head_dim * (2 if a.gated else 1)
    qkv = query + kv_heads * (a.head_dim + (0 if a.k_eq_v else a.v_head_dim))
    yield _gemm("qkv_gemm", layer.count, model.module_dtype("qkv", layer), qkv, d, measured)
    yield _gemm("o_gemm", layer.count, model.module_dtype("o", layer), d, heads * a.v_head_dim, measured)


def _mlp_ops(model: ModelConfig, layer: LayerSpec, parallel: Parallel, measured: MeasuredOps) -> Iterator[Op]:
    m: MlpSpec = layer.mlp
    if m.kind != "dense":
        raise ConfigError(_unpriced(model, f"{m.kind} MLP"))
    width, up = m.intermediate_size // parallel.tp_size, m.num_matrices - 1
    d = model.hidden_size
    yield _gemm("gate_up_gemm", layer.count, model.module_dtype("gate_up", layer), up * width, d, measured)
    yield _elementwise("activation", layer.count, float(ACTIVATION_BYTES * (up + 1) * width), measured)
    yield _gemm("down_gemm", layer.count, model.module_dtype("down", layer), d, width, measured)


def _all_reduces(model: ModelConfig, parallel: Parallel, measured: MeasuredOps) -> Iterator[Op]:
    """After attention and after the MLP of each layer, and once after the embedding."""
    curve = measured.all_reduce_curve(parallel.tp_size, model.hidden_size)
    count = 1.0 + 2.0 * model.num_hidden_layers
    yield Op("all_reduce", "tokens", count, curve, resource="comm")


def _lm_head(model: ModelConfig, parallel: Parallel, measured: MeasuredOps) -> Op:
    vocab = -(-model.vocab_size // parallel.tp_size)
    return _gemm("lm_head", 1, model.module_dtype("lm_head"), vocab, model.hidden_size, measured, "sequences")


def local_kv_heads(attention: AttentionSpec, tp_size: int) -> int:
    """Return the KV heads one rank holds: replicated where there are fewer than ranks."""
    return max(1, attention.num_key_value_heads // tp_size)


def _attention(model: ModelConfig, layer: LayerSpec, parallel: Parallel, measured: MeasuredOps) -> AttentionLayers:
    a, tp = layer.attention, parallel.tp_size
    kv_heads = local_kv_heads(a, tp)
    kv_dtype = model.kv_dtype
    shape = AttentionShape(
        heads=a.num_attention_heads // tp,
        kv_heads=kv_heads,
        head_dim=a.head_dim,
        window=a.sliding_window or 0,
        attn_dtype="bf16",
        kv_dtype="bf16" if kv_dtype == "fp16" else kv_dtype,
        kv_bytes_per_token=kv_heads * (a.head_dim + a.v_head_dim) * kv_format_of(kv_dtype).bytes_per_element,
    )
    return AttentionLayers.read(
        layer.count,
        shape,
        measured.tables,
        peak_flops_per_s=measured.hardware.peak("bf16"),
        hbm_bytes_per_s=measured.hardware.hbm_bytes_per_s,
        monotone=measured.params.monotone,
        blend=measured.params.prefill_blend,
        missing=measured.params.missing,
    )


def _unpriced(model: ModelConfig, what: str) -> Problem:
    return Problem(model.name, what, "a kind of layer the kernels cost can price")
