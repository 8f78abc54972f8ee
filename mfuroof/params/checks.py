"""What each field of `CostParams` may be: ranges, choices and what is odd enough for a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from mfuroof._boundary import Problems

if TYPE_CHECKING:
    from mfuroof.params.record import CostParams

__all__ = ["MOE_DISTRIBUTIONS", "LookupRule", "MoeDistribution", "checked", "oddities"]

LookupRule = Literal[
    "latency",
    "floor",
    "ceiling",
    "nearest_l1",
    "nearest_l2",
    "linear",
    "loglog",
    "blis_v2",
    "blis_floor",
    "infersim",
]

MoeDistribution = Literal["power_law_1.2", "power_law_1.01", "balanced"]
MOE_DISTRIBUTIONS: tuple[MoeDistribution, ...] = get_args(MoeDistribution)
"""Loads of the experts under which kernels were measured, in the order in which they stand in for one another."""

_FRACTION = (0.0, 1.0, False)
_SHARE = (0.0, 1.0, True)
_FACTOR = (0.0, 1e6, True)
_SECONDS = (0.0, 60.0, False)
_RANGES: dict[str, tuple[float, float, bool]] = {
    "elementwise_bandwidth_efficiency": _SHARE,
    "elementwise_launch_s": _SECONDS,
    "kernel_time_factor": (0.1, 10.0, False),
    "decode_kv_spread": (0.0, 0.5, False),
    "softmax_flops_per_score": (0.0, 1e3, False),
    "rotary_flops_per_element": (0.0, 1e3, False),
    "mfu_prefill": _FACTOR,
    "mfu_decode": _FACTOR,
    "mfu_prefill_multiplier": _FACTOR,
    "mfu_decode_multiplier": _FACTOR,
    "attention_peak_fraction": _SHARE,
    "mixed_batch_penalty": _FRACTION,
    "overlap_penalty": _FRACTION,
    "bandwidth_efficiency": _SHARE,
    "weight_bandwidth_efficiency": _SHARE,
    "prefill_bandwidth_factor": _FACTOR,
    "decode_bandwidth_factor": _FACTOR,
    "kv_bandwidth_base": _SHARE,
    "kv_bandwidth_gain": _FRACTION,
    "kv_bandwidth_batch": (0.0, 1e9, True),
    "prefill_kv_read_fraction": _FRACTION,
    "decode_kv_read_fraction": _FRACTION,
    "prefill_activation_fraction": _FRACTION,
    "decode_activation_fraction": _FRACTION,
    "prefill_tp_exponent": (0.0, 2.0, False),
    "decode_tp_exponent": (0.0, 2.0, False),
    "link_efficiency": _SHARE,
    "all_reduce_latency_s": _SECONDS,
    "step_overhead_s": _SECONDS,
    "prefill_overhead_s": _SECONDS,
    "decode_overhead_s": _SECONDS,
    "prefill_request_overhead_s": _SECONDS,
    "mixed_request_overhead_s": _SECONDS,
    "layer_overhead_s": _SECONDS,
    "sequence_overhead_s": _SECONDS,
    "causal_divisor": (1.0, 4.0, False),
    "flops_per_peak_flop": _FACTOR,
    "bytes_per_peak_byte": _FACTOR,
}
"""Lowest and highest value of each number, and whether the lowest itself is excluded."""
_COUNTS = {"gemm_neighbours": 0, "mlp_matrices": 1, "prefill_bucket_min": 0, "prefill_bucket_max": 1}
"""Lowest value of each whole number."""
_OPTIONAL = ("mfu_prefill", "mfu_decode", "attention_peak_fraction", "mlp_matrices")
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "missing": ("raise", "roofline", "nan"),
    "prefill_blend": ("affine_rate", "sqrt"),
    "moe_distribution": MOE_DISTRIBUTIONS,
    "collective": ("fastest", "first"),
    "architecture": ("layers", "uniform", "uniform_dense"),
    "phase_combination": ("joint", "sum", "max", "token_weighted", None),
    "tp_communication": ("none", "ring", "world", None),
    "lookup_rule": get_args(LookupRule),
    "causal_area": ("chunk", "square"),
    "decode_aggregation": ("per_request", "max_kv", "flops_weighted", "harmonic"),
    "gemm_layout": ("sharded", "split", "whole", "infersim"),
    "table_peak": ("module", "bf16"),
    "expert_mfu": ("per_projection", "max"),
}
_SWITCHES = (
    "monotone",
    "transfer",
    "engine_habits",
    "engine_overheads",
    "static_scales",
    "pcie_peer_access",
    "prefix_launch_kept",
    "prefix_kv_floor",
    "prefill_extra_kernels",
    "shared_experts_overlap",
    "score_diagonal",
    "empty_step_overhead",
    "weight_floor",
    "kv_floor",
    "step_memory_floor",
)


def checked(params: CostParams) -> dict[str, Any]:
    """Return every numeric field as a clean number; raise `InputError` with all that is wrong."""
    problems, clean = Problems(), {}
    for name, (low, high, open_low) in _RANGES.items():
        value = getattr(params, name)
        if value is not None or name not in _OPTIONAL:
            clean[name] = problems.number(name, value, low, high, open_low=open_low)
    for name, minimum in _COUNTS.items():
        value = getattr(params, name)
        if value is not None or name not in _OPTIONAL:
            clean[name] = problems.positive_int(name, value, minimum)
    for name, allowed in _CHOICES.items():
        value = getattr(params, name)
        if not isinstance(value, str | None) or value not in allowed:
            problems.add(name, value, f"one of {', '.join(str(a) for a in allowed)}")
    for name in _SWITCHES:
        if not isinstance(getattr(params, name), bool):
            problems.add(name, getattr(params, name), "True or False")
    _check_buckets(params, problems)
    problems.raise_if_any()
    return clean


def _check_buckets(params: CostParams, problems: Problems) -> None:
    low, high = params.prefill_bucket_min, params.prefill_bucket_max
    if problems or not low:
        return
    for name, value in (("prefill_bucket_min", low), ("prefill_bucket_max", high)):
        if value & (value - 1):
            problems.add(name, value, "a power of two (prefill_bucket_min = 0 for exact lengths)")
    if low > high:
        problems.add("prefill_bucket_min", low, f"at most prefill_bucket_max = {high}")


def oddities(params: CostParams) -> list[str]:
    """Return what is allowed but probably not meant, in words."""
    texts = [
        f"{name} = {value:g} is above 1, faster than the peak rate: it is probably relative to another peak"
        for name in ("mfu_prefill", "mfu_decode")
        if (value := getattr(params, name)) is not None and value > 1
    ]
    prefill, decode = params.mfu_prefill, params.mfu_decode
    if prefill is not None and decode is not None and decode > prefill:
        texts.append(f"mfu_decode = {decode:g} is above mfu_prefill = {prefill:g}: are they swapped?")
    return texts
