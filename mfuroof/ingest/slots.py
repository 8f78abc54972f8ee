"""Which engine version is read for each GPU, and which sibling fills the gaps of the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["SLOTS", "SUBSTITUTIONS", "Substitution", "slot"]

SLOTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "vllm": {"": "0.24.0", "a100_sxm": "0.14.0"},
        "sglang": {"": "0.5.14", "a100_sxm": "0.5.10"},
        "trtllm": {"": "1.3.0rc20", "a100_sxm": "1.0.0"},
    }
)
"""Engine -> GPU -> engine version whose tables are read; ``""`` stands for every GPU without its own entry."""

_LAUNCH_BOUND = "launch-bound timings: one value for m from 1 to hundreds, several times that of the sibling"


@dataclass(frozen=True)
class Substitution:
    """Rows taken from a sibling table because the engine's own are missing or wrong.

    Attributes
    ----------
    gpus, engine, family
        Where it applies.
    only
        Column -> value of the rows concerned.
    from_engine, from_version
        The sibling slot of the same GPU.
    mode
        ``"fill"``: the engine has no such rows. ``"lower"``: exactly the sibling's keys, each with the lower of the two
        latencies, since a launch-bound timing is an upper bound of the kernel's.
    reason
        What is wrong with the engine's own rows.
    """

    gpus: tuple[str, ...]
    engine: str
    family: str
    only: Mapping[str, str]
    from_engine: str
    from_version: str
    mode: str
    reason: str


SUBSTITUTIONS: tuple[Substitution, ...] = (
    Substitution(
        ("h100_sxm", "h200_sxm", "b200_sxm"),
        "vllm",
        "gemm",
        MappingProxyType({"dtype": "fp8_block"}),
        "sglang",
        "0.5.14",
        "lower",
        _LAUNCH_BOUND,
    ),
    Substitution(
        ("l40s",),
        "vllm",
        "gemm",
        MappingProxyType({"dtype": "fp8_block"}),
        "trtllm",
        "1.3.0rc20",
        "lower",
        _LAUNCH_BOUND,
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


def slot(engine: str, gpu: str) -> str:
    """Return the engine version whose tables are read for a GPU."""
    return SLOTS[engine].get(gpu, SLOTS[engine][""])
