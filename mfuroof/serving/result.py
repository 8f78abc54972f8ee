"""`ServingResult`: arrays for programs, a table for people."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._html import html_table
from mfuroof._types import F64, U8
from mfuroof.batch import StepBatch
from mfuroof.breakdown import StepResult
from mfuroof.costs.base import RESOURCES
from mfuroof.errors import UnknownNameError
from mfuroof.serving.interval import FIGURES, half_widths
from mfuroof.step import StepEvaluator
from mfuroof.units import MS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Limit", "ServingResult"]

_SHOWN = 20


class Limit(IntEnum):
    """What keeps throughput from being higher."""

    LOAD = 0
    """The load offered: no limit of the engine binds."""
    KV_CACHE = 1
    """Requests wait until the KV cache has room for them."""
    MAX_NUM_SEQS = 2
    """Requests wait for one of the places in the running batch."""
    TOKEN_BUDGET = 3
    """Prompts wait for room in the token budget of a step."""
    DOES_NOT_FIT = 4
    """The weights, or a single request, do not fit the memory: there is no estimate."""


@dataclass(frozen=True, repr=False, eq=False)
class ServingResult:
    """Estimates for each configuration; float64 and read-only, of the shape the arguments broadcast to.

    Where a configuration does not fit, times and rates are NaN. Where an arrival rate is more than can be served,
    TTFT and end-to-end latency are infinite and the rates are those that can be.

    Parameters
    ----------
    input_len, output_len
        Mean lengths. [tokens]
    concurrency
        Requests in the system: those the clients hold in a closed loop, rate x end-to-end latency in an open one.
        [requests]
    ttft_s
        Submission to first token, mean over all requests. [s]
    tpot_s
        (End - first token) / (output_len - 1), weighted by tokens. [s]
    itl_s
        Mean time between two outputs of a stream: the TPOT, times the tokens one decode step yields. [s]
    e2e_latency_s
        ``ttft_s + (output_len - 1) tpot_s``. [s]
    queue_s
        Part of the TTFT that is spent waiting for a place in the running batch. [s]
    requests_per_s
        Of the whole replica. [requests/s]
    output_tokens_per_s_per_gpu, tokens_per_s_per_gpu
        Generated tokens, and prompt and generated tokens together. [tokens/s]
    running_batch
        Requests admitted at a time, over all engines of the replica. [requests]
    max_running_batch
        Most of them that there can be: what `first_limit` allows. [requests]
    decode_batch
        Requests in a decode step of one engine. [requests]
    decode_context
        Mean tokens in the cache before a decode step. [tokens]
    decode_step_s, mixed_step_s
        A decode step, and a step with a prompt in it. [s]
    kv_tokens, kv_utilization
        Mean cache use of the replica, and its share of the capacity. [tokens, fraction]
    limit
        Position in `Limit` of what binds, uint8.
    first_limit
        Position in `Limit` of what will not let more requests in as the load grows: the KV cache or the places of the
        running batch; uint8.
    """

    evaluator: StepEvaluator
    input_len: F64
    output_len: F64
    concurrency: F64
    ttft_s: F64
    tpot_s: F64
    itl_s: F64
    e2e_latency_s: F64
    queue_s: F64
    requests_per_s: F64
    output_tokens_per_s_per_gpu: F64
    tokens_per_s_per_gpu: F64
    running_batch: F64
    max_running_batch: F64
    decode_batch: F64
    decode_context: F64
    decode_step_s: F64
    mixed_step_s: F64
    kv_tokens: F64
    kv_utilization: F64
    limit: U8
    first_limit: U8

    def __len__(self) -> int:
        return self.ttft_s.size

    @property
    def fits(self) -> np.ndarray:
        """Whether weights and a request fit the memory."""
        return self.limit != Limit.DOES_NOT_FIT

    @property
    def kv_limited(self) -> np.ndarray:
        """Whether the KV cache binds, or nothing fits it."""
        return (self.limit == Limit.KV_CACHE) | (self.limit == Limit.DOES_NOT_FIT)

    @property
    def limit_names(self) -> list[str]:
        """The binding limit of each configuration by name, flat."""
        return [Limit(int(i)).name.lower() for i in self.limit.ravel()]

    @property
    def first_limit_names(self) -> list[str]:
        """What will not let more requests in, by name, flat."""
        return [Limit(int(i)).name.lower() for i in self.first_limit.ravel()]

    @cached_property
    def decode_step(self) -> StepResult:
        """Breakdown of the decode step of each configuration (flat): components, bound, source."""
        batch = np.maximum(np.nan_to_num(self.decode_batch), 1.0).ravel()
        context = np.nan_to_num(self.decode_context).ravel()
        whole = (np.rint(x).astype(np.int64) for x in (batch, context))
        return self.evaluator.evaluate(StepBatch.uniform(*whole))

    @property
    def bound(self) -> U8:
        """Position in `RESOURCES` of what binds the decode step."""
        return self.decode_step.bound.reshape(self.limit.shape)

    @property
    def source(self) -> U8:
        """Worst `Source` code among the lookups of the decode step."""
        return self.decode_step.source.reshape(self.limit.shape)

    def interval(self, figure: str) -> tuple[F64, F64]:
        """Return between what a figure lies in four of five cases, under the kernels cost.

        Parameters
        ----------
        figure
            ``"ttft_s"``, ``"tpot_s"``, ``"itl_s"``, ``"e2e_latency_s"``, or one of the rates: ``"requests_per_s"``,
            ``"output_tokens_per_s_per_gpu"``, ``"tokens_per_s_per_gpu"``, which vary as the end-to-end latency does.

        Returns
        -------
        tuple of ndarray
            Lower and upper end, of the figure's shape: the figure over and times a factor.

        Raises
        ------
        UnknownNameError
            Another figure.

        Notes
        -----
        The factor is one plus a half-width: that of the decode step (`StepResult.relative_half_width`) for the TPOT,
        with `interval.TTFT_HALF_WIDTH` in quadrature for the TTFT, and their mean by time for the whole request. A rate
        that arrives and is served is known; the interval then says what the replica can do at that number in flight.
        """
        if figure not in FIGURES:
            raise UnknownNameError("figure", figure, FIGURES)
        ttft, tpot, whole = self._half_widths
        factor = 1.0 + {"ttft_s": ttft, "tpot_s": tpot, "itl_s": tpot}.get(figure, whole)
        value = getattr(self, figure)
        return value / factor, value * factor

    @cached_property
    def _half_widths(self) -> tuple[F64, F64, F64]:
        step = self.decode_step.relative_half_width.reshape(self.limit.shape)
        return half_widths(step, self.ttft_s, (self.output_len - 1.0) * self.tpot_s)

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table with one row a configuration; limits and ``bound`` by name."""
        import pyarrow as pa

        table = {name: pa.array(getattr(self, name).ravel()) for name in self._numbers()}
        names = [m.name.lower() for m in Limit]
        for name in ("limit", "first_limit"):
            codes = getattr(self, name).ravel().astype(np.int8)
            table[name] = pa.DictionaryArray.from_arrays(codes, names)
        table["bound"] = pa.DictionaryArray.from_arrays(self.bound.ravel().astype(np.int8), list(RESOURCES))
        return pa.table(table)

    @classmethod
    def _numbers(cls) -> list[str]:
        return [f.name for f in fields(cls) if f.name not in ("evaluator", "limit", "first_limit")]

    def _table(self) -> list[list[str]]:
        """Return the head and the first rows of the table for people."""
        columns = {
            "in": ("input_len", 1.0),
            "out": ("output_len", 1.0),
            "conc": ("concurrency", 1.0),
            "ttft_ms": ("ttft_s", MS),
            "tpot_ms": ("tpot_s", MS),
            "e2e_s": ("e2e_latency_s", 1.0),
            "out_tok/s/gpu": ("output_tokens_per_s_per_gpu", 1.0),
            "batch": ("running_batch", 1.0),
            "kv": ("kv_utilization", 1.0),
        }
        rows = [[*columns, "limit"]]
        for i, name in enumerate(self.limit_names[:_SHOWN]):
            rows.append([_cell(getattr(self, field).ravel()[i] / unit) for field, unit in columns.values()] + [name])
        return rows

    def _repr_html_(self) -> str:
        title = f"ServingResult: {len(self)} configurations of {self.evaluator!r}"
        head, *rows = self._table()
        more = [f"... {len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        return html_table(title, head, rows, words=(len(head) - 1,), notes=more)

    def __repr__(self) -> str:
        head = f"ServingResult({len(self)} configurations of {self.evaluator!r})"
        if not len(self):
            return head
        rows = self._table()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
        more = [f"... {len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        return "\n".join([head, *lines, *more])


def _cell(x: Any) -> str:
    return f"{x:.4g}" if abs(x) < 1e4 else f"{x:.0f}"
