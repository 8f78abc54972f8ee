"""LLMServingSim's profile bundle: one time a layer, from which it writes its traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._files import write_atomically
from mfuroof._types import F64, I64
from mfuroof.adapters.csv_text import csv_bytes
from mfuroof.adapters.grids import component_table, is_additive, octaves, positive_ints, profiled_counts
from mfuroof.batch import StepBatch
from mfuroof.errors import InputError, OutputError, Problem
from mfuroof.step import StepEvaluator
from mfuroof.units import US

__all__ = ["export_llmservingsim", "llmservingsim_tables"]

_LAYERS = {
    "qkv_gemm": "qkv_proj",
    "q_up_gemm": "qkv_proj",
    "qk_norm": "qkv_proj",
    "rotary_kv_write": "rotary_emb",
    "o_gemm": "o_proj",
    "gate_up_gemm": "gate_up_proj",
    "activation": "act_fn",
    "down_gemm": "down_proj",
}
"""Component to layer of the bundle, one call a transformer layer."""
_ONCE = {"embedding": "embedding", "overhead": "embedding"}
"""Once a step: what the engine adds has no layer of its own and goes with the first."""
_MOE = ("routing", "router", "experts", "shared_gate_up_gemm", "shared_down_gemm")
_PER_SEQUENCE = {"lm_head": "lm_head", "sampling": "sampler"}
_LINKS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "pp_send", "dispatch", "combine")
"""Communication, which LLMServingSim simulates itself."""


def llmservingsim_tables(
    evaluator: StepEvaluator, max_tokens: int = 2048, max_sequences: int = 256, max_kv: int = 16_384
) -> dict[str, dict[str, Any]]:
    """Return the tables of a bundle by file name, each a mapping from column to values.

    Parameters
    ----------
    max_tokens, max_sequences, max_kv
        Largest step, most sequences, longest context. [tokens, sequences, tokens]

    Returns
    -------
    dict
        ``dense.csv`` (layer, tokens, time_us), ``per_sequence.csv`` (layer, sequences, time_us), ``attention.csv``
        (prefill_chunk, kv_prefill, n_decode, kv_decode, time_us) of one layer, and ``moe.csv`` (tokens,
        activated_experts, time_us) where there are experts. [us]

    Raises
    ------
    InputError
        A limit is out of range; the cost has no times by layer (only ``kernels`` has); or the layers of the model
        are not all alike, which the bundle cannot say.
    MissingTableError
        A shape has no time.

    Notes
    -----
    Links are left out: LLMServingSim simulates them. What an engine adds to each step goes with ``embedding``, which
    runs once a step. ``layernorm`` and ``final_layernorm`` share the time of all norms evenly. The times of experts
    are those of the expected number of distinct ones, whatever ``activated_experts`` says.
    """
    positive_ints(max_tokens=max_tokens, max_sequences=max_sequences, max_kv=max_kv)
    layers = _checked(evaluator)
    tokens = profiled_counts(max_tokens)
    parts = component_table(evaluator, StepBatch.uniform(prefill_batch=1, prefill_new_tokens=tokens, emits=False))
    dense: dict[str, F64] = {}
    for table, calls in ((_LAYERS, layers), (_ONCE, 1)):
        for part, layer in table.items():
            if part in parts:
                dense[layer] = dense.get(layer, 0.0) + parts[part] / calls
    for layer in ("layernorm", "final_layernorm"):
        dense[layer] = parts["norm"] / (2 * layers + 1)
    out = {"dense.csv": _long(dense, "tokens", tokens)}
    counts = profiled_counts(max_sequences)
    ending = component_table(evaluator, StepBatch.uniform(prefill_batch=counts, prefill_new_tokens=1))
    heads = {layer: ending[part] for part, layer in _PER_SEQUENCE.items() if part in ending}
    out["per_sequence.csv"] = _long(heads, "sequences", counts)
    out["attention.csv"] = _attention(evaluator, layers, max_tokens, max_sequences, max_kv)
    if any(part in parts for part in _MOE):
        experts: F64 = np.sum([parts[part] for part in _MOE if part in parts], axis=0) / layers
        moe = next(spec.mlp for spec in evaluator.model.layers)
        active = np.unique([moe.num_experts_per_tok, moe.num_experts])
        out["moe.csv"] = {
            "tokens": np.repeat(tokens, active.size),
            "activated_experts": np.tile(active, tokens.size),
            "time_us": np.repeat(experts, active.size) / US,
        }
    return out


def export_llmservingsim(
    evaluator: StepEvaluator,
    folder: str | Path,
    hardware: str | None = None,
    model: str | None = None,
    variant: str = "bf16",
    **limits: int,
) -> Path:
    """Write a bundle below ``folder``: ``<hardware>/<model>/<variant>/meta.yaml`` and ``tp<n>/*.csv``.

    Parameters
    ----------
    folder
        LLMServingSim's folder of profiles.
    hardware, model, variant
        Names its configuration uses; by default our names of GPU and model.
    limits
        As in `llmservingsim_tables`.

    Returns
    -------
    Path
        The folder of ``meta.yaml``.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    names = {"hardware": hardware or evaluator.hardware.name, "model": model or evaluator.model.name}
    tables = llmservingsim_tables(evaluator, **limits)
    home = Path(folder) / names["hardware"] / names["model"] / variant
    ranks = home / f"tp{evaluator.parallel.tp_size}"
    try:
        ranks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{ranks}: cannot be made: {error.strerror}. Choose another place.") from error
    for name, columns in tables.items():
        write_atomically(ranks / name, csv_bytes(columns))
    known = sorted({int(p.name[2:]) for p in home.glob("tp*") if p.name[2:].isdigit()})
    write_atomically(home / "meta.yaml", _meta(evaluator, names, variant, known, tables).encode())
    return home


def _checked(evaluator: StepEvaluator) -> int:
    """Return the number of layers, or say why there is no bundle."""
    model, known = evaluator.model, {*_LAYERS, *_ONCE, *_MOE, *_PER_SEQUENCE, *_LINKS, "norm"}
    strange = [c for c in evaluator.components if c not in known and not c.startswith("attention_")]
    if evaluator.cost != "kernels" or not is_additive(evaluator) or strange:
        found = f"{evaluator.cost} with {', '.join(strange)}" if strange else evaluator.cost
        raise InputError(Problem("evaluator", found, "cost kernels, whose components are layers of the bundle"))
    if len({(spec.mlp.kind, spec.attention.kind) for spec in model.layers}) != 1:
        raise InputError(Problem("evaluator", f"layers of several kinds in {model.name}", "layers that are all alike"))
    return model.num_hidden_layers


def _long(layers: dict[str, F64], axis: str, values: I64) -> dict[str, Any]:
    names = sorted(layers)
    return {
        "layer": np.repeat(names, values.size),
        axis: np.tile(values, len(names)),
        "time_us": np.concatenate([layers[name] for name in names]) / US,
    }


def _attention(evaluator: StepEvaluator, layers: int, max_tokens: int, max_sequences: int, max_kv: int) -> Any:
    kv = np.append(0, octaves(min(16, max_kv), max_kv))
    chunks, requests = np.append(0, octaves(min(16, max_tokens), max_tokens)), np.append(0, octaves(1, max_sequences))
    chunk, kv_prefill, n, kv_decode = (x.ravel() for x in np.meshgrid(chunks, kv, requests, kv, indexing="ij"))
    there = ((chunk > 0) | (kv_prefill == 0)) & ((n > 0) == (kv_decode > 0)) & (chunk + n > 0)
    chunk, kv_prefill, n, kv_decode = chunk[there], kv_prefill[there], n[there], kv_decode[there]
    batch = StepBatch.uniform(n, kv_decode, (chunk > 0).astype(int), chunk, kv_prefill)
    parts = component_table(evaluator, batch)
    seconds = parts["attention_prefill"] + parts["attention_decode"]
    columns = {"prefill_chunk": chunk, "kv_prefill": kv_prefill, "n_decode": n, "kv_decode": kv_decode}
    return {**columns, "time_us": seconds / layers / US}


def _meta(evaluator: StepEvaluator, names: dict[str, str], variant: str, ranks: list[int], tables: Any) -> str:
    from mfuroof._version import __version__

    largest = {name: int(max(tables[file][name])) for file, name in _AXES}
    lines = [
        f"profiler_version: mfuroof {__version__}",
        f"hardware: {names['hardware']}",
        f"model: {names['model']}",
        f"variant: {variant}",
        f"tp_degrees: [{', '.join(map(str, ranks))}]",
        "engine_effective:",
        f"  max_num_batched_tokens: {largest['tokens']}",
        f"  max_num_seqs: {largest['sequences']}",
        "attention_grid:",
        f"  max_kv: {largest['kv_prefill']}",
        "skew_fit:",
        "  enabled: false",
    ]
    return "\n".join(lines) + "\n"


_AXES = (("dense.csv", "tokens"), ("per_sequence.csv", "sequences"), ("attention.csv", "kv_prefill"))
