"""What a GPU makes of a precision: native tensor-core rates from the catalogue, not generations by hearsay."""

from __future__ import annotations

from mfuroof.hardware import Hardware, get_hardware
from mfuroof.precision.kv import kv_format_of
from mfuroof.precision.names import format_of
from mfuroof.precision.runtime import AUTO, RuntimePrecision

__all__ = ["blocked_fields", "hardware_notes"]

_BLOCK_SCALED = ("nvfp4", "mxfp8")
"""KV caches whose kernels need block scales in the tensor cores (vLLM and SGLang list them for Blackwell)."""


def blocked_fields(precision: RuntimePrecision, hardware: Hardware | str) -> dict[str, str]:
    """Return the fields no engine can run on a GPU, with the reason.

    Examples
    --------
    >>> blocked_fields(RuntimePrecision(kvcache_dtype="nvfp4"), "h100_sxm")["kvcache_dtype"]
    'engines have kernels for it only where block scales are native, and h100_sxm has none'
    """
    device = get_hardware(hardware)
    value = precision.kvcache_dtype
    if value == AUTO or kv_format_of(value).name not in _BLOCK_SCALED or device.native(kv_format_of(value).name):
        return {}
    reason = f"engines have kernels for it only where block scales are native, and {device.name} has none"
    return {"kvcache_dtype": reason}


def hardware_notes(precision: RuntimePrecision, hardware: Hardware | str) -> tuple[str, ...]:
    """Return what to know about each field on a GPU, in words; nothing where all of it is native.

    Parameters
    ----------
    precision
        The four fields.
    hardware
        A device, or its name.

    Examples
    --------
    >>> hardware_notes(RuntimePrecision(gemm_dtype="fp8"), "a100_sxm")
    ('gemm_dtype = fp8: a100_sxm has no fp8 tensor-core rate; weights are expanded and multiply at the bf16 rate',)
    """
    device = get_hardware(hardware)
    notes = []
    for name in ("gemm_dtype", "moe_dtype"):
        value = getattr(precision, name)
        if value == AUTO or (fmt := format_of(value)).compute_class in ("bf16", "tf32"):
            continue
        if not device.native(fmt.name):
            notes.append(
                f"{name} = {value}: {device.name} has no {fmt.compute_class}{_scaled(fmt.name, device)} tensor-core "
                "rate; weights are expanded and multiply at the bf16 rate"
            )
    if precision.attention_dtype.startswith("fp8") and not device.native("fp8"):
        value = precision.attention_dtype
        notes.append(f"attention_dtype = {value}: {device.name} has no fp8 tensor-core rate; attention runs in 16 bits")
    if precision.kvcache_dtype.startswith("fp8") and not device.native("fp8"):
        value = precision.kvcache_dtype
        notes.append(f"kvcache_dtype = {value}: {device.name} has no fp8 tensor-core rate; the cache saves bytes alone")
    blocked = blocked_fields(precision, device)
    return (*notes, *(f"{name} = {getattr(precision, name)}: {reason}" for name, reason in blocked.items()))


def _scaled(name: str, device: Hardware) -> str:
    lane = "fp8" if name.startswith("mxfp8") else ""
    return " (block-scaled)" if lane and device.native(lane) else ""
