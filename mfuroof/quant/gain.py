"""What a format gains over 16 bits across batch and context, and from which batch on it gains less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64, I64, ArrayLike
from mfuroof.batch import StepBatch
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig
from mfuroof.precision import canonical_dtype, format_of
from mfuroof.precision.runtime import UNQUANTISED
from mfuroof.quant.regime import op_dtype, regimes
from mfuroof.step import StepEvaluator

__all__ = ["DEQUANTISATION", "FORMATS_COMPARED", "Crossover", "Gains", "crossover_batch", "format_gains"]

FORMATS_COMPARED = ("int8", "fp8", "int4_wo", "nvfp4")
"""Weight formats that `format_gains` looks at unless told otherwise."""

SIXTEEN = 16
DEQUANTISATION = 0.1
"""Share by which expanding weights on the fly is taken to lengthen a product that compute binds: an assumption, not a
measurement. Where memory binds, it hides behind the reading of the weights. [fraction]"""


@dataclass(frozen=True, eq=False)
class Gains:
    """Decode times and gains over a grid.

    Attributes
    ----------
    batch_size, context
        Axes (b,) and (c,). [requests, tokens]
    base_s
        Step time at 16 bits (b, c). [s]
    speedup
        Times faster, by format, each (b, c); below 1 where the format is slower.
    native
        Whether the device multiplies in each format; if not, the weights are expanded to 16 bits.
    """

    batch_size: I64
    context: I64
    base_s: F64
    speedup: Mapping[str, F64]
    native: Mapping[str, bool]


def format_gains(
    model: ModelConfig | str,
    hardware: Hardware | str,
    formats: Sequence[str] = FORMATS_COMPARED,
    batch_size: ArrayLike = (1, 8, 32, 128, 512),
    context: ArrayLike = (1024,),
    *,
    kv_dtype: str | None = None,
    dequantisation: float = DEQUANTISATION,
    **evaluator: Any,
) -> Gains:
    """Return how many times faster decode steps are with narrower weights.

    Parameters
    ----------
    model
        An unquantised model, or its name.
    hardware
        A device, or its name.
    formats
        Weight formats.
    batch_size, context
        Requests of a step, and tokens each has in the cache. [requests, tokens]
    kv_dtype
        Of the cache in the narrower runs; None keeps 16 bits.
    dequantisation
        Share added to products bound by compute whose weights are expanded to 16 bits; 0 for a free expansion.
        [fraction]
    **evaluator
        Arguments of `StepEvaluator`.

    Raises
    ------
    InputError
        The model is quantised already, or sizes are out of range.
    UnknownNameError
        No such model, device or format.
    """
    whole, device = _resolved(model, hardware)
    problems = Problems()
    share = problems.number("dequantisation", dequantisation, 0.0, 10.0)
    problems.raise_if_any()
    b, c = np.atleast_1d(np.asarray(batch_size)), np.atleast_1d(np.asarray(context))
    steps = StepBatch.uniform(decode_batch=np.repeat(b, c.size), decode_context=np.tile(c, b.size))
    shape = (b.size, c.size)
    base = StepEvaluator(whole, device, **evaluator).step_time(steps).reshape(shape)
    native = {name: device.native(canonical_dtype(name)) and not format_of(name).weight_only for name in formats}
    speedup: dict[str, F64] = {}
    for name in formats:
        narrow = StepEvaluator(whole, device, weight_dtype=name, kv_dtype=kv_dtype, **evaluator)
        time = narrow.step_time(steps)
        if share > 0 and not native[name] and format_of(name).bits < SIXTEEN:
            time = time + share * _expanded_s(narrow, steps)
        speedup[name] = base / time.reshape(shape)
    return Gains(b.astype(np.int64), c.astype(np.int64), base, speedup, native)


@dataclass(frozen=True)
class Crossover:
    """From which batch on a format gains less than some factor.

    Attributes
    ----------
    speedup
        The factor.
    batch_size
        Smallest batch whose gain is below it; None if there is none up to ``limit``. [requests]
    lasting
        Whether it stays below from there on, up to ``limit``.
    limit
        Largest batch looked at. [requests]
    at_one
        Gain at batch 1.
    """

    speedup: float
    batch_size: int | None
    lasting: bool
    limit: int
    at_one: float


def crossover_batch(
    model: ModelConfig | str,
    hardware: Hardware | str,
    dtype: str = "int4_wo",
    speedup: float = 2.0,
    context: int = 1024,
    *,
    limit: int = 2048,
    kv_dtype: str | None = None,
    **evaluator: Any,
) -> Crossover:
    """Return the batch at which a format's gain over 16 bits falls below a factor.

    Every batch up to ``limit`` is priced (one vectorised call), so that nothing is assumed of the shape of the curve.

    Parameters
    ----------
    model, hardware, kv_dtype, **evaluator
        As in `format_gains`.
    dtype
        Weight format.
    speedup
        Factor, above 0.
    context
        Tokens each request has in the cache. [tokens]
    limit
        Largest batch. [requests]

    Raises
    ------
    InputError
        As in `format_gains`.
    """
    problems = Problems()
    factor = problems.number("speedup", speedup, 0.0, 1e6, open_low=True)
    most = problems.positive_int("limit", limit)
    problems.raise_if_any()
    gains = format_gains(model, hardware, (dtype,), np.arange(1, most + 1), (context,), kv_dtype=kv_dtype, **evaluator)
    curve = gains.speedup[dtype][:, 0]
    below = curve < factor
    if not below.any():
        return Crossover(factor, None, False, most, float(curve[0]))
    first = int(np.argmax(below))
    return Crossover(factor, first + 1, bool(below[first:].all()), most, float(curve[0]))


def _expanded_s(evaluator: StepEvaluator, steps: StepBatch) -> F64:
    """Return the time of products that compute binds and whose weights are narrower than 16 bits. [s]"""
    found, result = regimes(evaluator, steps), evaluator.evaluate(steps)
    total = np.zeros(len(steps))
    for name, regime in found.op.items():
        narrow = format_of(op_dtype(evaluator.model, name)).bits < SIXTEEN
        if narrow and name in result.op_time_s:
            total += np.where(regime == "compute", result.op_time_s[name], 0.0)
    return total


def _resolved(model: ModelConfig | str, hardware: Hardware | str) -> tuple[ModelConfig, Hardware]:
    whole = model if isinstance(model, ModelConfig) else ModelConfig.from_hf(model)
    problems = Problems()
    if whole.quantization.method not in UNQUANTISED:
        problems.add("model", f"{whole.name} ({whole.quantization.method})", "one that is not quantised")
    problems.raise_if_any()
    return whole, get_hardware(hardware)
