"""Questions: bisection against pricing every value, and a question to a file against reading that file.

Run: ``python benchmarks/queries.py [--json FILE]``. Every figure is a ratio of two ways measured in turn in one run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from speed import best_s

import mfuroof as mr
from mfuroof import queries

MODEL, GPU, TP = "meta-llama/Llama-3.1-70B", "h100_sxm", 4


def inverse() -> list[dict[str, Any]]:
    """Return how many times as fast bisection is as a scan that gives the same answers."""
    evaluator = mr.StepEvaluator(MODEL, GPU, TP)
    contexts = np.arange(1, 129) * 1024
    asked: dict[str, tuple[int, Callable[[str], Any]]] = {
        "decode_batch up to 4096, 128 contexts": (
            128 * 4096,
            lambda way: queries.largest(evaluator, "decode_batch", 0.03, decode_context=contexts, method=way),
        ),
        "decode_context up to 2^18, 64 batches": (
            64 * 2**18,
            lambda way: queries.largest(
                evaluator, "decode_context", 0.03, decode_batch=np.arange(1, 65), most=2**18, method=way
            ),
        ),
        "prefill_new_tokens up to 32768, 64 decode batches": (
            64 * 32768,
            lambda way: queries.largest(
                evaluator,
                "prefill_new_tokens",
                0.2,
                decode_batch=np.arange(1, 65),
                decode_context=2048,
                most=32768,
                method=way,
            ),
        ),
    }
    rows = []
    for name, (values, ask) in asked.items():
        if not ask("bisect").table.equals(ask("scan").table):
            raise SystemExit(f"{name}: the two ways differ")
        quick, slow = best_s([lambda ask=ask: ask("bisect"), lambda ask=ask: ask("scan")])  # type: ignore[misc]
        rows.append({"case": name, "values": values, "bisect_s": quick, "scan_s": slow, "times_as_fast": slow / quick})
    return rows


def files() -> list[dict[str, Any]]:
    """Return what questions to a file of a million steps take, over reading the columns in question."""
    sweep = mr.Sweep(MODEL, "h100_sxm,h200_sxm", "4,8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "steps.parquet"
        rows = mr.run_sweep(sweep, path).rows
        where = ("step_time_ms <= 30", "fits")
        needed = ["tokens_per_s_per_gpu", "step_time_s", "fits", "gpu"]
        ways: dict[str, Callable[[], object]] = {
            "read the columns": lambda: pq.read_table(path, columns=needed),
            "best": lambda: queries.best(path, "max tokens_per_s_per_gpu", where),
            "best by gpu": lambda: queries.best(path, "max tokens_per_s_per_gpu", where, by="gpu"),
            "Pareto front by gpu": lambda: queries.pareto_front(
                path, ("max tokens_per_s_per_gpu", "min step_time_s"), "fits", by="gpu"
            ),
        }
        seconds = best_s(list(ways.values()))
    return [
        {"case": f"{name}, {rows:,} rows", "seconds": s, "times_reading": s / seconds[0]}
        for name, s in zip(ways, seconds, strict=True)
    ]


def fronts() -> list[dict[str, Any]]:
    """Return how the time of a front grows with its rows: n log n is 12 from 10^5 to 10^6."""
    rng = np.random.default_rng(1)
    tables = []
    for n in (10**5, 10**6):
        x = rng.random(n)
        tables.append({"x": x, "y": 1.0 - x + 0.1 * rng.random(n)})
    import pyarrow as pa

    ready = [pa.table(t) for t in tables]
    seconds = best_s([lambda t=t: queries.pareto_front(t, ("max x", "max y")) for t in ready])  # type: ignore[misc]
    return [{"case": "front of 10^5 and 10^6 rows", "seconds": seconds[1], "times_as_long": seconds[1] / seconds[0]}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [*inverse(), *files(), *fronts()]
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
