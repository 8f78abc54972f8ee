"""The arguments of `kv_capacity`, checked and spread over one shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfuroof._boundary import Problems, count_array
from mfuroof._types import F64, I64

__all__ = ["Inputs", "flat_inputs"]

_MAX_BYTES = 2.0**60


class Inputs(NamedTuple):
    """Flat arrays of one length, and the shape they had."""

    shape: tuple[int, ...]
    degrees: I64
    """Rows: tp, pp, ep, dp."""
    memory_utilization: F64
    kv_dtype: list[str | None]
    weight_dtype: list[str | None]
    seq_len: I64 | None
    activation_bytes: F64 | None
    reserved_bytes: F64 | None


def flat_inputs(
    degrees: dict[str, Any],
    memory_utilization: Any,
    kv_dtype: Any,
    weight_dtype: Any,
    seq_len: Any,
    activation_bytes: Any,
    reserved_bytes: Any,
) -> Inputs:
    """Return the arguments as flat arrays; raise `InputError` with everything that is wrong."""
    problems = Problems()
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in (*degrees.items(), ("seq_len", seq_len)):
        if value is not None or name in degrees:
            flat = count_array(name, value, problems, minimum=1)
            arrays[name] = flat.reshape(np.shape(value)) if flat.size == np.size(value) else flat
    for name, value, high in (
        ("memory_utilization", memory_utilization, 1.0),
        ("activation_bytes", activation_bytes, _MAX_BYTES),
        ("reserved_bytes", reserved_bytes, _MAX_BYTES),
    ):
        if value is not None or name == "memory_utilization":
            arrays[name] = _numbers(name, value, high, problems)
    for name, value in (("kv_dtype", kv_dtype), ("weight_dtype", weight_dtype)):
        arrays[name] = np.asarray(value, dtype=object)
    problems.raise_if_any()
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items() if a.ndim)
        problems.add("arguments", f"shapes {shapes}", "shapes that broadcast against one another")
        problems.raise_if_any()
    spread = {name: np.broadcast_to(a, shape).ravel() for name, a in arrays.items()}
    return Inputs(
        shape,
        np.stack([spread[name] for name in degrees]),
        spread["memory_utilization"],
        spread["kv_dtype"].tolist(),
        spread["weight_dtype"].tolist(),
        spread.get("seq_len"),
        spread.get("activation_bytes"),
        spread.get("reserved_bytes"),
    )


def _numbers(name: str, value: Any, high: float, problems: Problems) -> F64:
    """Return finite numbers in [0, high], or (0, 1] where they are fractions."""
    expected = "fractions in (0, 1]" if high == 1.0 else "finite numbers of at least 0"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        problems.add(name, f"{type(value).__name__} that is no numeric array", expected)
        return np.ones(())
    bad = ~(np.isfinite(array) & (array >= 0) & (array <= high))
    if high == 1.0:
        bad |= array == 0
    if bad.any():
        problems.add(name, float(array[bad].ravel()[0]), expected)
    return array
