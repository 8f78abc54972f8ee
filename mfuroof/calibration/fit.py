"""The fit itself: non-negative parameters of a linear model under a robust relative loss, and what data leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from mfuroof._types import F64

__all__ = ["NEUTRAL", "PARAMETERS", "Doubt", "Linear", "doubts", "fit_linear"]

PARAMETERS = ("kernel_time_factor", "step_overhead_s", "layer_overhead_s", "sequence_overhead_s")
"""What can be fitted, as fields of `CostParams`."""
NEUTRAL: Mapping[str, float] = MappingProxyType({name: float(name == "kernel_time_factor") for name in PARAMETERS})
"""Values that change nothing."""
LOSS_SCALE = 0.05
"""Relative error beyond which an error counts linearly, not by its square: well above the noise of step times."""
ALIKE = 1e-3
"""Share of a parameter's effect that no other parameter can imitate, below which data cannot tell them apart."""
VAGUE = 0.1
"""Standard error of a parameter, as a share of the typical time, above which it is called undetermined."""
NOTHING = 1e-7
"""Share of the typical time below which a fitted part of it is none."""
SIGMA = 1.4826
"""Standard deviation of normal noise over the median of its magnitude."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Predictions as a linear function of the fitted parameters: ``base + slopes @ values``.

    Attributes
    ----------
    base
        What does not depend on them (n,). [s]
    slopes
        Change of each prediction per unit of each parameter (n, p).
    """

    base: F64
    slopes: F64

    def at(self, values: F64) -> F64:
        """Return the predictions (n,). [s]"""
        return np.asarray(self.base + self.slopes @ values)


def fit_linear(linear: Linear, measured_s: F64, names: Sequence[str], rows: np.ndarray) -> F64:
    """Return the values (p,) that fit ``rows`` of the measurements best; a column without effect stays neutral."""
    from scipy.optimize import least_squares

    base, slopes, times = linear.base[rows], linear.slopes[rows], measured_s[rows]
    out = np.array([NEUTRAL[name] for name in names])
    size = np.median(np.abs(slopes), axis=0)
    size = np.where(size > 0, size, np.max(np.abs(slopes), axis=0, initial=0.0))
    live = size > 0
    if not live.any() or not times.size:
        return out
    base = base + slopes[:, ~live] @ out[~live]
    # In units of the typical time, so that seconds and factors are alike to the solver.
    scale = np.median(times) / size[live]

    def residuals(x: F64) -> F64:
        return np.asarray((base + slopes[:, live] @ (x * scale)) / times - 1.0)

    first = np.maximum(out[live] / scale, 1e-3)
    tight: dict[str, Any] = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-12)
    found = least_squares(residuals, first, bounds=(0.0, np.inf), loss="soft_l1", f_scale=LOSS_SCALE, **tight)
    out[live] = np.where(found.x > NOTHING, found.x, 0.0) * scale  # the solver stops just inside the bound
    return out


@dataclass(frozen=True)
class Doubt:
    """How far data determine one parameter.

    Attributes
    ----------
    name
        The parameter.
    standard_error
        Of its value, from the scatter of the residuals; inf where nothing holds it. [unit of the parameter]
    reason
        Why it is undetermined; empty where it is not.
    """

    name: str
    standard_error: float
    reason: str


def doubts(linear: Linear, measured_s: F64, values: F64, names: Sequence[str]) -> tuple[Doubt, ...]:
    """Return how far the measurements determine each parameter."""
    relative = linear.slopes / measured_s[:, None]
    noise = SIGMA * float(np.median(np.abs(linear.at(values) / measured_s - 1.0)))
    own = [_own_effect(relative, j) for j in range(len(names))]
    norms = np.linalg.norm(relative, axis=0)
    alike = [name for name, effect, norm in zip(names, own, norms, strict=True) if effect <= ALIKE * norm]
    found = []
    for name, effect, norm, column in zip(names, own, norms, relative.T, strict=True):
        error = noise / effect if effect > ALIKE * norm else np.inf
        reason = ""
        if norm == 0.0:
            reason = f"{name} has no effect on these data"
        elif not np.isfinite(error):
            reason = f"these data cannot tell {' and '.join(alike)} apart"
            if len(alike) == 1:
                reason = f"there are too few points to tell {name} from the others"
        elif error * float(np.median(np.abs(column))) > VAGUE:
            reason = f"these data leave {name} open by {error:.2g} either way"
        found.append(Doubt(name, float(error), reason))
    return tuple(found)


def _own_effect(relative: F64, j: int) -> float:
    """Return the norm of what column ``j`` has that no combination of the others imitates."""
    others = np.delete(relative, j, axis=1)
    column = relative[:, j]
    if others.shape[1]:
        scaled = others / np.maximum(np.linalg.norm(others, axis=0), 1e-300)
        column = column - scaled @ np.linalg.lstsq(scaled, column, rcond=None)[0]
    return float(np.linalg.norm(column))
