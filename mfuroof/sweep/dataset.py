"""`write_sweep`: a sweep into a folder of Parquet partitions, of which none is lost and none done twice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfuroof.errors import OutputError
from mfuroof.sweep.cases import Plan
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.engine import Shard, engine_run
from mfuroof.sweep.fingerprint import fingerprint
from mfuroof.sweep.folder import MANIFEST, Folder, Partition
from mfuroof.sweep.layout import layout, warn_if_idle
from mfuroof.sweep.local import Rows
from mfuroof.sweep.outputs import check_folder
from mfuroof.sweep.partition import Work
from mfuroof.sweep.runner import Detail, Infeasible, Progress, file_metadata, prepared, told
from mfuroof.sweep.summary import CaseSummary, SweepSummary

__all__ = ["collected", "manifest_notes", "write_sweep"]


def write_sweep(
    sweep: Sweep,
    folder: str | Path,
    *,
    detail: Detail = "bound",
    infeasible: Infeasible = "keep",
    threads: int | None = None,
    shard: str | Shard | None = None,
    cluster: Any = None,
    restart: bool = False,
    verify: bool = False,
    chunk_rows: int | None = None,
    partition_rows: int | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> SweepSummary:
    """Price every row of a sweep into a folder of Parquet files, going on where an earlier run ended.

    Each partition is written under a temporary name, renamed when it is whole, and then noted in a journal. After a
    kill, a full disk or a lost connection the same call skips what is done and does again what is damaged. The files
    are the same bytes whatever the threads, shards, interruptions and machines.

    Parameters
    ----------
    sweep
        What to sweep.
    folder
        Where to write; it is made where there is none. Read it with ``pyarrow.dataset``, pandas, polars or DuckDB.
    detail, infeasible, threads, progress, command
        As in `run_sweep`.
    shard
        Which part to do, such as ``"2/8"``, where many processes or machines share the work without knowing of one
        another, in one folder or each in its own (`merge_shards`). None does all.
    cluster
        A ``dask.distributed.Client`` whose workers price and write; they must see ``folder`` under the same path.
    restart
        Whether to remove an earlier sweep that the folder holds.
    verify
        Whether to read the checksum of every file before going on; otherwise size and time stamp are trusted.
    chunk_rows, partition_rows
        Rows priced at a time, and of a partition, about. None for what the folder has already, or what suits: enough
        partitions for all shards, the same whichever of them asks. [rows]

    Raises
    ------
    InputError
        An argument is out of range; no case divides over its ranks; the folder holds another sweep; or its name is
        that of a file, such as ``steps.csv``.
    MissingTableError
        No case has the tables it needs.
    OutputError
        Something cannot be written, or another process is at work in the folder; what is done stays.

    Warns
    -----
    MfuroofWarning
        There are fewer partitions than shards, and this one has nothing to do.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_sweep(Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", prefill_new_tokens=0), folder).rows
    8192
    """
    began = time.perf_counter()
    check_folder(folder)
    part = Shard.parse(shard)
    chunk_rows, partition_rows = layout(sweep, chunk_rows, partition_rows, part, folder, restart)
    plan, columns = prepared(sweep, detail, infeasible, chunk_rows, partition_rows)
    space = plan.space
    rows_each = {"chunk_rows": space.chunk_rows, "partition_rows": space.partition_rows}
    print_ = fingerprint(sweep, detail=detail, infeasible=infeasible, **rows_each)
    notes = manifest_notes(plan, command)
    if not (Path(folder) / MANIFEST).exists():
        plan.require_one()  # before there is a folder
    with Folder(folder, "dataset", print_, notes, part.name, restart) as target:
        mine = part.numbers(space.partitions)
        warn_if_idle(part, space.partitions)
        done = target.done(mine, verify)
        left = [number for number in mine if number not in done]
        work = Work(space, columns, columns.schema(file_metadata(sweep)), target.path.resolve())
        rows = _rows(plan, mine, left, progress)
        try:
            for finished in engine_run(work, plan, left, threads, cluster, rows):
                target.add(finished.partition)
                done[finished.partition.number] = finished.partition
        except OutputError as error:
            kept = sum(number in done for number in mine)
            remedy = f"{kept} of {len(mine)} partitions are kept: give the same command again to go on"
            raise OutputError(f"{error}; {remedy}") from error
    own = {number: done[number] for number in mine}
    return SweepSummary(
        collected(plan, own), time.perf_counter() - began, str(folder), len(mine), len(mine) - len(left)
    )


def _rows(plan: Plan, mine: range, left: list[int], progress: Progress | None) -> Rows:
    space = plan.space
    to_do = sum(space.partition_size(number) for number in left)
    total = space.rows if len(mine) == space.partitions else sum(space.partition_size(number) for number in mine)
    return Rows(total - to_do, total, progress)


def manifest_notes(plan: Plan, command: str) -> dict[str, Any]:
    """Return what a manifest says beside the fingerprint."""
    space = plan.space
    return {
        "partitions": space.partitions,
        "rows before conditions": space.rows,
        "cases": len(space.cases),
        "sweep": plan.sweep.to_dict(),
        "command": command,
    }


def collected(plan: Plan, partitions: Mapping[int, Partition]) -> tuple[CaseSummary, ...]:
    """Return the summaries of all cases from the lines of the journal."""
    found: dict[int, CaseSummary] = {}
    for number in sorted(partitions):
        for text, record in partitions[number].cases.items():
            case = int(text)
            part = CaseSummary.from_record(plan.space.cases[case], record)
            found[case] = found[case].merged(part) if case in found else part
        for text, reason in partitions[number].reasons.items():
            plan.reasons.setdefault(int(text), reason)
    return told(plan, found)
