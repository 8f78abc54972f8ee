"""Step time from MFU tables: dense curves over tokens, and attention from the MFU that was looked up for each request.

All that depends on a count of tokens alone is a row of seconds, one entry a token; beyond its last entry it goes on
linearly. Attention of a request is its work at MFU 1 divided by the MFU of its shape. How requests of different length
share a decode kernel, how phases combine and what is added are numbers in ``constants``.

As in `mfuroof.core.constant_mfu`, functions called in a loop take numbers and tuples, never arrays.
"""

from __future__ import annotations

from typing import TypeAlias

from mfuroof._types import F64
from mfuroof.core._jit import jit
from mfuroof.core.constant_mfu import NO_CAP

__all__ = [
    "ATTENTION",
    "BUCKET_MAX",
    "BUCKET_MIN",
    "COLUMNS",
    "CONSTANTS",
    "DECODE_SLOPE",
    "FLOPS_WEIGHTED",
    "HEAD_SLOPE",
    "JOINT",
    "MAX_KV",
    "OWN",
    "PER_REQUEST",
    "PHASE_MAX",
    "PREFILL_SLOPE",
    "TOKEN_WEIGHTED",
    "decode_memory",
    "decode_seconds",
    "extras",
    "finish",
    "phases",
    "prefill_area",
    "prefill_memory",
    "unpack",
]

JOINT, PHASE_MAX, TOKEN_WEIGHTED = 0.0, 1.0, 2.0
PER_REQUEST, FLOPS_WEIGHTED, MAX_KV = 0.0, 1.0, 2.0

CONSTANTS = (
    "rule",
    "aggregation",
    "own",  # 1 where a decode request attends to its own token
    "square",  # 1 where a chunk is priced as new tokens times KV length
    "divisor",
    "mixed_penalty",
    "overlap_penalty",
    "bucket_min",  # 0 without buckets
    "bucket_max",
    "weights_s",  # weight read of each phase; 0 where the step has no memory floor of its own
    "prefill_token_memory_s",
    "prefill_context_memory_s",
    "decode_token_memory_s",
    "decode_context_memory_s",
    "comm_token_s",
    "comm_fixed_s",
    "step_overhead_s",
    "prefill_overhead_s",
    "decode_overhead_s",
    "prefill_request_overhead_s",
    "mixed_request_overhead_s",
    "empty_overhead",
    "decode_slope_s",  # per token beyond the last entry of the token rows
    "prefill_slope_s",
    "head_slope_s",
)
"""Meaning of each entry of ``constants``."""

_RULE, _AGGREGATION, OWN, _SQUARE, _DIVISOR, _MIXED, _OVERLAP, BUCKET_MIN, BUCKET_MAX = range(9)
_WEIGHTS, _PREFILL_TOKEN, _PREFILL_CONTEXT, _DECODE_TOKEN, _DECODE_CONTEXT = range(9, 14)
_COMM_TOKEN, _COMM_FIXED, _STEP_O, _PREFILL_O, _DECODE_O, _PREFILL_REQUEST_O, _MIXED_REQUEST_O, _EMPTY_O = range(14, 22)
DECODE_SLOPE, PREFILL_SLOPE, HEAD_SLOPE = range(22, 25)

ATTENTION = ("cap", "decode_s", "prefill_s", "decode_read_s", "prefill_read_s")
"""Columns of ``attention``, one row per kind of layer: most cached tokens seen; seconds at MFU 1 per cached token of a
decode request and per unit of prefill area; seconds per cached token that no kernel is faster than."""

COLUMNS = (
    "prefill_gemm",
    "prefill_lm_head",
    "prefill_attention",
    "prefill_memory",
    "decode_gemm",
    "decode_lm_head",
    "decode_attention",
    "decode_memory",
    "comm",
    "overhead",
)
"""Rows of a breakdown; under the joint rule the GEMMs and the LM head of both phases are in the prefill rows."""

Constants: TypeAlias = tuple[float, ...]
Phase: TypeAlias = tuple[float, float, float, float]
"""GEMMs, LM head, attention, memory. [s]"""
Reads: TypeAlias = tuple[float, float, float, float, float, float]
"""GEMMs of all tokens, of prefill's, of decode's; LM head of all that emit, of prefill's, of decode's. [s]"""


@jit
def unpack(c: F64) -> Constants:
    """Return the constants as numbers."""
    return (
        c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12],
        c[13], c[14], c[15], c[16], c[17], c[18], c[19], c[20], c[21], c[22], c[23], c[24],
    )  # fmt: skip


@jit
def prefill_area(c: Constants, context: float, new: float, cap: float) -> float:
    """Return the part of the attention square that ``new`` tokens behind ``context`` cached ones are charged."""
    length = context + new
    if c[_SQUARE] > 0.0:
        return new * min(length, cap + 1.0) / c[_DIVISOR]
    if cap >= NO_CAP:
        return new * context + new * new / c[_DIVISOR]
    reach, before = min(length, cap + 1.0), min(context, cap + 1.0)
    area = reach * (length - 0.5 * reach) - before * (context - 0.5 * before)
    return area * 2.0 / c[_DIVISOR]


