"""Where a query reads its rows: tables, files, datasets, results and sweeps, piece by piece."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfuroof.errors import InputError, MfuroofWarning, Problem, TableFormatError
from mfuroof.queries.folders import parquet_files, unfinished

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Piece", "Source", "open_source"]

Piece = Callable[["Sequence[str] | None"], "pa.Table"]
"""Reads some columns of consecutive rows (None: all columns); may be called again."""

PIECE_ROWS = 2**20
"""Rows of a table in memory that are looked at together. [rows]"""

_ACCEPTED = (
    "an Arrow table, a Parquet or CSV file, a folder of Parquet files, a Sweep, record batches, columns by name, or "
    "a result with to_arrow()"
)


@dataclass(frozen=True)
class Source:
    """Rows to be asked: their schema, and their pieces in order, each read when its turn comes."""

    schema: pa.Schema
    title: str
    pieces: Iterable[Piece]


def open_source(source: Any) -> Source:
    """Return the rows behind what a caller has.

    Raises
    ------
    InputError
        It is nothing with rows, or there is no such file.
    TableFormatError
        A file is damaged, or the files of a folder have different columns.

    Warns
    -----
    MfuroofWarning
        The sweep that writes a folder is not finished.
    """
    import pyarrow as pa

    from mfuroof.sweep import Sweep, sweep_batches

    if isinstance(source, str | Path):
        return _of_path(Path(source))
    if isinstance(source, Sweep):
        source = sweep_batches(source)
    elif hasattr(source, "to_arrow"):
        source = source.to_arrow()
    elif isinstance(source, Mapping):
        source = _of_columns(source)
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    if isinstance(source, pa.Table):
        return Source(_checked(source.schema, "table"), "table", list(_slices(source)))
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return _of_batches(iter(source))
    raise InputError(Problem("source", type(source).__name__, _ACCEPTED))


def _of_path(path: Path) -> Source:
    if path.is_dir():
        files = parquet_files(path)
        if not files:
            raise InputError(Problem(str(path), "a folder without Parquet files", _ACCEPTED))
        missing = unfinished(path)
        if missing:
            warnings.warn(f"{path} lacks {missing}", MfuroofWarning, stacklevel=4)
        return _of_files(files, str(path))
    if path.suffix == ".csv":
        from mfuroof.predict import read_table

        table = read_table(path)
        return Source(_checked(table.schema, str(path)), str(path), list(_slices(table)))
    if not path.is_file():
        raise InputError(Problem(str(path), "no such file", _ACCEPTED))
    return _of_files([path], str(path))


def _of_files(files: list[Path], title: str) -> Source:
    schema = _schema(files[0])
    for other in files[1:]:
        names = _schema(other).names
        if names != schema.names:
            differing = ", ".join(sorted(set(names) ^ set(schema.names))) or "their order"
            found = f"other columns than {files[0].name}: {differing}"
            raise TableFormatError(Problem(str(other), found, "the same columns in all files of a folder"))

    def pieces() -> Iterator[Piece]:
        for path in files:
            for number in range(_opened(path).metadata.num_row_groups):
                yield lambda columns, path=path, number=number: _row_group(path, number, columns)  # type: ignore[misc]

    return Source(_checked(schema, title), title, _Again(pieces))


class _Again:
    """An iterable that starts anew each time."""

    def __init__(self, make: Callable[[], Iterator[Piece]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Piece]:
        return self._make()


def _opened(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _schema(path: Path) -> pa.Schema:
    return _opened(path).schema_arrow


def _row_group(path: Path, number: int, columns: Sequence[str] | None) -> pa.Table:
    import pyarrow as pa

    try:
        with _opened(path) as file:
            return file.read_row_group(number, columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> TableFormatError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return TableFormatError(Problem(str(path), reason, "a whole Parquet file"))


def _of_batches(batches: Iterator[Any]) -> Source:
    """Read record batches as they come, once."""
    import pyarrow as pa

    first = next(batches, None)
    if not isinstance(first, pa.RecordBatch | pa.Table):
        found = "nothing" if first is None else f"items of type {type(first).__name__}"
        raise InputError(Problem("source", found, _ACCEPTED))

    def pieces() -> Iterator[Piece]:
        batch: Any = first
        while batch is not None:
            whole = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
            yield lambda columns, whole=whole: whole if columns is None else whole.select(list(columns))  # type: ignore[misc]
            batch = next(batches, None)

    return Source(_checked(first.schema, "source"), "record batches", pieces())


def _of_columns(columns: Mapping[str, Any]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    try:
        plain = {str(n): np.ravel(v).tolist() if isinstance(v, np.ndarray) else list(v) for n, v in columns.items()}
        return pa.table(plain)
    except (pa.ArrowException, TypeError, ValueError) as error:
        found = str(error).splitlines()[0]
        raise InputError(Problem("source", found, "columns of one length, by name")) from error


def _slices(table: pa.Table) -> Iterator[Piece]:
    for start in range(0, max(table.num_rows, 1), PIECE_ROWS):
        part = table.slice(start, PIECE_ROWS)
        yield lambda columns, part=part: part if columns is None else part.select(list(columns))  # type: ignore[misc]


def _checked(schema: pa.Schema, title: str) -> pa.Schema:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice or not schema.names:
        found = f"two columns {twice[0]!r}" if twice else "no columns"
        raise InputError(Problem(title, found, "columns of distinct names"))
    return schema
