"""Versions of engines: order and ranges."""

from __future__ import annotations

import re
from typing import Any

from mfuroof.errors import InputError, Problem

__all__ = ["Version", "parse_version", "within"]

Version = tuple[tuple[int, ...], int, int]
"""Release numbers without trailing zeros; -1 before the release, 0 at it, 1 after; number of that."""

_PATTERN = re.compile(
    r"v?(\d+(?:\.\d+)*)(?:[._-]?(rc|a|b|alpha|beta|dev|post)[._-]?(\d*))?(?:[+-].*|\.[a-z].*)?", re.IGNORECASE
)


def parse_version(text: Any) -> Version:
    """Return a version that can be compared: ``0.33.0``, ``v0.5.9.post1``, ``1.3.0rc5``, ``0.24.0+cu129``.

    Raises
    ------
    InputError
        The text is no version.
    """
    match = _PATTERN.fullmatch(str(text).strip())
    if match is None:
        raise InputError(Problem("engine_version", repr(text), "a version such as 0.33.0 or 1.3.0rc5"))
    numbers = [int(n) for n in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    kind = (match[2] or "").lower()
    return tuple(numbers), 0 if not kind else 1 if kind == "post" else -1, int(match[3] or 0)


def within(version: Version, since: str, until: str) -> bool:
    """Tell whether ``since <= version < until``; an empty text is no limit."""
    return (not since or version >= parse_version(since)) and (not until or version < parse_version(until))
