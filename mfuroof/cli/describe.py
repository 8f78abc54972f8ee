"""``mfuroof describe``: what a table on disk holds."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import console, print_json

if TYPE_CHECKING:
    from mfuroof.queries import Description

__all__ = ["EXAMPLES", "describe"]

EXAMPLES = ("mfuroof describe steps.parquet", "mfuroof describe predictions.csv --json")


def describe(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet or CSV file, or a folder of Parquet files.")],
    json: o.Json = False,
) -> None:
    """Show the columns of a table with units, ranges and meanings, its rows, and where it comes from.

    Tables of this package say all that themselves; of others, what is missing is named. Of Parquet files only the
    metadata is read, whatever their size.
    """
    from mfuroof.queries import describe as described
    from mfuroof.queries.describe import short

    found = described(path)
    if json:
        print_json(found.to_dict())
        return
    print(found.head)
    print()
    _print_columns(found)
    if found.provenance:
        print()
    for key, value in found.provenance.items():
        print(f"{key}: {short(value)}")
    if found.lacks:
        print()
    for text in found.lacks:
        print(f"lacks {text}")


def _print_columns(found: Description) -> None:
    """Print the columns, each with its meaning behind it, or below it where the terminal is too narrow."""
    rows = [("column", "unit", "range", "meaning")]
    rows += [(c.name, c.unit or "-", c.span, c.meaning) for c in found.columns]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = console().width
    one_line = sum(widths) + 6 <= room
    for name, unit, span, meaning in rows:
        line = f"{name:<{widths[0]}}  {unit:<{widths[1]}}  {span}"
        if one_line:
            print(f"{line:<{sum(widths[:3]) + 4}}  {meaning}".rstrip())
            continue
        print(line)
        for text in wrap(meaning, max(room - 4, 20)) if (name, unit) != rows[0][:2] else []:
            print(f"    {text}")
