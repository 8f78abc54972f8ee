"""Models as plain JSON types and back, driven by the annotations of the records."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from mfuroof.errors import ConfigError, Problem
from mfuroof.models.config import ModelConfig
from mfuroof.models.text import short

__all__ = ["from_dict", "to_dict"]


def to_dict(model: ModelConfig) -> dict[str, Any]:
    """Return every field of a model as dicts, lists, strings and numbers; defaults of nested records are left out."""
    return {f.name: _encode(getattr(model, f.name)) for f in dataclasses.fields(model)}


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: _encode(v) for f, v in pairs if f.default is dataclasses.MISSING or v != f.default}
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    return value


def from_dict(data: Mapping[str, Any]) -> ModelConfig:
    """Return the model that `to_dict` wrote.

    Raises
    ------
    ConfigError
        A field is missing, unknown or of another type; the text says which.
    """
    return ModelConfig(**_fields(ModelConfig, data, "model"))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _fields(cls: type, data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(Problem(where, short(data), "an object"))
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = [k for k in data if k not in fields]
    if unknown:
        raise ConfigError(Problem(f"{where}.{unknown[0]}", "an unknown field", f"one of {', '.join(fields)}"))
    required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
    missing = [n for n in required if n not in data]
    if missing:
        raise ConfigError(Problem(f"{where}.{missing[0]}", "nothing", "a value"))
    return {k: _decode(_hints(cls)[k], v, f"{where}.{k}") for k, v in data.items()}


def _decode(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if value is None:
            return None
        return _decode(next(a for a in typing.get_args(hint) if a is not type(None)), value, where)
    if typing.get_origin(hint) is tuple:
        return _decode_tuple(typing.get_args(hint), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return hint(**_fields(hint, value, where))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    if hint is not float and type(value) is hint:
        return value
    raise ConfigError(Problem(where, short(value), getattr(hint, "__name__", str(hint))))


def _decode_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(Problem(where, short(value), "a list"))
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(Problem(where, f"a list of {len(value)}", f"a list of {len(args)}"))
    return tuple(_decode(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
