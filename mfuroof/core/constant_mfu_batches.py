"""The loops of the constant-MFU roofline over batches of steps, and its scalar entry."""

from __future__ import annotations

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.core._jit import jit
from mfuroof.core.constant_mfu import (
    JOINT,
    causal_pairs,
    combine,
    extras,
    has_extras,
    hidden,
    joint_parts,
    phase_parts,
    requests,
    seen_by_decode,
    unpack,
)

__all__ = ["ragged_times", "step_time", "uniform_times"]


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
    """Return the seconds of one uniform step."""
    c, last = unpack(constants), float(weights.size - 1)
    new = prefill_batch * prefill_new_tokens
    emitting = prefill_batch * emits if prefill_new_tokens > 0.0 else 0.0
    compute_p, memory_p, compute_d, kv_read = 0.0, 0.0, 0.0, 0.0
    for j in range(reaches.shape[0]):
        cap = reaches[j, 0]
        seen_p, seen_d = prefill_batch * min(prefill_context, cap), decode_batch * min(decode_context, cap)
        pairs = prefill_batch * causal_pairs(prefill_context, prefill_new_tokens, cap)
        compute_p += reaches[j, 1] * pairs + reaches[j, 2] * seen_p
        memory_p += reaches[j, 3] * seen_p
        compute_d += reaches[j, 4] * seen_d
        kv_read += reaches[j, 5] * seen_d
    read = weights[int(min(decode_batch + new, last))]
    if c[0] == JOINT:
        compute, memory = joint_parts(
            c, read, decode_batch, prefill_batch, new, emitting, compute_p + compute_d, memory_p, kv_read
        )
        time = hidden(c, compute, memory)
    else:
        read_p, read_d = weights[int(min(new, last))], weights[int(min(decode_batch, last))]
        parts = phase_parts(
            c,
            read,
            read_p,
            read_d,
            decode_batch,
            prefill_batch,
            new,
            emitting,
            compute_p,
            memory_p,
            compute_d,
            kv_read,
        )
        time = combine(c, parts)
    comm, overhead = extras(c, decode_batch, prefill_batch, new)
    return time + comm + overhead


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
    breakdown: F64,
) -> None:
    """Fill ``out`` (n,) with step times and, unless it is empty, ``breakdown`` (6, n) with their parts.

    A column of one value is constant.
    """
    c, last, detailed = unpack(constants), float(weights.size - 1), breakdown.size > 0
    charged = has_extras(c)
    s0, s1, s2 = int(decode_batch.size > 1), int(decode_context.size > 1), int(prefill_batch.size > 1)
    s3, s4, s5 = int(prefill_new_tokens.size > 1), int(prefill_context.size > 1), int(emits.size > 1)
    for i in range(out.size):
        decoding, decode_context_i = float(decode_batch[i * s0]), float(decode_context[i * s1])
        prefills, each, context = (
            float(prefill_batch[i * s2]),
            float(prefill_new_tokens[i * s3]),
            float(prefill_context[i * s4]),
        )
        new = prefills * each
        emitting = prefills * float(emits[i * s5]) * min(each, 1.0)
        compute_p, memory_p, compute_d, kv_read = 0.0, 0.0, 0.0, 0.0
        for j in range(reaches.shape[0]):
            cap = reaches[j, 0]
            seen_p, seen_d = prefills * min(context, cap), decoding * min(decode_context_i, cap)
            compute_p += reaches[j, 1] * (prefills * causal_pairs(context, each, cap)) + reaches[j, 2] * seen_p
            memory_p += reaches[j, 3] * seen_p
            compute_d += reaches[j, 4] * seen_d
            kv_read += reaches[j, 5] * seen_d
        read = weights[int(min(decoding + new, last))]
        if c[0] == JOINT:
            compute, memory = joint_parts(
                c, read, decoding, prefills, new, emitting, compute_p + compute_d, memory_p, kv_read
            )
            time, parts = hidden(c, compute, memory), (compute, memory, 0.0, 0.0)
        else:
            read_p, read_d = weights[int(min(new, last))], weights[int(min(decoding, last))]
            parts = phase_parts(
                c, read, read_p, read_d, decoding, prefills, new, emitting, compute_p, memory_p, compute_d, kv_read
            )
            time = combine(c, parts)
        comm, overhead = 0.0, 0.0
        if charged:
            comm, overhead = extras(c, decoding, prefills, new)
        out[i] = time + comm + overhead
        if detailed:
            breakdown[0, i], breakdown[1, i], breakdown[2, i], breakdown[3, i] = parts
            breakdown[4, i], breakdown[5, i] = comm, overhead


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
    breakdown: F64,
) -> None:
    """Fill ``out`` and ``breakdown``, as `uniform_times`, for steps given as lists of request groups."""
    c, last, detailed = unpack(constants), float(weights.size - 1), breakdown.size > 0
    charged = has_extras(c)
    count_stride, emit_stride = np.uint64(prefill_counts.size > 1), np.uint64(prefill_emits.size > 1)
    for i in range(out.size):
        start, stop = decode_offsets[i], decode_offsets[i + 1]
        decoding = requests(decode_counts, start, stop)
        prefills, new, emitting = 0.0, 0.0, 0.0
        for k in range(np.uint64(prefill_offsets[i]), np.uint64(prefill_offsets[i + 1])):
            count = float(prefill_counts[k * count_stride])
            prefills += count
            if prefill_new_tokens[k] > 0:
                new += count * float(prefill_new_tokens[k])
                emitting += count * float(prefill_emits[k * emit_stride])
        compute_p, memory_p, compute_d, kv_read = 0.0, 0.0, 0.0, 0.0
        for j in range(reaches.shape[0]):
            cap = reaches[j, 0]
            pairs, seen_p = 0.0, 0.0
            for k in range(np.uint64(prefill_offsets[i]), np.uint64(prefill_offsets[i + 1])):
                count, context = float(prefill_counts[k * count_stride]), float(prefill_contexts[k])
                pairs += count * causal_pairs(context, float(prefill_new_tokens[k]), cap)
                seen_p += count * min(context, cap)
            seen_d = seen_by_decode(decode_contexts, decode_counts, start, stop, cap)
            compute_p += reaches[j, 1] * pairs + reaches[j, 2] * seen_p
            memory_p += reaches[j, 3] * seen_p
            compute_d += reaches[j, 4] * seen_d
            kv_read += reaches[j, 5] * seen_d
        read = weights[int(min(decoding + new, last))]
        if c[0] == JOINT:
            compute, memory = joint_parts(
                c, read, decoding, prefills, new, emitting, compute_p + compute_d, memory_p, kv_read
            )
            time, parts = hidden(c, compute, memory), (compute, memory, 0.0, 0.0)
        else:
            read_p, read_d = weights[int(min(new, last))], weights[int(min(decoding, last))]
            parts = phase_parts(
                c, read, read_p, read_d, decoding, prefills, new, emitting, compute_p, memory_p, compute_d, kv_read
            )
            time = combine(c, parts)
        comm, overhead = 0.0, 0.0
        if charged:
            comm, overhead = extras(c, decoding, prefills, new)
        out[i] = time + comm + overhead
        if detailed:
            breakdown[0, i], breakdown[1, i], breakdown[2, i], breakdown[3, i] = parts
            breakdown[4, i], breakdown[5, i] = comm, overhead
