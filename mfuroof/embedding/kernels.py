"""The compiled half: requests, or sums over them, to the columns of ragged steps."""

from __future__ import annotations

import math

import numpy as np

from mfuroof._types import F64, I64, freeze
from mfuroof.batch import RaggedColumns, StepBatch
from mfuroof.core._jit import jit

__all__ = [
    "GIVEN_CONTEXTS",
    "GIVEN_DECODES",
    "GIVEN_EMITS",
    "GIVEN_NEW",
    "GROUPS",
    "Workspace",
    "as_batch",
    "empty_columns",
    "split",
    "spread_sums",
]

DECODE_OFFSETS, DECODE_CONTEXTS, DECODE_COUNTS, OFFSETS, CONTEXTS, NEW_TOKENS, COUNTS, EMITS = range(8)
GIVEN_CONTEXTS, GIVEN_NEW, GIVEN_DECODES, GIVEN_EMITS = range(8, 12)
GROUPS = 3  # request groups that stand for the decode requests of one aggregate


class Workspace:
    """Buffers of one thread: the columns of one ragged step, the batch that views them, and its time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.columns = empty_columns(capacity)
        self.batch = as_batch(self.columns, 1)
        self.sums = np.zeros((7, 1))
        self.out = np.empty(1)


def empty_columns(capacity: int) -> I64:
    """Return rows for `RaggedColumns` in its order, then for what `split` reads."""
    return np.zeros((GIVEN_EMITS + 1, max(capacity, 2)), np.int64)


def as_batch(columns: I64, steps: int) -> StepBatch:
    """Return a batch that views the columns read-only, like every other batch; offsets bound what is read."""
    rows = [freeze(row, np.int64) for row in columns[: EMITS + 1]]
    for at in (DECODE_OFFSETS, OFFSETS):
        rows[at] = rows[at][: steps + 1]
    return StepBatch("ragged", RaggedColumns(*rows), steps)


@jit
def split(columns: I64, n: int, flagged: bool, ended: bool) -> int:
    """Sort the given requests of one step into decode and prefill; return 1 for values that no batch has.

    One array holds input and output, because each array argument costs 55 ns a call from Python.
    """
    decode_contexts, decode_counts, contexts = columns[DECODE_CONTEXTS], columns[DECODE_COUNTS], columns[CONTEXTS]
    new_tokens, counts, emits = columns[NEW_TOKENS], columns[COUNTS], columns[EMITS]
    decoding, filling = 0, 0
    for i in range(n):
        context, new = columns[GIVEN_CONTEXTS, i], columns[GIVEN_NEW, i]
        if context < 0 or new < 0 or context > 2**40 or new > 2**40:
            return 1
        decode = columns[GIVEN_DECODES, i] != 0 if flagged else (new == 1 and context > 0)
        if decode and new > 1:
            return 1
        if decode and new == 1:
            decode_contexts[decoding] = context
            decode_counts[decoding] = 1
            decoding += 1
        elif new > 0:
            contexts[filling], new_tokens[filling] = context, new
            counts[filling] = 1
            emits[filling] = (columns[GIVEN_EMITS, i] != 0) if ended else 1
            filling += 1
    columns[DECODE_OFFSETS, 1], columns[OFFSETS, 1] = decoding, filling
    return 0


@jit
def spread_sums(sums: F64, columns: I64) -> int:
    """Write request groups that have the sums of each step; return 1 for sums that no batch has."""
    decode_contexts, decode_counts, contexts = columns[DECODE_CONTEXTS], columns[DECODE_COUNTS], columns[CONTEXTS]
    new_tokens, counts, emits = columns[NEW_TOKENS], columns[COUNTS], columns[EMITS]
    d = p = 0
    for i in range(sums.shape[1]):
        for row in range(7):
            value = sums[row, i]
            if not (value >= 0.0 and (row == 4 or (value <= 2.0**40 and value == np.floor(value)))):
                return 1
        n, kv, longest = int(sums[0, i]), int(sums[1, i]), int(sums[2, i])
        tokens, area, prompts = int(sums[3, i]), sums[4, i], int(sums[5, i])
        if n > 0:
            if kv < n or longest > kv - n or (longest > 0 and n * (longest + 1) < kv):
                return 1
            rest, alike = kv - n, n
            if longest > 0:
                decode_contexts[d], decode_counts[d] = longest, 1
                d += 1
                rest, alike = rest - longest, n - 1
            if alike > 0:
                low, more = rest // alike, rest % alike
                decode_contexts[d], decode_counts[d] = low, alike - more
                d += 1
                if more > 0:
                    decode_contexts[d], decode_counts[d] = low + 1, more
                    d += 1
        elif kv > 0 or longest > 0:
            return 1
        if tokens > 0:
            least = 0.5 * tokens * tokens
            if prompts == 0:
                prompts = 1 if area <= 0.0 else min(max(math.ceil(least / area - 1e-9), 1), tokens)
            if prompts > tokens or not area < 2.0**80 or (0.0 < area < least / prompts * (1.0 - 1e-9)):
                return 1
            low, more = tokens // prompts, tokens % prompts
            context = 0
            if area > 0.0:
                context = int(max(area / tokens - 0.5 * tokens / prompts, 0.0) + 0.5)
            for size, number in ((low, prompts - more), (low + 1, more)):
                if number > 0:
                    contexts[p], new_tokens[p], counts[p] = context, size, number
                    emits[p] = sums[6, i] != 0.0
                    p += 1
        elif area > 0.0 or prompts > 0:
            return 1
        columns[DECODE_OFFSETS, i + 1], columns[OFFSETS, i + 1] = d, p
    return 0
