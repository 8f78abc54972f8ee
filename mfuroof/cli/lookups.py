"""What ``mfuroof lookup`` reads: kernel tables by family and key columns, MFU files by their lookup methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._boundary import Problems, choice
from mfuroof.core.sources import Source
from mfuroof.errors import InputError, Problem, UnknownNameError
from mfuroof.sweep.axes import axis_values
from mfuroof.units import US

__all__ = ["Answer", "bench_lookup", "kernel_lookup", "key_value"]

BENCH_FAMILIES = ("gemm", "attn_prefill", "attn_decode", "mla_prefill", "mla_decode", "grouped_gemm")
"""Families of an MFU folder that have a lookup method."""


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
    from mfuroof.ops.slices import axes_of, slice_of
    from mfuroof.tables.schema import family as family_of
    from mfuroof.tables.store import load_tables

    spec = family_of(family)
    device = get_hardware(gpu)
    tables = load_tables(device.tables or device.name, engine)
    axes = axes_of(family)
    for key in given:
        if key not in spec.keys:
            raise UnknownNameError(f"key column of {family}", key, spec.keys)
    problems = Problems()
    for axis in axes:
        if axis not in given:
            problems.add(axis, "nothing", "a value or a range", f"Add {axis}=...")
    problems.raise_if_any()
    fixed = {key: key_value(spec.column(key).kind, key, value) for key, value in given.items() if key not in axes}
    found = slice_of(tables, family, axes, **fixed)
    points = [g.ravel() for g in np.meshgrid(*(axis_values(a, given[a]) for a in axes), indexing="ij")]
    answer = rules.read(found.table, *points, rule=rule, outside=outside, details=True)
    where = ", ".join(f"{key}={value}" for key, value in found.where.items())
    title = f"{family} of {tables.gpu} ({tables.engine}), {where}, {rule}"
    return Answer(title, dict(zip(axes, points, strict=True)), "latency_s", *answer)


def key_value(kind: str, key: str, text: str) -> Any:
    """Return the value of a key column from its text.

    Raises
    ------
    InputError
        The column holds numbers and this is none.
    """
    if kind == "name":
        return text
    if not text.isdigit():
        raise InputError(Problem(key, repr(text), "one whole number"))
    return int(text)


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
