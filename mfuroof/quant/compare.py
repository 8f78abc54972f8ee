"""What runtime precisions buy: one row each of step time, latency, memory, KV capacity and concurrency."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mfuroof.batch import StepBatch
from mfuroof.capacity import kv_capacity
from mfuroof.core.sources import Source
from mfuroof.engines import engine_profile
from mfuroof.errors import InputError, MfuroofWarning, MissingTableError, Problem
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig
from mfuroof.precision.presets import PRESETS, QuantConfig, Request, expand
from mfuroof.precision.runtime import AUTO, RuntimePrecision
from mfuroof.quant.comparison import COLUMNS, Comparison
from mfuroof.quant.gates import blocked_fields, hardware_notes
from mfuroof.quant.launch import engine_of, launch_args
from mfuroof.quant.launch_table import ENGINES
from mfuroof.step import StepEvaluator

__all__ = ["compare"]


def compare(
    model: ModelConfig | str | Any,
    hardware: Hardware | str,
    configs: Request = None,
    *,
    batch_size: int = 32,
    input_len: int = 1024,
    output_len: int = 256,
    concurrency: int | None = None,
    serving: bool = True,
    memory_utilization: float = 0.9,
    presets: Mapping[str, Any] | None = None,
    engine: str = "vllm",
    engine_version: str | None = None,
    **evaluator: Any,
) -> Comparison:
    """Return what each configuration means for time and memory.

    Parameters
    ----------
    model
        A model, or what `ModelConfig.from_hf` takes.
    hardware
        A device, or its name.
    configs
        What `expand` takes; None for every preset.
    batch_size, input_len, output_len
        Decode requests of a step, and the lengths of a request. [requests, tokens]
    concurrency
        Clients for TTFT, TPOT and throughput; None for ``batch_size``. [requests]
    serving
        Whether to estimate those.
    memory_utilization
        Share of the memory that may be used. [fraction]
    presets
        Your own, as in `expand`.
    engine, engine_version
        Whose kernels are priced, and which version of it is to be launched (the newest known where None).
    **evaluator
        Arguments of `StepEvaluator`: ``tp_size=``, ``cost=``, ``params=`` …

    Returns
    -------
    Comparison
        One row per configuration, in order. One that cannot be priced has an ``error`` and no times; the others
        stand. One that the engine cannot be launched with is marked and says why: its figures are those of a
        checkpoint quantised beforehand, and there are none where the device rules it out.

    Raises
    ------
    UnknownNameError
        No such model, device, preset.
    InputError
        Arguments are out of range.
    """
    whole = model if isinstance(model, ModelConfig) else ModelConfig.from_hf(model)
    device = get_hardware(hardware)
    wanted = expand(list(PRESETS) if configs is None else configs, presets)
    shape = _Shape(batch_size, input_len, output_len, batch_size if concurrency is None else concurrency)
    how = {**evaluator, "engine": engine}
    launched = engine_of(engine_profile(engine).tables)
    version = launched.newest if engine_version is None else engine_version
    versions = {name: version if name == launched.name else None for name in ENGINES}
    rows: list[dict[str, Any]] = []
    notes: dict[str, tuple[str, ...]] = {}
    for config in wanted:
        name = _unique(config.name, [row["name"] for row in rows])
        arguments, said = config.precision.overrides(whole, evaluator.get("cost", "kernels"))
        priced = whole.with_precision(**arguments) if arguments else whole
        refused = {e: _refused(e, config, whole, device, v) for e, v in versions.items()}
        row = {**dict.fromkeys(COLUMNS), "name": name, "error": "", **_formats(priced)}
        row |= {"launchable": not refused[launched.name], "engines": [e for e, texts in refused.items() if not texts]}
        row["reason"] = "; ".join(refused[launched.name])
        blocked = blocked_fields(config.precision, device)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", MfuroofWarning)
            try:
                row |= {} if blocked else _figures(priced, device, shape, serving, memory_utilization, how)
            except MissingTableError as error:
                row["error"] = str(error)
        effective = _effective(config.precision, arguments).replace(**dict.fromkeys(blocked, AUTO))
        said = (*said, *hardware_notes(effective, device))
        said = tuple(dict.fromkeys((*said, *(str(w.message) for w in caught))))
        if said:
            notes[name] = said
        rows.append(row)
    base = next((row["decode_step_s"] for row in rows if row["decode_step_s"]), None)
    for row in rows:
        if base and row["decode_step_s"]:
            row["speedup"] = base / row["decode_step_s"]
    ranks = [f"{n.removesuffix('_size')} {v}" for n, v in evaluator.items() if n.endswith("_size") and v != 1]
    told = ", ".join([f"{launched.title} {version}", evaluator.get("cost", "kernels"), *ranks])
    return Comparison(whole.name, device.name, told, vars(shape), tuple(rows), notes)


@dataclass(frozen=True)
class _Shape:
    batch_size: int
    input_len: int
    output_len: int
    concurrency: int

    def __post_init__(self) -> None:
        wrong = [
            Problem(name, repr(value), "an integer of at least 1")
            for name, value in vars(self).items()
            if isinstance(value, bool) or not isinstance(value, int) or value < 1
        ]
        if wrong:
            raise InputError(wrong)


def _refused(
    engine: str, config: QuantConfig, model: ModelConfig, device: Hardware, version: str | None
) -> tuple[str, ...]:
    """Return what an engine cannot do with this model on this device."""
    with warnings.catch_warnings():  # what does not apply is said once, beside the table
        warnings.simplefilter("ignore", MfuroofWarning)
        return launch_args(engine, config, checkpoint=model, engine_version=version, hardware=device).refused


def _effective(precision: RuntimePrecision, arguments: Mapping[str, str]) -> RuntimePrecision:
    """Return the fields that apply."""
    names = {"weight_dtype": "gemm_dtype", "kv_dtype": "kvcache_dtype"}
    kept = {names.get(name, name) for name in arguments}
    return precision.replace(**{name: AUTO for name in precision.to_dict() if name not in kept})


def _formats(model: ModelConfig) -> dict[str, Any]:
    kind = "o" if any(s.attention.kind == "gqa" for s in model.layers) else "mla"
    return {
        "gemm_dtype": model.module_dtype(kind),
        "kv_dtype": model.kv_dtype,
        "moe_dtype": model.module_dtype("experts") if model.is_moe else None,
    }


def _figures(
    model: ModelConfig,
    device: Hardware,
    shape: _Shape,
    serving: bool,
    memory_utilization: float,
    how: Mapping[str, Any],
) -> dict[str, Any]:
    e = StepEvaluator(model, device, **how)
    p = e.parallel
    room = kv_capacity(
        model,
        device,
        p.tp_size,
        p.pp_size,
        p.ep_size,
        p.dp_size,
        memory_utilization=memory_utilization,
        seq_len=shape.input_len + shape.output_len,
    )
    steps = StepBatch.uniform(
        decode_batch=[shape.batch_size, 0],
        decode_context=shape.input_len + shape.output_len // 2,
        prefill_batch=[0, 1],
        prefill_new_tokens=shape.input_len,
    )
    result = e.evaluate(steps)
    out = {
        "decode_step_s": float(result.step_time_s[0]),
        "prefill_step_s": float(result.step_time_s[1]),
        "bound": result.bound_names[0],
        "source": Source(int(result.source[0])).name.lower(),
        "weight_bytes": float(room.weight_bytes),
        "kv_bytes_per_token": float(room.kv_bytes_per_token),
        "kv_capacity_tokens": int(room.kv_capacity_tokens),
        "max_concurrency": int(room.max_sequences) if room.max_sequences is not None else None,
        "fits": bool(room.fits),
    }
    if serving and out["fits"]:
        from mfuroof.serving import estimate

        served = estimate(
            e,
            shape.input_len,
            shape.output_len,
            concurrency=shape.concurrency,
            memory_utilization=memory_utilization,
        )
        for name in ("ttft_s", "tpot_s", "output_tokens_per_s_per_gpu"):
            out[name] = float(getattr(served, name))
    return out


def _unique(name: str, taken: Sequence[str]) -> str:
    number, out = 1, name
    while out in taken:
        number += 1
        out = f"{name} ({number})"
    return out
