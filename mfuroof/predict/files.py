"""Tables to CSV and Parquet files, by suffix."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pyarrow as pa

from mfuroof._files import refuse_irregular
from mfuroof._table_files import check_suffix
from mfuroof.errors import InputError, OutputError, Problem

__all__ = ["check_target", "write_table"]


def check_target(path: str | Path, source: str | Path) -> None:
    """Say before the work is done that its result could not be written.

    Raises
    ------
    InputError
        The suffix is neither ``.csv`` nor ``.parquet``, or the target is the source itself.
    OutputError
        There is no such folder, or something that is no regular file stands there.
    """
    path, source = Path(path), Path(source)
    check_suffix(path)
    if path.resolve() == source.resolve() or (path.exists() and source.exists() and path.samefile(source)):
        raise InputError(Problem(str(path), "the input itself", "another file", "Choose another place for the output."))
    refuse_irregular(path)
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}. Choose another place for the output.")


def write_table(table: pa.Table, path: str | Path) -> None:
    """Write a table under its final name only when it is whole.

    Raises
    ------
    InputError
        The suffix is neither ``.csv`` nor ``.parquet``.
    OutputError
        The file cannot be written.
    """
    path = Path(path)
    check_suffix(path)
    refuse_irregular(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.suffix == ".csv":
            from pyarrow import csv

            csv.write_csv(_flat(table), partial)
        else:
            from pyarrow import parquet

            parquet.write_table(table, partial)
        os.replace(partial, path)
    except (pa.ArrowException, OSError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error}. Choose another place for the output.") from error


def _flat(table: pa.Table) -> pa.Table:
    """Return a table whose lists are JSON texts, as CSV has no lists."""
    for i, column in enumerate(table.schema):
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            texts = [None if v is None else json.dumps(v, default=str) for v in table.column(i).to_pylist()]
            table = table.set_column(i, column.name, pa.array(texts, pa.string()))
    return table
