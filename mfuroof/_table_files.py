"""Reading a user's table from a CSV or Parquet file, by suffix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mfuroof.errors import InputError, Problem, TableFormatError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_suffix", "read_table"]

SUFFIXES = (".csv", ".parquet")


def read_table(path: str | Path) -> pa.Table:
    """Read a table of configurations.

    Raises
    ------
    InputError
        The suffix is neither ``.csv`` nor ``.parquet``, or there is no such file.
    TableFormatError
        The file is no such table.
    """
    import pyarrow as pa

    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise InputError(Problem(str(path), "no such file", "a table of configurations"))
    try:
        if path.suffix == ".csv":
            from pyarrow import csv

            # only an empty cell is blank: "nan", "NA" and "null" are wrong values and have to be reported as such
            return csv.read_csv(path, convert_options=csv.ConvertOptions(null_values=[""]))
        from pyarrow import parquet

        return parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TableFormatError(Problem(str(path), reason, f"a {path.suffix[1:]} table")) from error


def check_suffix(path: Path) -> None:
    """Raise `InputError` where a file's suffix is none that is read and written."""
    if path.suffix not in SUFFIXES:
        raise InputError(Problem(str(path), f"suffix {path.suffix!r}", " or ".join(SUFFIXES)))
