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
    if json:
        print_json({"seconds": seconds})
    else:
        for cost, taken in seconds.items():
            print(f"{cost}: ready after {taken:.2f} s")
