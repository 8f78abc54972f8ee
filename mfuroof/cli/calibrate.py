"""``mfuroof calibrate``: a few overheads fitted to measured steps or serving points, kept in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json

__all__ = ["EXAMPLES", "calibrate"]

EXAMPLES = (
    "mfuroof calibrate measured_steps.csv --out calibration.json",
    "mfuroof calibrate serving.parquet --fit step_overhead_s --json",
    "mfuroof step MODEL --gpu h100 --decode-batch 8 --calibration calibration.json",
)


def calibrate(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="CSV or Parquet table of measured steps or serving points.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the calibration there, as JSON.")] = None,
    fit: Annotated[
        list[str] | None,
        typer.Option(
            "--fit",
            help="Parameter to fit, repeat for more: step_overhead_s, layer_overhead_s, sequence_overhead_s "
            "(these three by default), kernel_time_factor.",
        ),
    ] = None,
    quantity: Annotated[
        list[str] | None,
        typer.Option("--quantity", help="Measured quantity to fit to, repeat for more: step_time, tpot, ttft."),
    ] = None,
    json: o.Json = False,
) -> None:
    """Fit the overheads that no kernel table holds to your own measurements.

    Steps: the columns of mfuroof predict steps and a measured step_time_s. Serving points: those of mfuroof predict
    serving and measured tpot_s, ttft_s or both; TTFT is reported, and fitted only if asked for. Times may be in _ms or
    _us. Residuals are shown by model, GPU and engine, and for each of them left out of the fit.

    A step takes kernel_time_factor times its kernels + step_overhead_s + layer_overhead_s a layer +
    sequence_overhead_s a request that emits a token. The result replaces the engine's own overheads.
    """
    from dataclasses import asdict

    from mfuroof._files import refuse_irregular
    from mfuroof.calibration import DEFAULT_FIT
    from mfuroof.predict import read_table
    from mfuroof.predict.calibrate import FITTED, calibrate_table

    if out is not None:
        refuse_irregular(out)
    found = calibrate_table(
        read_table(source), tuple(fit or DEFAULT_FIT), quantities=tuple(quantity or FITTED), origin=source.name
    )
    if out is not None:
        found.save(out)
    if json:
        print_json({**asdict(found), **({"path": str(out)} if out is not None else {})})
        return
    print(found.text())
    if out is not None:
        print(f"\nwritten to {out}")
