"""Components of a step in the slots of Vidur's execution times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64
from mfuroof.adapters.grids import is_additive
from mfuroof.errors import InputError, Problem
from mfuroof.step import StepEvaluator
from mfuroof.units import MS

__all__ = ["SLOTS", "VidurParts"]

SLOTS = (
    "attention_rope",
    "attention_decode",
    "attention_prefill",
    "attention_pre_proj",
    "attention_post_proj",
    "mlp_up_proj",
    "mlp_down_proj",
    "mlp_act",
    "attn_norm",
    "mlp_norm",
    "add",
    "tensor_parallel",
)
"""Times of one layer. The slots of KV-cache writes and pipeline sends stay 0: one line of Vidur does not count the
former, and the latter is not charged on the last stage; both are in other slots."""

_TP_CALLS = 2.0  # Vidur counts the tensor-parallel slot once for attention and once for the MLP
_REST = "add"
_HOMES = {
    "attention_prefill": "attention_prefill",
    "attention_decode": "attention_decode",
    "qkv_gemm": "attention_pre_proj",
    "q_up_gemm": "attention_pre_proj",
    "qk_norm": "attention_pre_proj",
    "rotary_kv_write": "attention_rope",
    "o_gemm": "attention_post_proj",
    "gate_up_gemm": "mlp_up_proj",
    "shared_gate_up_gemm": "mlp_up_proj",
    "experts": "mlp_up_proj",
    "router": "mlp_up_proj",
    "routing": "mlp_up_proj",
    "gemm": "mlp_up_proj",
    "down_gemm": "mlp_down_proj",
    "shared_down_gemm": "mlp_down_proj",
    "activation": "mlp_act",
    "all_reduce": "tensor_parallel",
    "comm": "tensor_parallel",
}
"""Component to slot; norms are halved between two, and all others (embedding, LM head, overhead) go to `add`, so
that the slots always add up to the step."""


@dataclass(frozen=True, eq=False)
class VidurParts:
    """How components of an evaluator become slots: ``slots = weights @ components``.

    Parameters
    ----------
    weights
        (len(SLOTS), number of components). [ms per layer / s]
    calls
        What a slot is counted in a layer (len(SLOTS),).
    additive
        Whether components add up to the step; where they do not, the whole step goes to `add`.
    """

    weights: F64
    calls: F64
    layers: int
    additive: bool

    @classmethod
    def of(cls, evaluator: StepEvaluator, *, by_layer: bool = False) -> VidurParts:
        """Return the mapping of an evaluator.

        Raises
        ------
        InputError
            ``by_layer`` and the components do not add up.
        """
        layers, additive = evaluator.model.num_hidden_layers, is_additive(evaluator)
        if by_layer and not (additive and "attention_decode" in evaluator.components):
            expected = "a cost whose components add up: kernels, or mfu_table with its defaults"
            raise InputError(Problem("evaluator", repr(evaluator), expected))
        weights: F64 = np.zeros((len(SLOTS), len(evaluator.components)))
        for i, name in enumerate(evaluator.components):
            homes = ("attn_norm", "mlp_norm") if name == "norm" else (_HOMES.get(name, _REST),)
            for home in homes:
                calls = _TP_CALLS if home == "tensor_parallel" else 1.0
                weights[SLOTS.index(home), i] = 1.0 / (len(homes) * calls * layers * MS)
        counted: F64 = np.array([_TP_CALLS if slot == "tensor_parallel" else 1.0 for slot in SLOTS])
        return cls(weights, counted, layers, additive)

    def slots(self, components: F64) -> dict[str, F64]:
        """Return each slot from components (number, n). [ms per layer]"""
        return dict(zip(SLOTS, self.weights @ components, strict=True))
