"""NVIDIA Dynamo's planner profile: five arrays that its mocker and replay interpolate."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mfuroof._types import F64
from mfuroof.adapters.grids import octaves, positive_ints, times
from mfuroof.adapters.npz import write_npz
from mfuroof.step import StepEvaluator
from mfuroof.units import MS

__all__ = ["dynamo_arrays", "export_dynamo"]

LARGEST_BATCH = 4096
"""Decode batches beyond this stand for cells that no scheduler reaches, and are priced at this size. [requests]"""


def dynamo_arrays(
    evaluator: StepEvaluator,
    max_prefill_tokens: int = 65_536,
    max_context: int = 131_072,
    max_kv_tokens: int = 4_194_304,
) -> dict[str, F64]:
    """Return the arrays of a planner profile.

    Parameters
    ----------
    max_prefill_tokens
        Longest prompt. [tokens]
    max_context
        Longest mean context of a decode batch. [tokens]
    max_kv_tokens
        Most KV tokens of a decode batch. [tokens]

    Returns
    -------
    dict
        ``prefill_isl`` (P,) [tokens], ``prefill_ttft_ms`` (P,) [ms], ``decode_active_kv_tokens`` (K,) [tokens],
        ``decode_context_length`` (C,) [tokens], ``decode_itl`` (K, C) [ms].

    Notes
    -----
    The format knows new tokens but no cached prefix, and a decode step by the sum and the mean of its KV lengths.
    Dynamo interpolates linearly and goes on along the last segment outside. So the axes of tokens begin at 0 with the
    value of the first shape and nothing falls along them, and the axis of contexts ends in a flat segment (longer
    contexts at one sum are fewer requests, which are faster): nothing it extrapolates is negative. Cells with fewer
    KV tokens than one request has (sum < mean) hold one request of that context; its blend reads them.
    """
    positive_ints(max_prefill_tokens=max_prefill_tokens, max_context=max_context, max_kv_tokens=max_kv_tokens)
    new = octaves(1, max_prefill_tokens, 8)
    prefill = np.maximum.accumulate(times(evaluator, prefill_batch=1, prefill_new_tokens=new))
    context = octaves(1, max_context, 2)
    total = np.unique(np.concatenate([octaves(1, max_kv_tokens, 4), context[context <= max_kv_tokens]]))
    requests = np.clip(total[:, None] / context[None, :], 1.0, LARGEST_BATCH)
    low = np.floor(requests)
    share = requests - low
    decode = (1.0 - share) * times(evaluator, decode_batch=low, decode_context=context - 1)
    decode += share * times(evaluator, decode_batch=np.ceil(requests), decode_context=context - 1)
    decode = np.maximum.accumulate(decode, axis=0)
    return {
        "prefill_isl": np.append(0.0, new),
        "prefill_ttft_ms": np.append(prefill[0], prefill) / MS,
        "decode_active_kv_tokens": np.append(0.0, total),
        "decode_context_length": np.append(context, 2.0 * context[-1]),
        "decode_itl": np.pad(decode, ((1, 0), (0, 1)), mode="edge") / MS,
    }


def export_dynamo(
    evaluator: StepEvaluator,
    path: str | Path,
    max_prefill_tokens: int = 65_536,
    max_context: int = 131_072,
    max_kv_tokens: int = 4_194_304,
) -> Path:
    """Write `dynamo_arrays` as the npz that ``--planner-profile-data`` and ``dynamo_profile`` timing models take.

    Raises
    ------
    InputError
        A limit is out of range.
    MissingTableError
        A shape has no time.
    OutputError
        The file cannot be written.
    """
    return write_npz(path, dynamo_arrays(evaluator, max_prefill_tokens, max_context, max_kv_tokens))
