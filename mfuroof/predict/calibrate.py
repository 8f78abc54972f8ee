"""Calibration from tables: measured steps, or serving points, in the columns of the predictions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfuroof._boundary import Problems, choice
from mfuroof._types import F64
from mfuroof.calibration import DEFAULT_FIT, PARAMETERS, Calibration, Observations, calibration_of
from mfuroof.calibration.fit import NEUTRAL, Linear
from mfuroof.errors import InputError, MfuroofWarning, Problem
from mfuroof.params import CostParams
from mfuroof.predict.rows import Rows, is_blank
from mfuroof.predict.serving import predict_serving
from mfuroof.predict.steps import predict_steps
from mfuroof.units import MS, US

__all__ = ["QUANTITIES", "calibrate_table"]

QUANTITIES = ("step_time", "tpot", "ttft")
"""What may have been measured: a column of that name with ``_s``, ``_ms`` or ``_us``."""
FITTED = ("step_time", "tpot")
"""What is fitted to unless asked otherwise: TTFT under load is a matter of queues, not of overheads."""
UNITS = {"s": 1.0, "ms": MS, "us": US}
STEPS = {"kernel_time_factor": 0.05, "step_overhead_s": 1e-4, "layer_overhead_s": 1e-6, "sequence_overhead_s": 1e-6}
"""Changes of the parameters by which predictions are differentiated."""


def calibrate_table(
    table: pa.Table,
    fit: Sequence[str] = DEFAULT_FIT,
    *,
    quantities: Sequence[str] = FITTED,
    params: CostParams | None = None,
    origin: str = "",
) -> Calibration:
    """Fit overheads to a table of measurements.

    Parameters
    ----------
    table
        Steps: the columns of `predict_steps` and ``step_time_s``. Or serving points: those of `predict_serving` and
        ``tpot_s``, ``ttft_s`` or both. Times may be in ``_ms`` or ``_us`` instead; a blank was not measured.
    fit
        Which of `PARAMETERS` to fit; the others keep their neutral values (factor 1, overheads 0).
    quantities
        Which of `QUANTITIES` to fit to; others in the table are reported beside them.
    params
        Conventions of the kernels cost; their overheads are kept out of the fit.
    origin
        Where the measurements come from, kept in the result.

    Returns
    -------
    Calibration
        Residuals by model, GPU and engine; each model, GPU and engine held out in turn.

    Raises
    ------
    InputError
        No measured column or one in two units, times that are no positive numbers, no row that can be predicted, or
        nothing to fit (to).
    UnknownNameError
        A name in ``fit`` or ``quantities`` is not known.

    Warns
    -----
    MfuroofWarning
        Rows could not be predicted and are left out; the data do not determine a parameter.
    """
    names = [choice("parameter", name, PARAMETERS) for name in dict.fromkeys(fit)]
    wanted = [choice("quantity", name, QUANTITIES) for name in dict.fromkeys(quantities)]
    if not names:
        raise InputError(Problem("fit", "no parameter", f"some of {', '.join(PARAMETERS)}"))
    rows = Rows(table)
    measured = _measured(rows)
    if not set(measured) & set(wanted):
        expected = f"a measured column of {', '.join(wanted)}, with _s, _ms or _us"
        raise InputError(Problem("table", f"measured {', '.join(measured) or 'nothing'}", expected))
    if "step_time" in measured and len(measured) > 1:
        expected = "steps or serving points in one table"
        raise InputError(Problem("table", f"measured {', '.join(measured)}", expected))
    asked = _Asked(rows, "step_time" in measured, tuple(measured), params or CostParams())
    own, errors = asked.predicted(asked.params)
    usable = {name: np.isfinite(times) & np.isfinite(own[name]) for name, times in measured.items()}
    _report(errors, np.logical_or.reduce([np.isfinite(t) for t in measured.values()]), usable)

    def flat(of: dict[str, F64]) -> F64:
        return np.concatenate([of[name][kept] for name, kept in usable.items()])

    known: list[F64] = []  # the slopes of steps hardly change

    def linearised(values: F64) -> Linear:
        at = flat(asked.predicted(asked.with_values(names, values))[0])
        if not (known and asked.steps):
            slopes = []
            for i, name in enumerate(names):
                there = values + STEPS[name] * (np.arange(values.size) == i)
                moved = flat(asked.predicted(asked.with_values(names, there))[0])
                slopes.append((moved - at) / STEPS[name])
            known[:] = [np.stack(slopes, axis=1)]
        return Linear(at - known[0] @ values, known[0])

    labels = {name: _label(rows, name) for name in ("model", "gpu", "engine")}
    short = [[part.rsplit("/", 1)[-1] for part in parts] for parts in zip(*labels.values(), strict=True)]
    group = np.array([" ".join(parts) for parts in short], dtype=object)
    several = len(measured) > 1
    groups = [group[kept] + (f" {name}" if several else "") for name, kept in usable.items()]
    seen = Observations(
        flat(measured),
        flat(own),
        linearised,
        {
            "group": np.concatenate(groups),
            **{name: np.concatenate([found[kept] for kept in usable.values()]) for name, found in labels.items()},
        },
        np.concatenate([np.full(int(kept.sum()), name in wanted) for name, kept in usable.items()]),
    )
    if not seen.fitted.any():
        raise InputError(Problem("table", "no row that can be predicted and was measured", "at least one"))
    return calibration_of(seen, names, origin, {"quantities": [name for name in measured if name in wanted]})


@dataclass(frozen=True, eq=False)
class _Asked:
    """The configurations of a table, without what was measured of them."""

    rows: Rows
    steps: bool
    quantities: tuple[str, ...]
    params: CostParams

    def with_values(self, names: Sequence[str], values: F64) -> CostParams:
        """Return the conventions with these overheads in place of the engine's own."""
        given: dict[str, Any] = {**NEUTRAL, **dict(zip(names, values.tolist(), strict=True))}
        return replace(self.params, engine_overheads=False, **given)

    def predicted(self, params: CostParams) -> tuple[dict[str, F64], list[str | None]]:
        """Return predictions by quantity (n,), NaN where there is none, and why. [s]"""
        columns = [f"{name}_{unit}" for name in QUANTITIES for unit in UNITS if self.rows.has(f"{name}_{unit}")]
        table = self.rows.table.drop_columns(columns)
        answer = predict_steps(table, params=params) if self.steps else predict_serving(table, params=params)
        found: dict[str, F64] = {}
        for name in self.quantities:
            values = answer.column(f"{name}_s").to_pylist()
            found[name] = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        return found, answer.column("error").to_pylist()


