"""Run a sweep into one file, or as a stream of record batches: chunks priced by threads, handed out in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mfuroof._boundary import Problems
from mfuroof._version import __version__
from mfuroof.sweep.ahead import ahead, thread_count
from mfuroof.sweep.block import Block
from mfuroof.sweep.cases import BoundCase, Plan
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.grid import Chunk
from mfuroof.sweep.origin import table_provenance
from mfuroof.sweep.outputs import check_file
from mfuroof.sweep.schema import Columns
from mfuroof.sweep.sink import ParquetSink
from mfuroof.sweep.space import Space
from mfuroof.sweep.summary import CaseSummary, SweepSummary, summarise

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Detail", "Infeasible", "Progress", "file_metadata", "prepared", "run_sweep", "sweep_batches", "told"]

Progress = Callable[[int, int], None]
"""Told how many rows are done, and of how many."""

Detail = Literal["times", "bound", "components"]
Infeasible = Literal["keep", "drop"]


def run_sweep(
    sweep: Sweep,
    output: str | Path | None = None,
    *,
    detail: Detail = "bound",
    infeasible: Infeasible = "keep",
    threads: int | None = None,
    chunk_rows: int | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> SweepSummary:
    """Price every row of a sweep, write them to one Parquet file if asked to, and return what was found.

    One file cannot be resumed: `write_sweep` writes a folder of partitions, of which none is lost.

    Parameters
    ----------
    sweep
        What to sweep.
    output
        File whose name ends in ``.parquet``; it appears under this name when it is complete. None writes nothing.
    detail
        ``"times"``: times, throughput and whether the requests fit; ``"bound"``: also the binding resource, the
        worst source and the largest distance to data; ``"components"``: also the time of every component of a step.
    infeasible
        ``"keep"``: the rows of a case that cannot be priced (heads that do not divide, no tables) have no times, those
        of one that does not fit have, and ``reason`` says what is wrong. ``"drop"``: they are left out, and so are
        rows whose requests do not fit.
    threads
        Threads that price chunks; None for as many as there are processors. The results are the same bits.
    chunk_rows
        Most rows priced at a time by one thread; None for what suits caches. [rows]
    progress
        Called with the number of rows done and of all rows, after each chunk.
    command
        Command line to note in the file.

    Raises
    ------
    InputError
        An argument is out of range, the file's name does not end in ``.parquet``, or no case divides over its ranks.
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
    if output is not None:
        check_file(output)
    plan, columns = prepared(sweep, detail, infeasible, chunk_rows)
    workers = thread_count(threads)
    plan.require_one()
    found: dict[int, CaseSummary] = {}
    with ExitStack() as stack:
        sink, schema = None, columns.schema(file_metadata(sweep) | {"mfuroof.command": command})
        if output is not None:
            sink = stack.enter_context(ParquetSink(output, schema))
        for block, part in _priced(plan, columns, workers, progress):
            found[block.case] = found[block.case].merged(part) if block.case in found else part
            if sink is not None and block.rows:
                sink.write(block.to_arrow(schema))
    seconds = time.perf_counter() - began
    return SweepSummary(told(plan, found), seconds, None if output is None else str(output))


def sweep_batches(
    sweep: Sweep,
    *,
    detail: Detail = "bound",
    infeasible: Infeasible = "keep",
    threads: int | None = None,
    chunk_rows: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a sweep as Arrow record batches, in order; arguments and errors as in `run_sweep`."""
    plan, columns = prepared(sweep, detail, infeasible, chunk_rows)
    workers = thread_count(threads)
    plan.require_one()
    schema = columns.schema(file_metadata(sweep))
    for block, _ in _priced(plan, columns, workers, None):
        if block.rows:
            yield block.to_arrow(schema)


def prepared(
    sweep: Sweep, detail: str, infeasible: str, chunk_rows: int | None = None, partition_rows: int | None = None
) -> tuple[Plan, Columns]:
    """Return the cases and columns of a sweep, arguments checked."""
    problems = Problems()
    for name, value in (("chunk_rows", chunk_rows), ("partition_rows", partition_rows)):
        if value is not None:
            problems.positive_int(name, value)
    problems.raise_if_any()
    plan = Plan(Space(sweep, chunk_rows, partition_rows), infeasible)
    return plan, Columns(plan, detail)


def _priced(
    plan: Plan, columns: Columns, workers: int, progress: Progress | None
) -> Iterator[tuple[Block, CaseSummary]]:
    """Yield every chunk of every case in order."""
    space, view = plan.space, columns.view
    done = 0

    def work(number: int, case: BoundCase, first: int, chunk: Chunk) -> tuple[int, Block | None, CaseSummary | None]:
        kept = space.kept(number, chunk)
        if kept is None:
            return chunk.rows, None, None
        block = columns.block(number, case, first, kept)
        return chunk.rows, block, summarise(block, case.case, view.RATE, view.TIME, view.AXES)

    def jobs() -> Iterator[Callable[[], tuple[int, Block | None, CaseSummary | None]]]:
        for job in range(space.jobs):
            number, first, chunk = space.chunk(job)
            case = plan.bind(number)
            if case.left_out:
                yield lambda rows=chunk.rows: (rows, None, None)  # type: ignore[misc]
            else:
                yield lambda args=(number, case, first, chunk): work(*args)  # type: ignore[misc]

    for rows, block, part in ahead(jobs(), workers):
        done += rows
        if progress is not None:
            progress(done, space.rows)
        if block is not None and part is not None:
            yield block, part


def told(plan: Plan, found: dict[int, CaseSummary]) -> tuple[CaseSummary, ...]:
    """Return the summaries of all cases in order, with what stands against them."""
    return tuple(
        replace(found.get(number, CaseSummary(case)), reason=plan.reasons.get(number, ""))
        for number, case in enumerate(plan.space.cases)
    )


def file_metadata(sweep: Sweep) -> dict[str, str]:
    """Return what a file says of itself."""
    return {
        "mfuroof.version": __version__,
        "mfuroof.sweep": json.dumps(sweep.to_dict()),
        "mfuroof.tables": json.dumps(table_provenance(sweep)),
    }
