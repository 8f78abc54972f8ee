"""What a table does not hold, and what making it monotone would change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mfuroof._types import I64
from mfuroof.core.isotonic import isotonic
from mfuroof.tables.quality_lines import Lines, axes_of, group_ids
from mfuroof.tables.schema import family, key_codes

__all__ = ["Gaps", "Monotone", "coverage", "gaps", "monotone"]


@dataclass(frozen=True, eq=False)
class Gaps:
    """Shapes that are missing between two measured ones of a line, though the grid has a row there.

    Attributes
    ----------
    missing
        How many.
    row
        Row before each gap, the widest first.
    width
        Grid points missing after it.
    """

    missing: int
    row: I64
    width: I64


def gaps(table: pa.Table, name: str, of: Lines) -> Gaps:
    """Return the gaps along one axis.

    The grid of a line is every value that the axis has in the same configuration (all keys that are no axis); in a
    family of one axis, every value that it has in the table.
    """
    axes = axes_of(name)
    group = group_ids(table, [k for k in family(name).keys if k not in axes] if len(axes) > 1 else [])
    x = key_codes(table, of.axis)
    values, code = np.unique(x, return_inverse=True)
    cell, inverse = np.unique(group * values.size + code.reshape(-1), return_inverse=True)
    owner = cell // values.size
    first = np.concatenate([[True], owner[1:] != owner[:-1]]) if cell.size else np.zeros(0, bool)
    rank = np.arange(cell.size) - np.maximum.accumulate(np.where(first, np.arange(cell.size), 0))
    placed = rank[inverse.reshape(-1)][of.row]
    left = of.pairs
    skipped = placed[left + 1] - placed[left] - 1
    found = np.flatnonzero(skipped > 0)
    found = found[np.argsort(-skipped[found], kind="stable")]
    return Gaps(int(skipped.sum()), of.row[left[found]], skipped[found])


def coverage(table: pa.Table, name: str) -> tuple[int, int]:
    """Return the configurations of a table, and the points that the full product of their axes would have."""
    axes = axes_of(name)
    group = group_ids(table, [k for k in family(name).keys if k not in axes])
    groups, group = np.unique(group, return_inverse=True)
    product = np.ones(groups.size, np.int64)
    for axis in axes:
        values, code = np.unique(key_codes(table, axis), return_inverse=True)
        cell = np.unique(group.reshape(-1) * values.size + code.reshape(-1))
        product *= np.bincount(cell // values.size, minlength=groups.size)
    return int(groups.size), int(product.sum())


@dataclass(frozen=True)
class Monotone:
    """What isotonic regression of each line along one axis would change.

    Attributes
    ----------
    points, changed
        Rows in lines of two or more, and how many of them would move.
    mean, largest
        Relative change over all those points. [fraction]
    """

    points: int
    changed: int
    mean: float
    largest: float


def monotone(of: Lines) -> Monotone:
    """Return what making every line non-decreasing (least squares) would change; nothing is changed here."""
    bounds = np.append(np.flatnonzero(of.start), of.row.size)
    after = of.time_s.copy()
    falling = np.zeros(bounds.size - 1, dtype=bool)
    falling[of.line[of.pairs[of.time_s[of.pairs + 1] < of.time_s[of.pairs]]]] = True
    for i in np.flatnonzero(falling):
        span = slice(bounds[i], bounds[i + 1])
        isotonic(of.time_s[span], after[span])
    change = np.abs(after / of.time_s - 1.0)[np.repeat(np.diff(bounds) > 1, np.diff(bounds))]
    if not change.size:
        return Monotone(0, 0, 0.0, 0.0)
    return Monotone(change.size, int((change > 1e-12).sum()), float(change.mean()), float(change.max()))
