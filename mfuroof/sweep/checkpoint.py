"""Partial results of reductions on disk: which partitions they have seen, and what they hold."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfuroof._files import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Checkpoint", "checkpoint_name", "read_checkpoints"]

_MAGIC = b"mfuroof checkpoint 1\n"


def checkpoint_name(shard: str = "") -> str:
    """Return the file name of a shard's checkpoint."""
    return f"_checkpoint{'-' if shard else ''}{shard}.bin"


@dataclass(frozen=True)
class Checkpoint:
    """State of reductions after some partitions.

    Attributes
    ----------
    digest
        Digest of the sweep's fingerprint.
    schema
        Columns of the sweep.
    done
        Partitions that are in it.
    tables
        State by name of the reduction.
    cases, reasons
        Case number -> summary record, and what stands against it.
    """

    digest: str
    schema: pa.Schema
    done: frozenset[int] = frozenset()
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    cases: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Put it in the place of an earlier one, whole or not at all; `OutputError` where that fails."""
        import pyarrow as pa

        parts: list[bytes] = []
        for table in (self.schema.empty_table(), *self.tables.values()):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            parts.append(sink.getvalue().to_pybytes())
        head = {
            "digest": self.digest,
            "done": _ranges(self.done),
            "schema": len(parts[0]),
            "tables": {name: len(part) for name, part in zip(self.tables, parts[1:], strict=True)},
            "cases": dict(self.cases),
            "reasons": dict(self.reasons),
        }
        body = json.dumps(head).encode() + b"\n" + b"".join(parts)
        write_atomically(path, _MAGIC + f"{zlib.crc32(body):08x}\n".encode() + body)

    @classmethod
    def read(cls, path: Path, digest: str) -> Checkpoint | None:
        """Return what `write` wrote of this sweep; None where there is nothing, another sweep, or a damaged file."""
        import pyarrow as pa

        try:
            content = path.read_bytes()
        except OSError:
            return None
        body = content[len(_MAGIC) + 9 :]
        if not content.startswith(_MAGIC) or content[len(_MAGIC) : len(_MAGIC) + 8] != b"%08x" % zlib.crc32(body):
            return None
        line, _, rest = body.partition(b"\n")
        head = json.loads(line)
        if head["digest"] != digest:
            return None
        at = head["schema"]
        schema, tables = pa.ipc.open_stream(rest[:at]).read_all().schema, {}
        for name, size in head["tables"].items():
            tables[name] = pa.ipc.open_stream(rest[at : at + size]).read_all()
            at += size
        done = frozenset(n for start, stop in head["done"] for n in range(start, stop))
        return cls(digest, schema, done, tables, head["cases"], head["reasons"])


def read_checkpoints(folder: Path, digest: str) -> list[Checkpoint]:
    """Return the checkpoints of a folder that are of this sweep, the largest first and no partition in two of them."""
    read = (Checkpoint.read(file, digest) for file in sorted(folder.glob("_checkpoint*.bin")))
    found: list[Checkpoint] = []
    for checkpoint in sorted(filter(None, read), key=lambda c: -len(c.done)):
        if not any(checkpoint.done & other.done for other in found):
            found.append(checkpoint)
    return found


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Return whole numbers as the ranges they make."""
    out: list[list[int]] = []
    for n in sorted(numbers):
        if out and out[-1][1] == n:
            out[-1][1] += 1
        else:
            out.append([n, n + 1])
    return out
