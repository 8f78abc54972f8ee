"""What a GPU makes of a precision: native tensor-core rates from the catalogue, not generations by hearsay."""

from __future__ import annotations

from mfuroof.hardware import Hardware, get_hardware
from mfuroof.precision.kv import kv_format_of
from mfuroof.precision.names import format_of
from mfuroof.precision.runtime import AUTO, RuntimePrecision

__all__ = ["hardware_notes"]


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
    if precision.kvcache_dtype != AUTO:
        fmt_kv = kv_format_of(precision.kvcache_dtype)
        if fmt_kv.name in ("nvfp4", "mxfp8") and not device.native(fmt_kv.name):
            notes.append(
                f"kvcache_dtype = {precision.kvcache_dtype}: engines have kernels for it only where block scales are "
                f"native, and {device.name} has none"
            )
    return tuple(notes)


def _scaled(name: str, device: Hardware) -> str:
    lane = "fp8" if name.startswith("mxfp8") else ""
    return " (block-scaled)" if lane and device.native(lane) else ""
