"""The database of measured kernel tables: where it is, what it holds, and reading it piece by piece.

The layout is ``<root>/<gpu>/<family>/<engine>.parquet`` with ``<engine>.provenance.json`` beside each table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mfuroof._boundary import Problems, choice
from mfuroof.errors import MissingTableError, Problem, TableFormatError, UnknownNameError
from mfuroof.tables.schema import FAMILIES, Family, family, validate

__all__ = ["KernelTables", "available", "bench_data_root", "load_tables"]


def bench_data_root() -> Path:
    """Return the folder of the embedded database: inside an installed package, beside it in a checkout.

    Raises
    ------
    MissingTableError
        The installation carries no data.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "bench_data", package.parent / "bench_data"):
        if folder.is_dir():
            return folder
    raise MissingTableError(f"any GPU: no bench_data in {package}", (), "Install mfuroof again, or give a folder")


def available(root: str | Path | None = None) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Return what a database holds, as GPU -> engine -> families in the order of the registry.

    Parameters
    ----------
    root
        Folder of GPU folders; None for the embedded database.
    """
    return _embedded() if root is None else _listed(Path(root))


@cache
def _embedded() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Return what the embedded database holds, which no process changes: listing it is half of a bind."""
    return _listed(bench_data_root())


def _listed(folder: Path) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    found: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for gpu in sorted(p for p in _folders(folder) if _engines(p)):
        found[gpu.name] = MappingProxyType(_engines(gpu))
    return MappingProxyType(found)


def load_tables(gpu: str | Path, engine: str = "vllm", *, root: str | Path | None = None) -> KernelTables:
    """Open the tables of one GPU and engine; nothing is read until a family is asked for.

    Parameters
    ----------
    gpu
        Name of a GPU of the database (case and dashes do not matter), or the folder of one GPU.
    engine
        Serving engine whose kernels were measured.
    root
        Folder of GPU folders; None for the embedded database. Not used where ``gpu`` is a folder.

    Raises
    ------
    UnknownNameError
        The database has no such GPU, or that GPU no such engine; the nearest names are given.
    MissingTableError
        The folder does not exist or holds no tables.

    Examples
    --------
    >>> tables = load_tables("h100_sxm")
    >>> tables.has("gemm")
    True
    """
    folder = _gpu_folder(gpu, root)
    engines = _engines(folder)
    if not engines:
        raise MissingTableError(f"any engine in {folder}", (), "Give a folder <gpu> with <family>/<engine>.parquet")
    name = choice(f"engine of {folder.name}", engine, engines)
    return KernelTables(folder, folder.name, name)


def _gpu_folder(gpu: str | Path, root: str | Path | None) -> Path:
    if isinstance(gpu, Path) or (isinstance(gpu, str) and ("/" in gpu or "\\" in gpu)):
        folder = Path(gpu)
        if not folder.is_dir():
            raise MissingTableError(f"the folder {gpu}", (), "Give an existing folder or the name of a GPU")
        if not _engines(folder) and (inside := tuple(available(folder))):
            remedy = f"Give the folder of one GPU, for instance {folder / inside[0]}"
            raise MissingTableError(f"one GPU in {gpu}", inside, remedy)
        return folder.resolve()
    base = bench_data_root() if root is None else Path(root)
    known = tuple(available(base))
    name = gpu.casefold().replace("-", "_") if isinstance(gpu, str) else gpu
    if name not in known:
        raise UnknownNameError("GPU with kernel tables", gpu, known)
    return base / name


def _folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []


def _engines(gpu: Path) -> dict[str, tuple[str, ...]]:
    """Return engine -> families of one GPU folder."""
    stems: dict[str, list[str]] = {}
    for name in FAMILIES:
        for file in sorted((gpu / name).glob("*.parquet")):
            stems.setdefault(file.stem, []).append(name)
    return {stem: tuple(families) for stem, families in sorted(stems.items())}


