"""The operation list of a decoder on one GPU: what runs in a step, how often, and at which shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mfuroof._boundary import Problems
from mfuroof.engines import EngineProfile
from mfuroof.errors import ConfigError, Problem
from mfuroof.hardware import Hardware
from mfuroof.models import AttentionSpec, LayerSpec, ModelConfig
from mfuroof.ops.attention import AttentionLayers, AttentionShape
from mfuroof.ops.comm import Collectives
from mfuroof.ops.compressed import compressed_gemms, compressed_layers
from mfuroof.ops.curves import Op, affine_curve
from mfuroof.ops.dsa import dsa_layers
from mfuroof.ops.layer import ACTIVATION_BYTES, Builder
from mfuroof.ops.mla import mla_gemms, mla_layers
from mfuroof.ops.mlp import mlp_ops
from mfuroof.ops.recurrent import recurrent_gemms, recurrent_layers
from mfuroof.ops.selector import score_layers, score_shape, selector_gemms
from mfuroof.ops.side import side_kernels
from mfuroof.ops.sources import MeasuredOps
from mfuroof.parallel import Parallel
from mfuroof.precision import format_of, kv_format_of

__all__ = ["ForwardPass", "check_parallel", "forward_pass"]


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Everything one GPU runs in a step: operations over tokens and over sequences, and the attention layers."""

    ops: tuple[Op, ...]
    attention: tuple[AttentionLayers, ...]

    def slowed(self, factor: float) -> ForwardPass:
        """Return the same pass with every kernel taking ``factor`` times as long; overheads stay."""
        if factor == 1.0:
            return self
        ops = (op if op.resource == "overhead" else replace(op, curve=op.curve.scaled(factor)) for op in self.ops)
        return ForwardPass(tuple(ops), tuple(layers.slowed(factor) for layers in self.attention))


def check_parallel(model: ModelConfig, parallel: Parallel) -> None:
    """Raise `InputError` where heads, widths or experts do not divide over the ranks."""
    tp, ep = parallel.tp_size, parallel.ep_size
    problems = Problems()
    for layer in model.layers:
        a, m = layer.attention, layer.mlp
        pieces = [(a.num_attention_heads, "attention heads"), (_output_groups(a), "output groups")]
        pieces.append((_recurrent_heads(a)[0], "recurrent heads"))
        for number, what in pieces:
            if number % tp:
                problems.add("tp_size", tp, f"a divisor of the {number} {what} of {model.name}")
        for number, what in ((a.num_key_value_heads, "KV heads"), (_recurrent_heads(a)[1], "recurrent key groups")):
            if number and number % tp and tp % number:
                problems.add("tp_size", tp, f"a divisor or a multiple of the {number} {what}")
        widths = [m.intermediate_size] if m.kind == "dense" else [m.shared_intermediate_size, m.dense_intermediate_size]
        for width in widths:
            if width % tp:
                problems.add("tp_size", tp, f"a divisor of the MLP width {width}")
        if m.kind == "moe" and m.num_experts % ep:
            problems.add("ep_size", ep, f"a divisor of the {m.num_experts} experts of {model.name}")
        if m.kind == "moe" and m.moe_intermediate_size % parallel.moe_tp_size:
            problems.add("tp_size", tp, f"expert ranks ({parallel.moe_tp_size}) that divide {m.moe_intermediate_size}")
    problems[:] = list(dict.fromkeys(problems))
    problems.raise_if_any()


def _recurrent_heads(a: AttentionSpec) -> tuple[int, int]:
    """Return the heads with a state of a recurrent layer, and the groups that share keys; 0 where it is none."""
    if a.linear is not None:
        return a.linear.num_value_heads, a.linear.num_key_heads
    return (a.mamba.num_heads, a.mamba.n_groups) if a.mamba is not None else (0, 0)


def _output_groups(a: AttentionSpec) -> int:
    """Return the groups of heads that share an output projection; 0 where there are none."""
    return a.compressed.o_groups if a.compressed is not None else 0


