"""The arguments of `estimate`, checked and spread over one shape."""

from __future__ import annotations

from typing import Any, NamedTuple

from mfuroof._boundary import MAX_COUNT, Problems, spread
from mfuroof._types import F64

__all__ = ["Inputs", "check_kind", "serving_inputs"]

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


def check_kind(problems: Problems, where: str, value: Any, kind: type, example: str) -> None:
    """Record a problem where ``value`` is neither None nor of ``kind``, and how such a one is made."""
    if value is not None and not isinstance(value, kind):
        found = repr(value) if isinstance(value, str | int | float) else type(value).__name__
        problems.add(where, found, f"None or a {kind.__name__}", f"For instance {example}.")


def serving_inputs(lengths: dict[str, Any], limits: dict[str, Any], concurrency: Any, arrival_rate: Any) -> Inputs:
    """Return the arguments as flat float64 arrays; raise `InputError` with everything that is wrong."""
    problems = Problems()
    arrays: dict[str, F64] = {}
    for name, value in lengths.items():
        arrays[name] = problems.numbers(name, value, 0.0 if name == "cached_prefix_len" else 1.0, MAX_COUNT)
    for name, value in limits.items():
        arrays[name] = problems.numbers(name, value, 1.0, MAX_COUNT)
    if (concurrency is None) == (arrival_rate is None):
        both = "both concurrency and arrival_rate" if concurrency is not None else "neither of them"
        problems.add("concurrency, arrival_rate", both, "one of them")
    elif concurrency is not None:
        arrays["offered"] = problems.numbers("concurrency", concurrency, 1.0, MAX_COUNT)
    else:
        arrays["offered"] = problems.numbers("arrival_rate", arrival_rate, 0.0, _MAX_RATE, open_low=True)
    problems.raise_if_any()
    flat, shape = spread(arrays)
    return Inputs(shape, **flat)
