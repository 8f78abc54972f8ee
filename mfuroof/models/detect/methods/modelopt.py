"""NVIDIA ModelOpt: an algorithm for the whole model, or one per module (``quantized_layers``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfuroof.models.detect.block import Block
from mfuroof.models.detect.build import integer_format
from mfuroof.models.detect.kv import kv_of
from mfuroof.models.detect.matching import MapMatcher
from mfuroof.models.detect.methods.compressed import groups_of
from mfuroof.models.detect.methods.integer import skip_rules
from mfuroof.models.detect.scheme import Scheme
from mfuroof.precision import FORMATS, Format

__all__ = ["ALGORITHMS", "algorithm", "modelopt"]

_INT4 = integer_format(4, 128)

ALGORITHMS: Mapping[str, Format] = {
    "fp8": FORMATS["fp8"],
    "fp8_per_channel_per_token": FORMATS["fp8"].grouped(-1, 4.0),
    "fp8_pb_wo": FORMATS["fp8_block"],
    "fp8_block_scales": FORMATS["fp8_block"],
    "fp8_pb_real": FORMATS["fp8_block"],
    "nvfp4": FORMATS["nvfp4"],
    "nvfp4_awq": FORMATS["nvfp4"],
    "nvfp4_svdquant": FORMATS["nvfp4"],
    "w4a16_nvfp4": FORMATS["w4a16_nvfp4"],
    "w4a8_nvfp4_fp8": FORMATS["w4a8_nvfp4_fp8"],
    "w4a8_mxfp4_fp8": FORMATS["w4a8_mxfp4_fp8"],
    "w4a8_mxfp4_mxfp8": FORMATS["w4a8_mxfp4_mxfp8"],
    "w4a16_mxfp4": FORMATS["w4a16_mxfp4"],
    "mxfp4": FORMATS["w4a16_mxfp4"],
    "mxfp8": FORMATS["mxfp8"],
    "w4a16_awq": _INT4,
    "int4_awq": _INT4,
    "w4a16": _INT4,
    "w4a16_gptq": _INT4,
    "w4a8_awq": integer_format(4, 128, activations="fp8"),
    "w8a16": FORMATS["int8_wo"].grouped(0),
    "w8a16_gptq": FORMATS["int8_wo"].grouped(0),
    "int8": FORMATS["int8"].grouped(0),
    "int8_sq": FORMATS["int8"].grouped(0),
    "w8a8_sq_per_channel": FORMATS["int8"].grouped(0),
    "w8a8_sq_per_channel_per_tensor_plugin": FORMATS["int8"].grouped(0),
    "w8a8_sq_per_channel_per_token_plugin": FORMATS["int8"].grouped(0),
    "w8a8_sq_per_tensor_plugin": FORMATS["int8"].grouped(0),
    "w8a8_sq_per_tensor_per_token_plugin": FORMATS["int8"].grouped(0),
}
"""Format by ``quant_algo``, in lower case; groups are the usual ones."""

_OWN_GROUP = ("int4", "w4a16_awq", "w4a16", "w4a8_awq", "w4a16_gptq")


def algorithm(name: str, group: int | None = None) -> Format | None:
    """Return the format of a ``quant_algo`` in any case; None if it is not known."""
    key = name.strip().lower().replace("-", "_")
    fmt = ALGORITHMS.get(key)
    if fmt is not None and group and group > 0 and key.startswith(_OWN_GROUP):
        return fmt.grouped(group)
    return fmt


def modelopt(block: Block) -> Scheme | None:
    """Read ``quant_algo``, ``exclude_modules``, ``quantized_layers``; without an algorithm, the config groups."""
    algo = block.text("quant_algo")
    layers = block.mapping("quantized_layers")
    kv = kv_of(block)
    skips = skip_rules(block, "wildcard")
    if algo in ("mixed_precision", "mixed") or (layers and not algo):
        listed = _listed(block, layers)
        if listed:
            return Scheme("modelopt", None, skips, MapMatcher(listed), kv_dtype=kv)
        groups = groups_of(block, "wildcard")
        if groups is not None:
            return Scheme("modelopt", groups[0], (*skips, *groups[1]), kv_dtype=kv)
        block.warn("quant_algo", algo, "needs quantized_layers, and there is none to read")
        return None
    fmt = algorithm(algo, block.number("group_size")) if algo else None
    if fmt is None:
        groups = groups_of(block, "wildcard")
        if algo and algo not in ("none", "no_quant"):
            block.warn("quant_algo", algo, "is not known")
        elif not algo and groups is None:
            block.warn("quant_algo", block.data.get("quant_algo"), "is missing")
        if groups is None:
            return Scheme("none", None, kv_dtype=kv) if kv else None
        return Scheme("modelopt", groups[0], (*skips, *groups[1]), kv_dtype=kv)
    return Scheme("modelopt", fmt, skips, kv_dtype=kv)


def _listed(block: Block, layers: Mapping[str, Any]) -> dict[str, Format | str]:
    listed: dict[str, Format | str] = {}
    known: dict[tuple[str, Any], Format | None] = {}
    for name, body in layers.items():
        algo = body.get("quant_algo") if isinstance(body, Mapping) else None
        group = body.get("group_size") if isinstance(body, Mapping) else None
        key = (algo if isinstance(algo, str) else "", group if type(group) is int else None)
        if key not in known:
            known[key] = algorithm(key[0], key[1]) if isinstance(algo, str) else None
            if known[key] is None and not (isinstance(algo, str) and algo.lower() in ("none", "no_quant")):
                block.warn(f"quantized_layers.{name}.quant_algo", algo, "is not known; its modules stay 16-bit")
        listed[name] = known[key] or ""
    return listed
