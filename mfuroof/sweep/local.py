"""Partitions done by the threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from mfuroof.sweep.ahead import ahead
from mfuroof.sweep.cases import Plan
from mfuroof.sweep.partition import Done, Work

__all__ = ["Rows", "run_local"]


class Rows:
    """Rows done so far, counted by many threads.

    Parameters
    ----------
    done, total
        Rows done before, and of all.
    progress
        Told both, from the thread that calls `tell`.
    """

    def __init__(self, done: int, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._done, self.total, self._progress = done, total, progress
        self._lock = threading.Lock()

    def add(self, rows: int) -> None:
        """Count more rows."""
        with self._lock:
            self._done += rows

    def tell(self) -> None:
        """Say how far it is."""
        if self._progress is not None:
            self._progress(self._done, self.total)


def run_local(work: Work, plan: Plan, numbers: Iterable[int], threads: int, rows: Rows) -> Iterator[Done]:
    """Yield what became of partitions, in the order of ``numbers``; cases are bound by the calling thread."""
    stop = threading.Event()
    rows.tell()

    def jobs() -> Iterator[Callable[[], Done]]:
        for number in numbers:
            cases = plan.space.cases_of(plan.space.partition_jobs(number))
            bound = {case: plan.bind(case) for case in cases}
            yield lambda number=number, bound=bound: work.run(number, bound, rows.add, stop.is_set)  # type: ignore[misc]

    yield from ahead(jobs(), threads, rows.tell, stop.set)
    rows.tell()
