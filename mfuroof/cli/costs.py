"""Cost family and parameters from the options that name them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mfuroof._boundary import choice
from mfuroof.errors import InputError, Problem

if TYPE_CHECKING:
    from mfuroof.params import CostParams

__all__ = ["PRESETS", "cost_and_params"]

PRESETS = {
    "aiconfigurator": "kernels",
    "blis": "constant_mfu",
    "blis_calibrated": "constant_mfu",
    "blis_mfu": "mfu_table",
    "blis_mfu_floor": "mfu_table",
    "infersim": "mfu_table",
}
"""Named presets and the cost family each belongs to."""


def cost_and_params(
    cost: str | None,
    preset: str | None,
    missing: str | None = None,
    mixed_batch_penalty: float | None = None,
    overlap_penalty: float | None = None,
    calibration: Path | None = None,
) -> tuple[str, CostParams]:
    """Return the cost family and its parameters.

    Raises
    ------
    UnknownNameError
        No such preset.
    InputError
        A preset of another cost family, a penalty or calibration that the family does not have, or a value out of
        range.
    TableFormatError
        The calibration is no file of ``mfuroof calibrate``.
    """
    from dataclasses import replace

    from mfuroof.params import CostParams

    params = CostParams()
    if preset is not None:
        name = choice("preset", preset.replace("-", "_"), PRESETS)
        if cost is not None and cost != PRESETS[name]:
            raise InputError(Problem("--cost", cost, f"{PRESETS[name]} with preset {name}", "Leave --cost out."))
        cost, params = PRESETS[name], getattr(CostParams, name)()
    cost = cost or "kernels"
    penalties = {"mixed_batch_penalty": mixed_batch_penalty, "overlap_penalty": overlap_penalty}
    changes: dict[str, object] = {name: value for name, value in penalties.items() if value is not None}
    if changes and cost == "kernels":
        option = f"--{next(iter(changes)).replace('_', '-')}"
        expected = "a roofline cost, whose compute time it slows"
        raise InputError(Problem(option, "cost kernels", expected, "Add --cost constant_mfu or mfu_table."))
    if missing is not None:
        changes["missing"] = missing
    if changes:
        params = replace(params, **changes)  # type: ignore[arg-type]
    if calibration is not None:
        if cost != "kernels":
            expected = "cost kernels, whose engine overheads it replaces"
            raise InputError(Problem("--calibration", f"cost {cost}", expected))
        from mfuroof.calibration import Calibration

        params = Calibration.load(calibration).apply(params)
    return cost, params
