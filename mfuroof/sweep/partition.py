"""The work on one partition: price its chunks, and write them to a file or take them into reductions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfuroof.sweep.cases import BoundCase
from mfuroof.sweep.folder import Partition, checksum
from mfuroof.sweep.reduction import Reduction
from mfuroof.sweep.schema import Columns
from mfuroof.sweep.sink import ParquetSink
from mfuroof.sweep.space import Space
from mfuroof.sweep.summary import CaseSummary, summarise

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Done", "Stopped", "Work"]


class Stopped(Exception):
    """The run ends before this partition is done."""


@dataclass(frozen=True)
class Done:
    """What became of one partition.

    Attributes
    ----------
    partition
        Its line for the journal.
    scanned
        Rows before conditions left some out.
    tables
        State of each reduction, by name.
    """

    partition: Partition
    scanned: int
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be done with every partition; the same wherever it is done, so it can be sent to other machines.

    Attributes
    ----------
    space
        Cases and chunks.
    columns, schema
        Columns of the result.
    folder
        Where partitions are written; None for reductions.
    reductions
        What is kept instead, by name.
    """

    space: Space
    columns: Columns
    schema: pa.Schema
    folder: Path | None = None
    reductions: Mapping[str, Reduction] = field(default_factory=dict)

    def run(
        self,
        number: int,
        bound: Mapping[int, BoundCase],
        advance: Callable[[int], None] | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Done:
        """Do one partition.

        Parameters
        ----------
        number
            Which one.
        bound
            Its cases by number, ready to be priced.
        advance
            Told how many more rows are done, after each chunk.
        stopped
            Asked before each chunk whether to give up.

        Raises
        ------
        OutputError
            Its file cannot be written; nothing is left of it.
        Stopped
            It was given up.
        """
        columns, view = self.columns, self.columns.view
        states = {name: reduction.start(self.schema) for name, reduction in self.reductions.items()}
        found: dict[int, CaseSummary] = {}
        rows = scanned = 0
        target = None if self.folder is None else self.folder / Partition(number, 0).file
        with ExitStack() as stack:
            sink: ParquetSink | None = None
            for job in self.space.partition_jobs(number):
                if stopped is not None and stopped():
                    raise Stopped
                case_number, first, chunk = self.space.chunk(job)
                case = bound[case_number]
                scanned += chunk.rows
                kept = None if case.left_out else self.space.kept(case_number, chunk)
                if kept is not None:
                    block = columns.block(case_number, case, first, kept)
                    part = summarise(block, case.case, view.RATE, view.TIME, view.AXES)
                    found[case_number] = found[case_number].merged(part) if case_number in found else part
                    rows += block.rows
                    for state in states.values():
                        state.update(block)
                    if target is not None and block.rows:
                        if sink is None:
                            sink = stack.enter_context(ParquetSink(target, self.schema))
                        sink.write(block.to_arrow(self.schema))
                if advance is not None:
                    advance(chunk.rows)
        summaries: dict[str, Any] = {str(case): part.to_record() for case, part in found.items()}
        reasons = {str(case): b.reason for case, b in bound.items() if b.reason}
        partition = Partition(number, rows, cases=summaries, reasons=reasons)
        if target is not None:
            if rows:
                stat = target.stat()
                partition = Partition(
                    number, rows, stat.st_size, checksum(target), stat.st_mtime_ns, summaries, reasons
                )
            else:
                target.unlink(missing_ok=True)  # of a run that was damaged
        return Done(partition, scanned, {name: state.table() for name, state in states.items()})
