"""Axis values of a sweep from short spellings: ``1:512:x2``, ``0:8192:+512``, ``0:8192:lin17``, ``1,2,4``."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from mfuroof._boundary import MAX_COUNT, Problems, count_array
from mfuroof._types import F64, I64, freeze
from mfuroof.errors import InputError, Problem

__all__ = ["MAX_VALUES", "SPELLINGS", "axis_values"]

MAX_VALUES = 2**22
"""Most values of one axis; the product of axes is not limited."""

SPELLINGS = "8 | 1,2,4 | 1:64 | 0:8192:+512 | 1:512:x2 | 0:8192:lin17 | 1:8192:log14"
"""What a range may look like, for help and error texts; both ends belong to a range where they are hit."""

_ITEM = re.compile(r"(?P<start>\d+)(?::(?P<stop>\d+)(?::(?P<kind>\+|x|lin|log)(?P<by>\d+(?:\.\d+)?))?)?")


def axis_values(where: str, spec: Any, *, distinct: bool = True, most: int = MAX_VALUES) -> I64:
    """Return the values of one axis, in the order given.

    Parameters
    ----------
    where
        Name used in the report.
    spec
        A number, an array of numbers, or a text of comma-separated items: ``8``; ``1:64`` (every number);
        ``0:8192:+512`` (add 512); ``1:512:x2`` (double; any factor above 1); ``0:8192:lin17`` and ``1:8192:log14``
        (17 evenly and 14 geometrically spaced points). What falls between whole numbers is rounded.
    distinct
        Whether each value is taken once; False where it advances together with another axis.
    most
        Most values there may be.

    Raises
    ------
    InputError
        No such spelling, nothing in it, a falling range, values outside [0, 2**40], or more than ``most``.

    Examples
    --------
    >>> axis_values("decode_batch", "0,1:16:x2,100").tolist()
    [0, 1, 2, 4, 8, 16, 100]
    """
    problems = Problems()
    if isinstance(spec, str):
        spec = np.concatenate([_item(where, item) for item in spec.replace(" ", "").replace("_", "").split(",")])
    values = count_array(where, spec, problems)
    problems.raise_if_any()
    if not 0 < values.size <= most:
        raise InputError(Problem(where, f"{values.size:,} values", f"1 to {most:,} values"))
    if not distinct:
        return values
    first = np.sort(np.unique(values, return_index=True)[1])
    return freeze(values[first], np.int64)


def _item(where: str, text: str) -> I64:
    match = _ITEM.fullmatch(text)
    if match is None:
        raise InputError(Problem(where, repr(text), "a range", f"Spell it as one of {SPELLINGS}."))
    start, stop, kind = int(match["start"]), int(match["stop"] or match["start"]), match["kind"] or "+"
    by = float(match["by"] or 1)
    if stop < start or stop > MAX_COUNT:
        raise InputError(Problem(where, repr(text), "a range that rises, up to 2**40"))
    _check_step(where, text, start, kind, by)
    count = _count(start, stop, kind, by)
    if count > MAX_VALUES:
        raise InputError(Problem(where, f"{text!r}, {count:,} values", f"at most {MAX_VALUES:,}", "Take larger steps."))
    return _points(start, stop, kind, by, count)


def _check_step(where: str, text: str, start: int, kind: str, by: float) -> None:
    allowed = {
        "+": (by >= 1 and by == int(by), "a whole step of at least 1"),
        "x": (by > 1 and start >= 1, "a factor above 1, from 1 or more"),
        "lin": (by >= 2 and by == int(by), "a whole number of points, at least 2"),
        "log": (by >= 2 and by == int(by) and start >= 1, "a whole number of points, at least 2, from 1 or more"),
    }
    fits, expected = allowed[kind]
    if not fits:
        raise InputError(Problem(where, repr(text), expected))


def _count(start: int, stop: int, kind: str, by: float) -> int:
    if kind == "+":
        return (stop - start) // int(by) + 1
    if kind == "x":
        return int(math.log(stop / start) / math.log(by) + 1e-9) + 1
    return int(by)


def _points(start: int, stop: int, kind: str, by: float, count: int) -> I64:
    points: F64
    if kind == "+":
        return np.arange(start, start + int(by) * count, int(by), dtype=np.int64)
    if kind == "x":
        points = start * by ** np.arange(count)
    elif kind == "lin":
        points = np.linspace(start, stop, count)
    else:
        points = np.geomspace(start, stop, count)
    return np.floor(points + 0.5).astype(np.int64)
