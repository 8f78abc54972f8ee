"""Write one table and its provenance so that a reader never meets half of either."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfuroof.errors import OutputError
from mfuroof.tables.schema import family, key_codes

__all__ = ["GROUP_ROWS", "write_table"]

GROUP_ROWS = 4096
"""Rows a row group has at least: smaller ones cost more in dictionaries and footers than they save in reading."""


def write_table(table: pa.Table, provenance: Mapping[str, Any], folder: Path, engine: str) -> Path:
    """Write ``<folder>/<engine>.parquet`` and ``<folder>/<engine>.provenance.json``; each appears whole or not at all.

    Parameters
    ----------
    table
        A validated table; a row group ends where the leading name columns change, so that a reader who asks for one
        dtype touches little else, unless it would hold fewer than `GROUP_ROWS` rows.
    provenance
        JSON-compatible record; must carry ``"family"``.
    folder
        ``<root>/<gpu>/<family>``; created where it is missing.
    engine
        File stem.

    Raises
    ------
    OutputError
        The folder or a file cannot be written.
    """
    parquet = folder / f"{engine}.parquet"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(provenance, indent=1, ensure_ascii=False) + "\n"
        _replace(parquet, lambda path: _write_parquet(table, str(provenance["family"]), path))
        _replace(folder / f"{engine}.provenance.json", lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"cannot write {parquet}: {error.strerror or error}") from error
    return parquet


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(table: pa.Table, name: str, path: Path) -> None:
    spec = family(name)
    leading = itertools.takewhile(lambda column: column.kind == "name", spec.columns)
    starts = np.zeros(max(table.num_rows - 1, 0), dtype=bool)
    for column in leading:
        starts |= np.diff(key_codes(table, column.name)) != 0
    bounds = [0]
    for start in (np.flatnonzero(starts) + 1).tolist():
        if start - bounds[-1] >= GROUP_ROWS:
            bounds.append(start)
    bounds.append(table.num_rows)
    with pq.ParquetWriter(
        path,
        table.schema,
        compression="zstd",
        compression_level=19,
        use_dictionary=list(spec.keys),  # latencies hardly repeat: plain pages compress better
        data_page_size=1 << 22,
    ) as writer:
        for low, high in itertools.pairwise(bounds):
            if high > low:
                writer.write_table(table.slice(low, high - low), row_group_size=high - low)
