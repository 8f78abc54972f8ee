"""Two tables of one GPU side by side: what both cover, how far apart they are, where, and how noisy each of them is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfuroof._boundary import choice
from mfuroof._types import F64, I64
from mfuroof.errors import InputError, MissingTableError, Problem
from mfuroof.tables.quality import beaten_rows
from mfuroof.tables.schema import FAMILIES, LATENCY, family, key_codes
from mfuroof.tables.store import KernelTables, load_tables

__all__ = ["Comparison", "FamilyComparison", "compare_tables", "open_tables"]

PREFERRED = ("own", "vllm")
"""Engines taken where a place has several and none is named."""
ATTENTION = ("head_dim", "kv_dtype")
GROUPS = {
    "gemm": ("dtype",),
    "attn_prefill": ATTENTION,
    "attn_decode": ATTENTION,
    "moe": ("num_experts", "num_experts_per_tok", "hidden_size", "dtype", "distribution"),
    "comm": ("op", "backend"),
}
"""What the shapes of a family are grouped by; the columns of names elsewhere."""


@dataclass(frozen=True, eq=False)
class FamilyComparison:
    """One family in two tables A and B; ratios are time in A over time in B, of shapes that both have.

    Attributes
    ----------
    family
        Name.
    rows_a, rows_b, both
        Shapes in each, and in both.
    median, low, high
        Of the ratio, with its 5th and 95th percentile; NaN where there is no common shape. [1]
    short, long
        Median ratio of the third of the shapes that take least, and of the third that take longest in B: apart from
        one another, the bias grows with the work. [1]
    scatter
        Median distance of a ratio from the median of its group, as a fraction: what no constant factor explains.
    roughness_a, roughness_b
        Median distance of a time from the geometric blend of its neighbours on the curve, as a fraction; noise, and
        curvature where the grid is coarse. NaN with no three points on a curve.
    beaten_a, beaten_b
        Share of rows slower by a tenth than a larger shape. [fraction]
    groups
        Ratio by group: label, shapes, median, 5th and 95th percentile.
    worst
        Shape with the ratio farthest from 1, with both times; None without a common shape.
    time_a_s, time_b_s, labels
        Times of the common shapes (both,) and the group of each.
    """

    family: str
    rows_a: int
    rows_b: int
    both: int
    median: float
    low: float
    high: float
    short: float
    long: float
    scatter: float
    roughness_a: float
    roughness_b: float
    beaten_a: float
    beaten_b: float
    groups: tuple[tuple[str, int, float, float, float], ...]
    worst: dict[str, Any] | None
    time_a_s: F64
    time_b_s: F64
    labels: NDArray[np.str_]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without the arrays."""
        names = ("group", "shapes", "median", "low", "high")
        plain = {k: v for k, v in asdict(self).items() if k not in ("time_a_s", "time_b_s", "labels")}
        return plain | {"groups": [dict(zip(names, group, strict=True)) for group in self.groups]}


@dataclass(frozen=True, eq=False)
class Comparison:
    """All families of two tables.

    Attributes
    ----------
    names
        What A and B are.
    families
        Those that both have.
    only_a, only_b
        Families of one of them alone.
    """

    names: tuple[str, str]
    families: tuple[FamilyComparison, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "families": [f.to_dict() for f in self.families],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }


def open_tables(place: str | Path) -> KernelTables:
    """Open the tables that ``PLACE[:ENGINE]`` names: a GPU of the embedded database, or the folder of one.

    Raises
    ------
    UnknownNameError, MissingTableError
        As `load_tables`.

    Examples
    --------
    >>> open_tables("h200_sxm:sglang").engine
    'sglang'
    """
    text = str(place)
    where, colon, engine = text.rpartition(":")
    if not colon or Path(text).is_dir():
        where, engine = text, ""
    spot: str | Path = Path(where) if "/" in where or "\\" in where or Path(where).is_dir() else where
    if engine:
        return load_tables(spot, engine)
    if isinstance(spot, Path):
        there = {file.stem for name in FAMILIES for file in (spot / name).glob("*.parquet")}
        engine = next((e for e in PREFERRED if e in there), min(there, default=PREFERRED[-1]))
        return load_tables(spot, engine)
    return load_tables(spot, PREFERRED[-1])


