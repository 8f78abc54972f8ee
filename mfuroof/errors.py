"""Typed errors: every problem a caller can cause says where, what was found, what was expected and the remedy.

The package raises nothing else on bad input: a foreign traceback is a defect of ours.
Warnings are `MfuroofWarning`, so that callers can filter them by class.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "ConfigError",
    "InputError",
    "MfuroofError",
    "MfuroofWarning",
    "MissingTableError",
    "OutputError",
    "Problem",
    "TableFormatError",
    "UnknownNameError",
    "reason",
]


MOST_LISTED = 12
"""Known names that an error lists where none is near, and problems that its text spells out."""
MOST_VALUES = 5
"""Wrong values that are listed where the same was expected of all of them."""


class MfuroofWarning(UserWarning):
    """Something was odd but has a defined meaning; the text says what was assumed."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input."""

    where: str
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: found {self.found}, expected {self.expected}"
        return f"{text}. {self.remedy}" if self.remedy else text


class MfuroofError(Exception):
    """Base class of every error this package raises."""


class InputError(MfuroofError, ValueError):
    """An argument or a field is out of range; `problems` lists all that were found in one call."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(_told(self.problems)))


class ConfigError(InputError):
    """A model configuration cannot be represented; the problem names the key."""


class TableFormatError(InputError):
    """A table file is damaged or foreign; the problem names file, row and column."""


class UnknownNameError(MfuroofError, LookupError):
    """A name of a GPU, model, engine or option is not known; the text names the nearest known ones."""

    def __init__(self, kind: str, name: object, known: Iterable[str], remedy: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        self.nearest = nearest_names(str(name), self.known)
        listed = ", ".join(self.known[:MOST_LISTED])
        more = f" and {len(self.known) - MOST_LISTED} more" if len(self.known) > MOST_LISTED else ""
        hint = f"did you mean {', '.join(self.nearest)}?" if self.nearest else f"known: {listed}{more}."
        super().__init__(f"unknown {kind} {name!r}; {hint}" + (f" {remedy}" if remedy else ""))


class MissingTableError(MfuroofError, LookupError):
    """No measured table covers what was asked; the text says what was sought, what exists and the way out."""

    def __init__(self, sought: str, exists: Sequence[str], remedy: str = "") -> None:
        self.sought, self.exists, self.remedy = sought, tuple(exists), remedy
        have = "; ".join(self.exists) if self.exists else "nothing of this family"
        super().__init__(f"no measured table for {sought}; there is: {have}" + (f". {remedy}" if remedy else ""))


class OutputError(MfuroofError, OSError):
    """An output could not be written; nothing was left under the final name."""


def reason(error: BaseException) -> str:
    """Return what a foreign exception says; of the operating system's, without number and path."""
    system = error.strerror if isinstance(error, OSError) else None
    return system or f"{type(error).__name__}: {error}"


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return up to ``count`` known names that look like ``name``, ignoring case and punctuation."""
    folded = {_fold(k): k for k in known}
    return tuple(folded[f] for f in difflib.get_close_matches(_fold(name), folded, n=count, cutoff=0.5))


def _fold(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _told(problems: Sequence[Problem]) -> list[str]:
    """Return problems in words; those that expect the same of one place make one line."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for p in problems:
        found.setdefault((p.where, p.expected, p.remedy), []).append(p.found)
    lines = []
    for (where, expected, remedy), values in list(found.items())[:MOST_LISTED]:
        more = f" and {len(values) - MOST_VALUES:,} more" if len(values) > MOST_VALUES else ""
        lines.append(str(Problem(where, ", ".join(values[:MOST_VALUES]) + more, expected, remedy)))
    return [*lines, f"and {len(found) - MOST_LISTED:,} more problems"] if len(found) > MOST_LISTED else lines
