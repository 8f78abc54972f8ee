"""Methods with a small block: bitsandbytes, torchao, quanto, Quark, code books and the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mfuroof.models.detect.block import Block
from mfuroof.models.detect.build import float_format, integer_format
from mfuroof.models.detect.matching import PatternMatcher
from mfuroof.models.detect.methods.integer import skip_rules
from mfuroof.models.detect.scheme import LINEAR_KINDS, Rule, Scheme
from mfuroof.precision import FORMATS, Format

__all__ = ["aqlm", "bitsandbytes", "by_pattern", "fixed", "fp_quant", "higgs", "quanto", "spqr", "torchao", "vptq"]

INT8 = FORMATS["int8"].grouped(0)
INT8_WO = FORMATS["int8_wo"].grouped(0)


class fixed:
    """A method whose name says it all."""

    def __init__(self, method: str, fmt: Format, kinds: frozenset[str] = LINEAR_KINDS) -> None:
        self.method, self.fmt, self.kinds = method, fmt, kinds

    def __call__(self, block: Block) -> Scheme | None:
        """Return the format for everything but what the block leaves out."""
        return Scheme(self.method, self.fmt, skip_rules(block, "component"), kinds=self.kinds)


def bitsandbytes(block: Block) -> Scheme | None:
    """Read NF4 or FP4 code books in blocks of 64 (fp32 scale, or fp8 scale of scales), or LLM.int8()."""
    four = block.flag("load_in_4bit", False) or block.flag("_load_in_4bit", False)
    eight = block.flag("load_in_8bit", False) or block.flag("_load_in_8bit", False)
    skips = skip_rules(block, "component")
    if four:
        kind = block.text("bnb_4bit_quant_type") or "fp4"
        if kind not in ("nf4", "fp4"):
            block.warn("bnb_4bit_quant_type", kind, "is neither nf4 nor fp4; 4 bits in blocks of 64 are assumed")
        double = block.flag("bnb_4bit_use_double_quant", False)
        return Scheme("bitsandbytes", FORMATS["nf4"].grouped(64, 1 + 4 / 256 if double else 4.0), skips)
    if eight:
        return Scheme("bitsandbytes", INT8, skips)
    block.warn("load_in_4bit", block.data.get("load_in_4bit"), "and load_in_8bit are both off or missing")
    return None


_TORCHAO: tuple[tuple[str, str], ...] = (
    ("int4dynamicactivation", "w4a8_int8"), ("int8dynamicactivationint4", "w4a8_int8"),
    ("float8dynamicactivationint4", "w4a8_int4_fp8"), ("float8dynamicactivationfloat8semi", "fp8"),
    ("int8dynamicactivation", "int8"), ("int8dynamic", "int8"), ("int8staticactivation", "int8"),
    ("float8dynamicactivation", "fp8"), ("float8dynamic", "fp8"), ("float8staticactivation", "fp8"),
    ("float8weightonly", "fp8_wo"), ("int8weightonly", "int8_wo"), ("int4weightonly", "int4_wo"),
    ("uintxweightonly", "int4_wo"), ("intxweightonly", "int4_wo"), ("nvfp4", "nvfp4"), ("mxfp8", "mxfp8"),
    ("mxdynamicactivation", "mxfp8"), ("autoquant", ""),
)  # fmt: skip


def torchao(block: Block) -> Scheme | None:
    """Read torchao: the name of the config class decides; int4 has a scale and a zero of 16 bits per group."""
    kind, data = _torchao_kind(block)
    squeezed = "".join(c for c in kind.lower() if c.isalnum()).removesuffix("config")
    name = next((v for k, v in _TORCHAO if squeezed.startswith(k)), "")
    if not name:
        block.warn("quant_type", block.data.get("quant_type"), "is not known")
        return None
    fmt = FORMATS[name]
    if fmt.bits == 4 and fmt.name.startswith(("int4", "w4a8")):
        inner = block.sub(data, "quant_type")
        fmt = fmt.grouped(inner.group("group_size", default=128 if fmt.weight_only else 32), 4.0)
    elif fmt.bits == 8 and fmt.name != "mxfp8":
        fmt = fmt.grouped(0)
    return Scheme("torchao", fmt, skip_rules(block, "component"))


def _torchao_kind(block: Block) -> tuple[str, Mapping[str, Any]]:
    value = block.data.get("quant_type")
    if isinstance(value, str):
        return value, block.mapping("quant_type_kwargs")
    if isinstance(value, Mapping):
        inner = value.get("default", value)
        if isinstance(inner, Mapping) and isinstance(inner.get("_type"), str):
            data = inner.get("_data")
            return inner["_type"], data if isinstance(data, Mapping) else {}
    return "", {}


def quanto(block: Block) -> Scheme | None:
    """Read quanto: groups of 128 below 8 bits; activations are 16-bit unless named."""
    weights, act = block.text("weights"), block.text("activations")
    activations = {"int8": "int8", "float8": "fp8"}.get(act, "")
    if act not in ("", "none", "int8", "float8"):
        block.warn("activations", act, "is not known; weight-only is assumed")
    if weights == "int8":
        fmt = integer_format(8, 0, activations=activations if activations == "int8" else "")
    elif weights == "float8":
        fmt = float_format(8, 0, activations=activations)
    elif weights in ("int4", "int2"):
        fmt = integer_format(int(weights[3]), 128, scale_bytes=4.0)
    else:
        block.warn("weights", block.data.get("weights"), "is none of int8, float8, int4, int2")
        return None
    return Scheme("quanto", fmt, skip_rules(block, "component"))


def _codebook(bits: float, overhead: float = 0.0) -> Format:
    return replace(FORMATS["codebook"], bits=bits, matrix_overhead_bytes=overhead)


def aqlm(block: Block) -> Scheme | None:
    """Read additive code books: num_codebooks x nbits_per_codebook bits per group, and the books beside each matrix."""
    books = block.number("num_codebooks", default=1)
    nbits = block.number("nbits_per_codebook", default=16)
    inside, outside = block.number("in_group_size", default=8), block.number("out_group_size", default=1)
    if not (books and nbits and inside and outside) or min(books, nbits, inside, outside) < 1 or nbits > 16:
        block.warn("nbits_per_codebook", nbits, "and its companions give no size")
        return None
    bits = books * nbits / (inside * outside)
    if not 0 < bits <= 8:
        block.warn("nbits_per_codebook", nbits, f"would make {bits:g} bits a weight")
        return None
    return Scheme("aqlm", _codebook(bits, books * 2.0**nbits * inside * outside * 2), skip_rules(block, "component"))


def vptq(block: Block) -> Scheme | None:
    """Read vector quantisation, per layer: log2(centroids) / vector length bits, main and residual."""
    rules: list[Rule] = []
    formats: list[Format] = []
    for name, body in block.mapping("config_for_layers").items():
        bits = _vptq_bits(body)
        if bits is None:
            block.warn(f"config_for_layers.{name}", body, "gives no number of bits and was left out")
            continue
        formats.append(_codebook(bits))
        rules.append(Rule(formats[-1], PatternMatcher([name], "component", block, "config_for_layers")))
    if not rules:
        block.warn("config_for_layers", block.data.get("config_for_layers"), "holds no layer that can be read")
        return None
    return Scheme("vptq", None, tuple(rules))


def _vptq_bits(body: Any) -> float | None:
    if not isinstance(body, Mapping):
        return None
    lengths, total = body.get("vector_lens"), 0.0
    for key in ("num_centroids", "num_res_centroids"):
        for length, count in zip(_ints(lengths), _ints(body.get(key)), strict=False):
            if length > 0 and count > 1:
                total += math.log2(count) / length
    return total if 0 < total <= 8 else None


def _ints(value: Any) -> list[int]:
    return [v for v in value if type(v) is int] if isinstance(value, list) else []


def spqr(block: Block) -> Scheme | None:
    """Read SpQR: 3 bits unless said otherwise."""
    bits = block.bits("bits", default=3)
    return None if bits is None or bits > 8 else Scheme("spqr", _codebook(bits), skip_rules(block, "component"))


def higgs(block: Block) -> Scheme | None:
    """Read HIGGS: a 16-bit scale per 256 weights."""
    bits = block.bits("bits", default=4)
    if bits is None or bits > 8:
        return None
    fmt = _codebook(bits).grouped(block.group("group_size", default=256), 2.0)
    return Scheme("higgs", fmt, skip_rules(block, "component"))


def fp_quant(block: Block) -> Scheme | None:
    """Read W4A4 in NVFP4 or MXFP4."""
    name = block.text("forward_dtype") or "nvfp4"
    fmt = {"nvfp4": FORMATS["nvfp4"], "mxfp4": FORMATS["w4a4_mxfp4"]}.get(name)
    if fmt is None:
        block.warn("forward_dtype", name, "is neither nvfp4 nor mxfp4")
        return None
    return Scheme("fp_quant", fmt, skip_rules(block, "component"))


def by_pattern(block: Block) -> Scheme | None:
    """Read Gemma's own: ``num_bits`` for all, ``module_quant_configs`` for modules by pattern; one scale per row."""
    bits = block.bits("num_bits", default=4)
    if bits is None or bits > 8:
        return None
    rules = []
    for name, body in block.mapping("module_quant_configs").items():
        if isinstance(body, Mapping):
            own = block.sub(body, f"module_quant_configs.{name}").bits("num_bits", default=bits)
            if own is not None:
                fmt = None if own > 8 else integer_format(own, -1)
                rules.append(Rule(fmt, PatternMatcher([name], "component", block, "module_quant_configs")))
    return Scheme("gemma", integer_format(bits, -1), (*rules, *skip_rules(block, "component")))
