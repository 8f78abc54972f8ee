"""compressed-tensors: groups of targets, each with weights, activations and a way of storing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfuroof.models.detect.block import Block
from mfuroof.models.detect.build import float_format, integer_format
from mfuroof.models.detect.kv import kv_of
from mfuroof.models.detect.matching import PatternMatcher
from mfuroof.models.detect.methods.integer import skip_rules
from mfuroof.models.detect.scheme import Rule, Scheme
from mfuroof.precision import FORMATS, Format

__all__ = ["PRESETS", "compressed_tensors", "groups_of"]

PRESETS: Mapping[str, Format | None] = {
    "UNQUANTIZED": None,
    "W4A16": integer_format(4, 128),
    "W4A16_ASYM": integer_format(4, 128, zero=True),
    "W8A16": integer_format(8, -1),
    "W4A8": integer_format(4, 128, activations="int8"),
    "W4AFP8": integer_format(4, 128, activations="fp8"),
    "W8A8": integer_format(8, -1, activations="int8"),
    "INT8": integer_format(8, -1, activations="int8"),
    "FP8": FORMATS["fp8"],
    "FP8_DYNAMIC": float_format(8, -1, activations="fp8"),
    "FP8_BLOCK": FORMATS["fp8_block"],
    "NVFP4": FORMATS["nvfp4"],
    "NVFP4A16": FORMATS["w4a16_nvfp4"],
    "MXFP4": FORMATS["w4a4_mxfp4"],
    "MXFP4A16": FORMATS["w4a16_mxfp4"],
    "MXFP8": FORMATS["mxfp8"],
    "MXFP8A16": FORMATS["mxfp8_wo"],
}
"""Formats of the named presets that may stand for a whole group."""

_CLASSES = ("Linear", "FusedMoE", "Conv1D")
_CONTAINER = ("int-quantized", "naive-quantized")


def compressed_tensors(block: Block) -> Scheme | None:
    """Read ``config_groups``; ``ignore`` holds exact names, or regular expressions after ``re:``."""
    groups = groups_of(block, "compressed")
    kv = kv_of(block)
    if groups is None:
        if block.data.get("config_groups") is None:
            block.warn("config_groups", None, "is missing")
        return Scheme("none", None, kv_dtype=kv) if kv else None
    return Scheme("compressed-tensors", groups[0], (*skip_rules(block, "compressed"), *groups[1]), kv_dtype=kv)


def groups_of(block: Block, style: str) -> tuple[Format | None, tuple[Rule, ...]] | None:
    """Return (format of all linear modules or None, rules for named ones), or None if no group can be read.

    Groups are taken in the order of their names, whatever the order in the file.
    """
    groups = block.mapping("config_groups")
    default: Format | None = None
    rules: list[Rule] = []
    seen: set[Format] = set()
    for name in sorted(groups, key=str):
        read = _group(block, str(name), groups[name])
        if read is None:
            continue
        fmt, targets = read
        seen.add(fmt)
        named = [t for t in targets if t not in _CLASSES]
        if len(named) < len(targets) or not targets:
            default = default or fmt
        if named:
            rules.append(Rule(fmt, PatternMatcher(named, style, block, f"config_groups.{name}.targets")))
    if not seen:
        if groups:
            block.warn("config_groups", groups, "holds no group whose weights can be read")
        return None
    if len(seen) > 1 and not rules:
        names = sorted(map(str, groups))
        block.warn("config_groups", names, "differ and all mean every module; the first by name counts")
    return default, tuple(rules)


def _group(block: Block, name: str, body: Any) -> tuple[Format, list[str]] | None:
    if name.upper() in PRESETS:
        fmt = PRESETS[name.upper()]
        return None if fmt is None else (fmt, [t for t in body if isinstance(t, str)] if isinstance(body, list) else [])
    if not isinstance(body, Mapping):
        block.warn(f"config_groups.{name}", body, "is no object and was skipped")
        return None
    weights = body.get("weights")
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        block.warn(f"config_groups.{name}.weights", weights, "is no object and was skipped")
        return None
    inner = block.sub(weights, f"config_groups.{name}.weights")
    own = body.get("format")
    stored = own if isinstance(own, str) else block.text("format")
    if stored == "dense":  # trained for a precision, but stored without it
        return None
    fmt = _weights(inner, _activations(block, name, body.get("input_activations")), stored)
    return None if fmt is None else (fmt, block.sub(body, f"config_groups.{name}").names("targets"))


def _activations(block: Block, name: str, value: Any) -> str:
    if not isinstance(value, Mapping) or not value:
        if value not in (None, {}):
            block.warn(f"config_groups.{name}.input_activations", value, "is no object; weight-only is assumed")
        return ""
    inner = block.sub(value, f"config_groups.{name}.input_activations")
    bits, kind = inner.number("num_bits", default=8), inner.text("type") or "int"
    if bits in (16, 32):
        return ""
    found = {("float", 8): "fp8", ("int", 8): "int8", ("float", 4): "fp4"}.get((kind, bits or 0))
    if found is None:
        inner.warn("num_bits", bits, "is no known activation width; weight-only is assumed")
    return found or ""


def _weights(block: Block, activations: str, stored: str) -> Format | None:
    bits = block.bits("num_bits", default=8)
    if bits is None or bits in (16, 32):
        return None
    kind, strategy = block.text("type") or "int", block.text("strategy")
    shape = block.block_shape("block_structure")
    raw = block.data.get("group_size")
    group = block.group("group_size", default=128) if raw is not None else 0
    if strategy == "channel" or (raw is None and strategy in ("token", "")):
        group = -1 if strategy == "channel" or kind == "int" else 0
    elif strategy == "block":
        group = shape[0] * shape[1] if shape else 128 * 128
    elif strategy == "tensor":
        group = 0
    elif strategy == "group" and raw is None:
        group = 128
    elif strategy not in ("", "channel", "token", "group", "tensor_group"):
        block.warn("strategy", strategy, "is not known")
    if kind == "float":
        if bits not in (4, 6, 8):
            block.warn("num_bits", bits, "is no width of a float; ignored")
            return None
        if bits == 8 and group > 32 and strategy == "group":
            return float_format(8, group, activations=activations, scale_bytes=2.0)
        return float_format(bits, group, activations=_same_width(bits, activations))
    if kind != "int":
        block.warn("type", kind, "is neither int nor float; ignored")
        return None
    container = 8 if stored in _CONTAINER else 0
    act = activations if activations in ("int8", "fp8") else ""
    return integer_format(bits, group, activations=act, zero=not block.flag("symmetric", True), stored_bits=container)


def _same_width(bits: int, activations: str) -> str:
    """Return the class an 8-bit float computes in: fp8 or 16-bit, whatever else is claimed."""
    return "fp8" if bits in (6, 8) and activations else activations
