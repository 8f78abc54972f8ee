"""`reduce_sweep`: a sweep of any size into small tables, never held and never lost."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfuroof.errors import InputError, OutputError, Problem
from mfuroof.sweep.cases import Plan
from mfuroof.sweep.checkpoint import Checkpoint, checkpoint_name, read_checkpoints
from mfuroof.sweep.dataset import manifest_notes
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.engine import Shard, engine_run
from mfuroof.sweep.fingerprint import digest, fingerprint
from mfuroof.sweep.folder import MANIFEST, Folder
from mfuroof.sweep.layout import layout, warn_if_idle
from mfuroof.sweep.local import Rows
from mfuroof.sweep.outputs import check_folder
from mfuroof.sweep.partition import Done, Work
from mfuroof.sweep.reduction import Reduction, State
from mfuroof.sweep.runner import Detail, Infeasible, Progress, file_metadata, prepared, told
from mfuroof.sweep.sink import ParquetSink
from mfuroof.sweep.summary import CaseSummary, SweepSummary

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Reduced", "Seen", "reduce_sweep", "write_results"]

_METHODS = ("check", "to_dict", "start", "restored")
"""What a `Reduction` can do."""

CHECKPOINT_S = 5.0
"""Seconds of work that a kill may cost at most, beside the partitions at work. [s]"""


@dataclass(frozen=True)
class Reduced:
    """What is left of a sweep.

    Attributes
    ----------
    tables
        Result of each reduction by name; of one shard, of the partitions of that shard.
    summary
        What was found, case by case.
    """

    tables: Mapping[str, pa.Table] = field(repr=False)
    summary: SweepSummary


def reduce_sweep(
    sweep: Sweep,
    reductions: Mapping[str, Reduction] | Reduction,
    folder: str | Path | None = None,
    *,
    detail: Detail = "bound",
    infeasible: Infeasible = "keep",
    threads: int | None = None,
    shard: str | Shard | None = None,
    cluster: Any = None,
    restart: bool = False,
    chunk_rows: int | None = None,
    partition_rows: int | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Reduced:
    """Price every row of a sweep and keep what reductions ask for; the rows themselves are never held or written.

    Parameters
    ----------
    sweep
        What to sweep.
    reductions
        What to keep, by name: `TopK`, `Pareto`, `Histogram`, or your own (`mfuroof.sweep.reduction.Reduction`).
    folder
        Where the results are written, one ``<name>.parquet`` each, and checkpoints, from which the same call goes on
        after a kill. None for nowhere.
    detail, infeasible, threads, shard, cluster, restart, chunk_rows, partition_rows, progress, command
        As in `write_sweep`. A shard writes its checkpoint; `merge_shards` makes the results of all.

    Raises
    ------
    InputError, MissingTableError, OutputError
        As in `write_sweep`.
    UnknownNameError
        A reduction asks for a column that the sweep does not have.

    Examples
    --------
    >>> from mfuroof.sweep import TopK
    >>> sweep = Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", tp_size="1,2", prefill_new_tokens=0)
    >>> best = reduce_sweep(sweep, TopK("tokens_per_s_per_gpu", by="tp_size", where="fits and step_time_s <= 0.02"))
    >>> best.tables["result"]["tp_size"].to_pylist()
    [1, 2]
    """
    began = time.perf_counter()
    named = dict(reductions) if isinstance(reductions, Mapping) else {"result": reductions}
    if folder is not None:
        check_folder(folder)
    part = Shard.parse(shard)
    chunk_rows, partition_rows = layout(sweep, chunk_rows, partition_rows, part, folder, restart)
    plan, columns = prepared(sweep, detail, infeasible, chunk_rows, partition_rows)
    schema = columns.schema(file_metadata(sweep))
    _check(named, schema)
    space = plan.space
    rows_each = {"chunk_rows": space.chunk_rows, "partition_rows": space.partition_rows}
    specs = {name: reduction.to_dict() for name, reduction in named.items()}
    print_ = fingerprint(sweep, detail=detail, infeasible=infeasible, reductions=specs, **rows_each)
    mine = part.numbers(space.partitions)
    warn_if_idle(part, space.partitions)
    if folder is None or not (Path(folder) / MANIFEST).exists():
        plan.require_one()  # before there is a folder
    with ExitStack() as stack:
        path = None
        if folder is not None:
            target = stack.enter_context(
                Folder(folder, "reduction", print_, manifest_notes(plan, command), part.name, restart)
            )
            print_ = {"kind": "reduction", **print_}
            path = target.path / checkpoint_name(part.name)
        seen = Seen(plan, named, schema, digest(print_))
        if path is not None:
            own = Checkpoint.read(path, digest(print_))
            for before in read_checkpoints(path.parent, digest(print_)) if part.of == 1 else filter(None, (own,)):
                seen.merge(before)
        left = [number for number in mine if number not in seen.done]
        work = Work(space, columns, schema, None, named)
        to_do = sum(space.partition_size(number) for number in left)
        total = sum(space.partition_size(number) for number in mine)
        try:
            saved = time.monotonic()
            for done in engine_run(work, plan, left, threads, cluster, Rows(total - to_do, total, progress)):
                seen.add(done)
                if path is not None and time.monotonic() - saved > CHECKPOINT_S:
                    seen.checkpoint().write(path)
                    saved = time.monotonic()
        except OutputError as error:
            raise OutputError(f"{error}; the last checkpoint is kept: give the same command again") from error
        except KeyboardInterrupt:
            if path is not None:
                seen.checkpoint().write(path)
            raise
        tables = {name: state.result() for name, state in seen.states.items()}
        if path is not None:
            seen.checkpoint().write(path)
            if part.of == 1:
                write_results(path.parent, tables)
    seconds = time.perf_counter() - began
    where = None if folder is None else str(folder)
    summary = SweepSummary(seen.summaries(), seconds, where, len(mine), len(mine) - len(left))
    return Reduced(tables, summary)


class Seen:
    """What reductions and the summary have seen so far.

    Parameters
    ----------
    plan
        Cases.
    reductions
        What is kept, by name.
    schema
        Columns of the sweep.
    digest
        Digest of the fingerprint, for checkpoints.
    """

    def __init__(self, plan: Plan, reductions: Mapping[str, Reduction], schema: pa.Schema, digest: str) -> None:
        self._plan, self._reductions, self._schema, self._digest = plan, reductions, schema, digest
        self.done: set[int] = set()
        self.states: dict[str, State] = {name: r.start(schema) for name, r in reductions.items()}
        self._cases: dict[int, CaseSummary] = {}

    def add(self, done: Done) -> None:
        """Take in a partition."""
        self._take(done.tables, done.partition.cases, done.partition.reasons)
        self.done.add(done.partition.number)

    def merge(self, other: Checkpoint) -> None:
        """Take in what an earlier run or another shard has seen."""
        self._take(other.tables, other.cases, other.reasons)
        self.done |= other.done

    def _take(self, tables: Mapping[str, pa.Table], cases: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
        for name, state in self.states.items():
            state.merge(self._reductions[name].restored(self._schema, tables[name]))
        for text, record in cases.items():
            case = int(text)
            part = CaseSummary.from_record(self._plan.space.cases[case], record)
            self._cases[case] = self._cases[case].merged(part) if case in self._cases else part
        for text, reason in reasons.items():
            self._plan.reasons.setdefault(int(text), reason)

    def checkpoint(self) -> Checkpoint:
        """Return it as something to write down."""
        return Checkpoint(
            self._digest,
            self._schema,
            frozenset(self.done),
            {name: state.table() for name, state in self.states.items()},
            {str(case): part.to_record() for case, part in self._cases.items()},
            {str(case): reason for case, reason in self._plan.reasons.items()},
        )

    def summaries(self) -> tuple[CaseSummary, ...]:
        """Return the summaries of all cases."""
        return told(self._plan, self._cases)


def write_results(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    """Write each result to ``<name>.parquet``, whole or not at all."""
    for name, table in tables.items():
        with ParquetSink(folder / f"{name}.parquet", table.schema) as sink:
            for batch in table.to_batches():
                sink.write(batch)


def _check(reductions: Mapping[str, Reduction], schema: pa.Schema) -> None:
    if not reductions:
        raise InputError(Problem("reductions", "none", "at least one"))
    for name, reduction in reductions.items():
        if not isinstance(name, str) or not name or name != os.path.basename(name) or name.startswith(("_", ".")):
            raise InputError(Problem("reductions", repr(name), "names that can be file names"))
        if isinstance(reduction, type) or not all(callable(getattr(reduction, n, None)) for n in _METHODS):
            expected = "a TopK, Pareto or Histogram, or another Reduction"
            raise InputError(Problem(f"reductions[{name!r}]", repr(reduction)[:100], expected))
        reduction.check(schema)
