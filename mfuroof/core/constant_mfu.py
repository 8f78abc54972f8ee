"""Step time of the constant-MFU roofline: sums over the requests of a step, then a fixed number of operations.

Every quantity is linear in a few sums, so a step is: sum (integers, vectorised by the compiler), one table read for
the weights (expected distinct experts by tokens), one comparison of compute with memory. All coefficients are
seconds; which peer they belong to is not known here.

Functions called in a loop take numbers and tuples, never arrays: an array argument that the compiler does not inline
costs two atomic reference counts a step, which made this kernel ten times slower.

``reaches`` has one row per kind of attention layer by how far back it sees: `CAP` cached tokens at most, then the
seconds per query-key pair and per cached token. A request of ``new`` tokens behind ``context`` cached ones has
sum(min(context + i, cap + 1), i = 1..new) pairs.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.core._jit import jit

__all__ = [
    "CONSTANTS",
    "JOINT",
    "NO_CAP",
    "PARTS",
    "PHASE_MAX",
    "PHASE_SUM",
    "REACHES",
    "TOKEN_WEIGHTED",
    "causal_pairs",
    "combine",
    "extras",
    "has_extras",
    "hidden",
    "joint_parts",
    "phase_parts",
    "requests",
    "seen_by_decode",
    "unpack",
]

JOINT, PHASE_SUM, PHASE_MAX, TOKEN_WEIGHTED = 0.0, 1.0, 2.0, 3.0
NO_CAP = 2.0**60
"""Cap of full attention: beyond any context, and exact as an integer."""
_EXACT_GROUPS = 2**22
"""Up to so many requests of 2**40 tokens each, int64 sums cannot overflow."""

CONSTANTS = (
    "rule",
    "mixed_penalty",
    "overlap_penalty",
    "prefill_token_s",  # compute, per new token of prefill
    "emit_s",  # compute, per prefill request that emits a token
    "decode_request_s",  # compute, per decode request, its emission and its own diagonal score included
    "prefill_token_memory_s",
    "prefill_request_memory_s",
    "decode_request_memory_s",
    "head_weights_s",  # read once if any request emits
    "kv_base",  # reciprocal of the share of the bandwidth that a batch of 0 would reach
    "kv_gain",
    "kv_per_batch",
    "comm_token_s",
    "comm_fixed_s",
    "step_overhead_s",
    "prefill_overhead_s",
    "decode_overhead_s",
    "prefill_request_overhead_s",
    "mixed_request_overhead_s",
    "empty_overhead",  # 1 where an empty step pays overheads too
    "prefill_weights",  # factor on weight reads of the prefill phase, and of pure decode steps
    "decode_weights",
)
"""Meaning of each entry of ``constants``."""

_RULE, _MIXED, _OVERLAP, _PREFILL_TOKEN, _EMIT, _DECODE_REQUEST = range(6)
_TOKEN_MEMORY, _REQUEST_MEMORY, _DECODE_MEMORY = range(6, 9)
_HEAD, _KV_BASE, _KV_GAIN, _KV_BATCH, _COMM_TOKEN, _COMM_FIXED, _STEP_O, _PREFILL_O, _DECODE_O = range(9, 18)
_PREFILL_REQUEST_O, _MIXED_REQUEST_O, _EMPTY_O, _PREFILL_WEIGHTS, _DECODE_WEIGHTS = range(18, 23)

REACHES = ("cap", "prefill_pair_s", "prefill_context_s", "prefill_read_s", "decode_read_compute_s", "decode_read_s")
"""Columns of ``reaches``: compute per pair and per cached token of prefill, reads of the cache by phase."""
_CAP, _PAIR, _CONTEXT, _READ, _DECODE_COMPUTE, _DECODE_READ = range(6)

PARTS = ("prefill_compute", "prefill_memory", "decode_compute", "decode_memory", "comm", "overhead")
"""Rows of a breakdown; under the joint rule the first two hold both phases and the next two are zero."""


Constants: TypeAlias = tuple[float, ...]
Parts: TypeAlias = tuple[float, float, float, float]


@jit
def unpack(c: F64) -> Constants:
    """Return the constants as numbers, which stay in registers whatever the kernel writes to."""
    return (
        c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11],
        c[12], c[13], c[14], c[15], c[16], c[17], c[18], c[19], c[20], c[21], c[22],
    )  # fmt: skip


@jit
def causal_pairs(context: float, new: float, cap: float) -> float:
    """Return the query-key pairs of ``new`` tokens behind ``context`` cached ones; exact for whole numbers."""
    rising = min(max(cap + 1.0 - context, 0.0), new)  # tokens that do not yet fill the window
    return rising * (context + 0.5 * (rising + 1.0)) + (new - rising) * (cap + 1.0)


@jit
def slowdown(c: Constants, decoding: float, new: float) -> float:
    """Return 1 / (1 - penalty * share of the minority of tokens): 1 for a step of one phase, without a branch."""
    if c[_MIXED] == 0.0:
        return 1.0
    tokens = max(decoding + new, 1.0)
    return tokens / (tokens - c[_MIXED] * min(new, decoding))


@jit
def kv_seconds(c: Constants, read_s: float, decoding: float) -> float:
    """Return the seconds of cache reads at the bandwidth that ``decoding`` requests reach."""
    if c[_KV_GAIN] == 0.0:
        return read_s * c[_KV_BASE]
    return read_s / (1.0 / c[_KV_BASE] + c[_KV_GAIN] * min(decoding * c[_KV_BATCH], 1.0))


@jit
def joint_parts(
    c: Constants,
    read: float,
    decoding: float,
    prefills: float,
    new: float,
    emitting: float,
    compute: float,
    memory: float,
    kv_read: float,
) -> tuple[float, float]:
    """Return compute and memory of a step whose phases share one weight read of ``read`` seconds."""
    compute = (compute + c[_PREFILL_TOKEN] * new + c[_EMIT] * emitting) + c[_DECODE_REQUEST] * decoding
    memory += c[_TOKEN_MEMORY] * new + c[_REQUEST_MEMORY] * prefills + c[_DECODE_MEMORY] * decoding
    # counts are whole, so min(count, 1) says whether there is any; branches would be mispredicted
    any_prefill, any_decode = min(prefills, 1.0), min(decoding, 1.0)
    factor = any_decode * c[_DECODE_WEIGHTS]
    factor += any_prefill * (c[_PREFILL_WEIGHTS] - factor)
    head = c[_HEAD] * min(decoding + emitting, 1.0)
    memory += kv_seconds(c, kv_read, decoding) + (read + head) * factor
    return compute * slowdown(c, decoding, new), memory


@jit
def phase_parts(
    c: Constants,
    read: float,
    read_p: float,
    read_d: float,
    decoding: float,
    prefills: float,
    new: float,
    emitting: float,
    compute_p: float,
    memory_p: float,
    compute_d: float,
    kv_read: float,
) -> Parts:
    """Return compute and memory of prefill and of decode; ``read``: weights of all tokens, then of each phase's. [s]"""
    slower = slowdown(c, decoding, new)
    compute_p = (compute_p + c[_PREFILL_TOKEN] * new + c[_EMIT] * emitting) * slower
    compute_d = (compute_d + c[_DECODE_REQUEST] * decoding) * slower
    memory_p += c[_TOKEN_MEMORY] * new + c[_REQUEST_MEMORY] * prefills
    memory_d = c[_DECODE_MEMORY] * decoding + kv_seconds(c, kv_read, decoding)
    once = c[_RULE] == PHASE_SUM
    if prefills > 0.0:
        emits = emitting > 0.0 or (once and decoding > 0.0)
        memory_p += ((read if once else read_p) + (c[_HEAD] if emits else 0.0)) * c[_PREFILL_WEIGHTS]
    if decoding > 0.0 and not (once and prefills > 0.0):
        memory_d += (read_d + c[_HEAD]) * c[_DECODE_WEIGHTS]
    if c[_RULE] == TOKEN_WEIGHTED and decoding > 0.0 and prefills > 0.0:
        part = new / (decoding + new)
        return compute_p * part, memory_p * part, compute_d * (1.0 - part), memory_d * (1.0 - part)
    return compute_p, memory_p, compute_d, memory_d


