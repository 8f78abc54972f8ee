"""One shape measured in two places: the same rows in the tables of another engine of the same GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mfuroof._types import F64, I64
from mfuroof.tables.quality_lines import group_ids
from mfuroof.tables.schema import LATENCY, family

__all__ = ["APART", "Elsewhere", "elsewhere"]

APART = 1.5
"""Ratio to the other measurement from which a row is named: clocks and libraries explain less."""


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """How a family agrees with another engine's table of the same GPU.

    Attributes
    ----------
    engine
        Whose table.
    row
        Rows that are in both (n,).
    ratio
        Latency here over latency there (n,).
    """

    engine: str
    row: I64
    ratio: F64

    @property
    def apart(self) -> F64:
        """How far each pair is apart, as a factor of at least 1 (n,)."""
        return np.maximum(self.ratio, 1.0 / self.ratio)


def elsewhere(table: pa.Table, name: str, others: Mapping[str, pa.Table]) -> tuple[Elsewhere, ...]:
    """Return the rows of ``table`` that other tables of the family have too, by engine; none without such rows."""
    keys = list(family(name).keys)
    found = []
    for engine, other in others.items():
        both = pa.concat_tables([table.select(keys), other.select(keys)])
        ids = group_ids(both, keys)
        _, mine, theirs = np.intersect1d(
            ids[: table.num_rows], ids[table.num_rows :], assume_unique=True, return_indices=True
        )
        if mine.size:
            here = table.column(LATENCY).to_numpy()[mine]
            there = other.column(LATENCY).to_numpy()[theirs]
            found.append(Elsewhere(engine, mine, here / there))
    return tuple(found)
