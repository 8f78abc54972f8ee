"""Speed of lookups, evaluation, binding and start-up, as ratios measured in one run on one machine.

Run: ``python benchmarks/speed.py [--json FILE] [--steps N] [--threads T] [--only GROUP ...]``. Each figure is the best
of several repeats after a warm-up, ours and the rival's in turn, because noise on a shared machine only ever adds time.
`benchmarks/cases.py` says what is timed; the tests check that rivals called the same give the same answers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cases import GPU, MODEL, TP, Case, Way, all_cases, mixed_batch
from peers import peer_cases

import mfuroof as mr

REPEATS = 7
SECONDS = 6.0
"""A way that takes longer in all is not repeated further."""


def best_s(ways: list[Callable[[], object]], repeats: int = REPEATS) -> list[float]:
    """Return the shortest time of each way, run in turn after a warm-up. [s]"""
    best = [float("inf")] * len(ways)
    spent = [0.0] * len(ways)
    for turn in range(repeats + 1):
        for i, run in enumerate(ways):
            if spent[i] > SECONDS:
                continue
            start = time.perf_counter()
            run()
            took = time.perf_counter() - start
            if turn or took > SECONDS / 2:
                best[i] = min(best[i], took)
            spent[i] += took
    return best


def timed(case: Case) -> Iterator[dict[str, Any]]:
    """Yield one row for our way and one for each rival, with how many times as fast ours is."""
    ways: list[Way] = [case.ours, *case.rivals]
    seconds = best_s([way.run for way in ways])
    ours = case.ours.count / seconds[0]
    for way, took in zip(ways, seconds, strict=True):
        rate = way.count / took
        yield {
            "group": case.group,
            "case": case.name,
            "way": way.name,
            "unit": case.unit,
            "per_s": rate,
            "ours_is_times_as_fast": ours / rate,
        }


def whole(group: str, case: str, seconds: float) -> dict[str, Any]:
    """Return a row of something that is done once."""
    return {"group": group, "case": case, "way": "mfuroof", "unit": "s", "seconds": seconds}


def binding() -> Iterator[dict[str, Any]]:
    """Yield the time to bind from the embedded tables, and to load what was bound."""
    evaluator = mr.StepEvaluator(MODEL, GPU, tp_size=TP)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "evaluator"
        evaluator.save(path)
        bind_s, load_s = best_s([lambda: mr.StepEvaluator(MODEL, GPU, tp_size=TP), lambda: mr.StepEvaluator.load(path)])
    yield whole("binding", "bind a 70B model from Parquet", bind_s)
    yield whole("binding", "load a saved evaluator", load_s)


def start_up() -> Iterator[dict[str, Any]]:
    """Yield the time of whole processes with a warm cache of compiled kernels."""
    step = ["step", MODEL, "--gpu", GPU, "--tp", str(TP), "--decode-batch", "32", "--decode-context", "2047"]
    commands = {
        "python -c 'import mfuroof'": ["-c", "import mfuroof"],
        "mfuroof step": ["-m", "mfuroof.cli", *step],
    }
    for name, arguments in commands.items():
        command = [sys.executable, *arguments]
        seconds = best_s([lambda command=command: subprocess.run(command, check=True, capture_output=True)], 4)
        yield whole("start-up", name, seconds[0])


def interpreted(n: int) -> Iterator[dict[str, Any]]:
    """Yield our own kernels run by Python without compilation: what the same definition costs in plain Python."""
    program = (
        "import sys, time; sys.path[:0] = sys.argv[1:3]\n"
        "import numpy as np, mfuroof as mr\n"
        "from cases import GPU, MODEL, TP, mixed_batch\n"
        "evaluator, batch = mr.StepEvaluator(MODEL, GPU, tp_size=TP), mixed_batch(2000)\n"
        "start = time.perf_counter(); evaluator.step_time(batch); print(time.perf_counter() - start)"
    )
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-W", "ignore", "-c", program, str(here), str(here.parent)]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    evaluator, batch, out = mr.StepEvaluator(MODEL, GPU, tp_size=TP), mixed_batch(n), np.empty(n)
    ours = n / best_s([lambda: evaluator.step_time(batch, out=out)])[0]
    rate = 2000 / float(printed)
    common = {"group": "steps", "case": "mixed steps, compiled and interpreted, one thread", "unit": "steps"}
    yield {**common, "way": "mfuroof", "per_s": ours, "ours_is_times_as_fast": 1.0}
    yield {**common, "way": "the same functions in plain Python", "per_s": rate, "ours_is_times_as_fast": ours / rate}


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": threads,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "mfuroof": mr.__version__,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def line(row: dict[str, Any]) -> str:
    """Return a row for people."""
    if "seconds" in row:
        return f"{row['case']:<58} {'':<38} {row['seconds'] * 1e3:>10.1f} ms"
    number = f"{row['per_s'] / 1e6:,.1f} M" if row["per_s"] > 1e5 else f"{row['per_s']:,.0f}"
    rate = f"{number} {row['unit']}/s"
    ratio = "" if row["way"] == "mfuroof" else f"ours: {row['ours_is_times_as_fast']:,.3g} x"
    return f"{row['case']:<58} {row['way']:<38} {rate:>22}  {ratio}"


def main() -> None:
    """Time everything, print it, and save it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the rows here, for benchmarks/report.py")
    parser.add_argument("--steps", type=int, default=5_000_000, help="steps and queries a case")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="*", help="groups: steps, families, lookups, scaling, peers, binding, start-up")
    arguments = parser.parse_args()
    rows = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        print(line(row), flush=True)

    for cases in (all_cases, peer_cases):
        for case in cases(arguments.steps, arguments.threads):
            if not arguments.only or case.group in arguments.only:
                for row in timed(case):
                    keep(row)
    others = {"steps": lambda: interpreted(arguments.steps // 5), "binding": binding, "start-up": start_up}
    for group, rows_of in others.items():
        if not arguments.only or group in arguments.only:
            for row in rows_of():
                keep(row)
    about = machine(arguments.threads)
    print(f"peak memory of this benchmark: {about['peak_memory_bytes'] / 2**30:.2f} GiB")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
