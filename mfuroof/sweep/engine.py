"""Where partitions are done: by threads of this process, or by the workers of a Dask cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mfuroof.errors import InputError, Problem
from mfuroof.sweep.ahead import thread_count
from mfuroof.sweep.cases import Plan
from mfuroof.sweep.local import Rows, run_local
from mfuroof.sweep.partition import Done, Work

__all__ = ["Shard", "engine_run"]


@dataclass(frozen=True)
class Shard:
    """Every n-th partition: what one of ``of`` independent runs does.

    Parameters
    ----------
    number
        Which one, from 1.
    of
        How many there are.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | Shard | None) -> Shard:
        """Return the shard that a text such as ``2/8`` names; None is all of it.

        Raises
        ------
        InputError
            No such text, or a number that is not in 1 .. n.

        Examples
        --------
        >>> Shard.parse("2/8")
        Shard(number=2, of=8)
        """
        if text is None or isinstance(text, Shard):
            return text or cls()
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", str(text))
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(Problem("shard", repr(text), "i/n with i from 1 to n, such as 2/8"))
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """Name for files; empty where there is but one."""
        return f"{self.number}of{self.of}" if self.of > 1 else ""

    def numbers(self, partitions: int) -> range:
        """Return the partitions of this shard: dealt out in turn, as neighbours take about the same time."""
        return range(self.number - 1, partitions, self.of)


def engine_run(
    work: Work, plan: Plan, numbers: Iterable[int], threads: int | None, cluster: Any, rows: Rows
) -> Iterator[Done]:
    """Yield what became of partitions: from a Dask client where there is one, else from threads."""
    if cluster is None:
        yield from run_local(work, plan, numbers, thread_count(threads), rows)
    else:
        from mfuroof.sweep.cluster import run_cluster

        yield from run_cluster(work, plan, numbers, cluster, rows)
