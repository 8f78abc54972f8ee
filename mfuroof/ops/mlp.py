"""Feed-forward blocks: dense MLPs, and mixtures of experts with their router and shared experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64
from mfuroof.models import LayerSpec, MlpSpec
from mfuroof.ops.curves import Curve, Op
from mfuroof.ops.layer import ACTIVATION_BYTES, Builder
from mfuroof.ops.moe import ExpertsShape
from mfuroof.precision import format_of

__all__ = ["ExpertsOp", "mlp_ops"]


@dataclass(frozen=True, eq=False)
class ExpertsOp(Op):
    """Routed experts: the weights they stream depend on how many experts the tokens touch."""

    shape: ExpertsShape | None = None
    num_matrices: int = 3
    bytes_per_weight: float = 2.0
    entering: float = 1.0

    def bytes_at(self, counts: F64) -> F64:
        """Return the expected expert weights, and the activations in and out. [bytes]"""
        assert self.shape is not None
        weights = self.shape.weight_bytes(counts * self.entering, self.num_matrices, self.bytes_per_weight)
        return weights + self.bytes_per_count * counts


def mlp_ops(build: Builder, layer: LayerSpec) -> Iterator[Op]:
    """Yield the operations of a layer's feed-forward block (without its norm and its collectives)."""
    m = layer.mlp
    if m.kind == "none":
        return
    if m.kind == "dense":
        yield from _dense(build, layer, m, m.intermediate_size)
        return
    d = build.model.hidden_size
    yield build.gemm("router", layer.count, build.model.module_dtype("router", layer), m.num_experts, d)
    if m.latent_size:
        dtype = build.model.module_dtype("shared_experts", layer)
        yield build.gemm("latent_gemm", layer.count, dtype, m.latent_size, d)
        yield build.gemm("latent_gemm", layer.count, dtype, d, m.latent_size)
    experts = _experts(build, layer, m)
    yield experts
    if m.shared_intermediate_size:
        yield from _shared(build, layer, m, experts.curve)
    if m.dense_intermediate_size:
        yield from _dense(build, layer, m, m.dense_intermediate_size)


def _dense(build: Builder, layer: LayerSpec, m: MlpSpec, width: int, kind: str = "") -> Iterator[Op]:
    d, local, up = build.model.hidden_size, max(width // build.parallel.tp_size, 1), m.num_matrices - 1
    up_dtype = build.model.module_dtype(kind or "gate_up", layer)
    down_dtype = build.model.module_dtype(kind or "down", layer)
    prefix = "shared_" if kind else ""
    yield build.gemm(f"{prefix}gate_up_gemm", layer.count, up_dtype, up * local, d)
    yield build.elementwise("activation", layer.count, float(ACTIVATION_BYTES * (up + 1) * local))
    yield build.gemm(f"{prefix}down_gemm", layer.count, down_dtype, d, local)


def _experts(build: Builder, layer: LayerSpec, m: MlpSpec) -> ExpertsOp:
    p, hidden = build.parallel, m.latent_size or build.model.hidden_size
    shape = ExpertsShape(
        m.num_experts, m.num_experts_per_tok, hidden, m.moe_intermediate_size, p.moe_tp_size, p.ep_size
    )
    fmt = format_of(build.model.module_dtype("experts", layer))
    entering = float(p.dp_size)  # the attention ranks pool their tokens before the experts
    return ExpertsOp(
        "experts",
        "tokens",
        layer.count,
        build.measured.experts_curve(fmt.name, shape, m.num_matrices, entering),
        flops_per_count=entering * shape.flops_per_token(m.num_matrices),
        peak_flops_per_s=build.measured.hardware.peak(fmt.name),
        bytes_per_count=2.0 * ACTIVATION_BYTES * hidden * entering,
        shape=shape,
        num_matrices=m.num_matrices,
        bytes_per_weight=fmt.bytes_per_weight,
        entering=entering,
    )


def _shared(build: Builder, layer: LayerSpec, m: MlpSpec, routed: Curve) -> Iterator[Op]:
    """Yield the experts that every token passes; on a second stream, only what outlasts the routed ones counts."""
    shared = list(_dense(build, layer, m, m.shared_intermediate_size, "shared_experts"))
    if not build.measured.params.shared_experts_overlap:
        yield from shared
        return
    knots = np.unique(np.concatenate([routed.knots, *(op.curve.knots for op in shared)]))
    alone = sum(op.curve.at(knots) for op in shared)
    kept = np.maximum(alone - routed.at(knots), 0.0) / alone
    for op in shared:
        hidden = Curve(
            knots,
            op.curve.at(knots) * kept,
            op.curve.beyond_s * float(kept[-1]),
            op.curve.source_at(knots),
            op.curve.measured,
        )
        yield Op(
            op.name, op.axis, op.count, hidden, op.flops_per_count, op.peak_flops_per_s, op.fixed_bytes,
            op.bytes_per_count, op.resource,
        )  # fmt: skip
