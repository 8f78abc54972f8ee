"""What serving engines do around the kernels: which of them they fuse, and the time no kernel table holds."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from mfuroof._boundary import choice

__all__ = ["ENGINES", "EngineProfile", "engine_profile"]


@dataclass(frozen=True)
class EngineProfile:
    """Habits of one engine.

    Attributes
    ----------
    name
        Engine, or a named generation of one.
    tables
        Engine whose measured tables are read.
    fuses_all_reduce_norm
        GPU architectures on which the all-reduce after a block and the norm behind it are one kernel, taken from the
        fastest collective at hand.
    rotary_kv_kernels, qk_norm_kernels, routing_kernels
        Launches a layer of the rotary embedding with the KV write, of the norms of queries and keys, and of the choice
        of experts with the sorting of their tokens.
    kernel_time_factor
        Every kernel takes this many times as long as in the tables, which are of a later generation.
    step_overhead_s, layer_overhead_s, sequence_overhead_s
        Time beside the kernels: per step (scheduling, inputs, sampling that the GPU waits for), per layer (rotary
        embedding, KV write and what else is in no table), and per sequence that emits a token. Fitted on development
        measurements only; see docs/accuracy.md. [s]
    """

    name: str
    tables: str
    fuses_all_reduce_norm: tuple[str, ...] = ()
    rotary_kv_kernels: int = 2
    qk_norm_kernels: int = 2
    routing_kernels: int = 3
    kernel_time_factor: float = 1.0
    step_overhead_s: float = 0.0
    layer_overhead_s: float = 0.0
    sequence_overhead_s: float = 0.0


ENGINES = MappingProxyType(
    {
        p.name: p
        for p in (
            EngineProfile("vllm", "vllm", ("Blackwell",), step_overhead_s=0.4e-3, sequence_overhead_s=8e-6),
            EngineProfile("sglang", "sglang", ("Blackwell",), step_overhead_s=0.4e-3, sequence_overhead_s=8e-6),
            EngineProfile(
                "trtllm",
                "trtllm",
                ("Hopper", "Blackwell"),
                rotary_kv_kernels=1,
                qk_norm_kernels=1,
                routing_kernels=2,
                step_overhead_s=0.4e-3,
                sequence_overhead_s=8e-6,
            ),
            EngineProfile("own", "own"),  # kernels as `mfuroof collect` found them; nothing around them
            # Before CUDA graphs, fused kernels and split-KV attention. Fitted to 38 points of BLOOM-176B on eight H100
            # (vLLM of 2023), the only data there is: 2.0 % mean error on decode steps, 9.5 % on prefill, in sample.
            EngineProfile(
                "vllm_2023", "vllm", kernel_time_factor=1.585, step_overhead_s=5.13e-3, sequence_overhead_s=1.668e-4
            ),
        )
    }
)
"""Known engines by name."""


def engine_profile(name: str) -> EngineProfile:
    """Return the profile of an engine; raise `UnknownNameError` naming the nearest otherwise."""
    return ENGINES[choice("engine", name, ENGINES)]
