"""What a sweep found, collected while it runs: the best step, the fastest one and what binds, case by case."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mfuroof.costs.base import RESOURCES
from mfuroof.sweep.cases import Case
from mfuroof.sweep.price import PricedChunk
from mfuroof.units import MS

__all__ = ["CaseSummary", "Pick", "SweepSummary", "summarise"]


@dataclass(frozen=True)
class Pick:
    """One step of the grid: its shape, its time [s], its throughput [tokens/s per GPU] and whether it fits."""

    shape: dict[str, int]
    step_time_s: float
    tokens_per_s_per_gpu: float
    fits: bool | None


@dataclass(frozen=True)
class CaseSummary:
    """One case of a sweep, or one chunk of it.

    Attributes
    ----------
    case
        Model, GPU, engine, ranks, precision.
    rows
        Steps priced.
    rows_that_fit
        Of these, steps whose requests fit into the KV cache; None where the memory is not known.
    rows_without_answer
        Of these, steps whose time is NaN.
    best
        The step with the most tokens per second and GPU, among those that fit if any does.
    fastest
        The step of the least time, empty ones left out.
    bound_rows
        Steps bound by each of the resources; all 0 where that was not asked for.
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
        """Return this with the later rows of ``other``; of equals the earlier one stays."""
        fit = None
        if self.rows_that_fit is not None or other.rows_that_fit is not None:
            fit = (self.rows_that_fit or 0) + (other.rows_that_fit or 0)
        return replace(
            self,
            rows=self.rows + other.rows,
            rows_that_fit=fit,
            rows_without_answer=self.rows_without_answer + other.rows_without_answer,
            best=max(filter(None, (self.best, other.best)), key=_rank, default=None),
            fastest=min(filter(None, (self.fastest, other.fastest)), key=lambda p: p.step_time_s, default=None),
            bound_rows=tuple(a + b for a, b in zip(self.bound_rows, other.bound_rows, strict=True)),
        )

    @property
    def bound_shares(self) -> dict[str, float]:
        """Share of the steps bound by each resource; empty where that was not asked for. [fraction]"""
        total = sum(self.bound_rows)
        return {name: n / total for name, n in zip(RESOURCES, self.bound_rows, strict=True)} if total else {}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        out: dict[str, Any] = {**self.case.labels, "rows": self.rows, "rows_that_fit": self.rows_that_fit}
        out["rows_without_answer"] = self.rows_without_answer
        for name, pick in (("best", self.best), ("fastest", self.fastest)):
            out[name] = None
            if pick is not None:
                times = {"step_time_s": pick.step_time_s, "tokens_per_s_per_gpu": pick.tokens_per_s_per_gpu}
                out[name] = {**pick.shape, **times, "fits": pick.fits}
        return out | {"bound_shares": self.bound_shares, "reason": self.reason}


@dataclass(frozen=True)
class SweepSummary:
    """All cases of a finished sweep.

    Attributes
    ----------
    cases
        In the order they were swept, those that could not be priced included, with the reason.
    seconds
        Wall time of the sweep. [s]
    path
        File that was written; None for none.
    """

    cases: tuple[CaseSummary, ...]
    seconds: float
    path: str | None = None
    columns: tuple[str, ...] = field(default=(), repr=False)

    @property
    def rows(self) -> int:
        """Steps priced."""
        return sum(case.rows for case in self.cases)

    @property
    def best(self) -> CaseSummary | None:
        """The case of the highest throughput among those with a step that fits, or among all if none has one."""
        having = [case for case in self.cases if case.best is not None]
        return max(having, key=lambda c: _rank(c.best), default=None)

    @property
    def fastest(self) -> CaseSummary | None:
        """The case of the fastest step, among those that fit or among all if none does."""
        having = [case for case in self.cases if case.fastest is not None]
        fitting = [case for case in having if case.rows_that_fit is None or case.rows_that_fit]
        return min(fitting or having, key=lambda c: c.fastest.step_time_s if c.fastest else np.inf, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        cases = [case.to_dict() for case in self.cases]
        return {"rows": self.rows, "seconds": self.seconds, "path": self.path, "cases": cases}

    def __repr__(self) -> str:
        lines = [f"SweepSummary: {self.rows:,} steps of {len(self.cases)} cases in {self.seconds:.2f} s"]
        for case in self.cases:
            text = "not priced" if case.best is None else f"best {case.best.tokens_per_s_per_gpu:,.0f} tokens/s per GPU"
            if case.fastest is not None:
                text += f", fastest {case.fastest.step_time_s / MS:.3f} ms"
            lines.append(f"  {case.case.title}: {text}{f' ({case.reason})' if case.reason else ''}")
        return "\n".join(lines)


def summarise(priced: PricedChunk) -> CaseSummary:
    """Return the summary of one chunk."""
    time, rate, fits = priced.step_time_s, priced.tokens_per_s_per_gpu, priced.fits
    good = ~np.isnan(time)
    busy = good & ((priced.chunk.batch.decode_batch > 0) | _prefills(priced))
    bound = (0,) * len(RESOURCES)
    if priced.bound is not None:
        bound = tuple(np.bincount(priced.bound[busy], minlength=len(RESOURCES)).tolist())
    allowed = busy if fits is None or not (busy & fits).any() else busy & fits
    return CaseSummary(
        priced.case.case,
        rows=time.size,
        rows_that_fit=None if fits is None else int(np.broadcast_to(fits, time.size).sum()),
        rows_without_answer=int(time.size - np.count_nonzero(good)),
        best=_pick(priced, int(np.argmax(np.where(allowed, rate, -1.0)))) if allowed.any() else None,
        fastest=_pick(priced, int(np.argmin(np.where(busy, time, np.inf)))) if busy.any() else None,
        bound_rows=bound,
    )


def _prefills(priced: PricedChunk) -> Any:
    columns = priced.chunk.columns
    return (columns["prefill_batch"] > 0) & (columns["prefill_new_tokens"] > 0)


def _pick(priced: PricedChunk, row: int) -> Pick:
    fits = priced.fits
    one = None if fits is None else bool(fits[row if fits.size > 1 else 0])
    time, rate = float(priced.step_time_s[row]), float(priced.tokens_per_s_per_gpu[row])
    return Pick(priced.chunk.row(row), time, rate, one)


def _rank(pick: Pick | None) -> tuple[bool, float]:
    """Order of picks: those that fit first (or whose memory is not known), then by throughput."""
    return (False, -1.0) if pick is None else (pick.fits is not False, pick.tokens_per_s_per_gpu)
