"""Columns that follow from others: speed per user, GPU-hours and price per million tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64
from mfuroof.errors import InputError, Problem, UnknownNameError
from mfuroof.expressions import Column, Texts
from mfuroof.hardware import get_hardware

__all__ = ["CURRENCY", "Derived", "checked_prices", "derived_columns"]

CURRENCY = "currency"
"""Unit of prices: that of whoever gave them."""

_MILLION = 1e6
_SECONDS_PER_HOUR = 3600.0
_WHAT = {"output_tokens": "generated tokens", "tokens": "tokens"}


@dataclass(frozen=True)
class Derived:
    """A column computed from others.

    Attributes
    ----------
    needs
        Columns it reads.
    compute
        From these, in order, to its values.
    unit, meaning
        As in a schema.
    """

    needs: tuple[str, ...]
    compute: Callable[..., F64]
    unit: str
    meaning: str


def derived_columns(known: Collection[str], prices: Mapping[str, float] | None = None) -> dict[str, Derived]:
    """Return the columns that can be derived from those of a table and that it does not have itself.

    ``output_tokens_per_s_per_user`` is 1 / ``tpot_s``; ``gpu_hours_per_million_tokens`` follows from
    ``tokens_per_s_per_gpu`` and ``gpu_hours_per_million_output_tokens`` from ``output_tokens_per_s_per_gpu``; with
    ``prices`` and a column ``gpu`` there are ``price_per_million_tokens`` and ``price_per_million_output_tokens``.

    Parameters
    ----------
    known
        Names of the table's columns.
    prices
        Price of one GPU for an hour, by name, as `checked_prices` returns it. [currency/h]
    """
    found: dict[str, Derived] = {}
    if "tpot_s" in known:
        found["output_tokens_per_s_per_user"] = Derived(
            ("tpot_s",), _inverse, "tokens/s", "speed at which one user's answer is generated: 1 / tpot_s"
        )
    for tokens, what in _WHAT.items():
        rate = f"{tokens}_per_s_per_gpu"
        if rate not in known:
            continue
        found[f"gpu_hours_per_million_{tokens}"] = Derived(
            (rate,), _gpu_hours, "GPU h", f"GPU-hours spent on a million {what}"
        )
        if prices is not None and "gpu" in known:
            found[f"price_per_million_{tokens}"] = Derived(
                (rate, "gpu"), _priced(prices), CURRENCY, f"price of the GPU-hours spent on a million {what}"
            )
    return {name: column for name, column in found.items() if name not in known}


def checked_prices(prices: Any) -> dict[str, float] | None:
    """Return a mapping from GPU to price with the names of the catalogue; None for None.

    Raises
    ------
    UnknownNameError
        No such GPU.
    InputError
        A price that is no positive number, or two for one GPU.
    """
    if prices is None:
        return None
    problems = Problems()
    out: dict[str, float] = {}
    if not isinstance(prices, Mapping):
        problems.add("prices", type(prices).__name__, "a mapping from GPU to price per hour, {'h100_sxm': 2.5}")
        problems.raise_if_any()
    for given, price in prices.items():
        name = _catalogue_name(str(given))
        if name in out:
            problems.add(f"prices[{given}]", f"a second price of {name}", "one price for each GPU")
        out[name] = problems.number(f"prices[{given}]", price, 0.0, 1e9, open_low=True)
    problems.raise_if_any()
    return out


def _catalogue_name(given: str) -> str:
    """Return the catalogue's name of a GPU; a name that it does not have stays, if it looks like none it has."""
    try:
        return get_hardware(given).name
    except UnknownNameError as error:
        if error.nearest:
            raise
        return given  # a GPU of the caller's own


def _inverse(seconds: Column) -> F64:
    with np.errstate(divide="ignore"):
        return 1.0 / np.asarray(seconds, np.float64)


def _gpu_hours(rate: Column) -> F64:
    with np.errstate(divide="ignore"):
        return _MILLION / _SECONDS_PER_HOUR / np.asarray(rate, np.float64)


def _priced(prices: Mapping[str, float]) -> Callable[..., F64]:
    def price(rate: Column, gpu: Column) -> F64:
        if not isinstance(gpu, Texts):
            raise InputError(Problem("column gpu", "numbers", "names of GPUs"))
        used = {gpu.names[code] for code in np.unique(gpu.codes) if code >= 0}
        unpriced = sorted(used - set(prices))
        if unpriced:
            known = ", ".join(sorted(prices))
            raise InputError(
                Problem("prices", f"none for {', '.join(unpriced)}", f"one for each GPU; given: {known}", _REMEDY)
            )
        by_code = np.array([prices.get(name, np.nan) for name in gpu.names] + [np.nan])
        return _gpu_hours(rate) * by_code[gpu.codes]

    return price


_REMEDY = "Prices are the caller's: none is built in."
