"""Predictions for tables of configurations: many models, GPUs and shapes in one go.

A row that cannot be answered gets nulls and an ``error`` text; the others are answered.
"""

from mfuroof._table_files import read_table
from mfuroof.predict.files import check_target, write_table
from mfuroof.predict.serving import SERVING_COLUMNS, predict_serving
from mfuroof.predict.steps import STEP_COLUMNS, predict_steps

__all__ = [
    "SERVING_COLUMNS",
    "STEP_COLUMNS",
    "check_target",
    "predict_serving",
    "predict_steps",
    "read_table",
    "write_table",
]
