"""The roofline costs in plain Python, one formula at a time; imports nothing of ours.

A step is ``(prefill, decode)``: a list of ``(context, new tokens)`` pairs and a list of contexts. Models and GPUs are
dicts of numbers.
"""

from __future__ import annotations

import math

# --------------------------------------------------------------------------- BLIS, one MFU a phase


def blis_parts(model, gpu, step, *, tp=1, mfu_prefill, mfu_decode, mixed=0.0):
    """Compute and memory seconds of BLIS's roofline of 2026."""
    d, layers, heads = model["hidden_size"], model["num_layers"], model["heads"]
    kv_heads = model["kv_heads"] or heads
    h = d / heads
    width = model["intermediate_size"] if model["intermediate_size"] > 0 else 4 * d
    experts, per_token = model.get("num_experts", 0), model.get("experts_per_token", 0)
    moe_layers = 0
    if experts >= 2:
        interleave = model.get("interleave", 0)
        moe_layers = layers // (interleave + 1) if interleave > 0 else layers
    dense_layers = layers - moe_layers
    moe_width = model.get("moe_intermediate_size", 0) or width
    dense_width = model.get("intermediate_size_mlp", 0) or width
    act, weight = model["act_bytes"], model["weight_bytes"]

    def flops(p, t):
        c = p + (t - 1) / 2
        total = 2 * t * (2 * d * d + 2 * d * kv_heads * h) * layers
        total += 4 * heads * h * t * c * layers
        total += (5 * heads * t * c + 2 * t * d) * layers
        return total + 4 * t * d * (moe_width * per_token * moe_layers + dense_width * dense_layers)

    def moved(p, t):
        return 2 * layers * kv_heads * h * act * (p + t) + layers * d * act * t

    prefill, decode = step
    if not prefill and not decode:
        return 0.0, 0.0
    tokens = sum(t for _, t in prefill) + len(decode)
    distinct = experts * (1 - ((experts - per_token) / experts) ** tokens) if moe_layers else 0.0
    weights = weight * (
        (2 * d * d + 2 * d * kv_heads * h) * layers
        + 2 * d * dense_width * dense_layers
        + 2 * d * moe_width * moe_layers * distinct
    )
    peak = gpu["fp8"] if weight == 1.0 and gpu["fp8"] > 0 else gpu["bf16"]
    compute = sum(flops(p, t) for p, t in prefill) / mfu_prefill + sum(flops(p, 1) for p in decode) / mfu_decode
    compute /= tp * peak
    if mixed > 0 and prefill and decode:
        f = sum(t for _, t in prefill) / tokens
        compute /= 1 - mixed * min(f, 1 - f)
    memory = weights + sum(moved(p, t) for p, t in prefill) + sum(moved(p, 1) for p in decode)
    return compute, memory / (tp * gpu["bandwidth"])


def blis_time(model, gpu, step, *, overlap=0.0, **kwargs):
    """Seconds of BLIS's roofline."""
    compute, memory = blis_parts(model, gpu, step, **kwargs)
    return max(compute, memory) + overlap * min(compute, memory)


def blis_us(seconds):
    """Its rounding: truncation, and the largest integer for what does not fit."""
    us = seconds * 1e6
    return 2**63 - 1 if not us < 2**63 else math.trunc(us)


# --------------------------------------------------------------------------- BLIS, the calibrated form


