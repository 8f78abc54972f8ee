"""One step of the roofline costs in plain Python, from coefficients in seconds; imports nothing of ours.

``c`` is a dict of coefficients. A request is a dict: ``context``, ``new`` and ``emits`` of a prompt, ``context`` of a
decode request; under MFU tables also ``mfu``, one value a kind of attention layer.
"""

from __future__ import annotations


def pairs(context, new, cap):
    """Query-key pairs of ``new`` tokens that see themselves and at most ``cap`` tokens before them."""
    return sum(min(context + i, cap + 1) for i in range(1, new + 1))


def beside(c, compute, memory):
    """The larger of compute and memory, and a share of the smaller."""
    return max(compute, memory) + c["overlap_penalty"] * min(compute, memory)


def slowdown(c, decoding, new):
    """Factor on compute: 1 / (1 - penalty x the minority's share of the tokens)."""
    if decoding + new == 0:
        return 1.0
    share = new / (decoding + new)
    return 1 / (1 - c["mixed_penalty"] * min(share, 1 - share))


def extras(c, decode, prefill):
    """Communication and overheads."""
    tokens, present = len(decode) + sum(r["new"] for r in prefill), bool(decode or prefill)
    comm = c["comm_token_s"] * tokens + (c["comm_fixed_s"] if present else 0.0)
    overhead = c["step_overhead_s"] if present else c["step_overhead_s"] * c["empty_overhead"]
    overhead += len(prefill) * (c["mixed_request_overhead_s"] if decode else c["prefill_request_overhead_s"])
    overhead += (c["prefill_overhead_s"] if prefill else 0.0) + (c["decode_overhead_s"] if decode else 0.0)
    return comm, overhead


# --------------------------------------------------------------------------- one MFU a phase


def constant_step(c, kinds, weights, prefill, decode):
    """Time and six parts: compute and memory of prefill, of decode, communication, overhead.

    ``c["rule"]`` is joint, sum, max or token_weighted; ``kinds`` are dicts, one a kind of attention layer; ``weights``
    are seconds by tokens, the last for all beyond.
    """
    new, decoding = sum(r["new"] for r in prefill), len(decode)
    emitting = sum(r["emits"] for r in prefill if r["new"])
    compute_p = c["prefill_token_s"] * new + c["emit_s"] * emitting
    compute_d = c["decode_request_s"] * decoding
    memory_p = c["prefill_token_memory_s"] * new + c["prefill_request_memory_s"] * len(prefill)
    memory_d = c["decode_request_memory_s"] * decoding
    read = 0.0
    for kind in kinds:
        for r in prefill:
            seen = min(r["context"], kind["cap"])
            compute_p += kind["prefill_pair_s"] * pairs(r["context"], r["new"], kind["cap"])
            compute_p += kind["prefill_context_s"] * seen
            memory_p += kind["prefill_read_s"] * seen
        for r in decode:
            seen = min(r["context"], kind["cap"])
            compute_d += kind["decode_read_compute_s"] * seen
            read += kind["decode_read_s"] * seen
    full = min(decoding * c["kv_per_batch"], 1.0)
    memory_d += read / (1 / c["kv_base"] + c["kv_gain"] * full)
    slow = slowdown(c, decoding, new)
    compute_p, compute_d = compute_p * slow, compute_d * slow

    def stream(tokens, head):
        return weights[min(tokens, len(weights) - 1)] + (c["head_weights_s"] if head else 0.0)

    if c["rule"] in ("joint", "sum"):  # one pass over the weights
        once = stream(new + decoding, emitting or decoding)
        if prefill:
            memory_p += once * c["prefill_weights"]
        elif decode:
            memory_d += once * c["decode_weights"]
    else:
        memory_p += stream(new, emitting) * c["prefill_weights"] if prefill else 0.0
        memory_d += stream(decoding, True) * c["decode_weights"] if decode else 0.0
    parts = [compute_p, memory_p, compute_d, memory_d]
    if c["rule"] == "joint":
        parts = [compute_p + compute_d, memory_p + memory_d, 0.0, 0.0]
    if c["rule"] == "token_weighted" and prefill and decode:
        share = new / (new + decoding)
        parts = [compute_p * share, memory_p * share, compute_d * (1 - share), memory_d * (1 - share)]
    times = beside(c, *parts[:2]), beside(c, *parts[2:])
    comm, overhead = extras(c, decode, prefill)
    return (max(times) if c["rule"] == "max" else sum(times)) + comm + overhead, [*parts, comm, overhead]


# --------------------------------------------------------------------------- MFU tables


def at(values, slope, count):
    """Entry ``count`` of a list of seconds, which goes on linearly beyond its end."""
    last = len(values) - 1
    return values[count] if count <= last else values[last] + slope * (count - last)


def area(c, context, new, cap):
    """The part of the attention square that a chunk is charged."""
    length = context + new
    if c["square"]:
        return new * min(length, cap + 1) / c["divisor"]
    if cap == float("inf"):
        return new * context + new * new / c["divisor"]
    # the area under min(x, window), token by token, the corner of the window lying on a whole number
    window = cap + 1
    under = sum((min(x, window) + min(x + 1, window)) / 2 for x in range(context, length))
    return under * 2 / c["divisor"]


