"""Numbers with units, and names with numbers, as they are typed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mfuroof.errors import InputError, Problem
from mfuroof.units import MS, US

__all__ = ["prices_of", "seconds"]

_UNITS = {"s": 1.0, "ms": MS, "us": US}
_TIME = re.compile(r"\s*(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>[a-z]+)\s*")


def seconds(option: str, text: str) -> float:
    """Return a time such as ``30ms`` or ``0.03s``. [s]

    Raises
    ------
    InputError
        No positive number with a unit of time behind it.
    """
    match = _TIME.fullmatch(text)
    if match is None or match["unit"] not in _UNITS or float(match["number"]) <= 0:
        raise InputError(Problem(option, repr(text), "a time above 0 with its unit: 30ms, 0.03s or 500us"))
    return float(match["number"]) * _UNITS[match["unit"]]


def prices_of(option: str, texts: Sequence[str]) -> dict[str, float] | None:
    """Return prices such as ``h100_sxm=2.5,l40s=0.9`` by GPU; None where there are none. [currency/h]

    Raises
    ------
    InputError
        A part that is no name, ``=`` and number, or a GPU named twice.
    """
    found: dict[str, float] = {}
    for part in (p.strip() for text in texts for p in text.split(",")):
        name, sign, number = part.partition("=")
        try:
            price = float(number)
        except ValueError:
            sign, price = "", 0.0
        if not sign or not name.strip() or name.strip() in found:
            raise InputError(Problem(option, repr(part), "GPU=PRICE with each GPU once, such as h100_sxm=2.5"))
        found[name.strip()] = price
    return found or None
