"""Price one chunk of a sweep: the arrays of its columns, computed by a worker thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof._types import F64, U8
from mfuroof.costs.base import RESOURCES
from mfuroof.sweep.cases import BoundCase
from mfuroof.sweep.grid import Chunk

__all__ = ["DETAILS", "PricedChunk", "price"]

DETAILS = ("times", "bound", "components")
"""What a sweep computes: times and throughput; also what binds and where it comes from; also every component."""


@dataclass(frozen=True, eq=False)
class PricedChunk:
    """Results of the rows of one chunk; None where the detail leaves them out.

    Attributes
    ----------
    number
        Position of the case in the sweep.
    case, chunk
        What was priced.
    step_time_s
        Time of each step (n,). [s]
    tokens_per_s_per_gpu
        Tokens the step emits (one for each decode and each prefill request) per second and GPU (n,); 0 for an empty
        step. [tokens/s]
    fits
        Whether the requests fit into the KV cache, bool (n,) or (1,); None also where the memory is not known.
    bound, source
        Codes of the binding resource and of the worst lookup (n,).
    distance_octaves
        Largest distance to data among the lookups (n,). [octaves]
    components
        Time of each component (len(names), n). [s]
    """

    number: int
    case: BoundCase
    chunk: Chunk
    step_time_s: F64
    tokens_per_s_per_gpu: F64
    fits: Any = None
    bound: U8 | None = None
    source: U8 | None = None
    distance_octaves: F64 | None = None
    components: F64 | None = None


def price(number: int, case: BoundCase, chunk: Chunk, detail: str) -> PricedChunk:
    """Return what is asked of one chunk; safe to run in several threads at once."""
    batch, columns, cost = chunk.batch, chunk.columns, case.evaluator.bound
    parts = cost.components if detail == "components" else ()
    rows = np.empty((1 + len(parts), chunk.rows))
    time = rows[0]
    if parts:
        cost.breakdown(batch, rows)
    else:
        cost.step_times(batch, time)
    emitted = columns["decode_batch"] + np.where(columns["prefill_new_tokens"] > 0, columns["prefill_batch"], 0)
    rate = np.zeros(chunk.rows)
    np.divide(emitted, time * case.evaluator.parallel.num_gpus, out=rate, where=time != 0)  # NaN stays NaN
    more: dict[str, Any] = {}
    if detail != "times":
        resources = np.empty((len(RESOURCES), chunk.rows))
        cost.resource_times(batch, resources)
        source, distance = np.empty(chunk.rows, np.uint8), np.empty(chunk.rows)
        cost.sources(batch, source, distance)
        more = {"bound": np.argmax(resources, axis=0).astype(np.uint8), "source": source, "distance_octaves": distance}
    if parts:
        more["components"] = rows[1:]
    return PricedChunk(number, case, chunk, time, rate, case.memory.fits(columns), **more)
