"""Tables for notebooks: one look for every ``_repr_html_``, with everything that is shown escaped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape

__all__ = ["Share", "html_table"]


class Share(float):
    """A fraction that a table shows as per cent, with a bar behind it."""


def html_table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    words: Collection[int] = (0,),
    notes: Sequence[str] = (),
) -> str:
    """Return an HTML table.

    Parameters
    ----------
    title
        What stands above; nothing where empty.
    head
        Names of the columns, with their units; no head row where all are empty.
    rows
        Cells, shown as text; a `Share` as per cent with a bar.
    words
        Positions of columns of words, which stand left; numbers stand right.
    notes
        Lines below.

    Examples
    --------
    >>> html_table("", ("part", "ms"), [("a<b", 1.5)]).count("a&lt;b")
    1
    """
    lines = ['<div style="overflow-x:auto">']
    if title:
        lines.append(f"<strong>{escape(title)}</strong>")
    lines.append('<table style="border-collapse:collapse">')
    if any(head):
        lines.append(_row("th", head, words))
    lines += [_row("td", row, words) for row in rows]
    lines.append("</table>")
    lines += [f'<div style="opacity:0.75">{escape(note)}</div>' for note in notes]
    return "\n".join([*lines, "</div>"])


def _row(tag: str, cells: Sequence[object], words: Collection[int]) -> str:
    parts = []
    for i, cell in enumerate(cells):
        style = f"text-align:{'left' if i in words else 'right'};padding:1px 8px"
        text = str(cell)
        if isinstance(cell, Share):
            text, reach = f"{float(cell):.1%}", f"{min(max(float(cell), 0.0), 1.0):.1%}"
            style += f";background:linear-gradient(90deg,rgba(0,114,178,0.25) {reach},transparent {reach})"
        parts.append(f'<{tag} style="{style}">{escape(text)}</{tag}>')
    return f"<tr>{''.join(parts)}</tr>"
