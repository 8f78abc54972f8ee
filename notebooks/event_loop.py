"""A serving queue in a hundred lines of compiled code: continuous batching over mfuroof's step kernels.

Run it: ``python notebooks/event_loop.py``. One GPU replica serves Poisson arrivals; each iteration admits prompts
while there is room for their KV cache, computes at most one chunk of a prompt beside all decoding requests, and asks
`mfuroof.core.step.step_time` what that takes. No Python runs inside the loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from mfuroof import StepEvaluator
from mfuroof.core.step import step_time
from mfuroof.embedding import kernel_stamp

CHUNK = 512


def build(stamp: str) -> Callable[..., Any]:
    """Compile the loop for one version of the kernels.

    numba's cache knows this file's date, not that of the kernels inlined below. A variable the function closes over
    is part of the cache's key: a new stamp compiles anew, the same one is loaded from disk.
    """

    @numba.njit(cache=True, nogil=True, error_model="numpy")
    def simulate(tables, arrivals, prompts, outputs, max_batch, kv_tokens, ttft, finished):  # type: ignore[no-untyped-def]
        """Serve all requests; return the iterations, the clock [s] and the tokens made."""
        _ = stamp
        segments, cells, layout = tables  # three arrays: unpack them once, outside the loop
        n = arrivals.size
        running = np.empty(max_batch, np.int64)  # requests that decode
        made = np.zeros(n, np.int64)  # tokens each has made
        next_in, active, filling, filled = 0, 0, -1, 0
        used, kv_sum, clock, steps, tokens = 0, 0, 0.0, 0, 0
        while next_in < n or active > 0 or filling >= 0:
            if active == 0 and filling < 0 and arrivals[next_in] > clock:
                clock = arrivals[next_in]  # idle: wait for the next request
            if filling < 0 and next_in < n and arrivals[next_in] <= clock and active < max_batch:
                need = prompts[next_in] + outputs[next_in]
                if used + need <= kv_tokens:
                    filling, filled, used = next_in, 0, used + need
                    next_in += 1
                elif active == 0:
                    return -1, clock, tokens  # a request that never fits
            chunk = 0
            if filling >= 0:
                chunk = min(CHUNK, prompts[filling] - filled)
            ends = filling >= 0 and filled + chunk == prompts[filling]
            # all decoding requests alike: their mean context keeps the sum of KV tokens
            context = kv_sum / active if active > 0 else 0.0
            prompt, emits = (1.0 if chunk > 0 else 0.0), (1.0 if ends else 0.0)
            clock += step_time(segments, cells, layout, active, context, prompt, float(chunk), float(filled), emits)
            steps += 1
            tokens += active
            kv_sum += active
            i = 0
            while i < active:  # every decoding request has one token more
                r = running[i]
                made[r] += 1
                if made[r] >= outputs[r]:
                    finished[r] = clock
                    used -= prompts[r] + outputs[r]
                    kv_sum -= prompts[r] + made[r]
                    active -= 1
                    running[i] = running[active]
                else:
                    i += 1
            if filling >= 0:
                filled += chunk
                if ends:  # the prompt's last chunk makes the first token
                    ttft[filling] = clock - arrivals[filling]
                    made[filling] = 1
                    tokens += 1
                    if outputs[filling] <= 1:
                        finished[filling] = clock
                        used -= prompts[filling] + outputs[filling]
                    else:
                        running[active] = filling
                        active += 1
                        kv_sum += prompts[filling] + 1
                    filling = -1
        return steps, clock, tokens

    return simulate  # type: ignore[no-any-return]


def main(requests: int = 20_000, rate: float = 6.0, max_batch: int = 64, repeats: int = 3) -> dict[str, float]:
    """Simulate Llama-3.1-8B on one H100 and print what came of it."""
    evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    simulate, rng = build(kernel_stamp()), np.random.default_rng(1)
    arrivals = np.cumsum(rng.exponential(1.0 / rate, requests))
    prompts, outputs = rng.integers(32, 2048, requests), rng.integers(16, 512, requests)
    ttft, finished = np.zeros(requests), np.zeros(requests)
    arguments = (evaluator.bound.total, arrivals, prompts, outputs, max_batch, 440_000, ttft, finished)
    simulate(*arguments)  # compiles, or loads from the cache
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        steps, clock, tokens = simulate(*arguments)
        best = min(best, time.perf_counter() - began)
    figures = {
        "steps": float(steps),
        "steps_per_s": steps / best,
        "clock_s": clock,
        "tokens_per_s": tokens / clock,
        "ttft_p50_s": float(np.median(ttft)),
        "tpot_mean_s": float(np.mean((finished - arrivals - ttft) / np.maximum(outputs - 1, 1))),
    }
    for name, value in figures.items():
        print(f"{name:>14}  {value:,.4g}")
    return figures


if __name__ == "__main__":
    main()