def decode_attention(c, kind, k, decode):
    """Seconds of decode attention of the layers of kind ``k``."""
    seen = [min(r["context"], kind["cap"]) for r in decode]
    live = [(s + c["own"], r["mfu"][k]) for s, r in zip(seen, decode, strict=True) if s + c["own"] > 0]
    if not live:
        return 0.0
    total = sum(kv for kv, _ in live)
    if c["aggregation"] == "per_request":
        time = sum(kv / mfu for kv, mfu in live)
    elif c["aggregation"] == "flops_weighted":
        time = total / (sum(kv * mfu for kv, mfu in live) / total)
    else:
        longest = max(kv for kv, _ in live)
        time = total / next(mfu for kv, mfu in live if kv == longest)
    return max(kind["decode_s"] * time, kind["decode_read_s"] * sum(seen))


def prompt_attention(c, kind, k, request):
    """Seconds of prefill attention of one request in the layers of kind ``k``."""
    context, new, cap = request["context"], request["new"], kind["cap"]
    if not new:
        return 0.0
    time = kind["prefill_s"] * area(c, context, new, cap) / request["mfu"][k]
    return max(time, kind["prefill_read_s"] * (min(context, cap) + new))


def table_step(c, kinds, tokens_s, heads_s, prefill, decode):
    """Time and ten parts: GEMMs, LM head, attention, memory of prefill, of decode, communication, overhead.

    ``tokens_s`` are two lists of seconds by tokens, of decode steps and of steps with prefill; ``heads_s`` by requests
    that emit.
    """
    new, decoding = sum(r["new"] for r in prefill), len(decode)
    emitting = sum(r["emits"] for r in prefill if r["new"])
    slopes = c["decode_slope_s"], c["prefill_slope_s"]

    def products(row, tokens):
        return at(tokens_s[row], slopes[row], tokens)

    def head(requests):
        return at(heads_s, c["head_slope_s"], requests)

    attention_p = sum(prompt_attention(c, kind, k, r) for k, kind in enumerate(kinds) for r in prefill)
    attention_d = sum(decode_attention(c, kind, k, decode) for k, kind in enumerate(kinds))
    memory_p = memory_d = 0.0
    for r in prefill:
        phase = "decode" if r["new"] == 1 else "prefill"
        memory_p += c[f"{phase}_token_memory_s"] * r["new"] + c[f"{phase}_context_memory_s"] * r["context"]
    for r in decode:
        memory_d += c["decode_token_memory_s"] + c["decode_context_memory_s"] * r["context"]
    memory_p += c["weights_s"] if prefill else 0.0
    slow = slowdown(c, decoding, new)
    if c["rule"] == "joint":  # one pass: products, LM head and weights of all tokens are the prefill phase's
        memory_d += c["weights_s"] if decode and not prefill else 0.0
        there = bool(prefill or decode)
        gemms = products(int(new > 0), new + decoding) if there else 0.0
        heads = head(emitting + decoding) if there else 0.0
        parts = [gemms * slow, heads * slow, attention_p * slow, memory_p, 0.0, 0.0, attention_d * slow, memory_d]
        time = beside(c, sum(parts[:3]) + parts[6], memory_p + memory_d)
    else:
        memory_d += c["weights_s"] if decode else 0.0
        sizes = {}
        for r in prefill:
            size = c["bucket_min"]
            while size and size < min(c["bucket_max"], r["context"] + r["new"]):
                size *= 2
            sizes[size] = sizes.get(size, 0) + r["new"]
        p = [sum(products(1, tokens) for tokens in sizes.values()), head(emitting) if prefill else 0.0, attention_p]
        d = [products(0, decoding) if decode else 0.0, head(decoding) if decode else 0.0, attention_d]
        share_p = share_d = 1.0
        if c["rule"] == "token_weighted" and prefill and decode:
            share_p = new / (new + decoding)
            share_d = 1 - share_p
        parts = [x * slow * share_p for x in p] + [memory_p * share_p]
        parts += [x * slow * share_d for x in d] + [memory_d * share_d]
        times = beside(c, sum(parts[:3]), parts[3]), beside(c, sum(parts[4:7]), parts[7])
        time = max(times) if c["rule"] == "max" else sum(times)
    comm, overhead = extras(c, decode, prefill)
    return time + comm + overhead, [*parts, comm, overhead]


# --------------------------------------------------------------------------- MFU of attention from times


def line(x, xs, ys):
    """Piecewise linear through the points; beyond the last, in proportion to ``x``."""
    if x >= xs[-1]:
        return ys[-1] * x / xs[-1]
    for (x0, y0), (x1, y1) in zip(zip(xs, ys, strict=True), zip(xs[1:], ys[1:], strict=True), strict=False):
        if x0 <= x < x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return ys[0]  # below the first, as there


def decode_mfu(batches, kv_lens, seconds, at_one_s, cap, own, batch, context):
    """MFU of one of ``batch`` like decode requests; the time is bilinear, and held below the first batch."""
    kv = min(context, cap) + own
    if not batch or not kv:
        return 1.0
    columns = [line(max(batch, batches[0]), batches, [row[j] for row in seconds]) for j in range(len(kv_lens))]
    return at_one_s * batch * kv / line(kv, kv_lens, columns)


def prefill_mfu(c, lengths, values, blend, launch, launch_kept, at_one_s, cap, context, new):
    """MFU of one chunk: its share of the time that the whole prompt takes."""
    if not new:
        return 1.0
    length = context + new
    value = line(length, lengths, values)
    whole = value * value if blend == "sqrt" else launch + length * value
    fixed = launch if launch_kept else 0.0
    plain = {"square": 0.0, "divisor": 2.0}
    share = area(plain, context, new, cap) / area(plain, 0, length, float("inf"))
    return at_one_s * area(c, context, new, cap) / (fixed + (whole - fixed) * share)
