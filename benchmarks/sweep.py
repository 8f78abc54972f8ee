"""Sweeps: speed of a reduction and of writing, start of a resumed sweep, Dask, and peak memory, in one run.

Run: ``python benchmarks/sweep.py [--rows 1e8] [--markdown]``. Ratios compare what runs within the same minute on the
same machine; absolute times are for orientation. The rows of 10^9 shapes are priced with ``--rows 1e9``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import mfuroof as mr
from mfuroof.sweep import TopK, reduce_sweep, write_sweep

MODEL, GPU = "meta-llama/Llama-3.1-70B", "h100_sxm"
WRITTEN_ROWS = 8_000_000
TARGETS = {"reduce": "<= 15 s for 1e8 on two cores", "write": ">= 60 %", "resume": "<= 2 s", "dask": "<= 15 %"}


def shapes(rows: float, **more: object) -> mr.Sweep:
    """Return a sweep of about so many shapes of one case."""
    contexts = max(round(rows / (256 * 32)), 1)
    return mr.Sweep(MODEL, GPU, 4, decode_batch="1:256", decode_context=f"1:{contexts}",
                    prefill_new_tokens="0:7936:+256", **more)  # fmt: skip


def seconds(run: Callable[[], object]) -> float:
    """Return the time of one run. [s]"""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def reducing(rows: float, threads: int) -> Iterator[tuple[str, str, str]]:
    """Yield the time of a best-per-group reduction, beside pricing the same shapes and keeping nothing."""
    sweep = shapes(rows)
    best = {
        "by case": TopK("tokens_per_s_per_gpu", by=("gpu", "tp_size")),
        "by batch and prompt": TopK("tokens_per_s_per_gpu", by=("decode_batch", "prefill_new_tokens"), where="fits"),
    }
    reduce_sweep(shapes(1e6), best, threads=threads)
    grid = sweep.grid()
    evaluator = mr.StepEvaluator(MODEL, GPU, 4)
    chunks = min(len(grid), 400)

    def price(numbers: range) -> None:
        for i in numbers:
            evaluator.step_time(grid.chunk(i).batch)

    def priced() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(price, [range(t, chunks, threads) for t in range(threads)]))

    priced()
    alone_s = min(seconds(priced) for _ in range(3)) / sum(grid.chunk(i).rows for i in range(chunks)) * grid.rows
    for name, top in best.items():
        took = seconds(lambda top=top: reduce_sweep(sweep, top, detail="times", threads=threads))
        what = f"best {name}, {grid.rows / 1e6:.0f} M shapes, {threads} threads"
        yield what, f"{took:.1f} s ({grid.rows / took / 1e6:.0f} M/s)", f"{took / alone_s:.1f} x step times alone"


def writing(folder: Path, threads: int) -> Iterator[tuple[str, str, str]]:
    """Yield the rate of writing partitions, beside pyarrow writing the same tables with as many threads."""
    import pyarrow.parquet as pq

    sweep = shapes(WRITTEN_ROWS)
    options = {"threads": threads, "partition_rows": 2**20}
    write_sweep(sweep, folder / "warm", **options)
    ours, theirs = [], []
    tables = {path: pq.read_table(path) for path in sorted((folder / "warm").glob("*.parquet"))}
    rows = sum(table.num_rows for table in tables.values())
    text = [f.name for f in next(iter(tables.values())).schema if str(f.type).startswith("dictionary")]

    def write_one(item: tuple[Path, object]) -> None:
        path, table = item
        pq.write_table(table, folder / f"alone-{path.name}", compression="zstd", compression_level=1,
                       use_dictionary=text, row_group_size=2**20)  # fmt: skip

    def write_default(item: tuple[Path, object]) -> None:
        pq.write_table(item[1], folder / f"default-{item[0].name}")

    def alone(write: Callable[[tuple[Path, object]], None] = write_one) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, tables.items()))

    work = {"ours": 0.0, "theirs": 0.0}
    defaults = []
    for i in range(4):
        start = time.process_time()
        theirs.append(seconds(alone))
        work["theirs"] += time.process_time() - start
        defaults.append(seconds(lambda: alone(write_default)))
        start = time.process_time()
        ours.append(seconds(lambda i=i: write_sweep(sweep, folder / f"run{i}", **options)))
        work["ours"] += time.process_time() - start
        shutil.rmtree(folder / f"run{i}")
    ratio = float(np.median(np.array(theirs) / np.array(ours)))
    rate = f"{rows / min(ours) / 1e6:.1f} M rows/s"
    beside = float(np.median(np.array(defaults) / np.array(ours)))
    yield f"priced and written in partitions, {threads} threads", rate, f"{beside:.0%} of pyarrow alone"
    yield "the same, with pyarrow's compression and dictionaries as ours", "", f"{ratio:.0%}"
    yield "the same in processor time", "", f"{work['theirs'] / work['ours']:.0%}"
    size = sum(path.stat().st_size for path in tables)
    yield "size of a row on disk", f"{size / rows:.1f} bytes", ""


def resuming(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the time to find that 10,000 partitions are done."""
    sweep = mr.Sweep(MODEL, GPU, 4, decode_batch="1:100", decode_context="1:100", prefill_new_tokens=0)
    options = {"chunk_rows": 1, "partition_rows": 1, "detail": "times"}
    first = seconds(lambda: write_sweep(sweep, folder, **options))
    again = seconds(lambda: write_sweep(sweep, folder, **options))
    yield "10,000 tiny partitions written", f"{first:.1f} s", f"{first / 1e4 * 1e3:.1f} ms each"
    yield "10,000 partitions found done", f"{again:.2f} s", ""


