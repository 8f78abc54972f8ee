"""`Scheduler`: how an engine composes its steps, in the few facts that the serving view needs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64
from mfuroof.errors import UnknownNameError

__all__ = ["SCHEDULERS", "Scheduler", "scheduler_of"]


@dataclass(frozen=True)
class Scheduler:
    """Continuous batching as one engine does it.

    Parameters
    ----------
    mixes
        Decode requests go on in the steps that prefill prompts. False: such steps hold prompts alone and decoding
        pauses (prefill first).
    chunks
        A prompt may be cut where the token budget of a step ends. False: only whole prompts are scheduled.
    reserves_output
        A request is admitted only if the KV cache has room for all it may become; otherwise for its prompt, and the
        youngest request is thrown out and computed again when the cache runs full.
    keeps_evicted
        A request that was thrown out finds again what has not been written over since, because the prefix cache keeps
        free blocks; otherwise it is computed from the start.
    max_batch_tokens
        Token budget of a step. [tokens]
    max_num_seqs
        Requests in flight in one engine. [requests]
    lag_steps
        Steps a prompt waits for while the engine is busy: 1 where the next step is composed when the running one
        ends, 2 where it is composed (and launched) ahead of time.
    keeps_together
        What to assume where nothing is said about lengths: True, requests that start together end together, as in
        benchmarks with one length; False, lengths vary and requests spread out.
    launch_tokens
        Prompt tokens from which on a step is launched kernel by kernel; smaller ones run from captured graphs in part.
        [tokens]
    layer_launch_s
        What such a step takes per layer beyond its kernels; less in proportion where prompts are smaller. [s]
    request_overhead_s
        Time of a request outside the steps: HTTP, tokenizer, queues between processes, the way back. [s]

    Raises
    ------
    InputError
        With every field that is out of range.
    """

    mixes: bool = True
    chunks: bool = True
    reserves_output: bool = False
    keeps_evicted: bool = True
    max_batch_tokens: int = 8192
    max_num_seqs: int = 1024
    lag_steps: int = 1
    keeps_together: bool = False
    launch_tokens: int = 1024
    layer_launch_s: float = 0.0
    request_overhead_s: float = 0.0

    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("max_batch_tokens", "max_num_seqs", "lag_steps"):
            object.__setattr__(self, name, problems.positive_int(name, getattr(self, name)))
        object.__setattr__(self, "launch_tokens", problems.positive_int("launch_tokens", self.launch_tokens))
        for name in ("layer_launch_s", "request_overhead_s"):
            object.__setattr__(self, name, problems.number(name, getattr(self, name), 0.0, 1e6))
        for name in ("mixes", "chunks", "reserves_output", "keeps_evicted", "keeps_together"):
            if not isinstance(getattr(self, name), bool):
                problems.add(name, getattr(self, name), "True or False")
        problems.raise_if_any()

    def launch_s(self, prompt_tokens: F64, num_layers: int) -> F64:
        """Return what steps with that many prompt tokens take beyond their kernels. [s]"""
        return num_layers * self.layer_launch_s * np.minimum(prompt_tokens / self.launch_tokens, 1.0)

    def changed(self) -> dict[str, object]:
        """Return the fields that differ from the defaults, for reports."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


SCHEDULERS = MappingProxyType(
    {
        "vllm": Scheduler(lag_steps=2, layer_launch_s=0.2e-3, request_overhead_s=0.008),
        "trtllm": Scheduler(
            chunks=False,
            reserves_output=True,
            lag_steps=2,
            keeps_together=True,
            layer_launch_s=0.2e-3,
            request_overhead_s=0.020,
        ),
        "sglang": Scheduler(
            mixes=False,
            reserves_output=True,
            lag_steps=2,
            keeps_together=True,
            layer_launch_s=0.2e-3,
            request_overhead_s=0.015,
        ),
    }
)
"""The engines with the settings their servers start with.

``layer_launch_s`` and ``request_overhead_s`` are the two numbers of the serving view that were fitted, on development
measurements (benchmarks/accuracy.py holds models and GPUs out); everything else is how the engines work.
"""


_ALSO = MappingProxyType(
    {
        "own": SCHEDULERS["vllm"],  # kernels of your own, served as vLLM would
        # Before chunked prefill: prompts alone and first, and what is thrown out is computed from its start.
        "vllm_2023": Scheduler(
            mixes=False,
            chunks=False,
            keeps_evicted=False,
            max_batch_tokens=2560,
            max_num_seqs=256,
            request_overhead_s=0.008,
        ),
    }
)
"""Engines that are known by their kernels; how these are served is assumed, not compared with measurements."""


def scheduler_of(engine: str) -> Scheduler:
    """Return the scheduler of an engine.

    Raises
    ------
    UnknownNameError
        No engine of that name.
    """
    found = SCHEDULERS.get(engine) or _ALSO.get(engine)
    if found is None:
        raise UnknownNameError("engine", engine, (*SCHEDULERS, *_ALSO))
    return found
