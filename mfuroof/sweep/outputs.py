"""Whether an output's name says what will be written: one Parquet file, or a folder of them."""

from __future__ import annotations

from pathlib import Path

from mfuroof.errors import InputError, Problem

__all__ = ["check_file", "check_folder"]

_OF_FILES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".arrow", ".feather", ".orc", ".pq", ".gz", ".zip")
"""Endings that nobody gives a folder; others, as that of ``qwen3-0.6b``, are part of its name."""


def check_file(path: str | Path) -> None:
    """Raise `InputError` where the name of a file is not that of a Parquet file."""
    path = Path(path)
    suffix = path.suffix
    if suffix != ".parquet" and (path.is_file() or not path.exists()):  # what is no file is said where it is opened
        found = f"suffix {suffix}" if suffix else "no suffix"
        raise InputError(Problem(str(path), found, ".parquet", "write_sweep fills a folder of Parquet files."))


def check_folder(path: str | Path) -> None:
    """Raise `InputError` where the name of a folder that is to be made is that of a file in another format."""
    suffix = Path(path).suffix
    if suffix.lower() in _OF_FILES and not Path(path).exists():
        remedy = "Rows are written as Parquet."
        raise InputError(Problem(str(path), f"suffix {suffix}", ".parquet or a folder", remedy))