def on_dask(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the time on a local Dask cluster of as many processes as threads in the plain run beside it."""
    try:
        import distributed  # noqa: F401

        from mfuroof.sweep.cluster import local_cluster
    except ImportError:
        yield "Dask", "not installed", ""
        return
    workers = os.cpu_count() or 1
    sweep = shapes(2 * WRITTEN_ROWS)
    options = {"partition_rows": 2**21, "threads": workers}
    walls, works, each = [], [], 0.0
    with local_cluster(workers) as client:

        def work_s() -> float:
            return time.process_time() + sum(client.run(time.process_time).values())

        write_sweep(shapes(1e6), folder / "warm", cluster=client, partition_rows=2**17)
        for i in range(3):
            took = {}
            for name, cluster in (("threads", None), ("dask", client)):
                before = work_s()
                wall = seconds(lambda c=cluster, f=folder / f"{name}{i}": write_sweep(sweep, f, cluster=c, **options))
                took[name] = wall, work_s() - before
                each = wall * workers / len(list((folder / f"{name}{i}").glob("*.parquet")))
                shutil.rmtree(folder / f"{name}{i}")
            walls.append(took["dask"][0] / took["threads"][0] - 1)
            works.append(took["dask"][1] / took["threads"][1] - 1)
    what = f"overhead of Dask, {workers} processes, partitions of {each:.1f} s"
    yield what, f"{np.median(walls):+.0%}", f"wall time ({', '.join(f'{r:+.0%}' for r in walls)}) against threads"
    yield "the same in processor time", f"{np.median(works):+.0%}", ", ".join(f"{r:+.0%}" for r in works)


def memory(rows: float, threads: int) -> Iterator[tuple[str, str, str]]:
    """Yield the peak memory of a process of its own for each kind of output."""
    program = """
        import sys, tempfile
        sys.path.insert(0, {here!r})
        from sweep import TopK, reduce_sweep, shapes, write_sweep
        with tempfile.TemporaryDirectory() as folder:
            if sys.argv[1] == "reduce":
                reduce_sweep(shapes(float(sys.argv[2])), TopK("tokens_per_s_per_gpu", by="decode_batch"),
                             threads=int(sys.argv[3]), detail="times")
            else:
                write_sweep(shapes(float(sys.argv[2])), folder, threads=int(sys.argv[3]))
        status = open("/proc/self/status").read()  # ru_maxrss would remember the parent's memory
        print(status.split("VmHWM:")[1].split()[0])
    """
    text = textwrap.dedent(program).format(here=str(Path(__file__).parent))
    for kind, count in (("reduce", rows), ("write", min(rows, 5e7))):
        command = [sys.executable, "-c", text, kind, str(count), str(threads)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024
        yield f"peak memory, {kind} {count / 1e6:.0f} M shapes", f"{peak / 2**30:.2f} GiB", "<= 1 GiB wanted"


def main() -> None:
    """Print every row as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e8, help="shapes to reduce")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--only", default="", help="reduce, write, resume, dask or memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        parts = {
            "reduce": lambda: reducing(arguments.rows, arguments.threads),
            "write": lambda: writing(folder / "write", arguments.threads),
            "resume": lambda: resuming(folder / "resume"),
            "dask": lambda: on_dask(folder / "dask"),
            "memory": lambda: memory(arguments.rows, arguments.threads),
        }
        (folder / "write").mkdir()
        if arguments.markdown:
            print("| what | measured | ratio |\n|---|---|---|")
        for part, rows in parts.items():
            if arguments.only and part != arguments.only:
                continue
            for what, measured, ratio in rows():
                plain = f"{what:<62} {measured:>20}  {ratio}"
                print(f"| {what} | {measured} | {ratio} |" if arguments.markdown else plain, flush=True)
            if part in TARGETS and not arguments.markdown:
                print(f"{'':<62} {'':>20}  to reach: {TARGETS[part]}")


if __name__ == "__main__":
    main()
