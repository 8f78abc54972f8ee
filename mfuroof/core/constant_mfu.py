"""Step time of the constant-MFU roofline: sums over the requests of a step, then a fixed number of operations.

Every quantity is linear in a few sums, so a step is: sum (integers, vectorised by the compiler), one table read for
the weights (expected distinct experts by tokens), one comparison of compute with memory. All coefficients are
seconds; which peer they belong to is not known here.

``reaches`` has one row per kind of attention layer by how far back it sees: `CAP` cached tokens at most, then the
seconds per query-key pair and per cached token. A request of ``new`` tokens behind ``context`` cached ones has
sum(min(context + i, cap + 1), i = 1..new) pairs.
"""

from __future__ import annotations

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
    "combine",
    "ragged_step",
    "uniform_step",
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
    "kv_base",
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

(_RULE, _MIXED, _OVERLAP, _PREFILL_TOKEN, _EMIT, _DECODE_REQUEST, _TOKEN_MEMORY, _REQUEST_MEMORY, _DECODE_MEMORY) = range(9)
(_HEAD, _KV_BASE, _KV_GAIN, _KV_BATCH, _COMM_TOKEN, _COMM_FIXED, _STEP_O, _PREFILL_O, _DECODE_O) = range(9, 18)
(_PREFILL_REQUEST_O, _MIXED_REQUEST_O, _EMPTY_O, _PREFILL_WEIGHTS, _DECODE_WEIGHTS) = range(18, 23)

REACHES = ("cap", "prefill_pair_s", "prefill_context_s", "prefill_read_s", "decode_read_compute_s", "decode_read_s")
"""Columns of ``reaches``: compute per pair and per cached token of prefill, reads of the cache by phase."""
_CAP, _PAIR, _CONTEXT, _READ, _DECODE_COMPUTE, _DECODE_READ = range(6)

PARTS = ("prefill_compute", "prefill_memory", "decode_compute", "decode_memory", "comm", "overhead")
"""Rows of a breakdown; under the joint rule the first two hold both phases and the next two are zero."""


@jit
def causal_pairs(context: float, new: float, cap: float) -> float:
    """Query-key pairs of ``new`` tokens behind ``context`` cached ones; exact for whole numbers."""
    rising = min(max(cap + 1.0 - context, 0.0), new)  # tokens that do not yet fill the window
    return rising * (context + 0.5 * (rising + 1.0)) + (new - rising) * (cap + 1.0)


@jit
def weights_at(weights: F64, tokens: float) -> float:
    """Seconds to read the weights that ``tokens`` tokens need."""
    return weights[int(min(tokens, weights.size - 1))]  # type: ignore[no-any-return]


@jit
def finish(
    constants: F64,
    weights: F64,
    decoding: float,
    prefills: float,
    new: float,
    emitting: float,
    compute_p: float,
    memory_p: float,
    compute_d: float,
    memory_d: float,
) -> tuple[float, float, float, float, float, float]:
    """Parts of a step (`PARTS`) from the sums of its phases; ``decoding`` and ``prefills`` count requests."""
    c = constants
    mixed = decoding > 0.0 and prefills > 0.0
    tokens = decoding + new
    if mixed and c[_MIXED] > 0.0:
        share = new / tokens
        slower = 1.0 / (1.0 - c[_MIXED] * min(share, 1.0 - share))
        compute_p *= slower
        compute_d *= slower
    if c[_RULE] == JOINT or c[_RULE] == PHASE_SUM:
        read = weights_at(weights, tokens) + (c[_HEAD] if decoding + emitting > 0.0 else 0.0)
        if prefills > 0.0:
            memory_p += read * c[_PREFILL_WEIGHTS]
        elif decoding > 0.0:
            memory_d += read * c[_DECODE_WEIGHTS]
    else:
        if prefills > 0.0:
            memory_p += (weights_at(weights, new) + (c[_HEAD] if emitting > 0.0 else 0.0)) * c[_PREFILL_WEIGHTS]
        if decoding > 0.0:
            memory_d += (weights_at(weights, decoding) + c[_HEAD]) * c[_DECODE_WEIGHTS]
    if c[_RULE] == JOINT:
        compute_p += compute_d
        memory_p += memory_d
        compute_d = 0.0
        memory_d = 0.0
    elif c[_RULE] == TOKEN_WEIGHTED and mixed:
        part = new / tokens
        compute_p *= part
        memory_p *= part
        compute_d *= 1.0 - part
        memory_d *= 1.0 - part
    comm = c[_COMM_TOKEN] * tokens
    overhead = 0.0
    if decoding + prefills > 0.0:
        comm += c[_COMM_FIXED]
        overhead = c[_STEP_O]
        if prefills > 0.0:
            per_request = c[_MIXED_REQUEST_O] if mixed else c[_PREFILL_REQUEST_O]
            overhead += c[_PREFILL_O] + prefills * per_request
        if decoding > 0.0:
            overhead += c[_DECODE_O]
    else:
        overhead = c[_STEP_O] * c[_EMPTY_O]
    return compute_p, memory_p, compute_d, memory_d, comm, overhead


