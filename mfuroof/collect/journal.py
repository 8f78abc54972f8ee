"""The journal of a collection: one JSON line a result, on disk before the next point begins.

The first line of each session says what is measured. A point is announced before it runs, so that one that takes the
process down is not tried for ever. A last line without an end is what an interruption leaves: it is cut off.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mfuroof.errors import InputError, OutputError, Problem, TableFormatError

__all__ = ["Journal", "read_journal"]

VERSION = 1


def read_journal(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the records of a journal, and the bytes of its whole lines.

    Raises
    ------
    InputError
        There is no such journal.
    TableFormatError
        A line that is not the last is no JSON object, or the journal does not begin with a session.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(Problem(str(path), error.strerror or "nothing", "the journal of a collection")) from error
    whole = content.rfind(b"\n") + 1
    records = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or (number == 1 and record.get("journal") != VERSION):
            what = f"a session of journal version {VERSION}" if number == 1 else "a JSON object"
            remedy = "Cut the line out, or collect into another folder."
            found = repr(line[:60].decode(errors="replace"))
            raise TableFormatError(Problem(f"{path}, line {number}", found, what, remedy))
        records.append(record)
    return records, whole


class Journal:
    """An open journal; used as a context.

    Parameters
    ----------
    path
        Its file; created where it is missing, else continued.

    Raises
    ------
    OutputError
        It cannot be written, or another process writes it.
    TableFormatError
        It is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _lock(self._file, path)
            self.records, whole = read_journal(path) if path.stat().st_size else ([], 0)
            with _reported(path):
                os.ftruncate(self._file, whole)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def begin(self, **session: Any) -> None:
        """Write what is measured in this session."""
        self._append({"journal": VERSION, **session}, durable=True)

    def announce(self, name: str) -> None:
        """Say that a point begins."""
        self._append({"start": name}, durable=False)  # outlives the process, if not a power cut

    def add(self, record: dict[str, Any]) -> None:
        """Write the result of a point; it is on disk when this returns."""
        self._append(record, durable=True)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """First lines of all sessions."""
        return [r for r in self.records if "journal" in r]

    @property
    def results(self) -> list[dict[str, Any]]:
        """Results of all points, in the order they were measured."""
        return [r for r in self.records if "status" in r]

    def deaths(self) -> Counter[str]:
        """Return how often each point was begun without a result: the process was killed, or it killed it."""
        begun = Counter(r["start"] for r in self.records if "start" in r)
        begun.subtract(r["point"] for r in self.results)
        return +begun

    def _append(self, record: dict[str, Any], *, durable: bool) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with _reported(self.path):
            written = os.write(self._file, line)
            if written < len(line):  # a full disk takes a part; the rest of the line says so
                os.write(self._file, line[written:])
            if durable:
                os.fsync(self._file)
        self.records.append(record)


def _lock(file: int, path: Path) -> None:
    """Keep others from writing the same journal, where the system can."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{path}: another collection writes it. Wait for it, or choose another folder.") from error
    except OSError:  # a file system without locks
        return


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "What was measured before is kept; make room or choose another folder, and --resume."
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}. {remedy}") from error
