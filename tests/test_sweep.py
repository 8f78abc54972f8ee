"""Sweeps: the rows are the product of the axes, priced as the evaluator does, in a file that is whole or absent."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.batch import StepBatch
from mfuroof.capacity import kv_capacity
from mfuroof.errors import InputError, MfuroofWarning, MissingTableError, OutputError, UnknownNameError
from mfuroof.hardware import Hardware
from mfuroof.step import StepEvaluator
from mfuroof.sweep import Sweep, axis_values, run_sweep, sweep_batches
from mfuroof.sweep.block import Block, Column
from mfuroof.sweep.grid import SHAPE_AXES, Grid
from mfuroof.sweep.sink import ParquetSink
from mfuroof.sweep.space import Space
from mfuroof.sweep.summary import CaseSummary, summarise
from mfuroof.sweep.view_step import _largest

ROOT = Path(__file__).resolve().parents[1]
MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
SMALL = {
    "decode_batch": "0,1:64:x2",
    "decode_context": "0:4096:+1024",
    "prefill_batch": "0:2",
    "prefill_new_tokens": "0,7,512",
    "prefill_context": "0,100",
}


def small(**changes: object) -> Sweep:
    return Sweep(MODEL, GPU, **{**SMALL, **changes})


# ---------------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (8, [8]),
        ("8", [8]),
        ("1,2,4", [1, 2, 4]),
        ("4, 1, 4", [4, 1]),
        ("1:4", [1, 2, 3, 4]),
        ("0:1_000:+400", [0, 400, 800]),
        ("1:500:x2", [1, 2, 4, 8, 16, 32, 64, 128, 256]),
        ("3:243:x3", [3, 9, 27, 81, 243]),
        ("1:10:x1.5", [1, 2, 3, 5, 8]),
        ("5:5:x2", [5]),
        ("0:8192:lin5", [0, 2048, 4096, 6144, 8192]),
        ("1:8192:log14", [2**i for i in range(14)]),
        ("0,1:8:x2,100", [0, 1, 2, 4, 8, 100]),
        (np.array([3.0, 1.0]), [3, 1]),
        (range(2, 5), [2, 3, 4]),
    ],
)
def test_axis_spellings(spec: object, values: list[int]) -> None:
    assert axis_values("axis", spec).tolist() == values


@pytest.mark.parametrize(
    "spec",
    ["", ",", "a", "1:", ":5", "5:1", "1:8:2", "1:8:+0", "1:8:+1.5", "0:8:x2", "1:8:x1", "1:8:lin1", "0:8:log3",
     "-1", "1.5", "1:2:3:4", "0:9999999999", f"0:{2**41}:lin3", f"{2**41}", [], [-1], [1.5], [float("nan")], ["x"]],
)  # fmt: skip
def test_axis_that_is_no_range(spec: object) -> None:
    with pytest.raises(InputError, match="axis"):
        axis_values("axis", spec)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 50))
def test_additive_axis_is_a_range(start: int, length: int, step: int) -> None:
    stop = start + length
    assert axis_values("axis", f"{start}:{stop}:+{step}").tolist() == list(range(start, stop + 1, step))


@given(st.integers(1, 100), st.integers(0, 10**6), st.floats(1.01, 10))
def test_geometric_axis_rises_within_its_ends(start: int, length: int, factor: float) -> None:
    values = axis_values("axis", f"{start}:{start + length}:x{factor:.4f}")
    assert values[0] == start
    assert values[-1] <= start + length
    assert (np.diff(values) > 0).all()


# ---------------------------------------------------------------------------------------------------- grid


@given(st.tuples(*[st.integers(1, 5)] * 5), st.integers(1, 700), st.randoms(use_true_random=False))
def test_chunks_are_the_product_in_order(sizes: tuple[int, ...], chunk_rows: int, random: object) -> None:
    axes = {name: np.array(random.sample(range(100), size)) for name, size in zip(SHAPE_AXES, sizes, strict=True)}  # type: ignore[attr-defined]
    grid = Grid(axes, chunk_rows)
    rows, shapes = 0, []
    for i in range(len(grid)):
        chunk = grid.chunk(i)
        assert chunk.start == rows
        assert 1 <= chunk.rows <= chunk_rows
        assert len(chunk.batch) == chunk.rows
        columns = [np.broadcast_to(chunk.columns[name], chunk.rows) for name in SHAPE_AXES]
        shapes += list(zip(*(c.tolist() for c in columns), strict=True))
        assert grid.first_row(i) == rows
        rows += chunk.rows
    assert shapes == list(itertools.product(*(axes[name].tolist() for name in SHAPE_AXES)))
    assert rows == grid.rows


def test_chunks_of_a_large_grid_are_more_than_half_full() -> None:
    axes = {name: np.arange(k) for name, k in zip(SHAPE_AXES, (7, 50, 3, 999, 11), strict=True)}
    grid = Grid(axes, 4096)
    assert grid.rows / len(grid) > 2048


def test_a_huge_sweep_starts_at_once() -> None:
    sweep = Sweep(MODEL, GPU, decode_batch="1:4096", decode_context="1:131072", prefill_new_tokens="0:8192")
    assert sweep.grid().rows == 4096 * 131072 * 8193
    rows = sweep_batches(sweep, detail="times", threads=2)
    first = next(rows)
    rows.close()
    assert 2**15 < first.num_rows <= 2**16


# ---------------------------------------------------------------------------------------------------- rows


def test_rows_are_what_the_evaluator_says(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    summary = run_sweep(small(tp_size="1,2"), path, detail="components", chunk_rows=97)
    table = pq.read_table(path)
    shapes = list(itertools.product(*(axis_values("axis", SMALL[name]).tolist() for name in SHAPE_AXES)))
    assert summary.rows == table.num_rows == 2 * len(shapes)
    columns = dict(zip(SHAPE_AXES, np.array(shapes).T, strict=True))
    for tp in (1, 2):
        mine = table.filter(pa.compute.equal(table["tp_size"], tp))
        for name in SHAPE_AXES:
            npt.assert_array_equal(mine[name], columns[name])
        evaluator = StepEvaluator(MODEL, GPU, tp)
        result = evaluator.evaluate(StepBatch.uniform(**columns))
        npt.assert_array_equal(mine["step_time_s"], result.step_time_s)
        for component in result.components:
            npt.assert_array_equal(mine[f"{component}_s"], result.op_time_s[component])
        assert mine["bound"].to_pylist() == result.bound_names
        assert mine["source"].to_pylist() == result.to_arrow()["source"].to_pylist()
        emitted = columns["decode_batch"] + columns["prefill_batch"] * (columns["prefill_new_tokens"] > 0)
        rate = np.divide(emitted / tp, result.step_time_s, out=np.zeros(len(result)), where=result.step_time_s > 0)
        npt.assert_allclose(mine["tokens_per_s_per_gpu"], rate, rtol=1e-14)


@pytest.mark.parametrize(("threads", "chunk_rows"), [(1, 2**16), (3, 41), (2, 1000)])
def test_threads_and_chunks_change_nothing(threads: int, chunk_rows: int) -> None:
    def rows(threads: int, chunk_rows: int) -> pa.Table:
        batches = sweep_batches(small(tp_size=[1, 4]), threads=threads, chunk_rows=chunk_rows)
        return pa.Table.from_batches(list(batches)).combine_chunks()

    assert rows(threads, chunk_rows).equals(rows(1, 500))


def test_summary_is_that_of_the_rows() -> None:
    sweep = small(decode_batch="0,1:512:x2", decode_context="0:65536:+8192", tp_size="1,2")
    summary = run_sweep(sweep, chunk_rows=60)
    table = pa.Table.from_batches(list(sweep_batches(sweep)))
    for case in summary.cases:
        rows = table.filter(pa.compute.equal(table["tp_size"], case.case.tp_size)).to_pylist()
        busy = [r for r in rows if r["decode_batch"] or (r["prefill_batch"] and r["prefill_new_tokens"])]
        best = max((r for r in busy if r["fits"]), key=lambda r: r["tokens_per_s_per_gpu"])
        fastest = min(busy, key=lambda r: r["step_time_s"])
        assert case.rows == len(rows)
        assert case.rows_that_fit == sum(r["fits"] for r in rows) < len(rows)
        assert case.best is not None
        assert case.best.shape == {name: best[name] for name in SHAPE_AXES}
        assert case.best.tokens_per_s_per_gpu == best["tokens_per_s_per_gpu"]
        assert case.fastest is not None
        assert case.fastest.step_time_s == fastest["step_time_s"]
        for name, share in case.bound_shares.items():
            assert share == pytest.approx(sum(r["bound"] == name for r in busy) / len(busy))
    assert summary.best is not None
    assert summary.best.best == max((c.best for c in summary.cases if c.best), key=lambda p: p.tokens_per_s_per_gpu)
    json.dumps(summary.to_dict(), allow_nan=False)
    assert "tokens/s" in repr(summary)


def test_steps_without_an_answer_are_counted_and_never_the_best() -> None:
    case = Space(Sweep(MODEL, GPU, decode_batch="1:4", decode_context=0, prefill_new_tokens=0)).cases[0]

    def found_in(time: list[float], rate: list[float]) -> CaseSummary:
        columns = {"decode_batch": Column(np.arange(1, 5)), "step_time_s": Column(np.array(time))}
        columns |= {"rate": Column(np.array(rate)), "fits": Column(np.ones(1, bool), known=False)}
        return summarise(Block(0, 0, 4, columns), case, "rate", "step_time_s", ("decode_batch",))

    found = found_in([np.nan, 2.0, 1.0, np.nan], [np.nan, 1.0, 3.0, np.nan])
    assert (found.rows, found.rows_without_answer, found.rows_that_fit) == (4, 2, None)
    assert found.best is not None
    assert found.best.shape["decode_batch"] == 3
    assert found.fastest == found.best
    nothing = found_in([np.nan] * 4, [np.nan] * 4)
    assert (nothing.best, nothing.fastest, nothing.rows_without_answer) == (None, None, 4)
    assert found.merged(nothing).best == nothing.merged(found).best == found.best


def test_fits_is_the_capacity_in_blocks() -> None:
    sweep = Sweep(MODEL, GPU, decode_batch="1:512:x2", decode_context="0:65536:+999", prefill_new_tokens=0)
    rows = pa.Table.from_batches(list(sweep_batches(sweep, detail="times"))).to_pylist()
    blocks = int(kv_capacity(MODEL, GPU).num_kv_blocks)
    for row in rows:
        assert row["fits"] == (row["decode_batch"] * -(-(row["decode_context"] + 1) // 16) <= blocks)


def test_file_explains_itself(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    run_sweep(small(), path, detail="components", command="mfuroof sweep x")
    schema = pq.read_schema(path)
    for field in schema:
        assert set(field.metadata) >= {b"unit", b"meaning"}
        if field.name.endswith("_s"):
            assert field.metadata[b"unit"] == b"s"
    for name in ("model", "gpu", "engine", "weight_dtype", "kv_dtype", "bound", "source"):
        assert pa.types.is_dictionary(schema.field(name).type)
    meta = {k.decode(): v.decode() for k, v in schema.metadata.items()}
    assert meta["mfuroof.version"]
    assert meta["mfuroof.command"] == "mfuroof sweep x"
    assert json.loads(meta["mfuroof.sweep"])["decode_batch"] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert json.loads(meta["mfuroof.tables"])[f"{GPU}/gemm/vllm"]["package"] == "aiconfigurator-core"
    assert pq.ParquetFile(path).metadata.num_row_groups == 1


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan")]), min_size=4, max_size=4), min_size=1))
def test_what_binds_is_the_first_of_the_largest(rows: list[list[float]]) -> None:
    values = np.array(rows).T.copy()
    npt.assert_array_equal(_largest(values), np.argmax(values, axis=0))


def test_constant_mfu_sweeps_too() -> None:
    rows = pa.Table.from_batches(list(sweep_batches(small(cost="constant_mfu"), detail="components")))
    assert {"compute_s", "memory_s"} <= set(rows.column_names)
    assert rows.num_rows == small().grid().rows


# ---------------------------------------------------------------------------------------------------- infeasible


def test_a_model_that_does_not_fit_is_kept_with_a_warning_or_dropped() -> None:
    sweep = Sweep("meta-llama/Llama-3.1-70B", GPU, tp_size="1,4", **SMALL)
    with pytest.warns(MfuroofWarning, match=r"tp1: needs 131\.4 GiB of weights .* tp 2 fits"):
        kept = run_sweep(sweep)
    assert [case.rows for case in kept.cases] == [sweep.grid().rows] * 2
    assert kept.cases[0].rows_that_fit == 0
    assert "131.4 GiB" in kept.cases[0].reason
    assert kept.best is not None
    assert kept.best.case.tp_size == 4
    with pytest.warns(MfuroofWarning, match="left out"):
        dropped = run_sweep(sweep, infeasible="drop")
    assert [case.rows for case in dropped.cases] == [0, sweep.grid().rows]
    assert "131.4 GiB" in dropped.cases[0].reason


def test_what_cannot_be_priced_has_a_reason_and_no_times() -> None:
    done: list[tuple[int, int]] = []
    with pytest.warns(MfuroofWarning, match="tp3: tp_size: found 3"):
        summary = run_sweep(small(tp_size="1,3"), progress=lambda *p: done.append(p))
    assert [case.rows for case in summary.cases] == [small().grid().rows] * 2
    assert summary.cases[1].rows_without_answer == small().grid().rows
    assert "attention heads" in summary.cases[1].reason
    assert done[-1] == (summary.rows, summary.rows)
    assert "not priced" in repr(summary)


def test_nothing_that_can_be_priced_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "steps.parquet"
    with pytest.raises(InputError, match="tp_size"):
        run_sweep(small(tp_size=3), path)

    def unmeasured(*_: object, **__: object) -> None:
        raise MissingTableError("fp8 GEMM", ["bf16"])

    monkeypatch.setattr("mfuroof.sweep.cases.StepEvaluator", unmeasured)
    with pytest.raises(MissingTableError, match="fp8"):
        run_sweep(small(), path)
    with pytest.raises(MissingTableError, match="fp8"), pytest.warns(MfuroofWarning, match="no times"):
        run_sweep(small(tp_size="1,2"), path)
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_of_unknown_memory_says_nothing_about_fit() -> None:
    gpu = Hardware.from_figures("mine", bf16_tflops_per_s=400, hbm_tb_per_s=2)
    sweep = Sweep(MODEL, gpu, cost="constant_mfu", **SMALL)
    rows = pa.Table.from_batches(list(sweep_batches(sweep, detail="times")))
    assert rows["fits"].null_count == rows.num_rows
    assert run_sweep(sweep, detail="times").cases[0].rows_that_fit is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "h100_sxn"}, "h100_sxm"),
        ({"model": "meta-llama/Llama-3.1-8C"}, "Llama-3.1-8B"),
        ({"engine": "vlm"}, "vllm"),
        ({"weight_dtype": "fp88"}, "fp8"),
        ({"kv_dtype": "fp88"}, "fp8"),
        ({"cost": "kernel"}, "kernels"),
    ],
)
def test_unknown_names_name_the_nearest(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        Sweep(**{"model": MODEL, "gpu": GPU, **SMALL, **changes})


@pytest.mark.parametrize("changes", [{"gpu": ""}, {"tp_size": 0}, {"memory_utilization": 1.5}, {"decode_batch": "x"}])
def test_bad_definitions(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Sweep(**{"model": MODEL, "gpu": GPU, **SMALL, **changes})


def test_bad_options() -> None:
    for options in ({"detail": "all"}, {"infeasible": "maybe"}):
        with pytest.raises(UnknownNameError):
            run_sweep(small(), **options)  # type: ignore[arg-type]
    for options in ({"threads": 0}, {"chunk_rows": 0}):
        with pytest.raises(InputError):
            run_sweep(small(), **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- output


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "steps.parquet", Path("/dev/null")):
        with pytest.raises(OutputError, match="cannot write"):
            run_sweep(small(), path)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    path.write_text("before")

    def fail(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run_sweep(small(), path, progress=fail)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    run_sweep(small(), path)
    assert pq.ParquetFile(path).metadata.num_rows == small().grid().rows


def test_links_are_followed(tmp_path: Path) -> None:
    link, target = tmp_path / "link.parquet", tmp_path / "target.parquet"
    link.symlink_to(target)
    run_sweep(small(), link)
    assert link.is_symlink()
    assert pq.ParquetFile(target).metadata.num_rows == small().grid().rows


def test_sink_fills_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfuroof.sweep.sink.ROW_GROUP_ROWS", 100)
    batch = pa.record_batch({"x": np.arange(30)})
    with ParquetSink(tmp_path / "x.parquet", batch.schema) as sink:
        for _ in range(10):
            sink.write(batch)
    file = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert [file.row_group(i).num_rows for i in range(file.num_row_groups)] == [120, 120, 60]


ENDLESS = """
    import signal, sys, resource
    from mfuroof.errors import OutputError
    from mfuroof.sweep import Sweep, run_sweep
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    sweep = Sweep("meta-llama/Llama-3.1-8B", "h100_sxm", decode_batch="1:4096", decode_context="1:65536")
    try:
        run_sweep(sweep, sys.argv[1], detail="times", progress=lambda done, total: print(done, flush=True))
    except OutputError as error:
        print(error, file=sys.stderr)
        sys.exit(4)
"""


def endless(path: Path, *limit: str) -> subprocess.Popen[str]:
    """Start a sweep that would take days."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ENDLESS), str(path), *limit],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_killed_sweep_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    process = endless(path)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    assert any(p.stat().st_size for p in tmp_path.iterdir())
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not path.exists()


def test_a_full_disk_leaves_nothing_at_all(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    process = endless(path, "limited")
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert "cannot write" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - began < 60
