"""Shards put together: folders that independent runs have filled, checked and merged into one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfuroof.errors import InputError, OutputError, Problem
from mfuroof.sweep.checkpoint import read_checkpoints
from mfuroof.sweep.fingerprint import difference, digest
from mfuroof.sweep.folder import Folder, Partition, read_journals, read_manifest, sound
from mfuroof.sweep.reduced import write_results
from mfuroof.sweep.reductions import reduction_from

__all__ = ["FolderState", "folder_state", "merge_shards"]


@dataclass(frozen=True)
class FolderState:
    """How far a folder is.

    Attributes
    ----------
    path
        The folder.
    kind
        ``"dataset"`` or ``"reduction"``.
    partitions
        Partitions of the whole sweep.
    done
        Numbers of those that are done and sound.
    damaged
        Numbers of those that were done and are no longer sound; running the sweep again makes them anew.
    rows
        Rows of those that are done.
    """

    path: str
    kind: str
    partitions: int
    done: frozenset[int]
    damaged: tuple[int, ...]
    rows: int

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return len(self.done) == self.partitions

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of partitions that are not done."""
        return tuple(n for n in range(self.partitions) if n not in self.done)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "path": self.path,
            "kind": self.kind,
            "partitions": self.partitions,
            "done": len(self.done),
            "damaged": list(self.damaged),
            "rows": self.rows,
            "complete": self.complete,
        }


def folder_state(path: str | Path, verify: bool = True) -> FolderState:
    """Return how far the folder of a sweep is.

    Parameters
    ----------
    path
        The folder.
    verify
        Whether to read the checksum of every file; otherwise size and time stamp are trusted.

    Raises
    ------
    InputError
        It is no folder of a sweep.
    TableFormatError
        Its manifest is damaged.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    kind = manifest["fingerprint"]["kind"]
    if kind == "reduction":
        seen = read_checkpoints(folder, manifest["digest"])
        done = frozenset().union(*(c.done for c in seen))
        rows = sum(sum(record[0] for record in c.cases.values()) for c in seen)
        return FolderState(str(path), kind, manifest["partitions"], done, (), rows)
    noted = read_journals(folder)
    found = sound(folder, noted, verify)
    damaged = tuple(sorted(set(noted) - set(found)))
    rows = sum(p.rows for p in found.values())
    return FolderState(str(path), kind, manifest["partitions"], frozenset(found), damaged, rows)


def merge_shards(folders: Sequence[str | Path], output: str | Path) -> FolderState:
    """Put the partitions, or checkpoints, of several folders of one sweep into one folder.

    Files are linked where the file system can, else copied; the folders they come from stay as they are. What is
    damaged is left behind. Given again, or given more folders later, it adds what is missing. Once all partitions are
    there, the results of reductions are written.

    Returns
    -------
    FolderState
        How far the merged folder is.

    Raises
    ------
    InputError
        The folders are not all of one sweep.
    OutputError
        Something cannot be written.
    """
    if not folders:
        raise InputError(Problem("folders", "none", "at least one"))
    paths = [Path(f) for f in folders]
    manifests = [read_manifest(path) for path in paths]
    first = manifests[0]
    for path, manifest in zip(paths, manifests, strict=True):
        changed = difference(first["fingerprint"], manifest["fingerprint"])
        if changed:
            raise InputError(Problem(str(path), "; ".join(changed), f"the sweep of {paths[0]}"))
    print_ = dict(first["fingerprint"])
    kind = print_.pop("kind")
    notes = {k: v for k, v in first.items() if k not in ("fingerprint", "digest")}
    with Folder(output, kind, print_, notes) as target:
        if kind == "reduction":
            for path in paths:
                for file in sorted(path.glob("_checkpoint*.bin")):
                    if path.resolve() != target.path.resolve():
                        _place(file, target.path / f"{file.stem}-{digest({'from': str(path.resolve())})[:6]}.bin")
            _finish(target.path, first)
        else:
            done = target.done(range(first["partitions"]))
            for path in paths:
                if path.resolve() == target.path.resolve():
                    continue
                for number, partition in sorted(sound(path, read_journals(path), verify=True).items()):
                    if number not in done:
                        target.add(_taken(path, target.path, partition))
                        done[number] = partition
    return folder_state(output, verify=False)


def _finish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the results of reductions whose partitions are all there."""
    found = read_checkpoints(folder, manifest["digest"])
    if sum(len(c.done) for c in found) < manifest["partitions"]:
        return
    tables = {}
    for name, spec in manifest["fingerprint"]["reductions"].items():
        reduction = reduction_from(spec)
        states = [reduction.restored(c.schema, c.tables[name]) for c in found]
        for other in states[1:]:
            states[0].merge(other)
        tables[name] = states[0].result()
    write_results(folder, tables)


def _taken(source: Path, target: Path, partition: Partition) -> Partition:
    """Bring one file over and return its line for the journal there."""
    if partition.rows == 0:
        return partition
    _place(source / partition.file, target / partition.file)
    stat = (target / partition.file).stat()
    known = vars(partition) | {"mtime_ns": stat.st_mtime_ns}
    return Partition(**known)


def _place(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:  # another file system
            shutil.copy2(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {target}: {error.strerror}") from error
