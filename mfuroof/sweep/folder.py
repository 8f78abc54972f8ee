"""The folder of a sweep that can be resumed: what it is of, what is done, and that nobody else is at work in it.

``_manifest.json`` holds the fingerprint of the sweep. ``_journal*.jsonl`` has a line for each partition that is done,
written after the partition has its final name; each shard has a journal of its own. Names that begin with ``_`` or
``.`` are skipped by readers of Parquet folders.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mfuroof._files import write_atomically
from mfuroof.errors import InputError, OutputError, Problem, TableFormatError
from mfuroof.sweep.fingerprint import difference, digest

__all__ = ["MANIFEST", "Folder", "Partition", "checksum", "read_journals", "read_manifest", "sound"]

MANIFEST = "_manifest.json"
_JOURNAL = "_journal"
_BLOCK = 2**24


@dataclass(frozen=True)
class Partition:
    """A partition that is done, as its line in the journal says.

    Attributes
    ----------
    number
        Which one.
    rows
        Rows written; 0 where nothing met the conditions, and then there is no file.
    bytes, crc32, mtime_ns
        Size, checksum and time stamp of the file.
    cases
        Case number -> summary record (`mfuroof.sweep.summary.CaseSummary.to_record`).
    reasons
        Case number -> what stands against it.
    """

    number: int
    rows: int
    bytes: int = 0
    crc32: int = 0
    mtime_ns: int = 0
    cases: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"part-{self.number:08d}.parquet"


class Folder:
    """An output folder, opened for one run; a context manager.

    Parameters
    ----------
    path
        The folder; it is made where there is none.
    kind
        ``"dataset"`` or ``"reduction"``.
    print_
        Fingerprint of the sweep.
    notes
        More for the manifest: number of partitions, the definition in words.
    shard
        Name of the shard, such as ``"2of8"``; empty where one run does all.
    restart
        Whether to begin anew where the folder is of another sweep.

    Raises
    ------
    InputError
        The folder holds another sweep, or files of something else.
    OutputError
        It cannot be written to, or another process is at work in it.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str,
        print_: Mapping[str, Any],
        notes: Mapping[str, Any],
        shard: str = "",
        restart: bool = False,
    ) -> None:
        self.path, self._shard = Path(path), shard
        self._print, self._notes = {"kind": kind, **print_}, notes
        self._lock = -1
        self._journal = -1
        if self.path.exists() and not self.path.is_dir():
            kind = "a file" if self.path.is_file() else "no folder and no regular file"
            raise OutputError(f"cannot write {path}: it is {kind}; give a folder, or a file that ends in .parquet")
        self._refuse_foreign()  # look before the lock is a file in it
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be made a folder: {error.strerror}. Choose another place.") from error
        self._take_lock()
        try:
            self._enter(restart)
        except BaseException:
            self.close()
            raise

    def _enter(self, restart: bool) -> None:
        if (self.path / MANIFEST).exists() and restart:
            self._clear()
        elif (self.path / MANIFEST).exists():
            changed = difference(read_manifest(self.path)["fingerprint"], self._print)
            if changed:
                expected = "the same sweep as before"
                remedy = "Give another folder, repeat the first command, or begin anew with --restart."
                raise InputError(Problem(str(self.path), "; ".join(changed), expected, remedy))
        else:
            self._refuse_foreign()
        if not (self.path / MANIFEST).exists():
            manifest = {"fingerprint": self._print, "digest": digest(self._print), **self._notes}
            write_atomically(self.path / MANIFEST, json.dumps(manifest, indent=1).encode())

    def _refuse_foreign(self) -> None:
        """Raise `InputError` where the folder holds files and no manifest; that of another shard may be on its way."""
        if not self.path.is_dir() or (self.path / MANIFEST).exists():
            return
        try:
            foreign = any(not p.name.startswith(("_lock", MANIFEST, f".{MANIFEST}")) for p in self.path.iterdir())
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be read: {error.strerror}. Choose another place.") from error
        if foreign:
            remedy = "Give the name of a folder that is empty or does not exist."
            raise InputError(Problem(str(self.path), "files of something else", "an empty folder", remedy))

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # a system without it: two runs in one folder do double work, but no harm
            return
        name = f"_lock{'-' if self._shard else ''}{self._shard}"
        try:
            self._lock = os.open(self.path / name, os.O_CREAT | os.O_RDWR, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise OutputError(f"{self.path}: another process is at work on this sweep. Wait for it to end.") from None
        except OSError as error:
            if self._lock < 0:
                raise OutputError(f"{self.path}: cannot be written: {error.strerror}. Choose another place.") from error

    def _clear(self) -> None:
        """Remove what an earlier sweep wrote, and nothing else; the manifest last, which says what that is."""
        results: set[str] = set()
        with suppress(TableFormatError):  # a damaged manifest names no results: they stay
            results = {f"{name}.parquet" for name in read_manifest(self.path)["fingerprint"].get("reductions", ())}
        for path in self.path.iterdir():
            if path.name.startswith(("part-", ".part-", _JOURNAL, "_checkpoint")) or path.name in results:
                path.unlink(missing_ok=True)
        (self.path / MANIFEST).unlink()

    def done(self, numbers: Iterable[int], verify: bool = False) -> dict[int, Partition]:
        """Return the partitions that are done and sound, of all shards; leftovers of ``numbers`` are removed.

        Parameters
        ----------
        numbers
            Partitions this run is to do.
        verify
            Whether to read every file; otherwise those only whose time stamp is not the journal's.
        """
        found = sound(self.path, read_journals(self.path), verify)
        mine = set(numbers)
        for path in self.path.glob(".part-*.tmp"):  # of a process that was killed
            if path.name[6:14].isdigit() and int(path.name[6:14]) in mine:
                path.unlink(missing_ok=True)
        return found

    def add(self, partition: Partition) -> None:
        """Note a partition as done; `OutputError` where that cannot be written."""
        name = f"{_JOURNAL}{'-' if self._shard else ''}{self._shard}.jsonl"
        line = json.dumps(asdict(partition), separators=(",", ":")).encode() + b"\n"
        try:
            if self._journal < 0:
                self._journal = os.open(self.path / name, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o666)
                size = os.fstat(self._journal).st_size
                if size and os.pread(self._journal, 1, size - 1) != b"\n":  # torn by a kill or a full disk
                    line = b"\n" + line
            if os.write(self._journal, line) != len(line):
                os.close(self._journal)  # the next line begins on a new one
                self._journal = -1
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / name}: {error.strerror}") from error

    def close(self) -> None:
        """Let others at it."""
        for descriptor in (self._journal, self._lock):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)
        self._journal = self._lock = -1

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a folder; `InputError` where there is none, `TableFormatError` where it is damaged."""
    if not (path / MANIFEST).is_file():
        raise InputError(Problem(str(path), f"no {MANIFEST}", "the folder of a sweep"))
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if not isinstance(manifest["fingerprint"], dict) or not isinstance(manifest["partitions"], int):
            raise TypeError
    except (OSError, ValueError, TypeError, KeyError) as error:
        remedy = "Begin anew in another folder."
        raise TableFormatError(Problem(str(path / MANIFEST), "a damaged file", "a manifest", remedy)) from error
    return manifest


def read_journals(path: Path) -> dict[int, Partition]:
    """Return what the journals of a folder say; a torn line counts as none."""
    found: dict[int, Partition] = {}
    for journal in sorted(path.glob(f"{_JOURNAL}*.jsonl")):
        for line in journal.read_bytes().split(b"\n"):
            with suppress(ValueError, TypeError):
                record = Partition(**json.loads(line))
                found[record.number] = record
    return found


def sound(path: Path, partitions: Mapping[int, Partition], verify: bool = False) -> dict[int, Partition]:
    """Return those of some partitions whose files are as they were written.

    A size and a time stamp that are the journal's are trusted, unless ``verify`` asks for more: reading the checksum
    of everything would make a resumed sweep start slowly. A file of another time stamp is read.
    """
    with os.scandir(path) as entries:
        stats = {entry.name: entry.stat() for entry in entries if entry.name.startswith("part-")}
    found = {}
    for number, partition in partitions.items():
        if partition.rows == 0:
            found[number] = partition
            continue
        stat = stats.get(partition.file)
        if stat is None or stat.st_size != partition.bytes:
            continue
        trusted = stat.st_mtime_ns == partition.mtime_ns and not verify
        if trusted or checksum(path / partition.file) == partition.crc32:
            found[number] = partition
    return found


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file; -1 where it cannot be read."""
    value = 0
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                value = zlib.crc32(block, value)
    except OSError:
        return -1
    return value
