"""`Sweep`: what is to be swept, checked once; nothing is computed here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

from mfuroof._boundary import Problems, choice
from mfuroof.engines import ENGINES
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig
from mfuroof.params import CostParams
from mfuroof.precision import canonical_dtype, canonical_kv_dtype
from mfuroof.step import COSTS
from mfuroof.sweep.axes import axis_values
from mfuroof.sweep.grid import SHAPE_AXES, Grid

__all__ = ["CHUNK_ROWS", "Sweep"]

CHUNK_ROWS = 2**16
"""Steps priced at a time by one thread: its arrays stay in the second-level cache. [steps]"""

_SHOWN = 64
_OWN = (None, "own")


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every combination of cases (model, GPU, engine, ranks, precision) and step shapes (batches and lengths).

    Each field takes one value or several; counts also take the spellings of `mfuroof.sweep.axis_values`, such as
    ``"1:512:x2"``. The defaults of the shape axes span decode-only and mixed steps: 270,336 shapes a case.

    Parameters
    ----------
    model
        Models: `ModelConfig`, or what `ModelConfig.from_hf` takes.
    gpu
        GPUs: `Hardware`, or names of the catalogue.
    tp_size
        Tensor-parallel degrees.
    engine
        Serving engines whose kernels are used.
    weight_dtype, kv_dtype
        Formats of weights and KV cache; None or ``"own"`` for the checkpoint's own.
    decode_batch
        Decode requests of a step. [requests]
    decode_context
        Tokens each of them has in the cache. [tokens]
    prefill_batch
        Prefill requests of a step. [requests]
    prefill_new_tokens
        Tokens each of them computes in the step; 0 for none. [tokens]
    prefill_context
        Tokens each of them has in the cache. [tokens]
    cost, params, tables
        Cost family, conventions and measured tables, as in `StepEvaluator`; the tables serve every case.
    memory_utilization
        Share of GPU memory an engine may use, for the question whether a step fits, in (0, 1]. [fraction]

    Raises
    ------
    InputError
        An axis is empty, falls, or is out of range.
    UnknownNameError
        A model, GPU, engine, dtype or cost is not known; the nearest are named.

    Examples
    --------
    >>> Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", decode_batch="1:256:x2", prefill_new_tokens="0,512").grid().rows
    576
    """

    model: Any
    gpu: Any
    tp_size: Any = 1
    engine: Any = "vllm"
    weight_dtype: Any = None
    kv_dtype: Any = None
    decode_batch: Any = "1:256"
    decode_context: Any = "1024:32768:+1024"
    prefill_batch: Any = 1
    prefill_new_tokens: Any = "0:8192:+256"
    prefill_context: Any = 0
    cost: str = "kernels"
    params: CostParams | None = None
    tables: Any = None
    memory_utilization: float = 0.9

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        clean: dict[str, Any] = {
            "model": tuple(m if isinstance(m, ModelConfig) else ModelConfig.from_hf(m) for m in _several(self.model)),
            "gpu": tuple(g if isinstance(g, Hardware) else get_hardware(g) for g in _several(self.gpu)),
            "engine": tuple(choice("engine", e, ENGINES) for e in _several(self.engine)),
            "weight_dtype": tuple(None if d in _OWN else canonical_dtype(d) for d in _several(self.weight_dtype)),
            "kv_dtype": tuple(None if d in _OWN else canonical_kv_dtype(d) for d in _several(self.kv_dtype)),
            "tp_size": tuple(axis_values("tp_size", self.tp_size).tolist()),
        }
        clean |= {name: axis_values(name, given[name]) for name in SHAPE_AXES}
        problems = Problems()
        for name in ("model", "gpu", "engine", "weight_dtype", "kv_dtype"):
            clean[name] = tuple(dict.fromkeys(clean[name]))
            if not clean[name]:
                problems.add(name, "nothing", "at least one")
        for name in ("model", "gpu"):
            names = [record.name for record in clean[name]]
            for twice in {n for n in names if names.count(n) > 1}:
                problems.add(name, f"two of the name {twice!r}", "distinct names, to tell their rows apart")
        if min(clean["tp_size"]) < 1:
            problems.add("tp_size", 0, "at least 1")
        problems.number("memory_utilization", self.memory_utilization, 0, 1, open_low=True)
        problems.raise_if_any()
        choice("cost", self.cost, COSTS)
        for name, value in clean.items():
            object.__setattr__(self, name, value)

    def grid(self, chunk_rows: int = CHUNK_ROWS) -> Grid:
        """Return the product of the shape axes, in chunks."""
        return Grid({name: getattr(self, name) for name in SHAPE_AXES}, chunk_rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as plain JSON types, for the metadata of files; long axes as their ends and length."""
        text: dict[str, Any] = {
            "model": [m.name or "unnamed" for m in self.model],
            "gpu": [g.name for g in self.gpu],
            "tp_size": list(self.tp_size),
            "engine": list(self.engine),
            "weight_dtype": list(self.weight_dtype),
            "kv_dtype": list(self.kv_dtype),
        }
        for name in SHAPE_AXES:
            values = getattr(self, name)
            whole = values.size <= _SHOWN
            text[name] = values.tolist() if whole else f"{values.size} values, {values[0]} .. {values[-1]}"
        tables = self.tables if self.tables is None else str(self.tables)
        text |= {"cost": self.cost, "tables": tables, "memory_utilization": self.memory_utilization}
        return text | {"params": {} if self.params is None else self.params.changed()}


def _several(value: Any) -> tuple[Any, ...]:
    """Return one value or several as a tuple; a text is a comma-separated list, unless it is a path."""
    if isinstance(value, str):
        if os.path.exists(value):
            return (value,)
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if value is None or isinstance(value, ModelConfig | Hardware | PathLike | dict) or not isinstance(value, Iterable):
        return (value,)
    parts: list[Any] = []
    for item in value:
        parts += [item] if not isinstance(item, str) else _several(item)
    return tuple(parts)
