"""Speed of lookups, evaluation, binding and start-up, as ratios measured in one run on one machine.

Run: ``python benchmarks/speed.py [--markdown]``. Each figure is the best of several repeats after a warm-up, because
noise on a shared machine only ever adds time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

import mfuroof as mr

REPEATS = 5
STEPS = 5_000_000
REQUESTS_PER_STEP = 64
MODEL, GPU, TP = "meta-llama/Llama-3.1-70B", "h100_sxm", 4


def best_s(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the shortest time of ``run`` after one warm-up. [s]"""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def log_uniform(rng: np.random.Generator, low: int, high: int, n: int) -> np.ndarray:
    """Return whole numbers, log-uniform in [low, high]."""
    return np.exp(rng.uniform(np.log(low), np.log(high + 1), n)).astype(np.int64)


def mixed_batch(n: int) -> mr.StepBatch:
    """Return mixed steps of log-uniform shapes."""
    rng = np.random.default_rng(0)
    return mr.StepBatch.uniform(
        decode_batch=log_uniform(rng, 1, 512, n),
        decode_context=log_uniform(rng, 16, 32_768, n),
        prefill_batch=log_uniform(rng, 1, 4, n),
        prefill_new_tokens=log_uniform(rng, 16, 4096, n),
        prefill_context=log_uniform(rng, 1, 8192, n),
    )


def streaming_s(batch: mr.StepBatch, threads: int) -> float:
    """Return the time to read the same five columns and write one: what memory alone allows. [s]"""
    columns = [batch.decode_batch, batch.decode_context, batch.prefill_batch, batch.prefill_new_tokens]
    columns.append(batch.prefill_context)
    out = np.empty(len(batch), np.int64)

    def part(start: int, stop: int) -> None:
        np.add(columns[0][start:stop], columns[1][start:stop], out=out[start:stop])
        for column in columns[2:]:
            np.add(out[start:stop], column[start:stop], out=out[start:stop])

    return best_s(lambda: in_threads(part, len(batch), threads))


def in_threads(part: Callable[[int, int], None], n: int, threads: int) -> None:
    """Run ``part(start, stop)`` over cache-sized pieces of [0, n), shared among threads."""
    edges = [*range(0, n, 16_384), n]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, edges[:-1], edges[1:], chunksize=32))


def steps(threads: int) -> Iterable[tuple[str, str, str]]:
    """Yield rows on uniform and ragged steps."""
    evaluator = mr.StepEvaluator(MODEL, GPU, tp_size=TP)
    batch = mixed_batch(STEPS)
    out = np.empty(STEPS)
    time_s = best_s(lambda: evaluator.step_time(batch, threads=threads, out=out))
    stream_s = streaming_s(batch, threads)
    rate = f"{STEPS / time_s / 1e6:.0f} M steps/s"
    yield f"uniform mixed steps, {MODEL} tp{TP}, {threads} threads", rate, f"{stream_s / time_s:.0%} of streaming"
    parts_s = best_s(lambda: evaluator.evaluate(batch.slice(0, STEPS // 5), threads=threads), 3)
    yield "the same with the breakdown", f"{STEPS / 5 / parts_s / 1e6:.0f} M steps/s", (
        f"{parts_s / (time_s / 5):.1f} x the time alone"
    )
    rng = np.random.default_rng(1)
    n = STEPS // 25
    requests = n * REQUESTS_PER_STEP
    ragged = mr.StepBatch.from_csr(
        decode_offsets=np.arange(0, requests + 1, REQUESTS_PER_STEP),
        decode_contexts=log_uniform(rng, 16, 32_768, requests),
    )
    ragged_s = best_s(lambda: evaluator.step_time(ragged, threads=threads))
    yield f"ragged steps of {REQUESTS_PER_STEP} decode requests", f"{requests / ragged_s / 1e6:.0f} M requests/s", ""
    calls = 20_000
    scalar_s = best_s(lambda: [evaluator.step_time_scalar(32, 2047) for _ in range(calls)], 3) / calls
    yield "one step from Python", f"{scalar_s * 1e6:.2f} us", ""


def numpy_floor(grid: np.ndarray, values: np.ndarray, queries: np.ndarray, out: np.ndarray) -> None:
    """Look up by bisection, as numpy does it."""
    np.take(values, np.searchsorted(grid, queries, side="right") - 1, out=out, mode="clip")


def lookups() -> Iterable[tuple[str, str, str]]:
    """Yield rows on one-dimensional floor lookups against numpy."""
    from mfuroof import lookup
    from mfuroof.tables.compiled import Table1D

    rng = np.random.default_rng(2)
    n = 10_000_000
    for points in (16, 64):
        grid = np.sort(rng.choice(100_000, points, replace=False)).astype(np.float64)
        values = rng.random(points)
        queries = rng.uniform(grid[0], grid[-1] * 1.1, n)
        table = Table1D("tokens", grid, values)
        out = np.empty(n)
        ours_s = best_s(partial(lookup.floor, table, queries), 3)
        theirs_s = best_s(partial(numpy_floor, grid, values, queries, out), 2)
        copy_s = best_s(partial(np.copyto, out, queries), 3)
        yield f"floor lookup, {points} points, 10 M queries", f"{n / ours_s / 1e6:.0f} M/s", (
            f"{theirs_s / ours_s:.0f} x searchsorted, {copy_s / ours_s:.0%} of a copy"
        )


def binding() -> Iterable[tuple[str, str, str]]:
    """Yield rows on binding from the embedded tables."""
    bind_s = best_s(lambda: mr.StepEvaluator(MODEL, GPU, tp_size=TP))
    yield f"bind {MODEL} tp{TP} from parquet", f"{bind_s * 1e3:.1f} ms", ""


def start_up() -> Iterable[tuple[str, str, str]]:
    """Yield rows on fresh processes with a warm disk cache."""
    commands = {
        "import mfuroof": [sys.executable, "-c", "import mfuroof"],
        "import mfuroof and every kernel": [sys.executable, "-c", "import mfuroof; mfuroof.StepEvaluator"],
        "mfuroof step": [sys.executable, "-m", "mfuroof.cli", "step", MODEL, "--gpu", GPU, "--tp", str(TP),
                         "--decode-batch", "32", "--decode-context", "2047"],
    }
    for name, command in commands.items():
        seconds = best_s(lambda command=command: subprocess.run(command, check=True, capture_output=True), 3)
        yield f"{name} (whole process)", f"{seconds:.2f} s", ""


def memory() -> Iterable[tuple[str, str, str]]:
    """Yield the peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield "peak memory of this benchmark", f"{peak / 2**30:.2f} GiB", ""


def main() -> None:
    """Print every row as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    rows = [*steps(arguments.threads), *lookups(), *binding(), *start_up(), *memory()]
    if arguments.markdown:
        print("| what | measured | ratio |\n|---|---|---|")
    for what, measured, ratio in rows:
        print(f"| {what} | {measured} | {ratio} |" if arguments.markdown else f"{what:<66} {measured:>18}  {ratio}")


if __name__ == "__main__":
    main()
