"""Batch shapes of engine steps, in two forms with one meaning.

A *uniform* batch has, in each step, ``decode_batch`` decode requests of one context length and ``prefill_batch``
prefill requests of one shape: five columns of numbers. A *ragged* batch lists the requests of each step: flat
arrays cut by offsets, the memory layout of an Arrow list column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mfuroof._boundary import Problems, count_array
from mfuroof._types import I64, ArrayLike, freeze
from mfuroof.errors import InputError, Problem

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RaggedColumns", "StepBatch", "UniformColumns"]

ONE = freeze([1], np.int64)


@dataclass(frozen=True, eq=False)
class UniformColumns:
    """Columns of a uniform batch: int64, read-only, each of shape (n,), or (1,) where it is constant."""

    decode_batch: I64
    decode_context: I64
    prefill_batch: I64
    prefill_new_tokens: I64
    prefill_context: I64
    emits: I64


@dataclass(frozen=True, eq=False)
class RaggedColumns:
    """Request groups of a ragged batch: int64, read-only, cut into steps by the offsets (n + 1,).

    The ``counts`` and ``emits`` arrays have one entry a group, or shape (1,) where constant.
    """

    decode_offsets: I64
    decode_contexts: I64
    decode_counts: I64
    prefill_offsets: I64
    prefill_contexts: I64
    prefill_new_tokens: I64
    prefill_counts: I64
    prefill_emits: I64


class StepBatch:
    """Shapes of ``n`` engine steps; make one with `uniform`, `ragged` or `from_arrow`.

    Attributes
    ----------
    form
        ``"uniform"`` or ``"ragged"``.
    columns
        The frozen arrays: `UniformColumns` or `RaggedColumns`.
    """

    __slots__ = ("_length", "columns", "form")

    columns: UniformColumns | RaggedColumns

    def __init__(self, form: Literal["uniform", "ragged"], columns: UniformColumns | RaggedColumns, length: int):
        self.form = form
        self.columns = columns
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getattr__(self, name: str) -> I64:
        if name.startswith("_") or name in StepBatch.__slots__:
            raise AttributeError(name)
        return getattr(self.columns, name)

    def __reduce__(self) -> tuple[Any, ...]:
        columns = {f.name: getattr(self.columns, f.name) for f in fields(self.columns)}
        return _restored, (self.form, columns, self._length)

    def __repr__(self) -> str:
        if self.form == "uniform":
            parts = [f"{f.name}={_span(getattr(self.columns, f.name))}" for f in fields(self.columns)]
        else:
            parts = [
                f"{self.decode_contexts.size} decode groups of context {_span(self.decode_contexts)}",
                f"{self.prefill_contexts.size} prefill groups of new tokens {_span(self.prefill_new_tokens)}",
            ]
        return f"StepBatch.{self.form}({len(self)} steps: {', '.join(parts)})"

    # ------------------------------------------------------------------ makers

    @classmethod
    def uniform(
        cls,
        decode_batch: ArrayLike = 0,
        decode_context: ArrayLike = 0,
        prefill_batch: ArrayLike = 0,
        prefill_new_tokens: ArrayLike = 0,
        prefill_context: ArrayLike = 0,
        emits: ArrayLike = True,
    ) -> StepBatch:
        """Make steps whose requests have one decode shape and one prefill shape each.

        Parameters
        ----------
        decode_batch : shape (n,) or scalar
            Decode requests of the step, each computing one token. [requests]
        decode_context : shape (n,) or scalar
            Tokens each of them has in the KV cache before the step, so ``kv_len = decode_context + 1``. [tokens]
        prefill_batch : shape (n,) or scalar
            Prefill requests of the step. [requests]
        prefill_new_tokens : shape (n,) or scalar
            Tokens each of them computes in this step. [tokens]
        prefill_context : shape (n,) or scalar
            Tokens each of them has in the KV cache already (earlier chunks, cached prefix). [tokens]
        emits : shape (n,) or scalar of bool
            Whether a prefill request ends its prompt and emits a token; False for a chunk that is not the last.

        Raises
        ------
        InputError
            Values that are negative, fractional, NaN or above 2**40, or columns of different lengths.
        """
        problems = Problems()
        raw = {
            "decode_batch": decode_batch,
            "decode_context": decode_context,
            "prefill_batch": prefill_batch,
            "prefill_new_tokens": prefill_new_tokens,
            "prefill_context": prefill_context,
            "emits": emits,
        }
        clean = {name: count_array(name, values, problems, flags=name == "emits") for name, values in raw.items()}
        problems.raise_if_any()
        if clean["emits"].size and clean["emits"].max() > 1:
            problems.add("emits", int(clean["emits"].max()), "True or False (0 or 1)")
        lengths = {name: column.size for name, column in clean.items() if np.ndim(raw[name]) > 0}
        n = next(iter(lengths.values()), 1)
        for name, length in lengths.items():
            if length != n:
                problems.add(name, f"{length} values", f"{n} as in {next(iter(lengths))}, or a scalar")
        problems.raise_if_any()
        return cls("uniform", UniformColumns(**clean), n)

    @classmethod
    def ragged(
        cls,
        prefill: Sequence[Iterable[tuple[int, int]]] | None = None,
        decode: Sequence[ArrayLike] | None = None,
        emits: Sequence[Sequence[bool]] | None = None,
    ) -> StepBatch:
        """Make steps from lists of requests.

        Parameters
        ----------
        prefill
            One list a step of ``(context, new tokens)`` pairs, one pair a request. [tokens]
        decode
            One list a step of context lengths, one a request. [tokens]
        emits
            One list a step of booleans, one a prefill request; every request emits when left out.

        Raises
        ------
        InputError
            Different numbers of steps or prompts, pairs that are no pairs, or values out of range.

        Examples
        --------
        >>> len(StepBatch.ragged(prefill=[[(0, 512)], []], decode=[[2047, 100], [300]]))
        2
        """
        given = {"decode": decode, "prefill": prefill, "emits": emits}
        steps = {name: _list(name, value, "one list a step") for name, value in given.items() if value is not None}
        n, first = next(((len(v), k) for k, v in steps.items()), (0, ""))
        for name, value in steps.items():
            if len(value) != n:
                raise InputError(Problem(name, f"{len(value)} steps", f"{n} as in {first}"))
        prompts = [_pairs(f"prefill[{i}]", step) for i, step in enumerate(steps.get("prefill", [[]] * n))]
        contexts = [_flat(f"decode[{i}]", step) for i, step in enumerate(steps.get("decode", [[]] * n))]
        flags = [_flat(f"emits[{i}]", step) for i, step in enumerate(steps.get("emits", []))]
        for i, (step, pairs) in enumerate(zip(flags, prompts, strict=False)):
            if len(step) != len(pairs):
                raise InputError(Problem(f"emits[{i}]", f"{len(step)} values", f"{len(pairs)} as in prefill[{i}]"))
        return cls._from_csr(
            decode_offsets=_offsets(contexts),
            decode_contexts=_joined("decode", contexts),
            prefill_offsets=_offsets(prompts),
            prefill_contexts=_joined("prefill", [pairs[:, 0] for pairs in prompts]),
            prefill_new_tokens=_joined("prefill", [pairs[:, 1] for pairs in prompts]),
            prefill_emits=ONE if emits is None else _joined("emits", flags),
        )

    @classmethod
    def from_csr(cls, **columns: ArrayLike) -> StepBatch:
        """Make steps from flat arrays and offsets, the fields of `RaggedColumns`; contiguous int64 is not copied.

        ``decode_offsets``/``prefill_offsets`` (n + 1,) cut the flat arrays into steps. What is left out is empty
        (counts and emits: 1). A group stands for ``count`` requests of one shape.

        Raises
        ------
        InputError
            Unknown field, offsets that fall or do not end at the array's length, values out of range.
        """
        known = {f.name for f in fields(RaggedColumns)}
        problems = Problems()
        for name in columns.keys() - known:
            problems.add(name, "an unknown field", f"one of {', '.join(sorted(known))}")
        problems.raise_if_any()
        return cls._from_csr(**columns)

    @classmethod
    def from_arrow(cls, table: pa.Table | pa.RecordBatch) -> StepBatch:
        """Read steps from an Arrow table: uniform columns, or list columns of requests.

        Uniform: ``decode_batch, decode_context, prefill_batch, prefill_new_tokens, prefill_context, emits``, those
        that are there. Ragged: ``decode_contexts, prefill_contexts, prefill_tokens`` (lists, one entry a request);
        a plain column ``emits`` beside them holds for all prompts of its step.

        Raises
        ------
        InputError
            No such column, both forms mixed, nulls, or values out of range.
        """
        import pyarrow as pa

        if not isinstance(table, pa.Table | pa.RecordBatch):
            raise InputError(Problem("table", type(table).__name__, "an Arrow table or record batch"))
        names = set(table.schema.names)
        lists = names & {"decode_contexts", "prefill_contexts", "prefill_tokens"}
        plain = names & {f.name for f in fields(UniformColumns)}
        problems = Problems()
        if not lists and not plain:
            problems.add("columns", ", ".join(sorted(names)) or "none", "the columns of a uniform or ragged batch")
        if lists and plain - {"emits"}:
            problems.add("columns", ", ".join(sorted(lists | plain)), "either uniform columns or list columns")
        for name in sorted(lists | plain):
            if table.schema.names.count(name) > 1:
                problems.add(f"column {name}", f"{table.schema.names.count(name)} of that name", "one")
            elif table.column(name).null_count:
                problems.add(f"column {name}", f"{table.column(name).null_count} nulls", "no nulls")
        problems.raise_if_any()
        if not lists:
            return cls.uniform(**{name: _numpy(table.column(name)) for name in plain})
        columns: dict[str, ArrayLike] = {}
        for source, offsets, values in (
            ("decode_contexts", "decode_offsets", "decode_contexts"),
            ("prefill_contexts", "prefill_offsets", "prefill_contexts"),
            ("prefill_tokens", "prefill_new_offsets", "prefill_new_tokens"),
        ):
            if source in lists:
                columns[offsets], columns[values] = _list_column(table.column(source), source)
        new_offsets = columns.pop("prefill_new_offsets", None)
        if new_offsets is not None:
            if "prefill_offsets" not in columns:  # contexts left out: nothing is cached
                columns["prefill_contexts"] = np.zeros(np.size(columns["prefill_new_tokens"]), np.int64)
                columns["prefill_offsets"] = new_offsets
            elif not np.array_equal(np.asarray(columns["prefill_offsets"]), np.asarray(new_offsets)):
                problems.add("prefill_tokens", "lists of other lengths", "as many entries a row as prefill_contexts")
        elif "prefill_contexts" in columns:
            problems.add("prefill_tokens", "no such column", "new tokens for each entry of prefill_contexts")
        problems.raise_if_any()
        if "emits" in plain and "prefill_offsets" in columns:
            prompts = np.diff(np.asarray(columns["prefill_offsets"]))
            columns["prefill_emits"] = np.repeat(_numpy(table.column("emits")), prompts)
        return cls._from_csr(**columns)

    @classmethod
    def _from_csr(cls, **raw: ArrayLike) -> StepBatch:
        problems = Problems()
        n = max((np.size(raw[k]) - 1 for k in ("decode_offsets", "prefill_offsets") if k in raw), default=0)
        n = max(n, 0)  # no offsets at all are reported below: no steps need one
        clean: dict[str, I64] = {}
        for field in fields(RaggedColumns):
            name = field.name
            if name in raw:
                clean[name] = count_array(name, raw[name], problems, flags=name.endswith("emits"))
            elif name.endswith("offsets"):
                clean[name] = freeze(np.zeros(n + 1, np.int64), np.int64)
            else:
                clean[name] = ONE if name.endswith(("counts", "emits")) else freeze([], np.int64)
        problems.raise_if_any()
        for phase in ("decode", "prefill"):
            offsets, groups = clean[f"{phase}_offsets"], clean[f"{phase}_contexts"].size
            if offsets.size != n + 1:
                problems.add(f"{phase}_offsets", f"{offsets.size} values", f"{n + 1}: one more than steps")
            elif offsets[0] != 0 or offsets[-1] != groups or (np.diff(offsets) < 0).any():
                problems.add(f"{phase}_offsets", _span(offsets), f"a rising sequence from 0 to {groups}")
            for name in [k for k in clean if k.startswith(phase) and not k.endswith("offsets")]:
                constant = name.endswith(("counts", "emits")) and clean[name].size == 1
                if clean[name].size != groups and not constant:
                    problems.add(name, f"{clean[name].size} values", f"{groups} as in {phase}_contexts")
        if clean["prefill_emits"].size and clean["prefill_emits"].max() > 1:
            problems.add("prefill_emits", int(clean["prefill_emits"].max()), "True or False (0 or 1)")
        problems.raise_if_any()
        return cls("ragged", RaggedColumns(**clean), n)

    # ------------------------------------------------------------------ views

    def slice(self, start: int, stop: int) -> StepBatch:
        """Return steps ``start`` to ``stop`` (exclusive) as a view of the same arrays."""
        start, stop, _ = slice(start, stop).indices(len(self))
        n = max(stop - start, 0)
        stop = start + n
        c = self.columns
        if isinstance(c, UniformColumns):
            cut = {f.name: _cut(getattr(c, f.name), start, stop, len(self)) for f in fields(c)}
            return StepBatch("uniform", UniformColumns(**cut), n)
        whole = {f.name: getattr(c, f.name) for f in fields(c)}
        for phase in ("decode", "prefill"):  # offsets stay absolute: kernels index the whole flat arrays
            whole[f"{phase}_offsets"] = whole[f"{phase}_offsets"][start : stop + 1]
        return StepBatch("ragged", RaggedColumns(**whole), n)


def _restored(form: Literal["uniform", "ragged"], columns: dict[str, I64], length: int) -> StepBatch:
    """Unpickle; the arrays are read-only again, so that no kernel is compiled a second time."""
    record = UniformColumns if form == "uniform" else RaggedColumns
    return StepBatch(form, record(**{name: freeze(values, np.int64) for name, values in columns.items()}), length)


def _cut(column: I64, start: int, stop: int, length: int) -> I64:
    return column if column.size == 1 and length != 1 else column[start:stop]


def _span(values: I64) -> str:
    if values.size == 0:
        return "-"
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}..{high}"


def _list(where: str, value: Any, expected: str) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        raise InputError(Problem(where, f"a {type(value).__name__}", expected)) from None


def _flat(where: str, step: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(step)
    except ValueError:
        array = np.empty(())
    if array.ndim != 1:
        raise InputError(Problem(where, repr(step)[:80], "a flat list of numbers", "Give one list a step."))
    return array


def _joined(where: str, lists: Sequence[np.ndarray]) -> np.ndarray:
    try:
        return np.concatenate([np.empty(0, np.int64), *lists])
    except TypeError:
        raise InputError(Problem(where, "values that are no numbers", "whole numbers")) from None


def _offsets(lists: Sequence[np.ndarray]) -> I64:
    return np.concatenate([[0], np.cumsum([len(x) for x in lists], dtype=np.int64)]).astype(np.int64)


def _pairs(where: str, step: Iterable[tuple[int, int]]) -> np.ndarray:
    expected = "a list of (context, new tokens) pairs"
    rows = _list(where, step, expected)
    try:
        array = np.asarray(rows if rows else np.empty((0, 2), np.int64))
    except ValueError:
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(Problem(where, repr(rows)[:80], expected))
    return array


def _numpy(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False)) if not hasattr(column, "chunks") else column.to_numpy()


def _list_column(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise InputError(Problem(f"column {name}", f"type {column.type}", "a list of integers"))
    offsets = column.offsets.to_numpy()
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    if values.null_count:
        raise InputError(Problem(f"column {name}", f"{values.null_count} nulls inside lists", "no nulls"))
    return offsets.astype(np.int64) - offsets[0], values.to_numpy(zero_copy_only=False)
