"""Group-wise integer methods: GPTQ, AWQ, AutoRound, HQQ and their kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mfuroof.models.detect.block import SKIP_KEYS, Block
from mfuroof.models.detect.build import float_format, integer_format
from mfuroof.models.detect.matching import PatternMatcher
from mfuroof.models.detect.scheme import Rule, Scheme
from mfuroof.precision import FORMATS, Format

__all__ = ["affine", "autoround", "awq", "gptq", "skip_rules"]

UNQUANTISED = (16, 32)


def skip_rules(block: Block, style: str, *keys: str) -> tuple[Rule, ...]:
    """Return the rule for modules that stay as they are, from every spelling of the list (or just ``keys``)."""
    found = keys or SKIP_KEYS
    names = block.names(*found)
    return (Rule(None, PatternMatcher(names, style, block, block.find(*found)[0])),) if names else ()


def gptq(block: Block) -> Scheme | None:
    """Read GPTQ: ``bits`` (no default), ``group_size``; zero points are stored even where ``sym`` is true."""
    bits = block.bits("bits", "w_bit", allowed=(2, 3, 4, 8))
    if bits is None:
        return None
    if bits in UNQUANTISED:
        return Scheme("none", None)
    fmt = integer_format(bits, block.group("group_size", default=128), zero=True)
    rules = [*_dynamic(block, fmt), *skip_rules(block, "component")]
    only = block.data.get("modules_in_block_to_quantize")
    nested = [g if isinstance(g, list) else [g] for g in only] if isinstance(only, list) else []
    names = [n for group in nested for n in group if isinstance(n, str)]
    if names:
        rules.append(Rule(fmt, PatternMatcher(names, "component", block, "modules_in_block_to_quantize")))
    if block.flag("lm_head", False):
        rules.append(Rule(fmt, kinds=frozenset(("lm_head",))))
    return Scheme("gptq", None if names else fmt, tuple(rules))


def _dynamic(block: Block, fmt: Format) -> list[Rule]:
    """Read overrides by regular expression: ``-:`` leaves a module out, ``+:`` (or nothing) gives it other bits."""
    rules = []
    for key, value in block.mapping("dynamic").items():
        sign, pattern = (key[0], key[2:]) if key[:2] in ("-:", "+:") else ("+", key)
        names = PatternMatcher([pattern], "regex", block, "dynamic")
        if sign == "-":
            rules.append(Rule(None, names))
        elif isinstance(value, Mapping):
            inner = block.sub(value, "dynamic")
            bits = inner.bits("bits", default=int(fmt.bits), allowed=(2, 3, 4, 8))
            group = inner.group("group_size", default=fmt.group_size)
            if bits is not None:
                own = None if bits in UNQUANTISED else integer_format(bits, group, zero=True)
                rules.append(Rule(own, names))
        else:
            block.warn("dynamic", {key: value}, "is no object and was left out")
    return rules


def awq(block: Block) -> Scheme | None:
    """Read AWQ: 4 bits in groups of 128 unless said otherwise, with zero points unless ``zero_point`` is false."""
    bits = block.bits("bits", "w_bit", default=4, allowed=(4, 8))
    if bits is None:
        return None
    if bits in UNQUANTISED:
        return Scheme("none", None)
    group = block.group("group_size", "q_group_size", default=128)
    fmt = integer_format(bits, group, zero=block.flag("zero_point", True))
    return Scheme("awq", fmt, skip_rules(block, "component"))


def autoround(block: Block) -> Scheme | None:
    """Read AutoRound: integers as GPTQ packs them, or floats; ``extra_config`` gives single layers other bits."""
    fmt = _autoround_format(block, block.group_or_block("group_size"))
    if fmt is None:
        return None
    rules: list[Rule] = []
    for name, value in block.mapping("extra_config").items():
        if isinstance(name, str) and isinstance(value, Mapping):
            inner = block.sub({**block.data, **value}, f"extra_config.{name}")
            rules.append(Rule(_autoround_format(inner, inner.group_or_block("group_size")) or fmt, _one(block, name)))
    rules = [replace(r, fmt=None) if r.fmt is not None and r.fmt.bits >= 16 else r for r in rules]
    if fmt.bits >= 16:
        return Scheme("none", None)
    return Scheme("auto-round", fmt, (*rules, *skip_rules(block, "component")))


def _one(block: Block, name: str) -> PatternMatcher:
    return PatternMatcher([name], "component", block, "extra_config")


def _autoround_format(block: Block, group: int) -> Format | None:
    bits = block.bits("bits", default=4)
    if bits is None:
        return None
    if bits in UNQUANTISED:
        return FORMATS["bf16"]
    kind, act = block.text("data_type") or "int", block.number("act_bits", default=16)
    if "int" in kind:
        activations = "int8" if act == 8 and bits == 8 else ""
        return integer_format(bits, group, activations=activations, zero=True)
    activations = {4: "fp4", 8: "fp8"}.get(act or 16, "")
    if bits not in (4, 6, 8):
        block.warn("bits", bits, f"is no width of data_type {kind!r}; ignored")
        return None
    if "mx" in kind:
        group = 32
    elif "nv" in kind:
        group = 16
    return float_format(bits, group, activations="fp8" if bits == 8 and activations else activations)


def affine(method: str, bits_keys: tuple[str, ...], *, nested: tuple[str, ...] = ()) -> _Affine:
    """Return a reader of methods with a 16-bit scale and a 16-bit zero per group: HQQ, SINQ, MLX, Metal."""
    return _Affine(method, bits_keys, nested)


class _Affine:
    """Bits and group (4 and 64 by default) under the given keys, ``nested`` objects deep."""

    def __init__(self, method: str, bits_keys: tuple[str, ...], nested: tuple[str, ...]) -> None:
        self.method, self.bits_keys, self.nested = method, bits_keys, nested

    def __call__(self, block: Block) -> Scheme | None:
        inner = block
        for key in self.nested:
            inner = inner.sub(inner.mapping(key), key) if key in inner.data else inner
        fmt = self._format(inner)
        if fmt is None:
            return None
        rules = [*self._own(block, fmt), *skip_rules(block, "component")]
        return Scheme(self.method, fmt, tuple(rules)) if fmt.bits < 16 else Scheme("none", None)

    def _format(self, block: Block) -> Format | None:
        bits = block.bits(*self.bits_keys, default=4)
        if bits is None:
            return None
        if bits in UNQUANTISED:
            return FORMATS["bf16"]
        return integer_format(bits, block.group("group_size", default=64), scale_bytes=4.0)

    def _own(self, block: Block, fmt: Format) -> list[Rule]:
        """Read what MLX writes beside the defaults: a module's name with false, or with bits and group of its own."""
        rules = []
        for name, value in block.data.items():
            if "." in name and (value is False or isinstance(value, Mapping)):
                own = None if value is False else self._format(block.sub({"bits": int(fmt.bits), **value}, name))
                rules.append(Rule(own, PatternMatcher([name], "component", block, name)))
        return rules
