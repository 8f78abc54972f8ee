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


# --------------------------------------------------------------------------- BLIS over MFU tables


def blis_table_time(model, gpu, step, lookup, *, tp, efficiency, layer_overhead):
    """Seconds of the MFU-table roofline; ``lookup`` answers gemm(m, k, n), prefill(seq_len), decode(batch, kv_len)."""
    d, layers, heads = model["hidden_size"], model["num_layers"], model["heads"]
    kv_heads, h, hd = model["kv_heads"] or heads, d / heads, d // heads
    width, b = model["intermediate_size"], model["act_bytes"]
    bandwidth, peak = gpu["bandwidth"] * efficiency, gpu["bf16"]

    def g(m, k, n):
        return max(2 * m * k * n / (peak * lookup.gemm(m, k, n)), k * n * b / bandwidth)

    def gemm(m):
        total = 2 * g(m, d, d) + 2 * g(m, d, kv_heads * hd) + 2 * g(m, d, width) + g(m, width, d)
        return layers / tp * total

    def dyn(p, t):
        x, y = (0.80, 0.75) if t == 1 else (0.92, 0.85)
        return 2 * layers * kv_heads * h * b * (t + p * x) + layers * d * b * t * y

    weights = (2 * d * d + 2 * d * kv_heads * h + 3 * d * width) * layers * b
    prefill, decode = step
    times = []
    if decode:
        f = [4 * heads * hd * p * layers for p in decode]
        mfu = [lookup.decode(len(decode), p) for p in decode]
        attention = 0.0
        if sum(f) > 0:
            mean = sum(x * m for x, m in zip(f, mfu, strict=True)) / sum(f)
            attention = sum(f) / (peak * mean) / tp
        times += [gemm(len(decode)) + attention, (weights + sum(dyn(p, 1) for p in decode)) / (tp * bandwidth)]
    if prefill:
        buckets = {}
        for p, t in prefill:
            size = 512
            while size < p + t and size < 65536:
                size *= 2
            buckets.setdefault(size, []).append((p, t))
        compute = 0.0
        for size in sorted(buckets):
            compute += gemm(sum(t for _, t in buckets[size]))
            for p, t in buckets[size]:
                compute += 4 * heads * hd * t * (p + t) * layers / 1.8 / (peak * lookup.prefill(size)) / tp
        times += [compute, (weights + sum(dyn(p, t) for p, t in prefill)) / (tp * bandwidth)]
    return max(times, default=0.0) + layer_overhead * layers / tp


# --------------------------------------------------------------------------- InferSim


def infersim_ms(model, gpu, phase, batch, length, lookup, *, tp=1, world=1):
    """Milliseconds of InferSim: TPOT of ``batch`` requests at ``length`` tokens, or TTFT of ``batch`` prompts of it.

    ``gpu`` holds datasheet figures in TFLOPS and GB/s; ``lookup`` answers gemm, prefill, decode, grouped(tokens).
    """
    d, layers, heads, kv_heads, hd = (model[k] for k in ("hidden_size", "num_layers", "heads", "kv_heads", "head_dim"))
    fp8 = model["fp8"]
    tokens = batch if phase == "decode" else batch * length
    bandwidth, link = gpu["hbm_gb"] * 0.8, gpu["link_gb"] * 0.8
    rate = gpu["fp8_tflops"] if fp8 else gpu["bf16_tflops"]
    weight = 1 if fp8 else 2

    def g(k, n):
        return 2 * tokens * k * n / 1e9 / (rate * 1024 * lookup.gemm(tokens, k, n))

    rank = heads // tp
    latent = model.get("latent")
    if latent:
        r, c, nope, rope, v = latent["q_rank"], latent["rank"], latent["nope"], latent["rope"], latent["v"]
        projections = g(d, r) + g(r, rank * (nope + rope)) + g(d, c + rope)
        projections += g(rank * nope, c) + g(rank * c, v) + g(rank * v, d)
        pair = 2 * heads * (2 * c + rope) if phase == "decode" else 2 * heads * (nope + rope + v)
        kv = layers * (c + rope) * model["kv_bytes"]
    else:
        kv_rank = kv_heads // tp
        projections = g(d, (rank + 2 * kv_rank) * hd) + g(rank * hd, d)
        pair = 4 * rank * hd
        kv = 2 * layers * kv_heads * hd * model["kv_bytes"]
    if phase == "decode":
        core = batch * pair * length / 1e9 / (1024 * gpu["bf16_tflops"] * lookup.decode(batch, length))
        attention = max(core, kv * length * batch / layers / 2**30 / bandwidth)
    else:
        core = length * pair * length / 1e9 / 1.8 / (1024 * gpu["bf16_tflops"] * lookup.prefill(length))
        attention = batch * max(core, kv * length / layers / 2**30 / bandwidth)
    experts, per_token = model.get("experts", 1), model.get("experts_per_token", 1)
    width = model["expert_width"] if experts > 1 else model["width"]
    mfu = max(lookup.grouped(phase, tokens)) if experts > 1 else lookup.gemm(tokens, d, width * 2 // world)
    routed = 2 * d * (width // tp) * tokens * per_token * 3 / 1e9 / (rate * 1024 * mfu)
    ffn = max(routed, 3 * d * width * weight * experts / world / 2**30 / bandwidth)
    for _ in range(1 if model.get("shared") else 0):
        inner = width // tp * model["shared"]
        ffn += g(d, 2 * inner) + g(inner, d)
    comm = 0.0
    if world > 1:
        comm = 2 * (2 * tokens * world * d / 2**30 / link)
    if tp > 1:
        comm += 2 * tokens * d * 2 * (tp - 1) / tp / 2**30 / link
    return 1000 * layers * (attention + projections + ffn + comm) + (5 if phase == "decode" else 30)
