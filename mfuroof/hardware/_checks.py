"""Checks of the fields of `Hardware`: each returns a clean value and records what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from mfuroof._boundary import Problems
from mfuroof.hardware._frozen import FrozenMap
from mfuroof.hardware.rates import COMPUTE_DTYPES

__all__ = ["MAX_RATE", "check_text", "clean_capability", "clean_peaks", "clean_sources", "scaled_number"]

MAX_RATE = 1e21
"""Above any device by four orders of magnitude: catches a rate whose unit was applied twice."""


def clean_peaks(peaks: Any, problems: Problems) -> FrozenMap[float]:
    """Return the rates in one order, without those that are wrong."""
    if not isinstance(peaks, Mapping):
        problems.add("peak_flops_per_s", type(peaks).__name__, "a mapping of dtype to rate")
        return FrozenMap({})
    clean = {}
    for dtype, rate in peaks.items():
        where = f"peak_flops_per_s.{dtype}"
        if dtype not in COMPUTE_DTYPES:
            problems.add(where, repr(dtype), f"one of {', '.join(COMPUTE_DTYPES)}")
        else:
            clean[str(dtype)] = problems.number(where, rate, 0, MAX_RATE, open_low=True)
    if "bf16" not in clean and "fp16" not in clean:
        problems.add("peak_flops_per_s", sorted(clean), "a rate for bf16 or fp16")
    return FrozenMap({d: clean[d] for d in COMPUTE_DTYPES if d in clean})


def check_text(where: str, value: Any, problems: Problems, *, empty_ok: bool) -> None:
    """Record a value that is no text."""
    if not isinstance(value, str) or not (value.strip() or empty_ok):
        problems.add(where, value, "text" if empty_ok else "text that is not empty")


def clean_capability(value: Any, problems: Problems) -> tuple[int, int] | None:
    """Return a pair of whole numbers or None."""
    if value is None:
        return None
    try:
        major, minor = value
    except (TypeError, ValueError):
        problems.add("compute_capability", value, "two whole numbers such as (9, 0), or None")
        return None
    return (
        problems.positive_int("compute_capability[0]", major),
        problems.positive_int("compute_capability[1]", minor, minimum=0),
    )


def clean_sources(sources: Any, problems: Problems) -> FrozenMap[tuple[str, ...]]:
    """Return the sources with tuples for lists."""
    if not isinstance(sources, Mapping):
        problems.add("sources", type(sources).__name__, "a mapping of field to list of texts")
        return FrozenMap({})
    clean = {}
    for key, texts in sources.items():
        if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
            problems.add(f"sources.{key}", texts, "a list of texts")
        else:
            clean[str(key)] = tuple(texts)
    return FrozenMap(clean)


def scaled_number(problems: Problems, where: str, value: Any, unit: float, *, open_low: bool = False) -> float:
    """Return a figure in base units, rounded once: 362.05 in units of 1e12 is 362.05e12, to the last bit."""
    number = problems.number(where, value, 0, MAX_RATE / unit, open_low=open_low)
    return float(Decimal(repr(number)) * Decimal(unit))
