"""Named presets: the conventions of other tools as values of `CostParams`; its class methods hand them on.

Formulas and where they are wrong: docs/peers.md. A preset takes the Hardware it is bound to as it is; figures that
differ between a peer's own table and the catalogue (989.5 and 989.4 TFLOP/s for the H100) are the caller's to set.
"""

from __future__ import annotations

from mfuroof.params.record import CostParams
from mfuroof.units import GB, GIB, US

__all__ = ["aiconfigurator", "blis", "blis_calibrated", "blis_mfu", "blis_mfu_floor", "infersim"]

_GIB_AS_GB = GIB / GB
_TERA_AS_1024_GIGA = 1.024
_INFERSIM_DERATE = 0.8


def aiconfigurator() -> CostParams:
    """Return the conventions of NVIDIA AIConfigurator 0.12 for dense models (cost ``"kernels"``)."""
    return CostParams(
        monotone=False,
        decode_kv_spread=0.1,
        prefill_blend="sqrt",
        prefix_launch_kept=False,
        prefix_kv_floor=False,
        prefill_extra_kernels=True,
        engine_habits=False,
        engine_overheads=False,
        static_scales=False,
        gemm_neighbours=4,
        collective="first",
        pcie_peer_access=True,
    )


def blis(
    mfu_prefill: float | None, mfu_decode: float | None, mixed_batch_penalty: float, overlap_penalty: float
) -> CostParams:
    """Return the conventions of BLIS's roofline of 2026 (cost ``"constant_mfu"``).

    Two MLP matrices, head width hidden_size / heads, 5 FLOPs a score and 2 an element of rotary work at tensor-core
    rate, one weight width for all, no LM head, everything divided by tp_size and nothing communicated.
    """
    return CostParams(
        monotone=False,
        architecture="uniform",
        mlp_matrices=2,
        score_diagonal=False,
        softmax_flops_per_score=5.0,
        rotary_flops_per_element=2.0,
        mfu_prefill=mfu_prefill,
        mfu_decode=mfu_decode,
        mixed_batch_penalty=mixed_batch_penalty,
        overlap_penalty=overlap_penalty,
        phase_combination="joint",
        tp_communication="none",
    )


def blis_calibrated(
    *,
    mfu_prefill: float = 0.65,
    mfu_decode: float = 0.12,
    mfu_prefill_multiplier: float = 1.0,
    mfu_decode_multiplier: float = 1.0,
    bandwidth_efficiency: float = 0.72,
    prefill_bandwidth_factor: float = 1.0,
    decode_bandwidth_factor: float = 1.0,
    prefill_tp_exponent: float = 0.68,
    decode_tp_exponent: float = 1.0,
    vector_peak_fraction: float = 0.1,
    step_overhead_s: float = 50 * US,
    prefill_request_overhead_s: float = 100 * US,
    mixed_request_overhead_s: float = 50 * US,
    all_reduce_latency_s: float = 20 * US,
) -> CostParams:
    """Return the form of BLIS's first, calibrated roofline (cost ``"constant_mfu"``); every number was fitted.

    Parameters
    ----------
    mfu_prefill, mfu_decode, mfu_prefill_multiplier, mfu_decode_multiplier
        Share of the peak rate that matrix products reach by phase, and factors on it. [fraction]
    bandwidth_efficiency, prefill_bandwidth_factor, decode_bandwidth_factor
        Share of the HBM bandwidth, and factors on it by phase. [fraction]
    prefill_tp_exponent, decode_tp_exponent
        Powers of tp_size that divide the work of each phase.
    vector_peak_fraction
        Attention runs at this share of the peak. [fraction]
    step_overhead_s, prefill_request_overhead_s, mixed_request_overhead_s, all_reduce_latency_s
        Per step, per prefill request in pure and in mixed steps, per all-reduce (two a layer if tp_size > 1). [s]

    Notes
    -----
    Mixed steps take the mean of the phases weighted by tokens. Its last revision bent the weights and let the step
    overhead grow with the batch beyond thresholds; those two refinements are not reproduced.
    """
    return CostParams(
        monotone=False,
        architecture="uniform_dense",
        mlp_matrices=3,
        score_diagonal=False,
        softmax_flops_per_score=4.0,
        mfu_prefill=mfu_prefill,
        mfu_decode=mfu_decode,
        mfu_prefill_multiplier=mfu_prefill_multiplier,
        mfu_decode_multiplier=mfu_decode_multiplier,
        attention_peak_fraction=vector_peak_fraction,
        phase_combination="token_weighted",
        bandwidth_efficiency=bandwidth_efficiency,
        prefill_bandwidth_factor=prefill_bandwidth_factor,
        decode_bandwidth_factor=decode_bandwidth_factor,
        prefill_kv_read_fraction=0.92,
        decode_kv_read_fraction=0.80,
        prefill_activation_fraction=0.85,
        decode_activation_fraction=0.75,
        prefill_tp_exponent=prefill_tp_exponent,
        decode_tp_exponent=decode_tp_exponent,
        tp_communication="none",
        all_reduce_latency_s=all_reduce_latency_s,
        step_overhead_s=step_overhead_s,
        prefill_request_overhead_s=prefill_request_overhead_s,
        mixed_request_overhead_s=mixed_request_overhead_s,
    )


