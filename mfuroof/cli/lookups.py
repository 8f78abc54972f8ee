"""What ``mfuroof lookup`` reads: kernel tables by family and key columns, MFU files by their lookup methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mfuroof._boundary import Problems, choice
from mfuroof._types import F64
from mfuroof.core.sources import Source
from mfuroof.errors import InputError, MissingTableError, Problem, UnknownNameError
from mfuroof.sweep.axes import axis_values
from mfuroof.units import US

if TYPE_CHECKING:
    from mfuroof.lookup.run import Table

__all__ = ["Answer", "bench_lookup", "kernel_lookup", "key_value", "measured_gpu"]

BENCH_FAMILIES = ("gemm", "attn_prefill", "attn_decode", "mla_prefill", "mla_decode", "grouped_gemm")
"""Families of an MFU folder that have a lookup method."""
_SHOWN = 5
"""Points outside that are shown."""
_REMEDY = "--outside clamp reads the edge; another --rule may reach"


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
    beyond
        For points without a value that lie outside what was measured: which coordinates, and the measured range.
    """

    title: str
    axes: dict[str, Any]
    name: str
    values: Any
    source: Any
    distance_octaves: Any
    beyond: tuple[str, ...] = ()

    @property
    def answered(self) -> bool:
        """Whether any point has a value."""
        return bool((~np.isnan(self.values)).any())

    def notes(self) -> list[str]:
        """Return lines about the points without a value; none where all have one."""
        missing = int(np.isnan(self.values).sum())
        if not missing:
            return []
        lines = [f"outside what was measured: {text}" for text in self.beyond[:_SHOWN]]
        if len(self.beyond) > _SHOWN:
            lines.append(f"and {len(self.beyond) - _SHOWN} other points outside")
        if not lines:
            lines = [f"{missing} of {len(self.values)} points lie where the rule finds nothing measured"]
        return [*lines, _REMEDY]

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
        outside = {"outside": list(self.beyond)} if self.beyond else {}
        return {"table": self.title, "points": points, **outside}


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
    tables = load_tables(measured_gpu(device.name), engine)
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
    beyond = _beyond(found.table, rule, [p.astype(np.float64) for p in points], np.isnan(answer.values))
    named = dict(zip(axes, points, strict=True))
    return Answer(title, named, "latency_s", answer.values, answer.source, answer.distance, beyond)


def measured_gpu(gpu: str) -> str:
    """Return the name that the embedded tables have for a GPU; a name that no catalogue knows as it is.

    Raises
    ------
    MissingTableError
        The GPU is known, but none of its kernels was measured.
    """
    from mfuroof.hardware import get_hardware
    from mfuroof.tables.store import available

    try:
        device = get_hardware(gpu)
    except UnknownNameError:
        return gpu
    name = device.tables or device.name
    if name not in available():
        known = f"{device.name} is a known GPU without embedded tables"
        remedy = f"{known}: give a folder of tables, or measure some with mfuroof collect"
        raise MissingTableError(f"the kernels of {device.name}", tuple(available()), remedy)
    return name


def _beyond(table: Table, rule: str, points: list[F64], missing: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return, for points without a value, the coordinates that lie outside what was measured, and its range."""
    from mfuroof.lookup import RULES
    from mfuroof.lookup.outside import edges
    from mfuroof.lookup.run import axes_of as names_of
    from mfuroof.tables.compiled import Table1D, Table2D

    rows = np.flatnonzero(missing)
    if not rows.size:
        return ()
    names = names_of(table)
    asked = [np.ascontiguousarray(p[rows]) for p in points]
    nearest = edges(table, RULES[rule], asked)
    if isinstance(table, Table1D):
        measured = [table.grid]
    elif isinstance(table, Table2D):
        measured = [table.rows, table.cols]
    else:
        measured = [table.m, table.k, table.n]
    texts = []
    for i in range(rows.size):
        never, not_there = [], []
        for name, ask, near, column in zip(names, asked, nearest, measured, strict=True):
            low, high = column.min(), column.max()
            if not low <= ask[i] <= high:
                never.append(f"{name} {ask[i]:.0f}, measured {low:.0f}..{high:.0f}")
            elif ask[i] != near[i]:  # inside the range of others, not beside the coordinates asked for with it
                end = "up to" if ask[i] > near[i] else "from"
                not_there.append(f"{name} {ask[i]:.0f}, measured there {end} {near[i]:.0f}")
        if never or not_there:
            texts.append("; ".join(never or not_there))
    return tuple(dict.fromkeys(texts))


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
    title = f"{family} MFU of {gpu} in {folder}{', ' if text else ''}{text}"
    values, source, distance = parts
    return Answer(title, points, "mfu", values, source, distance)
