"""Figures: functions that take and return matplotlib axes, with units on every axis.

They need matplotlib (``pip install 'mfuroof[plot]'``), which is imported when a function is called. Colours are told
apart by colour-blind readers, and every group has a mark or a hatching of its own for a print without colours.
"""

from mfuroof.plots.bars import breakdown
from mfuroof.plots.fronts import crossover, pareto
from mfuroof.plots.heatmap import step_heatmap, table_heatmap
from mfuroof.plots.kernels import kernel_heatmap
from mfuroof.plots.predicted import predicted_measured
from mfuroof.plots.resources import tornado
from mfuroof.plots.roofs import roofline
from mfuroof.plots.save import save_figure
from mfuroof.plots.tables import table_ratio

__all__ = [
    "breakdown",
    "crossover",
    "kernel_heatmap",
    "pareto",
    "predicted_measured",
    "roofline",
    "save_figure",
    "step_heatmap",
    "table_heatmap",
    "table_ratio",
    "tornado",
]
