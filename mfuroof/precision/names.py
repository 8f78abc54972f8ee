"""Spellings of dtypes: what configs, engines and people write, mapped onto one canonical name."""

from __future__ import annotations

from mfuroof.errors import UnknownNameError
from mfuroof.precision.formats import FORMATS, Format

__all__ = ["ALIASES", "canonical_dtype", "format_of"]

_SPELLINGS = {
    "bf16": "bfloat16 torch.bfloat16",
    "fp16": "float16 half torch.float16",
    "fp32": "float32 float torch.float32",
    "fp8": "fp8_e4m3 float8 float8_e4m3fn torch.float8_e4m3fn e4m3 fp8_e5m2 fp8_per_tensor fp8_per_channel fp8_static "
    "fp8_dynamic w8a8_fp8",
    "fp8_block": "fp8_per_block fp8_block_scales fp8_pb_wo",
    "fp8_wo": "w8a16_fp8",
    "int8": "w8a8 w8a8_int8 int8_sq sq torch.int8",
    "int8_wo": "w8a16 int8_weight_only",
    "int4_wo": "w4a16 int4 int4_weight_only w4a16_awq awq gptq",
    "int3_wo": "int3 w3a16",
    "int2_wo": "int2 w2a16",
    "w4a8_int4_fp8": "w4a8 w4afp8 w4a8_awq",
    "nvfp4": "w4a4_nvfp4 fp4 nvfp4_awq",
    "w4a16_nvfp4": "nvfp4_wo",
    "w4a16_mxfp4": "mxfp4 mxfp4_wo",
    "w4a8_mxfp4_mxfp8": "w4a8_mxfp4",
    "mxfp8": "w8a8_mxfp8",
    "mxfp6": "fp6",
    "nf4": "bnb_4bit",
    "ternary": "bitnet",
}

ALIASES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split()}
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
