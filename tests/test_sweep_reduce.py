"""Reductions: what they keep is what plain Python keeps, however rows are dealt out and states are merged."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import naive_sweep
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import InputError, UnknownNameError
from mfuroof.sweep import Histogram, Pareto, Sweep, TopK, reduce_sweep
from mfuroof.sweep.block import Block, Column
from mfuroof.sweep.reduction import Reduction
from mfuroof.sweep.reductions import reduction_from

TEXTS = ("a", "b", "c")
SCHEMA = pa.schema(
    [
        pa.field("name", pa.dictionary(pa.int16(), pa.string())),
        pa.field("size", pa.int64()),
        pa.field("rate", pa.float64(), metadata={"unit": "tokens/s", "meaning": "rate"}),
        pa.field("time", pa.float64()),
        pa.field("fits", pa.bool_()),
    ]
)
VALUES = st.sampled_from([0.0, 1.0, 1.5, 2.0, -1.0, math.nan, math.inf])
ROWS = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(0, 3), VALUES, VALUES, st.booleans()), min_size=1, max_size=60
)
BY = st.sampled_from([(), ("name",), ("size",), ("name", "size"), ("fits", "size")])


def block(rows: list[tuple[Any, ...]], start: int) -> Block:
    name, size, rate, time, fits = (np.array(column) for column in zip(*rows, strict=True))
    if len(set(name.tolist())) == 1:
        name = name[:1]  # a column of one value
    columns = {"name": Column(name.astype(np.int16), TEXTS), "size": Column(size), "rate": Column(rate)}
    columns |= {"time": Column(time), "fits": Column(fits)}
    return Block(0, start, len(rows), columns)


def reduced(reduction: Reduction, rows: list[tuple[Any, ...]], cuts: list[int], order: Any) -> pa.Table:
    """Deal rows out to states at ``cuts``, merge them in another order, through their tables, and return the result."""
    edges = sorted({0, len(rows), *(c % (len(rows) + 1) for c in cuts)})
    states = []
    for first, last in itertools.pairwise(edges):
        state = reduction.start(SCHEMA)
        state.update(block(rows[first:last], first))
        states.append(reduction.restored(SCHEMA, state.table()))
    order.shuffle(states)
    whole = pickle.loads(pickle.dumps(reduction)).start(SCHEMA)
    for state in states:
        whole.merge(state)
    return whole.result()


def named(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    keys = ("name", "size", "rate", "time", "fits")
    texts = [None if row[0] < 0 else TEXTS[row[0]] for row in rows]
    return [dict(zip(keys, (text, *row[1:]), strict=True)) for text, row in zip(texts, rows, strict=True)]


def same(table: pa.Table, expected: list[dict[str, Any]]) -> None:
    found = [tuple(map(str, row.values())) for row in table.to_pylist()]
    assert found == [tuple(map(str, row.values())) for row in expected]


CUTS, ORDER = st.lists(st.integers(0, 100), max_size=4), st.randoms(use_true_random=False)


WHERE = st.sampled_from([None, "fits", "time <= 1.5 and size > 0"])


@given(ROWS, BY, st.integers(1, 3), st.booleans(), WHERE, CUTS, ORDER)
def test_top_rows(
    rows: list[Any], by: tuple[str, ...], k: int, largest: bool, where: str | None, cuts: list[int], order: Any
) -> None:
    found = reduced(TopK("rate", by, k, largest, where), rows, cuts, order)
    kept = {None: lambda r: True, "fits": lambda r: r["fits"]}.get(where, lambda r: r["time"] <= 1.5 and r["size"] > 0)
    same(found, naive_sweep.top_rows([r for r in named(rows) if kept(r)], "rate", by, k, largest))


@given(ROWS, BY, st.sampled_from(["max", "min"]), CUTS, ORDER)
def test_pareto_front_of_two(rows: list[Any], by: tuple[str, ...], way: str, cuts: list[int], order: Any) -> None:
    goals = {"rate": way, "time": "min"}
    same(reduced(Pareto(goals, by), rows, cuts, order), naive_sweep.front_rows(named(rows), goals, by))


@given(ROWS, BY, CUTS, ORDER)
def test_pareto_front_of_three(rows: list[Any], by: tuple[str, ...], cuts: list[int], order: Any) -> None:
    goals = {"rate": "max", "time": "min", "size": "max"}
    same(reduced(Pareto(goals, by), rows, cuts, order), naive_sweep.front_rows(named(rows), goals, by))


@given(ROWS, BY, CUTS, ORDER)
def test_histogram(rows: list[Any], by: tuple[str, ...], cuts: list[int], order: Any) -> None:
    edges = [0.0, 1.0, 2.0]
    found = reduced(Histogram("rate", edges, by), rows, cuts, order).to_pylist()
    counted: dict[tuple[Any, ...], int] = {}
    for row in named(rows):
        value = row["rate"]
        low = high = None
        if not math.isnan(value):
            low = max((e for e in [-math.inf, *edges] if e <= value), default=None)
            high = min((e for e in [*edges, math.inf] if e > value), default=math.inf)
        key = (*(row[name] for name in by), low, high)
        counted[key] = counted.get(key, 0) + 1
    assert {tuple(row[k] for k in (*by, "from", "to")): row["rows"] for row in found} == counted


def test_many_groups_and_candidates_are_thinned_out() -> None:
    rng = np.random.default_rng(0)
    whole = TopK("rate", "size").start(SCHEMA)
    best: dict[int, float] = {}
    for i in range(8):
        n = 30_000
        size, rate = rng.integers(0, 2**40, n) // 2**25, rng.random(n)
        columns = {"name": Column(np.zeros(1, np.int16), TEXTS), "size": Column(size), "rate": Column(rate)}
        columns |= {"time": Column(rate), "fits": Column(np.ones(1, bool))}
        whole.update(Block(0, i * n, n, columns))
        for s, r in zip(size.tolist(), rate.tolist(), strict=True):
            best[s] = max(best.get(s, 0.0), r)
    found = whole.result()
    assert dict(zip(found["size"].to_pylist(), found["rate"].to_pylist(), strict=True)) == best
    assert found["size"].to_pylist() == sorted(best)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: TopK("rate", k=0), InputError, "k"),
        (lambda: Pareto({"rate": "max"}), InputError, "at least two"),
        (lambda: Pareto({"rate": "most", "time": "min"}), UnknownNameError, "max"),
        (lambda: Histogram("rate", [1.0]), InputError, "edges"),
        (lambda: Histogram("rate", [1.0, 1.0]), InputError, "rising"),
        (lambda: TopK("rat").check(SCHEMA), UnknownNameError, "rate"),
        (lambda: TopK("rate", "nam").check(SCHEMA), UnknownNameError, "name"),
        (lambda: TopK("rate", where="siz < 1").check(SCHEMA), UnknownNameError, "size"),
        (lambda: Pareto({"rate": "max", "tim": "min"}).check(SCHEMA), UnknownNameError, "time"),
        (lambda: Histogram("name", [0, 1]).check(SCHEMA), InputError, "column of numbers"),
        (lambda: TopK("name").check(SCHEMA), InputError, "column of numbers"),
        (lambda: TopK("rate", where="size + 1").check(SCHEMA), InputError, "condition"),
        (lambda: TopK("rate", where="fits and name == 1").check(SCHEMA), InputError, "text"),
        (lambda: reduction_from({"kind": "mean"}), UnknownNameError, "histogram"),
    ],
)
def test_reductions_that_are_none(make: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    "reduction",
    [TopK("rate", "name", 2, False, "fits"), Pareto({"rate": "max", "time": "min"}), Histogram("rate", [0, 1])],
)
def test_reductions_come_back_from_their_description(reduction: Any) -> None:
    assert reduction_from(reduction.to_dict()) == reduction


def test_names_of_results_are_file_names() -> None:
    sweep = Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", decode_batch=1, decode_context=1, prefill_new_tokens=0)
    for name in ("", "a/b", "_x", "."):
        with pytest.raises(InputError, match="file names"):
            reduce_sweep(sweep, {name: TopK("step_time_s")})
    with pytest.raises(InputError, match="at least one"):
        reduce_sweep(sweep, {})


@pytest.mark.parametrize("wrong", [5, "best", {"x": None}, TopK, {3: TopK("step_time_s")}])
def test_what_is_no_reduction_is_said(wrong: Any) -> None:
    with pytest.raises(InputError, match="reductions"):
        reduce_sweep(
            Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", decode_batch=1, decode_context=1, prefill_new_tokens=0), wrong
        )
