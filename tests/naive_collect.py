"""Plain definitions of what the collector's kernels compute; nothing of the package is imported."""

from __future__ import annotations

import math


def attention(query, keys, values):
    """One head: row i of n queries sees all but the last n - 1 - i keys."""
    out = []
    n, total, dim = len(query), len(keys), len(query[0])
    for i, q in enumerate(query):
        seen = total - (n - 1 - i)
        scores = [sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(dim) for k in keys[:seen]]
        top = max(scores)
        weights = [math.exp(s - top) for s in scores]
        whole = sum(weights)
        out.append([sum(w * v[j] for w, v in zip(weights, values, strict=False)) / whole for j in range(dim)])
    return out


def silu(x):
    return x / (1.0 + math.exp(-x))


def rms_norm(row):
    scale = math.sqrt(sum(x * x for x in row) / len(row) + 1e-6)
    return [x / scale for x in row]


def matvec(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def rotated(head, position, base):
    """Rotary embedding of one head: element i turns together with element i + dim / 2."""
    half = len(head) // 2
    out = list(head)
    for i in range(half):
        angle = position * base ** (-2.0 * i / len(head))
        c, s = math.cos(angle), math.sin(angle)
        out[i], out[i + half] = head[i] * c - head[i + half] * s, head[i + half] * c + head[i] * s
    return out


def decoder_token(layers, embedding, head, token, position, caches, heads, kv_heads, dim, base):
    """Logits of one token at a position, given what the caches hold of the tokens before it.

    ``layers`` are dicts of nested lists (qkv, o, gate_up, down); ``caches`` one list of (keys, values) a layer, each
    [position][kv head][dim], to which this token is appended.
    """
    x = list(embedding[token])
    for layer, (keys, values) in zip(layers, caches, strict=True):
        flat = matvec(layer["qkv"], rms_norm(x))
        split = [flat[i * dim : (i + 1) * dim] for i in range(heads + 2 * kv_heads)]
        query = [rotated(h, position, base) for h in split[:heads]]
        keys.append([rotated(h, position, base) for h in split[heads : heads + kv_heads]])
        values.append(split[heads + kv_heads :])
        joined = []
        for h in range(heads):
            kv = h * kv_heads // heads
            joined += attention([query[h]], [k[kv] for k in keys], [v[kv] for v in values])[0]
        x = [a + b for a, b in zip(x, matvec(layer["o"], joined), strict=True)]
        both = matvec(layer["gate_up"], rms_norm(x))
        width = len(both) // 2
        gated = [silu(g) * u for g, u in zip(both[:width], both[width:], strict=True)]
        x = [a + b for a, b in zip(x, matvec(layer["down"], gated), strict=True)]
    return matvec(head, rms_norm(x))
