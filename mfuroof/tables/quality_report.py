"""What an audit of kernel tables found: figures by family and axis, findings, and the rows they are about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mfuroof.tables.audit_report import AuditReport
from mfuroof.tables.quality_grid import Monotone
from mfuroof.tables.quality_rules import RULES, RuleError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AxisQuality", "Engine", "FamilyQuality", "FlaggedRow", "TableQuality"]


@dataclass(frozen=True)
class AxisQuality:
    """One family along one axis.

    Attributes
    ----------
    axis
        Key column that varies.
    rules
        Leave-one-out errors by rule of `mfuroof.tables.quality_rules.RULES`; empty where no line has three points.
    pairs
        Neighbours of all lines.
    falls, falls_beyond_noise, worst_fall
        How many of them get faster with more work, how many by more than 2 %, and the largest fall. [fraction]
    worst_at
        Keys of the slower, smaller shape of the largest fall; empty where there is none.
    gaps
        Shapes missing between two measured ones of a line.
    monotone
        What isotonic regression along this axis would change.
    """

    axis: str
    rules: dict[str, RuleError]
    pairs: int
    falls: int
    falls_beyond_noise: int
    worst_fall: float
    worst_at: dict[str, Any]
    gaps: int
    monotone: Monotone


@dataclass(frozen=True)
class Engine:
    """How a family agrees with another engine's table of the same GPU, row by row.

    Attributes
    ----------
    engine
        Whose table.
    rows
        Rows that both have.
    median, p95, largest
        Factor between the two latencies, at least 1.
    """

    engine: str
    rows: int
    median: float
    p95: float
    largest: float


@dataclass(frozen=True)
class FamilyQuality:
    """One family of kernels.

    Attributes
    ----------
    family
        Its name.
    rows, configurations, product
        Measured shapes, distinct values of the keys that are no axis, and the shapes of their full grids.
    slow, fast
        Rows too slow, or too fast, for every one of their neighbours.
    axes
        Figures by axis.
    elsewhere
        Agreement with other engines' tables.
    """

    family: str
    rows: int
    configurations: int
    product: int
    slow: int
    fast: int
    axes: tuple[AxisQuality, ...]
    elsewhere: tuple[Engine, ...]


@dataclass(frozen=True)
class FlaggedRow:
    """One row that should be looked at.

    Attributes
    ----------
    family, keys
        Which: the key columns as JSON.
    kind
        ``outlier`` (every neighbour contradicts it), ``fall`` (faster than a smaller shape by more than 15 %) or
        ``elsewhere`` (slower, or faster, than every other engine's table has it).
    axis
        Of a fall; empty otherwise.
    latency_s
        As measured. [s]
    low_s, high_s
        What neighbours or the other tables imply; null where that has no end on one side. [s]
    excess
        Factor by which the latency misses that range.
    """

    family: str
    kind: str
    axis: str
    keys: str
    latency_s: float
    low_s: float | None
    high_s: float | None
    excess: float


@dataclass(frozen=True, eq=False, repr=False)
class TableQuality:
    """All figures and findings of the tables of one GPU and engine.

    Attributes
    ----------
    gpu, engine
        Whose tables.
    families
        Figures, in the order of the schema.
    report
        Findings with severities; codes ``outliers``, ``not-monotone``, ``gaps``, ``coverage``, ``rules``,
        ``elsewhere``.
    rows_flagged
        Every single row behind them.
    """

    gpu: str
    engine: str
    families: tuple[FamilyQuality, ...]
    report: AuditReport
    rows_flagged: tuple[FlaggedRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the flagged rows as plain values."""
        head = {"gpu": self.gpu, "engine": self.engine}
        tail = {"families": [asdict(f) for f in self.families], "rows_flagged": len(self.rows_flagged)}
        return {**head, **self.report.to_dict(), **tail}

    def to_json(self, indent: int | None = 2) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def flagged(self) -> pa.Table:
        """Return the flagged rows as an Arrow table, one column for each field of `FlaggedRow`."""
        import pyarrow as pa

        kinds = {
            "family": pa.string(),
            "kind": pa.string(),
            "axis": pa.string(),
            "keys": pa.string(),
            "latency_s": pa.float64(),
            "low_s": pa.float64(),
            "high_s": pa.float64(),
            "excess": pa.float64(),
        }
        columns = {name: [getattr(row, name) for row in self.rows_flagged] for name in kinds}
        return pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()})

    def text(self, *, info: bool = False) -> str:
        """Return the report for people; on request plain facts too."""
        lines = ["leave-one-out error, median and mean [%]", _row("", ("n", *(_SHORT[r] for r in RULES)))]
        for one in self.families:
            lines.append(one.family)
            for axis in one.axes:
                lines += _errors(axis)
        lines += ["", "falls, gaps, and what isotonic repair changes [%]"]
        lines.append(_row("", ("pairs", "falls", "over 2", "worst", "gaps", "mean", "max")))
        for one in self.families:
            lines.append(one.family)
            lines += [_order(axis) for axis in one.axes]
        return "\n".join([*lines, "", self.report.text(info=info)])

    __str__ = text
    __repr__ = text


_SHORT = {"affine_rate": "affine", "nearest": "near"}
_SHORT = {rule: _SHORT.get(rule, rule) for rule in RULES}


def _errors(axis: AxisQuality) -> list[str]:
    if not axis.rules:
        return []
    count = next(iter(axis.rules.values())).count
    medians = [_percent(axis.rules[rule].median) for rule in RULES]
    means = [_percent(axis.rules[rule].mean) for rule in RULES]
    return [_row(axis.axis, (f"{count}", *medians)), _row("  mean", ("", *means))]


def _order(axis: AxisQuality) -> str:
    m, pairs = axis.monotone, max(axis.pairs, 1)
    shares = [_percent(x) for x in (axis.falls / pairs, axis.falls_beyond_noise / pairs, axis.worst_fall)]
    return _row(axis.axis, (f"{axis.pairs}", *shares, f"{axis.gaps}", _percent(m.mean), _percent(m.largest)))


def _row(label: str, cells: Sequence[str]) -> str:
    return f" {label:<10}" + "".join(f"{cell:>7}" for cell in cells)


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f}" if share < 10.0 else f"{100.0 * share:.0f}"
