"""Quantisation as a decision: presets, launch arguments of engines, and what a precision buys and costs."""

from mfuroof.precision.presets import PRESETS, QuantConfig, expand, summary
from mfuroof.quant.checkpoint import Checkpoint, detect
from mfuroof.quant.compare import compare
from mfuroof.quant.comparison import Comparison
from mfuroof.quant.gain import Crossover, Gains, crossover_batch, format_gains
from mfuroof.quant.gates import blocked_fields, hardware_notes
from mfuroof.quant.launch import LaunchArgs, launch_args
from mfuroof.quant.launch_table import ENGINES, RULES
from mfuroof.quant.regime import Regimes, gemm_intensity, gemm_ridge_tokens, regimes
from mfuroof.quant.risk import Compression, compress, prune_risk, quantise_risk
from mfuroof.quant.workload import Conventions, Workload, generation, roofline

__all__ = [
    "ENGINES",
    "PRESETS",
    "RULES",
    "Checkpoint",
    "Comparison",
    "Compression",
    "Conventions",
    "Crossover",
    "Gains",
    "LaunchArgs",
    "QuantConfig",
    "Regimes",
    "Workload",
    "blocked_fields",
    "compare",
    "compress",
    "crossover_batch",
    "detect",
    "expand",
    "format_gains",
    "gemm_intensity",
    "gemm_ridge_tokens",
    "generation",
    "hardware_notes",
    "launch_args",
    "prune_risk",
    "quantise_risk",
    "regimes",
    "roofline",
    "summary",
]
