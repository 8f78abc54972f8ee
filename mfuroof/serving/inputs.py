"""The arguments of `estimate`, checked and spread over one shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mfuroof._boundary import MAX_COUNT, Problems
from mfuroof._types import F64

__all__ = ["Inputs", "serving_inputs"]

_MAX_RATE = 1e9


class Inputs(NamedTuple):
    """Flat arrays of one length, and the shape they had."""

    shape: tuple[int, ...]
    input_len: F64
    output_len: F64
    cached_prefix_len: F64
    max_batch_tokens: F64
    max_num_seqs: F64
    offered: F64
    """Concurrency [requests] or arrival rate [requests/s] of the replica."""


def serving_inputs(lengths: dict[str, Any], limits: dict[str, Any], concurrency: Any, arrival_rate: Any) -> Inputs:
    """Return the arguments as flat float64 arrays; raise `InputError` with everything that is wrong."""
    problems = Problems()
    arrays: dict[str, F64] = {}
    for name, value in lengths.items():
        arrays[name] = _numbers(name, value, 0.0 if name == "cached_prefix_len" else 1.0, MAX_COUNT, problems)
    for name, value in limits.items():
        arrays[name] = _numbers(name, value, 1.0, MAX_COUNT, problems)
    if (concurrency is None) == (arrival_rate is None):
        both = "both concurrency and arrival_rate" if concurrency is not None else "neither of them"
        problems.add("concurrency, arrival_rate", both, "one of them")
    elif concurrency is not None:
        arrays["offered"] = _numbers("concurrency", concurrency, 1.0, MAX_COUNT, problems)
    else:
        arrays["offered"] = _numbers("arrival_rate", arrival_rate, 0.0, _MAX_RATE, problems, open_low=True)
    problems.raise_if_any()
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items() if a.ndim)
        problems.add("arguments", f"shapes {shapes}", "shapes that broadcast against one another")
        problems.raise_if_any()
    spread = {name: np.ascontiguousarray(np.broadcast_to(a, shape)).ravel() for name, a in arrays.items()}
    return Inputs(shape, **spread)


def _numbers(name: str, value: Any, low: float, high: float, problems: Problems, *, open_low: bool = False) -> F64:
    """Return finite numbers in [low, high], or (low, high]; record a problem otherwise."""
    expected = f"finite numbers in {'(' if open_low else '['}{low:g}, {high:g}]"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        problems.add(name, f"{type(value).__name__} that is no numeric array", expected)
        return np.full((), np.nan)
    bad = ~(np.isfinite(array) & (array >= low) & (array <= high))
    if open_low:
        bad |= array == low
    if bad.any():
        problems.add(f"{name}[{int(np.flatnonzero(bad.ravel())[0])}]", float(array[bad].ravel()[0]), expected)
    return array
