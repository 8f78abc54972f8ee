"""Which engine version is read for each GPU, and which sibling fills the gaps of the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["FINDINGS", "SLOTS", "SUBSTITUTIONS", "Finding", "Substitution", "slot"]

SLOTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "vllm": {"": "0.24.0", "a100_sxm": "0.14.0"},
        "sglang": {"": "0.5.14", "a100_sxm": "0.5.10"},
        "trtllm": {"": "1.3.0rc20", "a100_sxm": "1.0.0"},
    }
)
"""Engine -> GPU -> engine version whose tables are read; ``""`` stands for every GPU without its own entry."""


@dataclass(frozen=True)
class Substitution:
    """Rows taken from a sibling table because the engine's own are missing or wrong.

    Attributes
    ----------
    gpus, engine, family
        Where it applies.
    only
        Column -> value of the rows concerned; empty for all.
    from_engine, from_version
        The sibling slot.
    mode
        ``"fill"``: the engine has no such rows. ``"lower"``: exactly the sibling's keys, each with the lower of the two
        latencies, since a timing bound by launches or by an untuned kernel is an upper bound.
    reason
        What is wrong with the engine's own rows.
    from_gpu
        GPU of the sibling slot; empty for the same GPU.
    """

    gpus: tuple[str, ...]
    engine: str
    family: str
    only: Mapping[str, str]
    from_engine: str
    from_version: str
    mode: str
    reason: str
    from_gpu: str = ""


_FP8_BLOCK = MappingProxyType({"dtype": "fp8_block"})
_LAUNCH_BOUND = "launch-bound timings: one value for m from 1 to hundreds, several times that of the sibling"
_UNTUNED_EXPERTS = (
    "an untuned kernel: twice to three times as slow as the engine's own bf16 experts at every token count, and four "
    "times as slow in the median as the sibling's, which are CUTLASS experts too"
)
_SLOW_LATENT_ATTENTION = (
    "a disturbed run: 1.6 times as slow as on the older b200_sxm in the median, up to 2.5, where every other table of "
    "this GPU, also that of the same block under TensorRT-LLM, is as fast or faster"
)

SUBSTITUTIONS: tuple[Substitution, ...] = (
    Substitution(
        ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm"),
        "vllm",
        "gemm",
        _FP8_BLOCK,
        "sglang",
        "0.5.14",
        "lower",
        _LAUNCH_BOUND,
    ),
    Substitution(
        ("l40s", "rtx_pro_6000_server"), "vllm", "gemm", _FP8_BLOCK, "trtllm", "1.3.0rc20", "lower", _LAUNCH_BOUND
    ),
    Substitution(
        ("h100_sxm", "h200_sxm"),
        "vllm",
        "moe",
        MappingProxyType({"dtype": "fp8"}),
        "trtllm",
        "1.3.0rc20",
        "lower",
        _UNTUNED_EXPERTS,
    ),
    *(
        Substitution(
            ("b300_sxm",),
            "vllm",
            name,
            MappingProxyType({}),
            "vllm",
            "0.24.0",
            "lower",
            _SLOW_LATENT_ATTENTION,
            "b200_sxm",
        )
        for name in ("mla_module_prefill", "mla_module_decode")
    ),
    Substitution(
        ("l40s",),
        "vllm",
        "comm",
        MappingProxyType({"backend": "custom"}),
        "vllm",
        "0.22.0",
        "fill",
        "the current slot has no table of the engine's own all-reduce",
    ),
    *(
        Substitution(
            ("l40s",),
            "trtllm",
            name,
            MappingProxyType({}),
            "trtllm",
            "1.0.0",
            "fill",
            "the current slot has no table of the attention kernel alone",
        )
        for name in ("mla_prefill", "mla_decode")
    ),
)
"""Known gaps of the package and the named sibling that fills each; all of them end up in the provenance."""


@dataclass(frozen=True)
class Finding:
    """Something a reader of a table should know and that was left as measured."""

    gpus: tuple[str, ...]
    engine: str
    family: str
    text: str


FINDINGS: tuple[Finding, ...] = (
    Finding(
        ("l40s",),
        "vllm",
        "comm",
        "All-reduce slows down out of proportion with the number of GPUs: large messages run at a bus bandwidth of 19 "
        "GB/s over 2 GPUs, 4 over 4 and 2 over 8. NCCL on the same host shows the same (20, 5, 1.4), so it is how the "
        "PCIe slots of that host are connected, not the kernel: other hosts can be several times faster beyond 2 GPUs.",
    ),
    Finding(
        ("b200_sxm", "b300_sxm"),
        "vllm",
        "gemm",
        "fp8 at m = 1 takes twice as long in the median as at m = 2, at some shapes three times; other engines show no "
        "such step. On b200_sxm about one fp8 value in thirty is 10 us too high, at random m.",
    ),
    Finding(
        ("h100_sxm", "h200_sxm"),
        "sglang",
        "mla_decode",
        "With an fp8 cache the kernel is 5 to 7 times slower than with a bf16 one at large shapes, as if each call "
        "converted the cache; TensorRT-LLM's kernel is faster with it.",
    ),
    Finding(
        ("h100_sxm", "h200_sxm"),
        "trtllm",
        "mla_decode",
        "A handful of values are 20 to 190 times too high; see the record of rows beaten by a larger shape.",
    ),
    Finding(
        ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm"),
        "trtllm",
        "gemm",
        "fp8 includes finding the scale of the activation at run time, 7 us at small m; checkpoints with static scales "
        "do not pay it. It is measured in act_scale.",
    ),
    Finding(
        ("b300_sxm",),
        "trtllm",
        "moe",
        "nvfp4 was measured with the throughput kernels alone; on b200_sxm the table also holds the low-latency "
        "kernels, which take half the time up to 64 tokens and two thirds of it beyond.",
    ),
    *(
        Finding(
            ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm"),
            engine,
            "dsa_module_prefill",
            "Bound by launches up to one or two thousand new tokens, where a block takes 0.5 to 1.6 ms whatever the "
            "length: the indexer's many small kernels were timed outside a CUDA graph, as the engine runs them.",
        )
        for engine in ("vllm", "sglang")
    ),
    Finding(
        ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm"),
        "trtllm",
        "mamba2",
        "The convolution alone was measured, not the scan after it.",
    ),
)
"""Oddities that were looked into and not repaired, because they are the engine's or the host's own."""


def slot(engine: str, gpu: str) -> str:
    """Return the engine version whose tables are read for a GPU."""
    return SLOTS[engine].get(gpu, SLOTS[engine][""])
