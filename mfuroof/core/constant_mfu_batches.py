"""The loops of the constant-MFU roofline over batches of steps, and its scalar entry."""

from __future__ import annotations

from mfuroof._types import F64, I64
from mfuroof.core._jit import jit
from mfuroof.core.constant_mfu import combine, ragged_step, uniform_step

__all__ = ["ragged_parts", "ragged_times", "step_time", "uniform_parts", "uniform_times"]


@jit
def step_time(
    constants: F64,
    reaches: F64,
    weights: F64,
    decode_batch: float,
    decode_context: float,
    prefill_batch: float,
    prefill_new_tokens: float,
    prefill_context: float,
    emits: float,
) -> float:
    """Seconds of one uniform step."""
    parts = uniform_step(
        constants,
        reaches,
        weights,
        decode_batch,
        decode_context,
        prefill_batch,
        prefill_new_tokens,
        prefill_context,
        emits,
    )
    return combine(constants, parts)  # type: ignore[no-any-return]


@jit
def uniform_times(
    constants: F64,
    reaches: F64,
    weights: F64,
    decode_batch: I64,
    decode_context: I64,
    prefill_batch: I64,
    prefill_new_tokens: I64,
    prefill_context: I64,
    emits: I64,
    out: F64,
) -> None:
    """Fill ``out`` with step times; a column of one value is constant."""
    s0, s1, s2 = int(decode_batch.size > 1), int(decode_context.size > 1), int(prefill_batch.size > 1)
    s3, s4, s5 = int(prefill_new_tokens.size > 1), int(prefill_context.size > 1), int(emits.size > 1)
    for i in range(out.size):
        parts = uniform_step(
            constants,
            reaches,
            weights,
            float(decode_batch[i * s0]),
            float(decode_context[i * s1]),
            float(prefill_batch[i * s2]),
            float(prefill_new_tokens[i * s3]),
            float(prefill_context[i * s4]),
            float(emits[i * s5]),
        )
        out[i] = combine(constants, parts)


@jit
def uniform_parts(
    constants: F64,
    reaches: F64,
    weights: F64,
    decode_batch: I64,
    decode_context: I64,
    prefill_batch: I64,
    prefill_new_tokens: I64,
    prefill_context: I64,
    emits: I64,
    out: F64,
) -> None:
    """Fill ``out`` (6, n) with the parts of each step."""
    s0, s1, s2 = int(decode_batch.size > 1), int(decode_context.size > 1), int(prefill_batch.size > 1)
    s3, s4, s5 = int(prefill_new_tokens.size > 1), int(prefill_context.size > 1), int(emits.size > 1)
    for i in range(out.shape[1]):
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i], out[5, i] = uniform_step(
            constants,
            reaches,
            weights,
            float(decode_batch[i * s0]),
            float(decode_context[i * s1]),
            float(prefill_batch[i * s2]),
            float(prefill_new_tokens[i * s3]),
            float(prefill_context[i * s4]),
            float(emits[i * s5]),
        )


@jit
def ragged_times(
    constants: F64,
    reaches: F64,
    weights: F64,
    decode_offsets: I64,
    decode_contexts: I64,
    decode_counts: I64,
    prefill_offsets: I64,
    prefill_contexts: I64,
    prefill_new_tokens: I64,
    prefill_counts: I64,
    prefill_emits: I64,
    out: F64,
) -> None:
    """Fill ``out`` with the times of steps given as lists of request groups."""
    for i in range(out.size):
        parts = ragged_step(
            constants,
            reaches,
            weights,
            decode_contexts,
            decode_counts,
            decode_offsets[i],
            decode_offsets[i + 1],
            prefill_contexts,
            prefill_new_tokens,
            prefill_counts,
            prefill_emits,
            prefill_offsets[i],
            prefill_offsets[i + 1],
        )
        out[i] = combine(constants, parts)


@jit
def ragged_parts(
    constants: F64,
    reaches: F64,
    weights: F64,
    decode_offsets: I64,
    decode_contexts: I64,
    decode_counts: I64,
    prefill_offsets: I64,
    prefill_contexts: I64,
    prefill_new_tokens: I64,
    prefill_counts: I64,
    prefill_emits: I64,
    out: F64,
) -> None:
    """Fill ``out`` (6, n) with the parts of each step."""
    for i in range(out.shape[1]):
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i], out[5, i] = ragged_step(
            constants,
            reaches,
            weights,
            decode_contexts,
            decode_counts,
            decode_offsets[i],
            decode_offsets[i + 1],
            prefill_contexts,
            prefill_new_tokens,
            prefill_counts,
            prefill_emits,
            prefill_offsets[i],
            prefill_offsets[i + 1],
        )
