"""From observations to a calibration: the fit, its residuals by group, and what it says of what it has not seen."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfuroof._types import F64
from mfuroof._version import __version__
from mfuroof.calibration.fit import NEUTRAL, Linear, doubts, fit_linear
from mfuroof.calibration.record import Calibration
from mfuroof.errors import MfuroofWarning

__all__ = ["Observations", "calibration_of"]

ROUNDS = 5
"""Linearisations: steps are linear in the parameters to 0.2 % (monotone repair pools less of a curve that an overhead
makes steeper), serving figures to a few percent."""
SETTLED = 1e-4
"""Relative change of the typical prediction below which the parameters have settled."""
FOLDS = ("model", "gpu", "engine")


@dataclass(frozen=True, eq=False)
class Observations:
    """What was measured, and how it is predicted.

    Attributes
    ----------
    measured_s
        Measured times (n,). [s]
    uncalibrated_s
        Predictions with the engine's own overheads, for comparison (n,). [s]
    linearised
        Given values of the fitted parameters (p,), returns predictions around them, exact at them.
    labels
        ``group`` and what else residuals are reported by, each (n,) of str.
    fitted
        Which points the parameters are fitted to (n,); the others are only reported.
    """

    measured_s: F64
    uncalibrated_s: F64
    linearised: Callable[[F64], Linear]
    labels: Mapping[str, NDArray[Any]]
    fitted: NDArray[np.bool_]


def calibration_of(seen: Observations, names: Sequence[str], origin: str, extra: Mapping[str, Any]) -> Calibration:
    """Fit ``names`` to observations; hold each model, GPU, engine and group out in turn.

    Warns
    -----
    MfuroofWarning
        The data do not determine a parameter; the text says which and why.
    """
    values = np.array([NEUTRAL[name] for name in names])
    linear = seen.linearised(values)
    for _ in range(ROUNDS):
        before = linear.at(values)
        values = fit_linear(linear, seen.measured_s, names, seen.fitted)
        moved = np.abs(linear.at(values) / before - 1.0)
        linear = seen.linearised(values)
        if np.median(moved) < SETTLED:
            break
    rows = np.flatnonzero(seen.fitted)
    doubtful = doubts(Linear(linear.base[rows], linear.slopes[rows]), seen.measured_s[rows], values, names)
    for reason in dict.fromkeys(doubt.reason for doubt in doubtful if doubt.reason):
        text = f"{reason}: add other models, batch sizes or phases, or fit fewer parameters"
        warnings.warn(text, MfuroofWarning, stacklevel=3)
    predicted = linear.at(values)

    def by(column: str, times: F64) -> dict[str, dict[str, float]]:
        found = seen.labels[column]
        return {str(name): _summary(times, seen.measured_s, found == name) for name in dict.fromkeys(found.tolist())}

    def left_out(column: str) -> dict[str, dict[str, float]]:
        found = seen.labels[column]
        distinct = list(dict.fromkeys(found.tolist()))
        out: dict[str, dict[str, float]] = {}
        for name in distinct if len(distinct) > 1 else []:
            others, own = seen.fitted & (found != name), seen.fitted & (found == name)
            if others.any() and own.any():
                without = fit_linear(linear, seen.measured_s, names, others)
                out[str(name)] = _summary(linear.at(without), seen.measured_s, own)
        return out

    provenance = {
        "origin": origin,
        "points": int(seen.fitted.sum()),
        "fitted": list(names),
        **{name: list(dict.fromkeys(map(str, seen.labels[name].tolist()))) for name in FOLDS if name in seen.labels},
        **extra,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
    }
    return Calibration(
        values=dict(zip(names, values.tolist(), strict=True)),
        standard_errors={d.name: d.standard_error for d in doubtful if np.isfinite(d.standard_error)},
        undetermined={d.name: d.reason for d in doubtful if d.reason},
        errors={"all": _summary(predicted, seen.measured_s, seen.fitted), **by("group", predicted)},
        uncalibrated={
            "all": _summary(seen.uncalibrated_s, seen.measured_s, seen.fitted),
            **by("group", seen.uncalibrated_s),
        },
        held_out=left_out("group"),
        folds={name: found for name in FOLDS if name in seen.labels and (found := left_out(name))},
        provenance=provenance,
    )


def _summary(predicted: F64, measured: F64, rows: NDArray[np.bool_]) -> dict[str, float]:
    error = predicted[rows] / measured[rows] - 1.0
    return {
        "count": float(rows.sum()),
        "mean": float(np.abs(error).mean()),
        "median": float(np.median(np.abs(error))),
        "bias": float(error.mean()),
    }
