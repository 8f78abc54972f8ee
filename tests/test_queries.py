"""Best rows and Pareto fronts: the definition row by row, from any source, whatever the order of the rows."""

from __future__ import annotations

import random
from pathlib import Path

import naive_queries as naive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfuroof as mr
from mfuroof.errors import InputError, MfuroofError, TableFormatError, UnknownNameError
from mfuroof.queries import best, pareto_front
from mfuroof.queries.derived import derived_columns

GOALS = {"rate": 1.0, "time_s": -1.0, "cost": -1.0}
COLUMNS = st.fixed_dictionaries(
    {
        "gpu": st.none() | st.sampled_from(["b", "a", "c"]),
        "tp": st.sampled_from([1, 2]),
        "rate": st.none() | st.integers(0, 4).map(float),
        "time_s": st.integers(0, 4).map(float),
        "cost": st.integers(0, 2),
        "fits": st.none() | st.booleans(),
    }
)
TYPES = pa.schema(
    [("gpu", pa.string()), ("tp", pa.int64()), ("rate", pa.float64()), ("time_s", pa.float64()), ("cost", pa.int64()),
     ("fits", pa.bool_())]
)  # fmt: skip
ROWS = st.lists(COLUMNS.map(lambda row: {name: row[name] for name in TYPES.names}), max_size=30)
BY = st.sampled_from([(), ("gpu",), ("tp", "gpu"), ("fits",)])


def table(rows):
    return pa.Table.from_pylist(rows, schema=TYPES)


def pieces(rows, sizes, dictionaries):
    """The same rows in batches, each with a dictionary of its own."""
    start = 0
    while start < len(rows) or start == 0:
        size = sizes.pop() if sizes else len(rows) + 1
        batch = table(rows[start : start + size])
        if dictionaries:
            batch = batch.set_column(0, "gpu", batch.column("gpu").combine_chunks().dictionary_encode())
        start += size
        yield batch


@given(ROWS, BY, st.integers(1, 3), st.sampled_from(["max rate", "min time_s", "max rate / time_s", "min cost"]))
def test_best_is_the_first_of_a_sort(rows, by, count, objective):
    sign = 1.0 if objective.startswith("max") else -1.0
    name = objective[4:]

    def value(row):
        if name != "rate / time_s":
            return row[name]
        rate, time = row["rate"], row["time_s"]
        return None if rate is None or (rate == 0 and time == 0) else rate / time if time else None

    found = best(table(rows), objective, ["fits", "tp < 3"], by=by, count=count)
    expected = naive.best(rows, sign, value, lambda row: row["fits"], by, count)
    assert found.table.select(TYPES.names).to_pylist() == expected
    assert found.table.column(name).to_pylist() == [value(row) for row in expected]
    assert (found.rows_seen, found.rows_allowed) == (len(rows), sum(row["fits"] is True for row in rows))


@given(ROWS, BY, st.sampled_from([("rate", "time_s"), ("time_s", "cost"), ("rate", "time_s", "cost")]))
def test_front_is_what_nothing_dominates(rows, by, names):
    every, goals = rows, [(name, GOALS[name]) for name in names]
    rows = rows if "fits" in by else [row for row in rows if row["fits"] is not False]
    found = pareto_front(table(every), [f"{'max' if s > 0 else 'min'} {n}" for n, s in goals], by=by)
    there = found.table.to_pylist()
    assert sorted(there, key=naive.order) == sorted(naive.front(rows, goals, by), key=naive.order)
    for row in rows:  # every other row is dominated by one of the front of its group
        if row["rate"] is not None and row not in there:
            assert any(naive.dominates(p, row, goals) for p in there if all(p[b] == row[b] for b in by))


@given(ROWS, BY, st.randoms(use_true_random=False), st.lists(st.integers(1, 7), max_size=9), st.booleans())
def test_order_and_cuts_of_the_rows_do_not_matter(rows, by, shuffle, sizes, dictionaries):
    mixed = shuffle.sample(rows, len(rows))
    for asked in (
        lambda source: best(source, "max rate", "fits", by=by, count=2),
        lambda source: pareto_front(source, ("max rate", "min time_s"), "fits", by=by),
    ):
        plain = asked(table(rows))
        cut = asked(pieces(mixed, list(sizes), dictionaries))
        assert cut.table.to_pylist() == plain.table.to_pylist()
        assert cut.sentence == plain.sentence


