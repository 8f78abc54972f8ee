"""Find and read every benchmark file of a folder in the InferSim / BLIS layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from mfuroof._boundary import Problems
from mfuroof.errors import InputError, MfuroofWarning, Problem, TableFormatError
from mfuroof.tables.bench import BenchData
from mfuroof.tables.bench_file import BenchFile, read_bench_file
from mfuroof.tables.bench_layout import FOLDERS, layout_of

__all__ = ["load_bench_data"]


def load_bench_data(
    folder: str | os.PathLike[str], peaks: Mapping[str, Mapping[str, float]] | None = None
) -> BenchData:
    """Load a folder of benchmark files in the InferSim / BLIS layout.

    Parameters
    ----------
    folder
        The folder that holds ``gemm/``, ``mha/`` …, or one with a ``bench_data`` folder that does.
    peaks
        GPU name to figures: matmul rates by dtype [FLOP/s], and ``hbm_bytes_per_s``. The names of the files' GPU
        folders and of the mapping need not agree to the letter: ``h100`` finds ``h100_sxm``. Without it, the rates
        that the files themselves imply are used.

    Returns
    -------
    BenchData
        Every row of every file, in file order; files the layout does not know are listed in ``unread``.

    Raises
    ------
    InputError
        The folder is not there, or holds no file of the layout.
    TableFormatError
        Files that cannot be read, or rows in them; all of them, with file, line, column, what was found and what was
        expected. Nothing is dropped in silence.

    Warns
    -----
    MfuroofWarning
        CSV files or columns that the layout does not know.
    """
    root = _root(folder)
    problems = Problems()
    files: list[BenchFile] = []
    unread: list[str] = []
    for path in sorted(p for p in root.rglob("*.csv") if p.is_file()):
        found = layout_of(path.relative_to(root).parts)
        where = path.relative_to(root).as_posix()
        if found is None:
            unread.append(where)
        elif isinstance(found, str):
            problems.add(where, f"the name {path.name!r}", found, "Rename the file, or move it out of the folder.")
        else:
            file = read_bench_file(root, path, found[0], found[1], problems)
            files.extend([file] if file else [])
    problems.raise_if_any(TableFormatError)
    if not files:
        expected = f"CSV files under {', '.join(FOLDERS)}"
        raise InputError(Problem("folder", f"no benchmark file in {os.fspath(folder)!r}", expected))
    _warn(files, unread)
    return BenchData(str(root), tuple(files), tuple(unread), peaks)


def _root(folder: str | os.PathLike[str]) -> Path:
    try:
        root = Path(folder)
        inside = root / "bench_data"
        if not any((root / name).is_dir() for name in FOLDERS) and inside.is_dir():
            root = inside
        usable = root.is_dir()
    except (TypeError, ValueError, OSError):
        usable, root = False, Path()
    if not usable:
        raise InputError(Problem("folder", repr(folder), "the path of a folder that exists"))
    return root


def _warn(files: list[BenchFile], unread: list[str]) -> None:
    odd = [f"{file.path}: columns that are not read: {', '.join(file.unread)}" for file in files if file.unread]
    if unread:
        odd.append(f"{len(unread)} CSV files of no known family were not read: {', '.join(unread[:5])}")
    if odd:
        warnings.warn("; ".join(odd), MfuroofWarning, stacklevel=3)
