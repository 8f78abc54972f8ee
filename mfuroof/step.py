"""`StepEvaluator`: a model bound to a GPU, pricing arrays of batch shapes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mfuroof._boundary import Problems, choice
from mfuroof._files import write_atomically
from mfuroof._types import F64
from mfuroof._version import __version__
from mfuroof.batch import StepBatch
from mfuroof.breakdown import StepResult
from mfuroof.costs.base import BoundCost
from mfuroof.engines import engine_profile
from mfuroof.errors import InputError, Problem, reason
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision.runtime import RuntimePrecision

__all__ = ["COSTS", "StepEvaluator"]

STAMP = "mfuroof.StepEvaluator"

COSTS = ("kernels", "mfu_table", "constant_mfu")
"""Cost families, the most accurate first."""


class StepEvaluator:
    """Step times of one model on one GPU type under one parallelism, precision and cost family.

    Everything slow or fallible (parsing, choosing tables, fitting curves) happens here, once; `evaluate` and
    `step_time` only read flat arrays.

    Parameters
    ----------
    model
        A `ModelConfig`, or what `ModelConfig.from_hf` takes: a registry id, a path, a dict.
    hardware
        A `Hardware`, or a name of the catalogue.
    tp_size, pp_size, ep_size, dp_size
        Parallel degrees (see `Parallel`).
    cost
        ``"kernels"`` (measured kernel latencies), ``"mfu_table"`` (MFU lookups) or ``"constant_mfu"`` (one MFU a
        phase).
    engine
        Serving engine whose kernels are used: ``"vllm"``, ``"sglang"``, ``"trtllm"``.
    tables
        Measured tables: a `KernelTables`, a folder, MFU tables for ``mfu_table``, or None for the embedded ones.
    params
        Conventions and presets (`CostParams`).
    weight_dtype, kv_dtype, act_dtype, attention_dtype, moe_dtype, weight_bytes_per_param
        Overrides of the checkpoint's own precision (`ModelConfig.with_precision`); None keeps it.
    runtime
        The engine's precision settings, a `RuntimePrecision` or its four fields: what a launch would change.

    Raises
    ------
    UnknownNameError
        Model, GPU, engine or cost are not known; the nearest names are given.
    InputError
        A degree is out of range, or the model does not divide over the ranks.
    MissingTableError
        No measured table covers an operation and ``params.missing`` is ``"raise"``.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> batch = StepBatch.uniform(decode_batch=[1, 32], decode_context=2047)
    >>> bool((evaluator.step_time(batch) > 0.004).all())
    True
    """

    def __init__(
        self,
        model: ModelConfig | str | Path | dict[str, Any],
        hardware: Hardware | str,
        tp_size: int = 1,
        pp_size: int = 1,
        ep_size: int = 1,
        dp_size: int = 1,
        cost: Literal["kernels", "mfu_table", "constant_mfu"] = "kernels",
        engine: str = "vllm",
        tables: Any = None,
        params: CostParams | None = None,
        *,
        weight_dtype: str | None = None,
        kv_dtype: str | None = None,
        act_dtype: str | None = None,
        attention_dtype: str | None = None,
        moe_dtype: str | None = None,
        weight_bytes_per_param: float | None = None,
        runtime: RuntimePrecision | Mapping[str, str] | None = None,
    ) -> None:
        self.model = model if isinstance(model, ModelConfig) else ModelConfig.from_hf(model)
        precision = {
            "weight_dtype": weight_dtype,
            "kv_dtype": kv_dtype,
            "act_dtype": act_dtype,
            "attention_dtype": attention_dtype,
            "moe_dtype": moe_dtype,
            "weight_bytes_per_param": weight_bytes_per_param,
        }
        chosen = {k: v for k, v in precision.items() if v is not None}
        if chosen:
            self.model = self.model.with_precision(**chosen)
        if runtime is not None:
            given = runtime if isinstance(runtime, RuntimePrecision) else RuntimePrecision.from_mapping(runtime)
            self.model = given.applied(self.model, cost)
        self.hardware = hardware if isinstance(hardware, Hardware) else get_hardware(hardware)
        self.parallel = Parallel(tp_size, pp_size, ep_size, dp_size)
        self.cost = choice("cost", cost, COSTS)
        self.engine = engine
        self.params = _checked(params)
        self.bound = _bind(self, tables)

    def save(self, path: str | Path) -> None:
        """Write the bound evaluator to a file that `load` reads back in milliseconds.

        Raises
        ------
        OutputError
            The file cannot be written; nothing is left under its name.
        """
        write_atomically(path, pickle.dumps((STAMP, __version__, self), protocol=pickle.HIGHEST_PROTOCOL))

    @classmethod
    def load(cls, path: str | Path) -> StepEvaluator:
        """Read an evaluator that `save` wrote, with this version of the package.

        Like every pickle, such a file can run code: load only what you have written.

        Raises
        ------
        InputError
            There is no such file, it is none of ours, or another version wrote it.
        """
        expected = f"a file that StepEvaluator.save of mfuroof {__version__} has written"
        try:
            stamp, version, evaluator = pickle.loads(Path(path).read_bytes())
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError, ValueError, TypeError) as error:
            raise InputError(Problem(str(path), reason(error), expected)) from error
        if stamp != STAMP or version != __version__ or not isinstance(evaluator, cls):
            raise InputError(Problem(str(path), f"version {version}", expected, "Bind again and save."))
        return evaluator

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the parts of a step."""
        return self.bound.components

    def __repr__(self) -> str:
        degrees = "".join(f" {f.name[:2]}{n}" for f in fields(Parallel) if (n := getattr(self.parallel, f.name)) > 1)
        return f"StepEvaluator({self.model.name} on {self.hardware.name}{degrees}, {self.cost}, {self.engine})"

    def step_time(self, batch: StepBatch, threads: int = 1, out: F64 | None = None) -> F64:
        """Return the time of each step.

        Parameters
        ----------
        batch
            Shapes of n steps.
        threads
            Python threads to share the steps among; the results are the same bits.
        out : shape (n,), float64, contiguous
            Where to write; a new array when left out.

        Returns
        -------
        ndarray of float64, shape (n,)
            Never rounded; 0 for an empty step. [s]

        Raises
        ------
        InputError
            ``out`` or ``threads`` do not fit.
        """
        _check_batch(batch)
        times = _output(out, (len(batch),))
        _in_threads(lambda a, b: self.bound.step_times(batch.slice(a, b), times[a:b]), len(batch), threads)
        return times

    def evaluate(self, batch: StepBatch, threads: int = 1, out: F64 | None = None) -> StepResult:
        """Return times with their breakdown.

        Parameters
        ----------
        batch, threads
            As in `step_time`.
        out : shape (1 + len(components), n), float64, contiguous
            Where to write the step times (row 0) and the time of each component; the result's arrays are read-only
            views of it. A new array when left out: then most of the time goes into getting memory from the system.

        Returns
        -------
        StepResult

        Raises
        ------
        InputError
            As in `step_time`.
        """
        _check_batch(batch)
        n = len(batch)
        rows = _output(out, (1 + len(self.components), n))

        def fill(a: int, b: int) -> None:
            self.bound.breakdown(batch.slice(a, b), rows, a)

        _in_threads(fill, n, threads)
        return StepResult(rows[0], self.components, rows[1:], batch, self.bound)

    def step_time_scalar(
        self,
        decode_batch: int = 0,
        decode_context: int = 0,
        prefill_batch: int = 0,
        prefill_new_tokens: int = 0,
        prefill_context: int = 0,
        emits: bool = True,
    ) -> float:
        """Return the time of one uniform step, unchecked and fast: about a microsecond. [s]

        Parameters
        ----------
        decode_batch, decode_context, prefill_batch, prefill_new_tokens, prefill_context, emits
            Numbers, not arrays, as in `StepBatch.uniform`. [requests, tokens] What is out of range there gives no error
            here and no meaningful time.
        """
        scalar = getattr(self.bound, "scalar", None)
        if scalar is not None:
            return float(
                scalar(decode_batch, decode_context, prefill_batch, prefill_new_tokens, prefill_context, emits)
            )
        batch = StepBatch.uniform(
            decode_batch, decode_context, prefill_batch, prefill_new_tokens, prefill_context, emits
        )
        return float(self.step_time(batch)[0])


