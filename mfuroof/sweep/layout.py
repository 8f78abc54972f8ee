"""How many rows chunks and partitions have: what the caller says, else what the folder has, else enough for all shards.

Every shard must cut a sweep alike without knowing of the others, so the cut follows from the definition and the number
of shards alone. A folder that is there already keeps its own: the command without ``--shard`` then goes on where
shards were.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mfuroof._boundary import Problems
from mfuroof.errors import MfuroofError, MfuroofWarning
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.engine import Shard
from mfuroof.sweep.folder import MANIFEST, read_manifest
from mfuroof.sweep.space import Space

__all__ = ["layout", "warn_if_idle"]

PARTITIONS_OF_A_SHARD = 4
"""Partitions that each shard has at least, where there are as many rows: a kill then costs a part of one."""


def layout(
    sweep: Sweep,
    chunk_rows: int | None,
    partition_rows: int | None,
    shard: Shard,
    folder: str | Path | None,
    restart: bool,
) -> tuple[int | None, int | None]:
    """Return the rows of chunks and of partitions; None for what is usual. [rows]

    Raises
    ------
    InputError
        A number of rows that is not positive.
    """
    problems = Problems()
    for name, value in (("chunk_rows", chunk_rows), ("partition_rows", partition_rows)):
        if value is not None:
            problems.positive_int(name, value)
    problems.raise_if_any()
    there = {} if folder is None or restart else _of_folder(Path(folder))
    chunk_rows = there.get("chunk_rows") if chunk_rows is None else chunk_rows
    partition_rows = there.get("partition_rows") if partition_rows is None else partition_rows
    if shard.of > 1 and partition_rows is None:
        usual = Space(sweep, chunk_rows)
        wanted = PARTITIONS_OF_A_SHARD * shard.of
        partition_rows = max(min(usual.partition_rows, usual.rows // wanted), 1)
        if chunk_rows is None and usual.jobs < wanted:  # a partition is whole chunks
            chunk_rows = max(usual.rows // wanted, 1)
    return chunk_rows, partition_rows


def _of_folder(folder: Path) -> dict[str, int]:
    """Return the rows that the sweep of a folder has; nothing where there is none, or it cannot be read."""
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        found: dict[str, Any] = read_manifest(folder)["fingerprint"]
    except MfuroofError:  # said when the folder is opened
        return {}
    numbers = {name: found.get(name) for name in ("chunk_rows", "partition_rows")}
    return {name: value for name, value in numbers.items() if isinstance(value, int) and value > 0}


def warn_if_idle(shard: Shard, partitions: int) -> None:
    """Warn where there are fewer partitions than shards, and none is left for this one."""
    if not shard.numbers(partitions):
        several = f"{partitions} partition{'s' if partitions > 1 else ''}"
        remedy = (
            "For smaller ones, give all shards the same smaller --partition-rows (partition_rows=), in a new folder"
        )
        text = f"shard {shard.number}/{shard.of} has nothing to do: the sweep is cut into {several}. {remedy}."
        warnings.warn(text, MfuroofWarning, stacklevel=3)
