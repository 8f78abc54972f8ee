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
from mfuroof.queries import crossover
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
    compared = [_Narrow(whole, device, name, share, {"kv_dtype": kv_dtype, **evaluator}) for name in formats]
    b, c = np.atleast_1d(np.asarray(batch_size)), np.atleast_1d(np.asarray(context))
    steps = StepBatch.uniform(decode_batch=np.repeat(b, c.size), decode_context=np.tile(c, b.size))
    shape = (b.size, c.size)
    base = StepEvaluator(whole, device, **evaluator).step_time(steps).reshape(shape)
    speedup = {narrow.dtype: base / narrow.step_time(steps).reshape(shape) for narrow in compared}
    native = {narrow.dtype: narrow.native for narrow in compared}
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
    dequantisation: float = DEQUANTISATION,
    **evaluator: Any,
) -> Crossover:
    """Return the batch at which a format's gain over 16 bits falls below a factor.

    `mfuroof.queries.crossover` with what `format_gains` adds to the step times of weights that are expanded.

    Parameters
    ----------
    model, hardware, kv_dtype, dequantisation, **evaluator
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
    share = problems.number("dequantisation", dequantisation, 0.0, 10.0)
    problems.raise_if_any()
    whole, device = _resolved(model, hardware)
    narrow = _Narrow(whole, device, dtype, share, {"kv_dtype": kv_dtype, **evaluator})
    base = StepEvaluator(whole, device, **evaluator)
    (row,) = crossover(base, narrow, factor, most=most, decode_context=context).table.to_pylist()
    return Crossover(factor, row["decode_batch"], bool(row["lasting"]), most, row["gain_at_low"])


class _Narrow:
    """An evaluator with narrow weights that allows for their expansion where the device cannot multiply them."""

    def __init__(
        self, model: ModelConfig, hardware: Hardware, dtype: str, share: float, arguments: Mapping[str, Any]
    ) -> None:
        self.dtype, known = dtype, format_of(dtype)
        self.native = hardware.native(canonical_dtype(dtype)) and not known.weight_only
        self.evaluator = StepEvaluator(model, hardware, weight_dtype=dtype, **arguments)
        self.share = 0.0 if self.native or known.bits >= SIXTEEN else share

    def step_time(self, batch: StepBatch) -> F64:
        """Return the time of each step. [s]"""
        time_s = self.evaluator.step_time(batch)
        return time_s + self.share * _expanded_s(self.evaluator, batch) if self.share > 0 else time_s


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
