"""The registry of kernel-table families: columns, units, meanings, sort order, and the check every table passes.

A family is one kind of measured kernel. Its table has one row per measured shape, key columns first, sorted by them
in column order without repetition, and the latency last. Files, documentation and checks all read this registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfuroof._boundary import Problems
from mfuroof._types import I64
from mfuroof.errors import TableFormatError, UnknownNameError

__all__ = ["DTYPES", "FAMILIES", "LATENCY", "Column", "Family", "arrow_schema", "family", "key_codes", "validate"]

DTYPES = (
    "bf16",
    "fp16",
    "fp8",
    "fp8_block",
    "int8",
    "int8_wo",
    "int4_wo",
    "nvfp4",
    "w4a16_mxfp4",
    "w4a8_mxfp4_mxfp8",
)
"""Storage formats a table may name; ``_wo`` is weight-only, ``int8`` alone has integer activations as well."""

LATENCY = "latency_s"


@dataclass(frozen=True)
class Column:
    """One column of a family.

    Attributes
    ----------
    name
        Column name, from the project's glossary.
    kind
        ``"name"`` (dictionary-encoded string), ``"count"`` (int32) or ``"time"`` (float64, seconds).
    unit
        Unit of the values; ``"-"`` for names.
    meaning
        What the column says, in one sentence.
    minimum
        Smallest allowed count.
    choices
        Allowed names; empty allows any.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    minimum: int = 1
    choices: tuple[str, ...] = ()

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type the column is stored as."""
        types = {"name": pa.dictionary(pa.int32(), pa.string()), "count": pa.int32(), "time": pa.float64()}
        return types[self.kind]


@dataclass(frozen=True)
class Family:
    """One kind of measured kernel: what a row is, and its columns in order, the latency last."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the key columns, in sort order."""
        return tuple(c.name for c in self.columns if c.kind != "time")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(c.name for c in self.columns)

    def column(self, name: str) -> Column:
        """Return one column by name; `UnknownNameError` names the nearest otherwise."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UnknownNameError(f"column of {self.name}", name, self.names)


def _dtype(name: str, meaning: str) -> Column:
    return Column(name, "name", "-", meaning, choices=DTYPES)


def _count(name: str, unit: str, meaning: str, minimum: int = 1) -> Column:
    return Column(name, "count", unit, meaning, minimum)


def _time(meaning: str) -> Column:
    return Column(LATENCY, "time", "s", meaning)


_HEADS = _count("num_attention_heads", "heads", "query heads on one GPU")
_BATCH = _count("batch_size", "sequences", "sequences of the batch, all of one length")
_NEW = _count("new_tokens", "tokens", "new tokens of each sequence; nothing is cached before them")
_KV = _count("kv_len", "tokens", "cached tokens plus the new one, of each sequence")
_KV_DTYPE = _dtype("kv_dtype", "storage of the KV cache")
_ATTN_DTYPE = _dtype("attn_dtype", "format the attention matrix products are computed in")
_GQA = (
    _ATTN_DTYPE,
    _KV_DTYPE,
    _HEADS,
    _count("num_key_value_heads", "heads", "KV heads on one GPU"),
    _count("head_dim", "elements", "width of one head"),
    _count("sliding_window", "tokens", "window length; 0 where every earlier token is seen", 0),
    _BATCH,
)
_CONTEXT = _count("context_len", "tokens", "tokens of each sequence that are cached already", 0)
_PHASE = Column("phase", "name", "-", "new tokens of a prompt, or one a sequence", choices=("prefill", "decode"))
_PART = Column("op", "name", "-", "the causal convolution, or the recurrence after it", choices=("conv", "core"))
_STATE_NEW = _count("new_tokens", "tokens", "new tokens of each sequence; 1 in decode")
_CONV = _count("conv_kernel", "tokens", "taps of the causal convolution")
_MODULE = (
    _dtype("gemm_dtype", "storage of the projection weights"),
    _ATTN_DTYPE,
    _KV_DTYPE,
    Column("architecture", "name", "-", "model class whose projection widths were measured"),
    _HEADS,
    _BATCH,
)


def _families() -> dict[str, Family]:
    call = "wall time of one call on one GPU, for the whole batch of one layer"
    records = (
        Family(
            "gemm",
            "Y[m, n] = X[m, k] W[k, n] for one tensor-parallel shard, activation quantisation included",
            (
                _dtype("dtype", "storage of the weights W"),
                _count("n", "elements", "output features of the shard"),
                _count("k", "elements", "input features of the shard"),
                _count("m", "tokens", "rows of the activation"),
                _time("wall time of one call on one GPU"),
            ),
        ),
        Family("attn_prefill", "causal attention over new tokens with an empty cache", (*_GQA, _NEW, _time(call))),
        Family("attn_decode", "attention of one new token per sequence over its cache", (*_GQA, _KV, _time(call))),
        Family(
            "moe",
            "routed experts of one layer on the busiest rank: both expert products and the activation between them",
            (
                _dtype("dtype", "storage of the expert weights"),
                _count("num_experts", "experts", "routed experts of the layer, over all ranks"),
                _count("num_experts_per_tok", "experts", "experts each token visits"),
                _count("hidden_size", "elements", "width of a token"),
                _count("moe_intermediate_size", "elements", "width of one whole expert, before tensor parallelism"),
                _count("tp_size", "ranks", "tensor-parallel ranks sharing each expert"),
                _count("ep_size", "ranks", "expert-parallel ranks sharing the experts"),
                Column("distribution", "name", "-", "how tokens fall on experts"),
                _count("tokens", "tokens", "tokens entering the layer, over all ranks"),
                _time("wall time of one call on one GPU, the busiest rank"),
            ),
        ),
        Family(
            "mla_module_prefill",
            "whole latent-attention block of one layer over new tokens, projections included",
            (*_MODULE, _NEW, _time(call)),
        ),
        Family(
            "mla_module_decode",
            "whole latent-attention block of one layer, one new token per sequence, projections included",
            (*_MODULE, _KV, _time(call)),
        ),
        Family(
            "mla_prefill",
            "latent-attention kernel alone over new tokens, no projections",
            (_ATTN_DTYPE, _KV_DTYPE, _HEADS, _BATCH, _NEW, _time(call)),
        ),
        Family(
            "mla_decode",
            "latent-attention kernel alone, one new token per sequence, no projections",
            (_ATTN_DTYPE, _KV_DTYPE, _HEADS, _BATCH, _KV, _time(call)),
        ),
        Family(
            "mla_bmm",
            "absorbed up-projection of latent attention: one small product per head",
            (
                Column("op", "name", "-", "before or after the attention kernel", choices=("pre", "post")),
                _dtype("dtype", "storage of the weights"),
                _HEADS,
                _count("tokens", "tokens", "rows of the activation"),
                _time("wall time of one call on one GPU"),
            ),
        ),
        Family(
            "dsa_module_prefill",
            "whole sparse latent-attention block of one layer, indexer and projections included, over new tokens",
            (*_MODULE, _CONTEXT, _count("new_tokens", "tokens", "new tokens of each sequence"), _time(call)),
        ),
        Family(
            "dsa_module_decode",
            "whole sparse latent-attention block of one layer, indexer and projections included, one new token each",
            (*_MODULE, _KV, _time(call)),
        ),
        Family(
            "gdn",
            "gated delta net of one layer without its projections, one kernel a row: a layer is conv + core",
            (
                _PHASE,
                _PART,
                _count("num_key_heads", "heads", "key heads on one GPU"),
                _count("num_value_heads", "heads", "value heads on one GPU"),
                _count("key_head_dim", "elements", "width of one key head"),
                _count("value_head_dim", "elements", "width of one value head"),
                _CONV,
                _BATCH,
                _STATE_NEW,
                _time(call),
            ),
        ),
        Family(
            "mamba2",
            "Mamba-2 mixer of one layer without its projections, one kernel a row: a layer is conv + core",
            (
                _PHASE,
                _PART,
                _count("num_heads", "heads", "heads on one GPU"),
                _count("head_dim", "elements", "width of one head"),
                _count("state_size", "elements", "state of one channel"),
                _count("n_groups", "groups", "groups of heads that share their B and C"),
                _CONV,
                _BATCH,
                _STATE_NEW,
                _time(call),
            ),
        ),
        Family(
            "act_scale",
            "what finding the scale of an activation at run time adds to an FP8 GEMM; part of the latencies of gemm",
            (
                _dtype("dtype", "format the activation is quantised to"),
                _count("k", "elements", "width of the activation"),
                _count("m", "tokens", "rows of the activation"),
                _time("dynamic less static quantisation, one call on one GPU"),
            ),
        ),
        Family(
            "comm",
            "one collective within a node",
            (
                Column(
                    "op",
                    "name",
                    "-",
                    "collective operation",
                    choices=("all_reduce", "all_gather", "reduce_scatter", "all_to_all"),
                ),
                Column("backend", "name", "-", "engine's own kernel or NCCL", choices=("custom", "nccl")),
                _dtype("dtype", "format of the elements"),
                _count("num_gpus", "ranks", "GPUs taking part"),
                _count("elements", "elements", "message: the whole vector (all_gather: the gathered one)"),
                _time("wall time of one call"),
            ),
        ),
    )
    return {record.name: record for record in records}


FAMILIES: Mapping[str, Family] = MappingProxyType(_families())
"""Every table family by name."""


def family(name: str) -> Family:
    """Return the family of that name; `UnknownNameError` names the nearest otherwise."""
    if name not in FAMILIES:
        raise UnknownNameError("table family", name, FAMILIES)
    return FAMILIES[name]


def arrow_schema(name: str) -> pa.Schema:
    """Return the Arrow schema of a family; unit and meaning travel in the metadata of each field.

    Raises
    ------
    UnknownNameError
        No family of that name.
    """
    spec = family(name)
    fields = [
        pa.field(c.name, c.arrow_type, nullable=False, metadata={"unit": c.unit, "meaning": c.meaning})
        for c in spec.columns
    ]
    return pa.schema(fields, metadata={"family": spec.name, "meaning": spec.meaning})


def validate(table: pa.Table, name: str, where: str) -> pa.Table:
    """Return ``table`` in the types of its family, or raise with everything that is wrong with it.

    Parameters
    ----------
    table
        Table whose columns are those of the family, in any order; integers of any width, strings plain or
        dictionary-encoded.
    name
        Family the table claims to be.
    where
        File or origin of the table, for the report.

    Returns
    -------
    pyarrow.Table
        The same rows under `arrow_schema`, columns in order, one chunk per column.

    Raises
    ------
    UnknownNameError
        No family of that name.
    TableFormatError
        Columns are missing, unknown or repeated; a value is null, of another type, out of range or no known name; rows
        are not in ascending order of the keys, or a key is repeated. Rows are counted from 0.
    """
    spec = family(name)
    problems = Problems()
    for column in spec.columns:
        found = table.column_names.count(column.name)
        if found != 1:
            problems.add(f"{where}, column {column.name}", "none" if not found else f"{found} of them", "one column")
    for extra in sorted(set(table.column_names) - set(spec.names)):
        problems.add(f"{where}, column {extra}", "an unknown column", f"only {', '.join(spec.names)}")
    problems.raise_if_any(TableFormatError)
    typed = [_typed(table.column(c.name), c, f"{where}, column {c.name}", problems) for c in spec.columns]
    problems.raise_if_any(TableFormatError)
    clean = pa.Table.from_arrays(typed, schema=arrow_schema(name))
    for column in spec.columns:
        _check_values(clean.column(column.name), column, f"{where}, column {column.name}", problems)
    problems.raise_if_any(TableFormatError)
    _check_order(clean, spec, where, problems)
    problems.raise_if_any(TableFormatError)
    return clean


def _typed(values: pa.ChunkedArray, column: Column, where: str, problems: Problems) -> pa.Array:
    expected = {"name": "strings", "count": "whole numbers below 2**31", "time": "floating point"}[column.kind]
    target = column.arrow_type
    stored = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    fits = {
        "name": pa.types.is_string(stored) or pa.types.is_large_string(stored),
        "count": pa.types.is_integer(stored),
        "time": pa.types.is_floating(stored),
    }[column.kind]
    if not fits:
        problems.add(where, f"type {values.type}", expected)
        return pa.nulls(len(values), target)
    try:
        if column.kind != "name":
            return pa.concat_arrays(values.cast(target).chunks or [pa.array([], target)])
    except pa.ArrowInvalid:
        problems.add(where, "a value too large", expected)
        return pa.nulls(len(values), target)
    if values.type != target:
        values = values.cast(stored).cast(pa.string()).dictionary_encode()
    return pa.concat_arrays(values.unify_dictionaries().chunks or [pa.array([], target)])


def _check_values(values: pa.ChunkedArray, column: Column, where: str, problems: Problems) -> None:
    if values.null_count:
        problems.add(f"{where}, row {pc.index(values.is_null(), True).as_py()}", "null", "a value")
        return
    if column.kind == "name":
        known = column.choices
        for name in sorted(pc.unique(values).to_pylist()) if known else ():
            if name not in known:
                row = values.to_pylist().index(name)
                problems.add(f"{where}, row {row}", name, f"one of {', '.join(known)}")
        return
    numbers = values.to_numpy()
    if column.kind == "time":
        bad, expected = ~(np.isfinite(numbers) & (numbers > 0)), "a finite positive number of seconds"
    else:
        bad, expected = numbers < column.minimum, f"at least {column.minimum}"
    if bad.any():
        row = int(np.argmax(bad))
        problems.add(f"{where}, row {row}", numbers[row].item(), expected)


def _check_order(table: pa.Table, spec: Family, where: str, problems: Problems) -> None:
    step = np.zeros(max(table.num_rows - 1, 0), dtype=np.int64)  # sign of row i + 1 against row i, keys in order
    for name in reversed(spec.keys):
        rise = np.sign(np.diff(key_codes(table, name)))
        step = np.where(rise != 0, rise, step)
    expected = f"strictly ascending ({', '.join(spec.keys)})"
    for bad, what in ((step < 0, "keys below those of the row before"), (step == 0, "the keys of the row before")):
        if bad.any():
            problems.add(f"{where}, row {int(np.argmax(bad)) + 1}", what, expected)


def key_codes(table: pa.Table, name: str) -> I64:
    """Return one key column as int64, shape (rows,); names become their rank in alphabetical order."""
    values = table.column(name)
    if not pa.types.is_dictionary(values.type):
        return np.asarray(values.to_numpy(), dtype=np.int64)
    chunks = values.unify_dictionaries().chunks
    if not chunks:
        return np.zeros(0, dtype=np.int64)
    names = np.asarray(chunks[0].dictionary.to_pylist(), dtype=np.str_)
    _, rank = np.unique(names, return_inverse=True)
    codes: I64 = np.concatenate([rank.astype(np.int64)[chunk.indices.to_numpy()] for chunk in chunks])
    return codes
