"""All rows of a sweep by number: cases in order, each with its grid of shapes, cut into chunks and partitions.

Nothing of this is held in memory: a row, chunk or partition is computed from its number, so that a sweep of any size
starts at once and any part of it can be priced anywhere.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof._types import I64
from mfuroof.errors import InputError, Problem
from mfuroof.sweep.block import Column, tested
from mfuroof.sweep.definition import CHUNK_ROWS, Sweep
from mfuroof.sweep.grid import Chunk, Grid
from mfuroof.sweep.values import CASE_AXES, DEGREES, label

__all__ = ["Case", "Space", "case_columns"]

MOST_PARTITION_ROWS, LEAST_PARTITION_ROWS, PARTITIONS = 2**22, 2**18, 64
"""Bounds of the usual size of a partition, and how many there should be at least. [rows, rows, partitions]"""

MOST_ROWS = 2**60
"""Most rows of a sweep: their numbers are 64-bit. [rows]"""

MOST_CASES = 64
"""Cases of one partition, about: their evaluators are in memory together."""

SERVING_CHUNK_ROWS = 2**12
"""Loads priced at a time: each takes some dozens of steps. [rows]"""


@dataclass(frozen=True)
class Case:
    """One combination of what is constant over a grid of shapes; None for the checkpoint's own.

    Attributes
    ----------
    values
        What stands on each of `CASE_AXES`, in their order.
    """

    values: tuple[Any, ...]

    def __getitem__(self, name: str) -> Any:
        return self.values[CASE_AXES.index(name)]

    @property
    def labels(self) -> dict[str, Any]:
        """What tells cases apart by column, as asked for: dtypes ``own`` where the checkpoint's are kept."""
        return {name: label(name, value) for name, value in zip(CASE_AXES, self.values, strict=True)}

    @property
    def tp_size(self) -> int:
        """Tensor-parallel ranks."""
        return int(self["tp_size"])

    @property
    def num_gpus(self) -> int:
        """GPUs of one replica."""
        return int(self["tp_size"] * self["pp_size"] * self["dp_size"])

    @property
    def title(self) -> str:
        """Name of the case in a message."""
        named = self.labels
        degrees = [f"{n[:2]}{named[n]}" for n in DEGREES if named[n] > 1 or n == "tp_size"]
        dtypes = [str(self["weight_dtype"])] if self["weight_dtype"] else []
        for name, called in (("kv_dtype", "KV"), ("attention_dtype", "attention"), ("moe_dtype", "experts")):
            dtypes += [f"{self[name]} {called}"] if self[name] else []
        dtypes += [named["runtime"]] if self["runtime"] else []
        engine = [named["engine"]] if named["engine"] != "vllm" else []
        return " ".join([named["model"], "on", named["gpu"], *degrees, *dtypes, *engine])


