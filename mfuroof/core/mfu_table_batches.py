"""The loops of the MFU-table roofline over batches of steps."""

from __future__ import annotations

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.core._jit import jit
from mfuroof.core.mfu_table import (
    BUCKET_MAX,
    BUCKET_MIN,
    DECODE_SLOPE,
    HEAD_SLOPE,
    OWN,
    PREFILL_SLOPE,
    decode_memory,
    decode_seconds,
    extras,
    finish,
    phases,
    prefill_area,
    prefill_memory,
    unpack,
)

__all__ = ["ragged_times", "uniform_times"]

_BUCKETS = 64


@jit
def uniform_times(
    constants: F64,
    attention: F64,
    tokens_s: F64,
    heads_s: F64,
    decode_batch: I64,
    decode_context: I64,
    prefill_batch: I64,
    prefill_new_tokens: I64,
    prefill_context: I64,
    emits: I64,
    decode_mfu: F64,
    prefill_mfu: F64,
    out: F64,
    breakdown: F64,
) -> None:
    """Fill ``out`` (n,) with step times and, unless it is empty, ``breakdown`` (10, n) with their parts.

    ``tokens_s`` (2, m + 1): seconds of all matrix products by tokens, in decode steps and in steps with prefill.
    ``heads_s`` (h + 1,): of the LM head by emitting requests. ``decode_mfu`` and ``prefill_mfu`` (kinds of layer, n).
    """
    c, detailed = unpack(constants), breakdown.size > 0
    last, last_head = float(tokens_s.shape[1] - 1), float(heads_s.size - 1)
    s0, s1, s2 = int(decode_batch.size > 1), int(decode_context.size > 1), int(prefill_batch.size > 1)
    s3, s4, s5 = int(prefill_new_tokens.size > 1), int(prefill_context.size > 1), int(emits.size > 1)
    for i in range(out.size):
        decoding, seen = float(decode_batch[i * s0]), float(decode_context[i * s1])
        prefills, each = float(prefill_batch[i * s2]), float(prefill_new_tokens[i * s3])
        context, new = float(prefill_context[i * s4]), prefills * each
        emitting = prefills * float(emits[i * s5]) * min(each, 1.0)
        attention_p, attention_d = 0.0, 0.0
        for a in range(attention.shape[0]):
            cap = attention[a, 0]
            kv = decoding * (min(seen, cap) + c[OWN])
            if kv > 0.0:
                m = decode_mfu[a, i]
                time = decode_seconds(c, attention[a, 1], kv, kv / m, kv * m, m)
                floor = attention[a, 3] * decoding * min(seen, cap)
                attention_d += floor if time < floor else time
            if new > 0.0:
                time = attention[a, 2] * prefill_area(c, context, each, cap) / prefill_mfu[a, i]
                floor = attention[a, 4] * min(context + each, cap + each)
                attention_p += prefills * (floor if time < floor else time)
        all_tokens, all_emitting = decoding + new, decoding + emitting
        row, slope = (1, c[PREFILL_SLOPE]) if new > 0.0 else (0, c[DECODE_SLOPE])
        reads = (
            tokens_s[row, int(min(all_tokens, last))] + slope * max(all_tokens - last, 0.0),
            tokens_s[1, int(min(new, last))] + c[PREFILL_SLOPE] * max(new - last, 0.0),
            tokens_s[0, int(min(decoding, last))] + c[DECODE_SLOPE] * max(decoding - last, 0.0),
            heads_s[int(min(all_emitting, last_head))] + c[HEAD_SLOPE] * max(all_emitting - last_head, 0.0),
            heads_s[int(min(emitting, last_head))] + c[HEAD_SLOPE] * max(emitting - last_head, 0.0),
            heads_s[int(min(decoding, last_head))] + c[HEAD_SLOPE] * max(decoding - last_head, 0.0),
        )
        moved_p, moved_d = prefills * prefill_memory(c, context, each), decode_memory(c, decoding, decoding * seen)
        prefill, decode = phases(c, reads, decoding, prefills, new, attention_p, attention_d, moved_p, moved_d)
        comm, overhead = extras(c, decoding, prefills, new)
        out[i] = finish(c, prefill, decode) + comm + overhead
        if detailed:
            breakdown[0, i], breakdown[1, i], breakdown[2, i], breakdown[3, i] = prefill
            breakdown[4, i], breakdown[5, i], breakdown[6, i], breakdown[7, i] = decode
            breakdown[8, i], breakdown[9, i] = comm, overhead


