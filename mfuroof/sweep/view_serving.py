"""Sweeps of loads: columns of the serving view and their meanings, and how a chunk of loads is estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES
from mfuroof.serving import estimate
from mfuroof.serving.memory import cache_tokens
from mfuroof.serving.result import Limit
from mfuroof.serving.scheduler import scheduler_of
from mfuroof.step import StepEvaluator
from mfuroof.sweep.block import Column
from mfuroof.sweep.definition import SERVING_AXES
from mfuroof.sweep.grid import Chunk

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AXES", "MEANINGS", "RATE", "TIME", "price", "room", "types"]

AXES = SERVING_AXES
RATE, TIME = "output_tokens_per_s_per_gpu", "tpot_s"
"""Columns that a summary maximises and minimises."""

MEANINGS: dict[str, tuple[str, str]] = {
    "input_len": ("tokens", "prompt of a request"),
    "output_len": ("tokens", "generated tokens of a request"),
    "concurrency": ("requests", "clients that each keep one request in flight"),
    "cached_prefix_len": ("tokens", "tokens of each prompt that a prefix cache holds"),
    "ttft_s": ("s", "submission to first token, mean"),
    "tpot_s": ("s", "(end - first token) / (output_len - 1), mean"),
    "itl_s": ("s", "time between two outputs of a stream, mean"),
    "e2e_latency_s": ("s", "submission to last token, mean"),
    "queue_s": ("s", "part of the TTFT that is spent waiting for a place in the running batch"),
    "requests_per_s": ("requests/s", "requests of the whole replica"),
    "output_tokens_per_s_per_gpu": ("tokens/s", "generated tokens, per second and GPU"),
    "tokens_per_s_per_gpu": ("tokens/s", "prompt and generated tokens, per second and GPU"),
    "running_batch": ("requests", "requests admitted at a time, over all engines of the replica"),
    "kv_utilization": ("fraction", "mean share of the KV cache in use"),
    "limit": ("-", "what keeps throughput from being higher"),
    "fits": ("-", "whether weights and one request fit the memory"),
    "reason": ("-", "what stands against the row; null where nothing does"),
    "bound": ("-", "resource with the largest share of the decode step's time"),
    "source": ("-", "worst origin among the decode step's table lookups"),
}
"""Unit and meaning of each column."""

NO_ROOM = "the cache has no room for one request"

_NUMBERS = tuple(list(MEANINGS)[len(AXES) : list(MEANINGS).index("limit")])
_LIMITS = tuple(m.name.lower() for m in Limit)
_SOURCES = tuple(s.name.lower() for s in Source)
_SOURCE_CODES = np.zeros(256, np.int8)
_SOURCE_CODES[[int(s) for s in Source]] = np.arange(len(_SOURCES))


def types(detail: str, components: tuple[str, ...]) -> dict[str, pa.DataType]:
    """Return the Arrow types of the columns behind the axes; a load has no components."""
    import pyarrow as pa

    small = pa.dictionary(pa.int8(), pa.string())
    out: dict[str, Any] = dict.fromkeys(_NUMBERS, pa.float64())
    out |= {"limit": small, "fits": pa.bool_(), "reason": pa.dictionary(pa.int16(), pa.string())}
    return out | ({} if detail == "times" else {"bound": small, "source": small})


def room(evaluator: StepEvaluator, memory_utilization: float) -> int:
    """Return the tokens the KV cache of a replica holds, 0 where the model leaves none. [tokens]"""
    policy = scheduler_of(evaluator.engine)
    return cache_tokens(
        evaluator, memory_utilization, int(policy.max_batch_tokens), int(policy.max_num_seqs), stacklevel=2
    )


def price(evaluator: StepEvaluator, cache: int, chunk: Chunk, detail: str) -> dict[str, Column]:
    """Return the columns of one chunk; safe to run in several threads at once."""
    found = estimate(evaluator, **chunk.columns_of(AXES), kv_capacity_tokens=cache)
    n = chunk.rows
    out = {name: Column(np.broadcast_to(getattr(found, name), n)) for name in _NUMBERS}
    limit = np.broadcast_to(found.limit, n)
    fits = limit != Limit.DOES_NOT_FIT
    out["limit"] = Column(limit.astype(np.int8), _LIMITS)
    out["fits"] = Column(fits)
    out["reason"] = Column(-fits.astype(np.int16), (NO_ROOM,))
    if detail != "times":
        out["bound"] = Column(np.broadcast_to(found.bound, n).astype(np.int8), RESOURCES)
        out["source"] = Column(_SOURCE_CODES[np.broadcast_to(found.source, n)], _SOURCES)
    return out
