"""splitwise-sim: its table of measurements, and a performance model it instantiates by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._files import write_atomically
from mfuroof.adapters.csv_text import csv_bytes
from mfuroof.adapters.grids import octaves, positive_ints, times
from mfuroof.embedding import Embedded
from mfuroof.step import StepEvaluator
from mfuroof.units import MS

__all__ = ["MfuroofPerformanceModel", "export_splitwise", "splitwise_columns"]


def splitwise_columns(
    evaluator: StepEvaluator,
    hardware: str | None = None,
    model: str | None = None,
    max_prompt: int = 16_384,
    max_batch: int = 64,
    token_sizes: tuple[int, ...] = (128, 512),
) -> dict[str, Any]:
    """Return the columns of splitwise-sim's table, one row a shape.

    Parameters
    ----------
    hardware, model
        Names its configuration uses; by default our names of GPU and model.
    max_prompt
        Longest prompt. [tokens]
    max_batch
        Most requests of a batch. [requests]
    token_sizes
        Output lengths. [tokens]

    Returns
    -------
    dict
        ``model, hardware, tensor_parallel, prompt_size, batch_size, token_size, prompt_time, token_time``: times of
        a whole batch of prompts, and of one token of each of its requests halfway through their outputs. [ms]

    Notes
    -----
    Its table model interpolates both times over ``prompt_size * batch_size`` and reads token times of an iteration at
    the number of requests, far below that axis; `MfuroofPerformanceModel` prices the batch itself.
    """
    positive_ints(
        max_prompt=max_prompt, max_batch=max_batch, **{f"token_sizes[{i}]": t for i, t in enumerate(token_sizes)}
    )
    prompts, batches = octaves(min(128, max_prompt), max_prompt), octaves(1, max_batch)
    prompt, batch, out = (x.ravel() for x in np.meshgrid(prompts, batches, np.asarray(token_sizes), indexing="ij"))
    n = prompt.size
    return {
        "model": [model or evaluator.model.name] * n,
        "hardware": [hardware or evaluator.hardware.name] * n,
        "tensor_parallel": [evaluator.parallel.tp_size] * n,
        "prompt_size": prompt,
        "batch_size": batch,
        "token_size": out,
        "prompt_time": times(evaluator, prefill_batch=batch, prefill_new_tokens=prompt) / MS,
        "token_time": times(evaluator, decode_batch=batch, decode_context=prompt + out // 2) / MS,
    }


def export_splitwise(evaluator: StepEvaluator, path: str | Path, **options: Any) -> Path:
    """Write `splitwise_columns` as CSV; options and errors as there.

    Raises
    ------
    InputError
        An option is out of range.
    MissingTableError
        A shape has no time.
    OutputError
        The file cannot be written.
    """
    write_atomically(path, csv_bytes(splitwise_columns(evaluator, **options)))
    return Path(path)


class MfuroofPerformanceModel:
    """What splitwise-sim asks of a performance model; name it as ``_target_`` in its Hydra configuration.

    Parameters
    ----------
    model
        Registry id, path or dict of the model; None takes the name of each instance's model.
    hardware
        GPU name; None takes the name of each instance's first processor.
    options
        Further arguments of `StepEvaluator`, such as ``engine`` or ``kv_dtype``.

    Notes
    -----
    Evaluators are bound once for each model, GPU and tensor-parallel degree. splitwise-sim finds the model through a
    global variable of its module ``performance_model``, which is set where that module is imported.
    """

    def __init__(self, model: Any = None, hardware: str | None = None, **options: Any) -> None:
        self._model, self._hardware, self._options = model, hardware, options
        self._bound: dict[tuple[str, str, int, int], Embedded] = {}
        _announce(self)

    def embedded(self, instance: Any) -> Embedded:
        """Return the bound model of an instance.

        Raises
        ------
        UnknownNameError
            Its model or GPU is not known: name them when this model is made.
        """
        parallelism = instance.model.parallelism
        tp, pp = int(parallelism.tensor_parallelism), int(parallelism.pipeline_parallelism)
        key = (str(instance.model.name), str(instance.processors[0].name), tp, pp)
        sim = self._bound.get(key)
        if sim is None:
            model = self._model if self._model is not None else key[0]
            bound = StepEvaluator(model, self._hardware or key[1], tp_size=tp, pp_size=pp, **self._options)
            sim = self._bound[key] = Embedded(bound)
        return sim

    def get_iteration_duration(self, batch: Any, instance: Any, *args: Any, **kwargs: Any) -> float:
        """Return the time of one iteration over prompt and token tasks; prompts are computed whole. [s]"""
        context, new, decodes = [], [], []
        for task in batch:
            request = task.request
            token = _is_token(task)
            context.append(int(request.prompt_size) + int(request.generated_tokens) - 1 if token else 0)
            new.append(1 if token else int(request.prompt_size))
            decodes.append(token)
        return self.embedded(instance).step([max(c, 0) for c in context], new, decodes)

    def get_duration(self, task: Any, batch: Any, instance: Any, *args: Any, **kwargs: Any) -> float:
        """Return the time of one whole task, run with the others of its batch: a prompt, or all its tokens. [s]"""
        sim, n = self.embedded(instance), max(len(batch), 1)
        prompt = int(task.request.prompt_size)
        if not _is_token(task):
            return sim.step([0] * n, [prompt] * n, [False] * n)
        tokens = int(task.token_size)
        contexts = prompt + np.arange(tokens)
        times_s = sim.steps(np.arange(tokens + 1) * n, np.repeat(contexts, n), np.ones(tokens * n, np.int64),
                            np.ones(tokens * n, np.int64))  # fmt: skip
        return max(float(times_s.sum()), sim.min_step_s)


def _is_token(task: Any) -> bool:
    """Return whether a task makes tokens; told by its class, or by its type where the class is another."""
    names = {c.__name__ for c in type(task).__mro__}
    if "TokenTask" in names or "PromptTask" in names:
        return "TokenTask" in names
    return str(getattr(task, "task_type", "")).upper().endswith("TOKEN")


def _announce(model: MfuroofPerformanceModel) -> None:
    import sys

    module = sys.modules.get("performance_model")
    if module is not None and hasattr(module, "get_iteration_duration"):
        module.performance_model = model  # type: ignore[attr-defined]
