"""Run a sweep: chunks priced by threads, in order, into one file and a running summary."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mfuroof._boundary import Problems, choice
from mfuroof._version import __version__
from mfuroof.sweep.cases import Plan
from mfuroof.sweep.definition import CHUNK_ROWS, Sweep
from mfuroof.sweep.origin import table_provenance
from mfuroof.sweep.price import DETAILS, PricedChunk, price
from mfuroof.sweep.schema import Columns
from mfuroof.sweep.sink import ParquetSink
from mfuroof.sweep.summary import CaseSummary, SweepSummary, summarise

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["run_sweep", "sweep_batches"]

Progress = Callable[[int, int], None]
Detail = Literal["times", "bound", "components"]


def run_sweep(
    sweep: Sweep,
    output: str | Path | None = None,
    *,
    detail: Detail = "bound",
    infeasible: Literal["keep", "drop"] = "keep",
    threads: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
    progress: Progress | None = None,
    command: str = "",
) -> SweepSummary:
    """Price every step of a sweep, write them to one Parquet file if asked to, and return what was found.

    Parameters
    ----------
    sweep
        What to sweep.
    output
        Parquet file; it appears under this name when it is complete. None writes nothing.
    detail
        ``"times"``: step time, throughput and whether the requests fit; ``"bound"``: also the binding resource, the
        worst source and the largest distance to data; ``"components"``: also the time of every component.
    infeasible
        Whether a model that does not fit its GPUs is priced all the same (``"keep"``, with a warning) or left out
        (``"drop"``). What cannot be priced at all (heads that do not divide, no tables) has no rows either way, and
        its reason in the summary.
    threads
        Threads that price chunks; None for as many as there are processors. The results are the same bits.
    chunk_rows
        Most steps priced at a time by one thread. [steps]
    progress
        Called with the number of steps done and of all steps, after each chunk.
    command
        Command line to note in the file.

    Raises
    ------
    InputError
        An argument is out of range, or no case divides over its ranks.
    MissingTableError
        No case has the tables it needs.
    OutputError
        The file cannot be written; nothing is left under its name.

    Examples
    --------
    >>> run_sweep(Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", prefill_new_tokens=0)).rows
    8192
    """
    began = time.perf_counter()
    plan, columns = _prepared(sweep, detail, infeasible)
    found: dict[int, CaseSummary] = {}
    with ExitStack() as stack:
        sink, schema = None, columns.schema(_metadata(plan, command))
        if output is not None:
            sink = stack.enter_context(ParquetSink(output, schema))
        for priced, part in _priced(plan, detail, threads, chunk_rows, progress):
            found[priced.number] = found[priced.number].merged(part) if priced.number in found else part
            if sink is not None:
                sink.write(columns.batch(priced, schema))
    return SweepSummary(
        tuple(_with_reason(plan, number, found.get(number)) for number in range(len(plan))),
        time.perf_counter() - began,
        None if output is None else str(output),
    )


def sweep_batches(
    sweep: Sweep,
    *,
    detail: Detail = "bound",
    infeasible: Literal["keep", "drop"] = "keep",
    threads: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a sweep as Arrow record batches, in order; arguments and errors as in `run_sweep`."""
    plan, columns = _prepared(sweep, detail, infeasible)
    schema = columns.schema(_metadata(plan, ""))
    for priced, _ in _priced(plan, detail, threads, chunk_rows, None):
        yield columns.batch(priced, schema)


def _prepared(sweep: Sweep, detail: str, infeasible: str) -> tuple[Plan, Columns]:
    choice("detail", detail, DETAILS)
    plan = Plan(sweep, choice("infeasible", infeasible, ("keep", "drop")))
    names: dict[str, None] = {}
    if detail == "components":
        for number in range(len(plan)):
            bound = plan.bind(number)
            names |= dict.fromkeys(bound.evaluator.components if bound else ())
    return plan, Columns(plan, detail, tuple(names))


def _priced(
    plan: Plan, detail: str, threads: int | None, chunk_rows: int, progress: Progress | None
) -> Iterator[tuple[PricedChunk, CaseSummary]]:
    """Yield every chunk of every case in order; a few are ahead in the threads, never more."""
    problems = Problems()
    workers = problems.positive_int("threads", _processors() if threads is None else threads)
    chunk_rows = problems.positive_int("chunk_rows", chunk_rows)
    problems.raise_if_any()
    grid = plan.sweep.grid(chunk_rows)
    done, total = 0, grid.rows * len(plan)

    def jobs() -> Iterator[Callable[[], tuple[PricedChunk, CaseSummary]]]:
        nonlocal total
        for number in range(len(plan)):
            case = plan.bind(number)
            if case is None:
                total -= grid.rows
                continue
            for i in range(len(grid)):
                yield lambda number=number, case=case, i=i: _work(price(number, case, grid.chunk(i), detail))  # type: ignore[misc]

    for priced, part in _ahead(jobs(), workers):
        done += priced.chunk.rows
        if progress is not None:
            progress(done, total)
        yield priced, part
    plan.raise_if_nothing()


def _work(priced: PricedChunk) -> tuple[PricedChunk, CaseSummary]:
    return priced, summarise(priced)


def _ahead(jobs: Iterable[Callable[[], Any]], workers: int) -> Iterator[Any]:
    """Yield the results of jobs in order, with at most ``workers + 2`` of them begun and not yet handed out."""
    waiting: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) >= workers + 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _metadata(plan: Plan, command: str) -> dict[str, str]:
    """Return what a file says of itself."""
    return {
        "mfuroof.version": __version__,
        "mfuroof.command": command,
        "mfuroof.sweep": json.dumps(plan.sweep.to_dict()),
        "mfuroof.tables": json.dumps(table_provenance(plan.sweep)),
    }


def _with_reason(plan: Plan, number: int, summary: CaseSummary | None) -> CaseSummary:
    why = plan.found.get(number)
    base = CaseSummary(plan.cases[number]) if summary is None else summary
    return replace(base, reason=why.reason) if why else base
