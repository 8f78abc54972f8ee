"""Step time of the measured-kernel cost: four table reads a step, no search.

Everything of a step that depends on its token count alone is one piecewise-linear curve, everything that depends on
the sequences that emit a token a second one over the same breakpoints. Attention is two grids on octave lattices
(powers of two), where the row and the column of a query are the exponents of two floating-point numbers. Row 0 of
each grid is zero and stands for an empty phase, so no branch asks whether there is one.

A decode cell stores T = (a + b kv) + B (c + d kv). A prefill cell stores the time of a batch of b prompts of length
F as launch + area, launch = p + q b and area = F ((r + s b) + F (t + u b)): what a cached prefix does not remove and
what it does.

Indices are unsigned (`read`): the test for a negative index, fourteen times a step, held the kernel at 79 M steps/s
where it now runs at 140 (a 70B model, mixed shapes, one thread). Rejected: bisection on the measured axes with
divisions in the kernel (11 M steps/s), a branch on the empty phase (20 % slower), passes over blocks of 256 steps whose
index arithmetic the compiler vectorises (210 M/s, for a second spelling of every formula), gathers (0.6 of the speed).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mfuroof._types import F64, I16, I64, freeze
from mfuroof.core._jit import inlined, jit, octave, read

__all__ = [
    "DECODE_CELL",
    "LAYOUT",
    "PREFILL_CELL",
    "StepTables",
    "curve",
    "decode_attention",
    "prefill_attention",
    "ragged_lanes",
    "ragged_times",
    "step_time",
    "uniform_lanes",
    "uniform_times",
]

LAYOUT = (
    "tokens",  # offset of the token curve's lanes in `cells`
    "token_lanes",
    "sequences",  # offset of the sequence curve's lanes
    "sequence_lanes",
    "decode",  # offset of the decode grid
    "decode_rows",
    "decode_columns",
    "prefill",  # offset of the first prefill grid
    "prefill_rows",
    "prefill_columns",
    "prefill_groups",  # kinds of attention layer with a grid of their own (one a sliding window)
    "prefill_constants",  # offset of `PREFILL_CONSTANTS` numbers per group: see `prefill_attention`
    "decode_spread",  # 1 where decode attention is a five-point mean over +-10 % of the KV length
)
"""Meaning of each entry of ``StepTables.layout``."""

DECODE_CELL = 4
PREFILL_CELL = 6
PREFILL_CONSTANTS = 4
_TOKENS, _TOKEN_LANES, _SEQUENCES, _SEQUENCE_LANES, _DECODE, _DECODE_ROWS, _DECODE_COLUMNS = range(7)
_PREFILL, _PREFILL_ROWS, _PREFILL_COLUMNS, _PREFILL_GROUPS, _PREFILL_CONSTANTS, _SPREAD = range(7, 13)


class StepTables(NamedTuple):
    """A bound model as three read-only arrays: an argument for these kernels, and for anybody's ``@njit`` code.

    ``segments`` (max tokens + 1,) maps a count to the segment of both curves that holds it, ``cells`` holds all
    coefficients, ``layout`` says where what begins (`LAYOUT`).
    """

    segments: I16
    cells: F64
    layout: I64

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle so that the copy is read-only too: writable arrays would compile every kernel a second time."""
        return _frozen_tables, tuple(self)


def _frozen_tables(segments: I16, cells: F64, layout: I64) -> StepTables:
    return StepTables(freeze(segments, np.int16), freeze(cells), freeze(layout, np.int64))


Places = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int]


@inlined
def places(layout: I64) -> Places:
    """Entries of the layout as a tuple: local values that the compiler keeps out of the loop over steps.

    Reading the array inside the loop costs a factor of 3.5, since the store to ``out`` might change it.
    """
    return (
        layout[0],
        layout[1],
        layout[2],
        layout[3],
        layout[4],
        layout[5],
        layout[6],
        layout[7],
        layout[8],
        layout[9],
        layout[10],
        layout[11],
        layout[12],
    )