@pytest.mark.parametrize("by", [(), ("gpu",), ("fits", "tp")])
@pytest.mark.parametrize("count", [1, 4])
def test_many_ties_are_decided_by_what_the_rows_hold(by, count):
    rng = random.Random(3)
    domain = {
        "gpu": "ab",
        "tp": (1, 2),
        "rate": (0.0, 1.0),
        "time_s": (1.0, 2.0, 3.0),
        "cost": range(40),
        "fits": (True, None),
    }
    rows = [{name: rng.choice(values) for name, values in domain.items()} for _ in range(200)]
    expected = naive.best(rows, 1.0, lambda row: row["rate"], lambda row: True, by, count)
    for mixed in (rows, rows[::-1], rng.sample(rows, len(rows))):
        for source in (table(mixed), pieces(mixed, [17, 80, 3], dictionaries=True)):
            assert best(source, "max rate", by=by, count=count).table.to_pylist() == expected


def test_front_of_many_points_equals_the_definition_and_is_sorted():
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 300, (2, 3000))
    found = pareto_front({"x": x, "y": y}, ("max x", "max y")).table
    kept = set(zip(found.column("x").to_pylist(), found.column("y").to_pylist(), strict=True))
    better = (x[:, None] >= x) & (y[:, None] >= y) & ((x[:, None] > x) | (y[:, None] > y))
    on_front = ~better.any(axis=0)
    assert kept == set(zip(x[on_front].tolist(), y[on_front].tolist(), strict=True))
    assert found.num_rows == on_front.sum()
    assert found.column("x").to_pylist() == sorted(found.column("x").to_pylist(), reverse=True)


def test_what_does_not_fit_wins_only_when_asked_for():
    rows = {"rate": [3.0, 2.0, 1.0], "time_s": [1.0, 2.0, 3.0], "fits": [False, None, True]}
    found = best(rows, "max rate")
    assert found.table.column("rate").to_pylist() == [2.0]
    assert found.sentence.startswith("Of the 2 rows of 3 with fits the highest rate is 2")
    for asked in ({"even_if_unfit": True}, {"where": "fits or not fits"}):
        assert best(rows, "max rate", **asked).table.column("rate").to_pylist() == [3.0]
    assert best(rows, "max rate", by="fits").table.column("rate").to_pylist() == [3.0, 1.0, 2.0]
    goals = ("max rate", "min time_s")
    assert len(pareto_front(rows, goals)) == 1
    assert pareto_front(rows, goals).table.column("rate").to_pylist() == [2.0]
    assert pareto_front(rows, goals, even_if_unfit=True).table.column("rate").to_pylist() == [3.0]
    none = best({"rate": [1.0], "fits": [False]}, "max rate").sentence
    assert none == "None of 1 rows can be chosen with fits (met by 0)."


def test_what_is_infinite_never_wins():
    rows = {"rate": [1.0, 2.0], "zero": [0.0, 4.0]}
    assert best(rows, "max rate / zero").table.column("rate").to_pylist() == [2.0]
    assert best(rows, "max rate / 0").sentence == "None of 2 rows has a finite value of rate / 0."
    assert pareto_front(rows, ("max rate / zero", "max zero")).table.column("rate").to_pylist() == [2.0]


# ------------------------------------------------------------------ prices and other derived columns


def test_prices_are_gpu_hours_per_million_tokens_times_the_price():
    rows = {"gpu": ["h100_sxm", "h200_sxm"], "output_tokens_per_s_per_gpu": [1000.0, 1200.0], "tpot_s": [0.02, 0.04]}
    cheapest = best(rows, "min price_per_million_output_tokens", prices={"H100": 3.6, "h200_sxm": 4.0})
    assert cheapest.table.column("price_per_million_output_tokens").to_pylist() == [pytest.approx(4.0 / 4.32)]
    hours = best(rows, "max gpu_hours_per_million_output_tokens").table
    assert hours.column("gpu_hours_per_million_output_tokens").to_pylist() == [pytest.approx(1e6 / 1000 / 3600)]
    fast = best(rows, "max output_tokens_per_s_per_gpu", "output_tokens_per_s_per_user >= 50").table
    assert fast.column("gpu").to_pylist() == ["h100_sxm"]
    assert fast.schema.field("output_tokens_per_s_per_user").metadata[b"unit"] == b"tokens/s"
    assert fast.column("output_tokens_per_s_per_user").to_pylist() == [50.0]