def _checked(params: object) -> CostParams:
    if params is None:
        return CostParams()
    if not isinstance(params, CostParams):
        expected = "a CostParams: CostParams(...) or one of its presets"
        raise InputError(Problem("params", type(params).__name__, expected))
    return params


def _bind(evaluator: StepEvaluator, tables: Any) -> BoundCost:
    model, hardware, parallel, params = evaluator.model, evaluator.hardware, evaluator.parallel, evaluator.params
    if evaluator.cost == "kernels":
        from mfuroof.costs.kernels import BoundKernels
        from mfuroof.ops.siblings import tables_for
        from mfuroof.tables.store import KernelTables, load_tables

        if tables is None:
            tables = tables_for(hardware, evaluator.engine, missing=params.missing)
        elif not isinstance(tables, KernelTables):
            tables = load_tables(tables, engine_profile(evaluator.engine).tables)
        return BoundKernels.bind(model, hardware, parallel, tables, params, evaluator.engine)
    if evaluator.cost == "constant_mfu":
        from mfuroof.costs.constant_mfu import BoundConstantMfu

        return BoundConstantMfu.bind(model, hardware, parallel, params)
    from mfuroof.costs.mfu_table import BoundMfuTable

    return BoundMfuTable.bind(model, hardware, parallel, params, tables=tables, engine=evaluator.engine)


def _check_batch(batch: Any) -> None:
    if not isinstance(batch, StepBatch):
        expected = "a StepBatch: StepBatch.uniform(...), .ragged(...) or .from_arrow(...)"
        raise InputError(Problem("batch", type(batch).__name__, expected))


def _output(out: F64 | None, shape: tuple[int, ...]) -> F64:
    if out is None:
        return np.empty(shape)
    problems = Problems()
    if not isinstance(out, np.ndarray) or out.dtype != np.float64 or out.shape != shape or not out.flags.c_contiguous:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        problems.add("out", found, f"a contiguous float64 array of shape {shape}")
    elif not out.flags.writeable:
        problems.add("out", "a read-only array", "a writable one")
    problems.raise_if_any()
    return out


def _in_threads(work: Callable[[int, int], None], n: int, threads: int) -> None:
    """Run ``work(start, stop)`` over [0, n) in contiguous pieces; the kernels release the GIL."""
    problems = Problems()
    threads = problems.positive_int("threads", threads)
    problems.raise_if_any()
    if threads == 1 or n < 2 * threads:
        work(0, n)
        return
    edges = np.linspace(0, n, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, int(a), int(b)) for a, b in pairwise(edges)]:
            done.result()
