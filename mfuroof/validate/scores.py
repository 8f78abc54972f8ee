"""`Score` and `Report`: predictions beside measurements, and how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfuroof._html import html_table
from mfuroof._types import F64
from mfuroof.errors import UnknownNameError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Report", "Score", "batch_bins", "score"]

_EDGES = (1, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Score:
    """Relative errors predicted / measured - 1 of a set of rows; NaN where no row was answered.

    Parameters
    ----------
    count
        Rows with a measurement.
    failed
        Those of them without a finite prediction; they enter no other figure.
    mean, median, p95, p99
        Of the absolute relative error: MAPE, and percentiles. [fraction]
    bias
        Mean relative error. [fraction]
    """

    count: int
    failed: int
    mean: float
    median: float
    p95: float
    p99: float
    bias: float


def score(predicted: ArrayLike, measured: ArrayLike) -> Score:
    """Return the score of predictions; rows whose measurement is NaN or not positive are left out."""
    p, m = np.asarray(predicted, dtype=np.float64).ravel(), np.asarray(measured, dtype=np.float64).ravel()
    known = np.isfinite(m) & (m > 0)
    answered = known & np.isfinite(p)
    count, failed = int(known.sum()), int((known & ~answered).sum())
    if not answered.any():
        return Score(count, failed, *[float("nan")] * 5)
    error = p[answered] / m[answered] - 1.0
    size = np.abs(error)
    median, p95, p99 = (float(x) for x in np.percentile(size, (50, 95, 99)))
    return Score(count, failed, float(size.mean()), median, p95, p99, float(error.mean()))


def batch_bins(requests: ArrayLike) -> NDArray[np.str_]:
    """Return a label such as ``"5-8"`` for each number of requests; labels sort as numbers do."""
    at = np.searchsorted(_EDGES, np.asarray(requests, dtype=np.float64), side="left")
    lows = (0, *(e + 1 for e in _EDGES))
    labels = [f"{low:03d}-{high:03d}" for low, high in zip(lows[:-1], _EDGES, strict=True)] + [f"{lows[-1]:03d}-"]
    return np.array(labels)[at]


class Report:
    """Predictions and measurements of n rows.

    Attributes
    ----------
    metrics
        Name to (predicted, measured), each float64 (n,); predicted NaN where a row was not answered. [s]
    columns
        What rows can be grouped by: name to array (n,).
    errors
        Why a row was not answered, an empty text where it was (n,).
    left_out
        Which measured values of a row enter no figure because they are not positive and finite, an empty text where
        all are or none was given (n,).
    """

    def __init__(
        self,
        metrics: Mapping[str, tuple[ArrayLike, ArrayLike]],
        columns: Mapping[str, ArrayLike],
        errors: Sequence[str] = (),
        left_out: Sequence[str] = (),
    ) -> None:
        self.metrics: dict[str, tuple[F64, F64]] = {
            name: (np.asarray(p, dtype=np.float64), np.asarray(m, dtype=np.float64)) for name, (p, m) in metrics.items()
        }
        self.columns = {name: np.asarray(values) for name, values in columns.items()}
        n = len(next(iter(self.metrics.values()))[0]) if self.metrics else 0
        self.errors = list(errors) if len(errors) else [""] * n
        self.left_out = list(left_out) if len(left_out) else [""] * n

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def answered(self) -> float:
        """Share of rows without an error. [fraction]"""
        return sum(not e for e in self.errors) / len(self.errors) if self.errors else float("nan")

    def score(self, metric: str, where: ArrayLike | None = None) -> Score:
        """Return the score of one metric, over the rows where ``where`` (n,) is true.

        Raises
        ------
        UnknownNameError
            No such metric.
        """
        if metric not in self.metrics:
            raise UnknownNameError("metric", metric, self.metrics)
        rows = slice(None) if where is None else np.asarray(where, dtype=bool)
        predicted, measured = self.metrics[metric]
        return score(predicted[rows], measured[rows])

    def by(self, metric: str, *columns: str) -> dict[tuple[str, ...], Score]:
        """Return the score of each group of rows that are alike in ``columns``, in the order of their values.

        Raises
        ------
        UnknownNameError
            No such metric or column.
        """
        for name in columns:
            if name not in self.columns:
                raise UnknownNameError("column", name, self.columns)
        keys = list(zip(*(map(str, self.columns[name]) for name in columns), strict=True)) or [()] * len(self)
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, key in enumerate(keys):
            groups.setdefault(key, []).append(i)
        masks = {key: np.isin(np.arange(len(self)), rows) for key, rows in sorted(groups.items())}
        return {key: self.score(metric, mask) for key, mask in masks.items()}

    def to_dict(self, *groupings: Sequence[str]) -> dict[str, Any]:
        """Return scores as plain values: overall, and for each grouping a list of groups; ready for JSON."""
        out: dict[str, Any] = {"rows": len(self), "answered": self.answered, "metrics": {}}
        for metric in self.metrics:
            entry: dict[str, Any] = {"all": asdict(self.score(metric))}
            for columns in groupings:
                groups = self.by(metric, *columns).items()
                entry[" ".join(columns)] = [
                    {**dict(zip(columns, key, strict=True)), **asdict(value)} for key, value in groups
                ]
            out["metrics"][metric] = entry
        reasons: dict[str, int] = {}
        for text in filter(None, self.errors):
            reasons[text] = reasons.get(text, 0) + 1
        out["errors"] = reasons
        out["left_out"] = [{"row": i + 1, "reason": text} for i, text in enumerate(self.left_out) if text]
        return out

    def to_text(self, *groupings: Sequence[str]) -> str:
        """Return a table for people: one line for all rows and one for each group, percent."""
        head = f"{'':<44}{'metric':<9}{'rows':>6}{'failed':>7}{'mean':>8}{'median':>8}{'p95':>8}{'p99':>8}{'bias':>8}"
        lines = [f"{len(self)} rows, {self.answered:.1%} answered", head]
        for metric in self.metrics:
            lines.append(_line("all", metric, self.score(metric)))
        for columns in groupings:
            for metric in self.metrics:
                groups = self.by(metric, *columns).items()
                lines += [_line("  " + " ".join(key), metric, value) for key, value in groups]
        return "\n".join(lines)

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table: the columns, each metric as ``<name>_predicted`` and ``_measured``, ``error``.

        ``error`` says why a row was not answered, and which of its measured values were left out.
        """
        import pyarrow as pa

        table: dict[str, Any] = {name: pa.array(values.tolist()) for name, values in self.columns.items()}
        for name, (predicted, measured) in self.metrics.items():
            table[f"{name}_predicted"], table[f"{name}_measured"] = pa.array(predicted), pa.array(measured)
        texts = ("; ".join(filter(None, pair)) for pair in zip(self.errors, self.left_out, strict=True))
        table["error"] = pa.array([text or None for text in texts], pa.string())
        return pa.table(table)

    def _repr_html_(self) -> str:
        head = ("metric", "rows", "failed", "mean", "median", "p95", "p99", "bias")
        rows = []
        for metric in self.metrics:
            s = self.score(metric)
            rows.append([metric, s.count, s.failed, *(f"{x:.1%}" for x in (s.mean, s.median, s.p95, s.p99, s.bias))])
        note = f"{len(self)} rows, {self.answered:.1%} answered; errors relative to the measurement"
        return html_table("Predicted against measured", head, rows, notes=[note])

    def __repr__(self) -> str:
        return self.to_text()


def _line(label: str, metric: str, s: Score) -> str:
    figures = "".join(f"{x:>8.1%}" for x in (s.mean, s.median, s.p95, s.p99, s.bias))
    return f"{label[:43]:<44}{metric:<9}{s.count:>6}{s.failed:>7}{figures}"
