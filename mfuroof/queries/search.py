"""Largest whole number that meets a condition, for many cases at once: by bisection, or by looking at every number.

A condition is ``test(rows, values)``: which of the cases ``rows`` meet it at ``values``, both of one length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mfuroof._types import I64

__all__ = ["SCAN_BLOCK", "Test", "bisect_last", "descend", "scan_all"]

Test = Callable[["I64", "I64"], "np.ndarray"]

SCAN_BLOCK = 2**18
"""Cases x numbers looked at in one call: a few arrays of two megabytes."""


class Scan(NamedTuple):
    """What a look at every number found, for each case (n,)."""

    first: I64
    """Smallest number that meets the condition; one more than the largest looked at where none does."""
    last: I64
    """Largest one; one less than the smallest looked at where none does."""
    met: I64
    """How many do."""


def bisect_last(test: Test, cases: int, low: int, most: int) -> I64:
    """Return the largest number in [low, most] that meets a condition which fails from some number on.

    All cases bisect together: log2(most - low) calls in all. ``low - 1`` where not even ``low`` meets it.
    """
    below, above = np.full(cases, low - 1, np.int64), np.full(cases, most, np.int64)
    rows = np.arange(cases)
    while rows.size:
        middle = (below[rows] + above[rows] + 1) >> 1
        met = test(rows, middle)
        below[rows] = np.where(met, middle, below[rows])
        above[rows] = np.where(met, above[rows], middle - 1)
        rows = rows[below[rows] < above[rows]]
    return below


def descend(test: Test, found: I64, low: int) -> I64:
    """Return the largest number up to ``found`` that meets a condition, looked for downwards in growing blocks."""
    out = found.copy()
    rows, top, block = np.flatnonzero(found >= low), found[found >= low], 1
    while rows.size:
        numbers = top[:, None] - np.arange(block)
        inside = numbers >= low
        met = inside & test(np.repeat(rows, block), np.maximum(numbers, low).ravel()).reshape(numbers.shape)
        some = met.any(axis=1)
        out[rows[some]] = top[some] - np.argmax(met[some], axis=1)
        ended = ~some & (top - block < low)
        out[rows[ended]] = low - 1
        left = ~some & ~ended
        rows, top = rows[left], top[left] - block
        block = min(2 * block, max(SCAN_BLOCK // max(rows.size, 1), 1))
    return out


def scan_all(test: Test, cases: int, low: int, most: int) -> Scan:
    """Return what every number in [low, most] says."""
    first, last = np.full(cases, most + 1, np.int64), np.full(cases, low - 1, np.int64)
    count = np.zeros(cases, np.int64)
    width = max(SCAN_BLOCK // max(cases, 1), 1)
    for start in range(low, most + 1, width):
        numbers = np.arange(start, min(start + width, most + 1))
        rows = np.repeat(np.arange(cases), numbers.size)
        met = test(rows, np.tile(numbers, cases)).reshape(cases, numbers.size)
        some = met.any(axis=1)
        count += met.sum(axis=1)
        last[some] = numbers[numbers.size - 1 - np.argmax(met[some, ::-1], axis=1)]
        fresh = some & (first > most)
        first[fresh] = numbers[np.argmax(met[fresh], axis=1)]
    return Scan(first, last, count)
