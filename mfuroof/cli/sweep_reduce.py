"""Reductions from the options of ``mfuroof sweep``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mfuroof.errors import InputError, Problem

if TYPE_CHECKING:
    from mfuroof.sweep.reduction import Reduction

__all__ = ["reductions_of"]

_EDGES = re.compile(r"(?P<column>\w+)=(?P<low>[^:]+):(?P<high>[^:]+):(?P<kind>lin|log)(?P<count>\d{1,6})")
_SPELLING = "COLUMN=FROM:TO:linN or logN, such as step_time_s=0.001:1:log31"


def reductions_of(
    best: str | None,
    top: int,
    pareto: str | None,
    histogram: list[str] | None,
    by: str,
    having: str | None,
    even_if_unfit: bool = False,
) -> dict[str, Reduction]:
    """Return what is to be kept, by name of the result; nothing where the rows themselves are.

    Raises
    ------
    InputError
        A spelling that is none, or groups and conditions without anything to keep.
    """
    from mfuroof.sweep import Histogram, Pareto, TopK

    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    fits_named = "fits" in groups or (having is not None and re.search(r"\bfits\b", having) is not None)
    must_fit = not (even_if_unfit or fits_named)
    out: dict[str, Any] = {}
    if best is not None:
        column, way = _directed("--best", best, "max")
        out["best"] = TopK(column, groups, top, way == "max", having, must_fit and column != "fits")
    if pareto is not None:
        goals = dict(_directed("--pareto", part, None) for part in pareto.split(",") if part.strip())
        out["pareto"] = Pareto(goals, groups, having, must_fit)
    for spec in histogram or ():
        column, edges = _edges(spec)
        out[f"histogram_{column}"] = Histogram(column, edges, groups, having)
    if not out and (groups or having is not None):
        option = "--by" if groups else "--having"
        raise InputError(Problem(option, "no reduction", "--best, --pareto or --histogram beside it"))
    if even_if_unfit and best is None and pareto is None:
        raise InputError(Problem("--even-if-unfit", "no choice", "--best or --pareto beside it"))
    return out


def _directed(option: str, text: str, usual: str | None) -> tuple[str, str]:
    column, _, way = text.strip().partition(":")
    way = way or usual or ""
    if way not in ("max", "min"):
        raise InputError(Problem(option, repr(text), "a column with :max or :min", f"For instance {column}:min."))
    return column, way


def _edges(spec: str) -> tuple[str, tuple[float, ...]]:
    import numpy as np

    match = _EDGES.fullmatch(spec.replace(" ", ""))
    if match is None:
        raise InputError(Problem("--histogram", repr(spec), _SPELLING))
    try:
        low, high, count = float(match["low"]), float(match["high"]), int(match["count"])
    except ValueError:
        raise InputError(Problem("--histogram", repr(spec), _SPELLING)) from None
    logarithmic = match["kind"] == "log"
    if not (np.isfinite([low, high]).all() and low < high and count >= 2 and (low > 0 or not logarithmic)):
        raise InputError(Problem("--histogram", repr(spec), "finite edges that rise, at least 2, above 0 for log"))
    points = np.geomspace(low, high, count) if logarithmic else np.linspace(low, high, count)
    return match["column"], tuple(points.tolist())
