"""Fit the few overheads that no kernel table holds to measurements, and keep them in a file.

The model of a step is ``t = f K + a + l L + s S``: K the time of its kernels, L the model's layers, S the sequences
that emit a token. All four parameters have a physical meaning and none may be negative; they are fitted to relative
errors under a loss that outliers do not dominate.
"""

from mfuroof.calibration.fit import PARAMETERS
from mfuroof.calibration.folds import Observations, calibration_of
from mfuroof.calibration.record import Calibration
from mfuroof.calibration.steps import DEFAULT_FIT, Measured, calibrate

__all__ = ["DEFAULT_FIT", "PARAMETERS", "Calibration", "Measured", "Observations", "calibrate", "calibration_of"]