@pytest.mark.parametrize(
    "prices", [{"h100_sxm": 2}, {"h100_sxm": 0, "l40s": 1}, {"h100_sxm": "x"}, {"h100": 1, "h100_sxm": 2}, 3, [1]]
)
def test_prices_that_are_none_are_refused(prices):
    rows = {"gpu": ["h100_sxm", "l40s"], "tokens_per_s_per_gpu": [1, 2]}
    with pytest.raises(InputError, match="prices"):
        best(rows, "min price_per_million_tokens", prices=prices)


def test_a_price_needs_a_gpu_and_a_rate():
    assert "price_per_million_tokens" not in derived_columns(("gpu",), {"l40s": 1.0})
    with pytest.raises(UnknownNameError, match="h100_sxm"):
        best({"gpu": ["x"]}, "max gpu", prices={"h100_smx": 1})
    with pytest.raises(UnknownNameError):
        best({"gpu": ["l40s"], "tokens_per_s_per_gpu": [1]}, "min price_per_million_tokens")


# ------------------------------------------------------------------ sources, answers and errors


def steps() -> pa.Table:
    sweep = mr.Sweep("meta-llama/Llama-3.1-8B", "h100_sxm,l40s", decode_batch="1:64:x2", prefill_new_tokens="0,512")
    return pa.Table.from_batches(list(mr.sweep_batches(sweep)))


def test_all_sources_answer_alike(tmp_path: Path):
    rows = steps()
    one, parts = tmp_path / "one.parquet", tmp_path / "parts"
    pq.write_table(rows, one, row_group_size=100)
    (parts / "deeper").mkdir(parents=True)
    pq.write_table(rows.slice(0, 300), parts / "part-0.parquet")
    pq.write_table(rows.slice(300), parts / "deeper" / "part-1.parquet")
    (parts / "_journal.parquet").write_bytes(b"half")
    (parts / ".part-2.parquet").write_bytes(b"half")
    columns = {name: rows.column(name).to_pylist() for name in rows.column_names}
    asked = ("max tokens_per_s_per_gpu", ("step_time_ms <= 25", "fits"))
    sources = (
        rows,
        one,
        str(parts),
        rows.to_batches(),
        iter(rows.to_batches(50)),
        columns,
        rows.combine_chunks().to_batches()[0],
    )
    answers = [best(source, *asked, by="gpu").table.to_pylist() for source in sources]
    assert all(answer == answers[0] for answer in answers)
    assert [row["gpu"] for row in answers[0]] == ["h100_sxm", "l40s"]
    time, fits, rate = (np.array(columns[n]) for n in ("step_time_s", "fits", "tokens_per_s_per_gpu"))
    for row in answers[0]:
        mine = (np.array(columns["gpu"]) == row["gpu"]) & (time <= 0.025) & fits
        assert row["tokens_per_s_per_gpu"] == rate[mine].max()


def test_a_sweep_and_a_serving_result_are_sources():
    loads = mr.Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", input_len=1000, output_len=100, concurrency="1:64:x2")
    of_sweep = best(loads, "max output_tokens_per_s_per_gpu", "tpot_ms <= 15")
    evaluator = mr.StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    result = mr.serving.estimate(evaluator, 1000, 100, [1, 2, 4, 8, 16, 32, 64])
    of_result = best(result, "max output_tokens_per_s_per_gpu", "tpot_ms <= 15")
    both = [answer.table.column("concurrency").to_pylist() for answer in (of_sweep, of_result)]
    assert both[0] == both[1]
    within = result.tpot_s <= 0.015
    assert both[0] == [result.concurrency[within].max()]


