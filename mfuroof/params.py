"""`CostParams`: every number and rule in which presets and peers differ. One record, no forks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from mfuroof._boundary import Problems

__all__ = ["CostParams"]


@dataclass(frozen=True)
class CostParams:
    """Conventions of a step-time estimate; the defaults are ours, the class methods are named presets.

    Parameters
    ----------
    monotone
        Repair the bound curves so that time never falls along tokens, batch and context (isotonic regression).
    missing
        What to do where no measured table covers an operation: ``"raise"``, price it by its ``"roofline"``, or
        ``"nan"``.
    elementwise_bandwidth_efficiency
        Share of the HBM bandwidth that norms, activations and gathers reach. [fraction]
    elementwise_launch_s
        Fixed time of one elementwise kernel. [s]
    gemm_neighbours
        Measured (n, k) sites blended for a shape that was not measured.
    decode_kv_spread
        Half-width of the KV-length window over which decode attention is averaged (five points); 0 reads one
        point. [fraction]
    prefill_blend
        Between measured lengths: ``"affine_rate"`` (time per token linear in length) or ``"sqrt"`` (square root of
        the time linear in length).
    prefix_launch_kept
        Whether a chunk behind a cached prefix pays the whole launch part of prefill attention and only its share of
        the area part; False scales the whole kernel by the share.
    prefix_kv_floor
        Keep a chunk at or above the time to read its KV cache once.
    prefill_extra_kernels
        Charge rotary, KV write and their gathers as a constant beside each prefill attention call.
    """

    monotone: bool = True
    missing: Literal["raise", "roofline", "nan"] = "raise"
    elementwise_bandwidth_efficiency: float = 0.8
    elementwise_launch_s: float = 3e-6
    gemm_neighbours: int = 4
    decode_kv_spread: float = 0.0
    prefill_blend: Literal["affine_rate", "sqrt"] = "affine_rate"
    prefix_launch_kept: bool = True
    prefix_kv_floor: bool = True
    prefill_extra_kernels: bool = False

    def __post_init__(self) -> None:
        problems = Problems()
        problems.number("elementwise_bandwidth_efficiency", self.elementwise_bandwidth_efficiency, 0, 1, open_low=True)
        problems.number("elementwise_launch_s", self.elementwise_launch_s, 0, 1)
        problems.number("decode_kv_spread", self.decode_kv_spread, 0, 0.5)
        problems.positive_int("gemm_neighbours", self.gemm_neighbours)
        for name, allowed in (("missing", ("raise", "roofline", "nan")), ("prefill_blend", ("affine_rate", "sqrt"))):
            if getattr(self, name) not in allowed:
                problems.add(name, getattr(self, name), f"one of {', '.join(allowed)}")
        problems.raise_if_any()

    @classmethod
    def aiconfigurator(cls) -> CostParams:
        """Return the conventions of NVIDIA AIConfigurator 0.12 for dense models (kernel tables)."""
        return cls(
            monotone=False,
            decode_kv_spread=0.1,
            prefill_blend="sqrt",
            prefix_launch_kept=False,
            prefix_kv_floor=False,
            prefill_extra_kernels=True,
        )

    def changed(self) -> dict[str, object]:
        """Return the fields that differ from the defaults, for reports."""
        base = CostParams()
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(base, f.name)}
