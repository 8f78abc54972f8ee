"""Our own npz: a step taken apart into four tables, with which fifty lines of any language price any batch."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._types import F64
from mfuroof._version import __version__
from mfuroof.adapters.grids import component_table, is_additive, octaves, positive_ints
from mfuroof.adapters.npz import write_npz
from mfuroof.batch import StepBatch
from mfuroof.errors import InputError, Problem, reason
from mfuroof.step import StepEvaluator

__all__ = ["FORMAT", "export_table", "read_table", "step_from_table", "table_arrays"]

FORMAT = "mfuroof-step-table-2"
_PREFILL, _DECODE = "attention_prefill", "attention_decode"


def table_arrays(
    evaluator: StepEvaluator,
    max_tokens: int = 32_768,
    max_context: int = 131_072,
    max_decode_batch: int = 1024,
    per_octave: int = 8,
) -> dict[str, F64]:
    """Return the tables of `docs/export-format.md`.

    Parameters
    ----------
    max_tokens, max_context
        Most new tokens of a step, longest context. [tokens]
    max_decode_batch
        Most decode requests. [requests]
    per_octave
        Points to each doubling of the prefill axes; the error of blending falls with its square.

    Raises
    ------
    InputError
        A limit is out of range, or the cost is a roofline of the whole step and has no such parts.
    MissingTableError
        A shape has no time.
    """
    limits = {"max_tokens": max_tokens, "max_context": max_context, "max_decode_batch": max_decode_batch}
    positive_ints(per_octave=per_octave, **limits)
    if not {_PREFILL, _DECODE} <= set(evaluator.components) or not is_additive(evaluator):
        expected = "a cost whose components add up, with attention apart: kernels, or mfu_table with its defaults"
        raise InputError(Problem("evaluator", repr(evaluator), expected, "Its formula is short: call it directly."))
    tokens = np.arange(0, max_tokens + 1)
    rest = _rest(evaluator, StepBatch.uniform(prefill_batch=1, prefill_new_tokens=tokens, emits=False))
    counts = np.arange(0, max_decode_batch + 1)
    emitting = _rest(evaluator, StepBatch.uniform(prefill_batch=counts, prefill_new_tokens=1, emits=True))
    silent = _rest(evaluator, StepBatch.uniform(prefill_batch=counts, prefill_new_tokens=1, emits=False))
    tokens_at, tokens_s = _knots(tokens, rest)
    sequences_at, sequences_s = _knots(counts, emitting - silent)
    batch, kv_len = octaves(1, max_decode_batch), octaves(1, max_context + 1)
    decode = StepBatch.uniform(*(x.ravel() for x in np.meshgrid(batch, kv_len - 1, indexing="ij")))
    like, context = octaves(1, 64), np.append(0, octaves(16, max_context, per_octave))
    new = octaves(1, max_tokens, per_octave)
    shapes = [x.ravel() for x in np.meshgrid(like, context, new, indexing="ij")]
    prefill = StepBatch.uniform(prefill_batch=shapes[0], prefill_context=shapes[1], prefill_new_tokens=shapes[2])
    return {
        "tokens": tokens_at,
        "tokens_s": tokens_s,
        "sequences": sequences_at,
        "sequences_s": sequences_s,
        "decode_batch": batch.astype(np.float64),
        "decode_kv_len": kv_len.astype(np.float64),
        "decode_s": component_table(evaluator, decode)[_DECODE].reshape(batch.size, kv_len.size),
        "prefill_batch": like.astype(np.float64),
        "prefill_context": context.astype(np.float64),
        "prefill_new": new.astype(np.float64),
        "prefill_s": component_table(evaluator, prefill)[_PREFILL].reshape(like.size, context.size, new.size),
    }


def export_table(evaluator: StepEvaluator, path: str | Path, **limits: Any) -> Path:
    """Write `table_arrays` and what they stand for (``meta.json``); limits and errors as there.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    parallel = evaluator.parallel
    meta = {
        "format": FORMAT,
        "version": __version__,
        "model": evaluator.model.name,
        "hardware": evaluator.hardware.name,
        "engine": evaluator.engine,
        "cost": evaluator.cost,
        "tp_size": parallel.tp_size,
        "pp_size": parallel.pp_size,
        "ep_size": parallel.ep_size,
        "dp_size": parallel.dp_size,
    }
    return write_npz(path, table_arrays(evaluator, **limits), meta)


def read_table(path: str | Path) -> dict[str, F64]:
    """Read the arrays that `export_table` wrote.

    Raises
    ------
    InputError
        There is no such file, or it is none of ours.
    """
    try:
        with np.load(path) as archive:
            if FORMAT.encode() not in archive["meta.json"]:
                raise ValueError(f"not {FORMAT}")
            return {name: archive[name] for name in archive.files if name != "meta.json"}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(Problem(str(path), reason(error), "a file of export_table")) from error


def step_from_table(tables: dict[str, F64], context_lens: Any, new_tokens: Any) -> float:
    """Price one batch from the tables alone, as readers in other languages do: the definition of the format. [s]"""
    pairs = [(float(c), float(n)) for c, n in zip(context_lens, new_tokens, strict=True) if n > 0]
    kv = sorted((c + 1 for c, n in pairs if n == 1 and c > 0), reverse=True)
    prompts = [(c, n) for c, n in pairs if not (n == 1 and c > 0)]
    seconds = _at([tables["tokens"]], tables["tokens_s"], (sum(n for _, n in pairs),))
    seconds += _at([tables["sequences"]], tables["sequences_s"], (float(len(pairs)),))
    decode, number, total = 0.0, 0, 0.0
    axes = [tables["decode_batch"], tables["decode_kv_len"]]
    for i, length in enumerate(kv):
        number, total = number + 1, total + length
        if i + 1 == len(kv) or np.frexp(kv[i + 1])[1] < np.frexp(length)[1]:  # the last of its power of two
            decode = max(decode, _at(axes, tables["decode_s"], (float(number), total / number)))
    together = sum(n for _, n in prompts)
    axes = [tables["prefill_batch"], tables["prefill_context"], tables["prefill_new"]]
    for context, new in prompts:
        like = together / new
        seconds += _at(axes, tables["prefill_s"], (like, context, new)) / like
    return seconds + decode


def _at(axes: list[F64], values: F64, x: tuple[float, ...]) -> float:
    """Blend linearly along each axis; outside, the first and last segments go on."""
    if not axes:
        return float(values)
    axis, rest, first = axes[0], axes[1:], x[0]
    i = min(max(int(np.searchsorted(axis, first, side="right")) - 1, 0), axis.size - 2)
    share = (first - axis[i]) / (axis[i + 1] - axis[i])
    return float((1.0 - share) * _at(rest, values[i], x[1:]) + share * _at(rest, values[i + 1], x[1:]))


def _rest(evaluator: StepEvaluator, batch: StepBatch) -> F64:
    """Return everything but attention. [s]"""
    parts = component_table(evaluator, batch)
    total = np.zeros(len(batch))
    for name, seconds in parts.items():
        if name not in (_PREFILL, _DECODE):
            total += seconds
    return total


def _knots(x: Any, y: F64) -> tuple[F64, F64]:
    """Return the breakpoints of a curve that is linear between whole numbers."""
    bend = np.abs(np.diff(y, 2)) > 1e-12 * np.maximum(np.abs(y[1:-1]), 1e-12)
    keep = np.concatenate([[True], bend, [True]])
    return x[keep].astype(np.float64), y[keep]