@jit
def decode_seconds(
    c: Constants, at_one_s: float, kv: float, by_mfu: float, times_mfu: float, longest_mfu: float
) -> float:
    """Return seconds of decode attention from sums over requests.

    ``kv``, ``by_mfu`` and ``times_mfu`` are the sums of KV length, KV length / MFU and KV length x MFU.
    """
    if kv == 0.0:
        return 0.0
    if c[_AGGREGATION] == PER_REQUEST:
        return at_one_s * by_mfu
    if c[_AGGREGATION] == FLOPS_WEIGHTED:
        return at_one_s * kv / (times_mfu / kv)
    return at_one_s * kv / longest_mfu


@jit
def slowdown(c: Constants, decoding: float, new: float) -> float:
    """Return the factor on compute of a mixed step."""
    if c[_MIXED] == 0.0:
        return 1.0
    tokens = max(decoding + new, 1.0)
    return tokens / (tokens - c[_MIXED] * min(new, decoding))


@jit
def hidden(c: Constants, compute: float, memory: float) -> float:
    """Return the larger of compute and memory, and what of the smaller is not overlapped; NaN stays NaN."""
    larger = memory if compute < memory else compute
    return larger + c[_OVERLAP] * min(compute, memory)


@jit
def phases(
    c: Constants,
    reads: Reads,
    decoding: float,
    prefills: float,
    new: float,
    attention_p: float,
    attention_d: float,
    moved_p: float,
    moved_d: float,
) -> tuple[Phase, Phase]:
    """Return the parts of both phases; ``moved`` are seconds of cache and activation traffic."""
    any_p, any_d = min(prefills, 1.0), min(decoding, 1.0)
    slow = slowdown(c, decoding, new)
    memory_p, memory_d = moved_p + any_p * c[_WEIGHTS], moved_d + any_d * c[_WEIGHTS]
    if c[_RULE] == JOINT:
        present = max(any_p, any_d)
        prefill = (reads[0] * present * slow, reads[3] * present * slow, attention_p * slow, memory_p)
        return prefill, (0.0, 0.0, attention_d * slow, memory_d - any_p * any_d * c[_WEIGHTS])
    scale_p, scale_d = any_p, any_d
    if c[_RULE] == TOKEN_WEIGHTED and any_p * any_d > 0.0:
        scale_p = new / (new + decoding)
        scale_d = 1.0 - scale_p
    work_p, work_d = scale_p * slow, scale_d * slow
    prefill = (reads[1] * work_p, reads[4] * work_p, attention_p * work_p, memory_p * scale_p)
    return prefill, (reads[2] * work_d, reads[5] * work_d, attention_d * work_d, memory_d * scale_d)


@jit
def finish(c: Constants, prefill: Phase, decode: Phase) -> float:
    """Return the time of both phases; each is GEMMs, LM head, attention, memory."""
    compute_p, compute_d = prefill[0] + prefill[1] + prefill[2], decode[0] + decode[1] + decode[2]
    if c[_RULE] == JOINT:
        return hidden(c, compute_p + compute_d, prefill[3] + decode[3])
    time_p, time_d = hidden(c, compute_p, prefill[3]), hidden(c, compute_d, decode[3])
    if c[_RULE] == PHASE_MAX:
        return time_d if time_p < time_d else time_p
    return time_p + time_d


@jit
def extras(c: Constants, decoding: float, prefills: float, new: float) -> tuple[float, float]:
    """Return seconds of communication and of overheads."""
    any_prefill, any_decode = min(prefills, 1.0), min(decoding, 1.0)
    present = max(any_prefill, any_decode)
    comm = c[_COMM_FIXED] * present + c[_COMM_TOKEN] * (decoding + new)
    per_request = c[_PREFILL_REQUEST_O] + any_decode * (c[_MIXED_REQUEST_O] - c[_PREFILL_REQUEST_O])
    overhead = c[_STEP_O] * max(present, c[_EMPTY_O]) + per_request * prefills
    overhead += c[_PREFILL_O] * any_prefill + c[_DECODE_O] * any_decode
    return comm, overhead


@jit
def decode_memory(c: Constants, decoding: float, contexts: float) -> float:
    """Return seconds of cache and activation traffic of the decode requests."""
    return c[_DECODE_TOKEN] * decoding + c[_DECODE_CONTEXT] * contexts


@jit
def prefill_memory(c: Constants, context: float, new: float) -> float:
    """Return seconds of cache and activation traffic of one prefill request; one new token counts as decode."""
    if new == 1.0:
        return c[_DECODE_TOKEN] + c[_DECODE_CONTEXT] * context
    return c[_PREFILL_TOKEN] * new + c[_PREFILL_CONTEXT] * context