@jit
def has_extras(c: Constants) -> bool:
    """Tell whether anything is charged beside compute and memory."""
    total = c[_COMM_TOKEN] + c[_COMM_FIXED] + c[_STEP_O] + c[_PREFILL_O] + c[_DECODE_O]
    return total + c[_PREFILL_REQUEST_O] + c[_MIXED_REQUEST_O] > 0.0


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
def hidden(c: Constants, compute: float, memory: float) -> float:
    """Return the time of compute and memory side by side: the larger, and what of the smaller is not overlapped."""
    return max(compute, memory) + c[_OVERLAP] * min(compute, memory)


@jit
def combine(c: Constants, parts: Parts) -> float:
    """Return the time of both phases, each with its own compute and memory."""
    prefill, decode = hidden(c, parts[0], parts[1]), hidden(c, parts[2], parts[3])
    return max(prefill, decode) if c[_RULE] == PHASE_MAX else prefill + decode


@jit
def seen_by_decode(contexts: I64, counts: I64, start: int, stop: int, cap: float) -> float:
    """Return the cached tokens that the decode requests of one step attend to, at most ``cap`` each."""
    # unsigned indices: with signed ones every access first tests for a negative one, at a quarter of the speed
    if counts.size == 1 and stop - start <= _EXACT_GROUPS:
        whole, limit = 0, int(cap)
        for k in range(np.uint64(start), np.uint64(stop)):
            whole += min(contexts[k], limit)
        return float(whole) * float(counts[0])
    total, stride = 0.0, np.uint64(counts.size > 1)
    for k in range(np.uint64(start), np.uint64(stop)):
        total += float(counts[k * stride]) * min(float(contexts[k]), cap)
    return total


@jit
def requests(counts: I64, start: int, stop: int) -> float:
    """Return the requests among the groups ``start`` to ``stop``."""
    if counts.size == 1:
        return float(counts[0]) * float(stop - start)
    total = 0.0
    for k in range(np.uint64(start), np.uint64(stop)):
        total += float(counts[k])
    return total
