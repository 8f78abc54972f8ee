"""Short notation for long lists of module names: ``model.layers.{0-2,5}.mlp.gate`` stands for four names.

Checkpoints spell out thousands of names; the registry keeps them as ranges. `condense` is the inverse of
`expand_names` on lists and on objects keyed by names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["condense", "expand_names"]

_BRACES = re.compile(r"\{(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\}")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$|\*)")


def expand_names(value: Any) -> Any:
    """Return a JSON value with every ``{a-b,c}`` in list items and keys written out."""
    if isinstance(value, Mapping):
        return {name: expand_names(v) for k, v in value.items() for name in _expanded(k)}
    if isinstance(value, list):
        return [name for v in value for name in (_expanded(v) if isinstance(v, str) else [expand_names(v)])]
    return value


def _expanded(text: str) -> list[str]:
    match = _BRACES.search(text)
    if not match:
        return [text]
    head, tail = text[: match.start()], _expanded(text[match.end() :])
    return [f"{head}{i}{t}" for i in _numbers(match[1]) for t in tail]


def _numbers(spec: str) -> Iterable[int]:
    for part in spec.split(","):
        low, _, high = part.partition("-")
        yield from range(int(low), int(high or low) + 1)


def condense(names: Iterable[str]) -> list[str]:
    """Return names with runs of numbers folded, first in the last numbered place, then in the one before."""
    folded = list(dict.fromkeys(names))
    for place in (-1, -2):
        folded = _fold(folded, place)
    return folded


def _fold(names: list[str], place: int) -> list[str]:
    groups: dict[tuple[str, str], list[int]] = {}
    order: list[tuple[str, str] | str] = []
    for name in names:
        spots = list(_NUMBER.finditer(name))
        if len(spots) < -place or (place == -1 and len(spots) == 1 and False):
            order.append(name)
            continue
        spot = spots[place]
        key = (name[: spot.start()], name[spot.end() :])
        if key not in groups:
            order.append(key)
        groups.setdefault(key, []).append(int(spot[0]))
    return [k if isinstance(k, str) else f"{k[0]}{_spec(groups[k])}{k[1]}" for k in order]


def _spec(numbers: list[int]) -> str:
    ordered = sorted(set(numbers))
    if len(ordered) == 1:
        return str(ordered[0])
    runs: list[list[int]] = []
    for i in ordered:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return "{" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + "}"