@jit
def combine(constants: F64, parts: tuple[float, float, float, float, float, float]) -> float:
    """Step time from its parts."""
    compute_p, memory_p, compute_d, memory_d, comm, overhead = parts
    q = constants[_OVERLAP]
    prefill = max(compute_p, memory_p) + q * min(compute_p, memory_p)
    decode = max(compute_d, memory_d) + q * min(compute_d, memory_d)
    phases = max(prefill, decode) if constants[_RULE] == PHASE_MAX else prefill + decode
    return phases + comm + overhead


@jit
def uniform_step(
    constants: F64,
    reaches: F64,
    weights: F64,
    decoding: float,
    decode_context: float,
    prefills: float,
    new: float,
    context: float,
    emits: float,
) -> tuple[float, float, float, float, float, float]:
    """Parts of one step of two shapes."""
    c = constants
    tokens = prefills * new
    emitting = prefills * emits if new > 0.0 else 0.0
    compute_p = c[_PREFILL_TOKEN] * tokens + c[_EMIT] * emitting
    memory_p = c[_TOKEN_MEMORY] * tokens + c[_REQUEST_MEMORY] * prefills
    compute_d = c[_DECODE_REQUEST] * decoding
    read_d = 0.0
    for j in range(reaches.shape[0]):
        cap = reaches[j, _CAP]
        seen_d = decoding * min(decode_context, cap)
        compute_d += reaches[j, _DECODE_COMPUTE] * seen_d
        read_d += reaches[j, _DECODE_READ] * seen_d
        seen_p = prefills * min(context, cap)
        compute_p += reaches[j, _PAIR] * (prefills * causal_pairs(context, new, cap)) + reaches[j, _CONTEXT] * seen_p
        memory_p += reaches[j, _READ] * seen_p
    memory_d = c[_DECODE_MEMORY] * decoding
    memory_d += read_d / (c[_KV_BASE] + c[_KV_GAIN] * min(decoding * c[_KV_BATCH], 1.0))
    return finish(c, weights, decoding, prefills, tokens, emitting, compute_p, memory_p, compute_d, memory_d)


@jit
def seen_by_decode(contexts: I64, counts: I64, start: int, stop: int, cap: float) -> float:
    """Cached tokens that the decode requests of one step attend to, at most ``cap`` each."""
    if counts.size == 1 and stop - start <= _EXACT_GROUPS:
        whole, limit = 0, int(cap)
        for k in range(start, stop):
            whole += min(contexts[k], limit)
        return float(whole) * float(counts[0])
    total, stride = 0.0, int(counts.size > 1)
    for k in range(start, stop):
        total += float(counts[k * stride]) * min(float(contexts[k]), cap)
    return total


@jit
def requests(counts: I64, start: int, stop: int) -> float:
    """Requests among the groups ``start`` to ``stop``."""
    if counts.size == 1:
        return float(counts[0]) * float(stop - start)
    total = 0.0
    for k in range(start, stop):
        total += float(counts[k])
    return total


@jit
def ragged_step(
    constants: F64,
    reaches: F64,
    weights: F64,
    d_contexts: I64,
    d_counts: I64,
    d_start: int,
    d_stop: int,
    p_contexts: I64,
    p_new: I64,
    p_counts: I64,
    p_emits: I64,
    p_start: int,
    p_stop: int,
) -> tuple[float, float, float, float, float, float]:
    """Parts of one step of request groups."""
    c = constants
    decoding = requests(d_counts, d_start, d_stop)
    compute_d, read_d = c[_DECODE_REQUEST] * decoding, 0.0
    for j in range(reaches.shape[0]):
        seen = seen_by_decode(d_contexts, d_counts, d_start, d_stop, reaches[j, _CAP])
        compute_d += reaches[j, _DECODE_COMPUTE] * seen
        read_d += reaches[j, _DECODE_READ] * seen
    memory_d = c[_DECODE_MEMORY] * decoding
    memory_d += read_d / (c[_KV_BASE] + c[_KV_GAIN] * min(decoding * c[_KV_BATCH], 1.0))
    count_stride, emit_stride = int(p_counts.size > 1), int(p_emits.size > 1)
    prefills, tokens, emitting = 0.0, 0.0, 0.0
    for k in range(p_start, p_stop):
        count = float(p_counts[k * count_stride])
        prefills += count
        tokens += count * float(p_new[k])
        if p_new[k] > 0:
            emitting += count * float(p_emits[k * emit_stride])
    compute_p = c[_PREFILL_TOKEN] * tokens + c[_EMIT] * emitting
    memory_p = c[_TOKEN_MEMORY] * tokens + c[_REQUEST_MEMORY] * prefills
    for j in range(reaches.shape[0]):
        cap = reaches[j, _CAP]
        pairs, seen = 0.0, 0.0
        for k in range(p_start, p_stop):
            count, context = float(p_counts[k * count_stride]), float(p_contexts[k])
            pairs += count * causal_pairs(context, float(p_new[k]), cap)
            seen += count * min(context, cap)
        compute_p += reaches[j, _PAIR] * pairs + reaches[j, _CONTEXT] * seen
        memory_p += reaches[j, _READ] * seen
    return finish(c, weights, decoding, prefills, tokens, emitting, compute_p, memory_p, compute_d, memory_d)
