"""What a sweep found, collected while it runs: the best row, the fastest one and what binds, case by case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mfuroof.costs.base import RESOURCES
from mfuroof.sweep.block import Block
from mfuroof.sweep.space import Case
from mfuroof.units import MS

__all__ = ["CaseSummary", "Pick", "SweepSummary", "summarise"]


@dataclass(frozen=True)
class Pick:
    """One row of a sweep.

    Attributes
    ----------
    shape
        Values of the axes.
    time_s
        Time of the step, or TPOT of the load. [s]
    tokens_per_s_per_gpu
        Throughput: tokens the step emits, or output tokens of the load. [tokens/s]
    fits
        Whether it fits the memory; None where that is not known.
    position
        Position in the sweep.
    """

    shape: dict[str, int]
    time_s: float
    tokens_per_s_per_gpu: float
    fits: bool | None
    position: int = 0

    @property
    def step_time_s(self) -> float:
        """Time of the step. [s]"""
        return self.time_s


@dataclass(frozen=True)
class CaseSummary:
    """One case of a sweep, or some rows of it.

    Attributes
    ----------
    case
        Model, GPU, engine, ranks, precision.
    rows
        Rows of the result.
    rows_that_fit
        Of these, rows whose requests fit into the KV cache; None where the memory is not known.
    rows_without_answer
        Of these, rows whose time is NaN.
    best
        The row with the most tokens per second and GPU, among those that fit if any does.
    fastest
        The row of the least time, empty steps left out.
    bound_rows
        Rows bound by each of the resources; all 0 where that was not asked for.
    reason
        What stands against the case; empty where nothing does.
    """

    case: Case
    rows: int = 0
    rows_that_fit: int | None = None
    rows_without_answer: int = 0
    best: Pick | None = None
    fastest: Pick | None = None
    bound_rows: tuple[int, ...] = (0,) * len(RESOURCES)
    reason: str = ""

    def merged(self, other: CaseSummary) -> CaseSummary:
        """Return this with the rows of ``other``, in whatever order; of equals the earlier row stays."""
        fit = None
        if self.rows_that_fit is not None or other.rows_that_fit is not None:
            fit = (self.rows_that_fit or 0) + (other.rows_that_fit or 0)
        fastest = filter(None, (self.fastest, other.fastest))
        return replace(
            self,
            rows=self.rows + other.rows,
            rows_that_fit=fit,
            rows_without_answer=self.rows_without_answer + other.rows_without_answer,
            best=max(filter(None, (self.best, other.best)), key=_rank, default=None),
            fastest=min(fastest, key=lambda p: (p.time_s, p.position), default=None),
            bound_rows=tuple(a + b for a, b in zip(self.bound_rows, other.bound_rows, strict=True)),
        )

    @property
    def bound_shares(self) -> dict[str, float]:
        """Share of the rows bound by each resource; empty where that was not asked for. [fraction]"""
        total = sum(self.bound_rows)
        return {name: n / total for name, n in zip(RESOURCES, self.bound_rows, strict=True)} if total else {}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        out: dict[str, Any] = {**self.case.labels, "rows": self.rows, "rows_that_fit": self.rows_that_fit}
        out["rows_without_answer"] = self.rows_without_answer
        for name, pick in (("best", self.best), ("fastest", self.fastest)):
            out[name] = None
            if pick is not None:
                time = "tpot_s" if "input_len" in pick.shape else "step_time_s"
                times = {time: pick.time_s, "tokens_per_s_per_gpu": pick.tokens_per_s_per_gpu}
                out[name] = {**pick.shape, **times, "fits": pick.fits}
        return out | {"bound_shares": self.bound_shares, "reason": self.reason}

    def to_record(self) -> list[Any]:
        """Return what `from_record` reads, without the case and the reason."""
        picks = [None if p is None else list(vars(p).values()) for p in (self.best, self.fastest)]
        return [self.rows, self.rows_that_fit, self.rows_without_answer, *picks, list(self.bound_rows)]

    @classmethod
    def from_record(cls, case: Case, record: list[Any]) -> CaseSummary:
        """Return the summary that `to_record` wrote."""
        rows, fit, without, best, fastest, bound = record
        first, second = (None if p is None else Pick(*p) for p in (best, fastest))
        return cls(case, rows, fit, without, first, second, tuple(bound))


@dataclass(frozen=True)
class SweepSummary:
    """All cases of a finished sweep.

    Attributes
    ----------
    cases
        In the order they were swept, those that could not be priced included, with the reason.
    seconds
        Wall time of this run. [s]
    path
        File or folder that was written; None for none.
    partitions, partitions_done_before
        Partitions of the sweep, and those that an earlier run had finished.
    """

    cases: tuple[CaseSummary, ...]
    seconds: float
    path: str | None = None
    partitions: int = field(default=1, repr=False)
    partitions_done_before: int = field(default=0, repr=False)

    @property
    def rows(self) -> int:
        """Rows of the result."""
        return sum(case.rows for case in self.cases)

    @property
    def best(self) -> CaseSummary | None:
        """The case of the highest throughput among those with a row that fits, or among all if none has one."""
        having = [case for case in self.cases if case.best is not None]
        return max(having, key=lambda c: _rank(c.best)[:2], default=None)

    @property
    def fastest(self) -> CaseSummary | None:
        """The case of the fastest row, among those that fit or among all if none does."""
        having = [case for case in self.cases if case.fastest is not None]
        fitting = [case for case in having if case.rows_that_fit is None or case.rows_that_fit]
        return min(fitting or having, key=lambda c: c.fastest.time_s if c.fastest else np.inf, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        cases = [case.to_dict() for case in self.cases]
        return {"rows": self.rows, "seconds": self.seconds, "path": self.path, "cases": cases}

    def __repr__(self) -> str:
        lines = [f"SweepSummary: {self.rows:,} rows of {len(self.cases)} cases in {self.seconds:.2f} s"]
        for case in self.cases:
            text = "not priced" if case.best is None else f"best {case.best.tokens_per_s_per_gpu:,.0f} tokens/s per GPU"
            if case.fastest is not None:
                text += f", fastest {case.fastest.time_s / MS:.3f} ms"
            lines.append(f"  {case.case.title}: {text}{f' ({case.reason})' if case.reason else ''}")
        return "\n".join(lines)


def summarise(block: Block, case: Case, rate_name: str, time_name: str, axes: tuple[str, ...]) -> CaseSummary:
    """Return the summary of one block; ``rate_name`` is maximised and ``time_name`` minimised."""
    n, fits = block.rows, block.column("fits")
    time, rate = block.column(time_name).values, block.column(rate_name).values
    good = ~np.isnan(time)
    busy = good & (rate > 0)  # an empty step emits nothing
    bound = (0,) * len(RESOURCES)
    if "bound" in block.columns and busy.any():
        codes = block.values("bound")
        bound = tuple(np.bincount(codes if busy.all() else codes[busy], minlength=len(RESOURCES)).tolist())
    allowed = busy if not fits.known or not (busy & fits.values).any() else busy & fits.values
    at = [int(np.argmax(np.where(allowed, rate, -1.0))), int(np.argmin(np.where(busy, time, np.inf)))] if n else []
    best, fastest = (_pick(block.columns, block, i, time_name, rate_name, axes) for i in at) if n else (None, None)
    return CaseSummary(
        case,
        rows=n,
        rows_that_fit=None if not fits.known else int(np.broadcast_to(fits.values, n).sum()),
        rows_without_answer=int(n - np.count_nonzero(np.broadcast_to(good, n))),
        best=best if n and allowed.any() else None,
        fastest=fastest if n and busy.any() else None,
        bound_rows=bound,
    )


def _pick(columns: Mapping[str, Any], block: Block, row: int, time: str, rate: str, axes: tuple[str, ...]) -> Pick:
    def at(name: str) -> Any:
        values = columns[name].values
        return values[row if values.size > 1 else 0].item()

    fits = at("fits") if columns["fits"].known else None
    position = block.start + (row if block.kept is None else int(block.kept[row]))
    return Pick({name: at(name) for name in axes}, at(time), at(rate), fits, position)


def _rank(pick: Pick | None) -> tuple[bool, float, int]:
    """Order of picks: those that fit first (or whose memory is not known), then by throughput, then the earlier."""
    return (False, -1.0, 0) if pick is None else (pick.fits is not False, pick.tokens_per_s_per_gpu, -pick.position)
