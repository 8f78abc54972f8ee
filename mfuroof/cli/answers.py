"""How commands print the answer of a query: the sentence, and the columns that tell its rows apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mfuroof.cli.output import console, print_json, print_pairs

if TYPE_CHECKING:
    from mfuroof.queries import QueryResult

__all__ = ["print_answer"]

_MOST_ROWS, _NARROW = 40, 5
_RESULTS = ("ttft_s", "tpot_s", "step_time_s", "limited_by", "lasting")
"""Outcomes that are shown although they were not asked about."""


def print_answer(answer: QueryResult, conditions: Sequence[str] = (), *, json: bool = False) -> None:
    """Print an answer for people or programs."""
    from mfuroof.queries.meanings import field_unit, quantity
    from mfuroof.queries.result import cell, says_nothing

    if json:
        print_json(answer.to_dict())
        return
    print(answer.sentence)
    if not len(answer):
        return
    print()
    units = {f.name: field_unit(f) for f in answer.table.schema}

    def shown(name: str, value: Any) -> str:
        return quantity(value, units[name]) if units[name] in ("s", "bytes") and value is not None else cell(value)

    if len(answer) == 1:
        row = answer.table.to_pylist()[0]
        print_pairs("", [(name, shown(name, value)) for name, value in row.items() if not says_nothing(name, value)])
        return
    same, varying = answer.split()
    names = [name for name in varying if _wanted(answer, name, conditions)]
    rows = answer.table.slice(0, _MOST_ROWS).to_pylist()
    cells = [[shown(name, row[name]) for name in names] for row in rows]
    words = {i for i, name in enumerate(names) if isinstance(rows[0][name], str)}
    for line in _lines(_heads(names, cells, console().width), cells, words):
        print(line)
    if len(answer) > _MOST_ROWS:
        print(f"and {len(answer) - _MOST_ROWS:,} rows more, see --json")
    told = [f"{n} {shown(n, v)}" for n, v in same.items() if _wanted(answer, n, conditions) and not says_nothing(n, v)]
    if told:
        print(f"in all rows: {', '.join(told)}")


def _heads(names: Sequence[str], cells: Sequence[Sequence[str]], room: int) -> list[list[str]]:
    """Return the lines of each name, broken at underscores where the table would be wider than the terminal."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if sum(max(len(n), w) + 2 for n, w in zip(names, widths, strict=True)) - 2 <= room:
        return [[name] for name in names]
    return [_broken(name, max(width, _NARROW)) for name, width in zip(names, widths, strict=True)]


def _broken(name: str, width: int) -> list[str]:
    lines = [""]
    for part in name.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _lines(heads: Sequence[list[str]], cells: Sequence[Sequence[str]], words: set[int]) -> list[str]:
    """Return heads, which stand on the line above the rows, and rows; numbers stand right."""
    depth = max(map(len, heads))
    above = [[""] * (depth - len(head)) + head for head in heads]
    rows = [*zip(*above, strict=True), *cells]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [t.ljust(w) if i in words else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(padded).rstrip())
    return lines


def _wanted(answer: QueryResult, name: str, conditions: Sequence[str]) -> bool:
    """Return whether a column is one of inputs, or of outcomes that were asked about."""
    import pyarrow as pa

    if name in (answer.x, answer.y, *answer.by, *_RESULTS) or any(name in text for text in conditions):
        return True
    kind = answer.table.schema.field(name).type
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind)) and name not in ("source", "bound", "reason")
