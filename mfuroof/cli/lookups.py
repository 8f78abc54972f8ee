"""What ``mfuroof lookup`` reads: kernel tables by family and key columns, MFU files by their lookup methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._boundary import Problems, choice
from mfuroof.core.sources import Source
from mfuroof.errors import InputError, MissingTableError, Problem, UnknownNameError
from mfuroof.sweep.axes import axis_values
from mfuroof.units import US

if TYPE_CHECKING:
    from mfuroof.tables.store import KernelTables

__all__ = ["Answer", "bench_lookup", "kernel_lookup"]

AXES = {"gemm": ("m", "k", "n")}
"""Columns a lookup varies over, where they are not just the counts that end the key."""
COUNTS = ("batch_size", "new_tokens", "kv_len", "tokens", "elements")
BENCH_FAMILIES = ("gemm", "attn_prefill", "attn_decode", "mla_prefill", "mla_decode", "grouped_gemm")
"""Families of an MFU folder that have a lookup method."""
_SHOWN = 12


@dataclass(frozen=True, eq=False)
class Answer:
    """Values at a number of points.

    Attributes
    ----------
    title
        What was read.
    axes
        Coordinates by name, each (n,).
    name, values
        What was looked up, and its values (n,).
    source, distance_octaves
        Origin code and distance to data of each value (n,).
    """

    title: str
    axes: dict[str, Any]
    name: str
    values: Any
    source: Any
    distance_octaves: Any

    @property
    def head(self) -> list[str]:
        """Column titles of the table for people: latencies in microseconds."""
        return [*self.axes, "latency_us" if self.name == "latency_s" else self.name, "source", "octaves"]

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows of the table for people."""
        scale = US if self.name == "latency_s" else 1.0
        for i, value in enumerate(self.values):
            point = [str(axis[i]) for axis in self.axes.values()]
            found = "-" if np.isnan(value) else f"{value / scale:.4f}"
            far = "-" if np.isnan(self.distance_octaves[i]) else f"{self.distance_octaves[i]:.3f}"
            yield [*point, found, _source(self.source[i]), far]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types in base units."""
        points = []
        for i, value in enumerate(self.values):
            point: dict[str, Any] = {name: axis[i] for name, axis in self.axes.items()}
            point |= {self.name: float(value), "source": _source(self.source[i])}
            points.append(point | {"distance_octaves": float(self.distance_octaves[i])})
        return {"table": self.title, "points": points}


def _source(code: Any) -> str:
    return Source(int(code)).name.lower()


def kernel_lookup(family: str, given: dict[str, str], gpu: str, engine: str, rule: str, outside: str | None) -> Answer:
    """Read a kernel table at every combination of the given coordinates.

    Raises
    ------
    UnknownNameError
        No such GPU, engine, family, key column, rule or policy.
    InputError
        A coordinate is missing or is no number, or is outside where ``outside`` is ``"raise"``.
    MissingTableError
        The family was not measured there, or nothing of what the keys ask for.
    """
    from mfuroof import lookup as rules
    from mfuroof.hardware import get_hardware
    from mfuroof.tables.compile import compile_1d, compile_2d, compile_sites
    from mfuroof.tables.schema import family as family_of
    from mfuroof.tables.store import load_tables

    spec = family_of(family)
    device = get_hardware(gpu)
    tables = load_tables(device.tables or device.name, engine)
    axes = AXES.get(family) or tuple(k for k in spec.keys if k in COUNTS)
    for key in given:
        if key not in spec.keys:
            raise UnknownNameError(f"key column of {family}", key, spec.keys)
    problems = Problems()
    for axis in axes:
        if axis not in given:
            problems.add(axis, "nothing", "a value or a range", f"Add {axis}=...")
    problems.raise_if_any()
    fixed = {key: _key(spec.column(key).kind, key, value) for key, value in given.items() if key not in axes}
    rows, where = _matching(tables, family, fixed, [key for key in spec.keys if key not in axes])
    columns = [rows[axis] for axis in axes]
    if family == "gemm":
        table: Any = compile_sites(columns[0], columns[1], columns[2], rows["latency_s"])
    elif len(axes) == 1:
        table = compile_1d(axes[0], columns[0], rows["latency_s"])
    else:
        table = compile_2d((axes[0], axes[1]), columns[0], columns[1], rows["latency_s"])
    points = [g.ravel() for g in np.meshgrid(*(axis_values(a, given[a]) for a in axes), indexing="ij")]
    found = rules.read(table, *points, rule=rule, outside=outside, details=True)
    title = f"{family} of {tables.gpu} ({tables.engine}), {where}, {rule}"
    return Answer(title, dict(zip(axes, points, strict=True)), "latency_s", *found)


def _key(kind: str, key: str, text: str) -> Any:
    if kind == "name":
        return text
    if not text.isdigit():
        raise InputError(Problem(key, repr(text), "one whole number"))
    return int(text)


def _matching(tables: KernelTables, family: str, fixed: dict[str, Any], keys: list[str]) -> tuple[dict[str, Any], str]:
    """Return the rows that have the fixed keys; a key left out is filled in where only one value remains."""
    from mfuroof.ops.select import holdings

    rows = tables.family(family, **fixed)
    chosen = dict(fixed)
    for key in keys:
        there = rows.column(key).unique().to_pylist()
        if key not in fixed and len(there) > 1:
            options = ", ".join(map(str, sorted(there)))
            raise InputError(Problem(key, "nothing", f"one of {options}", f"Add {key}=..."))
        chosen[key] = there[0] if there else None
    where = ", ".join(f"{key}={value}" for key, value in chosen.items() if value is not None)
    if not rows.num_rows:
        sought = f"{family} of {tables.gpu} ({tables.engine}) with {', '.join(f'{k}={v}' for k, v in fixed.items())}"
        have = holdings(tables, family, *fixed)
        raise MissingTableError(sought, [*have[:_SHOWN], *(["..."] if len(have) > _SHOWN else [])])
    return {name: rows.column(name).to_numpy() for name in rows.column_names if name not in keys}, where


def bench_lookup(
    folder: str | Path, family: str, given: dict[str, str], gpu: str, rule: str | None, outside: str | None
) -> Answer:
    """Read the MFU of a folder in the InferSim / BLIS layout at every combination of the given arguments.

    Raises
    ------
    UnknownNameError
        No such family, argument, GPU, rule or policy.
    InputError
        An argument is missing or is no number.
    MissingTableError
        No file of that configuration.
    """
    import inspect

    from mfuroof.mfu_database import load_bench_data

    name = choice("bench family", family, BENCH_FAMILIES)
    method = getattr(load_bench_data(folder), f"{name}_mfu")
    known = {p.name: p for p in inspect.signature(method).parameters.values()}
    names = [key for key in known if key not in ("gpu", "rule", "options")]
    problems = Problems()
    for key in given:
        choice(f"argument of {family}", key, names)
    for key in names:
        if key not in given and known[key].default is inspect.Parameter.empty:
            problems.add(key, "nothing", "a value or a range", f"Add {key}=...")
    problems.raise_if_any()
    words = {key: value for key, value in given.items() if key in ("phase", "kv_dtype")}
    axes = {key: axis_values(key, value) for key, value in given.items() if key not in words}
    grids = np.meshgrid(*axes.values(), indexing="ij")
    points = {key: grid.ravel() for key, grid in zip(axes, grids, strict=True)}
    shape: dict[str, Any] = {key: points[key] if axes[key].size > 1 else int(axes[key][0]) for key in axes}
    options = {"rule": rule, "outside": outside}
    found = method(gpu, **words, **shape, details=True, **{k: v for k, v in options.items() if v is not None})
    size = next(iter(points.values())).size
    parts = [
        np.broadcast_to(np.asarray(part), (*np.shape(part)[:-1], size)).ravel() for part in map(np.atleast_1d, found)
    ]
    if parts[0].size == 2 * size:  # grouped GEMMs: the up projection, then the down projection
        points = {"projection": np.repeat(["up", "down"], size)} | {k: np.tile(p, 2) for k, p in points.items()}
    text = ", ".join(f"{k}={v}" for k, v in words.items())
    return Answer(f"{family} MFU of {gpu} in {folder}{', ' if text else ''}{text}", points, "mfu", *parts)
