"""Pack curves and grids into the flat arrays that the step kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, I16, freeze
from mfuroof.core.step import LAYOUT, StepTables
from mfuroof.ops.curves import MAX_TOKENS

__all__ = ["Lanes", "PrefillPart", "pack"]


@dataclass(frozen=True, eq=False)
class Lanes:
    """Curves over one count axis on common knots: values (lanes, knots) [s] and slopes beyond (lanes,) [s]."""

    knots: F64
    values_s: F64
    beyond_s: F64


@dataclass(frozen=True, eq=False)
class PrefillPart:
    """Prefill attention of all layers with one window: the lattice times of the whole stack, and its constants.

    Attributes
    ----------
    launch_s, time_s
        Launch part (rows,) and whole time (rows, columns) at batch 2^i and length 2^j. [s]
    window
        Tokens a query can see; infinite without a window. [tokens]
    kv_read_s, query_s
        Time to read the cache of one token, and to read the query and write the output of a new one: together never
        faster than memory; 0 switches the floor off. [s]
    """

    launch_s: F64
    time_s: F64
    window: float
    kv_read_s: float
    query_s: float


def pack(
    tokens: Lanes, sequences: Lanes, decode_s: F64, prefill: Sequence[PrefillPart], *, blend: str, spread: bool
) -> StepTables:
    """Return the tables of one set of lanes; ``decode_s`` is the decode lattice of the whole stack. [s]"""
    rows, columns = decode_s.shape
    prefill_rows, prefill_columns = prefill[0].time_s.shape
    scaled = 1.0 if blend == "sqrt" else 0.0  # the square-root form has no launch part of its own
    parts = {
        "tokens": _line_cells(tokens),
        "sequences": _line_cells(sequences),
        "decode": _decode_cells(decode_s),
        "prefill": np.concatenate([_prefill_cells(part, blend) for part in prefill]),
        "prefill_constants": np.array([[p.window, p.kv_read_s, p.query_s, scaled] for p in prefill]).ravel(),
    }
    offsets = dict(zip(parts, np.cumsum([0, *(p.size for p in parts.values())]), strict=False))
    layout = {
        **{name: int(at) for name, at in offsets.items()},
        "token_lanes": tokens.values_s.shape[0],
        "sequence_lanes": sequences.values_s.shape[0],
        "decode_rows": rows,  # row 0 is zero, the last knot row only ends the last cell
        "decode_columns": columns - 1,
        "prefill_rows": prefill_rows,
        "prefill_columns": prefill_columns - 1,
        "prefill_groups": len(prefill),
        "decode_spread": int(spread),
    }
    return StepTables(
        _segments(tokens.knots),
        freeze(np.concatenate(list(parts.values()))),
        freeze([layout[name] for name in LAYOUT], np.int64),
    )


def _segments(knots: F64) -> I16:
    """Segment of every count up to the last knot: 0 below the first, then one a knot."""
    counts = np.arange(MAX_TOKENS + 1)
    return freeze(np.searchsorted(knots, counts, side="right"), np.int16)


def _line_cells(lanes: Lanes) -> F64:
    """Cells (segment, lane, 2): intercept and slope; segment 0 is zero."""
    width = np.diff(lanes.knots)
    slope = np.concatenate([np.diff(lanes.values_s, axis=1) / width, lanes.beyond_s[:, None]], axis=1)
    intercept = lanes.values_s - slope * lanes.knots
    cells = np.zeros((lanes.knots.size + 1, lanes.values_s.shape[0], 2))
    cells[1:, :, 0], cells[1:, :, 1] = intercept.T, slope.T
    return cells.ravel()


def _decode_cells(grid: F64) -> F64:
    """Cells (row, column, 4): a + b kv + B (c + d kv); row 0 is zero."""
    rows, columns = grid.shape
    batch, kv_len = 2.0 ** np.arange(rows), 2.0 ** np.arange(columns)
    along = np.diff(grid, axis=1) / np.diff(kv_len)
    at_zero = grid[:, :-1] - along * kv_len[:-1]
    cells = np.zeros((rows, columns - 1, 4))
    for at, line in ((0, at_zero), (1, along)):
        by_batch = np.diff(line, axis=0) / np.diff(batch)[:, None]
        cells[1:, :, at + 2] = by_batch
        cells[1:, :, at] = line[:-1] - by_batch * batch[:-1, None]
    return cells.ravel()


def _prefill_cells(part: PrefillPart, blend: str) -> F64:
    """Cells (row, column, 6): launch p + q b, area F ((r + s b) + F (t + u b)); row 0 is zero."""
    rows, columns = part.time_s.shape
    batch, length = 2.0 ** np.arange(rows), 2.0 ** np.arange(columns)
    if blend == "sqrt":  # sqrt(T) = alpha + beta F between knots
        root = np.sqrt(part.time_s)
        beta = np.diff(root, axis=1) / np.diff(length)
        alpha = root[:, :-1] - beta * length[:-1]
        terms = (alpha**2, 2.0 * alpha * beta, beta**2)
    else:  # T = launch + F R(F), R linear between knots
        rate = (part.time_s - part.launch_s[:, None]) / length
        square = np.diff(rate, axis=1) / np.diff(length)
        terms = (np.repeat(part.launch_s[:, None], columns - 1, axis=1), rate[:, :-1] - square * length[:-1], square)
    cells = np.zeros((rows, columns - 1, 6))
    for at, term in enumerate(terms):
        by_batch = np.diff(term, axis=0) / np.diff(batch)[:, None]
        cells[1:, :, 2 * at + 1] = by_batch
        cells[1:, :, 2 * at] = term[:-1] - by_batch * batch[:-1, None]
    return cells.ravel()
