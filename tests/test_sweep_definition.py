"""What a sweep spans: products, axes that advance together, tables of cases, conditions, loads; and its bounds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv

from mfuroof.batch import StepBatch
from mfuroof.errors import InputError, MfuroofWarning, TableFormatError, UnknownNameError
from mfuroof.serving import estimate
from mfuroof.step import StepEvaluator
from mfuroof.sweep import Sweep, run_sweep, sweep_batches
from mfuroof.sweep.grid import SHAPE_AXES, Grid
from mfuroof.sweep.outputs import check_folder
from mfuroof.sweep.size import check_size
from mfuroof.sweep.space import Space
from mfuroof.sweep.values import CASE_AXES

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
FEW = {"decode_batch": "1,2,4", "decode_context": "0,100,1000", "prefill_new_tokens": 0}


def table_of(sweep: Sweep, **options: Any) -> pa.Table:
    return pa.Table.from_batches(list(sweep_batches(sweep, **options)))


def labels(sweep: Sweep, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(case.labels[name] for name in names) for case in Space(sweep).cases]


# ---------------------------------------------------------------------------------------------------- cases


def test_every_case_axis_is_swept() -> None:
    sweep = Sweep(
        [MODEL, "Qwen/Qwen3-30B-A3B"], ["h100_sxm", "h200_sxm"], "1,2", engine="vllm,sglang", weight_dtype="own,fp8",
        kv_dtype="own,fp8", pp_size="1,2", ep_size="1,2", dp_size="1,2", attention_dtype="own,fp8",
        moe_dtype="own,fp8", runtime="own,dynamic-fp8",
    )  # fmt: skip
    found = labels(sweep, *CASE_AXES)
    assert len(found) == len(set(found)) == 2**12
    assert all(len({row[i] for row in found}) == 2 for i in range(12))


def test_cases_are_priced_as_the_evaluator_does() -> None:
    sweep = Sweep("Qwen/Qwen3-30B-A3B", GPU, 2, ep_size=2, dp_size=2, runtime="own,dynamic-fp8", **FEW)
    table = table_of(sweep)
    shapes = np.array(list(itertools.product([1, 2, 4], [0, 100, 1000]))).T
    for name, runtime in (("own", None), ("dynamic-fp8", {"gemm_dtype": "fp8", "kvcache_dtype": "fp8_e4m3",
                                                          "attention_dtype": "fp8", "moe_dtype": "fp8"})):  # fmt: skip
        rows = table.filter(pa.compute.equal(table["runtime"].cast(pa.string()), name))
        evaluator = StepEvaluator("Qwen/Qwen3-30B-A3B", GPU, 2, 1, 2, 2, runtime=runtime)
        npt.assert_array_equal(rows["step_time_s"], evaluator.step_time(StepBatch.uniform(*shapes)))
        npt.assert_allclose(rows["tokens_per_s_per_gpu"], shapes[0] / rows["step_time_s"].to_numpy() / 4, rtol=1e-14)


def test_axes_of_cases_advance_together() -> None:
    sweep = Sweep(MODEL, GPU, "8,4,4", pp_size="1,2,2", weight_dtype="own,fp8", together=("tp_size", "pp_size"), **FEW)
    assert labels(sweep, "tp_size", "pp_size", "weight_dtype") == [
        (8, 1, "own"), (8, 1, "fp8"), (4, 2, "own"), (4, 2, "fp8")  # the same case twice is one
    ]  # fmt: skip


def test_axes_of_shapes_advance_together() -> None:
    sweep = Sweep(MODEL, GPU, decode_batch="1,2,2", decode_context="7,8", prefill_batch="3,4,5", prefill_new_tokens=9,
                  together="decode_batch,prefill_batch")  # fmt: skip
    rows = table_of(sweep)
    found = list(zip(*(rows[name].to_pylist() for name in SHAPE_AXES[:3]), strict=True))
    assert found == [(1, 7, 3), (1, 8, 3), (2, 7, 4), (2, 8, 4), (2, 7, 5), (2, 8, 5)]


@given(st.lists(st.integers(1, 4), min_size=3, max_size=5), st.integers(1, 40), st.data())
def test_chunks_with_linked_axes_are_their_product(sizes: list[int], chunk_rows: int, data: st.DataObject) -> None:
    names = [f"a{i}" for i in range(len(sizes))]
    linked = data.draw(st.sets(st.sampled_from(names), min_size=2, max_size=len(names)))
    group = [name for name in names if name in linked]
    sizes = [sizes[names.index(group[0])] if name in linked else size for name, size in zip(names, sizes, strict=True)]
    axes = {name: np.arange(size) + 10 * i for i, (name, size) in enumerate(zip(names, sizes, strict=True))}
    grid = Grid(axes, chunk_rows, [group])
    found = []
    for i in range(len(grid)):
        chunk = grid.chunk(i)
        assert chunk.start == grid.first_row(i) == len(found)
        found += list(zip(*(np.broadcast_to(chunk.columns[n], chunk.rows).tolist() for n in names), strict=True))
    free = [name for name in names if name not in linked or name == group[0]]
    expected = []
    for values in itertools.product(*(range(axes[name].size) for name in free)):
        at = dict(zip(free, values, strict=True))
        expected.append(tuple(axes[n][at[group[0]] if n in linked else at[n]] for n in names))
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"together": ("tp_size", "pp_sise")}, UnknownNameError, "pp_size"),
        ({"together": ("tp_size",)}, InputError, "at least two axes"),
        ({"together": ("tp_size", "decode_batch")}, InputError, "table of cases"),
        ({"together": ("tp_size", "pp_size"), "tp_size": "1,2", "pp_size": "1,2,4"}, InputError, "of one length"),
        ({"together": [("tp_size", "pp_size"), ("tp_size", "dp_size")]}, InputError, "each axis once"),
        ({"tp_size": "1:100000"}, InputError, "1 to 256"),
        ({"runtime": "dynamic-fp9"}, UnknownNameError, "dynamic-fp8"),
        ({"where": "decode_batch <<"}, InputError, "where"),
        ({"where": "decode_bach < 2"}, UnknownNameError, "decode_batch"),
        ({"where": "decode_batch + 1"}, InputError, "condition"),
        ({"where": "__import__('os').system('true')"}, InputError, "where"),
        ({"where": "tp_size > 8"}, InputError, "no case that meets it"),
        ({"input_len": 100}, InputError, "output_len"),
        ({"input_len": 100, "output_len": 10, "decode_batch": 1}, InputError, "either axes of a step"),
    ],
)
def test_definitions_that_are_none(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Space(Sweep(MODEL, GPU, **changes))


# ---------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize("chunk_rows", [7, 1000])
def test_conditions_are_those_of_the_rows(chunk_rows: int) -> None:
    axes = {"decode_batch": "1:20", "decode_context": "0:100:+10", "prefill_new_tokens": "0,5"}
    sweep = Sweep(MODEL, GPU, "1,2,4", **axes, where=["tp_size < 4", "decode_batch * decode_context <= 300 / num_gpus"])
    rows = table_of(sweep, chunk_rows=chunk_rows).to_pylist()
    whole = table_of(Sweep(MODEL, GPU, "1,2", **axes)).to_pylist()
    wanted = [r for r in whole if r["decode_batch"] * r["decode_context"] <= 300 / r["tp_size"]]
    assert rows == wanted
    assert 0 < len(rows) < len(whole)
    assert run_sweep(sweep, chunk_rows=chunk_rows).rows == len(rows)


def test_a_condition_that_nothing_meets_leaves_no_rows(tmp_path: Path) -> None:
    sweep = Sweep(MODEL, GPU, **FEW, where="decode_batch > decode_context + 10_000")
    assert run_sweep(sweep, tmp_path / "x.parquet").rows == 0
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 0


def test_a_product_beyond_64_bits_does_not_wrap_around() -> None:
    sweep = Sweep(MODEL, GPU, decode_batch=2**36, decode_context=2**36, prefill_new_tokens=0,
                  where="decode_batch * decode_context > 0")  # fmt: skip
    assert run_sweep(sweep).rows == 1  # 2**72 is 0 in 64-bit integers


# ---------------------------------------------------------------------------------------------------- tables of cases


def test_a_table_of_cases_and_shapes(tmp_path: Path) -> None:
    table = pa.table(
        {
            "model": [MODEL, "Qwen/Qwen3-8B", MODEL, MODEL],
            "gpu": ["h100_sxm", "h200_sxm", "h100_sxm", "h200_sxm"],
            "tp": [1, 2, 1, 1],
            "weight_dtype": ["fp8", None, "fp8", ""],
            "decode_batch": [8, 16, 32, 64],
            "decode_context": [100, 200, 300, 400],
        }
    )
    pq.write_table(table, tmp_path / "cases.parquet")
    csv.write_csv(table, tmp_path / "cases.csv")
    sources = (table, tmp_path / "cases.parquet", str(tmp_path / "cases.csv"))
    found = [table_of(Sweep(table=source)) for source in sources]
    assert found[0].equals(found[1]) and found[0].equals(found[2])
    rows = found[0].sort_by("row").to_pylist()
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    for row, asked in zip(rows, table.to_pylist(), strict=True):
        evaluator = StepEvaluator(asked["model"], asked["gpu"], asked["tp"], weight_dtype=asked["weight_dtype"] or None)
        batch = StepBatch.uniform(asked["decode_batch"], asked["decode_context"])
        assert row["step_time_s"] == evaluator.step_time(batch)[0]
        assert (row["decode_batch"], row["prefill_new_tokens"]) == (asked["decode_batch"], 0)
        assert row["weight_dtype"] == (asked["weight_dtype"] or "own")


def test_a_table_multiplies_the_other_axes() -> None:
    table = pa.table({"tp_size": [1, 2, 2], "decode_batch": [8, 16, 32]})
    rows = table_of(Sweep(MODEL, GPU, table=table, decode_context="10,20", kv_dtype="own,fp8")).to_pylist()
    found = sorted((r["row"], r["tp_size"], r["decode_batch"], r["decode_context"], r["kv_dtype"]) for r in rows)
    assert found == sorted(
        (i, tp, batch, context, kv)
        for i, (tp, batch) in enumerate([(1, 8), (2, 16), (2, 32)])
        for context in (10, 20)
        for kv in ("own", "fp8")
    )
    only_cases = Sweep(MODEL, GPU, table=pa.table({"tp_size": [2, 1, 2]}), **FEW)
    assert labels(only_cases, "tp_size") == [(2,), (1,)]
    assert "row" not in table_of(only_cases).column_names


@pytest.mark.parametrize(
    ("columns", "changes", "error", "says"),
    [
        ({"decode_bach": [1]}, {}, UnknownNameError, "decode_batch"),
        ({"decode_batch": [1, None]}, {}, InputError, "row 1: found nothing"),
        ({"decode_batch": [1, -1]}, {}, InputError, "found -1"),
        ({"decode_batch": ["1"]}, {}, InputError, "decode_batch"),
        ({"decode_batch": []}, {}, InputError, "0 rows"),
        ({"tp_size": [0]}, {}, InputError, "at least 1"),
        ({"tp": [1], "tp_size": [1]}, {}, InputError, "2 of that name"),
        ({"tp": [1]}, {"tp_size": 2}, InputError, "one of them"),
        ({"weight_dtype": ["fp8,int4"]}, {}, InputError, "one value a row"),
        ({"gpu": ["h100_sxn"]}, {"gpu": None}, UnknownNameError, "h100_sxm"),
        ({"gpu": [None]}, {"gpu": None}, InputError, "a name in every row"),
    ],
)
def test_tables_that_are_none(
    columns: dict[str, list[Any]], changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Sweep(**{"model": MODEL, "gpu": GPU, "table": pa.table(columns), **changes})


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(TableFormatError, match=r"x\.parquet"):
        Sweep(MODEL, GPU, table=tmp_path / "x.parquet")
    for source in (tmp_path / "none.csv", tmp_path / "x.txt", 3):
        with pytest.raises(InputError, match="csv"):
            Sweep(MODEL, GPU, table=source)


# ---------------------------------------------------------------------------------------------------- loads


@pytest.mark.parametrize("chunk_rows", [None, 3])
def test_loads_are_estimated_as_the_serving_view_does(chunk_rows: int | None) -> None:
    loads = {"input_len": "128,1024", "output_len": "1,64", "concurrency": "1,16,200", "cached_prefix_len": "0,100"}
    table = table_of(Sweep(MODEL, GPU, "1,2", **loads), chunk_rows=chunk_rows)
    shapes = np.array(list(itertools.product([128, 1024], [1, 64], [1, 16, 200], [0, 100]))).T
    for tp in (1, 2):
        rows = table.filter(pa.compute.equal(table["tp_size"], tp))
        found = estimate(StepEvaluator(MODEL, GPU, tp), *shapes[:3], cached_prefix_len=shapes[3])
        for name in ("ttft_s", "tpot_s", "e2e_latency_s", "output_tokens_per_s_per_gpu", "kv_utilization"):
            npt.assert_allclose(rows[name], getattr(found, name), rtol=1e-12)
        assert rows["limit"].to_pylist() == found.limit_names
    for field in table.schema:
        assert set(field.metadata) >= {b"unit", b"meaning"}
    best = run_sweep(Sweep(MODEL, GPU, "1,2", **loads)).best
    assert best is not None and best.best is not None
    assert best.best.tokens_per_s_per_gpu == max(table["output_tokens_per_s_per_gpu"].to_pylist())


def test_a_load_that_does_not_fit_has_a_reason() -> None:
    sweep = Sweep("meta-llama/Llama-3.1-70B", GPU, "1,4", input_len="100,10_000_000", output_len=10, concurrency=1)
    with pytest.warns(MfuroofWarning, match="tp1: needs"):
        rows = table_of(sweep).to_pylist()
    assert [row["reason"] is None for row in rows] == [False, False, True, False]
    assert [row["tpot_s"] is None or np.isnan(row["tpot_s"]) for row in rows] == [True, True, False, True]
    with pytest.warns(MfuroofWarning, match="left out"):
        assert table_of(sweep, infeasible="drop").num_rows == 1


# ---------------------------------------------------------------------------------------------------- size


def test_the_size_of_a_sweep_is_bounded() -> None:
    large = Space(Sweep(MODEL, GPU, decode_batch="1:4096", decode_context="1:131072", prefill_new_tokens="0:8192"))
    with pytest.raises(InputError, match=r"4,398,583,382,016 rows .* GB and 10 days.*--max-rows"):
        check_size(large, True)
    with pytest.raises(InputError, match="at most 100,000,000,000"):
        check_size(large, False)
    check_size(large, True, 1e13)
    check_size(Space(Sweep(MODEL, GPU)), True)
    with pytest.raises(InputError, match="--max-rows"):
        check_size(large, True, -1.0)
    with pytest.raises(InputError, match="at most 1"):
        Space(Sweep(MODEL, GPU, **dict.fromkeys(SHAPE_AXES, f"0:{2**13}")))


@given(st.integers(1, 5000), st.integers(1, 3000), st.integers(1, 9))
def test_partitions_cover_the_rows_once(partition_rows: int, chunk_rows: int, cases: int) -> None:
    space = Space(Sweep(MODEL, GPU, list(range(1, cases + 1)), **FEW), chunk_rows, partition_rows)
    jobs = [job for number in range(space.partitions) for job in space.partition_jobs(number)]
    assert jobs == list(range(space.jobs))
    assert sum(space.partition_size(n) for n in range(space.partitions)) == space.rows == 9 * cases
    row = 0
    for number in range(space.partitions):
        jobs = list(space.partition_jobs(number))
        assert {space.chunk(job)[0] for job in jobs} == set(space.cases_of(space.partition_jobs(number)))
        for job in jobs:
            _, first, chunk = space.chunk(job)
            assert first + chunk.start == row
            row += chunk.rows


@pytest.mark.parametrize("name", ["a.csv", "a", "a.json", "a.parquet.gz"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"expected \.parquet"):
        run_sweep(Sweep(MODEL, GPU, **FEW), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    check_folder(tmp_path / "qwen3-0.6b")
    (tmp_path / "there.csv").mkdir()
    check_folder(tmp_path / "there.csv")
    with pytest.raises(InputError, match="a folder"):
        check_folder(tmp_path / "new.csv")