def forward_pass(
    model: ModelConfig, parallel: Parallel, measured: MeasuredOps, profile: EngineProfile
) -> ForwardPass:
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
    params = measured.params
    fused = params.engine_habits and fuses_all_reduce(measured.hardware, profile)
    links = Collectives(measured.tables, measured.reference, measured.hardware, params, fused)
    build = Builder(model, parallel, measured, links)
    ops = [build.elementwise("embedding", 1, float(ACTIVATION_BYTES * model.hidden_size))]
    for layer in model.layers:
        # Each norm reads the residual and the block's output, and writes both the sum and the normalised vector.
        if not (fused and parallel.tp_size > 1):  # else the norm runs inside the all-reduce
            norms = layer.count * _blocks(layer)
            ops.append(build.elementwise("norm", norms, 4.0 * ACTIVATION_BYTES * model.hidden_size))
        ops.extend(_attention_gemms(build, layer))
        if params.engine_habits:
            ops.extend(side_kernels(build, layer, profile))
        ops.extend(mlp_ops(build, layer))
    ops.extend(_communication(build))
    ops.append(_lm_head(build))
    ops.extend(_overheads(build, profile))
    run = ForwardPass(tuple(ops), tuple(_attention_layers(build)))
    return run.slowed(params.kernel_time_factor * (profile.kernel_time_factor if params.engine_overheads else 1.0))


