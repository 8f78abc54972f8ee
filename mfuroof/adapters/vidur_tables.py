"""Vidur's own tables of predictions: exact integer keys to milliseconds of one layer."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._files import write_atomically
from mfuroof._types import F64, I64
from mfuroof.adapters.csv_text import csv_bytes
from mfuroof.adapters.grids import component_table, positive_ints
from mfuroof.adapters.vidur_parts import VidurParts
from mfuroof.batch import StepBatch
from mfuroof.errors import OutputError
from mfuroof.step import StepEvaluator
from mfuroof.units import MS

__all__ = ["OPS", "export_vidur", "vidur_tables"]

OPS = {
    "attention_rope": "attn_rope",
    "attention_pre_proj": "attn_pre_proj",
    "attention_post_proj": "attn_post_proj",
    "mlp_up_proj": "mlp_up_proj",
    "mlp_down_proj": "mlp_down_proj",
    "mlp_act": "mlp_act",
    "attn_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "add": "add",
}
"""Slot of an execution time to the name of its table; attention and links have keys of their own."""


def vidur_tables(
    evaluator: StepEvaluator,
    max_tokens: int = 4096,
    max_batch: int = 128,
    max_context: int = 16_384,
    granularity: int = 256,
    max_chunk: int = 4096,
) -> dict[str, tuple[I64, F64]]:
    """Return Vidur's tables by name: keys (n, 1 or 2) and times (n,). [ms per layer]

    Parameters
    ----------
    max_tokens
        Most tokens of a step; its keys are all whole numbers up to it. [tokens]
    max_batch
        ``prediction_max_batch_size``. [requests]
    max_context
        ``prediction_max_tokens_per_request``. [tokens]
    granularity
        ``kv_cache_prediction_granularity``. [tokens]
    max_chunk
        ``prediction_max_prefill_chunk_size``; its keys are multiples of 32. [tokens]

    Raises
    ------
    InputError
        A limit is out of range, or the cost has no parts by layer.
    MissingTableError
        A shape has no time.

    Notes
    -----
    Vidur looks keys up exactly and fails on others: token counts rounded up to 8, KV lengths up to ``granularity``.
    Its decode table is of the mean KV length and its prefill times of several prompts add up, so a step through the
    tables differs from one through `mfuroof.adapters.vidur`, which prices the requests themselves. Set its
    ``attention_decode_batching_overhead_fraction`` and ``nccl_cpu_*`` to 0: they are in these numbers.
    Its keys do not tell a token that decodes from one of a prompt: up to ``max_batch`` tokens the LM head is that of
    so many decoding requests, beyond it that of one prompt.
    """
    positive_ints(max_tokens=max_tokens, max_batch=max_batch, max_context=max_context, granularity=granularity)
    positive_ints(max_chunk=max_chunk)
    parts = VidurParts.of(evaluator, by_layer=True)
    tokens = np.arange(1, max_tokens + 1)
    decode = component_table(evaluator, StepBatch.uniform(decode_batch=np.minimum(tokens, max_batch), decode_context=1))
    prefill = component_table(evaluator, StepBatch.uniform(prefill_batch=1, prefill_new_tokens=tokens))
    slots = parts.slots(np.stack(list(prefill.values())))
    as_decode = parts.slots(np.stack(list(decode.values())))
    out: dict[str, tuple[I64, F64]] = {}
    for slot, op in OPS.items():
        row = slots[slot]
        if slot == "add":
            row = np.where(tokens <= max_batch, as_decode[slot], row)
        out[op] = tokens[:, None], row
    out["attn_kv_cache_save"] = tokens[:, None], np.zeros(tokens.size)
    if evaluator.parallel.tp_size > 1:
        out["all_reduce"] = tokens[:, None], slots["tensor_parallel"]
    if evaluator.parallel.pp_size > 1:
        out["send_recv"] = tokens[:, None], np.zeros(tokens.size)
    layers = evaluator.model.num_hidden_layers
    kv = np.arange(0, max_context + 1, granularity)
    requests, length = (x.ravel() for x in np.meshgrid(np.arange(1, max_batch + 1), kv, indexing="ij"))
    one = StepBatch.uniform(decode_batch=requests, decode_context=np.maximum(length - 1, 0))
    out["attn_decode"] = np.stack([requests, length], axis=1), _ms(evaluator, one, "attention_decode", layers)
    chunks = np.arange(32, max_chunk + 1, 32)
    length, chunk = (x.ravel() for x in np.meshgrid(kv, chunks, indexing="ij"))
    context = np.maximum(length - chunk, 0)
    one = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=chunk, prefill_context=context)
    out["attn_prefill"] = np.stack([length, chunk], axis=1), _ms(evaluator, one, "attention_prefill", layers)
    return out


def export_vidur(evaluator: StepEvaluator, folder: str | Path, **limits: int) -> Path:
    """Write `vidur_tables` as the ``<name>.csv.xz`` files of Vidur's prediction cache; limits and errors as there.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    tables = vidur_tables(evaluator, **limits)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}. Choose another place.") from error
    for name, (keys, values) in tables.items():
        columns: dict[str, Any] = {f"X_{i}": keys[:, i] for i in range(keys.shape[1])} | {"prediction": values}
        write_atomically(folder / f"{name}.csv.xz", lzma.compress(csv_bytes(columns), preset=1))
    return folder


def _ms(evaluator: StepEvaluator, batch: StepBatch, part: str, layers: int) -> F64:
    seconds: F64 = component_table(evaluator, batch)[part]
    return seconds / layers / MS
