"""KV capacity in plain Python, element by element: the definition that `mfuroof.capacity` must equal.

A model is a dict: d, vocab, tied, heads, kv_heads, head_dim, and layers, a list of dicts with ``window`` (None or
tokens), and either ``width`` (dense) or ``experts``, ``top``, ``expert_width`` and ``shared``. Weights have 2 bytes.
"""

from __future__ import annotations

import math
from fractions import Fraction

GIB = 2**30


def stage_of(layer, num_layers, pp):
    """vLLM's split: equal stages, the remainder one each on the stages before the last."""
    base, extra = divmod(num_layers, pp)
    sizes = [base + (1 if pp - 1 - extra <= s < pp - 1 else 0) for s in range(pp)]
    assert sum(sizes) == num_layers
    for stage, size in enumerate(sizes):
        if layer < size:
            return stage
        layer -= size
    raise AssertionError


def weight_params(m, layer, tp, ep, dp):
    """Parameters of one layer on one rank."""
    d, hd = m["d"], m["head_dim"]
    query = Fraction(2 * d * m["heads"] * hd, tp)
    key_value = 2 * d * hd * max(1, m["kv_heads"] // tp)
    if "width" in layer:
        mlp = Fraction(3 * d * layer["width"], tp)
    else:
        local_experts = math.ceil(layer["experts"] / ep)
        ranks_per_expert = tp * dp // ep
        mlp = Fraction(local_experts * 3 * d * layer["expert_width"], ranks_per_expert)
        mlp += Fraction(3 * d * layer["shared"], tp) + layer["experts"] * d
    return query + key_value + mlp + 2 * d


def rank_weight_bytes(m, stage, tp, pp, ep, dp):
    layers = m["layers"]
    params = sum(
        weight_params(m, layer, tp, ep, dp) for i, layer in enumerate(layers) if stage_of(i, len(layers), pp) == stage
    )
    table = Fraction(m["vocab"] * m["d"], tp)
    if stage == 0:
        params += table
    if stage == pp - 1:
        params += m["d"]
        if not m["tied"] or pp > 1:
            params += table
    return 2 * params


def activation_bytes(m, stage, tp, pp, ep, dp, tokens, sequences):
    widest = 0
    for i, layer in enumerate(m["layers"]):
        if stage_of(i, len(m["layers"]), pp) != stage:
            continue
        attention = Fraction(2 * m["heads"] * m["head_dim"], tp) + 2 * m["head_dim"] * max(
            Fraction(m["kv_heads"], tp), 1
        )
        if "width" in layer:
            mlp = Fraction(3 * layer["width"], tp)
        else:
            width = Fraction(layer["expert_width"] * ep, tp * dp)
            mlp = max(layer["top"] * (max(2 * width, m["d"]) + width), Fraction(3 * layer["shared"], tp))
        widest = max(widest, attention, mlp)
    has_table = stage in (0, pp - 1)
    return max(tokens * 2 * (2 * m["d"] + widest), sequences * 10 * (m["vocab"] if has_table else 0))


def layer_token_bytes(m, tp, element):
    return 2 * m["head_dim"] * max(1, m["kv_heads"] // tp) * Fraction(element)


def capacity(
    m, memory, tp=1, pp=1, ep=1, dp=1, *, block=16, util=0.9, element=2, seq_len=1, tokens=8192, sequences=1024,
    framework=0.75 * GIB, graphs=0.5 * GIB, comm=1.0 * GIB,
):  # fmt: skip
    """(blocks, sequences of seq_len) of all dp caches together."""
    reserve = Fraction(framework) + Fraction(graphs) + (Fraction(comm) if tp * pp * dp > 1 else 0)
    blocks, most = [], []
    for stage in range(pp):
        left = Fraction(memory) * Fraction(util) - reserve
        left -= rank_weight_bytes(m, stage, tp, pp, ep, dp)
        left -= activation_bytes(m, stage, tp, pp, ep, dp, tokens, sequences)
        per_token = per_sequence = Fraction(0)
        for i, layer in enumerate(m["layers"]):
            if stage_of(i, len(m["layers"]), pp) != stage:
                continue
            size = layer_token_bytes(m, tp, element)
            kept = min(seq_len, layer["window"] or seq_len)
            per_token += size
            per_sequence += size * block * math.ceil(kept / block)
        left = max(math.floor(left), 0)
        blocks.append(math.floor(left / (per_token * block)))
        most.append(math.floor(left / per_sequence))
    return dp * min(blocks), dp * min(most)


def blis_blocks(
    *, d, layers, heads, kv_heads, head_dim, width, vocab, tied, memory_gib, util=0.9, block=16, element=2,
    weight=2.0, experts=0, expert_width=0, shared=0, first_dense=0, latent=0, rope=0, dp=1,
):  # fmt: skip
    """BLIS's blocks at one rank, from the description of its formula (floats as it uses them)."""
    per_token = layers * (latent + rope) * element if latent else layers * 2 * head_dim * kv_heads * element
    block_bytes = int(per_token * block)
    params = vocab * d * (1 if tied else 2) + layers * (2 * d * d + 2 * d * kv_heads * head_dim + 2 * d) + d
    is_moe = experts >= 2
    if is_moe:
        params += first_dense * 3 * d * width
        params += (layers - first_dense) * (3 * d * expert_width * experts + 3 * d * shared + experts * d)
    else:
        params += layers * 3 * d * width
    weights = int(params * weight)
    budget = memory_gib * util - weights / GIB - (8.0 if is_moe else 5.5) - 0.15
    return int(max(budget, 0) * GIB) // block_bytes * (dp if is_moe else 1)
