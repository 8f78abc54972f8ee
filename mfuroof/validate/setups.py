"""What was measured on what: one evaluator for all rows of one model, GPU, engine, parallelism and precision."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfuroof.errors import MfuroofError
from mfuroof.params import CostParams
from mfuroof.precision.presets import runtime_of
from mfuroof.predict.steps import PRECISION
from mfuroof.step import StepEvaluator
from mfuroof.validate.tables import Columns

__all__ = ["Setup", "Setups"]


class Setup(NamedTuple):
    """What an evaluator is made of; texts are empty where a table says nothing."""

    model: str
    gpu: str
    engine: str
    tp: int
    pp: int
    ep: int
    attention_dp: int
    weight_dtype: str
    kv_dtype: str
    runtime: tuple[str, ...]
    """What the engine is launched with, as in `mfuroof.precision.presets.runtime_of`."""

    def evaluator(self, cost: str = "kernels", params: CostParams | None = None) -> StepEvaluator:
        """Return the evaluator; raises as `StepEvaluator` and `runtime_of` do."""
        asked = runtime_of(*(text or None for text in self.runtime), kv_dtype=self.kv_dtype or None)
        return StepEvaluator(
            self.model,
            self.gpu,
            self.tp,
            self.pp,
            self.ep,
            self.attention_dp,
            cost=cost,  # type: ignore[arg-type]
            engine=self.engine,
            params=params,
            weight_dtype=self.weight_dtype or None,
            kv_dtype=self.kv_dtype or None,
            runtime=asked.precision if asked else None,
        )


@lru_cache(maxsize=256)
def _bound(setup: Setup, cost: str, params: CostParams) -> StepEvaluator:
    """Return the evaluator of a setup, the same one for every scheduler it is tried with."""
    return setup.evaluator(cost, params)


class Setups:
    """The setup of each row of a table, and its evaluators, each made once."""

    def __init__(self, columns: Columns, cost: str = "kernels", params: CostParams | None = None) -> None:
        model, gpu, engine = columns.text("model"), columns.text("gpu"), columns.text("engine", "vllm")
        weight, kv = columns.text("weight_dtype"), columns.text("kv_dtype")
        runtime = list(zip(*(columns.text(name).tolist() for name in PRECISION), strict=True))
        degrees = [columns.number(name, 1.0).astype(np.int64).tolist() for name in ("tp", "pp", "ep", "attention_dp")]
        tp, pp, ep, dp = degrees
        self.rows = [
            Setup(model[i], gpu[i], engine[i], tp[i], pp[i], ep[i], dp[i], weight[i], kv[i], runtime[i])
            for i in range(len(columns))
        ]
        self._cost, self._params = cost, CostParams() if params is None else params
        self._made: dict[Setup, StepEvaluator | MfuroofError] = {}

    def groups(self) -> dict[Setup, NDArray[np.int64]]:
        """Return the rows of each setup."""
        found: dict[Setup, list[int]] = {}
        for i, setup in enumerate(self.rows):
            found.setdefault(setup, []).append(i)
        return {setup: np.array(rows, dtype=np.int64) for setup, rows in found.items()}

    def evaluator(self, setup: Setup) -> StepEvaluator:
        """Return the evaluator of a setup; raises what making it raised, the first time and later."""
        if setup not in self._made:
            try:
                self._made[setup] = _bound(setup, self._cost, self._params)
            except MfuroofError as error:
                self._made[setup] = error
        made = self._made[setup]
        if isinstance(made, MfuroofError):
            raise made
        return made