def compare_tables(a: KernelTables, b: KernelTables, families: Sequence[str] | None = None) -> Comparison:
    """Compare two tables family by family, on the shapes that both have.

    Parameters
    ----------
    a, b
        Tables; those of two GPUs can be compared as well.
    families
        Which; None: all that both have.

    Raises
    ------
    UnknownNameError
        No such family.
    MissingTableError
        They have no family in common.
    InputError
        A and B are one and the same.
    """
    if (a.folder.resolve(), a.engine) == (b.folder.resolve(), b.engine):
        raise InputError(Problem("tables", f"{a.folder} ({a.engine}) twice", "two different tables"))
    wanted = tuple(FAMILIES) if families is None else tuple(choice("table family", f, FAMILIES) for f in families)
    mine, theirs = (tuple(f for f in t.families if f in wanted) for t in (a, b))
    common = [f for f in mine if f in theirs]
    names = (f"{a.gpu} {a.engine}", f"{b.gpu} {b.engine}")
    if names[0] == names[1]:
        names = (f"{a.folder} {a.engine}", f"{b.folder} {b.engine}")
    if not common:
        raise MissingTableError(f"a family that {names[0]} and {names[1]} share", (*mine, *theirs))
    return Comparison(
        names,
        tuple(_compare(name, a.family(name), b.family(name)) for name in common),
        tuple(f for f in mine if f not in common),
        tuple(f for f in theirs if f not in common),
    )


def _compare(name: str, a: pa.Table, b: pa.Table) -> FamilyComparison:
    spec = family(name)
    joined = _plain(a).join(_plain(b), list(spec.keys), right_suffix="_b", join_type="inner", use_threads=False)
    joined = joined.combine_chunks().sort_by([(key, "ascending") for key in spec.keys])
    time_a, time_b = (joined.column(c).to_numpy() for c in (LATENCY, f"{LATENCY}_b"))
    labels = _labels(name, joined)
    ratio = time_a / time_b
    median, low, high = _percentiles(ratio)
    order = np.argsort(time_b, kind="stable")
    third = max(ratio.size // 3, 1)
    groups = tuple(
        (str(label), int((labels == label).sum()), *_percentiles(ratio[labels == label]))
        for label in dict.fromkeys(labels.tolist())
    )
    centre = {label: middle for label, _, middle, _, _ in groups}
    scatter = np.abs(ratio / np.array([centre[str(x)] for x in labels]) - 1.0) if ratio.size else ratio
    worst = None
    if ratio.size:
        at = int(np.argmax(np.abs(np.log(ratio))))
        shape = {key: joined.column(key)[at].as_py() for key in spec.keys}
        worst = {**shape, "time_a_s": float(time_a[at]), "time_b_s": float(time_b[at]), "ratio": float(ratio[at])}
    return FamilyComparison(
        name,
        a.num_rows,
        b.num_rows,
        joined.num_rows,
        median,
        low,
        high,
        _percentiles(ratio[order[:third]])[0],
        _percentiles(ratio[order[-third:]])[0],
        _percentiles(scatter)[0],
        _roughness(name, a),
        _roughness(name, b),
        _beaten(name, a),
        _beaten(name, b),
        groups,
        worst,
        time_a,
        time_b,
        labels,
    )


def _plain(table: pa.Table) -> pa.Table:
    """Return a table with its dictionaries spelt out, which joins need."""
    types = [pa.string() if pa.types.is_dictionary(f.type) else f.type for f in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))


def _labels(name: str, table: pa.Table) -> NDArray[np.str_]:
    columns = GROUPS.get(name) or tuple(c.name for c in family(name).columns if c.kind == "name")
    values = [table.column(c).to_pylist() for c in columns]
    return np.array(["-".join(str(v) for v in row) for row in zip(*values, strict=True)], dtype=np.str_)


def _percentiles(values: F64) -> tuple[float, float, float]:
    """Return median, 5th and 95th percentile; NaN of nothing."""
    if not values.size:
        return math.nan, math.nan, math.nan
    low, median, high = (float(x) for x in np.percentile(values, (5, 50, 95)))
    return median, low, high


def _roughness(name: str, table: pa.Table) -> float:
    *leading, axis = family(name).keys
    logs = np.log(table.column(LATENCY).to_numpy())
    x = np.log(np.maximum(key_codes(table, axis), 1).astype(np.float64))
    cut: I64 = np.zeros(max(table.num_rows - 1, 0), dtype=np.int64)
    for column in leading:
        cut |= np.diff(key_codes(table, column)) != 0
    bounds = [0, *(np.flatnonzero(cut) + 1).tolist(), table.num_rows]
    apart = []
    for start, stop in pairwise(bounds):
        if stop - start > 2:
            at, time = x[start:stop], logs[start:stop]
            share = (at[1:-1] - at[:-2]) / (at[2:] - at[:-2])
            apart.append(np.abs(time[1:-1] - (1 - share) * time[:-2] - share * time[2:]))
    return float(np.median(np.concatenate(apart))) if apart else math.nan


def _beaten(name: str, table: pa.Table) -> float:
    record = beaten_rows(table, name)
    return float(record["slower_than_a_larger_shape_by_a_tenth"] / record["rows"]) if record["rows"] else 0.0
