"""MFU of attention from latency grids: our own rule, blending measured times instead of ratios of them.

Decode: time is bilinear over (batch, KV length); beyond the last batch or length the utilisation is held, below the
first batch the time. Prefill: T(F) of one prompt of length F is launch + F R(F) with R linear between measured lengths
("affine rate"), or the square root of T is linear; beyond the last length the utilisation is held. A chunk behind a
prefix pays its share of the square.
"""

from __future__ import annotations

import math

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.core._jit import jit
from mfuroof.core.mfu_table import OWN, prefill_area, unpack

__all__ = ["AFFINE_RATE", "SQRT", "bucket_mfu", "decode_ragged", "decode_uniform", "prefill_curve"]

AFFINE_RATE, SQRT = 0.0, 1.0


@jit
def decode_uniform(
    constants: F64,
    rows: F64,
    cols: F64,
    seconds: F64,
    at_one_s: float,
    cap: float,
    decode_batch: I64,
    decode_context: I64,
    out: F64,
) -> None:
    """out[i] = MFU of decode attention in step i, 1 where there is none; the first of ``cols`` is 0."""
    own, s0, s1 = constants[OWN], int(decode_batch.size > 1), int(decode_context.size > 1)
    last_r, last_c = rows.size - 1, cols.size - 1
    up = min(last_r, 1)  # 0 where the table has a single batch
    for i in range(out.size):
        batch, kv = float(decode_batch[i * s0]), min(float(decode_context[i * s1]), cap) + own
        y, x = min(max(batch, rows[0]), rows[last_r]), min(kv, cols[last_c])
        r, c = 0, 0  # counting is free of branches, which a search would mispredict
        for j in range(1, last_r):
            r += int(y >= rows[j])
        for j in range(1, last_c):
            c += int(x >= cols[j])
        t = (x - cols[c]) / (cols[c + 1] - cols[c])
        u = (y - rows[r]) / (rows[r + up] - rows[r]) if up > 0 else 0.0
        lower = seconds[r, c] + t * (seconds[r, c + 1] - seconds[r, c])
        upper = seconds[r + up, c] + t * (seconds[r + up, c + 1] - seconds[r + up, c])
        value = (lower + u * (upper - lower)) * max(batch / rows[last_r], 1.0) * max(kv / cols[last_c], 1.0)
        out[i] = at_one_s * batch * kv / value if batch > 0.0 and kv > 0.0 else 1.0


@jit
def decode_ragged(
    constants: F64,
    rows: F64,
    cols: F64,
    seconds: F64,
    at_one_s: float,
    cap: float,
    offsets: I64,
    contexts: I64,
    counts: I64,
    out: F64,
) -> None:
    """out[k] = MFU of decode attention of group k, at the batch of its step; rows are blended once a step."""
    own, stride, first = constants[OWN], np.uint64(counts.size > 1), np.uint64(offsets[0])
    last_r, last_c = rows.size - 1, cols.size - 1
    blended = np.empty(cols.size)
    for i in range(offsets.size - 1):
        batch = 0.0
        start, stop = np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        for k in range(start, stop):
            batch += float(counts[k * stride])
        y = min(max(batch, rows[0]), rows[last_r])
        r = 0
        for j in range(1, last_r):
            r += int(y >= rows[j])
        u = (y - rows[r]) / (rows[r + 1] - rows[r]) if last_r > 0 else 0.0
        for j in range(cols.size):
            blended[j] = seconds[r, j]
            if last_r > 0:
                blended[j] += u * (seconds[r + 1, j] - seconds[r, j])
        beyond = max(batch / rows[last_r], 1.0)
        for k in range(start, stop):
            kv = min(float(contexts[k]), cap) + own
            x = min(kv, cols[last_c])
            c = 0
            for j in range(1, last_c):
                c += int(x >= cols[j])
            t = (x - cols[c]) / (cols[c + 1] - cols[c])
            value = (blended[c] + t * (blended[c + 1] - blended[c])) * beyond * max(kv / cols[last_c], 1.0)
            out[k - first] = at_one_s * batch * kv / value if batch > 0.0 and kv > 0.0 else 1.0


@jit
def prefill_curve(
    constants: F64,
    lengths: F64,
    values: F64,
    launch: float,
    blend: float,
    launch_kept: bool,
    at_one_s: float,
    cap: float,
    contexts: I64,
    new_tokens: I64,
    out: F64,
) -> None:
    """out[i] = MFU of prefill attention of request i, launch included; columns of one value are constant.

    ``values`` are R, or the root of T, at ``lengths``, the first of which is 0.
    """
    c, s0, s1 = unpack(constants), int(contexts.size > 1), int(new_tokens.size > 1)
    last = lengths.size - 1
    for i in range(out.size):
        context, new = float(contexts[i * s0]), float(new_tokens[i * s1])
        out[i] = 1.0
        if new > 0.0:
            length = context + new
            x, k = min(length, lengths[last]), 0
            for j in range(1, last):
                k += int(x >= lengths[j])
            v = values[k] + (x - lengths[k]) / (lengths[k + 1] - lengths[k]) * (values[k + 1] - values[k])
            v *= max(length / lengths[last], 1.0)
            whole = v * v if blend == SQRT else launch + length * v
            start = launch if launch_kept else 0.0
            share = new * (context + length) / (length * length)
            reach = min(length, cap + 1.0)
            window = reach * (length - 0.5 * reach) * 2.0 / (length * length)  # part of the triangle a window leaves
            if cap < length:
                before = min(context, cap + 1.0)
                share = window - before * (context - 0.5 * before) * 2.0 / (length * length)
            out[i] = at_one_s * prefill_area(c, context, new, cap) / (start + (whole - start) * share)


@jit
def bucket_mfu(table: F64, smallest: float, largest: float, contexts: I64, new_tokens: I64, out: F64) -> None:
    """out[i] = ``table`` at the power of two that the length of request i is rounded up to."""
    s0, s1 = int(contexts.size > 1), int(new_tokens.size > 1)
    for i in range(out.size):
        length = float(contexts[i * s0]) + float(new_tokens[i * s1])
        up = min(max(length, smallest), largest)
        bucket = math.ceil(math.log2(up / smallest))
        out[i] = table[min(bucket, table.size - 1)]
