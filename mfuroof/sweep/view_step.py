"""Sweeps of engine steps: columns and their meanings, and how a chunk of shapes is priced."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._types import F64, U8
from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES
from mfuroof.step import StepEvaluator
from mfuroof.sweep.block import Column
from mfuroof.sweep.grid import SHAPE_AXES, Chunk
from mfuroof.sweep.memory import Memory

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AXES", "MEANINGS", "RATE", "TIME", "price", "types"]

AXES = SHAPE_AXES
RATE, TIME = "tokens_per_s_per_gpu", "step_time_s"
"""Columns that a summary maximises and minimises."""

MEANINGS: dict[str, tuple[str, str]] = {
    "decode_batch": ("requests", "decode requests of the step, one new token each"),
    "decode_context": ("tokens", "tokens each decode request has in the KV cache before the step"),
    "prefill_batch": ("requests", "prefill requests of the step; they count only where they have new tokens"),
    "prefill_new_tokens": ("tokens", "tokens each prefill request computes in the step"),
    "prefill_context": ("tokens", "tokens each prefill request has in the KV cache before the step"),
    "step_time_s": ("s", "time of one engine step"),
    "tokens_per_s_per_gpu": ("tokens/s", "tokens the step emits, per second and GPU"),
    "fits": ("-", "whether the requests' KV caches fit beside the weights; null where memory is not known"),
    "reason": ("-", "what stands against the row; null where nothing does"),
    "bound": ("-", "resource with the largest share of the step time"),
    "source": ("-", "worst origin among the step's table lookups"),
    "distance_octaves": ("octaves", "largest distance to data among the step's table lookups"),
}
"""Unit and meaning of each column that every cost has."""

NO_ROOM = "the KV caches of the requests do not fit beside the weights"

_SOURCES = tuple(s.name.lower() for s in Source)
_SOURCE_CODES = np.zeros(256, np.int8)
_SOURCE_CODES[[int(s) for s in Source]] = np.arange(len(_SOURCES))


def types(detail: str, components: tuple[str, ...]) -> dict[str, pa.DataType]:
    """Return the Arrow types of the columns behind the axes."""
    import pyarrow as pa

    small = pa.dictionary(pa.int8(), pa.string())
    out: dict[str, Any] = {"step_time_s": pa.float64(), "tokens_per_s_per_gpu": pa.float64(), "fits": pa.bool_()}
    out["reason"] = pa.dictionary(pa.int16(), pa.string())
    if detail != "times":
        out |= {"bound": small, "source": small, "distance_octaves": pa.float32()}
    return out | {f"{c}_s": pa.float64() for c in components}


def price(evaluator: StepEvaluator, memory: Memory, chunk: Chunk, detail: str) -> dict[str, Column]:
    """Return the columns of one chunk; safe to run in several threads at once.

    Tokens that a step emits are one for each decode and each prefill request; an empty step emits none.
    """
    batch, columns, cost = chunk.batch, chunk.columns, evaluator.bound
    rows = np.empty((1 + len(cost.components) if detail == "components" else 1, chunk.rows))
    time = rows[0]
    if detail == "components":
        cost.breakdown(batch, rows)
    else:
        cost.step_times(batch, time)
    emitted = columns["decode_batch"] + np.where(columns["prefill_new_tokens"] > 0, columns["prefill_batch"], 0)
    rate = np.zeros(chunk.rows)
    np.divide(emitted, time * evaluator.parallel.num_gpus, out=rate, where=time != 0)  # NaN stays NaN
    fits = memory.fits(columns)
    out = {"step_time_s": Column(time), "tokens_per_s_per_gpu": Column(rate)}
    out["fits"] = Column(np.ones(1, np.bool_), known=False) if fits is None else Column(fits)
    if memory.shortfall:
        out["reason"] = Column(np.zeros(1, np.int16), (memory.shortfall,))
    elif fits is None or fits.all():
        out["reason"] = Column(np.full(1, -1, np.int16), (NO_ROOM,))
    else:
        out["reason"] = Column(-fits.astype(np.int16), (NO_ROOM,))
    if detail != "times":
        resources, source, distance = _scratch(chunk.rows)
        cost.resource_times(batch, resources)
        cost.sources(batch, source, distance)
        out["bound"] = Column(_largest(resources), RESOURCES)
        out["source"] = Column(_SOURCE_CODES[source], _SOURCES)
        out["distance_octaves"] = Column(distance.astype(np.float32))
    if detail == "components":
        out |= {f"{name}_s": Column(part) for name, part in zip(cost.components, rows[1:], strict=True)}
    return out


def _largest(values: F64) -> Any:
    """Return ``argmax(values, axis=0)`` as int8, row by row: numpy's own goes from row to row for each column."""
    best, at = values[0], np.zeros(values.shape[1], np.int8)
    for row in range(1, len(values)):
        np.putmask(at, values[row] > best, row)
        best = np.maximum(best, values[row])
    if np.isnan(best).any():
        return np.argmax(values, axis=0).astype(np.int8)
    return at


_THREAD = threading.local()


def _scratch(n: int) -> tuple[F64, U8, F64]:
    """Return arrays of this thread for what is read at once and not kept: new memory costs more than filling it."""
    if getattr(_THREAD, "rows", 0) < n:
        _THREAD.rows = n
        _THREAD.arrays = np.empty(len(RESOURCES) * n), np.empty(n, np.uint8), np.empty(n)
    resources, source, distance = _THREAD.arrays
    return resources[: len(RESOURCES) * n].reshape(len(RESOURCES), n), source[:n], distance[:n]
