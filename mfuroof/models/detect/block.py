"""Reading a quantisation block: whatever is odd becomes a note that names the key and the value, never an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mfuroof.models.text import short

__all__ = ["SKIP_KEYS", "Block", "Notes"]

SKIP_KEYS = (
    "modules_to_not_convert",
    "ignored_layers",
    "ignore",
    "exclude_modules",
    "exclude",
    "skip_modules",
    "llm_int8_skip_modules",
    "linear_weights_not_to_quantize",
)
"""Every spelling of "these modules stay as they are"."""

_DECIMAL = re.compile(r"[+-]?\d+")
MAX_GROUP = 2**24


@dataclass
class Notes:
    """What was odd, and where each fact was read."""

    warnings: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)

    def warn(self, key: str, value: object, what: str) -> None:
        """Record that ``key`` has an odd ``value`` and what follows from it."""
        text = f"{key} = {short(value)}: {what}"
        if text not in self.warnings:
            self.warnings.append(text)


@dataclass(frozen=True)
class Block:
    """A quantisation block and where it was found.

    Parameters
    ----------
    data
        The JSON object.
    where
        Key or file, for notes.
    notes
        Collector shared by the whole detection.
    context
        The merged config, for the few facts that live outside the block.
    """

    data: Mapping[str, Any]
    where: str
    notes: Notes
    context: Mapping[str, Any]

    def sub(self, data: Mapping[str, Any], where: str) -> Block:
        """Return a nested object as a block of its own."""
        return Block(data, f"{self.where}.{where}", self.notes, self.context)

    def warn(self, key: str, value: object, what: str) -> None:
        """Note something odd under ``key``."""
        self.notes.warn(f"{self.where}.{key}", value, what)

    def find(self, *keys: str) -> tuple[str, Any]:
        """Return the first key that is present and not null, with its value; else the first key and None."""
        return next(((k, self.data[k]) for k in keys if self.data.get(k) is not None), (keys[0], None))

    def text(self, *keys: str) -> str:
        """Return a string in lower case; empty where missing or odd."""
        key, value = self.find(*keys)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.warn(key, value, "is no string and was ignored")
            return ""
        return value.strip().lower()

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean; ``default`` where missing or odd."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool) and value not in (0, 1):
            self.warn(key, value, f"is neither true nor false; {str(default).lower()} is assumed")
            return default
        return bool(value)

    def number(self, *keys: str, default: int | None = None) -> int | None:
        """Return a whole number (also from a decimal string, noted); ``default`` if missing; None (noted) if odd."""
        key, value = self.find(*keys)
        if value is None:
            return default
        if isinstance(value, str) and _DECIMAL.fullmatch(value) and len(value) < 12:
            self.warn(key, value, f"is a string; read as {int(value)}")
            return int(value)
        whole = type(value) is int or (isinstance(value, float) and math.isfinite(value) and value == int(value))
        if not whole or abs(value) > MAX_GROUP:
            self.warn(key, value, "is no whole number of any use")
            return None
        return int(value)

    def bits(self, *keys: str, default: int | None = None, allowed: Iterable[int] = range(1, 9)) -> int | None:
        """Return the bits of a weight; 16 and 32 mean "not quantised"; None (noted) if missing, odd or absurd."""
        key, value = self.find(*keys)
        bits = self.number(*keys, default=default)
        choices = (*allowed, 16, 32)
        if value is None and bits is None:
            self.warn(key, None, "is missing and has no default")
        elif bits is not None and bits not in choices:
            self.warn(key, value, f"is none of {', '.join(map(str, choices))} bits; ignored")
            return None
        return bits

    def group(self, *keys: str, default: int) -> int:
        """Return the group size; -1 for one per channel; ``default`` where missing or odd."""
        key, value = self.find(*keys)
        size = self.number(*keys, default=default)
        if size is None or not (size == -1 or 1 <= size <= MAX_GROUP):
            self.warn(key, value, f"is no group size; {default} is assumed")
            return default
        return size

    def group_or_block(self, key: str, default: int = 128) -> int:
        """Return a group size that may be given as the two sides of a block."""
        shape = self.block_shape(key) if isinstance(self.data.get(key), list | tuple) else None
        return shape[0] * shape[1] if shape else self.group(key, default=default)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return a nested object; empty where missing or odd."""
        value = self.data.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.warn(key, value, "is no object and was ignored")
            return {}
        return value

    def names(self, *keys: str) -> list[str]:
        """Return module names or patterns under all of ``keys``; whatever is no string is noted and left out."""
        found: list[str] = []
        for key in keys:
            value = self.data.get(key)
            if value is None:
                continue
            items = [value] if isinstance(value, str) else value
            if not isinstance(items, list | tuple):
                self.warn(key, value, "is no list of module names and was ignored")
                continue
            found += [v for v in items if isinstance(v, str) and v]
            odd = [v for v in items if not isinstance(v, str)]
            if odd:
                self.warn(key, odd, "are no module names and were left out")
        return found

    def block_shape(self, key: str) -> tuple[int, int] | None:
        """Return a (rows, columns) pair of positive numbers; None where missing or (noted) odd."""
        value = self.data.get(key)
        if value is None:
            return None
        if (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(type(v) is int and 1 <= v <= MAX_GROUP for v in value)
        ):
            return (value[0], value[1])
        self.warn(key, value, "is no pair of positive numbers; one scale per matrix is assumed")
        return None
