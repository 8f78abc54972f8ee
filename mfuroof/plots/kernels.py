"""Heat maps straight from the database of measured kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._types import F64
from mfuroof.errors import InputError, Problem
from mfuroof.hardware import Hardware
from mfuroof.ops.slices import Slice, slice_of
from mfuroof.plots.heatmap import Flops, table_heatmap
from mfuroof.tables.compiled import Table2D
from mfuroof.tables.store import KernelTables
from mfuroof.tables.work import key_flops

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["kernel_heatmap"]

AXES = {"gemm": ("n", "m")}
"""Rows and columns of a family whose lookups have three axes."""


def kernel_heatmap(
    tables: KernelTables,
    family: str,
    *,
    mfu_of: Hardware | None = None,
    axes: Sequence[str] | None = None,
    rule: str = "linear",
    unit: str = "us",
    ax: Axes | None = None,
    title: str = "",
    **where: str | int,
) -> Axes:
    """Draw a measured family over its two axes: batch and length of attention, n and m of GEMMs at one k.

    Parameters
    ----------
    tables
        Of one GPU and engine (`mfuroof.load_tables`).
    family
        One of its families.
    mfu_of
        A device whose peak rate turns latencies into MFU; for ``gemm``, ``attn_decode`` and ``attn_prefill``.
    axes
        Two key columns, rows first; when left out, those that lookups vary over.
    rule
        One of `mfuroof.lookup.RULES`.
    unit
        Of latencies: ``"s"``, ``"ms"`` or ``"us"``.
    ax
        Where to draw; a new figure when left out.
    title
        What stands above; the configuration when left out.
    **where
        Key column = value; one may be left out where only one value remains.

    Returns
    -------
    Axes
        As `table_heatmap`.

    Raises
    ------
    InputError
        A key is missing, what remains is no grid, or MFU was asked for where FLOPs are not known.
    UnknownNameError, MissingTableError
        As `mfuroof.ops.slices.slice_of`.
    MfuroofError
        matplotlib is not installed.
    """
    found = slice_of(tables, family, AXES.get(family) if axes is None else axes, **where)
    if not isinstance(found.table, Table2D):
        raise InputError(Problem(f"axes of {family}", "one column", "two; give fewer keys", "A curve is no heat map."))
    flops, peak = (None, None) if mfu_of is None else _work(family, found, mfu_of)
    slice_ = ", ".join(f"{key}={value}" for key, value in found.where.items())
    text = title or f"{family}, {tables.gpu} ({tables.engine}): {slice_}"
    return table_heatmap(found.table, rule=rule, flops=flops, peak_flops_per_s=peak, unit=unit, ax=ax, title=text)


def _work(family: str, found: Slice, hardware: Hardware) -> tuple[Flops, float]:
    """Return FLOPs over (row, column) and the peak of the format they are computed in."""
    where, (row, col) = found.where, found.table.axes  # type: ignore[union-attr]
    if family == "gemm":
        fixed: dict[str, Any] = {name: float(where[name]) for name in ("m", "k", "n") if name in where}

        def gemm(r: F64, c: F64) -> F64:
            return key_flops("gemm", "", (), {**fixed, row: r, col: c})

        return gemm, hardware.peak(str(where["dtype"]))
    if family not in ("attn_decode", "attn_prefill") or where.get("sliding_window"):
        expected = "gemm, attn_decode or attn_prefill without a sliding window"
        raise InputError(Problem("MFU", f"{family}, whose FLOPs are not known from its keys", expected))
    sizes: dict[str, Any] = {name: int(where.get(name, 0)) for name in ("num_attention_heads", "head_dim")}
    key = (sizes["num_attention_heads"], 0, sizes["head_dim"])

    def attention(r: F64, c: F64) -> F64:
        shape = {row: r, col: c}
        if family == "attn_decode":
            return key_flops("mha", "decode", key, shape)
        return np.asarray(shape["batch_size"] * key_flops("mha", "prefill", key, {"seq_len": shape["new_tokens"]}))

    return attention, hardware.peak(str(where["attn_dtype"]))
