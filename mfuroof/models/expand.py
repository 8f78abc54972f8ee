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
    """Return names with runs of numbers folded: in the last place that still has a number, then in the one before.

    Examples
    --------
    >>> condense(["a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1", "c"])
    ['a.{0-1}.b.{0-1}', 'c']
    """
    names = list(dict.fromkeys(names))
    folded = _fold(names)
    while len(folded) < len(names):
        names, folded = folded, _fold(folded)
    return folded


def _fold(names: list[str]) -> list[str]:
    groups: dict[tuple[str, str], list[int]] = {}
    order: list[tuple[str, str] | str] = []
    for name in names:
        spots = list(_NUMBER.finditer(name))
        if not spots:
            order.append(name)
            continue
        key = (name[: spots[-1].start()], name[spots[-1].end() :])
        if key not in groups:
            order.append(key)
        groups.setdefault(key, []).append(int(spots[-1][0]))
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