@inlined
def segment_of(segments: I16, count: float) -> int:
    """Segment of the curves that holds ``count``; the last one goes on for ever."""
    return int(read(segments, int(min(count, float(segments.size - 1)))))


@inlined
def curve(cells: F64, cell: int, x: float) -> float:
    """Value at ``x`` of the line whose two coefficients stand at ``cell``."""
    return read(cells, cell) + read(cells, cell + 1) * x


@inlined
def decode_attention(cells: F64, base: int, rows: int, columns: int, batch: float, kv_len: float) -> float:
    """Seconds of decode attention for ``batch`` requests of one ``kv_len`` >= 1; 0 for no request."""
    row = min(max(octave(batch) + 1, 0), rows - 1)
    column = min(octave(kv_len), columns - 1)
    c = base + DECODE_CELL * (row * columns + column)
    return curve(cells, c, kv_len) + batch * curve(cells, c + 2, kv_len)


@jit
def decode_attention_mean(cells: F64, base: int, rows: int, columns: int, batch: float, kv_len: float) -> float:
    """Mean of five whole KV lengths spread over +-10 %: AIConfigurator's smoothing of decode attention."""
    low, high = np.floor(0.9 * kv_len), np.floor(1.1 * kv_len)
    total = 0.0
    for i in range(5):
        at = max(low + np.floor(i * (high - low) / 4.0), 1.0)
        total += decode_attention(cells, base, rows, columns, batch, at)
    return total / 5.0


@inlined
def decode_of(cells: F64, at: Places, batch: float, kv_len: float) -> float:
    """Seconds of decode attention of a uniform batch, averaged over KV lengths where the preset asks for it."""
    base, rows, columns = at[_DECODE], at[_DECODE_ROWS], at[_DECODE_COLUMNS]
    if at[_SPREAD]:
        return decode_attention_mean(cells, base, rows, columns, batch, kv_len)
    return decode_attention(cells, base, rows, columns, batch, kv_len)


@inlined
def causal_area(length: float, window: float) -> float:
    """Query-key pairs of a prompt of ``length`` when each token sees at most ``window`` (continuous form)."""
    reach = min(length, window)
    return reach * (length - 0.5 * reach)


@inlined
def prefill_attention(
    cells: F64, cell: int, constants: int, batch: float, context: float, new_tokens: float
) -> float:
    """Seconds of prefill attention for ``batch`` like requests whose cell is known; 0 for no request.

    ``context`` is what the layer can see of it: at most the window. The constants are the window, the seconds to read a
    token of the cache, those to read the query and write the output of one, and the share of the launch that scales.
    """
    window, kv_read_s = read(cells, constants), read(cells, constants + 1)
    query_s, scaled = read(cells, constants + 2), read(cells, constants + 3)
    end = context + new_tokens
    length, reach = max(end, 1.0), min(end, window)
    # The area of length less that of context, without the cancellation that a short chunk behind a long prefix meets.
    pairs = reach * new_tokens - 0.5 * (reach - context) * (reach - context)
    share = pairs / causal_area(length, window)
    launch = curve(cells, cell, batch)
    area = length * (curve(cells, cell + 2, batch) + length * curve(cells, cell + 4, batch))
    time = launch * (1.0 - scaled * (1.0 - share)) + area * share
    return max(time, batch * (kv_read_s * end + query_s * new_tokens))


@inlined
def prefill_cell(base: int, rows: int, columns: int, batch: float, length: float) -> int:
    """Offset of the prefill cell of ``batch`` requests of ``length`` tokens."""
    row = min(max(octave(batch) + 1, 0), rows - 1)
    return base + PREFILL_CELL * (row * columns + min(octave(max(length, 1.0)), columns - 1))


