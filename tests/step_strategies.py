"""Hypothesis strategies for batch shapes and for small synthetic tables, and the evaluators the step tests share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
from hypothesis import strategies as st

import mfuroof as mr
from mfuroof.core.step import StepTables
from mfuroof.costs.pack import Lanes, PrefillPart, pack

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
LLAMA_8B, LLAMA_70B = "meta-llama/Meta-Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-70B"
BOUND = {
    "8B on H100": (LLAMA_8B, "h100_sxm", 1, {}),
    "8B on L40S": (LLAMA_8B, "l40s", 1, {}),
    "70B fp8 on 4 H100": (LLAMA_70B, "h100_sxm", 4, {"weight_dtype": "fp8", "kv_dtype": "fp8"}),
    "32B on 2 H200": ("Qwen/Qwen3-32B", "h200_sxm", 2, {}),
}
"""Real evaluators of the tests: dense models, one and several ranks, bf16 and fp8, several GPUs."""
TRANSFERRED = {
    "BLOOM on 4 H100": ("bigscience/bloom", "h100_sxm", 4, {}),
    "Llama-2-13B on 2 B200": ("meta-llama/Llama-2-13b-hf", "b200_sxm", 2, {}),
    "BLOOM on L40S": ("bigscience/bloom", "l40s", 1, {}),
    "R1 on 4 H100": ("deepseek-ai/DeepSeek-R1", "h100_sxm", 4, {}),
}
"""Attention shapes that no table holds, one whose table has a hole, and latent attention."""
WINDOWED = {"Gemma-4 on 4 H100": ("nvidia/Gemma-4-31B-IT-NVFP4", "h100_sxm", 4, {})}
"""Layers with a sliding window among others without."""


def size(compiled: int, interpreted: int) -> int:
    """Return how many steps to price, fewer where the kernels run in the interpreter."""
    return interpreted if INTERPRETED else compiled


@cache
def evaluator(name: str = "8B on H100", preset: str = "own") -> mr.StepEvaluator:
    model, gpu, tp, precision = {**BOUND, **TRANSFERRED, **WINDOWED}[name]
    params = {"own": mr.CostParams, "raw": lambda: mr.CostParams(monotone=False), "aic": mr.CostParams.aiconfigurator}
    return mr.StepEvaluator(model, gpu, tp_size=tp, params=params[preset](), **precision)


# ------------------------------------------------------------------ counts and batches


def counts(limit: int, minimum: int = 0):
    """Whole numbers up to ``limit``, with the powers of two and what is beside them, where cells begin."""
    edges = [p + d for b in range(limit.bit_length()) for p in (2**b,) for d in (-1, 0, 1)]
    edges = sorted({e for e in edges if minimum <= e <= limit} | {minimum, limit})
    return st.one_of(
        st.integers(minimum, min(limit, minimum + 20)), st.sampled_from(edges), st.integers(minimum, limit)
    )


def uniform_steps(requests: int = 4096, tokens: int = 131072, prompts: int = 512, max_size: int = 12):
    """Lists of (decode batch, decode context, prefill batch, new tokens, context, emits)."""
    step = st.tuples(
        counts(requests),
        counts(tokens),
        counts(prompts),
        counts(tokens),
        st.one_of(st.just(0), counts(tokens)),
        st.booleans(),
    )
    return st.lists(step, min_size=1, max_size=max_size)


def requests(requests: int = 64, tokens: int = 131072, max_groups: int = 5):
    """Decode groups (count, context) of one step."""
    return st.lists(st.tuples(counts(requests), counts(tokens)), max_size=max_groups)


def prompts(requests: int = 8, tokens: int = 131072, max_groups: int = 4):
    """Prefill groups (count, context, new tokens, emits) of one step."""
    group = st.tuples(counts(requests), st.one_of(st.just(0), counts(tokens)), counts(tokens), st.booleans())
    return st.lists(group, max_size=max_groups)


def ragged_steps(max_size: int = 4, **limits):
    """Lists of (decode groups, prefill groups)."""
    return st.lists(st.tuples(requests(**limits), prompts(**limits)), min_size=1, max_size=max_size)


def uniform_batch(steps) -> mr.StepBatch:
    return mr.StepBatch.uniform(*np.array(steps, dtype=np.int64).reshape(-1, 6).T)


def ragged_batch(steps) -> mr.StepBatch:
    """Groups as they are: one entry a group, with its count."""
    decode, prefill = [g for s in steps for g in s[0]], [g for s in steps for g in s[1]]
    d, p = np.array(decode, np.int64).reshape(-1, 2).T, np.array(prefill, np.int64).reshape(-1, 4).T
    return mr.StepBatch.from_csr(
        decode_offsets=[0, *accumulate(len(s[0]) for s in steps)],
        decode_counts=d[0],
        decode_contexts=d[1],
        prefill_offsets=[0, *accumulate(len(s[1]) for s in steps)],
        prefill_counts=p[0],
        prefill_contexts=p[1],
        prefill_new_tokens=p[2],
        prefill_emits=p[3],
    )


def as_groups(step):
    """Spell one uniform step as ragged groups."""
    decode_batch, decode_context, prefill_batch, new, context, emits = step
    return [(decode_batch, decode_context)], [(prefill_batch, context, new, emits)]


# ------------------------------------------------------------------ synthetic tables


@dataclass(frozen=True)
class Tables:
    """The same small tables as a plain dict for the definitions and packed for the kernels."""

    plain: dict
    total: StepTables
    parts: StepTables


KNOTS = sorted({2**b for b in range(16)} | {3 * 2**b for b in range(14)})
MICRO = 1e-6  # times in microseconds: the kernels see seconds


def rising(rows: int, columns: int):
    """Grids that grow along both axes, and faster where both are large: no cell falls, nor does what lies beyond."""
    steps = st.lists(st.lists(st.integers(0, 40), min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    return steps.map(lambda s: (np.cumsum(np.cumsum(np.array(s, float), axis=0), axis=1) + 50.0) * MICRO)


def rough(rows: int, columns: int):
    """Grids as noise leaves them: any positive times within a factor of thirty."""
    row = st.lists(st.integers(1, 30), min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows).map(lambda g: np.array(g, float) * MICRO)


@st.composite
def curves(draw, knots, grid):
    values = draw(grid(1, len(knots)))[0]
    return knots, list(values), draw(st.integers(0, 30)) * MICRO


@st.composite
def tables(draw, grid=rising, rows=(2, 4), columns=(2, 6)):
    """Tables of `rising` or `rough` times; the last batch row is 2**(rows - 1), the last column 2**(columns - 1)."""
    knots = [1, *sorted(draw(st.sets(st.sampled_from(KNOTS[1:]), max_size=6)))]
    plain = {axis: draw(st.lists(curves(knots, grid), min_size=1, max_size=3)) for axis in ("tokens", "sequences")}
    plain |= {"blend": draw(st.sampled_from(["affine_rate", "sqrt"])), "spread": draw(st.booleans())}
    plain["decode"] = draw(grid(draw(st.integers(*rows)), draw(st.integers(*columns)))).tolist()
    height, width = draw(st.integers(*rows)), draw(st.integers(*columns))
    plain["prefill"] = []
    for window in draw(st.sampled_from([[None], [5], [None, 8]])):
        launch, rate = draw(grid(1, height))[0], draw(grid(height, width))
        time = launch[:, None] + rate * 2.0 ** np.arange(width)
        floor = draw(st.sampled_from([0.0, 1.0, 20.0])) * MICRO
        reads = {"window": window, "kv_read_s": floor, "query_s": floor / 4}
        plain["prefill"].append({"launch": launch.tolist(), "time": time.tolist()} | reads)
    return Tables(plain, packed(plain, total=True), packed(plain, total=False))


def packed(plain: dict, *, total: bool) -> StepTables:
    """Pack a dict of plain tables as the step kernels read them, with one lane or one a curve."""

    def lanes(curves):
        values, beyond = np.array([c[1] for c in curves]), np.array([c[2] for c in curves])
        if total:
            values, beyond = values.sum(axis=0, keepdims=True), beyond.sum(keepdims=True)
        return Lanes(np.array(curves[0][0], float), values, beyond)

    parts = [
        PrefillPart(np.array(p["launch"]), np.array(p["time"]), p["window"] or np.inf, p["kv_read_s"], p["query_s"])
        for p in plain["prefill"]
    ]
    decode = np.array(plain["decode"])
    return pack(
        lanes(plain["tokens"]), lanes(plain["sequences"]), decode, parts, blend=plain["blend"], spread=plain["spread"]
    )
