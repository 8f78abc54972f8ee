"""What runtime precisions buy: one row each of step time, latency, memory, KV capacity and concurrency."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mfuroof.batch import StepBatch
from mfuroof.capacity import kv_capacity
from mfuroof.core.sources import Source
from mfuroof.errors import InputError, MfuroofWarning, MissingTableError, Problem
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig
from mfuroof.quant.gates import hardware_notes
from mfuroof.quant.presets import PRESETS, QuantConfig, Request, expand
from mfuroof.step import StepEvaluator
from mfuroof.units import GIB, MS

__all__ = ["COLUMNS", "Comparison", "compare"]

COLUMNS: Mapping[str, str] = {
    "name": "configuration",
    "gemm_dtype": "format of the linear layers as it is priced",
    "kv_dtype": "format of the KV cache as it is priced",
    "moe_dtype": "format of the experts as it is priced; None without experts",
    "decode_step_s": "one step of `batch_size` decode requests in the middle of their output [s]",
    "prefill_step_s": "one step with one whole prompt [s]",
    "speedup": "decode step of the first configuration over this one's",
    "bound": "what binds the decode step",
    "source": "worst origin of its figures",
    "ttft_s": "time to first token at `concurrency` [s]; None where it was not estimated",
    "tpot_s": "time per output token [s]",
    "output_tokens_per_s_per_gpu": "throughput [tokens/s]",
    "weight_bytes": "of one GPU [bytes]",
    "kv_bytes_per_token": "of one GPU [bytes]",
    "kv_capacity_tokens": "tokens of all KV caches together",
    "max_concurrency": "sequences of input_len + output_len tokens that fit at once",
    "fits": "whether weights and one such sequence fit",
    "error": "why there is no estimate, or an empty text",
}
"""Columns of a comparison."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Configurations side by side.

    Attributes
    ----------
    model, hardware
        Names.
    rows
        One record per configuration, with the keys of `COLUMNS`.
    notes
        By configuration: what does not apply, and what is not native on the device.
    """

    model: str
    hardware: str
    rows: tuple[Mapping[str, Any], ...]
    notes: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    def to_arrow(self) -> Any:
        """Return an Arrow table, one row per configuration."""
        import pyarrow as pa

        return pa.table({name: pa.array([row[name] for row in self.rows]) for name in COLUMNS})

    def __repr__(self) -> str:
        head = ["configuration", "gemm", "kv", "decode ms", "speed-up", "prefill ms", "TTFT ms", "TPOT ms"]
        head += ["weights GiB", "KV tokens", "sequences"]
        table = [head]
        for r in self.rows:
            cells = [r["name"], r["gemm_dtype"] or "-", r["kv_dtype"] or "-", _ms(r["decode_step_s"])]
            cells += ["-" if r["speedup"] is None else f"{r['speedup']:.2f}", _ms(r["prefill_step_s"])]
            cells += [_ms(r["ttft_s"]), _ms(r["tpot_s"])]
            cells.append("-" if r["weight_bytes"] is None else f"{r['weight_bytes'] / GIB:.2f}")
            cells += [_count(r["kv_capacity_tokens"]), _count(r["max_concurrency"])]
            table.append(cells)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in table
        ]
        said = [f"{name}: {text}" for name, texts in self.notes.items() for text in texts]
        said += [f"{r['name']}: {r['error']}" for r in self.rows if r["error"]]
        return "\n".join([f"{self.model} on {self.hardware}", *lines, *said])


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
    **evaluator
        Arguments of `StepEvaluator`: ``tp_size=``, ``cost=``, ``engine=``, ``params=`` …

    Returns
    -------
    Comparison
        One row per configuration, in order. One that cannot be priced has an ``error`` and no times; the others
        stand.

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
    rows: list[dict[str, Any]] = []
    notes: dict[str, tuple[str, ...]] = {}
    for config in wanted:
        name = _unique(config.name, [row["name"] for row in rows])
        priced, said = _model(whole, config)
        said = (*said, *hardware_notes(config.precision, device))
        if said:
            notes[name] = said
        row = {**dict.fromkeys(COLUMNS), "name": name, "error": "", **_formats(priced)}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", MfuroofWarning)
            try:
                row |= _figures(priced, device, shape, serving, memory_utilization, evaluator)
            except MissingTableError as error:
                row["error"] = str(error)
        for warning in caught:
            notes[name] = (*notes.get(name, ()), str(warning.message))
        rows.append(row)
    base = rows[0]["decode_step_s"]
    for row in rows:
        if base and row["decode_step_s"]:
            row["speedup"] = base / row["decode_step_s"]
    return Comparison(whole.name, device.name, tuple(rows), notes)


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


def _model(model: ModelConfig, config: QuantConfig) -> tuple[ModelConfig, tuple[str, ...]]:
    arguments, said = config.precision.overrides(model)
    if "attention_dtype" in arguments:
        text = f"attention_dtype = {arguments['attention_dtype']}: attention is priced as measured on its KV cache"
        said = (*said, text)
    return (model.with_precision(**arguments) if arguments else model), said


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


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / MS:.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
