"""`describe`: what a table on disk holds: its columns with units and ranges, its rows, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfuroof.errors import InputError, Problem
from mfuroof.queries.folders import parquet_files, unfinished
from mfuroof.queries.meanings import field_meaning, field_unit, quantity
from mfuroof.queries.ranges import csv_ranges, parquet_ranges
from mfuroof.queries.result import cell

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ColumnNote", "Description", "describe", "short"]

_OURS, _WIDEST = "mfuroof.", 40


@dataclass(frozen=True)
class ColumnNote:
    """One column of a table.

    Attributes
    ----------
    name, kind
        Name and Arrow type.
    unit
        Unit; empty where there is none or it is not known.
    unit_from
        ``"schema"`` or ``"name"`` (its ending says so); empty where no unit is known.
    meaning
        What the schema says of it; empty where it says nothing.
    minimum, maximum
        Ends of its values (texts: by alphabet); None where the file does not say.
    nulls
        Number of nulls; None where the file does not say.
    """

    name: str
    kind: str
    unit: str
    unit_from: str
    meaning: str
    minimum: Any = None
    maximum: Any = None
    nulls: int | None = None

    @property
    def span(self) -> str:
        """The range as people read it."""
        if self.minimum is None:
            return "-"
        low, high = (short(cell(end), _WIDEST) for end in (self.minimum, self.maximum))
        return low if low == high else f"{low} .. {high}"


@dataclass(frozen=True, repr=False)
class Description:
    """What a table on disk holds.

    Attributes
    ----------
    path, files, size_bytes, rows
        Name, number of files, their size and their rows. [bytes]
    columns
        One `ColumnNote` each, in order.
    provenance
        What the file, and a provenance file beside it, say of themselves; JSON is parsed.
    lacks
        What a reader has to guess.
    """

    path: str
    files: int
    size_bytes: int
    rows: int
    columns: tuple[ColumnNote, ...]
    provenance: Mapping[str, Any]
    lacks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        columns = [
            {
                "name": c.name,
                "type": c.kind,
                "unit": c.unit or None,
                "unit_from": c.unit_from or None,
                "meaning": c.meaning or None,
                "min": c.minimum,
                "max": c.maximum,
                "nulls": c.nulls,
            }
            for c in self.columns
        ]
        return {
            "path": self.path,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "rows": self.rows,
            "columns": columns,
            "provenance": dict(self.provenance),
            "lacks": list(self.lacks),
        }

    @property
    def head(self) -> str:
        """Rows, columns, files and size in one line."""
        files = f" in {self.files:,} files" if self.files != 1 else ""
        size = quantity(self.size_bytes, "bytes")
        return f"{self.path}: {self.rows:,} rows of {len(self.columns)} columns{files}, {size}"

    def __repr__(self) -> str:
        rows = [("column", "unit", "range", "meaning")]
        rows += [(c.name, c.unit or "-", c.span, c.meaning) for c in self.columns]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        notes = [f"{key}: {short(value)}" for key, value in self.provenance.items()]
        return "\n".join([self.head, *lines, *notes, *(f"lacks {text}" for text in self.lacks)])


def describe(path: str | Path) -> Description:
    """Return what a Parquet or CSV file, or a folder of Parquet files, holds.

    Ranges come from the statistics of Parquet files: nothing but their metadata is read.

    Parameters
    ----------
    path
        Sweeps and datasets of sweeps, embedded and ingested tables, predictions, or anybody's file.

    Raises
    ------
    InputError
        There is no such file, or no Parquet file in the folder.
    TableFormatError
        A file is damaged.

    Examples
    --------
    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table({"tpot_s": [0.01, 0.03], "speed": [7, 8]}), f"{folder}/t.parquet")
    ...     found = describe(f"{folder}/t.parquet")
    >>> [(c.name, c.unit, c.span) for c in found.columns]
    [('tpot_s', 's', '0.01 .. 0.03'), ('speed', '', '7 .. 8')]
    """
    path = Path(path)
    if path.is_dir():
        files = parquet_files(path)
        if not files:
            raise InputError(Problem(str(path), "a folder without Parquet files", "a Parquet or CSV file, or a folder"))
    elif path.is_file():
        files = [path]
    else:
        raise InputError(Problem(str(path), "no such file", "a Parquet or CSV file, or a folder of Parquet files"))
    if path.suffix == ".csv":
        schema, rows, ranges = csv_ranges(path)
    else:
        schema, rows, ranges = parquet_ranges(files)
    columns = tuple(_note(field, *ranges[i]) for i, field in enumerate(schema))
    provenance = _provenance(path, schema)
    size = sum(f.stat().st_size for f in files)
    lacks = (*((unfinished(path),) if path.is_dir() and unfinished(path) else ()), *_lacks(columns, provenance))
    return Description(str(path), len(files), size, rows, columns, provenance, lacks)


def short(value: Any, most: int = 300) -> str:
    """Return a value of the provenance in one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}..."


def _note(field: pa.Field, minimum: Any, maximum: Any, nulls: int | None) -> ColumnNote:
    stated = (field.metadata or {}).get(b"unit", b"")
    unit = field_unit(field)
    source = "schema" if stated else "name" if unit else ""
    kind = str(field.type.value_type) if str(field.type).startswith("dictionary") else str(field.type)
    return ColumnNote(field.name, kind, unit, source, field_meaning(field), minimum, maximum, nulls)


def _provenance(path: Path, schema: pa.Schema) -> dict[str, Any]:
    """Return what the schema says beside its columns, and what stands in a provenance file beside the table."""
    found: dict[str, Any] = {}
    for key, value in (schema.metadata or {}).items():
        name = key.decode("utf-8", "replace").removeprefix(_OURS)
        if name not in ("ARROW:schema", "pandas") and value:
            found[name] = _parsed(value.decode("utf-8", "replace"))
    beside = path.with_suffix(".provenance.json")
    if beside.is_file():
        try:
            record = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            found["provenance file"] = f"{beside.name} cannot be read: {error}"
        else:
            found |= record if isinstance(record, dict) else {"provenance file": record}
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text[:1] in "{[" else text
    except ValueError:
        return text


def _lacks(columns: tuple[ColumnNote, ...], provenance: Mapping[str, Any]) -> tuple[str, ...]:
    lacks = []
    numbers = [c for c in columns if c.kind.startswith(("int", "uint", "float", "double", "halffloat", "decimal"))]
    unknown = [c.name for c in numbers if not c.unit_from]
    named = [c.name for c in numbers if c.unit_from == "name"]
    if unknown:
        lacks.append(f"a unit of {_listed(unknown)}")
    if named:
        lacks.append(f"units in its schema; those of {_listed(named)} are read off the names")
    silent = [c.name for c in columns if not c.meaning]
    if silent:
        lacks.append(f"a meaning of {_listed(silent) if len(silent) < len(columns) else 'all columns'}")
    if not provenance:
        lacks.append("provenance: who made it, when and how")
    return tuple(lacks)


def _listed(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
