"""What is timed, in one place: the benchmark runs these cases at full size, the tests compare answers at a small one.

A case has our way of doing something and rivals that do the same; `Way.count` says how many answers one run gives, so
that a slow rival can be given fewer. Where ``same`` is set, the rival's answers are ours up to that relative error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

import mfuroof as mr
from mfuroof import lookup
from mfuroof.tables.compiled import Table1D, Table2D

MODEL, GPU, TP = "meta-llama/Llama-3.1-70B", "h100_sxm", 4
MIXTURE = "Qwen/Qwen3-235B-A22B"
REQUESTS_PER_STEP = 64


@dataclass(frozen=True)
class Way:
    """One way to get ``count`` answers; ``run`` returns them, or None where they are not comparable."""

    name: str
    count: int
    run: Callable[[], object]
    same: float | None = None


@dataclass(frozen=True)
class Case:
    """What is timed: its ``group``, the ``unit`` of an answer, our way, and the others."""

    name: str
    group: str
    unit: str
    ours: Way
    rivals: tuple[Way, ...] = field(default=())


def log_uniform(rng: np.random.Generator, low: int, high: int, n: int) -> np.ndarray:
    """Return whole numbers, log-uniform in [low, high]."""
    return np.exp(rng.uniform(np.log(low), np.log(high + 1), n)).astype(np.int64)


def mixed_batch(n: int, longest: int = 32_768) -> mr.StepBatch:
    """Return mixed steps of log-uniform shapes; decode contexts reach ``longest``."""
    rng = np.random.default_rng(0)
    return mr.StepBatch.uniform(
        decode_batch=log_uniform(rng, 1, 512, n),
        decode_context=log_uniform(rng, longest // 2048, longest, n),
        prefill_batch=log_uniform(rng, 1, 4, n),
        prefill_new_tokens=log_uniform(rng, 16, 4096, n),
        prefill_context=log_uniform(rng, 1, 8192, n),
    )


def ragged_batch(n: int, requests: int = REQUESTS_PER_STEP) -> mr.StepBatch:
    """Return n steps of decode requests of mixed lengths."""
    rng = np.random.default_rng(1)
    return mr.StepBatch.from_csr(
        decode_offsets=np.arange(0, n * requests + 1, requests),
        decode_contexts=log_uniform(rng, 16, 32_768, n * requests),
    )


def in_threads(part: Callable[[int, int], object], n: int, threads: int) -> None:
    """Run ``part(start, stop)`` over cache-sized pieces of [0, n), shared among threads."""
    from concurrent.futures import ThreadPoolExecutor

    edges = [*range(0, n, 16_384), n]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, edges[:-1], edges[1:], chunksize=32))


def copying(source: np.ndarray, out: np.ndarray, threads: int) -> None:
    """Copy in threads: what memory alone allows for a lookup."""
    in_threads(lambda a, b: np.copyto(out[a:b], source[a:b]), source.size, threads)


def streaming(batch: mr.StepBatch, out: np.ndarray, threads: int) -> None:
    """Read the columns of a batch of mixed steps and write one: what memory alone allows for a step."""
    first, second, *more = (
        batch.decode_batch,
        batch.decode_context,
        batch.prefill_batch,
        batch.prefill_new_tokens,
        batch.prefill_context,
    )

    def part(start: int, stop: int) -> None:
        np.add(first[start:stop], second[start:stop], out=out[start:stop])
        for column in more:
            np.add(out[start:stop], column[start:stop], out=out[start:stop])

    in_threads(part, len(batch), threads)


def lookup_cases(n: int, threads: int) -> Iterator[Case]:
    """Yield lookups: floor and linear on a curve, linear on a grid."""
    from scipy.interpolate import RegularGridInterpolator

    rng = np.random.default_rng(2)
    out, other = np.empty(n), np.empty(n)
    for points in (16, 64):
        grid = np.sort(rng.choice(100_000, points, replace=False)).astype(np.float64)
        values = rng.random(points)
        queries = rng.uniform(grid[0], grid[-1] * 1.1, n)
        table = Table1D("tokens", grid, values)

        def searchsorted(grid=grid, values=values, queries=queries) -> np.ndarray:
            return np.take(values, np.searchsorted(grid, queries, side="right") - 1, out=other, mode="clip")

        yield Case(
            f"floor lookup, {points} points",
            "lookups",
            "queries",
            Way("mfuroof", n, partial(lookup.floor, table, queries, out=out, threads=threads)),
            (
                Way("numpy searchsorted and take", n, searchsorted, same=0.0),
                Way(f"copy of the same arrays, {threads} threads", n, partial(copying, queries, other, threads)),
            ),
        )
    yield Case(
        "linear lookup, 64 points",
        "lookups",
        "queries",
        Way("mfuroof", n, partial(lookup.linear, table, queries, out=out, threads=threads, outside="clamp")),
        (Way("numpy interp", n, partial(np.interp, queries, grid, values), same=1e-12),),
    )
    rows, cols = np.geomspace(1, 512, 10), np.geomspace(16, 65_536, 13)
    cells = rng.random((rows.size, cols.size))
    y, x = np.exp(rng.uniform(0, np.log(512), n)), np.exp(rng.uniform(np.log(16), np.log(65_536), n))
    y, x = np.clip(y, rows[0], rows[-1]), np.clip(x, cols[0], cols[-1])
    offsets = np.arange(0, cells.size + 1, cols.size)
    plane = Table2D(("batch", "kv_len"), rows, offsets, np.tile(cols, rows.size), cells.ravel())
    few = max(n // 10, 1)
    interpolator = RegularGridInterpolator((rows, cols), cells)
    yield Case(
        "linear lookup on a 10 x 13 grid",
        "lookups",
        "queries",
        Way("mfuroof", n, partial(lookup.linear, plane, y, x, out=out, threads=threads)),
        (Way("scipy RegularGridInterpolator", few, lambda: interpolator((y[:few], x[:few])), same=1e-12),),
    )


def step_cases(n: int, threads: int) -> Iterator[Case]:
    """Yield evaluations of the kernels cost, and of the other two families."""
    evaluator = mr.StepEvaluator(MODEL, GPU, tp_size=TP)
    batch, beyond, ragged = mixed_batch(n), mixed_batch(n, 2**25), ragged_batch(max(n // 25, 1))
    out, sums = np.empty(n), np.empty(n, np.int64)
    rows = np.empty((1 + len(evaluator.components), n))
    name = f"{MODEL.split('/')[1]} on {TP} {GPU}"

    def times(of: mr.StepEvaluator, steps: mr.StepBatch) -> Callable[[], object]:
        return partial(of.step_time, steps, threads=threads, out=out[: len(steps)])

    yield Case(
        f"mixed steps, {name}",
        "steps",
        "steps",
        Way("mfuroof", n, times(evaluator, batch)),
        (
            Way(f"adding up the same columns, {threads} threads", n, partial(streaming, batch, sums, threads)),
            Way("with the full breakdown", n, lambda: evaluator.evaluate(batch, threads=threads, out=rows).step_time_s,
                same=0.0),
            Way("contexts to 33 M tokens, beyond every grid", n, times(evaluator, beyond)),
        ),
    )
    yield Case(
        f"decode steps of {REQUESTS_PER_STEP} requests of mixed lengths",
        "steps",
        "requests",
        Way("mfuroof", len(ragged) * REQUESTS_PER_STEP, times(evaluator, ragged)),
    )
    few = 2_000
    shapes = [[int(v) for v in row] for row in mixed_rows(batch, few)]
    yield Case(
        "one step at a time from Python",
        "steps",
        "steps",
        Way("mfuroof", len(shapes), lambda: np.array([evaluator.step_time_scalar(*shape) for shape in shapes])),
        (Way("the same through evaluate", len(shapes) // 20, partial(one_by_one, evaluator, shapes[::20])),),
    )
    less = max(n // 10, 1)
    part = batch.slice(0, less)
    yield Case(
        "mixed steps under cost='constant_mfu'",
        "families",
        "steps",
        Way("mfuroof", n, times(mr.StepEvaluator(MODEL, GPU, tp_size=TP, cost="constant_mfu"), batch)),
    )
    yield Case(
        "mixed steps under cost='mfu_table'",
        "families",
        "steps",
        Way("mfuroof", less, times(mr.StepEvaluator(MODEL, GPU, tp_size=TP, cost="mfu_table"), part)),
    )


def mixed_rows(batch: mr.StepBatch, n: int) -> list[tuple[int, ...]]:
    """Return the first n steps as arguments of `StepEvaluator.step_time_scalar`."""
    columns = (batch.decode_batch, batch.decode_context, batch.prefill_batch, batch.prefill_new_tokens)
    return list(zip(*(column[:n] for column in (*columns, batch.prefill_context)), strict=True))


def one_by_one(evaluator: mr.StepEvaluator, shapes: list[list[int]]) -> np.ndarray:
    """Evaluate each step in a batch of its own, with all checks."""
    return np.array([evaluator.evaluate(mr.StepBatch.uniform(*shape)).step_time_s[0] for shape in shapes])


def scaling_cases(n: int, threads: int) -> Iterator[Case]:
    """Yield how the rate depends on the number of steps, the requests a step, and the model."""
    evaluator = mr.StepEvaluator(MODEL, GPU, tp_size=TP)
    out = np.empty(n)
    for size in (10**k for k in range(3, 8)):
        if size <= n:
            batch = mixed_batch(size)
            run = partial(evaluator.step_time, batch, threads=threads, out=out[:size])
            yield Case(f"mixed steps, {size:,} at a time", "scaling", "steps", Way("mfuroof", size, run))
    for requests in (1, 8, 64, 512):
        steps = max(n // 2 // requests, 1)
        run = partial(evaluator.step_time, ragged_batch(steps, requests), threads=threads, out=out[:steps])
        yield Case(f"steps of {requests} requests", "scaling", "requests", Way("mfuroof", steps * requests, run))
    batch = mixed_batch(max(n // 5, 1))
    for model, tp in (("meta-llama/Llama-3.1-8B", 1), (MIXTURE, 8), ("openai/gpt-oss-120b", 1)):
        run = partial(
            mr.StepEvaluator(model, GPU, tp_size=tp).step_time, batch, threads=threads, out=out[: len(batch)]
        )
        yield Case(f"mixed steps, {model.split('/')[1]} on {tp} {GPU}", "scaling", "steps",
                   Way("mfuroof", len(batch), run))


def all_cases(n: int, threads: int) -> Iterator[Case]:
    """Yield every case at a size of ``n`` steps or queries."""
    yield from step_cases(n, threads)
    yield from lookup_cases(n, threads)
    yield from scaling_cases(n, threads)
