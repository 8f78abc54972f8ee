"""What may stand on each axis of a sweep that is constant over a case, read from one value or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any

from mfuroof._boundary import Problems, choice
from mfuroof.engines import ENGINES
from mfuroof.errors import InputError, Problem
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig
from mfuroof.precision import QuantConfig, RuntimePrecision, canonical_dtype, canonical_kv_dtype, expand
from mfuroof.sweep.axes import axis_values

__all__ = ["CASE_AXES", "DEGREES", "OWN", "case_values", "check_names", "label", "several"]

OWN = "own"
"""Spelling of what is left to the checkpoint."""

DEGREES = ("tp_size", "pp_size", "ep_size", "dp_size")
MOST_DEGREES = 256
"""Most values of one parallel degree: more is a slip of the pen, and each would be bound on its own."""


def _dtype(value: Any) -> str | None:
    return None if value in (None, OWN) else canonical_dtype(value)


def _kv_dtype(value: Any) -> str | None:
    return None if value in (None, OWN) else canonical_kv_dtype(value)


def _model(value: Any) -> ModelConfig:
    return value if isinstance(value, ModelConfig) else ModelConfig.from_hf(value)


def _gpu(value: Any) -> Hardware:
    return value if isinstance(value, Hardware) else get_hardware(value)


def _runtime(value: Any) -> QuantConfig | None:
    if value in (None, OWN):
        return None
    found = expand([value])
    if len(found) != 1:
        raise InputError(Problem("runtime", repr(value), "one precision in each value"))
    return found[0]


_READ: dict[str, Callable[[Any], Any]] = {
    "model": _model,
    "gpu": _gpu,
    "engine": lambda value: choice("engine", value, ENGINES),
    **dict.fromkeys(DEGREES, int),
    "weight_dtype": _dtype,
    "kv_dtype": _kv_dtype,
    "attention_dtype": _dtype,
    "moe_dtype": _dtype,
    "runtime": _runtime,
}

CASE_AXES = tuple(_READ)
"""Axes that are constant over a case, in the order of a result's columns."""


def case_values(name: str, given: Any) -> tuple[Any, ...]:
    """Return the values of one case axis, in the order given; the same value may stand there twice.

    Raises
    ------
    InputError
        Nothing, too many parallel degrees, or one below 1.
    UnknownNameError
        A name that is not known; the nearest are named.
    """
    if name in DEGREES:
        values: tuple[Any, ...] = tuple(axis_values(name, given, distinct=False, most=MOST_DEGREES).tolist())
        if min(values) < 1:
            raise InputError(Problem(name, str(min(values)), "at least 1"))
        return values
    found = tuple(_READ[name](value) for value in several(given))
    if not found:
        raise InputError(Problem(name, "nothing", "at least one"))
    return found


def label(name: str, value: Any) -> Any:
    """Return what a value is called in a result: a name, or a number of ranks."""
    if name in ("model", "gpu", "runtime"):
        return OWN if value is None else value.name or "unnamed"
    return OWN if value is None else value


def check_names(name: str, values: Iterable[Any]) -> None:
    """Raise `InputError` where two different models, GPUs or precisions have one name: their rows would be one."""
    problems = Problems()
    seen: dict[str, Any] = {}
    for value in values:
        called = label(name, value)
        if called in seen and seen[called] != value:
            problems.add(name, f"two of the name {called!r}", "distinct names, to tell their rows apart")
        seen[called] = value
    problems.raise_if_any()


_SINGLE = (ModelConfig, Hardware, RuntimePrecision, QuantConfig, PathLike, Mapping)


def several(value: Any) -> tuple[Any, ...]:
    """Return one value or several as a tuple; a text is a comma-separated list, unless it is a path."""
    if isinstance(value, str):
        if os.path.exists(value):
            return (value,)
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if value is None or isinstance(value, _SINGLE) or not isinstance(value, Iterable):
        return (value,)
    parts: list[Any] = []
    for item in value:
        parts += [item] if not isinstance(item, str) else several(item)
    return tuple(parts)
