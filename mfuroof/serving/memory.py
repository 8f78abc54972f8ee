"""Room for the KV cache of a replica."""

from __future__ import annotations

import warnings

from mfuroof.capacity import CapacityParams, kv_capacity
from mfuroof.errors import MfuroofWarning
from mfuroof.step import StepEvaluator

__all__ = ["cache_tokens"]


def cache_tokens(
    evaluator: StepEvaluator, memory_utilization: float, max_batch_tokens: int, max_num_seqs: int, stacklevel: int
) -> int:
    """Return the tokens that fit beside the weights and the activations of the largest step; 0 where none do.

    Warns
    -----
    MfuroofWarning
        The weights leave no room; the text names the smallest ``tp_size`` that would.
    """
    p = evaluator.parallel
    room = kv_capacity(
        evaluator.model,
        evaluator.hardware,
        p.tp_size,
        p.pp_size,
        p.ep_size,
        p.dp_size,
        memory_utilization=memory_utilization,
        params=CapacityParams(max_batched_tokens=max_batch_tokens, max_num_seqs=max_num_seqs),
    )
    if not room.fits.all():
        need = int(room.smallest_tp_that_fits)
        hint = f"tp_size {need} would do" if need else "no tp_size would do"
        text = f"{evaluator!r} does not fit: no room for a KV cache in {memory_utilization:g} of the memory; {hint}"
        warnings.warn(text, MfuroofWarning, stacklevel=stacklevel + 1)
    return int(room.kv_capacity_tokens)