@inlined
def prefill_group(
    cells: F64, base: int, rows: int, columns: int, constants: int, group: int, b: float, context: float, new: float
) -> float:
    """Seconds of prefill attention over the layers of one window for ``b`` like requests."""
    behind = min(context, read(cells, constants + PREFILL_CONSTANTS * group))  # beyond the window: free
    cell = prefill_cell(base + group * rows * columns * PREFILL_CELL, rows, columns, b, behind + new)
    return prefill_attention(cells, cell, constants + PREFILL_CONSTANTS * group, b, behind, new)


@inlined
def prefill_attention_all(
    cells: F64, base: int, rows: int, columns: int, groups: int, constants: int, b: float, context: float, new: float
) -> float:
    """Seconds of prefill attention over all kinds of layer for ``b`` like requests."""
    total = prefill_group(cells, base, rows, columns, constants, 0, b, context, new)
    for g in range(1, groups):
        total += prefill_group(cells, base, rows, columns, constants, g, b, context, new)
    return total


@inlined
def attention(
    cells: F64, at: Places, decoding: float, kv_len: float, present: float, context: float, new: float
) -> tuple[float, float]:
    """Seconds of prefill and of decode attention of a uniform step."""
    prefill = prefill_attention_all(
        cells,
        at[_PREFILL],
        at[_PREFILL_ROWS],
        at[_PREFILL_COLUMNS],
        at[_PREFILL_GROUPS],
        at[_PREFILL_CONSTANTS],
        present,
        context,
        new,
    )
    return prefill, decode_of(cells, at, decoding, kv_len)


@inlined
def token_and_sequence_time(
    segments: I16, cells: F64, at: Places, tokens: float, sequences: float
) -> float:
    """Seconds of everything but attention."""
    by_tokens = curve(cells, at[_TOKENS] + 2 * segment_of(segments, tokens), tokens)
    return by_tokens + curve(cells, at[_SEQUENCES] + 2 * segment_of(segments, sequences), sequences)


@jit
def step_time(
    segments: I16,
    cells: F64,
    layout: I64,
    decode_batch: float,
    decode_context: float,
    prefill_batch: float,
    prefill_new_tokens: float,
    prefill_context: float,
    emits: float,
) -> float:
    """Seconds of one step; flat arguments, because a tuple costs 0.8 us more from Python."""
    at = places(layout)
    present = prefill_batch if prefill_new_tokens > 0 else 0.0
    prefill, decode = attention(
        cells, at, decode_batch, decode_context + 1.0, present, prefill_context, prefill_new_tokens
    )
    tokens, sequences = decode_batch + present * prefill_new_tokens, decode_batch + present * emits
    return token_and_sequence_time(segments, cells, at, tokens, sequences) + prefill + decode


@jit
def uniform_times(
    tables: StepTables,
    decode_batch: I64,
    decode_context: I64,
    prefill_batch: I64,
    prefill_new_tokens: I64,
    prefill_context: I64,
    emits: I64,
    out: F64,
) -> None:
    """Fill ``out`` with step times; a column of one value is constant."""
    segments, cells, layout = tables
    at = places(layout)
    s0, s1, s2 = int(decode_batch.size > 1), int(decode_context.size > 1), int(prefill_batch.size > 1)
    s3, s4, s5 = int(prefill_new_tokens.size > 1), int(prefill_context.size > 1), int(emits.size > 1)
    for i in range(out.size):
        decoding, kv_len = float(read(decode_batch, i * s0)), float(read(decode_context, i * s1)) + 1.0
        new, context = float(read(prefill_new_tokens, i * s3)), float(read(prefill_context, i * s4))
        present = float(read(prefill_batch, i * s2)) if new > 0 else 0.0
        prefill, decode = attention(cells, at, decoding, kv_len, present, context, new)
        tokens, sequences = decoding + present * new, decoding + present * read(emits, i * s5)
        out[i] = token_and_sequence_time(segments, cells, at, tokens, sequences) + prefill + decode


