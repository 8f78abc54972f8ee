"""Figures into files: complete or not there, and the same bytes for the same figure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mfuroof._boundary import choice
from mfuroof._files import write_atomically
from mfuroof.errors import OutputError
from mfuroof.plots.style import pyplot_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "save_figure"]

FORMATS = (".png", ".svg", ".pdf")
"""What a figure can be written as, by the suffix of its file."""
_DATELESS = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def save_figure(drawn: Figure | Axes, path: str | Path, *, dpi: float = 160.0) -> Path:
    """Write a figure, or the one that holds some axes, and return where it stands.

    Parameters
    ----------
    drawn
        What the functions of `mfuroof.plots` return.
    path
        A file ending in ``.png``, ``.svg`` or ``.pdf``; its folder is not made.
    dpi
        Resolution of what is not drawn as lines. [dots/inch]

    Raises
    ------
    UnknownNameError
        Another ending.
    OutputError
        The file cannot be written; what stood under the name before still does.
    """
    path = Path(path)
    suffix = choice("figure format", path.suffix.lower(), FORMATS)
    if path.parent != Path() and not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}. Make it, or choose another place for the output.")
    pyplot = pyplot_of()
    figure = drawn.figure
    buffer = io.BytesIO()
    with pyplot.rc_context({"svg.hashsalt": "mfuroof"}):
        figure.savefig(buffer, format=suffix[1:], dpi=dpi, metadata=_DATELESS[suffix])
    write_atomically(path, buffer.getvalue())
    return path
