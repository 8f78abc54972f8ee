"""`KvCapacity`: arrays for programs, a table for people."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mfuroof._html import html_table
from mfuroof._types import F64, I64
from mfuroof.capacity.inputs import Inputs
from mfuroof.units import GIB, KIB

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["KvCapacity"]

_SHOWN = 20


@dataclass(frozen=True, repr=False, eq=False)
class KvCapacity:
    """What fits, for each configuration; arrays are read-only and have the shape the arguments broadcast to.

    Parameters
    ----------
    model, gpu
        Names.
    block_size
        Tokens of one KV block. [tokens]
    tp_size, pp_size, ep_size, dp_size, memory_utilization, kv_dtype, weight_dtype, seq_len
        The arguments; dtypes None for the checkpoint's own, ``seq_len`` None where none was given.
    kv_capacity_tokens, num_kv_blocks
        Of all ``dp_size`` caches together, with every layer keeping every token; 0 where it does not fit, 2**40 where
        nothing is cached by token. [tokens, blocks]
    max_sequences
        Sequences of ``seq_len`` tokens that fit at once in all caches, windows and states counted; None without
        ``seq_len``.
    fits
        Whether there is room for a block, and for a sequence of ``seq_len`` where one is given.
    smallest_tp_that_fits
        Smallest ``tp_size`` that the heads allow and that fits, other degrees kept; 0 if none does.
    weight_bytes, activation_bytes, reserved_bytes, kv_bytes_per_token
        Of one rank, on the stage with the least room. [bytes]
    """

    model: str
    gpu: str
    block_size: int
    tp_size: I64
    pp_size: I64
    ep_size: I64
    dp_size: I64
    memory_utilization: F64
    kv_dtype: NDArray[Any]
    weight_dtype: NDArray[Any]
    seq_len: I64 | None
    kv_capacity_tokens: I64
    num_kv_blocks: I64
    max_sequences: I64 | None
    fits: NDArray[np.bool_]
    smallest_tp_that_fits: I64
    weight_bytes: F64
    activation_bytes: F64
    reserved_bytes: F64
    kv_bytes_per_token: F64

    @classmethod
    def of(cls, model: str, gpu: str, block_size: int, inputs: Inputs, columns: dict[str, Any]) -> KvCapacity:
        """Return the record of flat columns, in the shape of the arguments."""
        names = ("tp_size", "pp_size", "ep_size", "dp_size")
        flat: dict[str, Any] = dict(zip(names, inputs.degrees, strict=True))
        flat["memory_utilization"], flat["seq_len"] = inputs.memory_utilization, inputs.seq_len
        for name in ("kv_dtype", "weight_dtype"):
            flat[name] = np.array(getattr(inputs, name), dtype=object)
        flat |= {"max_sequences": None} | columns
        shaped: dict[str, Any] = {
            name: None if a is None else _frozen(a.reshape(inputs.shape)) for name, a in flat.items()
        }
        return cls(model=model, gpu=gpu, block_size=block_size, **shaped)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return one list per column, flat, with the names of model and GPU repeated."""
        n = self.tp_size.size
        columns: dict[str, list[Any]] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                columns[f.name] = value.ravel().tolist() if isinstance(value, np.ndarray) else [value] * n
        return columns

    def to_arrow(self) -> pa.Table:
        """Return the same as an Arrow table."""
        import pyarrow as pa

        columns = self.to_dict()
        names = {"kv_dtype", "weight_dtype"}
        return pa.table({k: pa.array(v, pa.string()) if k in names else pa.array(v) for k, v in columns.items()})

    @property
    def _title(self) -> str:
        return f"KvCapacity of {self.model or 'a model'} on {self.gpu}, blocks of {self.block_size} tokens"

    def _rows(self) -> list[dict[str, str]]:
        columns = self.to_dict()
        shown = range(min(self.tp_size.size, _SHOWN))
        return [_cells({name: column[i] for name, column in columns.items()}) for i in shown]

    def _repr_html_(self) -> str:
        rows = self._rows()
        more = [f"... {self.tp_size.size - _SHOWN} more"] if self.tp_size.size > _SHOWN else []
        head = list(rows[0]) if rows else []
        return html_table(self._title, head, [list(row.values()) for row in rows], words=(), notes=more)

    def __repr__(self) -> str:
        rows, title = self._rows(), self._title
        if not rows:
            return f"{title}: empty"
        table = [list(rows[0]), *([row[name] for name in rows[0]] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in table]
        more = [f"... {self.tp_size.size - _SHOWN} more"] if self.tp_size.size > _SHOWN else []
        return "\n".join([title, *lines, *more])


def _cells(row: dict[str, Any]) -> dict[str, str]:
    cells = {
        "tp": str(row["tp_size"]),
        "pp": str(row["pp_size"]),
        "ep": str(row["ep_size"]),
        "dp": str(row["dp_size"]),
        "util": f"{row['memory_utilization']:g}",
        "weights": row["weight_dtype"] or "own",
        "kv": row["kv_dtype"] or "own",
        "weights GiB": f"{row['weight_bytes'] / GIB:.2f}",
        "activations GiB": f"{row['activation_bytes'] / GIB:.2f}",
        "reserve GiB": f"{row['reserved_bytes'] / GIB:.2f}",
        "KV KiB/token": f"{row['kv_bytes_per_token'] / KIB:.2f}",
        "tokens": f"{row['kv_capacity_tokens']:,}",
        "blocks": f"{row['num_kv_blocks']:,}",
    }
    if "seq_len" in row:
        cells["seq_len"] = f"{row['seq_len']:,}"
        cells["sequences"] = f"{row['max_sequences']:,}"
    smallest = row["smallest_tp_that_fits"]
    cells["fits"] = "yes" if row["fits"] else f"needs tp {smallest}" if smallest else "at no tp"
    return cells


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
