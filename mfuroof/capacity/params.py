"""`CapacityParams`: what is kept back beside weights and KV cache, and by which convention it is counted."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mfuroof._boundary import Problems
from mfuroof.units import GIB

__all__ = ["CapacityParams"]

_SIZES = ("framework_bytes", "graph_bytes", "comm_bytes", "adapter_bytes", "memory_step_bytes")


@dataclass(frozen=True)
class CapacityParams:
    """Memory that is neither weights nor KV cache; the defaults are ours, `blis` is a named preset.

    Parameters
    ----------
    max_batched_tokens
        Tokens of the largest step; they size the activations. [tokens]
    max_num_seqs
        Rows of the largest logits matrix. [sequences]
    activation_bytes
        A fixed amount in place of the estimate from the model's widths; None for the estimate. [bytes]
    moe_activation_bytes
        The same for models with routed experts; None for ``activation_bytes``. [bytes]
    activation_shared
        Whether the fixed amount is one for all tensor-parallel ranks together (it is then divided by them), or one
        for each.
    framework_bytes
        Per GPU: what the driver keeps of the visible memory, the CUDA context, library workspaces. [bytes]
    graph_bytes
        Per GPU: captured CUDA graphs. [bytes]
    comm_bytes
        Per GPU where there is more than one: NCCL and all-reduce buffers. [bytes]
    adapter_bytes
        LoRA adapters beside the weights, divided over the tensor-parallel ranks. [bytes]
    memory_step_bytes
        Round the visible memory up to a multiple of this, the capacity printed on the box; 0 takes it as it is.
        [bytes]
    flat
        Count weights and KV as simple simulators do: one formula for every architecture, one width for every weight,
        every layer with a full cache, everything divided evenly over tensor-parallel ranks. False counts module by
        module.

    Raises
    ------
    InputError
        With every field that is out of range.

    Notes
    -----
    With the defaults Llama-3.1-8B in bf16 on an H100 at 0.9 has 444 thousand tokens. vLLM's start-up log for the same
    shows 79.14 GiB of memory, 14.99 for weights, 0.12 outside torch, 1.19 for activations and 54.93 for the cache,
    that is 450 thousand tokens, before its CUDA graphs, which newer versions subtract.
    """

    max_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    activation_bytes: float | None = None
    moe_activation_bytes: float | None = None
    activation_shared: bool = False
    framework_bytes: float = 0.75 * GIB
    graph_bytes: float = 0.5 * GIB
    comm_bytes: float = 1.0 * GIB
    adapter_bytes: float = 0.0
    memory_step_bytes: float = 0.0
    flat: bool = False

    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("max_batched_tokens", "max_num_seqs"):
            object.__setattr__(self, name, problems.positive_int(name, getattr(self, name)))
        for name in _SIZES:
            object.__setattr__(self, name, problems.number(name, getattr(self, name), 0, 2**60))
        for name in ("activation_bytes", "moe_activation_bytes"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, problems.number(name, getattr(self, name), 0, 2**60))
        for name in ("activation_shared", "flat"):
            if not isinstance(getattr(self, name), bool):
                problems.add(name, getattr(self, name), "True or False")
        problems.raise_if_any()

    @classmethod
    def blis(cls, *, adapter_bytes: float = 0.0) -> CapacityParams:
        """Return the conventions of BLIS (inference-sim): its figures exactly at ``tp_size`` 1.

        Above that BLIS sets the memory of all ranks against the KV bytes of one, and so is about ``tp_size`` times
        too high (inference-sim issue 1545); here both are per rank.

        Parameters
        ----------
        adapter_bytes
            LoRA adapters. [bytes]
        """
        return cls(
            activation_bytes=5.5 * GIB,
            moe_activation_bytes=8.0 * GIB,
            activation_shared=True,
            framework_bytes=0.15 * GIB,
            graph_bytes=0.0,
            comm_bytes=0.45 * GIB,
            adapter_bytes=adapter_bytes,
            memory_step_bytes=8.0 * GIB,
            flat=True,
        )

    def changed(self) -> dict[str, object]:
        """Return the fields that differ from the defaults, for reports."""
        base = CapacityParams()
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(base, f.name)}
