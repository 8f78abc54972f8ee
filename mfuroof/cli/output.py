"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "count", "print_json", "print_pairs", "print_table"]

NARROWEST = 12
"""Width to which a column of words may be folded on a narrow terminal."""


def console(*, stderr: bool = False) -> Console:
    """Return a console: as wide as the terminal, without colours where there is none."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def print_json(value: Any) -> None:
    """Print a value as JSON; what is not finite becomes null."""
    print(json.dumps(_clean(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Collection[int] | None = None
) -> None:
    """Print a table; ``numbers`` are the positions of columns of numbers, all but the first if left out.

    Words may be folded onto a second line on a narrow terminal, numbers never: where they do not fit, lines are longer
    than the terminal, which wraps them.
    """
    from rich.table import Table

    cells = [[_cell(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False)
    needed = 2 * max(len(head) - 1, 0)  # between columns
    for i, name in enumerate(head):
        words = i not in numbers if numbers is not None else i == 0
        longest = max(len(text) for text in (name, *(row[i] for row in cells)))
        least = min(longest, NARROWEST) if words else longest
        needed += least
        justify: Literal["left", "right"] = "left" if words else "right"
        table.add_column(name, justify=justify, no_wrap=not words, overflow="fold", min_width=least)
    for row in cells:
        table.add_row(*row)
    target = console()
    target.width = max(target.width, needed)
    _print_title(target, title)
    target.print(table)


def print_pairs(title: str, pairs: Iterable[tuple[str, Any]]) -> None:
    """Print labels with their values, one a line."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in pairs:
        table.add_row(label, _cell(value))
    target = console()
    _print_title(target, title)
    target.print(table)


def _print_title(target: Console, title: str) -> None:
    """Print a title by itself: one above a narrow table would be wrapped at the table's width."""
    from rich.text import Text

    if title:
        target.print(Text(title, style="bold"))


def count(n: float) -> str:
    """Return a whole number with thousands separated."""
    return f"{n:,.0f}"


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return "-"
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value
