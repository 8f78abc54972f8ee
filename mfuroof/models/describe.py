"""A model in words: one line for a prompt, rows for a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mfuroof.models.config import ModelConfig

__all__ = ["one_line", "rows"]


def count_text(n: float) -> str:
    """Return a count with three significant figures: 8.03B, 671B, 1.04T."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:g}"


def one_line(m: ModelConfig) -> str:
    """Return what a prompt shows."""
    size = count_text(m.total_params)
    if m.is_moe:
        size += f" ({count_text(m.active_params)} active)"
    q = m.quantization
    return (
        f"<ModelConfig {m.name or m.model_type or 'unnamed'}: {size} params, {m.num_hidden_layers} layers, "
        f"hidden {m.hidden_size}, {q.method if q.method != 'none' else m.dtype} weights {count_text(m.weight_bytes)}B>"
    )


def rows(m: ModelConfig) -> list[tuple[str, str]]:
    """Return (label, value) rows: sizes, layers, components, precision."""
    return [("name", m.name)]
