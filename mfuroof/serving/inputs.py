"""The arguments of `estimate`, checked and spread over one shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mfuroof._boundary import Problems, count_array
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


def serving_inputs(
    lengths: dict[str, Any], limits: dict[str, Any], concurrency: Any, arrival_rate: Any
) -> Inputs:
    """Return the arguments as flat float64 arrays; raise `InputError` with everything that is wrong."""
    problems = Problems()
    arrays: dict[str, np.ndarray] = {}
    for name, value in {**lengths, **limits}.items():
        flat = count_array(name, value, problems, minimum=0 if name == "cached_prefix_len" else 1)
        arrays[name] = flat.reshape(np.shape(value)) if flat.size == np.size(value) else flat
    if (concurrency is None) == (arrival_rate is None):
        both = "both concurrency and arrival_rate" if concurrency is not None else "neither of them"
        problems.add("concurrency, arrival_rate", both, "one of them")
    elif concurrency is not None:
        flat = count_array("concurrency", concurrency, problems, minimum=1)
        arrays["offered"] = flat.reshape(np.shape(concurrency)) if flat.size == np.size(concurrency) else flat
    else:
        arrays["offered"] = _rates(arrival_rate, problems)
    problems.raise_if_any()
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items() if a.ndim)
        problems.add("arguments", f"shapes {shapes}", "shapes that broadcast against one another")
        problems.raise_if_any()
    spread = {name: np.broadcast_to(a, shape).ravel().astype(np.float64) for name, a in arrays.items()}
    return Inputs(shape, **spread)


def _rates(value: Any, problems: Problems) -> np.ndarray:
    try:
        rates = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        rates = np.full(1, np.nan)
    bad = ~(np.isfinite(rates) & (rates > 0) & (rates <= _MAX_RATE))
    if bad.any():
        problems.add("arrival_rate", str(rates[bad].ravel()[0]), f"rates in (0, {_MAX_RATE:g}] requests/s")
    return rates
