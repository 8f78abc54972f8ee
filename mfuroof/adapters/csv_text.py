"""Columns as CSV text; numbers in the shortest form that reads back to the same value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["csv_bytes"]


def csv_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Return the columns as a CSV file with a header line.

    Names with a comma, a quote or a line break are put in quotes.
    """
    lines = [",".join(columns)]
    lines += [",".join(map(_cell, row)) for row in zip(*columns.values(), strict=True)]
    return ("\n".join(lines) + "\n").encode()


def _cell(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    text = repr(value) if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text
