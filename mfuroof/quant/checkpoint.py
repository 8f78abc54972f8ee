"""Whether a checkpoint is quantised already, whatever is known of it: model, config, folder, or only its name."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mfuroof.errors import ConfigError, InputError, MfuroofWarning, Problem, UnknownNameError
from mfuroof.models import ModelConfig
from mfuroof.models.hf import SIDECAR_FILES
from mfuroof.precision.runtime import UNQUANTISED

__all__ = ["Checkpoint", "detect"]

_BLOCKS = ("quantization_config", "compression_config", "quantization")
_BLOCK_MARKS = ("quant_method", "quant_algo", "load_in_4bit", "load_in_8bit")
_NESTS = ("", "text_config", "llm_config", "language_config", "thinker_config")
_ANY_SHAPE = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 1024,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "model_type": "mixtral",
}
"""Stands for the architecture where only the precision is given: methods are read the same for every shape."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says about its precision.

    Attributes
    ----------
    name
        As far as known.
    method
        ``"none"``, or how it is quantised (``gptq``, ``fp8``, ``compressed-tensors``, ``modelopt`` …).
    compute_class
        What its quantised products run as.
    dtype, kv_dtype
        Of what is not quantised, and of the KV cache, where it says so; else empty.
    source
        Where that stands: config, sidecar, name, dtype, or default where nothing says anything.
    is_moe
        Whether it has routed experts; None where that is not known.
    warnings
        What was odd.
    only_name
        Nothing but its name was read.
    """

    name: str
    method: str
    compute_class: str = "bf16"
    dtype: str = ""
    kv_dtype: str = ""
    source: str = "default"
    is_moe: bool | None = None
    warnings: tuple[str, ...] = ()
    only_name: bool = False

    @property
    def quantised(self) -> bool:
        """Whether engines take its weights as they are."""
        return self.method != "none"

    @property
    def kv_quantised(self) -> bool:
        """Whether it brings scales of a KV cache below 16 bits."""
        return self.kv_dtype not in ("", "bf16", "fp16", "fp32")

    def summary(self) -> str:
        """Return the finding in one line."""
        what = f"quantised ({self.method}, computes as {self.compute_class})" if self.quantised else "not quantised"
        cache = f", KV cache {self.kv_dtype}" if self.kv_quantised else ""
        source = f"{self.source}, only its name was read" if self.only_name else self.source
        return f"{self.name or 'checkpoint'}: {what}{cache}; from {source}"


def detect(checkpoint: Any, *, sidecar: Any = None) -> Checkpoint:
    """Return what is known of a checkpoint.

    Parameters
    ----------
    checkpoint
        A `ModelConfig`; a config as a dict (the quantisation block alone will do) or path; the name of a built-in
        model; or any other name, of which only the text is read; None for an unknown one.
    sidecar
        ``hf_quant_config.json`` or ``quantize_config.json``, as in `ModelConfig.from_hf`.

    Raises
    ------
    InputError
        Something else, or a path whose config cannot be read.
    """
    if checkpoint is None:
        return Checkpoint("", "none")
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    if isinstance(checkpoint, ModelConfig):
        return _of_model(checkpoint, checkpoint.name, ())
    if isinstance(checkpoint, Mapping):
        return _of_config(checkpoint, sidecar)
    if isinstance(checkpoint, os.PathLike) or (isinstance(checkpoint, str) and os.path.exists(checkpoint)):
        if Path(checkpoint).suffix.lower() == ".gguf":
            return Checkpoint(Path(checkpoint).name, "gguf", source="name")
        return _of_path(Path(checkpoint), sidecar)
    if not isinstance(checkpoint, str) or not checkpoint.strip():
        raise InputError(Problem("checkpoint", repr(checkpoint), "a model, a config, a path or a name"))
    try:
        return _of_source(checkpoint, sidecar)
    except UnknownNameError:
        pass
    if checkpoint.lower().endswith((".gguf", "-gguf")):
        return Checkpoint(checkpoint, "gguf", source="name", only_name=True)
    found = _of_source({**_ANY_SHAPE}, sidecar, name=checkpoint)
    kv_dtype = found.kv_dtype if found.kv_quantised else ""
    return replace(found, name=checkpoint, dtype="", kv_dtype=kv_dtype, is_moe=None, only_name=True)


def _of_source(source: Any, sidecar: Any, name: str | None = None) -> Checkpoint:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MfuroofWarning)
        model = ModelConfig.from_hf(source, name=name, sidecar=sidecar)
    return _of_model(model, model.name, tuple(str(w.message) for w in caught))


def _of_path(path: Path, sidecar: Any) -> Checkpoint:
    try:
        return _of_source(path, sidecar)
    except ConfigError:
        file = path / "config.json" if path.is_dir() else path
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            config = None
        if not isinstance(config, Mapping):
            raise
    folder = file.resolve().parent
    beside = next((p for name in SIDECAR_FILES if (p := folder / name).is_file() and p != file), None)
    found = _of_config(config, beside if sidecar is None else sidecar)
    return replace(found, name=found.name or folder.name)


def _of_model(model: ModelConfig, name: str, odd: tuple[str, ...]) -> Checkpoint:
    q = model.quantization
    method = "none" if q.source == "override" and q.method in UNQUANTISED else q.method
    return Checkpoint(name, method, q.compute_class, model.dtype, model.kv_dtype, q.source, model.is_moe, odd)


def _of_config(config: Mapping[str, Any], sidecar: Any) -> Checkpoint:
    """Read a config; where its shape is not given, or its method is a stranger, the block itself still counts."""
    if any(key in config for key in _BLOCK_MARKS) and not any(key in config for key in _BLOCKS):
        config = {"quantization_config": dict(config)}
    whole = any(isinstance(_nest(config, n).get("hidden_size"), int) for n in _NESTS)
    try:
        found = _of_source(config if whole else {**_ANY_SHAPE, **config}, sidecar)
    except ConfigError:  # the architecture cannot be read, which says nothing about the precision
        found = replace(_of_source({**_ANY_SHAPE, **_precision_of(config)}, sidecar), is_moe=None)
    if found.quantised:
        return found
    for nest in _NESTS:
        for key in _BLOCKS:
            block = _nest(config, nest).get(key)
            method = block.get("quant_method", block.get("quant_algo")) if isinstance(block, Mapping) else None
            if method:
                return Checkpoint(
                    found.name, str(method), "bf16", found.dtype, found.kv_dtype, "config", found.is_moe, found.warnings
                )
    return found


def _precision_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config says about precision, at its own place."""
    keys = (*_BLOCKS, "dtype", "torch_dtype", "expert_dtype")
    out = {key: config[key] for key in (*keys, "_name_or_path") if key in config}
    for nest in _NESTS[1:]:
        inner = {key: value for key, value in _nest(config, nest).items() if key in keys}
        if inner:
            out[nest] = inner
    return out


def _nest(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = config.get(key) if key else config
    return inner if isinstance(inner, Mapping) else {}
