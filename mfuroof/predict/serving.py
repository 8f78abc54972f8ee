"""TTFT, TPOT and throughput under load for tables of configurations."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa

from mfuroof._types import I64
from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES
from mfuroof.errors import MfuroofError, MfuroofWarning
from mfuroof.params import CostParams
from mfuroof.predict.rows import Rows, scatter
from mfuroof.predict.steps import PRECISION, bind, keys
from mfuroof.serving import ServingResult, estimate

__all__ = ["SERVING_COLUMNS", "predict_serving"]

SERVING_COLUMNS = (
    "model", "gpu", "engine", "tp", "pp", "ep", "attention_dp", "weight_dtype", "kv_dtype", *PRECISION,
    "input_len", "output_len", "concurrency", "max_batch_tokens", "cached_prefix_len",
)  # fmt: skip
"""Columns that are read; only model, gpu, input_len, output_len and concurrency are required."""


def predict_serving(table: pa.Table, *, cost: str = "kernels", params: CostParams | None = None) -> pa.Table:
    """Add serving figures to a table of configurations in a closed loop.

    Parameters
    ----------
    table
        Columns ``model, gpu, input_len, output_len, concurrency``. Optional: ``engine`` (vllm), ``tp, pp, ep,
        attention_dp`` (1), ``weight_dtype, kv_dtype`` (blank: the checkpoint's own), ``runtime, gemm_dtype,
        kvcache_dtype, attention_dtype, moe_dtype`` (as in `predict_steps`), ``max_batch_tokens`` (blank: the
        engine's default), ``cached_prefix_len`` (0). Concurrency is that of the whole deployment. [tokens, requests]
    cost, params
        Cost family and conventions, for every row.

    Returns
    -------
    pyarrow.Table
        The input and ``ttft_s, tpot_s, output_tokens_per_s_per_gpu, kv_limited, bound, source``, the ends of 80 %
        intervals ``ttft_low_s, ttft_high_s, tpot_low_s, tpot_high_s`` (`ServingResult.interval`), ``note`` (what was
        assumed, and what of the precision does not apply), and ``error``: a row that cannot be answered has nulls and
        a text there. [s]

    Raises
    ------
    InputError
        A required column is missing.
    """
    rows = Rows(table)
    rows.require("model", "gpu", "input_len", "output_len", "concurrency")
    lengths = {name: rows.counts(name, minimum=1, default=0) for name in ("input_len", "output_len", "concurrency")}
    for name in lengths:
        for i in np.flatnonzero(rows.blanks(name)):
            rows.fail(int(i), f"{name}: found a blank, expected a whole number of at least 1")
    budget = rows.counts("max_batch_tokens", minimum=0)
    prefix = rows.counts("cached_prefix_len")
    results: list[tuple[I64, ServingResult]] = []
    degree = "attention_dp" if rows.has("attention_dp") else "dp"
    for key, members in rows.groups({**keys(rows, degree), "max_batch_tokens": budget}):
        try:
            evaluator, note = bind(key[:-1], cost, params)
            for i in members:
                rows.note(int(i), note)
            with warnings.catch_warnings():  # what does not fit is said in its row
                warnings.simplefilter("ignore", MfuroofWarning)
                found = estimate(
                    evaluator,
                    lengths["input_len"][members],
                    lengths["output_len"][members],
                    lengths["concurrency"][members],
                    cached_prefix_len=prefix[members],
                    max_batch_tokens=budget[members[0]] or None,
                )
            results.append((members, found))
            for i in members[~found.fits]:
                rows.fail(int(i), "the model and one such request do not fit into the memory of these GPUs")
        except MfuroofError as error:
            for i in members:
                rows.fail(int(i), str(error).replace("\n", "; "))
    return rows.answered(_columns(len(rows), results))


def _columns(n: int, results: list[tuple[I64, ServingResult]]) -> dict[str, pa.Array]:
    def column(name: str, kind: pa.DataType) -> pa.Array:
        parts = [(rows[r.fits], np.asarray(getattr(r, name))[r.fits]) for rows, r in results]
        return scatter(n, parts, lambda values, mask: pa.array(values, kind, mask=mask))

    names = {int(s): s.name.lower() for s in Source}
    answered = [(rows[r.fits], r) for rows, r in results]
    bound = [(rows, np.asarray(r.bound)[r.fits]) for rows, r in answered]
    source = [(rows, np.asarray(r.source)[r.fits]) for rows, r in answered]
    texts: dict[str, Any] = {
        "bound": scatter(n, bound, lambda v, mask: pa.array(np.array(RESOURCES)[v.astype(int)], mask=mask)),
        "source": scatter(
            n, source, lambda v, mask: pa.array([names[int(c)] for c in v], pa.string(), mask=mask)
        ),
    }
    floats = {name: column(name, pa.float64()) for name in ("ttft_s", "tpot_s", "output_tokens_per_s_per_gpu")}
    ends = {}
    for name in ("ttft", "tpot"):
        pairs = [(rows, [np.asarray(end)[r.fits] for end in r.interval(f"{name}_s")]) for rows, r in answered]
        for i, end in enumerate(("low", "high")):
            parts = [(rows, values[i]) for rows, values in pairs]
            ends[f"{name}_{end}_s"] = scatter(n, parts, lambda v, mask: pa.array(v, pa.float64(), mask=mask))
    return {**floats, "kv_limited": column("kv_limited", pa.bool_()), **texts, **ends}
