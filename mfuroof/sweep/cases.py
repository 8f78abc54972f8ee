"""The cases of a sweep: a model on a GPU under one engine, parallelism and precision, bound when its turn comes."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mfuroof.errors import (
    InputError,
    MfuroofError,
    MfuroofWarning,
    MissingTableError,
    TableFormatError,
    UnknownNameError,
)
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.step import StepEvaluator
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.memory import Memory

__all__ = ["KEPT_BOUND", "LABELS", "BoundCase", "Case", "Infeasible", "Plan"]

LABELS = ("model", "gpu", "engine", "tp_size", "weight_dtype", "kv_dtype")
"""What tells cases apart; the first columns of a result."""

KEPT_BOUND = 32
"""Cases whose evaluators are kept, about a third of a megabyte each; others are bound again if asked again."""


@dataclass(frozen=True)
class Case:
    """One combination of what is constant over a grid of shapes; dtypes None for the checkpoint's own."""

    model: ModelConfig
    hardware: Hardware
    engine: str
    tp_size: int
    weight_dtype: str | None
    kv_dtype: str | None

    @property
    def labels(self) -> dict[str, Any]:
        """Values of `LABELS`, as asked for: dtypes ``own`` where the checkpoint's are kept."""
        return {
            "model": self.model.name or "unnamed",
            "gpu": self.hardware.name,
            "engine": self.engine,
            "tp_size": self.tp_size,
            "weight_dtype": self.weight_dtype or "own",
            "kv_dtype": self.kv_dtype or "own",
        }

    @property
    def title(self) -> str:
        """Name of the case in a message."""
        dtypes = [d for d in (self.weight_dtype, self.kv_dtype and f"{self.kv_dtype} KV") if d]
        return " ".join([self.model.name or "unnamed", "on", self.hardware.name, f"tp{self.tp_size}", *dtypes])


@dataclass(frozen=True, eq=False)
class BoundCase:
    """A case that can be priced."""

    case: Case
    evaluator: StepEvaluator
    memory: Memory


@dataclass(frozen=True)
class Infeasible:
    """A case that cannot be priced, or whose model does not fit, and why in one line.

    Attributes
    ----------
    case
        The case.
    reason
        What stands against it.
    priced
        Whether its steps are priced all the same: a model that does not fit has times, one that does not divide over
        its ranks or has no tables does not.
    error
        What was raised where it cannot be priced.
    """

    case: Case
    reason: str
    priced: bool
    error: MfuroofError | None = None


class Plan:
    """All cases of a sweep in order, bound on demand.

    Parameters
    ----------
    sweep
        The definition.
    infeasible
        ``"keep"`` prices a model that does not fit, with a warning; ``"drop"`` leaves it out.
    """

    def __init__(self, sweep: Sweep, infeasible: str) -> None:
        self.sweep, self.infeasible = sweep, infeasible
        axes = (sweep.model, sweep.gpu, sweep.engine, sweep.tp_size, sweep.weight_dtype, sweep.kv_dtype)
        self.cases = tuple(Case(*values) for values in itertools.product(*axes))
        self.found: dict[int, Infeasible] = {}
        self.bind = lru_cache(maxsize=KEPT_BOUND)(self._bind)

    def __len__(self) -> int:
        return len(self.cases)

    def _bind(self, number: int) -> BoundCase | None:
        """Return case ``number`` ready to be priced, or None where it is left out; `found` says why."""
        case, sweep = self.cases[number], self.sweep
        try:
            evaluator = StepEvaluator(
                case.model,
                case.hardware,
                case.tp_size,
                cost=sweep.cost,  # type: ignore[arg-type]
                engine=case.engine,
                tables=sweep.tables,
                params=sweep.params,
                weight_dtype=case.weight_dtype,
                kv_dtype=case.kv_dtype,
            )
        except TableFormatError:
            raise  # a damaged file is no property of the case
        except (InputError, MissingTableError, UnknownNameError) as error:
            self._note(number, Infeasible(case, str(error).replace("\n", "; "), priced=False, error=error))
            return None
        memory = Memory.of(evaluator, sweep.memory_utilization)
        if memory.shortfall:
            self._note(number, Infeasible(case, memory.shortfall, priced=self.infeasible == "keep"))
            if self.infeasible == "drop":
                return None
        return BoundCase(case, evaluator, memory)

    def _note(self, number: int, why: Infeasible) -> None:
        if number in self.found:
            return
        self.found[number] = why
        if why.error is None or len(self) > 1:
            done = "times are given all the same" if why.priced else "left out"
            warnings.warn(f"{why.case.title}: {why.reason} ({done})", MfuroofWarning, stacklevel=2)

    def raise_if_nothing(self) -> None:
        """Raise the first error if every case failed to bind."""
        errors = [why.error for why in self.found.values() if why.error is not None]
        if len(errors) == len(self):
            raise errors[0]
