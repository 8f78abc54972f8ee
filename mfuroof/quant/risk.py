"""Size, compression and accuracy risk of quantisation and pruning: rules of thumb with their sources, no predictions.

What a model loses depends on the model, the task, the calibration data and the method far more than on the format. The
ranges are for models of 7 billion parameters and more. Each names its source; where that gives a direction but no
figures, the source ends with `JUDGEMENT`. Only an evaluation on the own task tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mfuroof._boundary import Problems, choice
from mfuroof.errors import InputError, Problem
from mfuroof.models import ModelConfig
from mfuroof.precision import canonical_dtype, format_of

__all__ = ["JUDGEMENT", "QUANTISATION_RISKS", "Compression", "Range", "compress", "prune_risk", "quantise_risk"]

RULE_OF_THUMB = "rule of thumb, not a prediction: evaluate on your own task"

JUDGEMENT = "the figures are our judgement"
"""Ends every source that gives the direction and not the numbers."""
_KURTIC = "Kurtic et al. 2024, arXiv 2411.02355, Llama-3.1 8B to 405B"
_FP4 = "Egiazarian et al. 2025, arXiv 2509.23202, MXFP4 and NVFP4 after training"
_MXFP = "Zhang et al. 2026, arXiv 2601.09555, MXFP formats after training"
_WANDA = "Sun et al. 2023, arXiv 2306.11695, LLaMA and LLaMA-2"
_SPARSEGPT = "Frantar and Alistarh 2023, arXiv 2301.00774, OPT and BLOOM"
_PRUNER = "Ma et al. 2023, arXiv 2305.11627, LLaMA-7B with a fifth of its parameters removed"
_NONE = "nothing is changed"


@dataclass(frozen=True, slots=True)
class Range:
    """Loss of accuracy that was seen.

    Attributes
    ----------
    low, high
        Least and most, as a share of the accuracy there was. [fraction]
    source
        Where from.
    label
        What the figures are.
    """

    low: float
    high: float
    source: str
    label: str = RULE_OF_THUMB

    def __str__(self) -> str:
        return f"{self.low:.1%} to {self.high:.1%} of accuracy lost ({self.source}; {self.label})"


QUANTISATION_RISKS = MappingProxyType(
    {
        "bf16": Range(0.0, 0.0, _NONE),
        "fp8": Range(0.0, 0.01, f"{_KURTIC}: effectively lossless; {JUDGEMENT}"),
        "mxfp8": Range(0.0, 0.01, f"{_MXFP}: nearly lossless; {JUDGEMENT}"),
        "int8": Range(0.01, 0.03, f"{_KURTIC}: 1 to 3 % if well tuned"),
        "int8_wo": Range(0.0, 0.01, f"no more than with 8-bit activations too; {JUDGEMENT}"),
        "int4_wo": Range(0.005, 0.04, f"{_KURTIC}: rivals 8-bit integers, smaller models losing most; {JUDGEMENT}"),
        "nvfp4": Range(0.01, 0.06, f"{_FP4}: no automatic upgrade over INT4; {JUDGEMENT}"),
        "mxfp4": Range(0.02, 0.12, f"{_FP4}: power-of-two scales degrade it without special methods; {JUDGEMENT}"),
        "int3_wo": Range(0.02, 0.15, f"between four bits and two; {JUDGEMENT}"),
        "int2_wo": Range(0.10, 0.60, f"rounding to nearest collapses without code books and training; {JUDGEMENT}"),
    }
)
"""Ranges by weight format."""

_ALIKE = {
    "fp16": "bf16", "fp32": "bf16", "fp8_block": "fp8", "fp8_wo": "fp8", "mxfp8_wo": "mxfp8",
    "w4a16_nvfp4": "nvfp4", "w4a8_nvfp4_fp8": "nvfp4", "w4a16_mxfp4": "mxfp4", "w4a8_mxfp4_mxfp8": "mxfp4",
    "w4a8_mxfp4_fp8": "mxfp4", "w4a4_mxfp4": "mxfp4", "w4a8_int4_fp8": "int4_wo", "w4a8_int8": "int4_wo",
    "nf4": "int4_wo", "int5_wo": "int4_wo", "int6_wo": "int8_wo", "int7_wo": "int8_wo", "mxfp6": "mxfp8",
    "mxfp6_wo": "mxfp8", "int1_wo": "int2_wo",
}  # fmt: skip


_KEPT = ("embedding", "lm_head", "router", "norm")


def quantise_risk(dtype: str) -> Range:
    """Return the range of accuracy lost to a weight format.

    Raises
    ------
    UnknownNameError
        No such format.
    InputError
        Nothing is known of it (code books, ternary weights): such models are trained for it.

    Examples
    --------
    >>> quantise_risk("w4a16").high
    0.04
    """
    name = canonical_dtype(dtype)
    name = _ALIKE.get(name, name)
    if name not in QUANTISATION_RISKS:
        raise InputError(Problem("dtype", repr(dtype), "a format whose loss has been studied after training"))
    return QUANTISATION_RISKS[name]


def prune_risk(sparsity: float, pattern: Literal["unstructured", "structured", "n:m"] = "unstructured") -> Range:
    """Return the range of accuracy lost to pruning.

    Parameters
    ----------
    sparsity
        Share of the weights removed, in [0, 1). [fraction]
    pattern
        ``"unstructured"``, ``"n:m"`` (2 of 4, for instance), or ``"structured"`` (whole heads, channels, layers).

    Raises
    ------
    InputError
        ``sparsity`` is out of range.
    UnknownNameError
        No such pattern.

    Notes
    -----
    The sources say at which sparsity a pattern is used and in what order patterns hurt. Anchors there (half of the
    weights unstructured: 0 to 10 %; 2:4: 3 to 20 %; a fifth, structured: 3 to 12 %) and the growth from there,
    (s / s0)^3 up to 1, are our judgement.
    """
    choice("pattern", pattern, ("unstructured", "structured", "n:m"))
    problems = Problems()
    share = problems.number("sparsity", sparsity, 0.0, 1.0)
    if share >= 1.0:
        problems.add("sparsity", sparsity, "below 1: something has to be left")
    problems.raise_if_any()
    if share == 0.0:
        return Range(0.0, 0.0, _NONE)
    at, low, high, source = {
        "unstructured": (0.5, 0.0, 0.10, f"{_SPARSEGPT}; {_WANDA}; {JUDGEMENT}"),
        "n:m": (0.5, 0.03, 0.20, f"{_SPARSEGPT}; {_WANDA}; {JUDGEMENT}"),
        "structured": (0.2, 0.03, 0.12, f"{_PRUNER}; {JUDGEMENT}"),
    }[pattern]
    growth = (share / at) ** 3
    return Range(min(low * growth, 1.0), min(high * growth, 1.0), source)


@dataclass(frozen=True, slots=True)
class Compression:
    """Size of a compressed model.

    Attributes
    ----------
    weight_bytes, base_bytes
        Compressed, and what it is compared with. [bytes]
    ratio
        ``base_bytes / weight_bytes``.
    memory_saved
        ``1 - 1 / ratio``. [fraction]
    risk
        Loss of accuracy: the sums of both ranges where quantised and pruned.
    gemm_speedup_limit
        What the pattern can at most give a matrix product on hardware that knows it: 1 for unstructured, 2 for 2:4,
        and the share removed for structured pruning. Formats: see `format_gains`.
    """

    weight_bytes: float
    base_bytes: float
    ratio: float
    memory_saved: float
    risk: Range
    gemm_speedup_limit: float


def compress(
    model: ModelConfig | str,
    dtype: str = "bf16",
    sparsity: float = 0.0,
    pattern: Literal["unstructured", "structured", "n:m"] = "unstructured",
    *,
    base: Literal["16-bit", "fp32"] = "16-bit",
    convention: Literal["exact", "mlsysim"] = "exact",
) -> Compression:
    """Return size and risk of a model under a weight format and pruning.

    Parameters
    ----------
    model
        A model, or its name.
    dtype
        Weight format of the linear layers.
    sparsity, pattern
        As in `prune_risk`, of the linear layers too.
    base
        What ratios refer to.
    convention
        ``"exact"``: embeddings, LM head and router keep 16 bits, scales count, and what pruning saves is stored
        without zeros (2:4 with its 2-bit positions, unstructured with a bit per weight). ``"mlsysim"``: that tool's
        rules: every weight has just its bits, ratios to fp32, one loss for every model.

    Raises
    ------
    InputError
        Sparsity out of range.
    UnknownNameError
        No such model, format or pattern.

    Examples
    --------
    >>> c = compress("meta-llama/Llama-3.1-8B", "int4_wo")
    >>> round(c.ratio, 2), round(compress("meta-llama/Llama-3.1-8B", "int4_wo", convention="mlsysim").ratio, 2)
    (2.82, 8.0)
    """
    choice("base", base, ("16-bit", "fp32"))
    choice("convention", convention, ("exact", "mlsysim"))
    whole = model if isinstance(model, ModelConfig) else ModelConfig.from_hf(model)
    pruned = prune_risk(sparsity, pattern)
    if convention == "mlsysim":
        return _mlsysim(whole, dtype, sparsity, pattern)
    risk = quantise_risk(dtype)
    narrow = whole.with_precision(weight_dtype=dtype)
    wide = whole.weight_bytes if base == "16-bit" else 4.0 * whole.total_params
    linear = float(sum(_linear(whole).values()))
    size = narrow.weight_bytes
    if sparsity > 0 and linear > 0:
        plain = format_of(narrow.module_dtype(_largest_kind(whole))).bytes_per_weight * linear
        size += plain * -sparsity + _positions(sparsity, pattern) * linear
    limit = {"unstructured": 1.0, "n:m": 2.0 if math.isclose(sparsity, 0.5) else 1.0}.get(pattern, 1 / (1 - sparsity))
    both = Range(
        min(risk.low + pruned.low, 1.0),
        min(risk.high + pruned.high, 1.0),
        "; ".join(dict.fromkeys(r.source for r in (risk, pruned) if r.source != _NONE)) or _NONE,
    )
    return Compression(size, wide, wide / size, 1.0 - size / wide, both, limit if sparsity > 0 else 1.0)


def _linear(model: ModelConfig) -> dict[str, int]:
    """Return the parameters of the kinds that are quantised and pruned."""
    return {kind: n for kind, n in model.params_by_component().items() if kind not in _KEPT}


def _largest_kind(model: ModelConfig) -> str:
    linear = _linear(model)
    return max(linear, key=linear.__getitem__)


def _positions(sparsity: float, pattern: str) -> float:
    """Bytes per original weight that say which are left."""
    return {"unstructured": 1 / 8, "n:m": 2 / 8 * (1 - sparsity)}.get(pattern, 0.0)


def _mlsysim(model: ModelConfig, dtype: str, sparsity: float, pattern: str) -> Compression:
    bits = format_of(dtype).bits
    ratio = 32.0 / bits / (1.0 - sparsity) if bits < 32 else 1.0 / (1.0 - sparsity)
    loss = 0.0 if bits >= 16 else 0.002 if bits == 8 else 0.025 if bits >= 4 else 0.05
    if sparsity > 0:
        loss += 0.001 if sparsity <= 0.5 else 0.01 * math.exp(2.0 * sparsity)
    base = 4.0 * model.total_params
    limit = {"structured": 1 / (1 - sparsity), "n:m": 2.0 if abs(sparsity - 0.5) <= 0.05 else 1.0}.get(pattern, 1.0)
    risk = Range(loss, loss, "MLSysim 0.3, CompressionModel: the same for every model")
    return Compression(base / ratio, base, ratio, 1.0 - 1.0 / ratio, risk, limit)
