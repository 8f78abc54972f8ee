"""Columns of a sweep's result: names, types, units, meanings; and the pricing of a chunk into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._boundary import choice
from mfuroof.sweep import view_serving, view_step
from mfuroof.sweep.block import Block, Column
from mfuroof.sweep.cases import BoundCase, Plan
from mfuroof.sweep.definition import ROW
from mfuroof.sweep.grid import Chunk
from mfuroof.sweep.values import CASE_AXES, DEGREES

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DETAILS", "LABEL_MEANINGS", "Columns"]

DETAILS = ("times", "bound", "components")
"""What a sweep computes: times and throughput; also what binds and where it comes from; also every component."""

LABEL_MEANINGS: dict[str, tuple[str, str]] = {
    "model": ("-", "model"),
    "gpu": ("-", "GPU type"),
    "engine": ("-", "serving engine whose kernels are priced"),
    "tp_size": ("GPUs", "tensor-parallel ranks"),
    "pp_size": ("stages", "pipeline stages"),
    "ep_size": ("GPUs", "expert-parallel ranks"),
    "dp_size": ("ranks", "attention data-parallel ranks"),
    "weight_dtype": ("-", "format of quantisable weights; own: the checkpoint's"),
    "kv_dtype": ("-", "format of the KV cache; own: the checkpoint's"),
    "attention_dtype": ("-", "format of the attention arithmetic; own: the checkpoint's"),
    "moe_dtype": ("-", "format of the routed experts; own: the checkpoint's"),
    "runtime": ("-", "runtime precision the engine is told to use; own: none"),
    ROW: ("-", "row of the table of cases, from 0"),
}
"""Unit and meaning of each column that says what is priced."""


class Columns:
    """The schema of one sweep, and blocks of rows in it.

    Parameters
    ----------
    plan
        Cases, whose labels become dictionaries.
    detail
        One of `DETAILS`.

    Raises
    ------
    UnknownNameError
        No such detail.
    """

    def __init__(self, plan: Plan, detail: str) -> None:
        self.detail = choice("detail", detail, DETAILS)
        sweep = plan.sweep
        self._drop, self._serving = plan.infeasible == "drop", sweep.serving
        self._axes = (*((ROW,) if sweep.table is not None and sweep.table.counts else ()), *self.view.AXES)
        labels = [case.labels for case in plan.space.cases]
        names = {name: tuple(dict.fromkeys(row[name] for row in labels)) for name in CASE_AXES}
        codes = {name: {value: i for i, value in enumerate(values)} for name, values in names.items()}
        self._labels = [
            {
                name: Column(np.array([row[name]], np.int32))
                if name in DEGREES
                else Column(np.array([codes[name][row[name]]], np.int16), names[name])
                for name in CASE_AXES
            }
            for row in labels
        ]
        self.components: tuple[str, ...] = ()
        if detail == "components" and not sweep.serving:
            found: dict[str, None] = {}
            for number in range(len(plan)):
                bound = plan.bind(number)
                found |= dict.fromkeys(bound.evaluator.components if bound.evaluator is not None else ())
            self.components = tuple(found)

    @property
    def view(self) -> Any:
        """The module that knows the columns behind the axes."""
        return view_serving if self._serving else view_step

    def schema(self, metadata: dict[str, str] | None = None) -> pa.Schema:
        """Return the Arrow schema; every field carries its unit and meaning."""
        import pyarrow as pa

        types: dict[str, Any] = dict.fromkeys(CASE_AXES, pa.dictionary(pa.int16(), pa.string()))
        types |= dict.fromkeys(DEGREES, pa.int32()) | dict.fromkeys(self._axes, pa.int64())
        types |= self.view.types(self.detail, self.components)
        meanings = LABEL_MEANINGS | {f"{c}_s": ("s", f"time of {c.replace('_', ' ')}") for c in self.components}
        meanings |= self.view.MEANINGS
        fields = [
            pa.field(name, kind, metadata={"unit": meanings[name][0], "meaning": meanings[name][1]})
            for name, kind in types.items()
        ]
        return pa.schema(fields, metadata=metadata)

    def block(self, number: int, case: BoundCase, first: int, chunk: Chunk) -> Block:
        """Price a chunk.

        Parameters
        ----------
        number, case
            Number of the case, and the case.
        first
            Position in the sweep of the case's first row.
        chunk
            The rows.

        Returns
        -------
        Block
            Every column; where infeasible rows are dropped, those that fit.
        """
        columns = self._labels[number] | {name: Column(chunk.columns[name]) for name in self._axes}
        if case.evaluator is None:
            columns |= self._unpriced(case.reason)
        elif self._serving:
            columns |= view_serving.price(case.evaluator, case.cache_tokens, chunk, self.detail)
        else:
            assert case.memory is not None
            columns |= view_step.price(case.evaluator, case.memory, chunk, self.detail)
            for component in self.components:
                columns.setdefault(f"{component}_s", Column(np.full(1, np.nan), known=False))
        block = Block(number, first + chunk.start, chunk.rows, columns, chunk.kept)
        fits = columns["fits"]
        return block.select(block.values("fits")) if self._drop and fits.known else block

    def _unpriced(self, reason: str) -> dict[str, Column]:
        """Return the columns of a case without times: nulls, and the reason."""
        import pyarrow as pa

        columns = {}
        for name, kind in self.view.types(self.detail, self.components).items():
            if pa.types.is_dictionary(kind):
                columns[name] = Column(np.full(1, -1, np.int8), ("",), known=False)
            else:
                columns[name] = Column(np.full(1, np.nan), known=False)
        columns["fits"] = Column(np.zeros(1, np.bool_), known=self._serving)
        return columns | {"reason": Column(np.zeros(1, np.int16), (reason,))}
