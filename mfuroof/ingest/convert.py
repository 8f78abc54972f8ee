"""From one AIConfigurator table to one of ours: choice of rows, names, units, constants and repeated keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfuroof._boundary import Problems
from mfuroof.errors import Problem, TableFormatError
from mfuroof.ingest.mapping import ABSENT, CONTEXTS, DTYPE_MAP, IGNORED, LABELS, OP_MAP, PHASE_MAP, VARIABLE_MAP
from mfuroof.ingest.merge import merge_repeated
from mfuroof.tables.schema import family
from mfuroof.units import MS

__all__ = ["Converted", "convert"]


@dataclass(frozen=True)
class Converted:
    """One source table in our columns, keys sorted and unique, with what was done to it.

    Attributes
    ----------
    table
        Rows under the schema of the family.
    rows_in, rows_used
        Rows of the source file, and those left after choosing dtypes, graph rows and cached lengths.
    choice
        What the chosen rows are, for the record; empty where all of them were taken.
    labels
        Framework, version and device the rows name, and their kernel sources with row counts.
    constants
        Source columns dropped because they hold one value, and that value; columns filled in are marked.
    repeated
        Keys measured more than once: how many, the rows beyond the first, and the largest ratio of two latencies.
    """

    table: pa.Table
    rows_in: int
    rows_used: int
    choice: str
    labels: Mapping[str, Any]
    constants: Mapping[str, Any]
    repeated: Mapping[str, Any] = field(default_factory=dict)


def convert(
    source: pa.Table, name: str, where: str, *, only: Mapping[str, str] | None = None, nccl: bool = False
) -> Converted:
    """Map one source table onto a family.

    Parameters
    ----------
    source
        Table as shipped; latency in milliseconds.
    name
        Our family.
    where
        Path of the source file, for reports.
    only
        Keep rows whose (our) column has this value; None keeps all.
    nccl
        The file holds NCCL collectives, not the engine's own all-reduce.

    Raises
    ------
    TableFormatError
        A column is missing, holds nulls, an unknown name, or varies without a place in our schema.
    """
    mapping = VARIABLE_MAP["nccl" if nccl else name]
    used, choice = _select(source, name)
    constants: dict[str, Any] = {}
    columns = _key_columns(used, name, mapping, where, constants, backend="nccl" if nccl else "custom")
    _check_rest(used, name, mapping, where, constants)
    keep = np.ones(used.num_rows, dtype=bool)
    for column, value in (only or {}).items():
        keep &= np.asarray(columns[column]) == value
    used = used.filter(pa.array(keep))
    columns = {key: np.asarray(values)[keep] for key, values in columns.items()}
    latency_ms = used.column("latency").to_numpy().astype(np.float64)
    kernels = np.asarray(used.column("kernel_source").to_pylist(), dtype=np.str_)
    table, repeated = merge_repeated(name, columns, latency_ms * MS, kernels)
    return Converted(table, source.num_rows, used.num_rows, choice, _labels(used), constants, repeated)


def _select(source: pa.Table, name: str) -> tuple[pa.Table, str]:
    """Return the rows a family takes from its source table, and what they are where not all of them are taken."""
    if name == "comm" and "kernel_source" in source.column_names:
        graph = pc.ends_with(source.column("kernel_source").cast(pa.string()), "_graph")
        if pc.any(graph).as_py() and not pc.all(graph).as_py():
            return source.filter(graph), "timed inside a CUDA graph"
    if name.startswith("dsa_module") and {"op_name", "step"} <= set(source.column_names):
        keep = pc.invert(pc.ends_with(source.column("op_name").cast(pa.string()), "_skip_indexer"))
        choices = [] if pc.all(keep).as_py() else ["layers with an indexer of their own"]
        if name == "dsa_module_prefill":
            kept = pc.is_in(source.column("step"), pa.array(CONTEXTS, source.column("step").type))
            if not pc.all(kept).as_py():
                choices.append(f"cached lengths {', '.join(map(str, CONTEXTS))}")
            keep = pc.and_(keep, kept)
        if choices:
            return source.filter(keep), "; ".join(choices)
    return source, ""


def _key_columns(
    source: pa.Table, name: str, mapping: Mapping[str, str], where: str, constants: dict[str, Any], backend: str
) -> dict[str, Any]:
    spec = family(name)
    problems = Problems()
    columns: dict[str, Any] = {}
    derived_from = ("isl", "step") if "kv_len" in spec.keys else ()
    for theirs in dict.fromkeys(("latency", "kernel_source", *mapping, *derived_from)):
        ours = mapping.get(theirs, "")
        if theirs in source.column_names:
            if source.column(theirs).null_count:
                problems.add(f"{where}, column {theirs}", "null", "a value in every row")
        elif ours in ABSENT:
            columns[ours] = np.full(source.num_rows, ABSENT[ours], dtype=np.int64)
            constants[f"{theirs} (absent)"] = ABSENT[ours]
        else:
            problems.add(f"{where}, column {theirs}", "none", "the column")
    problems.raise_if_any(TableFormatError)
    for theirs, ours in mapping.items():
        if ours in columns:
            continue
        values = source.column(theirs)
        if spec.column(ours).kind == "name":
            columns[ours] = _translate(values.to_pylist(), _names_of(ours), f"{where}, column {theirs}")
        else:
            columns[ours] = values.to_numpy().astype(np.int64)
    if "kv_len" in spec.keys:
        columns["kv_len"] = source.column("isl").to_numpy() + source.column("step").to_numpy()
    if name == "comm":
        columns["backend"] = np.full(source.num_rows, backend, dtype="U8")
    if name in ("gdn", "mamba2"):
        conv = pc.starts_with(source.column("kernel_source").cast(pa.string()), "causal_conv1d")
        columns["op"] = np.where(conv.to_numpy(), "conv", "core")
    return columns


def _names_of(column: str) -> Mapping[str, str] | None:
    """Return how the names of a column translate; None where they are kept."""
    return DTYPE_MAP if column.endswith("dtype") else {"op": OP_MAP, "phase": PHASE_MAP}.get(column)


def _translate(values: list[str], table: Mapping[str, str] | None, where: str) -> Any:
    if table is None:
        return np.asarray(values, dtype=np.str_)
    unknown = sorted(set(values) - set(table))
    if unknown:
        raise TableFormatError(Problem(where, unknown[0], f"one of {', '.join(table)}"))
    return np.asarray([table[v] for v in values], dtype=np.str_)


def _check_rest(source: pa.Table, name: str, mapping: Mapping[str, str], where: str, constants: dict[str, Any]) -> None:
    """Drop what is constant; refuse a column that varies and that the schema has no place for."""
    known = {"latency", *mapping} | LABELS | IGNORED.get(name, frozenset())
    if "kv_len" in family(name).keys:
        known |= {"step"}
    for extra in sorted(set(source.column_names) - known):
        values = pc.unique(source.column(extra)).to_pylist()
        if len(values) > 1:
            raise TableFormatError(
                Problem(f"{where}, column {extra}", f"{len(values)} different values", "a constant or a known column")
            )
        constants[extra] = values[0] if values else None


def _labels(source: pa.Table) -> dict[str, Any]:
    labels: dict[str, Any] = {}
    for column in ("framework", "version", "device", "model", "model_name"):
        if column in source.column_names:
            values = sorted(map(str, pc.unique(source.column(column)).to_pylist()))
            labels[column] = values[0] if len(values) == 1 else values
    counts = pc.value_counts(source.column("kernel_source").cast(pa.string())).to_pylist()
    labels["kernel_sources"] = {c["values"]: c["counts"] for c in sorted(counts, key=lambda c: str(c["values"]))}
    return labels
