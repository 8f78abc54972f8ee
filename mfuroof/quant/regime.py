"""Which regime a step is in: memory, compute, communication or overhead; per operation and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof._types import F64, ArrayLike
from mfuroof.batch import StepBatch
from mfuroof.costs.base import RESOURCES
from mfuroof.models import ModelConfig
from mfuroof.step import StepEvaluator

__all__ = ["Regimes", "gemm_intensity", "gemm_ridge_tokens", "op_dtype", "regimes"]

_KINDS = (
    ("shared_", ("shared_experts",)),
    ("expert", ("experts",)),
    ("router", ("router",)),
    ("qkv_gemm", ("qkv", "mla", "linear_attention", "mamba")),
    ("q_up_gemm", ("mla",)),
    ("o_gemm", ("o", "mla", "linear_attention", "mamba")),
    ("gate_up_gemm", ("gate_up",)),
    ("down_gemm", ("down",)),
    ("lm_head", ("lm_head",)),
    ("gemm", ("down", "experts")),
)
"""By words of an operation's name: kinds of modules, the first of which the model has gives the format; the others
compute in 16 bits."""
_COMM = ("reduce", "gather", "all_to_all", "dispatch", "combine", "send", "comm")


@dataclass(frozen=True, eq=False, repr=False)
class Regimes:
    """Work, traffic and regime of n steps.

    Attributes
    ----------
    step
        Regime of each step by name (n,): compute, memory, comm or overhead, by the largest share of its time.
    share
        Share of each resource in the step's time, by name, each (n,). [fraction]
    op
        Regime of each operation, by name, each (n,); an empty text where it has no work. The roofline costs count
        traffic by what is read, not by operation: there only communication and overhead are told apart.
    arithmetic_intensity
        FLOP per byte of each operation, and of the whole step under ``"step"``, each (n,); NaN without traffic.
    ridge_point
        Intensity above which each operation is bound by compute, in the format it computes in. [FLOP/byte]
    """

    step: np.ndarray
    share: Mapping[str, F64]
    op: Mapping[str, np.ndarray]
    arithmetic_intensity: Mapping[str, F64]
    ridge_point: Mapping[str, float]

    def to_rows(self, i: int = 0) -> list[dict[str, Any]]:
        """Return one record per operation of step ``i`` that has work."""
        return [
            {
                "op": name,
                "regime": str(regime[i]),
                "arithmetic_intensity": float(self.arithmetic_intensity[name][i]),
                "ridge_point": self.ridge_point[name],
            }
            for name, regime in self.op.items()
            if regime[i]
        ]

    def __repr__(self) -> str:
        if not self.step.size:
            return "Regimes of 0 steps"
        rows = self.to_rows()
        width = max((len(r["op"]) for r in rows), default=4)
        lines = [f"step 0 of {self.step.size} is bound by {self.step[0]}:"]
        for r in rows:
            intensity = f"{r['arithmetic_intensity']:>8.1f} of {r['ridge_point']:.0f} FLOP/byte"
            lines.append(f"  {r['op']:<{width}}  {r['regime']:<8}  {intensity}")
        return "\n".join(lines)


def regimes(evaluator: StepEvaluator, batch: StepBatch) -> Regimes:
    """Classify steps and their operations.

    Parameters
    ----------
    evaluator
        Model, device, cost.
    batch
        Shapes of n steps.

    Notes
    -----
    An operation is bound by compute where its arithmetic intensity reaches the ridge point (peak rate of the format it
    computes in, over bandwidth), else by memory; one that moves nothing is communication or overhead. A step belongs
    to the resource with the largest share of its time.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> r = regimes(evaluator, StepBatch.uniform(decode_batch=[1, 0], prefill_batch=[0, 1], prefill_new_tokens=4096))
    >>> r.step.tolist(), str(r.op["down_gemm"][1])
    (['memory', 'compute'], 'compute')
    """
    result = evaluator.evaluate(batch)
    n, device = len(batch), evaluator.hardware
    flops, moved = result.op_flops, result.op_bytes
    op: dict[str, np.ndarray] = {}
    intensity: dict[str, F64] = {}
    ridge: dict[str, float] = {}
    none = np.zeros(n)
    beside = [name for name in ("comm", "overhead") if name in result.op_time_s and name not in flops]
    for name in (*(name for name in flops if name in moved), *beside):
        work, traffic = np.asarray(flops.get(name, none)), np.asarray(moved.get(name, none))
        time = np.asarray(result.op_time_s.get(name, none))
        ridge[name] = device.ridge_point(op_dtype(evaluator.model, name))
        intensity[name] = np.divide(work, traffic, out=np.full(n, np.nan), where=traffic > 0)
        idle = "comm" if any(word in name for word in _COMM) else "overhead"
        bound = np.where(intensity[name] >= ridge[name], "compute", "memory")
        bound = np.where(traffic > 0, bound, np.where(work > 0, "compute", idle))
        op[name] = np.where((time > 0) | (work > 0) | (traffic > 0), bound, "")
    total, bytes_ = (np.sum([np.asarray(v) for v in part.values()], axis=0) for part in (flops, moved))
    intensity["step"] = np.divide(total, bytes_, out=np.full(n, np.nan), where=np.asarray(bytes_) > 0)
    ridge["step"] = device.ridge_point(op_dtype(evaluator.model, "gemm"))
    times = result.resource_time_s
    whole = np.sum(list(times.values()), axis=0)
    share = {r: np.divide(times[r], whole, out=np.zeros(n), where=whole > 0) for r in RESOURCES}
    return Regimes(np.array(result.bound_names), share, op, intensity, ridge)


def gemm_intensity(
    m: ArrayLike,
    n: float,
    k: float,
    bytes_per_weight: float = 2.0,
    bytes_per_input: float = 2.0,
    bytes_per_output: float = 2.0,
) -> F64:
    """Return the arithmetic intensity of Y[m, n] = X[m, k] W[k, n], each operand moved once. [FLOP/byte]

    Parameters
    ----------
    m : array_like
        Tokens; the result has its shape.
    n, k
        Output and input features.
    bytes_per_weight, bytes_per_input, bytes_per_output
        Of one element of W, X and Y. [bytes]
    """
    tokens = np.asarray(m, np.float64)
    moved = bytes_per_weight * n * k + tokens * (bytes_per_input * k + bytes_per_output * n)
    return 2.0 * tokens * n * k / moved


def gemm_ridge_tokens(
    ridge_point: float,
    n: float,
    k: float,
    bytes_per_weight: float = 2.0,
    bytes_per_input: float = 2.0,
    bytes_per_output: float = 2.0,
) -> float:
    """Return the tokens from which such a product is bound by compute; infinite where it never is. [tokens]

    Parameters
    ----------
    ridge_point
        Peak rate over bandwidth, see `Hardware.ridge_point`. [FLOP/byte]
    n, k, bytes_per_weight, bytes_per_input, bytes_per_output
        As in `gemm_intensity`.

    Notes
    -----
    Solves ``gemm_intensity(m) = ridge_point``: ``m = r w n k / (2 n k - r (a k + b n))``.
    """
    room = 2.0 * n * k - ridge_point * (bytes_per_input * k + bytes_per_output * n)
    return ridge_point * bytes_per_weight * n * k / room if room > 0 else float("inf")


def op_dtype(model: ModelConfig, op: str) -> str:
    """Return the format whose rate an operation of that name computes at."""
    present = model.params_by_component()
    for word, kinds in _KINDS:
        if word in op:
            kind = next((k for k in kinds if k in present), None)
            return model.module_dtype(kind) if kind else "bf16"
    return "bf16"
