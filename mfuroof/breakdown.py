"""`StepResult`: step times with their parts, as arrays for programs and as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._html import Share, html_table
from mfuroof._pandas import data_frame
from mfuroof._types import F64, U8
from mfuroof.batch import StepBatch
from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES, BoundCost
from mfuroof.costs.uncertainty import relative_half_width
from mfuroof.units import GB, MS, TERA

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["StepResult"]


class StepResult:
    """Times of n steps and what they are made of.

    Attributes
    ----------
    step_time_s
        Time of each step (n,). [s]
    op_time_s
        Time of each component, a read-only mapping from its name to (n,). [s]
    bound
        Position in `RESOURCES` of the resource with the largest share of each step (n,), uint8.
    source
        Worst `Source` code among the lookups of each step (n,), uint8.
    distance_octaves
        Largest distance to data among the lookups of each step (n,). [octaves]
    """

    def __init__(
        self, step_time_s: F64, components: tuple[str, ...], parts: F64, batch: StepBatch, bound: BoundCost
    ) -> None:
        for array in (step_time_s, parts):
            array.flags.writeable = False
        self.step_time_s = step_time_s
        self.components = components
        self.batch = batch
        self.op_time_s: Mapping[str, F64] = MappingProxyType(dict(zip(components, parts, strict=True)))
        self._bound = bound

    def __reduce__(self) -> tuple[Any, ...]:
        parts = np.stack([self.op_time_s[name] for name in self.components]) if self.components else np.empty((0, 0))
        return StepResult, (self.step_time_s.copy(), self.components, parts, self.batch, self._bound)

    def __len__(self) -> int:
        return self.step_time_s.size

    def __getattr__(self, name: str) -> F64:
        """Give each component as ``<component>_s``, and ``compute_s`` and ``memory_s`` where the cost has them."""
        if name.startswith("_") or not name.endswith("_s"):
            raise AttributeError(name)
        parts = self.__dict__.get("op_time_s", {})
        if name[:-2] in parts:
            return parts[name[:-2]]
        if name[:-2] in RESOURCES and "op_time_s" in self.__dict__:
            return self.resource_time_s[name[:-2]]
        raise AttributeError(f"no component {name[:-2]!r}; there are {', '.join(parts)}")

    @cached_property
    def resource_time_s(self) -> Mapping[str, F64]:
        """Time by resource (compute, memory, comm, overhead), each (n,). [s]"""
        rows = np.empty((len(RESOURCES), len(self)))
        self._bound.resource_times(self.batch, rows)
        rows.flags.writeable = False
        return MappingProxyType(dict(zip(RESOURCES, rows, strict=True)))

    @cached_property
    def bound(self) -> U8:
        """Position in `RESOURCES` of the largest resource share (n,)."""
        return np.argmax(np.stack(list(self.resource_time_s.values())), axis=0).astype(np.uint8)

    @property
    def bound_names(self) -> list[str]:
        """The binding resource of each step by name."""
        return [RESOURCES[i] for i in self.bound]

    @cached_property
    def _lookups(self) -> tuple[U8, F64]:
        source, distance = np.empty(len(self), np.uint8), np.empty(len(self))
        self._bound.sources(self.batch, source, distance)
        return source, distance

    @property
    def source(self) -> U8:
        """Worst `Source` code among the lookups of each step (n,)."""
        return self._lookups[0]

    @property
    def distance_octaves(self) -> F64:
        """Largest distance to data among the lookups of each step (n,). [octaves]"""
        return self._lookups[1]

    @cached_property
    def relative_half_width(self) -> F64:
        """Half-width of an 80 % interval around each step time of the kernels cost, relative to it (n,). [fraction]"""
        return relative_half_width(self.source, self.distance_octaves)

    @cached_property
    def op_flops(self) -> Mapping[str, F64]:
        """Work of one GPU by component, each (n,). [FLOP]"""
        return MappingProxyType(dict(self._bound.flops(self.batch)))

    @cached_property
    def op_bytes(self) -> Mapping[str, F64]:
        """HBM traffic of one GPU by component, each (n,). [bytes]"""
        return MappingProxyType(dict(self._bound.bytes_moved(self.batch)))

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table: ``step_time_s``, ``<component>_s``, ``bound`` and ``source`` by name."""
        import pyarrow as pa

        columns: dict[str, Any] = {"step_time_s": pa.array(self.step_time_s)}
        columns |= {f"{name}_s": pa.array(time) for name, time in self.op_time_s.items()}
        columns["bound"] = pa.DictionaryArray.from_arrays(self.bound.astype(np.int8), list(RESOURCES))
        names = [s.name.lower() for s in Source]
        codes = np.array([int(s) for s in Source])
        columns["source"] = pa.DictionaryArray.from_arrays(np.searchsorted(codes, self.source).astype(np.int8), names)
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """Return `to_arrow` as a pandas DataFrame.

        Raises
        ------
        MfuroofError
            pandas is not installed.
        """
        return data_frame(self.to_arrow())

    def _repr_html_(self) -> str:
        n = len(self)
        if n == 0:
            return html_table("StepResult of 0 steps", (), ())
        total = float(self.step_time_s[0])
        rows = [
            [name, f"{time[0] / MS:.4f}", Share(time[0] / total if total > 0 else 0.0), *self._work(name)]
            for name, time in self.op_time_s.items()
        ]
        rows.append(["step", f"{total / MS:.4f}", "", "", ""])
        t = self.step_time_s
        many = f" of {n:,} steps, {t.min() / MS:.4g} to {t.max() / MS:.4g} ms; step 0"
        title = f"StepResult{many if n > 1 else ''}"
        source = Source(int(self.source[0])).name.lower()
        note = f"bound: {self.bound_names[0]}, source: {source}, {self.distance_octaves[0]:.2f} octaves from data"
        return html_table(title, ("component", "time [ms]", "share", "TFLOP/GPU", "GB/GPU"), rows, notes=[note])

    def _work(self, name: str) -> tuple[str, str]:
        """Return FLOPs and bytes of a component of the first step, scaled; dashes where the cost does not tell."""
        flops, moved = self.op_flops.get(name), self.op_bytes.get(name)
        return (
            "-" if flops is None else f"{flops[0] / TERA:,.3f}",
            "-" if moved is None else f"{moved[0] / GB:,.3f}",
        )

    def __repr__(self) -> str:
        n = len(self)
        if n == 0:
            return "StepResult(0 steps)"
        if n == 1:
            return self._table(0)
        t = self.step_time_s
        head = f"StepResult({n} steps, {t.min() / MS:.4g} to {t.max() / MS:.4g} ms); step 0:"
        return f"{head}\n{self._table(0)}"

    def _table(self, i: int) -> str:
        total = self.step_time_s[i]
        rows = [(name, time[i]) for name, time in self.op_time_s.items()]
        width = max(len(name) for name, _ in rows)
        lines = [f"{'component':<{width}}  {'time_ms':>10}  share"]
        for name, time in rows:
            share = time / total if total > 0 else 0.0
            lines.append(f"{name:<{width}}  {time / MS:>10.4f}  {share:>5.1%}")
        source = Source(int(self.source[i])).name.lower()
        lines.append(f"{'step':<{width}}  {total / MS:>10.4f}  bound: {RESOURCES[self.bound[i]]}, source: {source}")
        return "\n".join(lines)