def blis_mfu(bandwidth_efficiency: float, layer_overhead_s: float) -> CostParams:
    """Return the conventions of BLIS's roofline over MFU tables, interpolating (cost ``"mfu_table"``)."""
    return CostParams(
        monotone=False,
        architecture="uniform_dense",
        mlp_matrices=3,
        score_diagonal=False,
        phase_combination="max",
        bandwidth_efficiency=bandwidth_efficiency,
        prefill_kv_read_fraction=0.92,
        decode_kv_read_fraction=0.80,
        prefill_activation_fraction=0.85,
        decode_activation_fraction=0.75,
        tp_communication="none",
        layer_overhead_s=layer_overhead_s,
        empty_step_overhead=True,
        lookup_rule="blis_v2",
        causal_divisor=1.8,
        causal_area="square",
        decode_aggregation="flops_weighted",
        prefill_bucket_min=512,
        prefill_bucket_max=65536,
        gemm_layout="whole",
        weight_floor=True,
        kv_floor=False,
        step_memory_floor=True,
        table_peak="bf16",
    )


def blis_mfu_floor(bandwidth_efficiency: float, layer_overhead_s: float) -> CostParams:
    """Return `blis_mfu` with the floor and nearest lookups of its older revision."""
    from dataclasses import replace

    return replace(blis_mfu(bandwidth_efficiency, layer_overhead_s), lookup_rule="blis_floor")


def infersim() -> CostParams:
    """Return the conventions of InferSim (cost ``"mfu_table"``), for steps of one phase.

    Tera taken for 1024 giga, GB for GiB and 0.8 of every bandwidth; scheduler constants of 30 ms (prefill) and 5 ms
    (decode); two transfers a layer over all GPUs and a ring all-reduce; FP8-measured MFU applied to the 16-bit peak.
    """
    return CostParams(
        monotone=False,
        score_diagonal=False,
        phase_combination="sum",
        bandwidth_efficiency=_INFERSIM_DERATE,
        tp_communication="world",
        link_efficiency=_INFERSIM_DERATE,
        prefill_overhead_s=30e-3,
        decode_overhead_s=5e-3,
        lookup_rule="infersim",
        causal_divisor=1.8,
        causal_area="square",
        decode_aggregation="per_request",
        gemm_layout="infersim",
        weight_floor=False,
        kv_floor=True,
        table_peak="module",
        flops_per_peak_flop=_TERA_AS_1024_GIGA,
        bytes_per_peak_byte=_GIB_AS_GB,
        expert_mfu="max",
    )
