"""How a function becomes a command: its docstring is the help text, examples stand below the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer

__all__ = ["add_command"]


def add_command(app: typer.Typer, name: str, function: Callable[..., Any], examples: tuple[str, ...]) -> None:
    """Add ``function`` to ``app`` under ``name``; line breaks within a paragraph of its docstring do not count."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)
    app.command(name, help=text, epilog=epilog)(function)
