"""Findings of an audit of kernel tables in words, and the single rows behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mfuroof._types import F64, I64
from mfuroof.tables.audit_report import Finding
from mfuroof.tables.quality_points import STEEP, Falls, Outliers
from mfuroof.tables.quality_report import FamilyQuality, FlaggedRow
from mfuroof.tables.quality_twice import APART, Elsewhere
from mfuroof.tables.schema import family

__all__ = ["Findings", "flagged_rows", "keys_of", "spread"]

Found = tuple[str, str, int, float | None, float | None, float]
"""Kind, axis, row, low and high end of what is implied, excess: of one flagged row."""


def spread(apart: F64) -> tuple[float, float, float]:
    """Return the median, the 95th percentile and the largest of some factors."""
    median, p95, largest = np.percentile(apart, (50, 95, 100))
    return float(median), float(p95), float(largest)


def keys_of(table: pa.Table, name: str, row: int) -> dict[str, Any]:
    """Return the key columns of one row."""
    return {key: table.column(key)[row].as_py() for key in family(name).keys}


class Findings:
    """Collects the findings of one family."""

    def __init__(self, table: pa.Table, name: str, file: str) -> None:
        self.table, self.name, self.file = table, name, file
        self.findings: list[Finding] = []

    def _say(self, severity: str, code: str, text: str, rows: I64 | None, numbers: dict[str, Any]) -> None:
        lines = () if rows is None else tuple(int(row) for row in rows[:20])
        self.findings.append(Finding(severity, code, self.file, text, lines, numbers))

    def _at(self, row: int) -> str:
        return ", ".join(f"{key} {value}" for key, value in keys_of(self.table, self.name, row).items())

    def outliers(self, wrong: Outliers) -> None:
        """Name the rows that every neighbour contradicts."""
        if not wrong.row.size:
            return
        slow, row = int(wrong.slow.sum()), int(wrong.row[0])
        how = "slower" if wrong.slow[0] else "faster"
        text = (
            f"{slow} slower and {wrong.row.size - slow} faster than every neighbour allows; "
            f"the worst is {wrong.excess[0]:.1f} times {how}: {self._at(row)}"
        )
        numbers = {"slow": slow, "fast": wrong.row.size - slow, "worst": float(wrong.excess[0])}
        self._say("warning", "outliers", text, wrong.row, {**numbers, "at": keys_of(self.table, self.name, row)})

    def axes(self, figures: FamilyQuality) -> None:
        """Say along which axis times fall, where points are missing, and which rule interpolates best."""
        for axis in figures.axes:
            if axis.falls_beyond_noise:
                at = ", ".join(f"{key} {value}" for key, value in axis.worst_at.items())
                text = (
                    f"latency falls along {axis.axis} between {axis.falls_beyond_noise} of {axis.pairs} neighbours, "
                    f"up to {axis.worst_fall:.1%} (after {at})"
                )
                numbers: dict[str, Any] = {"axis": axis.axis, "pairs": axis.falls_beyond_noise}
                numbers |= {"worst": axis.worst_fall, "at": axis.worst_at}
                self._say("warning" if axis.worst_fall > STEEP else "info", "not-monotone", text, None, numbers)
            if axis.gaps:
                text = f"{axis.gaps} shapes are missing along {axis.axis} between measured ones"
                self._say("info", "gaps", text, None, {"axis": axis.axis, "missing": axis.gaps})
            if axis.rules:
                best = min(axis.rules, key=lambda rule: axis.rules[rule].mean)
                error = axis.rules[best]
                text = f"along {axis.axis}, {best} predicts a left-out point best: {error.mean:.1%} on average"
                numbers = {"axis": axis.axis, "rule": best, "mean": error.mean, "median": error.median}
                self._say("info", "rules", text, None, numbers)
        holes = figures.product - figures.rows
        numbers = {"points": figures.rows, "configurations": figures.configurations, "product": figures.product}
        text = f"{figures.rows} points of {figures.configurations} configurations; {holes} of {figures.product} absent"
        self._say("info", "coverage", text, None, {**numbers, "holes": holes})

    def elsewhere(self, twice: Sequence[Elsewhere]) -> None:
        """Say how far other engines' tables are apart where they have the same shapes."""
        for other in twice:
            median, p95, largest = spread(other.apart)
            worst = int(np.argmax(other.apart))
            how = "slower" if other.ratio[worst] > 1.0 else "faster"
            text = (
                f"{other.row.size} shapes are in the table of {other.engine} too: apart by {median - 1.0:.0%} in the "
                f"median, {p95:.1f} times at the 95th percentile; the worst is {largest:.1f} times {how} here: "
                f"{self._at(int(other.row[worst]))}"
            )
            numbers = {"engine": other.engine, "rows": other.row.size, "median": median, "p95": p95, "worst": largest}
            self._say("info", "elsewhere", text, None, numbers)


def flagged_rows(
    table: pa.Table, name: str, time_s: F64, wrong: Outliers, fallen: Mapping[str, Falls], twice: Sequence[Elsewhere]
) -> list[FlaggedRow]:
    """Return outliers, steep falls, and rows that every other engine's table has otherwise."""
    found: list[Found] = []
    for i, row in enumerate(wrong.row.tolist()):
        excess = float(wrong.excess[i])
        found.append(("outlier", "", row, float(wrong.low_s[i]), float(wrong.high_s[i]), excess))
    for axis, of in fallen.items():
        for i in np.flatnonzero(of.size > STEEP).tolist():
            smaller_s = float(time_s[of.before[i]])
            found.append(("fall", axis, int(of.after[i]), smaller_s, None, smaller_s / float(time_s[of.after[i]])))
    if twice:
        found += _apart(time_s, twice)
    spec = family(name)
    columns = {key: table.column(key).take(pa.array([f[2] for f in found], pa.int64())) for key in spec.keys}
    keys = [json.dumps(values) for values in pa.table(columns).to_pylist()] if found else []
    return [
        FlaggedRow(name, kind, axis, key, float(time_s[row]), low, high, excess)
        for key, (kind, axis, row, low, high, excess) in zip(keys, found, strict=True)
    ]


def _apart(time_s: F64, twice: Sequence[Elsewhere]) -> list[Found]:
    """Return the rows that are `APART` from every other table that has them, all on the same side."""
    least, most = np.full(time_s.size, np.inf), np.full(time_s.size, 0.0)
    for other in twice:
        least[other.row] = np.minimum(least[other.row], time_s[other.row] / other.ratio)
        most[other.row] = np.maximum(most[other.row], time_s[other.row] / other.ratio)
    known = most > 0.0
    excess = np.where(known, np.maximum(time_s / np.where(known, most, 1.0), least / time_s), 0.0)
    rows = np.flatnonzero(known & (excess >= APART))
    rows = rows[np.argsort(-excess[rows], kind="stable")]
    return [("elsewhere", "", int(r), float(least[r]), float(most[r]), float(excess[r])) for r in rows]
