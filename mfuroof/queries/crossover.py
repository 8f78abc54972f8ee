"""`crossover`: from where on one thing no longer beats another; `bound_crossover`: from where on a resource binds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems, choice
from mfuroof._types import F64, I64
from mfuroof.batch import StepBatch
from mfuroof.costs.base import RESOURCES
from mfuroof.errors import InputError, Problem
from mfuroof.queries.derived import checked_prices
from mfuroof.queries.meanings import number, quantity, unit_by_name
from mfuroof.queries.result import QueryResult
from mfuroof.queries.search import scan_all
from mfuroof.queries.shapes import Cases, check_evaluator, check_range, labels_of, title_of
from mfuroof.queries.tables import answer_table, span_of
from mfuroof.step import StepEvaluator
from mfuroof.sweep.grid import SHAPE_AXES

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MOST_CROSSED", "Timed", "bound_crossover", "crossover"]

MOST_CROSSED = 2048
"""How far a crossing is looked for unless told otherwise. [requests or tokens]"""

_RATES = {
    "step": "times as fast as",
    "gpu": "times the throughput per GPU of",
    "price": "times the throughput per price of",
}


class Timed(Protocol):
    """What has step times: an evaluator, or something that adds to one."""

    def step_time(self, batch: StepBatch) -> F64:
        """Return the time of each step. [s]"""
        ...


def crossover(
    base: StepEvaluator | Timed,
    other: StepEvaluator | Timed,
    threshold: ArrayLike = 1.0,
    *,
    axis: str = "decode_batch",
    when: Literal["below", "above"] = "below",
    per: Literal["step", "gpu", "price"] = "step",
    prices: Mapping[str, float] | None = None,
    low: int = 1,
    most: int = MOST_CROSSED,
    **shape: ArrayLike | None,
) -> QueryResult:
    """Return from which value of an axis on ``other`` gains less (or more) than a factor over ``base``.

    The gain is the step time of ``base`` over that of ``other``, so 2 is twice as fast; per GPU or per price, each
    time is multiplied by what the step occupies meanwhile. Nothing is assumed of the shape of the curves: every value
    of the range is priced, of all cases together.

    Parameters
    ----------
    base, other
        What is compared: two precisions, GPUs, parallelisms ... of evaluators, or anything with their ``step_time``.
    threshold
        The factor; broadcasts with the shape. 2 with ``when="below"``: where it stops paying twofold.
    axis
        Axis that moves; see `largest`.
    when
        ``"below"``: the gain falls below the threshold. ``"above"``: it rises above it, ``other`` overtakes.
    per
        ``"step"`` compares times, ``"gpu"`` GPU-seconds, ``"price"`` what these cost.
    prices
        Price of one GPU for an hour, by name, for ``"price"``. [currency/h]
    low, most
        The range that is looked at.
    **shape
        The other axes, numbers or arrays that broadcast, as in `largest`.

    Returns
    -------
    QueryResult
        One row for each case: the fixed axes, ``threshold``, the crossing in a column of the axis' name (null where
        there is none up to ``most``), ``lasting`` (whether it stays so up to there), and the gains at ``low``, at the
        crossing and at ``most``.

    Raises
    ------
    InputError
        Arguments out of range or of shapes that do not broadcast; GPUs without a price.
    UnknownNameError
        No such axis, direction or measure.

    Examples
    --------
    >>> whole = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> narrow = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm", weight_dtype="int4_wo")
    >>> found = crossover(whole, narrow, [2.0, 1.5], decode_context=1024)
    >>> twice, half = found.table.column("decode_batch").to_pylist()
    >>> twice < half
    True
    """
    for name, priced in (("base", base), ("other", other)):
        if isinstance(priced, type) or not callable(getattr(priced, "step_time", None)):
            found = repr(priced)[:100]
            raise InputError(Problem(name, found, "a StepEvaluator, or something with its step_time"))
    choice("when", when, ("below", "above"))
    choice("per", per, tuple(_RATES))
    _check_axes(shape)
    problems = Problems()
    factor = problems.numbers("threshold", threshold, 0.0, open_low=True)
    problems.raise_if_any()
    cases = Cases(axis, shape, {"threshold": factor})
    smallest, biggest = check_range(axis, low, most, problems)
    problems.raise_if_any()
    weight = _occupied(base, per, prices) / _occupied(other, per, prices)

    def gain(rows: I64, values: I64) -> F64:
        batch = StepBatch.uniform(**cases.columns(rows, values))
        with np.errstate(divide="ignore", invalid="ignore"):  # an empty step takes no time with either
            return weight * base.step_time(batch) / other.step_time(batch)

    def crossed(rows: I64, values: I64) -> np.ndarray:
        found, wanted = gain(rows, values), cases.numbers["threshold"][rows]
        return found < wanted if when == "below" else found > wanted

    scan = scan_all(crossed, cases.size, smallest, biggest)
    rows, there = np.arange(cases.size), scan.first <= biggest
    at = np.minimum(scan.first, biggest)
    columns: dict[str, Any] = {**cases.told, "threshold": cases.numbers["threshold"]}
    columns[axis] = np.ma.masked_array(scan.first, ~there)
    columns["lasting"] = np.ma.masked_array(scan.met == biggest - scan.first + 1, ~there)
    columns["gain_at_low"] = gain(rows, np.full_like(rows, smallest))
    columns["gain_at_crossing"] = np.ma.masked_array(gain(rows, at), ~there)
    columns["gain_at_most"] = gain(rows, np.full_like(rows, biggest))
    table = answer_table({"base": _name(base), "other": _name(other), "per": per}, columns)
    across = cases.varying_shape
    text = _sentence(table, cases, (_name(base), _name(other)), when, per, (smallest, biggest))
    return QueryResult(
        table,
        text,
        "line",
        across,
        axis,
        ("threshold",) if across != "threshold" else (),
        rows_seen=cases.size,
        rows_allowed=int(there.sum()),
    )


def bound_crossover(
    evaluator: StepEvaluator,
    resource: str = "compute",
    *,
    axis: str = "decode_batch",
    low: int = 1,
    most: int = MOST_CROSSED,
    **shape: ArrayLike | None,
) -> QueryResult:
    """Return from which value of an axis on a resource has the largest share of the step time.

    Parameters
    ----------
    evaluator
        Model, GPUs and conventions.
    resource
        ``"compute"``, ``"memory"``, ``"comm"`` or ``"overhead"``.
    axis, low, most, **shape
        As in `crossover`.

    Returns
    -------
    QueryResult
        One row for each case: the fixed axes, the value in a column of the axis' name (null where the resource does
        not bind up to ``most``), ``lasting``, and what binds at ``low`` and at ``most``.

    Raises
    ------
    InputError, UnknownNameError
        As in `crossover`.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> found = bound_crossover(evaluator, decode_context=128)
    >>> 100 < found.table.column("decode_batch")[0].as_py() < 1000
    True
    """
    check_evaluator("evaluator", evaluator)
    code = RESOURCES.index(choice("resource", resource, RESOURCES))
    _check_axes(shape)
    problems = Problems()
    cases = Cases(axis, shape, {})
    smallest, biggest = check_range(axis, low, most, problems)
    problems.raise_if_any()

    def bound(rows: I64, values: I64) -> np.ndarray:
        batch = StepBatch.uniform(**cases.columns(rows, values))
        times = np.empty((len(RESOURCES), len(batch)))
        evaluator.bound.resource_times(batch, times)
        return np.argmax(times, axis=0)

    scan = scan_all(lambda rows, values: bound(rows, values) == code, cases.size, smallest, biggest)
    rows, there, names = np.arange(cases.size), scan.first <= biggest, np.array(RESOURCES)
    columns: dict[str, Any] = {**cases.told, "resource": np.full(rows.size, resource)}
    columns[axis] = np.ma.masked_array(scan.first, ~there)
    columns["lasting"] = np.ma.masked_array(scan.met == biggest - scan.first + 1, ~there)
    columns["bound_at_low"] = names[bound(rows, np.full_like(rows, smallest))]
    columns["bound_at_most"] = names[bound(rows, np.full_like(rows, biggest))]
    table = answer_table(labels_of(evaluator), columns)
    text = f"A step of {title_of(evaluator)} is {_adjective(resource)}"
    text = f"{text} {_from_where(table.to_pylist(), cases, biggest)}."
    return QueryResult(
        table, text, "line", cases.varying if cases.told else axis, axis, rows_seen=cases.size,
        rows_allowed=int(there.sum()),
    )  # fmt: skip


def _check_axes(shape: Mapping[str, Any]) -> None:
    for name in shape:
        choice("axis", name, SHAPE_AXES)


def _occupied(priced: StepEvaluator | Timed, per: str, prices: Mapping[str, float] | None) -> float:
    """Return what a step occupies while it runs: 1, GPUs, or their price an hour."""
    if per == "step":
        return 1.0
    if not isinstance(priced, StepEvaluator):
        raise InputError(Problem("per", repr(per), "'step', for what is no StepEvaluator and has no GPUs"))
    gpus = float(priced.parallel.num_gpus)
    if per == "gpu":
        return gpus
    known = checked_prices(prices) or {}
    name = priced.hardware.name
    if name not in known:
        raise InputError(Problem("prices", f"none for {name}", "one for each GPU, {'h100_sxm': 2.5}"))
    return gpus * known[name]


def _name(priced: StepEvaluator | Timed) -> str:
    return title_of(priced) if isinstance(priced, StepEvaluator) else str(priced)


def _adjective(resource: str) -> str:
    return {"comm": "bound by communication", "overhead": "bound by overheads"}.get(resource, f"{resource}-bound")


def _sentence(table: pa.Table, cases: Cases, names: tuple[str, str], when: str, per: str, ends: tuple[int, int]) -> str:
    base, other = names
    parts = []
    for factor in dict.fromkeys(cases.numbers["threshold"].tolist()):
        rows = [row for row in table.to_pylist() if row["threshold"] == factor]
        parts.append(f"{_comparison(factor, when, per)} {{}}{_from_where(rows, cases, ends[1])}")
    text = "; ".join(part.format(f"{base} " if i == 0 else "") for i, part in enumerate(parts))
    if table.num_rows == 1:
        gain = number(table.column("gain_at_low")[0].as_py())
        text = f"{text} (gain {gain} at {cases.axis} {ends[0]:,})"
    return f"{other} {'is' if per == 'step' else 'has'} {text}."


def _comparison(factor: float, when: str, per: str) -> str:
    """Return ``less than 2 times as fast as``, or ``slower than`` for a factor of 1."""
    if factor != 1.0:
        return f"{'less' if when == 'below' else 'more'} than {number(factor)} {_RATES[per]}"
    if per == "step":
        return "slower than" if when == "below" else "faster than"
    return f"{'less' if when == 'below' else 'more'} throughput per {'GPU' if per == 'gpu' else 'price'} than"


def _from_where(rows: list[dict[str, Any]], cases: Cases, most: int) -> str:
    """Return ``from 84 requests on``, or the first and the last answer of several cases."""
    axis = cases.axis
    known = [row for row in rows if row[axis] is not None]
    if len(rows) == 1:
        fixed = ", ".join(f"{name} {rows[0][name]:,}" for name in cases.told)
        at = f" at {fixed}" if fixed else ""
        if not known:
            return f"nowhere up to {quantity(most, unit_by_name(axis))}{at}"
        on = "on" if rows[0]["lasting"] else "on, though not throughout,"
        return f"from {quantity(rows[0][axis], unit_by_name(axis))} {on}{at}"
    if not known:
        return f"nowhere up to {quantity(most, unit_by_name(axis))} in any of {len(rows):,} cases"
    across = cases.varying_shape
    some = f"; nowhere in {len(rows) - len(known):,} of {len(rows):,} cases" if len(known) < len(rows) else ""
    passing = sum(not row["lasting"] for row in known)
    some += f"; in {passing:,} of {len(rows):,} cases not throughout" if passing else ""
    return f"from a {axis} on that {span_of(known, axis, across)}{some}"
