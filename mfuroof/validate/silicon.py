"""Serving measurements in the layout of AIConfigurator's silicon tables, as columns of ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfuroof._types import F64
from mfuroof.errors import MfuroofError
from mfuroof.models import ModelConfig, known_models
from mfuroof.units import MS
from mfuroof.validate.tables import Columns

__all__ = ["is_silicon", "serving_columns"]


def is_silicon(columns: Columns) -> bool:
    """Whether a table has that layout."""
    return "model_path" in columns and "silicon_tpot_ms" in columns


def serving_columns(columns: Columns) -> Columns:
    """Return the table with the columns of `validate_serving`.

    Concurrency: the batch size where it is not given. Lengths: where ``len_factor`` is below 1, prompts and outputs
    were drawn evenly from [0.8 L, L]; otherwise all are of the length given. Precision: ``fp8`` and ``fp4`` are the
    checkpoint's own where it has that width, a published NVFP4 checkpoint where there is one, or else a conversion of
    the model. KV cache: 8 bits where the weights are quantised, but for vLLM on Hopper, whose recipes leave the cache
    in the model's dtype (it takes the dtype of a flag, not of the checkpoint; where requests begin to queue, and how
    TPOT grows with the batch, show it).
    """
    model, precision = columns.text("model_path"), columns.text("precision")
    engine, gpu = columns.text("backend"), columns.text("system")
    factor = columns.number("len_factor", 1.0)
    named = [_checkpoint(m, p) for m, p in zip(model, precision, strict=True)]
    quantised = np.array([p in ("fp8", "fp4") for p in precision], dtype=bool)
    sixteen_bit = np.array([e == "vllm" and g.startswith(("h1", "h2", "h8")) for e, g in zip(engine, gpu, strict=True)])
    clients = columns.number("concurrency")
    table: dict[str, Any] = {
        "model": [name for name, _ in named],
        "gpu": gpu,
        "engine": engine,
        **_degrees(columns),
        "weight_dtype": [dtype for _, dtype in named],
        "kv_dtype": np.where(quantised, np.where(sixteen_bit, "bf16", "fp8"), ""),
        "input_len": columns.number("isl"),
        "output_len": columns.number("osl"),
        "concurrency": np.where(np.isnan(clients), columns.number("batch_size"), clients),
        "mode": columns.text("mode", "agg"),
        "length_distribution": np.where(factor < 1.0, "uniform", "fixed"),
        "ttft_s": columns.number("silicon_ttft_ms") * MS,
        "tpot_s": columns.number("silicon_tpot_ms") * MS,
        "family": model,
        "precision": np.where(quantised, precision, "bf16"),
        "source": columns.text("source"),
    }
    return Columns(table)


def _degrees(columns: Columns) -> dict[str, F64]:
    """Return parallel degrees; where ranks of attention data parallelism are counted into tp_size, as GPUs show."""
    tp, pp = columns.number("tp_size", 1.0), columns.number("pp_size", 1.0)
    dp, gpus = columns.number("attention_dp_size", 1.0), columns.number("gpus")
    counted_in = (dp > 1) & (tp * pp == gpus) & (tp % dp == 0)
    return {
        "tp": np.where(counted_in, tp / dp, tp),
        "pp": pp,
        "ep": columns.number("moe_ep_size", 1.0),
        "attention_dp": dp,
    }


def _checkpoint(model: str, precision: str) -> tuple[str, str]:
    """Return the registry's name of a checkpoint, and the format its weights are converted to (empty: its own)."""
    bits = {"fp8": 8, "fp4": 4}.get(precision)
    if bits is None:
        return model, ""
    published = f"nvidia/{model.split('/')[-1]}-NVFP4"
    if bits == 4 and published in known_models():
        return published, ""
    try:
        own = float(ModelConfig.from_hf(model).quantization.weight_bits)
    except MfuroofError:
        return model, ""
    return model, "" if own <= bits else {8: "fp8", 4: "nvfp4"}[bits]
