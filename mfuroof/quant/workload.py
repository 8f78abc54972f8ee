"""Rooflines of any workload given by FLOPs and bytes, and of token generation, with the conventions as parameters.

MLSysim's answers come out with `Conventions.mlsysim`; the defaults charge what physics asks for and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mfuroof._boundary import Problems, choice
from mfuroof._types import F64, ArrayLike
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig
from mfuroof.precision import format_of

__all__ = ["Conventions", "Generation", "Roofline", "Workload", "generation", "roofline"]


@dataclass(frozen=True)
class Conventions:
    """How work becomes time.

    Parameters
    ----------
    compute_efficiency, bandwidth_efficiency
        Shares of peak rate and bandwidth that are reached, in (0, 1]. [fraction]
    activation_fraction
        Traffic of activations per sample, as a share of the weights' bytes. [fraction]
    layer_overhead_s, dispatch_s
        Added per layer and per run. [s]
    decode_computes
        Whether generating a token has a compute roof; MLSysim's has none.
    kv_bits_follow_weights
        Whether the KV cache shrinks with the weights; MLSysim's does.
    """

    compute_efficiency: float = 1.0
    bandwidth_efficiency: float = 1.0
    activation_fraction: float = 0.0
    layer_overhead_s: float = 0.0
    dispatch_s: float = 0.0
    decode_computes: bool = True
    kv_bits_follow_weights: bool = False

    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("compute_efficiency", "bandwidth_efficiency"):
            problems.number(name, getattr(self, name), 0.0, 1.0, open_low=True)
        for name in ("activation_fraction", "layer_overhead_s", "dispatch_s"):
            problems.number(name, getattr(self, name), 0.0, 1e6)
        problems.raise_if_any()

    @classmethod
    def mlsysim(cls, dispatch_s: float = 15e-6) -> Conventions:
        """Return those of MLSysim 0.1 to 0.3; its dispatch time differs by device (15 us for the A100). [s]"""
        return cls(0.5, 1.0, 0.1, 10e-6, dispatch_s, decode_computes=False, kv_bits_follow_weights=True)


@dataclass(frozen=True)
class Workload:
    """Anything with a cost per sample: a network's forward pass, a training step.

    Parameters
    ----------
    flops
        Per sample; a multiply and an add are two. [FLOP]
    weight_params
        Parameters read once per run.
    num_layers
        Layers that overhead is charged for.
    bytes_per_sample
        Other traffic per sample, whatever the precision of the weights. [bytes]
    """

    flops: float
    weight_params: float
    num_layers: int = 0
    bytes_per_sample: float = 0.0

    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("flops", "weight_params", "num_layers", "bytes_per_sample"):
            problems.number(name, getattr(self, name), 0.0, 1e30)
        problems.raise_if_any()

    def training(self, bytes_per_sample_factor: float = 3.0) -> Workload:
        """Return a training step: three times the FLOPs (forward, and two products backward) and the traffic."""
        return Workload(
            3.0 * self.flops, self.weight_params, self.num_layers, bytes_per_sample_factor * self.bytes_per_sample
        )


@dataclass(frozen=True, eq=False)
class Roofline:
    """Times of a workload; arrays of the batch's shape.

    Attributes
    ----------
    time_s, compute_s, memory_s, overhead_s
        ``time_s = max(compute_s, memory_s) + overhead_s``. [s]
    arithmetic_intensity, ridge_point
        Of the work, and above which the device is bound by compute. [FLOP/byte]
    bound
        ``"compute"``, ``"memory"`` or ``"overhead"``, the largest of the three.
    """

    time_s: F64
    compute_s: F64
    memory_s: F64
    overhead_s: F64
    arithmetic_intensity: F64
    ridge_point: float
    bound: np.ndarray


def roofline(
    workload: Workload,
    hardware: Hardware | str,
    batch_size: ArrayLike = 1,
    dtype: str = "bf16",
    conventions: Conventions | None = None,
) -> Roofline:
    """Return the times of a workload over batch sizes.

    Parameters
    ----------
    workload
        Work per sample.
    hardware
        A device, or its name.
    batch_size
        Samples per run, any shape. [samples]
    dtype
        Format of the weights, which also decides the rate: weight-only formats and those the device has no tensor
        cores for run at the 16-bit rate.
    conventions
        None for full efficiency and no overhead.

    Raises
    ------
    InputError
        A batch size below 0.
    UnknownNameError
        No such device or dtype.

    Examples
    --------
    >>> resnet50 = Workload(flops=4.1e9, weight_params=25.6e6, num_layers=50)
    >>> published = roofline(resnet50, "a100_sxm", 256, "fp16", Conventions.mlsysim())
    >>> round(float(published.time_s) * 1e3, 3), str(published.bound)
    (7.243, 'compute')
    """
    device, how, fmt = get_hardware(hardware), conventions or Conventions(), format_of(dtype)
    batch = _batch(batch_size)
    peak, bandwidth = device.peak(fmt.name) * how.compute_efficiency, device.hbm_bytes_per_s * how.bandwidth_efficiency
    weights = workload.weight_params * fmt.bytes_per_weight * (1.0 + how.activation_fraction * batch)
    moved = weights + workload.bytes_per_sample * batch
    work = workload.flops * batch
    overhead = np.full(batch.shape, how.dispatch_s + workload.num_layers * how.layer_overhead_s)
    return _roofline(work, moved, peak, bandwidth, overhead)


@dataclass(frozen=True, eq=False)
class Generation:
    """One prompt step and one token step of a model by closed formulas; `Roofline` of each."""

    prefill: Roofline
    decode: Roofline


def generation(
    model: ModelConfig | str,
    hardware: Hardware | str,
    batch_size: ArrayLike = 1,
    seq_len: int = 2048,
    dtype: str = "bf16",
    conventions: Conventions | None = None,
    *,
    bits: Literal["effective", "nominal"] = "effective",
) -> Generation:
    """Return TTFT and time per token by the formulas that tutorials use.

    Prefill ``2 P S B + 4 L h S^2 B`` FLOPs; decode reads all weights and the cache of ``S`` tokens per sequence. For
    answers from measured kernels there is `mfuroof.StepEvaluator`; this is for comparing conventions.

    Parameters
    ----------
    model
        A model, or its name.
    hardware
        A device, or its name.
    batch_size, seq_len
        Sequences, and tokens of each. [sequences, tokens]
    dtype
        Format of all weights.
    conventions
        None for full efficiency, no overhead, 16-bit cache; `Conventions.mlsysim` for that tool's.
    bits
        ``"effective"``: with scales; ``"nominal"``: bits / 8 only.

    Raises
    ------
    InputError
        Sizes out of range.
    """
    whole = model if isinstance(model, ModelConfig) else ModelConfig.from_hf(model)
    device, how, fmt = get_hardware(hardware), conventions or Conventions(), format_of(dtype)
    choice("bits", bits, ("effective", "nominal"))
    problems = Problems()
    length = problems.positive_int("seq_len", seq_len)
    problems.raise_if_any()
    batch = _batch(batch_size)
    width = fmt.nominal_bytes if bits == "nominal" else fmt.bytes_per_weight
    params = float(whole.total_params)
    peak, bandwidth = device.peak(fmt.name) * how.compute_efficiency, device.hbm_bytes_per_s * how.bandwidth_efficiency
    scores = 4.0 * whole.num_hidden_layers * whole.num_attention_heads * whole.head_dim
    share = width / 2.0 if how.kv_bits_follow_weights else 1.0
    cache = batch * length * whole.kv_bytes_per_token * share
    layers = np.full(batch.shape, whole.num_hidden_layers * how.layer_overhead_s)
    prompt = (2.0 * params * length + scores * length**2) * batch
    token = (2.0 * params + scores * length) * batch
    prefill = _roofline(prompt, np.full(batch.shape, params * width), peak, bandwidth, 0 * layers + how.dispatch_s)
    roof = peak if how.decode_computes else np.inf
    return Generation(prefill, _roofline(token, params * width + cache, roof, bandwidth, layers))


def _batch(value: ArrayLike) -> F64:
    problems = Problems()
    batch = problems.numbers("batch_size", value, 0.0)
    problems.raise_if_any()
    return batch


def _roofline(work: F64, moved: F64, peak: float, bandwidth: float, overhead: F64) -> Roofline:
    compute, memory = work / peak, moved / bandwidth
    parts = np.stack(np.broadcast_arrays(compute, memory, overhead))
    intensity = np.divide(work, moved, out=np.full(np.shape(work), np.inf), where=np.asarray(moved) > 0)
    names = np.array(["compute", "memory", "overhead"])[np.argmax(parts, axis=0)]
    time = np.maximum(compute, memory) + overhead
    return Roofline(time, compute, memory, overhead, intensity, peak / bandwidth, names)
