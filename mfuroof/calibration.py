"""Fit the few overheads that no kernel table holds to measured step times.

The model is ``t = f K + a + l L + s S``: K the time of a step's kernels, L its layers, S the sequences that emit a
token. All four parameters have a physical meaning and none may be negative; they are fitted to relative errors under a
loss that outliers do not dominate.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._boundary import Problems, choice
from mfuroof._files import write_atomically
from mfuroof._types import F64
from mfuroof._version import __version__
from mfuroof.batch import StepBatch
from mfuroof.costs.groups import groups_of
from mfuroof.errors import MfuroofWarning, Problem, TableFormatError
from mfuroof.params import CostParams
from mfuroof.step import StepEvaluator

__all__ = ["PARAMETERS", "Calibration", "Measured", "calibrate"]

PARAMETERS = ("kernel_time_factor", "step_overhead_s", "layer_overhead_s", "sequence_overhead_s")
"""What can be fitted, as fields of `CostParams`."""
LOSS_SCALE = 0.05
"""Relative error beyond which an error counts linearly, not by its square: well above the noise of step times."""
UNDETERMINED = 1e-6
"""Smallest eigenvalue share of the scaled normal matrix below which data cannot tell parameters apart."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured steps of one evaluator.

    Attributes
    ----------
    evaluator
        Bound with ``cost="kernels"``; its own overheads are kept out of the fit and replaced by it.
    batch
        Shapes of n steps.
    step_time_s
        Measured times (n,). [s]
    group
        Name by which residuals are reported and folds are held out, for instance the model.
    """

    evaluator: StepEvaluator
    batch: StepBatch
    step_time_s: F64
    group: str


@dataclass(frozen=True)
class Calibration:
    """Fitted overheads and how well they hold.

    Attributes
    ----------
    values
        Fitted parameters, by name of `PARAMETERS`. [s]
    errors
        Mean and median absolute relative error and bias by group, and ``"all"``, in sample.
    held_out
        The same for each group when it was left out of the fit; empty with one group.
    provenance
        Where the data came from, how many points, and the version that fitted.
    """

    values: dict[str, float]
    errors: dict[str, dict[str, float]]
    held_out: dict[str, dict[str, float]]
    provenance: dict[str, Any]

    def apply(self, params: CostParams | None = None) -> CostParams:
        """Return parameters with the fitted overheads in place of the engine's own."""
        fitted: dict[str, Any] = dict(self.values)
        return replace(params or CostParams(), engine_overheads=False, **fitted)

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        write_atomically(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises
        ------
        TableFormatError
            The file is no calibration.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**{name: dict(data[name]) for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, TypeError) as error:
            found = f"{type(error).__name__}: {error}"
            raise TableFormatError(Problem(str(path), found, "a saved calibration")) from error

    def __repr__(self) -> str:
        fitted = ", ".join(f"{name}={value:.4g}" for name, value in self.values.items())
        whole = self.errors["all"]
        return f"Calibration({fitted}; mean error {whole['mean']:.1%}, median {whole['median']:.1%})"


def calibrate(
    measured: Sequence[Measured],
    fit: Sequence[str] = ("step_overhead_s", "layer_overhead_s", "sequence_overhead_s"),
    *,
    origin: str = "",
) -> Calibration:
    """Fit overheads to measured step times.

    Parameters
    ----------
    measured
        Measured steps by evaluator.
    fit
        Which of `PARAMETERS` to fit; the others keep their defaults (factor 1, overheads 0).
    origin
        Where the measurements come from, kept in the result.

    Raises
    ------
    InputError
        No data, times that are not positive, lengths that differ, or an evaluator of another cost.
    UnknownNameError
        A name in ``fit`` is no parameter.

    Warns
    -----
    MfuroofWarning
        The data cannot tell the fitted parameters apart (one model cannot separate step from layer overhead).
    """
    names = [choice("parameter", name, PARAMETERS) for name in dict.fromkeys(fit)]
    _check(measured)
    parts = [_features(m) for m in measured]
    features, times = np.concatenate([f for f, _ in parts]), np.concatenate([t for _, t in parts])
    labels = np.concatenate([[m.group] * len(m.batch) for m in measured])
    _warn_if_undetermined(features, times, names)
    everything = np.ones(times.size, bool)
    values = _fit(features, times, names, everything)
    groups = list(dict.fromkeys(labels.tolist()))
    errors = {"all": _summary(features, times, values, everything)}
    errors |= {g: _summary(features, times, values, labels == g) for g in groups}
    held_out = {}
    if len(groups) > 1:
        for g in groups:
            without = _fit(features, times, names, labels != g)
            held_out[g] = _summary(features, times, without, labels == g)
    found = dict(zip(PARAMETERS, values.tolist(), strict=True))
    provenance = {"origin": origin, "points": int(times.size), "fitted": names, "version": __version__}
    return Calibration({k: found[k] for k in names}, errors, held_out, provenance)


def _check(measured: Sequence[Measured]) -> None:
    problems = Problems()
    if not measured or not sum(len(m.batch) for m in measured):
        problems.add("measured", "no steps", "measured steps")
    for m in measured:
        times = np.asarray(m.step_time_s, dtype=np.float64)
        if m.evaluator.cost != "kernels":
            problems.add(f"{m.group}: evaluator", m.evaluator.cost, 'cost="kernels"')
        if times.shape != (len(m.batch),):
            problems.add(f"{m.group}: step_time_s", f"shape {times.shape}", f"({len(m.batch)},) as in the batch")
        elif not (np.isfinite(times) & (times > 0)).all():
            problems.add(f"{m.group}: step_time_s", "times that are not positive", "positive seconds")
    problems.raise_if_any()


def _features(m: Measured) -> tuple[F64, F64]:
    """Return (n, 4): kernel time, 1, layers, sequences, in the order of `PARAMETERS`; and the times."""
    e = m.evaluator
    bare = StepEvaluator(
        e.model,
        e.hardware,
        e.parallel.tp_size,
        e.parallel.pp_size,
        e.parallel.ep_size,
        e.parallel.dp_size,
        engine=e.engine,
        params=replace(e.params, engine_overheads=False, **_NEUTRAL),
    )
    n = len(m.batch)
    ones = np.ones(n)
    columns = [bare.step_time(m.batch), ones, ones * e.model.num_hidden_layers, groups_of(m.batch).sequences]
    return np.stack(columns, axis=1), np.asarray(m.step_time_s, dtype=np.float64)


_NEUTRAL: dict[str, Any] = dict.fromkeys(PARAMETERS, 0.0) | {"kernel_time_factor": 1.0}


def _fit(features: F64, times: F64, names: Sequence[str], rows: np.ndarray) -> F64:
    from scipy.optimize import least_squares

    free = [PARAMETERS.index(name) for name in names]
    start = np.array(list(_NEUTRAL.values()))
    # In units of the typical time, so that seconds and factors are alike to the solver.
    scale = np.median(times[rows]) / np.maximum(np.median(features[rows], axis=0), 1e-300)

    def residuals(x: F64) -> F64:
        full = start.copy()
        full[free] = x * scale[free]
        return (features[rows] @ full) / times[rows] - 1.0

    first = np.where(np.array(free) == 0, 1.0 / scale[0], 1e-3)
    found = least_squares(residuals, first, bounds=(0.0, np.inf), loss="soft_l1", f_scale=LOSS_SCALE)
    full = start.copy()
    full[free] = found.x * scale[free]
    return full


def _summary(features: F64, times: F64, values: F64, rows: np.ndarray) -> dict[str, float]:
    error = (features[rows] @ values) / times[rows] - 1.0
    return {
        "count": float(rows.sum()),
        "mean": float(np.abs(error).mean()),
        "median": float(np.median(np.abs(error))),
        "bias": float(error.mean()),
    }


def _warn_if_undetermined(features: F64, times: F64, names: Sequence[str]) -> None:
    free = [PARAMETERS.index(name) for name in names]
    relative = features[:, free] / times[:, None]
    relative = relative / np.maximum(np.linalg.norm(relative, axis=0), 1e-300)
    spectrum = np.linalg.svd(relative, compute_uv=False)
    if len(free) > features.shape[0] or spectrum[-1] ** 2 < UNDETERMINED * spectrum[0] ** 2:
        warnings.warn(
            f"the data cannot tell {', '.join(names)} apart: give other models and batch sizes, or fit fewer",
            MfuroofWarning,
            stacklevel=3,
        )

