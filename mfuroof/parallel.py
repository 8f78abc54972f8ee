"""How a model is spread over GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from mfuroof._boundary import Problems

__all__ = ["Parallel"]


@dataclass(frozen=True)
class Parallel:
    """Parallel degrees of one model replica.

    Parameters
    ----------
    tp_size
        Tensor-parallel ranks: each matrix is split over them.
    pp_size
        Pipeline stages: the layers are split over them.
    ep_size
        Expert-parallel ranks: the routed experts are split over them (a divisor of ``tp_size * dp_size``).
    dp_size
        Attention data-parallel ranks: each serves its own requests and shares the experts with the others.

    Raises
    ------
    InputError
        A degree is no positive integer, or the expert ranks do not divide the GPUs of a stage.
    """

    tp_size: int = 1
    pp_size: int = 1
    ep_size: int = 1
    dp_size: int = 1

    def __post_init__(self) -> None:
        problems = Problems()
        for field in ("tp_size", "pp_size", "ep_size", "dp_size"):
            object.__setattr__(self, field, problems.positive_int(field, getattr(self, field)))
        if not problems and (self.tp_size * self.dp_size) % self.ep_size:
            problems.add(
                "ep_size",
                self.ep_size,
                f"a divisor of tp_size * dp_size = {self.tp_size * self.dp_size}",
                "Experts are spread over the GPUs of one pipeline stage.",
            )
        problems.raise_if_any()

    @property
    def num_gpus(self) -> int:
        """GPUs of one replica."""
        return self.tp_size * self.pp_size * self.dp_size

    @property
    def moe_tp_size(self) -> int:
        """Ranks over which one expert's matrices are split."""
        return self.tp_size * self.dp_size // self.ep_size
