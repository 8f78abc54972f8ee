"""Other step-time models, where they are installed: how many answers a second a loop over their Python interface gives.

``pip install aiconfigurator-core mlsysim genz-llm`` makes all three appear in the report. Their answers are not
compared here: they model other things (accuracy.py compares what can be compared, on measurements).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from cases import GPU, Case, Way, log_uniform

import mfuroof as mr

MODEL, TP = "meta-llama/Meta-Llama-3.1-70B", 4
OURS = "meta-llama/Llama-3.1-70B"
"""AIConfigurator carries this configuration under its older name."""


def peer_cases(n: int, threads: int) -> Iterator[Case]:
    """Yield decode steps of a 70B model inside and beyond the measured grid, with every peer that is installed."""
    evaluator = mr.StepEvaluator(OURS, GPU, tp_size=TP)
    rng = np.random.default_rng(3)
    out = np.empty(n)
    for where, most, longest in (("inside the measured grid", 256, 8192), ("beyond it", 512, 2**20)):
        least = (1, 16) if most == 256 else (257, 2**17)
        requests, context = log_uniform(rng, least[0], most, n), log_uniform(rng, least[1], longest, n)
        batch = mr.StepBatch.uniform(decode_batch=requests, decode_context=context)
        shapes = list(zip(requests[:2000].tolist(), context[:2000].tolist(), strict=True))
        yield Case(
            f"decode steps {where}, {OURS.split('/')[1]} on {TP} {GPU}",
            "peers",
            "steps",
            Way("mfuroof", n, lambda batch=batch: evaluator.step_time(batch, threads=threads, out=out)),
            tuple(Way(name, count, run) for name, count, run in _peers(shapes)),
        )


def _peers(shapes: list[tuple[int, int]]) -> Iterator[tuple[str, int, Callable[[], object]]]:
    with contextlib.suppress(ImportError):
        from aiconfigurator_core.sdk.engine import EngineHandle

        logging.disable(logging.WARNING)
        engine = EngineHandle.compile(MODEL, GPU, "vllm", tp_size=TP)
        yield "AIConfigurator", len(shapes), lambda: [engine.decode_step_latency(b, kv, 2) for b, kv in shapes]
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlsysim
        from mlsysim.solvers import ServingModel

        solver, some = ServingModel(), shapes[:50]
        model, gpu = mlsysim.Models.Language.Llama3_70B, mlsysim.Hardware.Cloud.H100
        yield "MLSysim", len(some), lambda: [solver.solve(model, gpu, seq_len=kv, batch_size=b) for b, kv in some]
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from GenZ import decode_moddeling

        few = [(b, kv) for b, kv in shapes if b * kv < 100_000][:20]  # it refuses what does not fit into memory

        def genz() -> object:
            options = {"output_tokens": 1, "system_name": "H100_GPU", "tensor_parallel": TP}
            with contextlib.redirect_stdout(io.StringIO()):
                return [decode_moddeling("meta-llama/llama-3.1-70b", b, kv, **options) for b, kv in few]

        if few:
            yield "GenZ", len(few), genz
