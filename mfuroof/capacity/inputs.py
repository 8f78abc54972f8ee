"""The arguments of `kv_capacity`, checked and spread over one shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfuroof._boundary import Problems, count_array, spread
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
            counts = count_array(name, value, problems, minimum=1)
            arrays[name] = counts.reshape(np.shape(value)) if counts.size == np.size(value) else counts
    for name, value, high in (
        ("memory_utilization", memory_utilization, 1.0),
        ("activation_bytes", activation_bytes, _MAX_BYTES),
        ("reserved_bytes", reserved_bytes, _MAX_BYTES),
    ):
        if value is not None or name == "memory_utilization":
            arrays[name] = problems.numbers(name, value, 0.0, high, open_low=name == "memory_utilization")
    for name, value in (("kv_dtype", kv_dtype), ("weight_dtype", weight_dtype)):
        arrays[name] = np.asarray(value, dtype=object)
    problems.raise_if_any()
    flat, shape = spread(arrays)
    return Inputs(
        shape,
        np.stack([flat[name] for name in degrees]),
        flat["memory_utilization"],
        flat["kv_dtype"].tolist(),
        flat["weight_dtype"].tolist(),
        flat.get("seq_len"),
        flat.get("activation_bytes"),
        flat.get("reserved_bytes"),
    )