@jit
def ragged_decode(
    cells: F64, at: Places, contexts: I64, counts: I64, start: int, stop: int, number: F64, kv_total: F64
) -> tuple[float, float]:
    """Sum up one step's decode requests of mixed context lengths: their number, and seconds of attention.

    A batch is at least as slow as any set of its longest requests: the largest T(n, mean KV) over the nested sets
    "KV length of at least 2^j". ``number`` and ``kv_total`` are zeroed scratch of 64 octaves and are left zeroed.
    """
    stride = int(counts.size > 1)
    top, bottom = np.uint64(0), np.uint64(63)
    for j in range(start, stop):
        kv_len = float(read(contexts, j)) + 1.0
        bucket = np.uint64(octave(kv_len))
        count = float(read(counts, j * stride))
        number[bucket] += count
        kv_total[bucket] += count * kv_len
        top, bottom = max(top, bucket), min(bottom, bucket)
    n, kv, slowest = 0.0, 0.0, 0.0
    for at_octave in range(int(top), int(bottom) - 1, -1):
        bucket = np.uint64(at_octave)
        if number[bucket] > 0.0:
            n += number[bucket]
            kv += kv_total[bucket]
            time = decode_of(cells, at, n, kv / n)
            slowest = slowest if time <= slowest else time  # max() would drop the NaN of a missing table
        number[bucket] = 0.0
        kv_total[bucket] = 0.0
    return n, slowest


@jit
def ragged_prefill(
    cells: F64, at: Places, contexts: I64, new_tokens: I64, counts: I64, emits: I64, start: int, stop: int
) -> tuple[float, float, float]:
    """Sum up one step's prompts of mixed lengths: tokens, emitting sequences, seconds of attention.

    What fills the GPU is the tokens computed in the step, so a prompt with n new tokens is priced as one of
    b = (all new tokens) / n like it: T(b) / b. Like prompts give back T(b). Rejected: b by lengths, context included; a
    chunk behind a long prefix then lowers the time of the prompts beside it by up to 20 %, so by up to 7 %.
    """
    count_stride, emit_stride = int(counts.size > 1), int(emits.size > 1)
    tokens, sequences = 0.0, 0.0
    for j in range(start, stop):
        if new_tokens[j] > 0:
            count = float(counts[j * count_stride])
            tokens += count * new_tokens[j]
            sequences += count * emits[j * emit_stride]
    seconds = 0.0
    for j in range(start, stop):
        count = float(counts[j * count_stride])
        if new_tokens[j] > 0 and count > 0.0:
            context, new = float(contexts[j]), float(new_tokens[j])
            like = tokens / new
            together = prefill_attention_all(
                cells,
                at[_PREFILL],
                at[_PREFILL_ROWS],
                at[_PREFILL_COLUMNS],
                at[_PREFILL_GROUPS],
                at[_PREFILL_CONSTANTS],
                like,
                context,
                new,
            )
            seconds += together * (count / like)
    return tokens, sequences, seconds


