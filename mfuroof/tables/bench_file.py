"""One benchmark file as it was written: every row, in file order, with its line, or a report of what is wrong."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from mfuroof._boundary import MAX_COUNT, Problems
from mfuroof._types import F64, I64, freeze
from mfuroof.errors import UnknownNameError
from mfuroof.precision import canonical_dtype
from mfuroof.tables.bench_layout import Column, Layout, key_of
from mfuroof.units import US

__all__ = ["BenchFile", "read_bench_file"]

MAX_REPORTED = 5
"""Problems listed of one file; the rest are counted."""


@dataclass(frozen=True, eq=False)
class BenchFile:
    """One file of measured rows, in file order.

    Attributes
    ----------
    path
        Path below the folder that was loaded.
    layout
        Family, phase and columns.
    gpu, stem
        Name of the GPU's folder and of the file.
    key
        Numbers in the file name; empty where it is ``data``.
    tp
        Number after ``-tp``; None without it.
    has_header
        False where the first line is already a measurement.
    lines
        Line of each row in the file (n,), from 1.
    columns
        Counts as int64, times and shares as float64, dtypes as lists of canonical names; all of length n.
    decimals
        Digits after the point of each float column, the most of any row: the unit that it was rounded to.
    unread
        Columns of the file that the layout does not know.
    """

    path: str
    layout: Layout
    gpu: str
    stem: str
    key: tuple[int, ...]
    tp: int | None
    has_header: bool
    lines: I64
    columns: MappingProxyType[str, Any]
    decimals: MappingProxyType[str, int]
    unread: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.lines.size)

    def count(self, name: str) -> F64:
        """Return a column of counts as float64 (n,)."""
        return np.asarray(self.columns[name], dtype=np.float64)

    def latency_s(self, name: str = "latency_us") -> F64:
        """Return a column of times (n,). [s]"""
        return np.asarray(self.columns[name] * US, dtype=np.float64)

    def select(self, **dtypes: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which rows (n,) have these dtypes."""
        keep = np.ones(len(self), dtype=bool)
        for name, dtype in dtypes.items():
            keep &= np.array([d == dtype for d in self.columns[name]], dtype=bool)
        return keep

    def to_arrow(self) -> pa.Table:
        """Return the columns as written, with the line of each row."""
        return pa.table({"line": self.lines, **{name: pa.array(column) for name, column in self.columns.items()}})


def read_bench_file(root: Path, path: Path, layout: Layout, gpu: str, problems: Problems) -> BenchFile | None:
    """Read one file, or report everything wrong with it and return None.

    Parameters
    ----------
    root, path
        Folder of the layout, and the file in it.
    layout, gpu
        What `layout_of` found.
    problems
        Collects a problem for each cell, row or header that cannot be read.
    """
    where = path.relative_to(root).as_posix()
    records = _records(where, path, problems)
    if records is None:
        return None
    own = Problems()
    order, unread, has_header = _header(where, records[0], layout, own)
    columns = _columns(where, records[1:] if has_header else records, layout, order, own) if order else {}
    if not own and not next(iter(columns.values()))[0]:
        own.add(where, "a header and nothing below it", "at least one row")
    if own:
        problems.extend(own[:MAX_REPORTED])
        if len(own) > MAX_REPORTED:
            problems.add(where, f"{len(own) - MAX_REPORTED} problems more", "none")
        return None
    key = key_of(layout, path.stem)
    assert key is not None
    lines = [number for number, _ in (records[1:] if has_header else records)]
    return BenchFile(
        where,
        layout,
        gpu,
        path.stem,
        *key,
        has_header,
        freeze(lines, np.int64),
        MappingProxyType({name: _frozen(values) for name, (values, _) in columns.items()}),
        MappingProxyType({name: digits for name, (_, digits) in columns.items() if digits is not None}),
        tuple(unread),
    )


def _frozen(values: list[Any]) -> Any:
    if isinstance(values[0], str):
        return tuple(values)
    return freeze(values, np.int64 if isinstance(values[0], int) else np.float64)


