"""Attention times on octave lattices: measured grids made rectangular, monotone and cheap to read.

Both attention tables are measured at powers of two along the batch, and at powers of two along the KV length
(decode) or at 1 and the powers of two from 16 on (prefill). On such axes the index of a query is its exponent, so
the grids are kept on them; what was not measured is filled once, here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, I64, U8
from mfuroof.core.isotonic import isotonic, isotonic_grid
from mfuroof.core.sources import Source
from mfuroof.errors import Problem, TableFormatError
from mfuroof.ops.curves import without_spikes

__all__ = ["DecodeGrid", "PrefillGrid", "decode_grid", "prefill_grid", "rising", "rising_prefill"]

BATCH_OCTAVES = 13
"""Decode rows: batches 1 to 4,096; the last cell goes on linearly."""
PREFILL_BATCH_OCTAVES = 10
"""Prefill rows: 1 to 512 prompts."""
LENGTH_OCTAVES = 22
"""Columns: lengths 1 to 2 M tokens."""
LAUNCH_BOUND_TOKENS = 512.0
"""Prompt tokens up to which a prefill kernel costs little more than its launch."""
MAX_ROUNDS = 100
"""Alternating isotonic regression settles in at most 26 rounds on the embedded tables."""
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class DecodeGrid:
    """Decode attention of one layer: seconds at batch 2^i (rows) and KV length 2^j (columns)."""

    time_s: F64
    source: U8


@dataclass(frozen=True, eq=False)
class PrefillGrid:
    """Prefill attention of one layer at batch 2^i and prompt length 2^j: launch (rows,) and whole time. [s]"""

    launch_s: F64
    time_s: F64
    source: U8


def decode_grid(batch: I64, kv_len: I64, latency_s: F64, *, monotone: bool) -> DecodeGrid:
    """Lay measured decode attention on the lattice and continue it beyond the measured frontier.

    Beyond the frontier a batch row goes on with the slope along KV that the next smaller batch shows there:
    T(B, kv) = T(B, last) + B/B' (T(B', kv) - T(B', last)), which leaves 0.4-3 % median error where holding the
    utilisation leaves 8-41 %. Past the longest length of any batch each row goes on with the slope of its own last
    octave; more requests than measured take proportionally longer.

    Raises
    ------
    TableFormatError
        Fewer than two lengths were measured for one request, so there is no row to start from.
    """
    grid, source = _measured(batch, kv_len, latency_s, BATCH_OCTAVES, despike=monotone)
    first = int(np.argmax(np.isfinite(grid[0])))
    grid[:, :first] = grid[:, first : first + 1]  # below the shortest measured length the kernel is launch-bound
    source[:, :first] = Source.CLAMPED
    longest = int(np.flatnonzero(np.isfinite(grid).any(axis=0))[-1])
    lengths = 2.0 ** np.arange(LENGTH_OCTAVES)
    for i in range(BATCH_OCTAVES):
        known = np.flatnonzero(np.isfinite(grid[i]))
        last = int(known[-1]) if known.size else -1
        if known.size:
            grid[i, : last + 1] = np.interp(lengths[: last + 1], lengths[known], grid[i, known])
        for j in range(last + 1, LENGTH_OCTAVES):
            if last < 0:
                grid[i, j] = 2.0 * grid[i - 1, j]
            elif i == 0 or j > longest:
                grid[i, j] = grid[i, j - 1] + 2.0 * max(grid[i, j - 1] - grid[i, j - 2], 0.0)
            else:
                grid[i, j] = grid[i, last] + 2.0 * max(grid[i - 1, j] - grid[i - 1, last], 0.0)
    if monotone:
        isotonic_grid(grid, MAX_ROUNDS, TOLERANCE)
    return DecodeGrid(grid, source)


def prefill_grid(batch: I64, new_tokens: I64, latency_s: F64, *, monotone: bool, blend: str) -> PrefillGrid:
    """Lay measured prefill attention on the lattice; split off the launch part; fill what was not measured.

    Where a batch of b prompts was too large to measure, two half batches stand in (the GPU is full there); beyond
    the longest prompt the utilisation of the last one is held (time grows with the square of the length).
    ``launch`` is what does not grow with a short prompt. The rest is kept non-decreasing *per token of prompt* and in
    the batch, which makes a chunk behind a cached prefix monotone in both its lengths.

    Raises
    ------
    TableFormatError
        Fewer than two lengths were measured for one prompt.
    """
    grid, source = _measured(batch, new_tokens, latency_s, PREFILL_BATCH_OCTAVES, despike=monotone)
    unmeasured = np.asarray(np.isnan(grid).all(axis=1))
    for j in range(LENGTH_OCTAVES):
        for i in range(PREFILL_BATCH_OCTAVES):
            if np.isnan(grid[i, j]) and i > 0 and (unmeasured[i] or np.isnan(grid[i:, j]).all()):
                grid[i, j] = 2.0 * grid[i - 1, j]
    measured = np.flatnonzero(np.isfinite(grid[0]))
    lengths = 2.0 ** np.arange(LENGTH_OCTAVES)
    for i in range(PREFILL_BATCH_OCTAVES):  # blend between measured columns, hold utilisation beyond the last
        known = measured[np.isfinite(grid[i, measured])]  # a larger batch was measured here, this one was not: a hole
        inside = _between(lengths, lengths[known], grid[i, known], blend)
        beyond = grid[i, known[-1]] * (lengths / lengths[known[-1]]) ** 2
        grid[i] = np.where(lengths > lengths[known[-1]], beyond, inside)
    launch = grid[:, 0].copy()
    if monotone:
        isotonic(_launch_part(grid, lengths), launch)
        rate = np.maximum(grid - launch[:, None], 0.0) / lengths
        rate = np.where(lengths <= LAUNCH_BOUND_TOKENS, _least_from_here_on(rate), rate)
        isotonic_grid(rate, MAX_ROUNDS, TOLERANCE)
        grid = launch[:, None] + np.maximum(rate, 0.0) * lengths
    return PrefillGrid(launch, grid, source)


def _least_from_here_on(rate: F64) -> F64:
    """Return the smallest of each row's values from a column on.

    Noise of 0.2 us over one to eight tokens is a large time *per token*, which regression would spread over longer
    prompts: 128 tokens of an 8B model on A100 came out 57 % dear. Longer prompts know the rate better.
    """
    return np.ascontiguousarray(np.minimum.accumulate(rate[:, ::-1], axis=1)[:, ::-1])


def _launch_part(grid: F64, lengths: F64) -> F64:
    """Return the part of each row that does not grow with the prompt.

    The time of a one-token prompt, or more where kernels step up after it (latent attention takes 93 us for one token
    and 116 to 125 for 16 to 64): the largest intercept of the lines through neighbouring short prompts, which is the
    smallest launch that leaves a time per token that rises.
    """
    launch = np.empty(grid.shape[0])
    for i, row in enumerate(grid):
        rising_row = np.empty(row.size)
        isotonic(np.ascontiguousarray(row), rising_row)
        short = lengths[1:] <= max(LAUNCH_BOUND_TOKENS / 2.0**i, 32.0)
        slope = np.diff(rising_row) / np.diff(lengths)
        intercept = rising_row[:-1] - slope * lengths[:-1]
        launch[i] = max(rising_row[0], intercept[short].max())
    return launch


def rising(grid: F64, floor: F64) -> F64:
    """Return a lattice made non-decreasing along both axes, on it and beyond it, and nowhere below ``floor``.

    Isotonic regression, then the floor and a running maximum. The last octave of an axis goes on for ever, so what it
    adds above the floor must not shrink along the other axis, or rows would cross far out. NaN stays as it is.
    """
    if not np.isfinite(grid).all():
        return grid
    out = grid.copy()
    isotonic_grid(out, MAX_ROUNDS, TOLERANCE)
    out = np.maximum.accumulate(np.maximum.accumulate(np.maximum(out, floor), axis=0), axis=1)
    above = out - floor
    for lines in (above, above.T):
        lines[:, -1] = lines[:, -2] + np.maximum.accumulate(np.maximum(lines[:, -1] - lines[:, -2], 0.0))
    out[:, -1], out[-1, :] = floor[:, -1] + above[:, -1], floor[-1, :] + above[-1, :]
    return out


def rising_prefill(launch_s: F64, time_s: F64, floor_s: F64) -> tuple[F64, F64]:
    """Return launch and whole time made non-decreasing: launch in the batch, the rest per token in both (`rising`).

    That is what makes a chunk behind a cached prefix monotone in its length, its prefix and the batch.
    """
    if not np.isfinite(time_s).all():
        return launch_s, time_s
    launch, lengths = np.empty_like(launch_s), 2.0 ** np.arange(time_s.shape[1])
    isotonic(np.minimum(launch_s, time_s[:, 0]), launch)
    above = np.maximum(floor_s - launch[:, None], 0.0) / lengths
    rate = rising(np.maximum(time_s - launch[:, None], 0.0) / lengths, above)
    return launch, launch[:, None] + rate * lengths


def _measured(batch: I64, length: I64, latency_s: F64, rows: int, *, despike: bool) -> tuple[F64, U8]:
    """Place measurements that stand on the lattice; the rest of the grid is NaN and EXTRAPOLATED."""
    grid = np.full((rows, LENGTH_OCTAVES), np.nan)
    source = np.full(grid.shape, Source.EXTRAPOLATED, np.uint8)
    i, j = np.log2(batch), np.log2(length)
    on = (i == np.floor(i)) & (j == np.floor(j)) & (i < rows) & (j < LENGTH_OCTAVES)
    grid[i[on].astype(int), j[on].astype(int)] = latency_s[on]
    source[i[on].astype(int), j[on].astype(int)] = Source.EXACT
    alone = int(np.isfinite(grid[0]).sum())
    if alone < 2:
        expected = "at least two, at powers of two: every other batch is read against that row"
        raise TableFormatError(Problem("attention table", f"{alone} lengths for one request", expected))
    if despike:
        grid = np.apply_along_axis(without_spikes, 1, grid)
        grid = np.apply_along_axis(without_spikes, 0, grid)
    return grid, source


def _between(lengths: F64, known: F64, time: F64, blend: str) -> F64:
    if blend == "sqrt":
        return np.interp(lengths, known, np.sqrt(time)) ** 2
    rate = np.interp(lengths, known, (time - time[0]) / known)
    return time[0] + rate * lengths
