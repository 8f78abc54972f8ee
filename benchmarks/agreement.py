"""How well the closed form of `mfuroof.serving.estimate` agrees with `mfuroof.serving.replay`, its discrete events.

    python benchmarks/agreement.py [--model MODEL] [--gpu GPU] [--tp N] [--engine ENGINE] [--json OUT] [--quick]

Both use the same step times, so what differs is queueing alone. For each engine's scheduler the grid holds closed loops
(prompts of 64 to 8,192 tokens, 64 to 1,024 generated, 1 to 256 clients that send ten requests each), open loops at
20, 50 and 80 % of what the engine can serve, and caches that fill. Lengths vary by 12 %. Errors are estimate / replay
- 1 of the means over all requests. Evictions are counted as well: the three constants of `mfuroof.serving.eviction`
are means over such rows.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mfuroof import StepEvaluator
from mfuroof.serving import SCHEDULERS, Lengths, estimate, replay

VARIATION = 0.12
PROMPTS, OUTPUTS, CLIENTS = (64, 512, 2048, 8192), (64, 256, 1024), (1, 4, 16, 64, 256)
LOADS = (0.2, 0.5, 0.8)
CACHES = ((1024, 512, 20_000, (16, 32, 64)), (1000, 1000, 30_000, (24, 64)), (500, 1000, 30_000, (32, 128)),
          (250, 1000, 30_000, (128,)), (100, 1000, 50_000, (128, 300)), (4000, 200, 60_000, (16, 32)))  # fmt: skip
ROUNDS = 60
"""Requests replayed of an open loop, over those in flight: the middle half of them is in the steady state."""
MOST_TOKENS = 2_000_000
"""Prompts and outputs replayed for one row, at most: larger ones are left out."""
FIGURES = ("ttft_s", "tpot_s", "e2e_latency_s")


def drawn(rng: np.random.Generator, length: int, n: int) -> np.ndarray:
    """Return n lengths spread evenly about one, with the variation of this benchmark."""
    half = VARIATION * np.sqrt(3.0)
    return rng.integers(max(int((1 - half) * length), 1), int((1 + half) * length) + 1, n)


def compare(evaluator: StepEvaluator, scheduler: Any, shape: tuple[int, int], load: dict[str, Any], cache: int | None):
    """Return the row of one configuration, or None where it is too large to replay."""
    prompt, output = shape
    rng = np.random.default_rng(7)
    closed = "concurrency" in load
    common = {"scheduler": scheduler, "kv_capacity_tokens": cache or 10**9}
    found = estimate(evaluator, prompt, output, **load, length_distribution=Lengths(1.0, VARIATION), **common)
    n = 10 * load["concurrency"] if closed else max(2000, int(ROUNDS * found.running_batch))
    if n * (output + prompt / 16) > MOST_TOKENS:
        return None
    prompts, outputs = drawn(rng, prompt, n), drawn(rng, output, n)
    if closed:
        times = replay(evaluator, prompts, outputs, clients=load["concurrency"], **common)
    else:
        arrivals = np.cumsum(rng.exponential(1.0 / load["arrival_rate"], n))
        times = replay(evaluator, prompts, outputs, arrivals, **common)
    used = slice(None) if closed else slice(n // 4, 3 * n // 4)
    gaps = (outputs - 1)[used]
    measured = {
        "ttft_s": times.ttft_s[used].mean(),
        "tpot_s": np.nansum(times.tpot_s[used] * gaps) / gaps.sum(),
        "e2e_latency_s": times.e2e_latency_s[used].mean(),
    }
    errors = {name: float(getattr(found, name)) / measured[name] - 1.0 for name in FIGURES}
    row = {"input_len": prompt, "output_len": output, **load, "kv_capacity_tokens": cache, **errors}
    return {**row, "limit": found.limit_names[0], "evictions_per_request": times.preemptions / n}


def rows(evaluator: StepEvaluator, engine: str, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of one engine's scheduler by kind of load."""
    scheduler = replace(SCHEDULERS[engine])
    prompts, outputs, clients = (x[:: 2 if quick else 1] for x in (PROMPTS, OUTPUTS, CLIENTS))
    shapes = [(p, o) for p, o in product(prompts, outputs) if scheduler.chunks or p <= scheduler.max_batch_tokens]
    closed = [compare(evaluator, scheduler, s, {"concurrency": c}, None) for s in shapes for c in clients]
    opened = []
    for shape in shapes:
        able = float(estimate(evaluator, *shape, arrival_rate=1e9, scheduler=scheduler).requests_per_s)
        loads = [{"arrival_rate": able * share} for share in LOADS]
        opened += [compare(evaluator, scheduler, shape, load, None) for load in loads]
    full = [
        compare(evaluator, scheduler, (p, o), {"concurrency": c}, cache) for p, o, cache, many in CACHES for c in many
    ]
    kinds = {"closed loop": closed, "open loop": opened, "full cache": full}
    return {name: [r for r in found if r is not None] for name, found in kinds.items()}


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean, 95th percentile and largest size of the errors, and their mean."""
    out: dict[str, Any] = {"rows": len(found)}
    for name in FIGURES:
        errors = np.array([r[name] for r in found])
        size = np.abs(errors)
        out[name] = {
            "mean": float(size.mean()),
            "p95": float(np.percentile(size, 95)),
            "max": float(size.max()),
            "bias": float(errors.mean()),
        }
    return out


def main() -> None:
    """Compare every engine's scheduler and print one line a kind of load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="meta-llama/Llama-3.1-8B")
    parser.add_argument("--gpu", default="h100_sxm")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--engine", choices=sorted(SCHEDULERS), help="one engine; all by default")
    parser.add_argument("--json", type=Path, help="write every row to this file")
    parser.add_argument("--quick", action="store_true", help="every other value of the grid")
    options = parser.parse_args()
    everything: dict[str, Any] = {}
    print(f"{'|estimate / replay - 1|':<24}{'rows':>5}" + "".join(f"{n:>24}" for n in ("TTFT", "TPOT", "end to end")))
    print(f"{'':<29}" + f"{'mean':>8}{'p95':>8}{'bias':>8}" * 3)
    for engine in [options.engine] if options.engine else SCHEDULERS:
        evaluator = StepEvaluator(options.model, options.gpu, tp_size=options.tp, engine=engine)
        everything[engine] = {}
        for kind, found in rows(evaluator, engine, options.quick).items():
            s = summary(found)
            everything[engine][kind] = {**s, "all": found}
            figures = "".join("".join(f"{s[n][k]:>8.1%}" for k in ("mean", "p95", "bias")) for n in FIGURES)
            print(f"{engine + ', ' + kind:<24}{s['rows']:>5}{figures}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