def _records(where: str, path: Path, problems: Problems) -> list[tuple[int, list[str]]] | None:
    """Return (line, cells) of every line that is not blank."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        records = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except OSError as error:
        problems.add(where, f"a file that cannot be read ({error.strerror})", "a readable CSV file")
        return None
    except (UnicodeDecodeError, csv.Error) as error:
        problems.add(where, f"bytes that are no CSV text ({error})", "comma-separated values in UTF-8")
        return None
    if not records:
        problems.add(where, "an empty file", "a header and measured rows")
        return None
    return records


def _header(
    where: str, first: tuple[int, list[str]], layout: Layout, problems: Problems
) -> tuple[list[Column | None], list[str], bool]:
    """Return the column of each position (None: not ours), the names not ours, and whether there is a header."""
    line, cells = first
    expected = ", ".join(column.name for column in layout.columns)
    if any(_is_number(cell) for cell in cells):
        if len(cells) != len(layout.columns):
            problems.add(f"{where}, line {line}", f"{len(cells)} columns", f"{len(layout.columns)}: {expected}")
            return [], [], False
        return list(layout.columns), [], False
    names = {alias: column for column in layout.columns for alias in (column.name, *column.aliases)}
    order = [names.get(cell.casefold()) for cell in cells]
    found = [column.name for column in order if column]
    missing = [column.name for column in layout.columns if column.name not in found]
    if missing or len(set(found)) != len(found):
        lacking = f"without {', '.join(missing)}" if missing else "with a name twice"
        problems.add(f"{where}, line {line}", f"a header {lacking}: {','.join(cells)[:120]}", expected)
        return [], [], True
    extra = [cell for cell, column in zip(cells, order, strict=True) if column is None]
    return order, extra, True


def _columns(
    where: str, records: list[tuple[int, list[str]]], layout: Layout, order: list[Column | None], problems: Problems
) -> dict[str, tuple[list[Any], int | None]]:
    """Return the values of each column, and of float columns the digits after the point."""
    values: dict[str, list[Any]] = {column.name: [] for column in layout.columns}
    digits = {column.name: 0 for column in layout.columns if column.kind in ("time", "share")}
    for line, cells in records:
        if len(cells) != len(order):
            problems.add(f"{where}, line {line}", f"{len(cells)} columns", f"{len(order)}")
            continue
        for column, cell in zip(order, cells, strict=True):
            if column is None:
                continue
            value, expected = _PARSE[column.kind](cell, column)
            if value is None:
                problems.add(f"{where}, line {line}, column {column.name}", repr(cell), expected)
                continue
            values[column.name].append(value)
            if column.name in digits:
                digits[column.name] = max(digits[column.name], -int(Decimal(cell).as_tuple().exponent))
    return {name: (column, digits.get(name)) for name, column in values.items()}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.casefold() not in ("nan", "inf", "infinity")


def _count(cell: str, column: Column) -> tuple[int | None, str]:
    expected = f"a whole number in [{column.minimum}, 2**40]"
    try:
        value = float(cell)
    except ValueError:
        return None, expected
    if not math.isfinite(value) or value != int(value) or not column.minimum <= value <= MAX_COUNT or "_" in cell:
        return None, expected
    return int(value), expected


def _time(cell: str, column: Column) -> tuple[float | None, str]:
    value = _float(cell)
    return (value if value is not None and value > 0.0 else None), "a time above 0, in microseconds"


def _share(cell: str, column: Column) -> tuple[float | None, str]:
    value = _float(cell)
    return (value if value is not None and value >= 0.0 else None), "a share of the peak, at least 0"


def _float(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def _dtype(cell: str, column: Column) -> tuple[str | None, str]:
    try:
        return canonical_dtype(cell), ""
    except UnknownNameError:
        return None, "the name of a dtype, such as bf16 or fp8"


_PARSE = {"count": _count, "time": _time, "share": _share, "dtype": _dtype}
