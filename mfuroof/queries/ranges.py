"""Ends of the columns of tables on disk; of Parquet files nothing but the metadata is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfuroof.errors import Problem, TableFormatError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Range", "csv_ranges", "parquet_ranges"]

Range = tuple[Any, Any, "int | None"]
"""Smallest and largest value (None where the file does not say), and the number of nulls."""


def parquet_ranges(files: list[Path]) -> tuple[pa.Schema, int, list[Range]]:
    """Return schema, rows and ranges of files with the same columns; `TableFormatError` where they are no such."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema: pa.Schema | None = None
    rows, ranges = 0, []
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                own, metadata = file.schema_arrow, file.metadata
        except (pa.ArrowException, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise TableFormatError(Problem(str(path), reason, "a whole Parquet file")) from error
        if schema is None:
            schema, ranges = own, [_EMPTY] * len(own)
        elif own.names != schema.names:
            found = f"other columns than {files[0].name}"
            raise TableFormatError(Problem(str(path), found, "the same columns in all files of a folder"))
        leaves = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
        for group in range(metadata.num_row_groups):
            part = metadata.row_group(group)
            rows += part.num_rows
            ranges = [_merged(r, _statistics(part, leaves.get(f.name), f)) for r, f in zip(ranges, schema, strict=True)]
    assert schema is not None
    return schema, rows, [(None, None, r[2]) if r[0] is _NOT_YET else r for r in ranges]


_NOT_YET = object()
_EMPTY: Range = (_NOT_YET, _NOT_YET, 0)


def _statistics(group: Any, leaf: int | None, field: pa.Field) -> Range:
    """Return smallest, largest and nulls of a column of a row group; `_NOT_YET` where it holds nothing but nulls."""
    found = group.column(leaf).statistics if leaf is not None else None
    if found is None:
        return None, None, None
    nulls = found.null_count if found.has_null_count else None
    if nulls == group.num_rows:
        return _NOT_YET, _NOT_YET, nulls
    if not found.has_min_max:
        return None, None, nulls
    plain = isinstance(found.min, bool | int | float | str)
    return (found.min, found.max, nulls) if plain else (str(found.min), str(found.max), nulls)


def _merged(a: Range, b: Range) -> Range:
    nulls = None if a[2] is None or b[2] is None else a[2] + b[2]
    if a[0] is _NOT_YET or b[0] is _NOT_YET:
        known = b if a[0] is _NOT_YET else a
        return known[0], known[1], nulls
    if a[0] is None or b[0] is None:
        return None, None, nulls
    return min(a[0], b[0]), max(a[1], b[1]), nulls


def csv_ranges(path: Path) -> tuple[pa.Schema, int, list[Range]]:
    """Return schema, rows and ranges of a CSV file, which is read."""
    import pyarrow.compute as pc

    from mfuroof.predict import read_table

    table = read_table(path)
    ranges: list[Range] = []
    for name in range(table.num_columns):
        column = table.column(name)
        ends = pc.min_max(column).as_py() if column.type != "null" else {"min": None, "max": None}
        ranges.append((ends["min"], ends["max"], column.null_count))
    return table.schema, table.num_rows, ranges
