"""What a quantisation block says about the KV cache."""

from __future__ import annotations

from collections.abc import Mapping

from mfuroof.errors import UnknownNameError
from mfuroof.models.detect.block import Block
from mfuroof.precision import canonical_kv_dtype

__all__ = ["kv_of"]

_NOTHING = ("", "none", "null", "auto", "no_quant")


def kv_of(block: Block) -> str:
    """Return the KV dtype from ``kv_cache_scheme`` or ``kv_cache_quant_algo`` (object or name); empty if unsaid."""
    for key in ("kv_cache_scheme", "kv_cache_quant_algo"):
        value = block.data.get(key)
        if value is None:
            continue
        dtype = _from_scheme(block.sub(value, key)) if isinstance(value, Mapping) else _from_name(block, key)
        if dtype:
            block.notes.origins["kv"] = f"{block.where}.{key}"
            return dtype
    return ""


def _from_name(block: Block, key: str) -> str:
    value = block.data[key]
    if isinstance(value, str):
        if value.strip().lower() in _NOTHING:
            return ""
        try:
            return canonical_kv_dtype(value)
        except UnknownNameError:
            pass
    block.warn(key, value, "is no known KV cache dtype; the model's own is assumed")
    return ""


def _from_scheme(block: Block) -> str:
    if not block.data:
        return ""
    kind = block.text("type") or ("float" if block.data.get("num_bits") is not None else "")
    bits = block.number("num_bits", default=8)
    names = {("float", 8): "fp8", ("int", 8): "int8", ("float", 4): "nvfp4", ("int", 4): "int4"}
    if bits in (16, 32):
        return ""
    name = names.get((kind, bits or 0), "")
    if not name:
        block.warn("num_bits", dict(block.data), "is no known KV cache scheme; the model's own dtype is assumed")
    return name