def test_answers_show_themselves():
    rows = {
        "gpu": ["a", "b", "b"],
        "tokens_per_s_per_gpu": [10, 30, 20],
        "step_time_s": [0.01, 0.03, 0.02],
        "e": [1, 1, 1],
    }
    one = best(rows, "max tokens_per_s_per_gpu", "step_time_s < 0.03")
    assert one.sentence.startswith(
        "Of the 2 rows of 3 with step_time_s < 0.03 the highest tokens_per_s_per_gpu is 20 tokens/s"
    )
    assert "step_time_s 20 ms" in one.sentence
    several = best(rows, "max tokens_per_s_per_gpu", by="gpu")
    assert "30 tokens/s, the best of 2 groups by gpu: gpu b" in several.sentence
    for text in (repr(several), several._repr_html_()):
        assert "in all rows: e 1" in text
        assert "tokens_per_s_per_gpu" in text
    assert several.to_dict()["rows"][1]["tokens_per_s_per_gpu"] == 30
    none = best(rows, "max e", ["step_time_s < 0.01", "e == 1"])
    assert len(none) == 0
    assert none.sentence == "None of 3 rows can be chosen with step_time_s < 0.01 (met by 0), e == 1 (met by 3)."
    assert repr(none) == none.sentence
    assert "<b>" not in best({"gpu": ["<b>"], "x": [1]}, "max x")._repr_html_()
    nothing = best({"x": [float("nan")]}, "max x")
    assert nothing.sentence == "None of 1 rows has a finite value of x."


def test_pictures_hold_the_points():
    pytest.importorskip("matplotlib").use("agg")
    import matplotlib.pyplot as plt

    rows = {"gpu": ["a", "a", "b", "b"], "rate": [1.0, 100.0, 3.0, 4.0], "time_s": [1.0, 2.0, 3.0, 4.0]}
    front = pareto_front(rows, ("max rate", "min time_s"), by="gpu").plot()
    assert [line.get_xydata().tolist() for line in front.lines] == [
        [[1.0, 1.0], [2.0, 100.0]],
        [[3.0, 3.0], [4.0, 4.0]],
    ]
    assert (front.get_xlabel(), front.get_yscale()) == ("time_s [s]", "log")
    bars = best(rows, "max rate", by="gpu").plot()
    assert [bar.get_width() for bar in bars.patches] == [100.0, 4.0]
    plt.close("all")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((3, "max x"), InputError),
        (("nowhere.parquet", "max x"), InputError),
        ((b"bytes", "max x"), InputError),
        (([], "max x"), InputError),
        (([1, 2], "max x"), InputError),
        (({}, "max x"), InputError),
        (({"x": [1], "y": [1, 2]}, "max x"), InputError),
        (({"x": [1]}, "x"), InputError),
        (({"x": [1]}, "max"), InputError),
        (({"x": [1]}, 5), InputError),
        (({"x": [1]}, "max y"), UnknownNameError),
        (({"x": ["a"]}, "max x"), InputError),
        (({"x": [1]}, "max x", "x"), InputError),
        (({"x": [1]}, "max x", 5), InputError),
        (({"x": [[1]]}, "max x"), InputError),
    ],
)
def test_bad_questions_are_said(arguments, error):
    with pytest.raises(error):
        best(*arguments)


def test_more_bad_questions(tmp_path: Path):
    rows = {"x": [1.0]}
    for wrong in (
        lambda: best(rows, "max x", by="y"),
        lambda: best(rows, "max x", count=0),
        lambda: pareto_front(rows, ("max x",)),
    ):
        with pytest.raises(MfuroofError):
            wrong()
    with pytest.raises(InputError, match="without Parquet"):
        best(tmp_path, "max x")
    twice = pa.table([[1], [2]], names=["x", "x"])
    with pytest.raises(InputError, match="two columns"):
        best(twice, "max x")
    whole = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": list(range(5000))}), whole)
    other = tmp_path / "b.parquet"
    pq.write_table(pa.table({"y": [1]}), other)
    with pytest.raises(TableFormatError, match="other columns"):
        best(tmp_path, "max x")
    other.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(TableFormatError, match="whole Parquet"):
        best(other, "max x")
    damaged = bytearray(whole.read_bytes())
    start = random.Random(1).randrange(20, 200)
    damaged[start : start + 2000] = bytes(2000)
    other.write_bytes(damaged)
    with pytest.raises(TableFormatError):
        best(other, "max x")
