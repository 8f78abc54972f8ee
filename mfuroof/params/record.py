"""`CostParams`: every number and rule in which presets and peers differ. One record, no forks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import Literal

from mfuroof.errors import MfuroofWarning
from mfuroof.params.checks import MOE_DISTRIBUTIONS, LookupRule, MoeDistribution, checked, oddities

__all__ = ["MOE_DISTRIBUTIONS", "CostParams", "LookupRule"]


@dataclass(frozen=True)
class CostParams:
    """Conventions of a step-time estimate; the defaults are ours, the class methods are named presets.

    A field that a cost family does not read has no effect there; docs/peers.md says which preset sets what.

    Parameters
    ----------
    monotone
        Repair the bound curves so that time never falls along tokens, batch and context (isotonic regression).
    missing
        What to do where no measured table covers an operation: ``"raise"``, price it by its ``"roofline"``, or
        ``"nan"``.
    transfer
        Let the nearest measured shape stand in, by the physics that binds, for attention heads that were not measured
        (source SUBSTITUTED); otherwise they are missing.
    engine_habits
        Apply what is known of the engine's kernels beside the tables (`mfuroof.engines`): what it fuses, and the small
        kernels it launches.
    static_scales
        FP8 activations have one scale that comes with the checkpoint, as served FP8 checkpoints do; otherwise it is
        found at run time, which some tables include.
    engine_overheads
        Add the overheads of the engine's profile.
    collective
        Of the measured implementations of a collective take the ``"fastest"`` at each size, or the ``"first"``
        (the engine's own kernel where it has one).
    pcie_peer_access
        GPUs without a fast link between them read each other's memory over PCIe, as in the tables' hosts. False: the
        host does not let them (`mfuroof.ops.comm`), which is the rule in virtual machines and for GeForce cards.
    sequence_overhead_s
        Added for each sequence that emits a token. [s]
    kernel_time_factor
        Every kernel takes this many times as long as measured: for an engine older than the tables.
    elementwise_bandwidth_efficiency
        Share of the HBM bandwidth that norms, activations and gathers reach. [fraction]
    elementwise_launch_s
        Fixed time of one elementwise kernel. [s]
    gemm_neighbours
        Measured (n, k) sites blended for a shape that was not measured, by their distance; 0 blends the corners of
        its grid cell.
    decode_kv_spread
        Half-width of the KV-length window over which decode attention is averaged (five points); 0 reads one
        point. [fraction]
    prefill_blend
        Between measured lengths: ``"affine_rate"`` (time per token linear in length) or ``"sqrt"`` (square root of
        the time linear in length).
    prefix_launch_kept
        Whether a chunk behind a cached prefix pays the whole launch part of prefill attention and only its share of
        the area part; False scales the whole kernel by the share.
    prefix_kv_floor
        Keep a chunk at or above the time to read its KV cache once.
    prefill_extra_kernels
        Charge rotary, KV write and their gathers as a constant beside each prefill attention call.
    moe_distribution
        Load of the experts in the measured kernels: ``"balanced"``, or a power law over experts. Where a GPU has not
        been measured under it, the next one that was.
    shared_experts_overlap
        Shared experts run beside the routed ones, so that only what outlasts them is paid.
    architecture
        What the roofline costs see of a model: its own ``"layers"``, matrix by matrix; ``"uniform"`` layers of one
        kind with head width hidden_size / heads, without LM head, shared experts, latent attention or windows; or
        ``"uniform_dense"``, which has no experts and no quantised weights either.
    mlp_matrices
        Matrices of an MLP, whatever the model says; None takes the model's.
    score_diagonal
        A new token attends to itself as well as to what came before it.
    softmax_flops_per_score, rotary_flops_per_element
        Vector work charged per score and head, and per element of the hidden vector and layer. [FLOP]
    mfu_prefill, mfu_decode
        Share of the peak rate that constant-MFU compute reaches; None takes the GPU's pair of
        `mfuroof.costs.constants`. [fraction]
    mfu_prefill_multiplier, mfu_decode_multiplier
        Factors on them.
    attention_peak_fraction
        Constant-MFU attention runs at this share of the peak instead of at the phase's MFU. [fraction]
    mixed_batch_penalty
        Share of compute throughput lost in a step of half prefill, half decode tokens, in [0, 1]. [fraction]
    overlap_penalty
        Share of the smaller of compute and memory time that is not hidden behind the other, in [0, 1]. [fraction]
    phase_combination
        ``"joint"``: work of both phases added before compute meets memory; ``"sum"``: phases one after the other,
        weights read once; ``"max"``: the slower phase, each with its own weight read; ``"token_weighted"``: their mean
        by tokens. None: joint for constant_mfu, sum for mfu_table.
    bandwidth_efficiency, weight_bandwidth_efficiency
        Share of the HBM bandwidth reached by all traffic, and beside it by weights. [fraction]
    prefill_bandwidth_factor, decode_bandwidth_factor
        Further factors by phase. [fraction]
    kv_bandwidth_base, kv_bandwidth_gain, kv_bandwidth_batch
        KV reads of decode run at ``base + gain * min(batch / kv_bandwidth_batch, 1)`` of that. [fraction, requests]
    prefill_kv_read_fraction, decode_kv_read_fraction, prefill_activation_fraction, decode_activation_fraction
        Share of cached tokens, and of activation vectors, that really moves. [fraction]
    prefill_tp_exponent, decode_tp_exponent
        Work is divided by tp_size to this power; the decode exponent holds for its bytes too.
    tp_communication
        ``"none"``, two ``"ring"`` all-reduces a layer at link bandwidth, or ``"world"``: the peer's transfer of one
        vector per rank. None: none for constant_mfu, ring for mfu_table.
    link_efficiency
        Share of the link bandwidth reached. [fraction]
    all_reduce_latency_s
        Fixed time of each of the two all-reduces of a layer if tp_size > 1. [s]
    step_overhead_s, prefill_overhead_s, decode_overhead_s
        Added to every step, and to those with prefill or decode requests. [s]
    prefill_request_overhead_s, mixed_request_overhead_s
        Added per prefill request in a pure prefill step, and in a mixed one. [s]
    layer_overhead_s
        Added per layer, divided by tp_size. [s]
    empty_step_overhead
        A step without requests pays the overheads too; otherwise it takes no time.
    lookup_rule
        How MFU tables are read: ``"latency"`` interpolates times (root of the time for prefill) and holds utilisation
        outside the grid; ``"floor"``, ``"ceiling"``, ``"nearest_l1"``, ``"nearest_l2"``, ``"linear"``, ``"loglog"``
        are the generic rules; ``"blis_v2"``, ``"blis_floor"`` and ``"infersim"`` the peers', MFU column as written.
    causal_divisor
        Ratio of the full attention square to the part a prefill computes: 2 in the tables, 1.8 in InferSim.
    causal_area
        Of a chunk behind a prefix: ``"chunk"``, the rectangle over the prefix in full and the square over the chunk
        divided; ``"square"``, new tokens times KV length, all divided.
    decode_aggregation
        Mixed lengths: ``"per_request"`` and ``"harmonic"`` add each request's time at its own length (the harmonic
        mean of MFU weighted by FLOPs); ``"flops_weighted"`` takes the arithmetic mean; ``"max_kv"`` reads all at the
        longest.
    prefill_bucket_min, prefill_bucket_max
        Round prompt lengths up to powers of two between these before they are looked up, each bucket with GEMMs of
        its own; 0 takes exact lengths. [tokens]
    gemm_layout
        ``"sharded"``: the matrices one GPU runs, as engines fuse them; ``"split"``: Q, K, V, O, gate, up and down of
        one GPU; ``"whole"``: those of the unsharded model, time divided by tp_size; ``"infersim"``: as that peer
        fuses and names them.
    weight_floor, kv_floor
        No GEMM is faster than reading its weights, no attention faster than reading its cache.
    step_memory_floor
        Each phase takes at least the time of its weights, cache and activations.
    table_peak
        Rate a table's MFU is multiplied by: of each matrix' own ``"module"`` dtype, or ``"bf16"`` for all.
    flops_per_peak_flop, bytes_per_peak_byte
        Factors on peak and bandwidth: 1.024 and 1.0737 where a tool takes tera for 1024 giga and GB for GiB.
    expert_mfu
        Grouped GEMMs at each projection's own MFU (``"per_projection"``) or all at the larger of the two (``"max"``).
    """

    monotone: bool = True
    missing: Literal["raise", "roofline", "nan"] = "raise"
    # kernels
    transfer: bool = True
    engine_habits: bool = True
    engine_overheads: bool = True
    static_scales: bool = True
    collective: Literal["fastest", "first"] = "fastest"
    pcie_peer_access: bool = False
    sequence_overhead_s: float = 0.0
    kernel_time_factor: float = 1.0
    elementwise_bandwidth_efficiency: float = 0.8
    elementwise_launch_s: float = 3e-6
    gemm_neighbours: int = 0
    decode_kv_spread: float = 0.0
    prefill_blend: Literal["affine_rate", "sqrt"] = "affine_rate"
    prefix_launch_kept: bool = True
    prefix_kv_floor: bool = True
    prefill_extra_kernels: bool = False
    moe_distribution: MoeDistribution = "power_law_1.2"
    shared_experts_overlap: bool = True
    # constant_mfu and mfu_table
    architecture: Literal["layers", "uniform", "uniform_dense"] = "layers"
    mlp_matrices: int | None = None
    score_diagonal: bool = True
    softmax_flops_per_score: float = 0.0
    rotary_flops_per_element: float = 0.0
    mfu_prefill: float | None = None
    mfu_decode: float | None = None
    mfu_prefill_multiplier: float = 1.0
    mfu_decode_multiplier: float = 1.0
    attention_peak_fraction: float | None = None
    mixed_batch_penalty: float = 0.0
    overlap_penalty: float = 0.0
    phase_combination: Literal["joint", "sum", "max", "token_weighted"] | None = None
    bandwidth_efficiency: float = 1.0
    weight_bandwidth_efficiency: float = 1.0
    prefill_bandwidth_factor: float = 1.0
    decode_bandwidth_factor: float = 1.0
    kv_bandwidth_base: float = 1.0
    kv_bandwidth_gain: float = 0.0
    kv_bandwidth_batch: float = 64.0
    prefill_kv_read_fraction: float = 1.0
    decode_kv_read_fraction: float = 1.0
    prefill_activation_fraction: float = 1.0
    decode_activation_fraction: float = 1.0
    prefill_tp_exponent: float = 1.0
    decode_tp_exponent: float = 1.0
    tp_communication: Literal["none", "ring", "world"] | None = None
    link_efficiency: float = 1.0
    all_reduce_latency_s: float = 0.0
    step_overhead_s: float = 0.0
    prefill_overhead_s: float = 0.0
    decode_overhead_s: float = 0.0
    prefill_request_overhead_s: float = 0.0
    mixed_request_overhead_s: float = 0.0
    layer_overhead_s: float = 0.0
    empty_step_overhead: bool = False
    # mfu_table
    lookup_rule: LookupRule = "latency"
    causal_divisor: float = 2.0
    causal_area: Literal["chunk", "square"] = "chunk"
    decode_aggregation: Literal["per_request", "max_kv", "flops_weighted", "harmonic"] = "per_request"
    prefill_bucket_min: int = 0
    prefill_bucket_max: int = 65536
    gemm_layout: Literal["sharded", "split", "whole", "infersim"] = "sharded"
    weight_floor: bool = True
    kv_floor: bool = True
    step_memory_floor: bool = False
    table_peak: Literal["module", "bf16"] = "module"
    flops_per_peak_flop: float = 1.0
    bytes_per_peak_byte: float = 1.0
    expert_mfu: Literal["per_projection", "max"] = "per_projection"

    def __post_init__(self) -> None:
        for name, value in checked(self).items():
            object.__setattr__(self, name, value)
        for text in oddities(self):
            warnings.warn(text, MfuroofWarning, stacklevel=3)

    @classmethod
    def aiconfigurator(cls) -> CostParams:
        """Return the conventions of NVIDIA AIConfigurator 0.12 for dense models (cost ``"kernels"``)."""
        from mfuroof.params import presets

        return presets.aiconfigurator()

    @classmethod
    def blis(
        cls,
        mfu_prefill: float | None = None,
        mfu_decode: float | None = None,
        mixed_batch_penalty: float = 0.0,
        overlap_penalty: float = 0.0,
    ) -> CostParams:
        """Return the conventions of BLIS's roofline of 2026 (cost ``"constant_mfu"``).

        Parameters
        ----------
        mfu_prefill, mfu_decode
            Share of the peak rate by phase; None takes the GPU's pair of `mfuroof.costs.constants`. [fraction]
        mixed_batch_penalty, overlap_penalty
            Loss of compute throughput in mixed steps, and what is not overlapped; each in [0, 1]. [fraction]

        Raises
        ------
        InputError
            A value out of range; all are named.
        """
        from mfuroof.params import presets

        return presets.blis(mfu_prefill, mfu_decode, mixed_batch_penalty, overlap_penalty)

    @classmethod
    def blis_calibrated(cls, **fields: float) -> CostParams:
        """Return the conventions of BLIS's first, calibrated roofline; see `mfuroof.params.presets.blis_calibrated`."""
        from mfuroof.params import presets

        return presets.blis_calibrated(**fields)

    @classmethod
    def blis_mfu(cls, bandwidth_efficiency: float = 0.82, layer_overhead_s: float = 100e-6) -> CostParams:
        """Return the conventions of BLIS's roofline over MFU tables that interpolates (cost ``"mfu_table"``).

        Parameters
        ----------
        bandwidth_efficiency
            Its figure is 0.82 for the H100 and 0.80 for the A100. [fraction]
        layer_overhead_s
            Added per layer. [s]
        """
        from mfuroof.params import presets

        return presets.blis_mfu(bandwidth_efficiency, layer_overhead_s)

    @classmethod
    def blis_mfu_floor(cls, bandwidth_efficiency: float = 0.82, layer_overhead_s: float = 100e-6) -> CostParams:
        """Return `blis_mfu` with the floor and nearest lookups of its older revision."""
        from mfuroof.params import presets

        return presets.blis_mfu_floor(bandwidth_efficiency, layer_overhead_s)

    @classmethod
    def infersim(cls) -> CostParams:
        """Return the conventions of InferSim (cost ``"mfu_table"``), for steps of one phase."""
        from mfuroof.params import presets

        return presets.infersim()

    def changed(self) -> dict[str, object]:
        """Return the fields that differ from the defaults, for reports."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

