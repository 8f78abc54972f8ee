"""Spellings of dtypes: what configs, engines and people write, mapped onto one canonical name."""

from __future__ import annotations

from mfuroof.errors import UnknownNameError
from mfuroof.precision.formats import FORMATS, Format

__all__ = ["ALIASES", "canonical_dtype", "format_of"]

ALIASES = {
    "bfloat16": "bf16", "torch.bfloat16": "bf16",
    "float16": "fp16", "half": "fp16", "torch.float16": "fp16",
    "float32": "fp32", "float": "fp32", "torch.float32": "fp32",
    "fp8_e4m3": "fp8", "float8": "fp8", "float8_e4m3fn": "fp8", "torch.float8_e4m3fn": "fp8", "e4m3": "fp8",
    "fp8_per_tensor": "fp8", "fp8_per_channel": "fp8", "w8a8_fp8": "fp8", "fp8_e5m2": "fp8", "fp8_static": "fp8",
    "fp8_dynamic": "fp8", "fp8_per_block": "fp8_block", "fp8_block_scales": "fp8_block", "fp8_pb_wo": "fp8_block",
    "w8a16_fp8": "fp8_wo",
    "w8a8": "int8", "w8a8_int8": "int8", "int8_sq": "int8", "sq": "int8", "torch.int8": "int8",
    "w8a16": "int8_wo", "int8_weight_only": "int8_wo",
    "w4a16": "int4_wo", "int4": "int4_wo", "int3": "int3_wo", "int2": "int2_wo", "int4_weight_only": "int4_wo", "w4a16_awq": "int4_wo", "awq": "int4_wo", "gptq": "int4_wo",
    "w3a16": "int3_wo", "w2a16": "int2_wo", "w4a8": "w4a8_int4_fp8", "w4afp8": "w4a8_int4_fp8",
    "w4a8_awq": "w4a8_int4_fp8", "w4a4_nvfp4": "nvfp4", "fp4": "nvfp4", "nvfp4_awq": "nvfp4", "nvfp4_wo": "w4a16_nvfp4",
    "mxfp4": "w4a16_mxfp4", "mxfp4_wo": "w4a16_mxfp4", "w4a8_mxfp4": "w4a8_mxfp4_mxfp8", "w8a8_mxfp8": "mxfp8",
    "fp6": "mxfp6", "bnb_4bit": "nf4", "bitnet": "ternary",
}  # fmt: skip
"""Other spellings, in lower case, of the names in `FORMATS`."""


def canonical_dtype(name: str) -> str:
    """Return the canonical name of a weight format or dtype.

    Parameters
    ----------
    name
        Any spelling: ``"bfloat16"``, ``"torch.float16"``, ``"fp8_e4m3"``, ``"W4A16"``, ``"fp8-block"``.

    Raises
    ------
    UnknownNameError
        The name is not known; the text gives the nearest.

    Examples
    --------
    >>> canonical_dtype("torch.bfloat16"), canonical_dtype("W4A16"), canonical_dtype("fp8-block")
    ('bf16', 'int4_wo', 'fp8_block')
    """
    key = str(name).strip().lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key not in FORMATS:
        raise UnknownNameError("dtype", name, (*FORMATS, *ALIASES))
    return key


def format_of(dtype: str | Format) -> Format:
    """Return the `Format` of a name in any spelling; a `Format` is handed back as it is."""
    return dtype if isinstance(dtype, Format) else FORMATS[canonical_dtype(dtype)]
