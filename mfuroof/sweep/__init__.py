"""Sweeps over millions of step shapes: a declarative grid in, Arrow or one Parquet file and a summary out."""

from mfuroof.sweep.axes import axis_values
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.runner import run_sweep, sweep_batches
from mfuroof.sweep.summary import CaseSummary, Pick, SweepSummary

__all__ = ["CaseSummary", "Pick", "Sweep", "SweepSummary", "axis_values", "run_sweep", "sweep_batches"]
