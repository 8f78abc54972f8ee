"""Partitions done by the workers of a Dask cluster.

The definition and the evaluators travel inside the task graph, not as scattered data: what the scheduler holds is
computed again when the only worker that had it dies, where scattered data would be lost. An evaluator is sent once
and handed from worker to worker. At most a few partitions a thread are under way, so that a sweep of any length needs
no more memory on the scheduler than a short one.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mfuroof._boundary import Problems
from mfuroof.errors import InputError, MfuroofError, OutputError, Problem
from mfuroof.sweep.cases import BoundCase, Plan
from mfuroof.sweep.local import Rows
from mfuroof.sweep.partition import Done, Work

__all__ = ["connected", "local_cluster", "run_cluster"]

RETRIES = 3
"""Times a partition is tried again that failed on a worker."""

ALLOCATION = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": str(2**28), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""Environment of local workers: freed arrays are kept for the next chunk. Dask's own choice, giving every array back to
the system at once, doubles the time of a sweep."""

_AHEAD = 2
"""Partitions under way for each thread of the cluster."""

_KEPT = 64
"""Evaluators that the cluster is asked to keep."""


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        remedy = "pip install 'mfuroof[dask]'"
        raise InputError(Problem("cluster", "no package distributed", "Dask's cluster package", remedy)) from error
    return distributed


@contextmanager
def local_cluster(workers: int) -> Iterator[Any]:
    """Start a cluster of processes on this machine and yield a client of it.

    Raises
    ------
    InputError
        ``distributed`` is not installed, or ``workers`` is no positive number.
    """
    problems = Problems()
    count = problems.positive_int("dask_workers", workers)
    problems.raise_if_any()
    distributed = _distributed()
    import dask

    quiet = {"n_workers": count, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with dask.config.set({"distributed.nanny.pre-spawn-environ": ALLOCATION}):
        try:
            cluster = distributed.LocalCluster(**quiet, silence_logs=50)
        except (OSError, RuntimeError) as error:
            remedy = 'A script has to call it under: if __name__ == "__main__".'
            expected = "processes that start"
            raise InputError(Problem("dask_workers", str(error) or type(error).__name__, expected, remedy)) from error
        with cluster, distributed.Client(cluster) as client:
            yield client


@contextmanager
def connected(address: str, timeout_s: float = 10.0) -> Iterator[Any]:
    """Connect to a running scheduler and yield a client of it.

    Raises
    ------
    InputError
        ``distributed`` is not installed, or nothing answers at ``address``.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=timeout_s)
    except (OSError, ValueError) as error:
        expected = "the address of a Dask scheduler, such as tcp://host:8786"
        raise InputError(Problem("scheduler", repr(address), expected, "Is it running?")) from error
    with client:
        yield client


def run_cluster(work: Work, plan: Plan, numbers: Iterable[int], client: Any, rows: Rows) -> Iterator[Done]:
    """Yield what became of partitions, as they end.

    Parameters
    ----------
    work, plan, numbers, rows
        As in `run_local`; cases are bound here and sent to the workers.
    client
        A ``distributed.Client``.

    Raises
    ------
    OutputError
        A worker cannot write, or partitions keep failing because their workers die.
    """
    distributed = _distributed()
    if not isinstance(client, distributed.Client):
        raise InputError(Problem("cluster", type(client).__name__, "a distributed.Client"))
    space = plan.space
    kit = client.submit(pickle.loads, pickle.dumps(_portable(work)), pure=False, retries=RETRIES)
    rows.tell()
    cases: dict[int, Any] = {}
    under_way: dict[Any, int] = {}
    ended = distributed.as_completed(with_results=False)
    left = iter(numbers)
    try:
        while True:
            room = _AHEAD * max(sum(client.nthreads().values()), 1) - len(under_way)
            for number in (n for _, n in zip(range(room), left, strict=False)):
                wanted = space.cases_of(space.partition_jobs(number))
                for case in wanted:
                    if case not in cases:
                        blob = pickle.dumps(plan.bind(case))
                        cases[case] = client.submit(pickle.loads, blob, pure=False, retries=RETRIES)
                given = {case: cases[case] for case in wanted}
                task = client.submit(_run, kit, number, list(given), list(given.values()), pure=False, retries=RETRIES)
                under_way[task] = number
                ended.add(task)
                for old in [c for c in cases if c < wanted.start][: max(len(cases) - _KEPT, 0)]:
                    del cases[old]  # cases come in order
            if not under_way:
                break
            task = next(ended)
            number = under_way.pop(task)
            done = _result(task, number)
            rows.add(done.scanned)
            rows.tell()
            yield done
    finally:
        client.cancel(list(under_way))


def _result(task: Any, number: int) -> Done:
    """Return what a task gave, or raise what went wrong with it as an error of ours."""
    try:
        return task.result()
    except MfuroofError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutputError(f"partition {number} failed on the cluster: {type(error).__name__}: {reason}") from error


def _run(work: Work, number: int, cases: list[int], bound: list[BoundCase]) -> Done:
    """Do one partition, on a worker."""
    given: Mapping[int, BoundCase] = dict(zip(cases, bound, strict=True))
    return work.run(number, given)


def _portable(work: Work) -> Work:
    """Return the work without the measured tables, which the evaluators do not need any more."""
    space = copy.copy(work.space)
    sweep = copy.copy(space.sweep)
    object.__setattr__(sweep, "tables", None)
    space.sweep = sweep
    return Work(space, work.columns, work.schema, work.folder, work.reductions)
