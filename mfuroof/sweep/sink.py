"""One Parquet file that appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mfuroof.errors import OutputError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetSink"]

ROW_GROUP_ROWS = 2**19
"""Rows of one row group: what a reader skips or reads at once. [rows]"""


class ParquetSink:
    """Write record batches to a temporary name beside ``path`` and rename it at the end.

    A killed process, a full disk or an exception leaves nothing under the final name; whatever stood there before
    stays. As a context manager it commits on a clean exit and discards on an exception.

    Parameters
    ----------
    path
        Final name; the folder must exist. A symbolic link is followed.
    schema
        Columns and metadata of the file.

    Raises
    ------
    OutputError
        The folder does not exist or cannot be written to, or something that is no regular file has that name.
    """

    def __init__(self, path: str | Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self.path = Path(path)
        self._final = self.path.resolve()
        self._temporary = self._final.with_name(f".{self._final.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        if self._final.exists() and not self._final.is_file():
            raise OutputError(f"cannot write {path}: it is no regular file; give the name of a file")
        if not self._final.parent.is_dir():
            raise OutputError(f"cannot write {path}: there is no folder {self._final.parent}; make it first")
        names = [f.name for f in schema if str(f.type) != "double" and str(f.type) != "float"]
        try:
            os.close(os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            self._writer: Any = pq.ParquetWriter(
                self._temporary, schema, compression="zstd", compression_level=1, use_dictionary=names
            )
        except OSError as error:
            self._temporary.unlink(missing_ok=True)
            raise self._failed(error) from error

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; `OutputError` if they cannot be written."""
        self._waiting.append(batch)
        if sum(b.num_rows for b in self._waiting) >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        rows, self._waiting = self._waiting, []
        try:
            self._writer.write_table(pa.Table.from_batches(rows, self._schema), row_group_size=2 * ROW_GROUP_ROWS)
        except OSError as error:
            raise self._failed(error) from error

    def commit(self) -> None:
        """Finish the file and give it its name; `OutputError` if that fails."""
        if self._waiting:
            self._flush()
        try:
            self._writer.close()
            with open(self._temporary, "rb") as written:
                os.fsync(written.fileno())  # the name must not reach the disk before the rows
            os.replace(self._temporary, self._final)
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):  # a writer that failed once may fail to close as well
            self._writer.close()
        self._writer.is_open = False  # or its destructor would try again
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> ParquetSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()

    def _failed(self, error: OSError) -> OutputError:
        reason = str(error.strerror or error).splitlines()[0]
        return OutputError(f"cannot write {self.path}: {reason}; nothing was left under that name")
