"""Work shared among threads with a few pieces begun ahead, never more; results come in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from typing import TypeVar

from mfuroof._boundary import Problems

__all__ = ["ahead", "processors", "thread_count"]

_T = TypeVar("_T")

_MORE = 2
"""Jobs begun beyond the number of threads."""

_TICK_S = 0.1
"""How often a caller that waits is told so."""


def ahead(
    jobs: Iterable[Callable[[], _T]],
    workers: int,
    tick: Callable[[], None] | None = None,
    stop: Callable[[], None] | None = None,
) -> Iterator[_T]:
    """Yield the results of jobs in order.

    Parameters
    ----------
    jobs
        Taken one by one, when there is room.
    workers
        Threads.
    tick
        Called while results are waited for, some times a second; what it raises ends the work.
    stop
        Called when the work ends, however it does, before running jobs are waited for.
    """
    waiting: deque[Future[_T]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) >= workers + _MORE:
                yield _waited(waiting.popleft(), tick)
        while waiting:
            yield _waited(waiting.popleft(), tick)
    finally:
        if stop is not None:
            stop()
        pool.shutdown(cancel_futures=True)


def _waited(future: Future[_T], tick: Callable[[], None] | None) -> _T:
    while tick is not None:
        try:
            result = future.result(_TICK_S)
        except TimeoutError:
            if future.done():
                raise  # it was the job's own
            tick()
            continue
        tick()
        return result
    return future.result()


def thread_count(threads: int | None) -> int:
    """Return the number of threads asked for, or of processors; `InputError` if it is none."""
    problems = Problems()
    count = problems.positive_int("threads", processors() if threads is None else threads)
    problems.raise_if_any()
    return count


def processors() -> int:
    """Return the processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