@jit
def ragged_times(
    tables: StepTables,
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
    segments, cells, layout = tables
    at = places(layout)
    number, kv_total = np.zeros(64), np.zeros(64)
    for i in range(out.size):
        decoding, decode = ragged_decode(
            cells, at, decode_contexts, decode_counts, decode_offsets[i], decode_offsets[i + 1], number, kv_total
        )
        new, emitting, prefill = ragged_prefill(
            cells,
            at,
            prefill_contexts,
            prefill_new_tokens,
            prefill_counts,
            prefill_emits,
            prefill_offsets[i],
            prefill_offsets[i + 1],
        )
        rest = token_and_sequence_time(segments, cells, at, decoding + new, decoding + emitting)
        out[i] = rest + prefill + decode


@inlined
def fill_lanes(
    segments: I16,
    cells: F64,
    at: Places,
    tokens: float,
    sequences: float,
    prefill: float,
    decode: float,
    out: F64,
    i: int,
) -> None:
    """Store the parts of step ``i`` under row 0: token lanes, sequence lanes, prefill and decode attention.

    With 14 parts a step takes 2.3 times as long as its time alone, 0.6 ns a part. Rejected: one lane after the other
    over blocks of 256 steps (2.1 times), tiles of four lanes by four steps (2.1), a block of steps transposed (2.2).
    """
    lanes, more = at[_TOKEN_LANES], at[_SEQUENCE_LANES]
    cell = at[_TOKENS] + 2 * lanes * segment_of(segments, tokens)
    for lane in range(lanes):
        out[1 + lane, i] = curve(cells, cell + 2 * lane, tokens)
    cell = at[_SEQUENCES] + 2 * more * segment_of(segments, sequences)
    for lane in range(more):
        out[1 + lanes + lane, i] = curve(cells, cell + 2 * lane, sequences)
    out[1 + lanes + more, i] = prefill
    out[2 + lanes + more, i] = decode


@jit
def uniform_lanes(
    total: StepTables,
    tables: StepTables,
    decode_batch: I64,
    decode_context: I64,
    prefill_batch: I64,
    prefill_new_tokens: I64,
    prefill_context: I64,
    emits: I64,
    start: int,
    stop: int,
    out: F64,
) -> None:
    """Fill ``out[:, start:stop]``: row 0 as `uniform_times` does from ``total``, below it the parts of each step.

    The whole array with a place in it, because slices of it would be of another type: a second kernel to compile.
    """
    segments, cells, layout = tables
    at, whole = places(layout), places(total.layout)
    s0, s1, s2 = int(decode_batch.size > 1), int(decode_context.size > 1), int(prefill_batch.size > 1)
    s3, s4, s5 = int(prefill_new_tokens.size > 1), int(prefill_context.size > 1), int(emits.size > 1)
    for i in range(stop - start):
        decoding, kv_len = float(read(decode_batch, i * s0)), float(read(decode_context, i * s1)) + 1.0
        new, context = float(read(prefill_new_tokens, i * s3)), float(read(prefill_context, i * s4))
        present = float(read(prefill_batch, i * s2)) if new > 0 else 0.0
        prefill, decode = attention(cells, at, decoding, kv_len, present, context, new)
        tokens, sequences = decoding + present * new, decoding + present * read(emits, i * s5)
        out[0, start + i] = token_and_sequence_time(segments, total.cells, whole, tokens, sequences) + prefill + decode
        fill_lanes(segments, cells, at, tokens, sequences, prefill, decode, out, start + i)


@jit
def ragged_lanes(
    total: StepTables,
    tables: StepTables,
    decode_offsets: I64,
    decode_contexts: I64,
    decode_counts: I64,
    prefill_offsets: I64,
    prefill_contexts: I64,
    prefill_new_tokens: I64,
    prefill_counts: I64,
    prefill_emits: I64,
    start: int,
    stop: int,
    out: F64,
) -> None:
    """As `uniform_lanes`, for steps given as lists of request groups."""
    segments, cells, layout = tables
    at, whole = places(layout), places(total.layout)
    number, kv_total = np.zeros(64), np.zeros(64)
    for i in range(stop - start):
        decoding, decode = ragged_decode(
            cells, at, decode_contexts, decode_counts, decode_offsets[i], decode_offsets[i + 1], number, kv_total
        )
        new, emitting, prefill = ragged_prefill(
            cells,
            at,
            prefill_contexts,
            prefill_new_tokens,
            prefill_counts,
            prefill_emits,
            prefill_offsets[i],
            prefill_offsets[i + 1],
        )
        tokens, sequences = decoding + new, decoding + emitting
        out[0, start + i] = token_and_sequence_time(segments, total.cells, whole, tokens, sequences) + prefill + decode
        fill_lanes(segments, cells, at, tokens, sequences, prefill, decode, out, start + i)