def calibrated_time(model, gpu, step, *, tp, c):
    """Seconds of the calibrated roofline; ``c`` holds its constants."""
    d, layers, heads = model["hidden_size"], model["num_layers"], model["heads"]
    kv_heads, h = model["kv_heads"] or heads, d / heads
    width, b = model["intermediate_size"] or 4 * d, model["act_bytes"]
    d_kv = kv_heads * h

    def gemm(t):
        return (2 * t * (d * d + 2 * d * d_kv) + 2 * t * d * d + 2 * t * 3 * d * width) * layers

    def vector(p, t):
        ctx = p + (t - 1) / 2 if t > 1 else p
        return (2 * heads * t * ctx * h + 4 * heads * t * ctx + 2 * heads * t * ctx * h) * layers

    def moved(p, t, kv, act):
        return 2 * layers * d_kv * b * (t + kv * p) + layers * d * b * t * act

    weights = (d * (d + 2 * d_kv) + d * d + 3 * d * width) * layers * b
    bandwidth = gpu["bandwidth"] * c["bandwidth_efficiency"]
    prefill, decode = step
    times = {}
    for phase, requests, mfu, power, memory_power, factor, kv, act in (
        ("p", prefill, c["mfu_prefill"], c["prefill_tp_exponent"], 1.0, c["prefill_factor"], 0.92, 0.85),
        ("d", [(p, 1) for p in decode], c["mfu_decode"], c["decode_tp_exponent"], c["decode_tp_exponent"],
         c["decode_factor"], 0.80, 0.75),
    ):  # fmt: skip
        if requests:
            split = tp**power
            compute = sum(gemm(t) for _, t in requests) / split / (gpu["bf16"] * mfu)
            compute += sum(vector(p, t) for p, t in requests) / split / (c["vector"] * gpu["bf16"])
            total = weights + sum(moved(p, t, kv, act) for p, t in requests)
            times[phase] = max(compute, total / tp**memory_power / (bandwidth * factor))
    new, decoding = sum(t for _, t in prefill), len(decode)
    if len(times) == 2:
        time = (new * times["p"] + decoding * times["d"]) / (new + decoding)
    else:
        time = sum(times.values())
    if not times:
        return 0.0
    if tp > 1:
        time += 2 * layers * c["all_reduce"]
    return time + c["overhead"] + len(prefill) * (c["mixed_overhead"] if decode else c["prefill_overhead"])


# --------------------------------------------------------------------------- ours


def seen(context, i, window):
    """Keys that token ``i`` (from 1) behind ``context`` cached ones attends to, itself included."""
    return context + i if window is None else min(context + i, window)


def layered_parts(model, gpu, step, *, tp, mfu_prefill, mfu_decode):
    """Compute and memory seconds of a dense or mixture transformer, matrix by matrix, with its LM head.

    ``model["layers"]`` lists each layer: heads, kv_heads, head_dim, window, and its MLP: width and matrices, or
    experts, experts_per_token, expert_width, shared_width.
    """
    d, act = model["hidden_size"], 2.0
    prefill, decode = step
    if not prefill and not decode:
        return 0.0, 0.0
    new, decoding = sum(t for _, t in prefill), len(decode)
    tokens = new + decoding
    emitting = sum(1 for _, t in prefill if t > 0) + decoding
    flops_p = flops_d = moved = 0.0
    for layer in model["layers"]:
        heads, kv_heads, hd, window = layer["heads"], layer["kv_heads"], layer["head_dim"], layer.get("window")
        kv_share = 1 / min(tp, kv_heads)
        per_token = 2 * d * heads * hd * 2 / min(tp, heads) + 2 * d * kv_heads * hd * 2 * kv_share
        weights = per_token / 2 * model["weight_bytes"] + 2 * d * act
        if layer.get("experts"):
            n, k, expert = layer["experts"], layer["experts_per_token"], 3 * d * layer["expert_width"]
            per_token += 2 * d * n + 2 * k * expert / tp + 2 * 3 * d * layer["shared_width"] / tp
            weights += d * n * model["weight_bytes"] + 3 * d * layer["shared_width"] / tp * model["weight_bytes"]
            weights += n * (1 - (1 - k / n) ** tokens) * expert / tp * model["weight_bytes"]
        else:
            per_token += 2 * layer["matrices"] * d * layer["width"] / tp
            weights += layer["matrices"] * d * layer["width"] / tp * model["weight_bytes"]
        pair = 4 * heads * hd / min(tp, heads)
        cached = 2 * kv_heads * hd * kv_share * model["kv_bytes"]
        flops_p += per_token * new
        flops_d += per_token * decoding
        for p, t in prefill:
            flops_p += pair * sum(seen(p, i, window) for i in range(1, t + 1))
            moved += cached * ((p if window is None else min(p, window - 1)) + t)
        for p in decode:
            flops_d += pair * seen(p, 1, window)
            moved += cached * ((p if window is None else min(p, window - 1)) + 1)
        moved += weights + d * act * tokens
    head = d * model["vocab_size"] / tp
    flops_p += 2 * head * sum(1 for _, t in prefill if t > 0)
    flops_d += 2 * head * decoding
    moved += head * act * (1 if emitting else 0) + d * act * tokens
    compute = flops_p / (gpu["bf16"] * mfu_prefill) + flops_d / (gpu["bf16"] * mfu_decode)
    return compute, moved / gpu["bandwidth"]
