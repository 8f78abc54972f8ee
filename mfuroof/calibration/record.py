"""`Calibration`: fitted overheads, how well they hold, and the file they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mfuroof._boundary import Problems
from mfuroof._files import write_atomically
from mfuroof.calibration.fit import NEUTRAL, PARAMETERS
from mfuroof.errors import Problem, TableFormatError, reason
from mfuroof.params import CostParams
from mfuroof.units import MS

__all__ = ["Calibration"]

FORMAT = "mfuroof.calibration"

Summaries = dict[str, dict[str, float]]
"""Name of a group to count, mean and median absolute relative error, and bias."""


@dataclass(frozen=True, repr=False)
class Calibration:
    """Fitted overheads and how well they hold.

    Attributes
    ----------
    values
        Fitted parameters, by name of `PARAMETERS`. [s, or a factor]
    standard_errors
        Of the values, from the scatter of the residuals; left out where nothing holds a parameter.
    undetermined
        Parameters that the data leave open, with the reason.
    errors, uncalibrated
        Count, mean and median absolute relative error and bias by group, and ``"all"`` that was fitted: in sample,
        and with the engine's own overheads.
    held_out
        The same for each group when it was left out of the fit; empty with one group.
    folds
        The same for each model, GPU and engine left out, by ``"model"``, ``"gpu"``, ``"engine"``, where there are two
        or more.
    provenance
        Where the data came from, how many points, of what, when, and the version that fitted.
    """

    values: dict[str, float]
    standard_errors: dict[str, float]
    undetermined: dict[str, str]
    errors: Summaries
    uncalibrated: Summaries
    held_out: Summaries
    folds: dict[str, Summaries]
    provenance: dict[str, Any]

    def apply(self, params: CostParams | None = None) -> CostParams:
        """Return parameters with the fitted overheads in place of the engine's own.

        Those that were not fitted are at what changes nothing, as in the fit.
        """
        fitted: dict[str, Any] = {**NEUTRAL, **self.values}
        return replace(params or CostParams(), engine_overheads=False, **fitted)

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        write_atomically(path, (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises
        ------
        TableFormatError
            There is no such file, it is no calibration, or a value of it cannot be.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            found = reason(error)
            raise TableFormatError(Problem(str(path), found, "a saved calibration")) from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = f"format {data.get('format')!r}" if isinstance(data, dict) else f"a JSON {type(data).__name__}"
            remedy = "mfuroof calibrate --out writes one."
            raise TableFormatError(Problem(str(path), found, f"a saved calibration, format {FORMAT!r}", remedy))
        problems = Problems()
        parts: dict[str, Any] = {}
        for field in fields(cls):
            part = data.get(field.name)
            if isinstance(part, dict):
                parts[field.name] = part
            else:
                problems.add(f"{path}, {field.name}", "nothing" if part is None else repr(part)[:60], "an object")
        for name, value in parts.get("values", {}).items():
            if name not in PARAMETERS:
                problems.add(f"{path}, values", name, f"one of {', '.join(PARAMETERS)}")
            elif isinstance(value, bool) or not isinstance(value, int | float):
                problems.add(f"{path}, {name}", value, "a number")
            else:
                problems.number(f"{path}, {name}", value, 0.0)
        problems.raise_if_any(TableFormatError)
        return cls(**parts)

    def text(self) -> str:
        """Return the calibration for people: values, residuals in sample and held out, percent."""
        lines = []
        for name, value in self.values.items():
            error = self.standard_errors.get(name)
            scale, unit = (MS, " ms") if name.endswith("_s") else (1.0, "")
            spread = f" +- {error / scale:.2g}" if error is not None else ""
            open_ = "  (undetermined)" if name in self.undetermined else ""
            lines.append(f"{name:<20} {value / scale:.5g}{unit}{spread}{open_}")
        lines += ["", f"{'error [%]':<28}{'points':>8}{'mean':>8}{'median':>8}{'bias':>8}"]
        lines.append(_line("engine's own", self.uncalibrated.get("all")))
        lines += [_line(f"fitted, {name}", found) for name, found in self.errors.items()]
        lines += [_line(f"left out: {name}", found) for name, found in self.held_out.items()]
        for kind, folds in self.folds.items():
            lines += [_line(f"left out: {kind} {name}", found) for name, found in folds.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        fitted = ", ".join(f"{name}={value:.4g}" for name, value in self.values.items())
        whole = self.errors.get("all", {})
        found = ", ".join(f"{name} error {whole[name]:.1%}" for name in ("mean", "median") if name in whole)
        return f"Calibration({fitted}; {found})"


def _line(label: str, found: Mapping[str, float] | None) -> str:
    if not found:
        return label
    shares = [100.0 * found[name] for name in ("mean", "median", "bias")]
    start = f"{label:<28}" if len(label) <= 28 else f"{label}\n{'':<28}"
    return f"{start}{found['count']:>8.0f}{shares[0]:>8.1f}{shares[1]:>8.1f}{shares[2]:>8.1f}"
