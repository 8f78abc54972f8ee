"""From a Hugging Face config (file, dict, registry id) or plain numbers to the fields of a `ModelConfig`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from mfuroof._boundary import choice
from mfuroof.errors import ConfigError, Problem, UnknownNameError, reason
from mfuroof.models.config import ModelConfig
from mfuroof.models.detect import detect
from mfuroof.models.families.parts import Architecture
from mfuroof.models.families.table import read_architecture
from mfuroof.models.fields import Fields
from mfuroof.models.quantization import Quantization
from mfuroof.models.text import short
from mfuroof.precision import FORMATS, Format, canonical_dtype, canonical_kv_dtype, kv_format_of

__all__ = ["DTYPES", "SIDECAR_FILES", "fields_of_numbers", "load_json", "merge_text_config", "read"]

SIDECAR_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
DTYPES = ("bf16", "fp16", "fp32")
"""What unquantised weights can be stored in."""

_NESTS = ("text_config", "llm_config", "language_config", "thinker_config")
_OWN = ("name", "dtype", "kv_dtype", "quantization", "formats", "exact")


def read(source: Any, name: str | None, sidecar: Any, precedence: str) -> ModelConfig:
    """Return the model of a config; see `ModelConfig.from_hf`."""
    choice("quantization_precedence", precedence, ("config", "sidecar"))
    side = sidecar if sidecar is None or isinstance(sidecar, Mapping) else load_json(sidecar, "sidecar")
    config, default_name = source, ""
    if isinstance(source, str) and not _is_path(source):
        from mfuroof.models.registry import entry

        default_name, config, known_side = entry(source)
        side = known_side if side is None else side
    elif isinstance(source, str | PathLike):
        path = Path(source)
        file = path / "config.json" if os.path.isdir(path) else path
        config = load_json(file, "config")
        default_name = file.resolve().parent.name
        if side is None:
            found = next((p for n in SIDECAR_FILES if (p := file.parent / n).is_file() and p != file), None)
            side = load_json(found, "sidecar") if found else None
    if not isinstance(config, Mapping):
        raise ConfigError(Problem("config", type(config).__name__, "a JSON object, a path or a model id"))
    merged = merge_text_config(config)
    if not default_name and isinstance(config.get("_name_or_path"), str):
        default_name = config["_name_or_path"]
    name = default_name if name is None else str(name)
    arch = read_architecture(Fields(merged))
    precision = detect(config, merged, side, name, arch, precedence)
    return ModelConfig(name=name, model_type=str(merged.get("model_type") or ""), **_shape(arch, merged), **precision)


def _is_path(source: str) -> bool:
    """Say whether a text means a file or folder: one that exists, or that nobody would take for a model's name."""
    written = os.path.isabs(source) or source.startswith(("./", "../", "~")) or source.lower().endswith(".json")
    return written or os.path.exists(source)


def _shape(arch: Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": arch.hidden_size,
        "vocab_size": arch.vocab_size,
        "num_hidden_layers": sum(s.count for s in arch.layers),
        "num_attention_heads": arch.num_attention_heads,
        "num_key_value_heads": arch.num_key_value_heads,
        "head_dim": arch.head_dim,
        "intermediate_size": arch.intermediate_size,
        "tie_word_embeddings": arch.tie_word_embeddings,
        "extra_params": arch.extra_params,
        "intermediate_size_mlp": _small(config.get("intermediate_size_mlp")),
        "interleave_moe_layer_step": _small(config.get("interleave_moe_layer_step")),
        "exact": arch.exact,
    }


def _small(value: Any) -> int:
    return value if type(value) is int else 0


def fields_of_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a `ModelConfig` given straight from numbers, under Hugging Face's names."""
    own = {k: given[k] for k in _OWN if k in given}
    if "torch_dtype" in given:
        own.setdefault("dtype", given["torch_dtype"])
        given = {k: v for k, v in given.items() if k != "torch_dtype"}
    fields = Fields({k: v for k, v in given.items() if k not in _OWN}, lenient=True)
    arch = read_architecture(fields)
    unread = [k for k in given if k not in _OWN and k not in fields.seen]
    if unread:
        raise UnknownNameError("field of ModelConfig", unread[0], (*_OWN, *sorted(fields.seen)))
    own["dtype"] = canonical_dtype(own.get("dtype", "bf16"))
    fmt = FORMATS[own["dtype"]]
    if own["dtype"] not in DTYPES:
        raise UnknownNameError("dtype", own["dtype"], DTYPES, "Narrower weights: with_precision(weight_dtype=...).")
    own["kv_dtype"] = canonical_kv_dtype(own.get("kv_dtype", own["dtype"]))
    own.setdefault("quantization", _unquantised(fmt, own["kv_dtype"]))
    own["model_type"] = str(given.get("model_type") or "")
    return {**own, **_shape(arch, given), "layers": arch.layers}


def _unquantised(fmt: Format, kv_dtype: str) -> Quantization:
    size = fmt.nominal_bytes
    kv = kv_format_of(kv_dtype).bytes_per_element
    return Quantization("none", fmt.bits, None, size, size, kv, fmt.compute_class, kv_dtype=kv_dtype, source="dtype")


def load_json(path: str | PathLike[str], what: str) -> dict[str, Any]:
    """Return the JSON object in a file; raise `ConfigError` naming the file if there is none.

    ``Infinity`` and ``NaN`` are accepted: real configs contain them.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        found = reason(error)
        raise ConfigError(Problem(f"{what} {path}", found, "a readable JSON file")) from None
    if not isinstance(data, dict):
        raise ConfigError(Problem(f"{what} {path}", type(data).__name__, "a JSON object"))
    return data


def merge_text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the language model's keys: those of a nested ``text_config`` over those of the top level."""
    merged = dict(config)
    for key in _NESTS:
        inner = merged.pop(key, None)
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            raise ConfigError(Problem(key, short(inner), "an object"))
        deeper = merge_text_config(inner)
        merged.update((k, v) for k, v in deeper.items() if v is not None or k not in merged)
        break
    return merged
