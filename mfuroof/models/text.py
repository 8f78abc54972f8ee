"""Values in messages: short, and safe for whatever a JSON file may hold."""

from __future__ import annotations

__all__ = ["short"]


def short(value: object, limit: int = 80) -> str:
    """Return ``repr(value)`` cut to ``limit`` characters; numbers too long to print are said to be so."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of more than 4300 digits; deep nesting
        text = f"a {type(value).__name__} too long to print"
    return text if len(text) <= limit else text[: limit - 3] + "..."
