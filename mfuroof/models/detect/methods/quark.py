"""AMD Quark: one tensor description for weights and one for inputs, with exceptions by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfuroof.models.detect.block import Block
from mfuroof.models.detect.build import float_format, integer_format
from mfuroof.models.detect.matching import PatternMatcher
from mfuroof.models.detect.methods.integer import skip_rules
from mfuroof.models.detect.scheme import Rule, Scheme
from mfuroof.precision import Format

__all__ = ["quark"]

_WIDTHS = {"fp8": ("float", 8), "fp6": ("float", 6), "fp4": ("float", 4), "int8": ("int", 8), "int4": ("int", 4)}
_WIDTHS |= {"uint4": ("int", 4), "uint8": ("int", 8), "int3": ("int", 3), "int2": ("int", 2), "mx": ("float", 4)}


def quark(block: Block) -> Scheme | None:
    """Read ``global_quant_config`` and ``layer_quant_config``; the KV dtype hides in output tensors."""
    whole = block.mapping("global_quant_config")
    fmt = _format(block, whole, "global_quant_config")
    rules = []
    kv = ""
    for name, body in block.mapping("layer_quant_config").items():
        if not isinstance(body, Mapping):
            continue
        where = f"layer_quant_config.{name}"
        own = _format(block, body, where) if body.get("weight") is not None else None
        if own is not None:
            rules.append(Rule(own, PatternMatcher([name], "wildcard", block, where)))
        kv = kv or _kv(block, body.get("output_tensors"), where)
    if fmt is None and not rules:
        block.warn("global_quant_config", dict(whole), "holds no weights that can be read")
        return Scheme("none", None, kv_dtype=kv) if kv else None
    return Scheme("quark", fmt, (*skip_rules(block, "wildcard"), *rules), kv_dtype=kv)


def _tensor(value: Any) -> tuple[str, int] | None:
    name = value.get("dtype") if isinstance(value, Mapping) else None
    return next((v for k, v in _WIDTHS.items() if name.lower().startswith(k)), None) if isinstance(name, str) else None


def _format(block: Block, body: Mapping[str, Any], where: str) -> Format | None:
    weight = body.get("weight")
    read = _tensor(weight)
    if read is None or not isinstance(weight, Mapping):
        if weight is not None:
            block.warn(f"{where}.weight", weight, "has no dtype that is known")
        return None
    kind, bits = read
    inputs = _tensor(body.get("input_tensors"))
    activations = {("float", 8): "fp8", ("float", 6): "fp8", ("int", 8): "int8", ("float", 4): "fp4"}.get(
        inputs or ("", 0), ""
    )
    inner = block.sub(weight, f"{where}.weight")
    scheme = inner.text("qscheme")
    group = 0 if scheme == "per_tensor" else -1 if scheme == "per_channel" else 32 if kind == "float" else 128
    if weight.get("group_size") is not None and scheme not in ("per_tensor", "per_channel"):
        group = inner.group("group_size", default=group)
    if kind == "float":
        group = 32 if bits < 8 else group
        return float_format(bits, group, activations="fp8" if bits == 8 and activations else activations)
    return integer_format(bits, group, activations=activations if activations in ("int8", "fp8") else "")


def _kv(block: Block, value: Any, where: str) -> str:
    read = _tensor(value)
    name = {("float", 8): "fp8", ("int", 8): "int8"}.get(read or ("", 0), "")
    if name:
        block.notes.origins["kv"] = f"{block.where}.{where}.output_tensors"
    return name
