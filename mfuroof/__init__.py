"""mfuroof: how long LLM-serving steps take, for millions of batch shapes at once.

Measured kernel tables are compiled into flat arrays at bind time; evaluating a step is then a handful of table
reads. The names below are the public interface; each is imported when it is first used.

============================  ==================================================================
bind and evaluate             `StepEvaluator`, `StepBatch`, `StepResult`, `CostParams`, `Parallel`
many configurations           `Sweep`, `write_sweep`, `reduce_sweep`, `run_sweep`, `predict_steps`
questions to results          `queries`
under load                    `serving`
models and GPUs               `ModelConfig`, `get_model`, `known_models`, `Hardware`, `get_hardware`
measured tables               `load_tables`, `load_bench_data`, `audit`, `audit_tables`, `Source`
capacity, calibration         `kv_capacity`, `calibrate`, `calibrate_table`, `Calibration`
precision as a choice         `quant`, `RuntimePrecision`
where to invest               `sensitivity`
============================  ==================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mfuroof._version import __version__

if TYPE_CHECKING:
    from mfuroof import lookup, plots, quant, queries, sensitivity, serving
    from mfuroof.batch import StepBatch
    from mfuroof.breakdown import StepResult
    from mfuroof.calibration import Calibration, Measured, calibrate
    from mfuroof.capacity import CapacityParams, KvCapacity, kv_capacity
    from mfuroof.core.sources import Source
    from mfuroof.engines import EngineProfile
    from mfuroof.errors import MfuroofError, MfuroofWarning
    from mfuroof.hardware import Hardware, get_hardware, known_hardware, load_catalogue
    from mfuroof.mfu_database import audit, load_bench_data
    from mfuroof.models import ModelConfig, get_model, known_models
    from mfuroof.parallel import Parallel
    from mfuroof.params import CostParams
    from mfuroof.precision import RuntimePrecision
    from mfuroof.predict import predict_serving, predict_steps
    from mfuroof.predict.calibrate import calibrate_table
    from mfuroof.repairs import monotone_repairs
    from mfuroof.step import StepEvaluator
    from mfuroof.sweep import Sweep, reduce_sweep, run_sweep, sweep_batches, write_sweep
    from mfuroof.tables.quality_audit import audit_tables
    from mfuroof.tables.store import load_tables

_SUBMODULES = ("lookup", "plots", "quant", "queries", "sensitivity", "serving")
_HOMES = {
    "Calibration": "calibration",
    "CapacityParams": "capacity",
    "CostParams": "params",
    "EngineProfile": "engines",
    "Hardware": "hardware",
    "KvCapacity": "capacity",
    "Measured": "calibration",
    "MfuroofError": "errors",
    "MfuroofWarning": "errors",
    "ModelConfig": "models",
    "Parallel": "parallel",
    "RuntimePrecision": "precision",
    "Source": "core.sources",
    "StepBatch": "batch",
    "StepEvaluator": "step",
    "StepResult": "breakdown",
    "Sweep": "sweep",
    "audit": "mfu_database",
    "audit_tables": "tables.quality_audit",
    "calibrate": "calibration",
    "calibrate_table": "predict.calibrate",
    "get_hardware": "hardware",
    "get_model": "models",
    "known_hardware": "hardware",
    "known_models": "models",
    "kv_capacity": "capacity",
    "load_bench_data": "mfu_database",
    "load_catalogue": "hardware",
    "load_tables": "tables.store",
    "monotone_repairs": "repairs",
    "predict_serving": "predict",
    "predict_steps": "predict",
    "reduce_sweep": "sweep",
    "run_sweep": "sweep",
    "sweep_batches": "sweep",
    "write_sweep": "sweep",
}

__all__ = [
    "Calibration",
    "CapacityParams",
    "CostParams",
    "EngineProfile",
    "Hardware",
    "KvCapacity",
    "Measured",
    "MfuroofError",
    "MfuroofWarning",
    "ModelConfig",
    "Parallel",
    "RuntimePrecision",
    "Source",
    "StepBatch",
    "StepEvaluator",
    "StepResult",
    "Sweep",
    "__version__",
    "audit",
    "audit_tables",
    "calibrate",
    "calibrate_table",
    "get_hardware",
    "get_model",
    "known_hardware",
    "known_models",
    "kv_capacity",
    "load_bench_data",
    "load_catalogue",
    "load_tables",
    "lookup",
    "monotone_repairs",
    "plots",
    "predict_serving",
    "predict_steps",
    "quant",
    "queries",
    "reduce_sweep",
    "run_sweep",
    "sensitivity",
    "serving",
    "sweep_batches",
    "write_sweep",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: ``import mfuroof`` alone loads neither numba nor pyarrow."""
    if name in _SUBMODULES:
        return importlib.import_module(f"mfuroof.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mfuroof' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mfuroof.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
