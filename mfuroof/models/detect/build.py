"""Formats from bits, group, scale and activations: the arithmetic that every method shares."""

from __future__ import annotations

from dataclasses import replace

from mfuroof.precision import FORMATS, Format

__all__ = ["float_format", "integer_format"]

_INTEGER = {(8, "int8"): "int8", (4, "int8"): "w4a8_int8", (4, "fp8"): "w4a8_int4_fp8"}
_FLOAT4 = {
    (16, ""): "w4a16_nvfp4", (16, "fp4"): "nvfp4", (16, "fp8"): "w4a8_nvfp4_fp8",
    (32, ""): "w4a16_mxfp4", (32, "fp4"): "w4a4_mxfp4", (32, "fp8"): "w4a8_mxfp4_mxfp8",
}  # fmt: skip


def integer_format(
    bits: int, group: int, *, activations: str = "", zero: bool = False, scale_bytes: float = 2.0, stored_bits: int = 0
) -> Format:
    """Return an integer format.

    Parameters
    ----------
    bits
        1 to 8. [bits]
    group
        Weights per scale; -1 one per output row, 0 one per matrix.
    activations
        ``""`` (16-bit), ``"int8"`` or ``"fp8"``.
    zero
        Whether packed zero points of ``bits`` are stored.
    stored_bits
        Bits of the container where the values are not packed; 0 for packed. [bits]
    """
    name = _INTEGER.get((bits, activations), f"int{bits}_wo" if not activations else "int8")
    fmt = FORMATS[name].grouped(group, scale_bytes, bits if zero else 0)
    stored = float(stored_bits or bits)
    return replace(fmt, bits=stored, compute_class=activations or "bf16", weight_only=not activations)


def float_format(bits: int, group: int, *, activations: str = "", scale_bytes: float | None = None) -> Format:
    """Return a floating-point format of 4, 6 or 8 bits; groups of 16 are NVFP4, of 32 MX formats."""
    if bits == 4:
        fmt = FORMATS[_FLOAT4[(16 if group in (0, -1, 16) else 32, activations)]]
        return fmt if group in (0, -1, 16, 32) else fmt.grouped(group)
    if bits == 6:
        return FORMATS["mxfp6" if activations else "mxfp6_wo"]
    if group == 32:
        return FORMATS["mxfp8" if activations else "mxfp8_wo"]
    if not activations:
        return FORMATS["fp8_wo"].grouped(group, 2.0 if scale_bytes is None else scale_bytes)
    if group > 32:
        return FORMATS["fp8_block"].grouped(group, 4.0 if scale_bytes is None else scale_bytes)
    return FORMATS["fp8"].grouped(group, 2.0 if scale_bytes is None else scale_bytes)
