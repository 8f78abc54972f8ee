"""``mfuroof warmup``: compile every kernel once, so that later commands find them in the cache."""

from __future__ import annotations

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json

__all__ = ["EXAMPLES", "warmup"]

EXAMPLES = ("mfuroof warmup",)
MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"


def warmup(json: o.Json = False) -> None:
    """Compile the kernels of every cost and keep them in numba's cache."""
    import time

    from mfuroof.batch import StepBatch
    from mfuroof.step import COSTS, StepEvaluator

    batches = (
        StepBatch.uniform(decode_batch=[1, 2], decode_context=[5, 6], prefill_batch=1, prefill_new_tokens=[7, 8]),
        StepBatch.ragged(prefill=[[(0, 7)], []], decode=[[5, 9], [6]]),
    )
    seconds = {}
    for cost in COSTS:
        began = time.perf_counter()
        evaluator = StepEvaluator(MODEL, GPU, cost=cost)  # type: ignore[arg-type]
        for batch in batches:
            result = evaluator.evaluate(batch)
            _ = result.bound, result.source
        evaluator.step_time_scalar(1, 5)
        seconds[cost] = time.perf_counter() - began
    began = time.perf_counter()
    _lookups()
    seconds["lookups"] = time.perf_counter() - began
    if json:
        print_json({"seconds": seconds})
    else:
        for cost, taken in seconds.items():
            print(f"{cost}: ready after {taken:.2f} s")


def _lookups() -> None:
    """Read a curve, a grid and GEMM sites of two points by every rule."""
    from mfuroof.lookup import RULES, read
    from mfuroof.lookup.run import Table
    from mfuroof.tables.compile import compile_1d, compile_2d, compile_sites

    two = [1.0, 2.0]
    tables: tuple[Table, ...] = (
        compile_1d("x", two, two),
        compile_2d(("y", "x"), two, two, two),
        compile_sites(two, two, two, two),
    )
    for table, axes in zip(tables, (1, 2, 3), strict=True):
        for rule in RULES:
            for details in (False, True):
                read(table, *[1.0] * axes, rule=rule, details=details)
