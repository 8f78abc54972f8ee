"""`Sweep`: what is to be swept, checked once; nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mfuroof._boundary import Problems, choice
from mfuroof._types import I64, freeze
from mfuroof.errors import InputError, Problem, UnknownNameError
from mfuroof.expressions import Expression
from mfuroof.params import CostParams
from mfuroof.step import COSTS
from mfuroof.sweep.axes import axis_values
from mfuroof.sweep.block import sample, tested
from mfuroof.sweep.grid import SHAPE_AXES, Grid
from mfuroof.sweep.table import ALIASES, CaseTable
from mfuroof.sweep.values import CASE_AXES, DEGREES, case_values, check_names, label

__all__ = ["CHUNK_ROWS", "ROW", "SERVING_AXES", "Sweep"]

CHUNK_ROWS = 2**16
"""Steps priced at a time by one thread: its arrays stay in the second-level cache. [steps]"""

SERVING_AXES = ("input_len", "output_len", "concurrency", "cached_prefix_len")
"""Columns of a load that a sweep of the serving view spans."""

ROW = "row"
"""Column that says which row of the table of cases, from 0, a row comes from."""

_STEP_DEFAULTS = {
    "decode_batch": "1:256",
    "decode_context": "1024:32768:+1024",
    "prefill_batch": 1,
    "prefill_new_tokens": "0:8192:+256",
    "prefill_context": 0,
}
_TABLE_DEFAULTS = dict.fromkeys(SHAPE_AXES, 0) | {"prefill_batch": 1}
_SERVING_DEFAULTS = {"concurrency": "1:256:x2", "cached_prefix_len": 0}
_CASE_DEFAULTS = dict.fromkeys(CASE_AXES, None) | dict.fromkeys(("tp_size", "pp_size", "ep_size", "dp_size"), 1)
_SHOWN = 64


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every combination of cases (model, GPU, engine, ranks, precision) and step shapes (batches and lengths).

    Each axis takes one value or several; counts also take the spellings of `mfuroof.sweep.axis_values`, such as
    ``"1:512:x2"``. The defaults of the shape axes span decode-only and mixed steps: 270,336 shapes a case. Where one
    of ``input_len``, ``output_len``, ``concurrency`` and ``cached_prefix_len`` is given, loads are swept in place of
    step shapes (`mfuroof.serving.estimate`).

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
    pp_size, ep_size, dp_size
        Pipeline, expert- and data-parallel degrees.
    attention_dtype, moe_dtype
        Formats of the attention arithmetic and of the routed experts; None or ``"own"`` for the checkpoint's own.
    runtime
        What an engine is told to compute in: names of presets, mappings or `RuntimePrecision`; None for nothing.
    input_len, output_len
        Prompt and generated tokens of a request. [tokens]
    concurrency
        Requests in flight. [requests]
    cached_prefix_len
        Tokens of each prompt that a prefix cache holds. [tokens]
    together
        Groups of axes that advance together instead of being multiplied, such as ``("tp_size", "pp_size")``; either
        axes of cases or axes of shapes.
    table
        Table of cases, an Arrow table or a ``.csv`` or ``.parquet`` file: its columns advance together and take the
        place of the axes of their names. Shape axes it leaves out are 0 unless given; a result says in ``row`` which
        row of the table it belongs to.
    where
        Conditions on labels, axes and ``num_gpus``, such as ``"decode_batch * decode_context <= 2_000_000"``; what
        does not meet all of them is no part of the sweep.

    Raises
    ------
    InputError
        An axis is empty, falls, or is out of range; axes that advance together differ in length; a condition is none.
    UnknownNameError
        A model, GPU, engine, dtype, cost, axis or column is not known; the nearest are named.

    Examples
    --------
    >>> Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", decode_batch="1:256:x2", prefill_new_tokens="0,512").grid().rows
    576
    """

    model: Any = None
    gpu: Any = None
    tp_size: Any = None
    engine: Any = None
    weight_dtype: Any = None
    kv_dtype: Any = None
    decode_batch: Any = None
    decode_context: Any = None
    prefill_batch: Any = None
    prefill_new_tokens: Any = None
    prefill_context: Any = None
    cost: str = "kernels"
    params: CostParams | None = None
    tables: Any = None
    memory_utilization: float = 0.9
    pp_size: Any = None
    ep_size: Any = None
    dp_size: Any = None
    attention_dtype: Any = None
    moe_dtype: Any = None
    runtime: Any = None
    input_len: Any = None
    output_len: Any = None
    concurrency: Any = None
    cached_prefix_len: Any = None
    together: Any = ()
    table: Any = None
    where: Any = ()

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        table = self._read_table(given)
        taken = table.names if table is not None else ()
        for name in taken:
            if given[name] is not None:
                remedy = "Leave one of them out."
                raise InputError(Problem(name, "an axis and a column of the table", "one of them", remedy))
        axes = self._axes(given, taken)
        groups = _groups(self.together, (*CASE_AXES, *axes), taken)
        clean: dict[str, Any] = {"together": groups, "table": table}
        for name in CASE_AXES:
            linked = any(name in group for group in groups)
            if table is not None and name in table.texts:
                values = tuple(_one(name, value) for value in table.texts[name][0])
            else:
                values = case_values(name, _default(given[name], _case_default(name)))
            check_names(name, values)
            clean[name] = values if linked or name in taken else tuple(dict.fromkeys(values))
        for name, spec in axes.items():
            linked = any(name in group for group in groups)
            in_table = table is not None and name in table.counts
            clean[name] = table.counts[name] if in_table else axis_values(name, spec, distinct=not linked)  # type: ignore[union-attr]
        problems = Problems()
        for group in groups:
            sizes = {name: len(clean[name]) for name in group}
            if len(set(sizes.values())) > 1:
                found = ", ".join(f"{n} values of {name}" for name, n in sizes.items())
                problems.add("together", found, "axes of one length")
        problems.number("memory_utilization", self.memory_utilization, 0, 1, open_low=True)
        problems.raise_if_any()
        choice("cost", self.cost, COSTS)
        clean["where"] = (self.where,) if isinstance(self.where, str) else tuple(self.where or ())
        for name in {*SHAPE_AXES, *SERVING_AXES} - set(axes):
            clean[name] = None
        for name, value in clean.items():
            object.__setattr__(self, name, value)
        trial = sample({n: n in CASE_AXES and n not in DEGREES for n in (*CASE_AXES, "num_gpus", *self.axes)})
        for condition in self.conditions():
            tested(condition, trial)

    def _read_table(self, given: Mapping[str, Any]) -> CaseTable | None:
        if self.table is None or isinstance(self.table, CaseTable):
            return self.table
        return CaseTable.read(self.table, CASE_AXES, (*SHAPE_AXES, *SERVING_AXES))

    def _axes(self, given: Mapping[str, Any], taken: tuple[str, ...]) -> dict[str, Any]:
        """Return the axes of shapes or loads by name with what was given or is usual."""
        there = {n for n in (*SHAPE_AXES, *SERVING_AXES) if n in taken or given[n] is not None}
        serving, steps = there & set(SERVING_AXES), there & set(SHAPE_AXES)
        if serving and steps:
            found = ", ".join(sorted(serving | steps))
            raise InputError(Problem("axes", found, "either axes of a step or axes of a load"))
        names: tuple[str, ...] = SHAPE_AXES
        usual: Mapping[str, Any] = _TABLE_DEFAULTS if steps & set(taken) else _STEP_DEFAULTS
        if serving:
            names, usual = SERVING_AXES, _SERVING_DEFAULTS
            for name in ("input_len", "output_len"):
                if name not in there:
                    raise InputError(Problem(name, "nothing", "tokens of a request", "A load needs both lengths."))
        return {name: _default(given[name], usual.get(name)) for name in names}

    @property
    def serving(self) -> bool:
        """Whether loads are swept, not steps."""
        return self.input_len is not None

    @property
    def axes(self) -> dict[str, I64]:
        """Values of the axes of shapes or loads, by name."""
        return {name: getattr(self, name) for name in (SERVING_AXES if self.serving else SHAPE_AXES)}

    def conditions(self) -> tuple[Expression, ...]:
        """Return the conditions, parsed."""
        known = (*CASE_AXES, "num_gpus", *self.axes)
        return tuple(Expression.parse(text, known, "where") for text in self.where)

    def grid(self, chunk_rows: int = CHUNK_ROWS, rows: I64 | None = None) -> Grid:
        """Return the product of the shape axes, in chunks; ``rows`` of the table where it has some of them."""
        axes = self.axes
        groups = [group for group in self.together if group[0] in axes]
        counts = self.table.counts if self.table is not None else {}
        if counts:
            at = slice(None) if rows is None else rows
            linked = {name: freeze(values[at], np.int64) for name, values in counts.items()}
            linked[ROW] = freeze(np.arange(self.table.rows)[at], np.int64)
            axes = {**linked, **{name: values for name, values in axes.items() if name not in counts}}
            groups.append(tuple(linked))
        return Grid(axes, chunk_rows, groups)

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as plain JSON types, for the metadata of files; long axes as their ends and length."""
        text: dict[str, Any] = {name: _shown([label(name, v) for v in getattr(self, name)]) for name in CASE_AXES}
        for name, values in self.axes.items():
            text[name] = _shown(values.tolist())
        tables = self.tables if self.tables is None else str(self.tables)
        text |= {"cost": self.cost, "tables": tables, "memory_utilization": self.memory_utilization}
        text |= {"together": [list(group) for group in self.together], "where": list(self.where)}
        if self.table is not None:
            text["table"] = f"{self.table.rows} rows of {', '.join(self.table.names)}"
        return text | {"params": {} if self.params is None else self.params.changed()}


def _default(given: Any, usual: Any) -> Any:
    return usual if given is None else given


def _case_default(name: str) -> Any:
    return "vllm" if name == "engine" else () if name in ("model", "gpu") else _CASE_DEFAULTS[name]


def _one(name: str, value: Any) -> Any:
    """Return one value of a column of the table; a blank is what is usual."""
    usual = _case_default(name)
    if value is None and usual == ():
        raise InputError(Problem(f"column {name}", "nothing", "a name in every row"))
    found = case_values(name, _default(value, usual))
    if len(found) != 1:
        raise InputError(Problem(f"column {name}", repr(value), "one value a row"))
    return found[0]


def _groups(together: Any, known: Iterable[str], taken: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return groups of axes that advance together, checked."""
    names = tuple(known)
    if isinstance(together, str):
        together = [together]
    given = list(together or ())
    if given and all(isinstance(t, str) and "," not in t for t in given):
        given = [given]  # one group, by its names
    split = [g.replace(" ", "").split(",") if isinstance(g, str) else g for g in given]
    groups = tuple(tuple(ALIASES.get(name, name) for name in g) for g in split)
    problems = Problems()
    used: list[str] = []
    for group in groups:
        for name in group:
            if name not in names:
                raise UnknownNameError("axis to advance together", name, names)
            if name in taken or name in used:
                problems.add("together", name, "each axis once, and none of the table")
            used.append(name)
        if len(group) < 2:
            problems.add("together", ", ".join(group) or "nothing", "at least two axes")
        elif len({name in CASE_AXES for name in group}) > 1:
            expected = "axes of cases alone, or of shapes alone"
            problems.add("together", ", ".join(group), expected, "Use a table of cases.")
    problems.raise_if_any()
    return groups


def _shown(values: list[Any]) -> Any:
    return values if len(values) <= _SHOWN else f"{len(values)} values, {values[0]} .. {values[-1]}"
