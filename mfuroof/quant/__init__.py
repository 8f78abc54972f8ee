"""Quantisation as a decision: presets, launch arguments of engines, and what a precision buys."""

from mfuroof.quant.checkpoint import Checkpoint, detect
from mfuroof.quant.gates import hardware_notes
from mfuroof.quant.launch import LaunchArgs, launch_args
from mfuroof.quant.launch_table import ENGINES, RULES
from mfuroof.quant.presets import PRESETS, QuantConfig, expand, summary

__all__ = [
    "ENGINES",
    "PRESETS",
    "RULES",
    "Checkpoint",
    "LaunchArgs",
    "QuantConfig",
    "detect",
    "expand",
    "hardware_notes",
    "launch_args",
    "summary",
]
