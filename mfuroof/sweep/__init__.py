"""Sweeps over millions of shapes: a declarative grid in; Arrow, Parquet or a reduction and a summary out."""

from mfuroof.sweep.axes import axis_values
from mfuroof.sweep.dataset import write_sweep
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.engine import Shard
from mfuroof.sweep.reduce_histogram import Histogram
from mfuroof.sweep.reduce_pareto import Pareto
from mfuroof.sweep.reduce_topk import TopK
from mfuroof.sweep.reduced import Reduced, reduce_sweep
from mfuroof.sweep.runner import run_sweep, sweep_batches
from mfuroof.sweep.shards import FolderState, folder_state, merge_shards
from mfuroof.sweep.summary import CaseSummary, Pick, SweepSummary

__all__ = [
    "CaseSummary",
    "FolderState",
    "Histogram",
    "Pareto",
    "Pick",
    "Reduced",
    "Shard",
    "Sweep",
    "SweepSummary",
    "TopK",
    "axis_values",
    "folder_state",
    "merge_shards",
    "reduce_sweep",
    "run_sweep",
    "sweep_batches",
    "write_sweep",
]
