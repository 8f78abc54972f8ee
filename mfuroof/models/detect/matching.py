"""Which modules a list of names means: each checkpoint format has a matching rule of its own."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

from mfuroof.models.detect.block import Block

__all__ = ["STYLES", "MapMatcher", "PatternMatcher"]

T = TypeVar("T")

_PLAIN = re.compile(r"[\w.-]+")
_LAYER = re.compile(r"layers\\?\.(\d+)(?=\\?\.|$)")


def _component(pattern: str) -> str:
    """Match a run of whole path components: ``gate`` means ``mlp.gate``, never ``mlp.gate_proj``; stars are wild."""
    try:
        re.compile(pattern)
        body = pattern
    except re.error:
        body = re.escape(pattern)
    return rf"(?:.*\.)?(?:{body})(?:\..*)?\Z"


def _compressed(pattern: str) -> str:
    """Match the exact name, or after ``re:`` a regular expression anchored at the start only."""
    return pattern[3:] if pattern.startswith("re:") else re.escape(pattern) + r"\Z"


def _wildcard(pattern: str) -> str:
    """Match a shell wildcard over the whole name, or (older checkpoints) a run of whole path components."""
    if pattern.startswith("re:"):
        return pattern[3:]
    whole = fnmatch.translate(pattern)
    return whole if any(c in pattern for c in "*?[") else rf"(?:.*\.)?{re.escape(pattern)}(?:\..*)?\Z"


STYLES: Mapping[str, Callable[[str], str]] = {
    "component": _component,
    "compressed": _compressed,
    "wildcard": _wildcard,
    "regex": lambda pattern: pattern,
}
"""Name list entry to regular expression, by the rule of the format: see the functions."""


class PatternMatcher:
    """Names given as patterns, sorted by layer so that a layer only meets its own.

    Plain names are looked up instead of being compiled: real lists have hundreds.

    Parameters
    ----------
    patterns
        As written in the checkpoint.
    style
        Key of `STYLES`.
    block, key
        Where they were written, for notes about patterns that do not compile.
    """

    def __init__(self, patterns: Iterable[str], style: str, block: Block, key: str) -> None:
        self._runs = style in ("component", "wildcard")
        self._plain: dict[int | None, set[str]] = {}
        sources: dict[int | None, list[str]] = {}
        for pattern in dict.fromkeys(patterns):
            found = _LAYER.search(pattern)
            layer = int(found[1]) if found else None
            if style != "regex" and _PLAIN.fullmatch(pattern):
                self._plain.setdefault(layer, set()).add(pattern)
                continue
            source = STYLES[style](pattern)
            try:
                re.compile(source)
            except (re.error, OverflowError, RecursionError):
                block.warn(key, pattern, "is no valid pattern and was left out")
                continue
            sources.setdefault(layer, []).append(source)
        self._regex = {k: re.compile("|".join(f"(?:{p})" for p in v)) for k, v in sources.items()}

    @property
    def by_layer(self) -> bool:
        """Whether any pattern names a layer."""
        return any(k is not None for k in (*self._regex, *self._plain))

    def matches(self, names: Sequence[str], layer: int | None) -> bool:
        """Return whether any spelling of a module is meant."""
        for key in {None, layer}:
            plain, regex = self._plain.get(key), self._regex.get(key)
            if plain is not None and any(not plain.isdisjoint(_runs(n) if self._runs else (n,)) for n in names):
                return True
            if regex is not None and any(regex.match(n) for n in names):
                return True
        return False


@lru_cache(maxsize=2**16)
def _runs(name: str) -> tuple[str, ...]:
    """Return every run of whole components of a dotted name."""
    parts = name.split(".")
    return tuple(".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))


class MapMatcher(Generic[T]):
    """Exact names with a value each; a name stands for everything below it."""

    def __init__(self, values: Mapping[str, T]) -> None:
        self.values = values

    def find(self, names: Sequence[str]) -> T | None:
        """Return the value of the first spelling that is listed, itself or a path above it."""
        for name in names:
            path = name
            while path:
                if path in self.values:
                    return self.values[path]
                path = path.rpartition(".")[0]
        return None