@dataclass(frozen=True)
class KernelTables:
    """Measured kernel tables of one GPU and engine, read on demand and kept.

    Attributes
    ----------
    folder
        Folder of the GPU.
    gpu, engine
        Names, for reports.
    """

    folder: Path
    gpu: str
    engine: str
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[KernelTables], tuple[Path, str, str]]:
        """Pickle the place, not what was read from it."""
        return KernelTables, (self.folder, self.gpu, self.engine)

    @property
    def families(self) -> tuple[str, ...]:
        """Families measured for this GPU and engine."""
        return tuple(name for name in FAMILIES if self._path(name).is_file())

    def has(self, name: str) -> bool:
        """Return whether the family was measured; `UnknownNameError` if there is no such family at all."""
        return self._path(family(name).name).is_file()

    def family(self, name: str, **where: Any) -> pa.Table:
        """Return the rows of one family, in the order and types of its schema.

        Parameters
        ----------
        name
            Family of `mfuroof.tables.schema.FAMILIES`.
        **where
            Key column = value, or a list of values: keep the rows that have one of them. Only the parts of the file
            that can hold such rows are read; naming a dtype is what saves most.

        Returns
        -------
        pyarrow.Table
            Sorted by the key columns; no rows where nothing matches. Kept, so asking again costs nothing.

        Raises
        ------
        UnknownNameError
            No such family or key column.
        InputError
            A value is no string for a column of names, or no integer for one of counts.
        MissingTableError
            The family was not measured for this GPU and engine.
        TableFormatError
            The file is damaged or is no table of this family.
        """
        spec = family(name)
        wanted = _wanted(spec, where)
        key = (name, tuple(sorted(wanted.items())))
        if key not in self._cache:
            whole = self._cache.get((name, ()))
            table = _read(self._existing(name), spec, wanted) if whole is None else whole
            self._cache[key] = table.filter(_matching(table, wanted)) if wanted else table
        found: pa.Table = self._cache[key]
        return found

    def provenance(self, name: str) -> Mapping[str, Any]:
        """Return the record of where a family comes from and what was changed.

        Raises
        ------
        UnknownNameError, MissingTableError
            As for `family`; also where the table has no record beside it.
        TableFormatError
            The record is no JSON object.
        """
        path = self._existing(name).with_suffix(".provenance.json")
        if not path.is_file():
            sought = f"provenance of {self.gpu} {name}, {self.engine}"
            raise MissingTableError(sought, (), f"It belongs into {path.name} beside the table")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _foreign(path, f"no JSON ({error})", "a JSON object") from error
        if not isinstance(record, dict):
            raise _foreign(path, f"a JSON {type(record).__name__}", "a JSON object")
        return record

    def _path(self, name: str) -> Path:
        return self.folder / name / f"{self.engine}.parquet"

    def _existing(self, name: str) -> Path:
        path = self._path(family(name).name)
        if not path.is_file():
            raise MissingTableError(f"{name} of {self.gpu}, {self.engine}", self.families)
        return path


def _wanted(spec: Family, where: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return key column -> allowed values, checked."""
    problems = Problems()
    wanted: dict[str, tuple[Any, ...]] = {}
    for name, value in where.items():
        choice(f"key column of {spec.name}", name, spec.keys)
        values = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
        if spec.column(name).kind == "name":
            if not all(isinstance(v, str) for v in values):
                problems.add(f"{spec.name}, {name}", value, "a name or a list of names")
            wanted[name] = values
        else:
            wanted[name] = tuple(problems.positive_int(f"{spec.name}, {name}", v, minimum=0) for v in values)
    problems.raise_if_any()
    return wanted


def _read(path: Path, spec: Family, wanted: Mapping[str, tuple[Any, ...]]) -> pa.Table:
    """Read and check the row groups of a file that may hold wanted rows."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if set(names) != set(spec.names):
                return validate(file.schema_arrow.empty_table(), spec.name, str(path))  # raises, naming the columns
            groups = [i for i in range(file.num_row_groups) if _may_match(file.metadata.row_group(i), names, wanted)]
            table = file.read_row_groups(groups)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _foreign(path, f"an unreadable file ({reason})", "a parquet file") from error
    return validate(table, spec.name, str(path))


def _may_match(group: Any, names: list[str], wanted: Mapping[str, tuple[Any, ...]]) -> bool:
    """Say whether the minima and maxima of a row group leave room for wanted rows; true where it keeps none."""
    for column, values in wanted.items():
        statistics = group.column(names.index(column)).statistics
        if statistics is None or not statistics.has_min_max:
            continue
        low, high = statistics.min, statistics.max
        if not any(not isinstance(low, type(v)) or low <= v <= high for v in values):
            return False
    return True


def _matching(table: pa.Table, wanted: Mapping[str, tuple[Any, ...]]) -> pa.Array:
    mask = np.ones(table.num_rows, dtype=bool)
    for column, values in wanted.items():
        allowed = [pc.equal(table.column(column), v).to_numpy() for v in values]
        mask &= np.logical_or.reduce(allowed) if allowed else False
    return pa.array(mask)


def _foreign(path: Path, found: str, expected: str) -> TableFormatError:
    return TableFormatError(Problem(str(path), found, expected))