def local_kv_heads(attention: AttentionSpec, tp_size: int) -> int:
    """Return the KV heads one rank holds: replicated where there are fewer than ranks."""
    return max(1, attention.num_key_value_heads // tp_size)


def fuses_all_reduce(hardware: Hardware, profile: EngineProfile) -> bool:
    """Say whether the engine fuses the all-reduce with the norm there: those kernels need NVLink."""
    generation = hardware.arch.split()[0] if hardware.arch else ""
    return generation in profile.fuses_all_reduce_norm and hardware.nvlink_bytes_per_s > 0


def attends_in_fp8(model: ModelConfig) -> bool:
    """Say whether queries and scores are FP8: only where that was asked for, and only over an FP8 cache."""
    wanted = bool(model.attention_dtype) and format_of(model.attention_dtype).compute_class == "fp8"
    return wanted and kv_format_of(model.kv_dtype).attention_class == "fp8"


def _attention_gemms(build: Builder, layer: LayerSpec) -> Iterator[Op]:
    a, d, tp = layer.attention, build.model.hidden_size, build.parallel.tp_size
    if a.kind == "none":
        return
    if a.kind == "mla":
        yield from mla_gemms(build, layer)
        if a.mla is not None and a.mla.q_lora_rank is not None:
            yield from selector_gemms(build, layer, a.mla.q_lora_rank)
        return
    if a.kind in ("linear", "mamba"):
        yield from recurrent_gemms(build, layer)
        return
    if a.kind == "compressed":
        yield from compressed_gemms(build, layer)
        return
    if a.kind != "gqa":
        raise ConfigError(
            Problem(build.model.name, f"{a.kind} attention", "a kind of layer that the kernels cost can price")
        )
    heads, kv_heads = a.num_attention_heads // tp, local_kv_heads(a, tp)
    query = heads * a.head_dim * (2 if a.gated else 1)
    keys_and_values = 0 if a.shared_kv else a.head_dim + (0 if a.k_eq_v else a.v_head_dim)
    qkv = query + kv_heads * keys_and_values
    yield build.gemm("qkv_gemm", layer.count, build.model.module_dtype("qkv", layer), qkv, d)
    yield build.gemm("o_gemm", layer.count, build.model.module_dtype("o", layer), d, heads * a.v_head_dim)
    yield from selector_gemms(build, layer, d)


def _communication(build: Builder) -> Iterator[Op]:
    """Yield the collectives of a step.

    Tensor-parallel ranks all-reduce the residual stream after the embedding, after each attention and after each MLP.
    Attention data-parallel ranks gather one another's tokens before the experts and scatter the sums after them, in
    place of the all-reduce there. Pipeline stages hand the residual stream on.
    """
    p, d = build.parallel, build.model.hidden_size
    sparse = sum(layer.count for layer in build.model.layers if layer.mlp.kind == "moe")
    exchanged = sparse if p.dp_size > 1 else 0
    if p.tp_size > 1:
        blocks = sum(layer.count * _blocks(layer) for layer in build.model.layers)
        curve = build.collective("all_reduce", p.tp_size, d)
        yield Op("all_reduce", "tokens", 1.0 + blocks - exchanged, curve, resource="comm")
    if exchanged:
        ranks = p.tp_size * p.dp_size
        for op in ("all_gather", "reduce_scatter"):
            curve = build.collective(op, ranks, float(d * p.dp_size))
            yield Op(op, "tokens", exchanged, curve, resource="comm")
    if p.pp_size > 1:
        yield Op("pp_send", "tokens", p.pp_size - 1.0, build.collectives.send_curve(d), resource="comm")


def _blocks(layer: LayerSpec) -> int:
    """Blocks of a layer that end in a sum over ranks."""
    return int(layer.attention.kind != "none") + int(layer.mlp.kind != "none")


def _overheads(build: Builder, profile: EngineProfile) -> Iterator[Op]:
    """Yield the time that no kernel table holds: the engine's own, and what the caller adds to it."""
    p = build.measured.params
    habits = float(p.engine_overheads)
    per_layer = habits * profile.layer_overhead_s + p.layer_overhead_s
    step = habits * profile.step_overhead_s + p.step_overhead_s + per_layer * build.model.num_hidden_layers
    if step > 0:
        yield Op("overhead", "tokens", 1.0, affine_curve(step, 0.0), resource="overhead")
    per_sequence = habits * profile.sequence_overhead_s + p.sequence_overhead_s
    if per_sequence > 0:
        yield Op("sampling", "sequences", 1.0, affine_curve(0.0, per_sequence), resource="overhead")


def _lm_head(build: Builder) -> Op:
    vocab = -(-build.model.vocab_size // build.parallel.tp_size)
    return build.gemm("lm_head", 1, build.model.module_dtype("lm_head"), vocab, build.model.hidden_size, "sequences")


def _attention_layers(build: Builder) -> Iterator[AttentionLayers]:
    """Yield the attention of all layers; what differs in its MLP alone is read once."""
    alike: dict[tuple[AttentionSpec, str], list[LayerSpec]] = {}
    for layer in build.model.layers:
        if layer.attention.kind != "none":
            alike.setdefault((layer.attention, build.model.module_dtype("mla", layer)), []).append(layer)
    for layers in alike.values():
        for attention in _attention(build, layers[0]):
            yield replace(attention, count=sum(layer.count for layer in layers))


def _attention(build: Builder, layer: LayerSpec) -> Iterator[AttentionLayers]:
    a = layer.attention
    if a.kind == "mla" and a.indexer is not None:
        yield from dsa_layers(build, layer)
    elif a.kind == "mla":
        yield mla_layers(build, layer)
    elif a.kind in ("linear", "mamba"):
        yield recurrent_layers(build, layer)
    elif a.kind == "compressed":
        yield from compressed_layers(build, layer)
    else:
        yield _grouped_query(build, layer)
        if a.indexer is not None and a.indexer.num_heads:
            yield score_layers(build, layer.count, score_shape(a.indexer))


def _grouped_query(build: Builder, layer: LayerSpec) -> AttentionLayers:
    a, tp, measured = layer.attention, build.parallel.tp_size, build.measured
    kv_heads, kv_dtype = local_kv_heads(a, tp), build.model.kv_dtype
    chosen = a.indexer.topk_tokens if a.indexer is not None else 0  # by blocks, of which attention reads no others
    shape = AttentionShape(
        heads=a.num_attention_heads // tp,
        kv_heads=kv_heads,
        head_dim=a.head_dim,
        window=min(reach for reach in (a.sliding_window, chosen) if reach) if a.sliding_window or chosen else 0,
        attn_dtype="fp8" if attends_in_fp8(build.model) else "bf16",
        kv_dtype="bf16" if kv_dtype == "fp16" else kv_dtype,
        kv_bytes_per_token=kv_heads * (a.head_dim + a.v_head_dim) * kv_format_of(kv_dtype).bytes_per_element,
    )
    return AttentionLayers.read(
        layer.count,
        shape,
        measured.tables,
        hardware=measured.hardware,
        reference=measured.reference,
        monotone=measured.params.monotone,
        blend=measured.params.prefill_blend,
        missing=measured.params.missing,
        transfer=measured.params.transfer,
    )
