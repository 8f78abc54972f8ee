"""`QueryResult`: the answer of a query as a small table, a picture and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mfuroof._html import html_table
from mfuroof._pandas import data_frame
from mfuroof.queries.meanings import axis_label, number

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["QueryResult", "cell", "says_nothing"]

_USUAL = {"pp_size": 1, "ep_size": 1, "dp_size": 1, "cached_prefix_len": 0}
_SHOWN, _HTML_ROWS = 20, 100


@dataclass(frozen=True, repr=False, eq=False)
class QueryResult:
    """Answer of a query.

    Parameters
    ----------
    table
        Arrow table with the answer; its fields carry their units where they are known.
    sentence
        The answer in one sentence, with units.
    kind
        How `plot` draws it: ``"bars"`` (one value a row), ``"front"`` (points joined by steps) or ``"line"``.
    x, y
        Columns of the two axes of `plot`; ``x`` is empty for bars.
    by
        Columns that tell groups of rows apart.
    rows_seen, rows_allowed
        Rows the query looked at, and those of them that met its constraints.
    """

    table: pa.Table
    sentence: str
    kind: str
    x: str
    y: str
    by: tuple[str, ...] = ()
    rows_seen: int = 0
    rows_allowed: int = 0

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def labels(self) -> dict[str, str]:
        """Name and unit of each column, for the axes of a picture."""
        return {f.name: axis_label(f) for f in self.table.schema}

    def to_arrow(self) -> pa.Table:
        """Return the table."""
        return self.table

    def to_pandas(self) -> Any:
        """Return the table as a pandas DataFrame.

        Raises
        ------
        MfuroofError
            pandas is not installed.
        """
        return data_frame(self.table)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: the sentence, and the rows as dictionaries."""
        return {
            "sentence": self.sentence,
            "rows": self.table.to_pylist(),
            "rows_seen": self.rows_seen,
            "rows_allowed": self.rows_allowed,
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw the answer with matplotlib and return the axes.

        Parameters
        ----------
        ax
            Axes to draw on; None for new ones.

        Raises
        ------
        MfuroofError
            matplotlib is not installed.
        """
        from mfuroof.queries.drawing import draw

        return draw(self, ax)

    def split(self) -> tuple[dict[str, Any], list[str]]:
        """Return the columns that are the same in all rows with their value, and the names of the others."""
        same: dict[str, Any] = {}
        varying: list[str] = []
        for name in self.table.column_names:
            values = self.table.column(name).to_pylist()
            if len(values) > 1 and all(v == values[0] for v in values) and name not in (self.x, self.y, *self.by):
                same[name] = values[0]
            else:
                varying.append(name)
        return same, varying

    def __repr__(self) -> str:
        same, varying = self.split()
        lines = [self.sentence]
        told = [f"{name} {cell(value)}" for name, value in same.items() if not says_nothing(name, value)]
        if told:
            lines.append("in all rows: " + ", ".join(told))
        if len(self) == 1:
            width = max(map(len, varying))
            row = self.table.slice(0, 1).to_pylist()[0]
            return "\n".join([*lines, *(f"{name:<{width}}  {cell(row[name])}" for name in varying)])
        if len(self):
            rows = [varying, *([cell(row[n]) for n in varying] for row in self.table.slice(0, _SHOWN).to_pylist())]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines += ["  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in rows]
        if len(self) > _SHOWN:
            lines.append(f"... {len(self) - _SHOWN} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        same, varying = self.split()
        rows = self.table.slice(0, _HTML_ROWS).to_pylist()
        words = [i for i, n in enumerate(varying) if any(isinstance(row[n], str) for row in rows)]
        told = [f"{name} {cell(value)}" for name, value in same.items() if not says_nothing(name, value)]
        notes = [f"in all rows: {', '.join(told)}"] if told else []
        notes += [f"... {len(self) - _HTML_ROWS} more"] if len(self) > _HTML_ROWS else []
        head = [self.labels[name] for name in varying]
        cells = [[cell(row[name]) for name in varying] for row in rows]
        return html_table(self.sentence, head, cells, words=words, notes=notes)


def says_nothing(name: str, value: Any) -> bool:
    """Return whether a value is what it is if nobody asks: missing, the checkpoint's own format, one stage."""
    return value is None or value == "own" or _USUAL.get(name) == value


def cell(value: Any) -> str:
    """Return a value of a table as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return number(value)
