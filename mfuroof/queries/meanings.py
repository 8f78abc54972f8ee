"""Units of columns, from the schema or from the name, and numbers as people read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mfuroof.units import GB, GIB, KIB, MIB, MS, NS, TERA, US

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["axis_label", "beyond", "field_meaning", "field_unit", "number", "quantity", "unit_by_name"]

_BY_SUFFIX = (
    ("tokens_per_s_per_gpu", "tokens/s"),
    ("tokens_per_s_per_user", "tokens/s"),
    ("tokens_per_s", "tokens/s"),
    ("requests_per_s", "requests/s"),
    ("flops_per_s", "FLOP/s"),
    ("bytes_per_s", "bytes/s"),
    ("_gb_per_s", "GB/s"),
    ("_tflops_per_s", "TFLOP/s"),
    ("_per_s", "1/s"),
    ("_s", "s"),
    ("_ms", "ms"),
    ("_us", "us"),
    ("_ns", "ns"),
    ("_bytes", "bytes"),
    ("_kib", "KiB"),
    ("_mib", "MiB"),
    ("_gib", "GiB"),
    ("_flops", "FLOP"),
    ("_tokens", "tokens"),
    ("_len", "tokens"),
    ("_context", "tokens"),
    ("_batch", "requests"),
    ("batch_size", "requests"),
    ("concurrency", "requests"),
    ("_octaves", "octaves"),
    ("_utilization", "fraction"),
)
"""Endings of the names of this project's columns and what they say of the unit."""

_SECONDS = ((1.0, "s"), (MS, "ms"), (US, "us"), (NS, "ns"))
_BYTES = ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
_RATES = {"FLOP/s": ((TERA, "TFLOP/s"),), "bytes/s": ((GB, "GB/s"),), "s": _SECONDS, "bytes": _BYTES}


def unit_by_name(name: str) -> str:
    """Return the unit that the ending of a column's name states; empty where it states none."""
    return next((unit for suffix, unit in _BY_SUFFIX if name.endswith(suffix)), "")


def field_unit(field: pa.Field) -> str:
    """Return the unit that a schema states for a column, or its name; empty where neither does, or it has none."""
    stated = (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace")
    return "" if stated == "-" else stated or unit_by_name(field.name)


def field_meaning(field: pa.Field) -> str:
    """Return what a schema says a column is; empty where it says nothing."""
    return (field.metadata or {}).get(b"meaning", b"").decode("utf-8", "replace")


def axis_label(field: pa.Field) -> str:
    """Return the name of a column with its unit in brackets, for a picture."""
    unit = field_unit(field)
    return f"{field.name} [{unit}]" if unit else field.name


def quantity(value: Any, unit: str = "", digits: int = 4) -> str:
    """Return a number with its unit, scaled for reading: 0.0298 s is ``29.8 ms``.

    Examples
    --------
    >>> quantity(0.0298, "s"), quantity(34567.8, "tokens/s"), quantity(256, "requests")
    ('29.8 ms', '34,568 tokens/s', '256 requests')
    """
    if value is None:
        return "none"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    for factor, name in _RATES.get(unit, ()):
        if abs(value) >= factor:
            value, unit = value / factor, name
            break
    return f"{number(value, digits)} {unit}".strip()


def beyond(value: float, limit: float, unit: str) -> str:
    """Return a quantity with as many digits as tell it from a limit.

    Examples
    --------
    >>> beyond(0.10004, 0.1, "s"), beyond(0.12, 0.1, "s")
    ('100.04 ms', '120 ms')
    """
    texts = (quantity(value, unit, digits) for digits in range(4, 17))
    return next((text for text in texts if text != quantity(limit, unit)), quantity(value, unit))


def number(value: float, digits: int = 4) -> str:
    """Return a number with four significant digits, or all digits of a whole one, thousands separated."""
    if isinstance(value, int) or (digits == 4 and math.isfinite(value) and abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
