"""How large a sweep is before it starts: a slip of the pen in one axis is a thousand times the work."""

from __future__ import annotations

from mfuroof._boundary import Problems
from mfuroof.errors import InputError, Problem
from mfuroof.sweep.space import Space
from mfuroof.units import GB

__all__ = ["MOST_REDUCED", "MOST_WRITTEN", "check_size"]

MOST_WRITTEN = 10**9
"""Rows that are written without being asked for expressly: some 15 GB. [rows]"""

MOST_REDUCED = 10**11
"""Rows that are reduced without being asked for expressly: some hours. [rows]"""

BYTES_PER_ROW = 15.0
"""Of a Parquet file with the columns of ``detail="bound"``. [bytes]"""

ROWS_PER_S = 5e6
"""Rough rate of one machine. [rows/s]"""

_HOUR_S, _DAY_S = 3600.0, 86400.0


def check_size(space: Space, written: bool, most: float | None = None) -> None:
    """Raise `InputError` where a sweep has more rows than is likely meant.

    Parameters
    ----------
    space
        The rows.
    written
        Whether they are written, or only reduced.
    most
        Rows that are all right; None for `MOST_WRITTEN` or `MOST_REDUCED`. [rows]
    """
    problems = Problems()
    if most is not None:
        most = problems.number("--max-rows", most, 1.0)
    problems.raise_if_any()
    allowed = (MOST_WRITTEN if written else MOST_REDUCED) if most is None else most
    if space.rows <= allowed:
        return
    size = f"about {space.rows * BYTES_PER_ROW / GB:,.0f} GB and " if written else "about "
    seconds = space.rows / ROWS_PER_S
    time = f"{seconds / _DAY_S:,.0f} days" if seconds > 3 * _DAY_S else f"{seconds / _HOUR_S:,.1f} hours"
    found = f"{space.rows:,} rows ({len(space.cases):,} cases), {size}{time}"
    remedy = f"Take larger steps, {'keep only the best with --best, ' if written else ''}or allow it with --max-rows."
    raise InputError(Problem("sweep", found, f"at most {allowed:,.0f}", remedy))
