"""Checks at the user boundary: each returns a clean value or appends a `Problem`; nothing below checks again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mfuroof._types import F64, I64, ArrayLike, freeze
from mfuroof.errors import InputError, Problem, UnknownNameError

__all__ = ["Problems", "choice", "count_array", "spread"]

MAX_COUNT = 2**40
"""Largest token or request count accepted: far beyond any step, and exact in float64 with room for products."""


class Problems(list[Problem]):
    """Collects everything wrong with one call, so that it is reported at once."""

    def add(self, where: str, found: object, expected: str, remedy: str = "") -> None:
        """Record one problem."""
        self.append(Problem(where, repr(found) if not isinstance(found, str) else found, expected, remedy))

    def raise_if_any(self, error: type[InputError] = InputError) -> None:
        """Raise ``error`` with every recorded problem, if there is one."""
        if self:
            raise error(self)

    def positive_int(self, where: str, value: Any, minimum: int = 1) -> int:
        """Return ``value`` as an int of at least ``minimum``; record a problem and return ``minimum`` otherwise."""
        if isinstance(value, bool | np.bool_) or not _is_integral(value) or value < minimum:
            self.add(where, repr(value), f"an integer of at least {minimum}")
            return minimum
        return int(value)

    def number(
        self, where: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
    ) -> float:
        """Return ``value`` as a finite float in [low, high] (or (low, high]); record a problem otherwise."""
        bracket = f"a finite number in {'(' if open_low else '['}{low:g}, {high:g}]"
        try:
            x = float(value)
        except (TypeError, ValueError, OverflowError):
            self.add(where, repr(value), bracket)
            return low
        if not math.isfinite(x) or x < low or x > high or (open_low and x == low):
            self.add(where, value, bracket)
            return low
        return x

    def numbers(
        self, where: str, values: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
    ) -> F64:
        """Return a scalar or array as finite float64 in [low, high] (or (low, high]); record a problem otherwise."""
        if math.isfinite(high):
            expected = f"finite numbers in {'(' if open_low else '['}{low:g}, {high:g}]"
        else:
            expected = f"finite numbers {'above' if open_low else 'of at least'} {low:g}"
        found = _numeric(where, values, self, expected)
        if found is None:
            return np.ones(())
        array = found.astype(np.float64)
        bad = ~(np.isfinite(array) & (array >= low) & (array <= high))
        if open_low:
            bad |= array == low
        if bad.any():
            at = int(np.flatnonzero(bad.ravel())[0])
            self.add(f"{where}[{at}]" if array.ndim else where, float(array.ravel()[at]), expected)
        return array


def spread(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return arguments broadcast against one another, flat and contiguous, and the shape they have together.

    Raises
    ------
    InputError
        Their shapes do not broadcast.
    """
    try:
        shape = np.broadcast_shapes(*(np.shape(a) for a in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {np.shape(a)}" for name, a in arrays.items() if np.ndim(a))
        expected = "shapes that broadcast against one another"
        raise InputError(Problem("arguments", f"shapes {shapes}", expected)) from None
    return {name: np.ascontiguousarray(np.broadcast_to(a, shape)).ravel() for name, a in arrays.items()}, shape


def _is_integral(value: Any) -> bool:
    try:
        return math.isfinite(value) and int(value) == value
    except (TypeError, ValueError, OverflowError):
        return False


def choice(kind: str, value: Any, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``known``; raise `UnknownNameError` naming the nearest otherwise."""
    names = tuple(known)
    if value in names:
        return str(value)
    raise UnknownNameError(kind, value, names)


def count_array(where: str, values: ArrayLike, problems: Problems, *, minimum: int = 0, flags: bool = False) -> I64:
    """Return whole numbers as a flat read-only int64 array; integers are viewed, not copied, where they can be.

    Parameters
    ----------
    where
        Name used in the report.
    values
        Scalar or array of counts; floats are accepted where they are whole. [tokens or requests]
    problems
        Collector for what is wrong: not numeric, NaN, fractional, below ``minimum``, above 2**40, a lone boolean.
    flags
        A lone boolean is meant, and counts as 0 or 1, as those of an array (a mask of steps) always do.
    """
    expected = f"whole numbers in [{minimum}, 2**40]"
    empty = freeze([], np.int64)
    array = _numeric(where, values, problems, expected)
    if array is None:
        return empty
    if isinstance(values, bool | np.bool_) and not flags:
        problems.add(where, repr(values), expected)
        return empty
    if array.dtype.kind == "f":
        bad = ~(np.isfinite(array) & (array == np.floor(array)))
        if bad.any():
            at = int(np.flatnonzero(bad.ravel())[0])
            problems.add(f"{where}[{at}]", float(array.ravel()[at]), expected, "Round or drop the value first.")
            return empty
    if array.size:
        low, high = array.min(), array.max()
        if low < minimum or high > MAX_COUNT:
            wrong = low if low < minimum else high
            at = int(np.flatnonzero(array.ravel() == wrong)[0])
            problems.add(f"{where}[{at}]", array.ravel()[at].item(), expected)
            return empty
    return freeze(array.ravel(), np.int64)


def _numeric(where: str, values: Any, problems: Problems, expected: str) -> np.ndarray | None:
    """Return an array of numbers as it is; record a problem and return None where it holds anything else."""
    if np.ma.is_masked(values):
        problems.add(where, "masked values", expected)
        return None
    try:
        array = np.asarray(values)
        if array.dtype == object:
            if any(isinstance(value, str | bytes) for value in array.ravel()):
                raise TypeError  # "1" is no number here, as it is none in an array of texts
            array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        problems.add(where, f"{type(values).__name__} that is no numeric array", expected)
        return None
    if array.dtype.kind not in "iufb" and array.size:
        problems.add(where, f"dtype {array.dtype}", expected)
        return None
    return array
