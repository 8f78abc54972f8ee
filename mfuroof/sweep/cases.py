"""The cases of a sweep bound when their turn comes, and what stands against those that cannot be priced."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

from mfuroof._boundary import choice
from mfuroof.errors import (
    InputError,
    MfuroofError,
    MfuroofWarning,
    MissingTableError,
    Problem,
    TableFormatError,
    UnknownNameError,
)
from mfuroof.step import StepEvaluator
from mfuroof.sweep import view_serving
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.memory import Memory
from mfuroof.sweep.space import Case, Space

__all__ = ["KEPT_BOUND", "BoundCase", "Plan"]

KEPT_BOUND = 32
"""Cases whose evaluators are kept, about a third of a megabyte each; others are bound again if asked again."""

MOST_TOLD = 8
"""Infeasible cases that are warned of one by one."""


@dataclass(frozen=True, eq=False)
class BoundCase:
    """A case ready to be priced, or the reason why it is not.

    Attributes
    ----------
    case
        The case.
    evaluator
        Its evaluator; None where it cannot be priced.
    memory
        Room for KV caches; None where it cannot be priced.
    reason
        What stands against the case: heads that do not divide, a table that is missing, weights that do not fit.
        Empty where nothing does. Steps of a model that does not fit have times all the same.
    left_out
        Whether its rows are dropped.
    cache_tokens
        Tokens the KV cache holds, for loads. [tokens]
    """

    case: Case
    evaluator: StepEvaluator | None
    memory: Memory | None
    reason: str = ""
    left_out: bool = False
    cache_tokens: int = 0


class Plan:
    """All cases of a sweep in order, bound on demand.

    Parameters
    ----------
    space
        Cases and chunks.
    infeasible
        ``"keep"`` keeps the rows of cases that cannot be priced or do not fit, with the reason; ``"drop"`` leaves
        them out, and with them every row whose requests do not fit.
    """

    def __init__(self, space: Space, infeasible: str) -> None:
        self.space, self.infeasible = space, choice("infeasible", infeasible, ("keep", "drop"))
        self.reasons: dict[int, str] = {}
        self._errors: dict[int, MfuroofError] = {}
        self._told: set[str] = set()
        self.bind = lru_cache(maxsize=KEPT_BOUND)(self._bind)

    @property
    def sweep(self) -> Sweep:
        """The definition."""
        return self.space.sweep

    def __len__(self) -> int:
        return len(self.space.cases)

    def _bind(self, number: int) -> BoundCase:
        """Return case ``number`` ready to be priced; what stands against it is noted in `reasons`, with a warning."""
        case, drop = self.space.cases[number], self.infeasible == "drop"
        try:
            with warnings.catch_warnings(record=True) as noted:
                warnings.simplefilter("always")
                evaluator = _evaluator(self.sweep, case)
                memory = Memory.of(evaluator, self.sweep.memory_utilization)
                cache = view_serving.room(evaluator, self.sweep.memory_utilization) if self.sweep.serving else 0
        except TableFormatError:
            raise  # a damaged file is no property of the case
        except (InputError, MissingTableError, UnknownNameError) as error:
            reason = str(error).replace("\n", "; ")
            self._errors[number] = error
            self._note(number, case, reason, "left out" if drop else "its rows have no times")
            return BoundCase(case, None, None, reason, drop)
        short = memory.shortfall
        if self.sweep.serving and not cache:
            short = short or "the model leaves no room for a KV cache"
        for warning in noted:
            if not short or "does not fit" not in str(warning.message):  # said once, below
                self._warn(str(warning.message), warning.category)
        if short:
            kept = "its rows have no times" if self.sweep.serving else "times are given all the same"
            self._note(number, case, short, "left out" if drop else kept)
        if self.sweep.serving and short:
            return BoundCase(case, None, None, short, drop)
        return BoundCase(case, evaluator, memory, short, drop and bool(short), cache)

    def _note(self, number: int, case: Case, reason: str, done: str) -> None:
        if number in self.reasons:
            return
        self.reasons[number] = reason
        if len(self) > 1 or number not in self._errors:
            if len(self.reasons) <= MOST_TOLD:
                self._warn(f"{case.title}: {reason} ({done})")
            else:
                self._warn("there are more such cases; the rows and the summary give their reasons")

    def _warn(self, text: str, category: type[Warning] = MfuroofWarning) -> None:
        """Warn once of what many cases have in common."""
        if text not in self._told:
            self._told.add(text)
            warnings.warn(text, category, stacklevel=5)

    def require_one(self) -> None:
        """Raise the first error if no case can be priced, before anything is written."""
        for number in range(len(self)):
            if self.bind(number).evaluator is not None:
                return
        first = next(iter(self._errors.values()), None)
        raise first or InputError(Problem("sweep", self.reasons[0], "a case that fits"))


def _evaluator(sweep: Sweep, case: Case) -> StepEvaluator:
    return StepEvaluator(
        case["model"],
        case["gpu"],
        case["tp_size"],
        case["pp_size"],
        case["ep_size"],
        case["dp_size"],
        cost=sweep.cost,  # type: ignore[arg-type]
        engine=case["engine"],
        tables=sweep.tables,
        params=sweep.params,
        weight_dtype=case["weight_dtype"],
        kv_dtype=case["kv_dtype"],
        attention_dtype=case["attention_dtype"],
        moe_dtype=case["moe_dtype"],
        runtime=None if case["runtime"] is None else case["runtime"].precision,
    )
