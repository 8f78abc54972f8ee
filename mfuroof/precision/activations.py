"""Weight formats under other activations: which combination of the two is computed how."""

from __future__ import annotations

from dataclasses import replace

from mfuroof.errors import InputError, Problem
from mfuroof.precision.formats import FORMATS, Format

__all__ = ["with_activations"]

_FAMILIES: tuple[dict[str, str], ...] = (
    {"bf16": "fp8_wo", "fp8": "fp8"},
    {"bf16": "fp8_wo", "fp8": "fp8_block"},
    {"bf16": "int8_wo", "int8": "int8"},
    {"bf16": "int4_wo", "int8": "w4a8_int8", "fp8": "w4a8_int4_fp8"},
    {"bf16": "w4a16_nvfp4", "fp8": "w4a8_nvfp4_fp8", "nvfp4": "nvfp4"},
    {"bf16": "w4a16_mxfp4", "fp8": "w4a8_mxfp4_fp8", "mxfp8": "w4a8_mxfp4_mxfp8", "w4a16_mxfp4": "w4a4_mxfp4"},
    {"bf16": "mxfp6_wo", "fp8": "mxfp6", "mxfp8": "mxfp6"},
    {"bf16": "mxfp8_wo", "fp8": "mxfp8", "mxfp8": "mxfp8"},
)
"""Format by activation dtype, for formats that store the same weights (``w4a16_mxfp4`` is how mxfp4 is spelled)."""


def with_activations(fmt: Format, act_dtype: str) -> Format:
    """Return the format that stores what ``fmt`` stores and computes with activations of ``act_dtype``.

    Raises
    ------
    InputError
        No kernel multiplies these weights with such activations.
    """
    act = "bf16" if act_dtype in ("bf16", "fp16", "fp32") else "fp8" if act_dtype == "fp8_block" else act_dtype
    for family in _FAMILIES:
        if fmt.name not in family.values():
            continue
        if family.get(act) == fmt.name:
            return fmt
        if act in family:
            target = FORMATS[family[act]]
            return replace(fmt, name=target.name, compute_class=target.compute_class, weight_only=target.weight_only)
    if act == "bf16":
        return replace(fmt, compute_class="bf16", weight_only=True) if fmt.bits < 16 else fmt
    able = sorted({a for family in _FAMILIES if fmt.name in family.values() for a in family} | {"bf16"})
    raise InputError(Problem("act_dtype", repr(act_dtype), f"one that {fmt.name} weights can meet: {', '.join(able)}"))
