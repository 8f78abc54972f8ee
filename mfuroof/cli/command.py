"""How a function becomes a command: its docstring is the help text, examples stand below the options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import typer

__all__ = ["add_command"]

WIDTH = 74
"""Longest line of an example: what a terminal of 80 columns shows unbroken."""


def add_command(app: typer.Typer, name: str, function: Callable[..., Any], examples: tuple[str, ...]) -> None:
    """Add ``function`` to ``app`` under ``name``; line breaks within a paragraph of its docstring do not count."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for example in examples for line in _lines(example))
    app.command(name, help=text, epilog=epilog)(function)


def _lines(example: str) -> list[str]:
    """Return a command line in pieces that a shell takes as one: a long one goes on behind a backslash."""
    lines = [""]
    for part in re.split(r" (?=--|-o )", example):  # an option stays with its value
        if not lines[-1]:
            lines[-1] = part
        elif len(lines[-1]) + len(part) + 3 <= WIDTH:
            lines[-1] += f" {part}"
        else:
            lines[-1] += " \\"
            lines.append(f"    {part}")
    return lines
