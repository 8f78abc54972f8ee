"""What is known about a checkpoint's precision, and where each fact came from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Quantization"]


@dataclass(frozen=True, slots=True)
class Quantization:
    """Precision of a checkpoint in one line.

    Parameters
    ----------
    method
        ``none``, or the method in its canonical spelling (``gptq``, ``fp8``, ``compressed-tensors`` …).
    weight_bits
        Bits of a quantised weight without scales; of the dtype where nothing is quantised. [bits]
    group_size
        Weights per scale; -1 one per output channel; None where there is no scale or one per matrix.
    weight_bytes_nominal, weight_bytes_effective
        Bytes per QUANTISED parameter, without and with scales and zero points. [bytes]
    kv_bytes_per_element
        Of the KV cache. [bytes]
    compute_class
        What matrix products of quantised weights run as: bf16, fp8, int8, fp4, tf32.
    weight_only
        True if activations stay 16-bit.
    source
        The link of the chain the weights' format came from: config, sidecar, name, dtype, default, override.
    origins
        (fact, where it was read) pairs.
    warnings
        What was odd, in words.
    """

    method: str = "none"
    weight_bits: float = 16
    group_size: int | None = None
    weight_bytes_nominal: float = 2.0
    weight_bytes_effective: float = 2.0
    kv_bytes_per_element: float = 2.0
    compute_class: str = "bf16"
    weight_only: bool = False
    source: str = "dtype"
    kv_dtype: str = "bf16"
    origins: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