@jit
def ragged_times(
    constants: F64,
    attention: F64,
    tokens_s: F64,
    heads_s: F64,
    decode_offsets: I64,
    decode_contexts: I64,
    decode_counts: I64,
    prefill_offsets: I64,
    prefill_contexts: I64,
    prefill_new_tokens: I64,
    prefill_counts: I64,
    prefill_emits: I64,
    decode_mfu: F64,
    prefill_mfu: F64,
    out: F64,
    breakdown: F64,
) -> None:
    """Fill ``out`` and ``breakdown``, as `uniform_times`, for steps given as lists of request groups.

    The MFU arrays (kinds of layer, groups) begin with the first group of the first step.
    """
    c, detailed = unpack(constants), breakdown.size > 0
    last, last_head = float(tokens_s.shape[1] - 1), float(heads_s.size - 1)
    d_stride, p_stride, e_stride = (
        np.uint64(decode_counts.size > 1),
        np.uint64(prefill_counts.size > 1),
        np.uint64(prefill_emits.size > 1),
    )
    first_d, first_p = np.uint64(decode_offsets[0]), np.uint64(prefill_offsets[0])
    in_bucket, used = np.zeros(_BUCKETS), np.zeros(_BUCKETS, np.bool_)
    for i in range(out.size):
        start_d, stop_d = np.uint64(decode_offsets[i]), np.uint64(decode_offsets[i + 1])
        start_p, stop_p = np.uint64(prefill_offsets[i]), np.uint64(prefill_offsets[i + 1])
        decoding, contexts_d = 0.0, 0.0
        for k in range(start_d, stop_d):
            count = float(decode_counts[k * d_stride])
            decoding += count
            contexts_d += count * float(decode_contexts[k])
        prefills, new, emitting, moved_p = 0.0, 0.0, 0.0, 0.0
        for k in range(start_p, stop_p):
            count, each = float(prefill_counts[k * p_stride]), float(prefill_new_tokens[k])
            prefills += count
            new += count * each
            emitting += count * float(prefill_emits[k * e_stride]) * min(each, 1.0)
            moved_p += count * prefill_memory(c, float(prefill_contexts[k]), each)
        attention_p, attention_d = 0.0, 0.0
        for a in range(attention.shape[0]):
            cap = attention[a, 0]
            kv_sum, by_mfu, times_mfu, longest, longest_mfu, seen_sum = 0.0, 0.0, 0.0, -1.0, 1.0, 0.0
            for k in range(start_d, stop_d):
                count = float(decode_counts[k * d_stride])
                seen = min(float(decode_contexts[k]), cap)
                kv = seen + c[OWN]
                if count > 0.0 and kv > 0.0:
                    m = decode_mfu[a, k - first_d]
                    kv_sum += count * kv
                    by_mfu += count * kv / m
                    times_mfu += count * kv * m
                    seen_sum += count * seen
                    if kv > longest:
                        longest, longest_mfu = kv, m
            time = decode_seconds(c, attention[a, 1], kv_sum, by_mfu, times_mfu, longest_mfu)
            floor = attention[a, 3] * seen_sum
            attention_d += floor if time < floor else time
            for k in range(start_p, stop_p):
                count, each = float(prefill_counts[k * p_stride]), float(prefill_new_tokens[k])
                if count > 0.0 and each > 0.0:
                    context = float(prefill_contexts[k])
                    time = attention[a, 2] * prefill_area(c, context, each, cap) / prefill_mfu[a, k - first_p]
                    floor = attention[a, 4] * min(context + each, cap + each)
                    attention_p += count * (floor if time < floor else time)
        prefill_s = tokens_s[1, int(min(new, last))] + c[PREFILL_SLOPE] * max(new - last, 0.0)
        if c[BUCKET_MIN] > 0.0:  # one set of GEMMs for each bucket of lengths that occurs
            prefill_s = 0.0
            for k in range(start_p, stop_p):
                count, each = float(prefill_counts[k * p_stride]), float(prefill_new_tokens[k])
                if count > 0.0:
                    bucket, size = 0, c[BUCKET_MIN]
                    while size < c[BUCKET_MAX] and size < float(prefill_contexts[k]) + each:
                        size *= 2.0
                        bucket += 1
                    in_bucket[bucket] += count * each
                    used[bucket] = True
            for bucket in range(_BUCKETS):
                if used[bucket]:
                    t = in_bucket[bucket]
                    prefill_s += tokens_s[1, int(min(t, last))] + c[PREFILL_SLOPE] * max(t - last, 0.0)
                    in_bucket[bucket] = 0.0
                    used[bucket] = False
        all_tokens, all_emitting = decoding + new, decoding + emitting
        row, slope = (1, c[PREFILL_SLOPE]) if new > 0.0 else (0, c[DECODE_SLOPE])
        reads = (
            tokens_s[row, int(min(all_tokens, last))] + slope * max(all_tokens - last, 0.0),
            prefill_s,
            tokens_s[0, int(min(decoding, last))] + c[DECODE_SLOPE] * max(decoding - last, 0.0),
            heads_s[int(min(all_emitting, last_head))] + c[HEAD_SLOPE] * max(all_emitting - last_head, 0.0),
            heads_s[int(min(emitting, last_head))] + c[HEAD_SLOPE] * max(emitting - last_head, 0.0),
            heads_s[int(min(decoding, last_head))] + c[HEAD_SLOPE] * max(decoding - last_head, 0.0),
        )
        moved_d = decode_memory(c, decoding, contexts_d)
        prefill, decode = phases(c, reads, decoding, prefills, new, attention_p, attention_d, moved_p, moved_d)
        comm, overhead = extras(c, decoding, prefills, new)
        out[i] = finish(c, prefill, decode) + comm + overhead
        if detailed:
            breakdown[0, i], breakdown[1, i], breakdown[2, i], breakdown[3, i] = prefill
            breakdown[4, i], breakdown[5, i], breakdown[6, i], breakdown[7, i] = decode
            breakdown[8, i], breakdown[9, i] = comm, overhead
