"""Folders of Parquet files: which files belong to one, and whether a sweep that wrote it is done."""

from __future__ import annotations

from pathlib import Path

from mfuroof.sweep import folder_state
from mfuroof.sweep.folder import MANIFEST

__all__ = ["parquet_files", "unfinished"]


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files under a folder in order of their names, without hidden and unfinished ones."""
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            found.append(path)
    return found


def unfinished(folder: Path) -> str:
    """Return how much of the sweep that writes a folder is missing; empty where nothing is, or no sweep wrote it.

    Raises
    ------
    TableFormatError
        What the sweep notes about the folder is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return ""
    state = folder_state(folder, verify=False)
    missing = state.partitions - len(state.done)
    damaged = f", {len(state.damaged):,} of them damaged" if state.damaged else ""
    return (
        f"{missing:,} of {state.partitions:,} partitions{damaged}: run its sweep again to finish it" if missing else ""
    )
