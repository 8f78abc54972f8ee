"""Ingest the per-kernel measurements of NVIDIA AIConfigurator (package ``aiconfigurator-core``, Apache-2.0).

The package ships one parquet file per GPU, operation, engine and engine version. For every GPU and engine this takes
the version the package itself calls current (`slots`), maps each table (`mapping`, `convert`), merges repeated keys
(`merge`), fills known gaps from a named sibling, says how noisy the result is (`quality`), and writes
``<out>/<gpu>/<family>/<engine>.parquet`` with its provenance.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfuroof._boundary import choice
from mfuroof.errors import MissingTableError
from mfuroof.ingest.convert import Converted, convert
from mfuroof.ingest.mapping import NCCL_TABLE, SOURCE_TABLES, VARIABLE_MAP
from mfuroof.ingest.merge import lower_of
from mfuroof.ingest.slots import FINDINGS, SLOTS, SUBSTITUTIONS, Substitution, slot
from mfuroof.ingest.source import PackageSource, SourceFile, open_source
from mfuroof.tables.quality import beaten_rows
from mfuroof.tables.schema import FAMILIES, family, validate
from mfuroof.tables.write import write_table

__all__ = ["VARIABLE_MAP", "Ingested", "ingest"]


@dataclass(frozen=True)
class Ingested:
    """One table that was written."""

    gpu: str
    engine: str
    family: str
    rows: int
    path: Path


def ingest(
    path_or_package: str | Path,
    gpus: Iterable[str],
    engines: Iterable[str],
    out_folder: str | Path,
    *,
    families: Iterable[str] | None = None,
    package_version: str | None = None,
    date: str | None = None,
) -> tuple[Ingested, ...]:
    """Write the package's measurements of some GPUs and engines in the project's own layout.

    Parameters
    ----------
    path_or_package
        Folder, wheel, or name of the installed package (``"aiconfigurator-core"``), which is located and not imported.
    gpus
        GPU folders of the package, for instance ``("h100_sxm", "l40s")``.
    engines
        Any of ``vllm``, ``sglang``, ``trtllm``.
    out_folder
        Root of the result; files of the same name are replaced, each at once.
    families
        Families to write; None for all that the package has.
    package_version
        Version to record where the source does not say its own.
    date
        Date to record, ISO form; None for today.

    Returns
    -------
    tuple of Ingested
        What was written. A family the source does not measure is left out.

    Raises
    ------
    UnknownNameError
        An engine or family of that name is not known.
    MissingTableError
        The package is not there, or holds nothing of one of the GPUs for one of the engines.
    TableFormatError
        A source table has columns, names or values this reader has no rule for.
    OutputError
        A result cannot be written.
    """
    source = open_source(path_or_package, package_version)
    engine_names = [choice("engine", engine, SLOTS) for engine in _names(engines)]
    names = [choice("table family", name, FAMILIES) for name in (FAMILIES if families is None else _names(families))]
    day = date or datetime.date.today().isoformat()
    written = []
    for gpu in _names(gpus):
        for engine in engine_names:
            found = []
            for name in names:
                parts = _Parts(source, gpu, engine, name)
                table = parts.table()
                if table is None:
                    continue
                record = parts.provenance(table, day)
                path = write_table(table, record, Path(out_folder) / gpu / name, engine)
                found.append(Ingested(gpu, engine, name, table.num_rows, path))
            if not found:
                sought = f"{gpu}, {engine} {slot(engine, gpu)} in {source.root}"
                raise MissingTableError(sought, (), "Check the name of the GPU's folder under systems/data")
            written += found
    return tuple(written)


def _names(names: Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


class _Parts:
    """Collects the source tables of one result and what was done to each."""

    def __init__(self, source: PackageSource, gpu: str, engine: str, name: str) -> None:
        self.source, self.gpu, self.engine, self.name = source, gpu, engine, name
        self.sources: list[dict[str, Any]] = []
        self.substitutions: list[dict[str, Any]] = []

    def table(self) -> pa.Table | None:
        """Return the finished table, or None where the package has no such measurements."""
        engines = SOURCE_TABLES[self.name].engines
        if engines and self.engine not in engines:
            return None
        parts = [self._own()]
        if self.name == "comm":
            parts.append(self._nccl())
        for rule in SUBSTITUTIONS:
            if (rule.engine, rule.family) == (self.engine, self.name) and self.gpu in rule.gpus:
                parts = self._substitute(parts, rule)
        tables = [part for part in parts if part is not None and part.num_rows]
        if not tables:
            return None
        joined = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        order = [(key, "ascending") for key in family(self.name).keys]
        plain = joined.cast(pa.schema([(f.name, _plain(f.type)) for f in joined.schema]))
        return validate(plain.sort_by(order), self.name, f"{self.gpu}/{self.name}/{self.engine}")

    def provenance(self, table: pa.Table, day: str) -> dict[str, Any]:
        """Return the record to write beside the finished table."""
        return {
            "gpu": self.gpu,
            "engine": self.engine,
            "engine_version": slot(self.engine, self.gpu),
            "family": self.name,
            "rows": table.num_rows,
            "package": "aiconfigurator-core",
            "package_version": self.source.version,
            "homepage": "https://github.com/ai-dynamo/aiconfigurator",
            "license": "Apache-2.0",
            "copyright": "Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES",
            "changes": "columns and dtypes renamed, constant and label columns dropped, latency from ms to s, rows "
            "sorted, repeated keys merged (median of the runs of a kernel, then the fastest kernel)",
            "sources": self.sources,
            "substitutions": self.substitutions,
            "quality": beaten_rows(table, self.name),
            "findings": [
                f.text for f in FINDINGS if (f.engine, f.family) == (self.engine, self.name) and self.gpu in f.gpus
            ],
            "script": "mfuroof.ingest.aiconfigurator.ingest",
            "date": day,
        }

    def _own(self) -> pa.Table | None:
        place = SOURCE_TABLES[self.name]
        return self._read(f"{place.folder}/{self.engine}/{slot(self.engine, self.gpu)}/{place.file}", "own slot")

    def _nccl(self) -> pa.Table | None:
        version = self.source.nccl_version(self.gpu)
        if version is None:
            return None
        use = f"NCCL {version}, the version the package's system file names"
        return self._read(f"{NCCL_TABLE.folder}/nccl/{version}/{NCCL_TABLE.file}", use, nccl=True)

    def _read(
        self, path: str, use: str, *, only: Mapping[str, str] | None = None, nccl: bool = False, gpu: str = ""
    ) -> pa.Table | None:
        found: SourceFile | None = self.source.read_table(f"data/{gpu or self.gpu}/{path}")
        if found is None:
            return None
        part: Converted = convert(found.table, self.name, found.path, only=only, nccl=nccl)
        self.sources.append(
            {
                "path": found.path,
                "sha256": found.sha256,
                "use": use,
                **part.labels,
                "rows_in": part.rows_in,
                "rows_used": part.rows_used,
                "rows_out": part.table.num_rows,
                "rows_chosen": part.choice or "all",
                "constants": dict(part.constants),
                "repeated": dict(part.repeated),
            }
        )
        return part.table

    def _substitute(self, parts: list[pa.Table | None], rule: Substitution) -> list[pa.Table | None]:
        place = SOURCE_TABLES[self.name]
        path = f"{place.folder}/{rule.from_engine}/{rule.from_version}/{place.file}"
        concerned = [part.filter(_matches(part, rule.only)) for part in parts if part is not None]
        own = pa.concat_tables(concerned) if concerned else None
        if rule.mode == "fill" and own is not None and own.num_rows:
            return parts
        sibling = self._read(path, f"substitution: {rule.reason}", only=rule.only, gpu=rule.from_gpu)
        if sibling is None:
            return parts
        replaced, lower = 0, 0
        if own is not None and own.num_rows:
            replaced = own.num_rows
            sibling, lower = lower_of(sibling, own)
        self.substitutions.append(
            {
                "rows": dict(rule.only),
                "from": f"{rule.from_engine} {rule.from_version}" + (f" of {rule.from_gpu}" if rule.from_gpu else ""),
                "mode": rule.mode,
                "reason": rule.reason,
                "own_rows_replaced": replaced,
                "sibling_rows": sibling.num_rows,
                "own_latency_kept": lower,
            }
        )
        rest = [None if p is None else p.filter(pc.invert(_matches(p, rule.only))) for p in parts]
        return [*rest, sibling]


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) else kind


def _matches(table: pa.Table, only: Mapping[str, str]) -> pa.Array:
    mask = np.ones(table.num_rows, dtype=bool)
    for column, value in only.items():
        mask &= np.asarray(table.column(column).to_pylist(), dtype=np.str_) == value
    return pa.array(mask)