def _measured(rows: Rows) -> dict[str, F64]:
    """Return the measured times of a table by quantity, NaN where a cell is blank. [s]"""
    problems = Problems()
    out: dict[str, F64] = {}
    for name in QUANTITIES:
        columns = {unit: f"{name}_{unit}" for unit in UNITS if rows.has(f"{name}_{unit}")}
        if len(columns) > 1:
            problems.add("table", f"columns {', '.join(columns.values())}", "one of them")
        for unit, column in list(columns.items())[:1]:
            out[name] = np.array(
                [
                    np.nan
                    if is_blank(value)
                    else problems.number(f"{column}, row {i + 1}", value, 0.0, open_low=True) * UNITS[unit]
                    for i, value in enumerate(rows.table.column(column).to_pylist())
                ],
                dtype=np.float64,
            )
    problems.raise_if_any()
    return out


def _label(rows: Rows, name: str) -> NDArray[Any]:
    return np.array(rows.texts(name, "vllm" if name == "engine" else ""), dtype=object)


def _report(errors: list[str | None], measured: NDArray[np.bool_], usable: dict[str, NDArray[np.bool_]]) -> None:
    """Say which measured rows are left out because they cannot be predicted; raise if all are."""
    lost = measured & ~np.logical_or.reduce(list(usable.values()))
    if not lost.any():
        return
    first = int(np.flatnonzero(lost)[0])
    reason = f"row {first + 1}: {errors[first] or 'no prediction'}"
    if lost.sum() == measured.sum():
        raise InputError(Problem("table", f"no row that can be predicted ({reason})", "at least one"))
    text = f"{int(lost.sum())} of {int(measured.sum())} measured rows cannot be predicted and are left out; {reason}"
    warnings.warn(text, MfuroofWarning, stacklevel=3)
