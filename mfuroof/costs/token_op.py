"""One operation over the tokens of a step, priced by the MFU of its shape."""

from __future__ import annotations

from dataclasses import dataclass

from mfuroof.precision import Format

__all__ = ["ExpertKey", "TokenOp"]


@dataclass(frozen=True)
class ExpertKey:
    """What identifies grouped GEMMs in the tables; ``intermediate_size`` is that of the whole expert."""

    num_experts: int
    num_experts_per_tok: int
    hidden_size: int
    intermediate_size: int
    num_gpus: int
    tp: int

    def as_dict(self) -> dict[str, int]:
        """Return the arguments of `BenchData.grouped_gemm_mfu`."""
        return {
            "num_experts": self.num_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_gpus": self.num_gpus,
            "tp": self.tp,
        }


@dataclass(frozen=True)
class TokenOp:
    """An operation that runs ``count`` times a step.

    Parameters
    ----------
    name
        For reports.
    count
        Calls, times the share of a call that one GPU pays.
    k, n
        Weight shape whose MFU is read; unused for experts.
    fmt
        Storage format of the weights.
    flops_per_token
        Of one call. [FLOP]
    peak_flops_per_s
        Rate the MFU is a share of. [FLOP/s]
    read_s
        Time to read the weights of one call. [s]
    floored
        A call takes at least ``read_s``.
    experts
        Grouped GEMM instead of one weight matrix.
    tokens_per_gpu
        Tokens that the tables of grouped GEMMs count, per token of the step: they give each rank of experts its own.
    gathered
        Tokens that choose experts, per token of the step; 0 reads all experts whatever the tokens.
    """

    name: str
    count: float
    k: int
    n: int
    fmt: Format
    flops_per_token: float
    peak_flops_per_s: float
    read_s: float = 0.0
    floored: bool = False
    experts: ExpertKey | None = None
    tokens_per_gpu: float = 1.0
    gathered: int = 0