class Space:
    """The cases and chunks of a sweep.

    Parameters
    ----------
    sweep
        The definition.
    chunk_rows
        Most rows priced at a time; None for what suits caches.
    partition_rows
        Rows of a partition, about; None for enough partitions to share out and to lose little.

    Raises
    ------
    InputError
        No case meets the conditions, or there are more rows than can be numbered.

    Attributes
    ----------
    cases
        In the order of their rows.
    rows
        Rows before conditions leave some out.
    """

    def __init__(self, sweep: Sweep, chunk_rows: int | None = None, partition_rows: int | None = None) -> None:
        self.sweep = sweep
        usual = SERVING_CHUNK_ROWS if sweep.serving else CHUNK_ROWS
        self.chunk_rows = usual if chunk_rows is None else chunk_rows
        conditions = sweep.conditions()
        self._case_conditions = [c for c in conditions if not set(c.names) & set(sweep.axes)]
        self.conditions = [c for c in conditions if set(c.names) & set(sweep.axes)]
        self._grids: list[Grid] = []
        self.cases, self._grid_of = self._all()
        most = max(g.rows for g in self._grids) * len(self.cases)
        if most > MOST_ROWS:
            raise InputError(Problem("sweep", f"{most:.1e} rows", f"at most {MOST_ROWS:.1e}", "Take larger steps."))
        if not self.cases:
            remedy = "Loosen the condition, or widen the axes."
            raise InputError(Problem("where", "no case that meets it", "at least one", remedy))
        sizes = np.array([g.rows for g in self._grids])
        self._starts = np.concatenate([[0], np.cumsum(sizes[self._grid_of], dtype=np.int64)]).astype(np.int64)
        chunks = np.array([len(g) for g in self._grids])
        self._jobs = np.concatenate([[0], np.cumsum(chunks[self._grid_of], dtype=np.int64)]).astype(np.int64)
        self.rows = int(self._starts[-1])
        if partition_rows is None:
            partition_rows = min(max(self.rows // PARTITIONS, LEAST_PARTITION_ROWS), MOST_PARTITION_ROWS)
        self.partition_rows = max(partition_rows, 1)
        each = self.rows / max(self.jobs, 1)
        most = MOST_CASES * -(-self.jobs // len(self.cases))
        self._jobs_each = min(max(round(self.partition_rows / each), 1), most)

    def _all(self) -> tuple[tuple[Case, ...], I64]:
        """Return the cases and the number of the grid of each."""
        sweep, table = self.sweep, self.sweep.table
        texts = table.texts if table is not None else {}
        linked: list[tuple[tuple[str, ...], list[tuple[Any, ...]]]] = []
        rows_of: dict[tuple[Any, ...], list[int]] = {}
        if table is not None and texts:
            columns = [[getattr(sweep, name)[code] for code in codes] for name, (_, codes) in texts.items()]
            for row, key in enumerate(zip(*columns, strict=True)):
                rows_of.setdefault(key, []).append(row)
            linked.append((tuple(texts), list(rows_of)))
        for group in sweep.together:
            if group[0] in CASE_AXES:
                linked.append((group, list(zip(*(getattr(sweep, name) for name in group), strict=True))))
        single = [n for n in CASE_AXES if not any(n in names for names, _ in linked)]
        dims = [*linked, *(((name,), [(value,) for value in getattr(sweep, name)]) for name in single)]
        dims.sort(key=lambda dim: min(CASE_AXES.index(name) for name in dim[0]))
        shared = table is None or not texts or not table.counts
        if shared:
            self._grids.append(sweep.grid(self.chunk_rows))
        else:
            for rows in rows_of.values():
                self._grids.append(sweep.grid(self.chunk_rows, np.array(rows, np.int64)))
        number_of = {key: i for i, key in enumerate(rows_of)}
        cases: dict[Case, int] = {}
        for values in itertools.product(*(values for _, values in dims)):
            by_name: dict[str, Any] = {}
            for (names, _), part in zip(dims, values, strict=True):
                by_name |= dict(zip(names, part, strict=True))
            case = Case(tuple(by_name[name] for name in CASE_AXES))
            if case not in cases and self._wanted(case):
                cases[case] = 0 if shared else number_of[tuple(by_name[name] for name in texts)]
        return tuple(cases), np.array(list(cases.values()), np.int64)

    def _wanted(self, case: Case) -> bool:
        if not self._case_conditions:
            return True
        columns = case_columns(case)
        return all(bool(np.all(tested(c, columns))) for c in self._case_conditions)

    @property
    def jobs(self) -> int:
        """Number of chunks of all cases."""
        return int(self._jobs[-1])

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return -(-self.jobs // self._jobs_each)

    def partition_jobs(self, number: int) -> range:
        """Return the chunks of a partition."""
        return range(number * self._jobs_each, min((number + 1) * self._jobs_each, self.jobs))

    def partition_size(self, number: int) -> int:
        """Return the rows of a partition, before conditions leave some out."""
        jobs = self.partition_jobs(number)
        return self._row_of(jobs.stop) - self._row_of(jobs.start)

    def _row_of(self, job: int) -> int:
        """Return the position of the first row of a chunk."""
        if job >= self.jobs:
            return self.rows
        case = int(np.searchsorted(self._jobs, job, side="right")) - 1
        grid = self._grids[self._grid_of[case]]
        return int(self._starts[case]) + grid.first_row(job - int(self._jobs[case]))

    def cases_of(self, jobs: range) -> range:
        """Return the numbers of the cases that some chunks belong to."""
        if not jobs:
            return range(0)
        first = int(np.searchsorted(self._jobs, jobs.start, side="right")) - 1
        last = int(np.searchsorted(self._jobs, jobs.stop - 1, side="right")) - 1
        return range(first, last + 1)

    def chunk(self, job: int) -> tuple[int, int, Chunk]:
        """Return the number of the case of a chunk, the position of the case's first row, and the chunk."""
        case = int(np.searchsorted(self._jobs, job, side="right")) - 1
        grid = self._grids[self._grid_of[case]]
        return case, int(self._starts[case]), grid.chunk(job - int(self._jobs[case]))

    def kept(self, case: int, chunk: Chunk) -> Chunk | None:
        """Return the rows of a chunk that meet the conditions; None where none does."""
        if not self.conditions:
            return chunk
        columns = case_columns(self.cases[case]) | {name: Column(values) for name, values in chunk.columns.items()}
        for condition in self.conditions:
            found = np.asarray(tested(condition, columns))
            if found.size == 1:
                if not found.all():
                    return None
                continue
            at = np.flatnonzero(found)
            if not at.size:
                return None
            if at.size < chunk.rows:
                chunk = chunk.select(at)
                columns |= {name: Column(values) for name, values in chunk.columns.items()}
        return chunk


def case_columns(case: Case) -> dict[str, Column]:
    """Return the labels of a case as columns of one value, and ``num_gpus``."""
    columns = {}
    for name, value in case.labels.items():
        if name in DEGREES:
            columns[name] = Column(np.array([value], np.int64))
        else:
            columns[name] = Column(np.zeros(1, np.int16), (value,))
    return columns | {"num_gpus": Column(np.array([case.num_gpus], np.int64))}
