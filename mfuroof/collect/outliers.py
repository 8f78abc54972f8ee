"""Results that stand out: slower than a larger shape of their curve, which noise does and physics hardly ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

__all__ = ["best_results", "suspects"]

SUSPICIOUS = 1.1
"""A time this far above that of a larger shape is measured again: what tile effects reach stays below."""
MOST_REPEATS = 2
"""Times a point is measured in all."""


def best_results(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the result of each point that counts: the fastest right one, because disturbances only add time.

    A point that was never right keeps its last result.
    """
    best: dict[str, dict[str, Any]] = {}
    for result in results:
        known = best.get(result["point"])
        right = known is not None and known["status"] == "ok"
        if known is None or not right or (result["status"] == "ok" and result["latency_s"] < known["latency_s"]):
            best[result["point"]] = result
    return best


def suspects(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of points worth measuring again, the most suspicious first.

    A curve is the points that differ in the last number of their shape alone.
    """
    times: dict[str, int] = defaultdict(int)
    for result in results:
        times[result["point"]] += 1
    curves: dict[tuple[Any, ...], list[tuple[int, float, str]]] = defaultdict(list)
    for name, result in best_results(results).items():
        if result["status"] == "ok":
            *rest, last = result["shape"].values()
            if isinstance(last, int):
                curves[result["family"], result["variant"], *rest].append((last, result["latency_s"], name))
    found = []
    for curve in curves.values():
        lowest = float("inf")
        for _, latency_s, name in sorted(curve, reverse=True):
            if latency_s > SUSPICIOUS * lowest and times[name] < MOST_REPEATS:
                found.append((latency_s / lowest, name))
            lowest = min(lowest, latency_s)
    return [name for _, name in sorted(found, reverse=True)]
