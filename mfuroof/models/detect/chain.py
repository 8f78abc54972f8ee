"""The chain: quantisation block of the config, sidecar file, model name, dtype; the first that can be read decides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mfuroof.errors import MfuroofWarning, UnknownNameError
from mfuroof.models.detect.apply import assign, formats_of
from mfuroof.models.detect.block import Block, Notes
from mfuroof.models.detect.methods.table import METHODS, method_of
from mfuroof.models.detect.naming import from_name
from mfuroof.models.detect.scheme import Scheme
from mfuroof.models.detect.spelling import naming_of
from mfuroof.models.detect.summary import summarise
from mfuroof.models.families.parts import Architecture
from mfuroof.models.modules import top_modules
from mfuroof.precision import FORMATS, canonical_dtype

__all__ = ["BLOCK_KEYS", "detect"]

BLOCK_KEYS = ("quantization_config", "compression_config", "quantization")
NESTS = ("text_config", "llm_config", "language_config", "thinker_config")
_SIXTEEN = ("bf16", "fp16", "fp32")


def detect(
    config: Mapping[str, Any],
    merged: Mapping[str, Any],
    sidecar: Mapping[str, Any] | None,
    name: str,
    arch: Architecture,
    precedence: str,
) -> dict[str, Any]:
    """Return the precision fields of a `ModelConfig`, layers included.

    Whatever cannot be read is warned about (`MfuroofWarning`, naming key and value) and passed over.
    """
    notes = Notes()
    dtype, dtype_scheme = _dtype(merged, notes)
    scheme, source, kv = _weights(config, merged, sidecar, name, precedence, notes)
    if scheme is None:
        scheme = dtype_scheme or Scheme("none", None)
        source = "dtype" if "dtype" in notes.origins else "default"
        notes.origins.setdefault("weights", notes.origins.get("dtype", "nothing says; bf16 is assumed"))
    naming = naming_of(str(merged.get("model_type") or ""))
    layers = assign(scheme, arch.layers, arch.hidden_size, naming)
    top = top_modules(arch.vocab_size, arch.hidden_size, arch.tie_word_embeddings, arch.extra_params)
    formats = formats_of(scheme, top, None, naming)
    kv_dtype = kv or scheme.kv_dtype or dtype
    notes.origins.setdefault("kv", "dtype")
    quantization = summarise(scheme, source, layers, formats, top, arch.hidden_size, dtype, kv_dtype, notes)
    for text in notes.warnings:
        warnings.warn(text, MfuroofWarning, stacklevel=4)
    return {"dtype": dtype, "kv_dtype": kv_dtype, "layers": layers, "formats": formats, "quantization": quantization}


def _dtype(merged: Mapping[str, Any], notes: Notes) -> tuple[str, Scheme | None]:
    """Return the dtype of unquantised weights; an 8-bit one means quantised linear layers in a 16-bit model."""
    key = "dtype" if merged.get("dtype") is not None else "torch_dtype"
    value = merged.get(key)
    if value is None or value == "auto":
        return "bf16", None
    try:
        name = canonical_dtype(value) if isinstance(value, str) else ""
    except UnknownNameError:
        name = ""
    if not name:
        notes.warn(key, value, "is no known dtype; 2 bytes a weight are assumed")
        return "bf16", None
    notes.origins["dtype"] = key
    if name in _SIXTEEN:
        return name, None
    return "bf16", Scheme(name, FORMATS[name])


def _weights(
    config: Mapping[str, Any],
    merged: Mapping[str, Any],
    sidecar: Mapping[str, Any] | None,
    name: str,
    precedence: str,
    notes: Notes,
) -> tuple[Scheme | None, str, str]:
    """Return (scheme or None, link of the chain, KV dtype or empty)."""
    beside = [] if sidecar is None else [("sidecar", Block(_flat(sidecar), "sidecar", notes, merged))]
    inside = [("config", block) for block in _blocks(config, merged, notes)]
    kv = ""
    for source, block in inside + beside if precedence == "config" else beside + inside:
        scheme = _read(_completed(block, beside) if source == "config" else block)
        if scheme is None:
            continue
        kv = kv or scheme.kv_dtype
        if scheme.method != "none":
            notes.origins["weights"] = block.where
            return scheme, source, kv
    scheme = from_name(name)
    if scheme is not None:
        notes.origins["weights"] = f"name {name!r}"
        return scheme, "name", kv
    return None, "", kv


def _blocks(config: Mapping[str, Any], merged: Mapping[str, Any], notes: Notes) -> Iterator[Block]:
    for prefix, holder in _holders(config, ""):
        for key in BLOCK_KEYS:
            value = holder.get(key)
            if value is None or value is False:
                continue
            if not isinstance(value, Mapping):
                notes.warn(f"{prefix}{key}", value, "is no object and was ignored")
                continue
            yield Block(_flat(value), f"{prefix}{key}", notes, merged)


def _holders(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (path, object) of the config and of the language model's configs nested in it, outermost first."""
    yield prefix, config
    for key in NESTS:
        inner = config.get(key)
        if isinstance(inner, Mapping):
            yield from _holders(inner, f"{prefix}{key}.")


def _flat(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """ModelOpt's file keeps everything under ``quantization``, beside ``producer``."""
    inner = data.get("quantization")
    if not isinstance(inner, Mapping):
        return data
    return {**{k: v for k, v in data.items() if k != "quantization"}, **inner}


def _completed(block: Block, beside: list[tuple[str, Block]]) -> Block:
    """Mixed precision without its list of layers takes the list from the sidecar, as engines do."""
    mixed = str(block.data.get("quant_algo")).lower().startswith("mixed")
    if mixed and not block.data.get("quantized_layers") and beside:
        layers = beside[0][1].data.get("quantized_layers")
        if layers:
            return Block({**block.data, "quantized_layers": layers}, block.where, block.notes, block.context)
    return block


def _read(block: Block) -> Scheme | None:
    if not block.data:
        block.notes.warn(block.where, {}, "is empty and was ignored")
        return None
    name = method_of(block)
    return METHODS[name](block) if name else None
