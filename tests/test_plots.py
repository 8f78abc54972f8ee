"""What figures show: their data and labels, not their pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

import mfuroof as mr
from mfuroof import plots
from mfuroof.cli import main
from mfuroof.errors import InputError, MfuroofError, OutputError, UnknownNameError
from mfuroof.plots.fronts import crossovers, front
from mfuroof.plots.style import COLOURS, MARKERS
from mfuroof.tables.compiled import Table2D

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def evaluator() -> mr.StepEvaluator:
    return mr.StepEvaluator(MODEL, GPU)


def points(collection: Any) -> np.ndarray:
    return np.asarray(collection.get_offsets())


def scatters(ax: Any) -> list[Any]:
    from matplotlib.collections import PathCollection

    return [c for c in ax.collections if isinstance(c, PathCollection)]


def legend_texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


# ---------------------------------------------------------------------------------------------------- style


def lightness(colour: str) -> float:
    r, g, b = matplotlib.colors.to_rgb(colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def deuteranope(colour: str) -> np.ndarray:
    """Return a colour as an eye without green receptors sees it (Vienot, Brettel and Mollon 1999), in linear RGB."""
    rgb = np.array(matplotlib.colors.to_rgb(colour)) ** 2.2
    return np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]) @ rgb


def test_colours_and_marks_are_told_apart() -> None:
    assert all(lightness(colour) < 0.75 for colour in COLOURS)  # seen on white
    seen = [deuteranope(colour) for colour in COLOURS]
    gaps = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 0.04  # pure red and a dark green of equal effect would be 0 apart
    pairs = {(i % len(COLOURS), i % len(MARKERS)) for i in range(len(COLOURS) * len(MARKERS))}
    assert len(pairs) == len(COLOURS) * len(MARKERS)


def test_axes_given_are_the_axes_returned() -> None:
    _, ax = pyplot.subplots()
    assert plots.predicted_measured([1.0], [1.0], ax=ax) is ax


# ---------------------------------------------------------------------------------------------------- predicted


def test_predicted_measured_scales_groups_and_leaves_out_what_has_no_place() -> None:
    measured = [0.001, 0.002, 0.004, np.nan, 0.001]
    predicted = [0.0011, 0.002, 0.002, 0.001, 0.0]
    ax = plots.predicted_measured(measured, predicted, groups=["a", "b", "a", "a", "b"], unit="ms", title="TPOT")
    a, b = scatters(ax)
    npt.assert_allclose(points(a), [[1.0, 1.1], [4.0, 2.0]])
    npt.assert_allclose(points(b), [[2.0, 2.0]])
    assert ax.get_title(loc="left") == "TPOT, 2 of 5 rows not shown"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("measured [ms]", "predicted [ms]")
    assert legend_texts(ax) == ["within 20%", "a: 30.0% mean error, 2 rows", "b: 0.0% mean error, 1 row"]
    line = ax.lines[0].get_xydata()
    npt.assert_array_equal(line[:, 0], line[:, 1])
    assert ax.get_xlim() == ax.get_ylim()


def test_a_unit_without_a_scale_is_only_written() -> None:
    ax = plots.predicted_measured([3.0], [4.0], unit="tokens/s")
    npt.assert_array_equal(points(scatters(ax)[0]), [[3.0, 4.0]])
    assert ax.get_xlabel() == "measured [tokens/s]"


@pytest.mark.parametrize(
    ("measured", "predicted", "groups", "says"),
    [
        ([1.0], [1.0, 2.0], None, "predicted: found 2 values, expected 1"),
        ([1.0], [1.0], ["a", "b"], "groups: found 2 labels"),
        ([1.0], [-1.0], None, "no row where both"),
        ([], [], None, "no row where both"),
    ],
)
def test_what_cannot_be_compared_is_said(measured: Any, predicted: Any, groups: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        plots.predicted_measured(measured, predicted, groups=groups)


# ---------------------------------------------------------------------------------------------------- steps


def test_roofline_places_every_operation_with_flops(evaluator: mr.StepEvaluator) -> None:
    result = evaluator.evaluate(mr.StepBatch.uniform(decode_batch=[1, 64], decode_context=2047))
    ax = plots.roofline(result, evaluator.hardware, step=1, title="one step")
    placed = {n: t[1] for n, t in result.op_time_s.items() if n in result.op_flops and result.op_flops[n][1] > 0}
    order = sorted(placed, key=lambda name: -placed[name])
    assert [text.split(":")[0] for text in legend_texts(ax)] == order
    for name, mark in zip(order, scatters(ax), strict=True):
        flops, moved = result.op_flops[name][1], result.op_bytes[name][1]
        npt.assert_allclose(points(mark), [[flops / moved, flops / placed[name] / 1e12]])
    slope, *ceilings = (line.get_xydata() for line in ax.lines)
    npt.assert_allclose(slope[:, 1] / slope[:, 0] * 1e12, evaluator.hardware.hbm_bytes_per_s)
    assert [c[0, 1] * 1e12 for c in ceilings] == pytest.approx([evaluator.hardware.peak(d) for d in ("bf16", "fp8")])
    share = 1 - sum(placed.values()) / result.step_time_s[1]
    assert ax.get_legend().get_title().get_text() == f"no FLOPs: {share:.1%} of the step"
    assert "[FLOP/byte]" in ax.get_xlabel() and "[TFLOP/s]" in ax.get_ylabel()


def test_roofline_refuses_what_it_cannot_place(evaluator: mr.StepEvaluator) -> None:
    empty = evaluator.evaluate(mr.StepBatch.uniform())
    with pytest.raises(InputError, match="no operation with FLOPs"):
        plots.roofline(empty, evaluator.hardware)
    with pytest.raises(InputError, match="position in"):
        plots.roofline(empty, evaluator.hardware, step=1)


@pytest.mark.parametrize("relative", [False, True])
def test_breakdown_bars_add_up_to_the_steps(evaluator: mr.StepEvaluator, relative: bool) -> None:
    result = evaluator.evaluate(mr.StepBatch.uniform(decode_batch=[1, 8, 512], decode_context=2047))
    ax = plots.breakdown(result, relative=relative, most=3)
    heights = np.array([[bar.get_height() for bar in container] for container in ax.containers])
    expected = np.full(3, 100.0) if relative else result.step_time_s * 1e3
    npt.assert_allclose(heights.sum(axis=0), expected)
    assert len(heights) == 4 and [c.get_label() for c in ax.containers][-1] == "others"
    largest = max(result.op_time_s, key=lambda name: result.op_time_s[name].sum())
    assert largest in [c.get_label() for c in ax.containers]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "8", "512"]
    assert ax.get_xlabel() == "decode requests of a step"
    assert ax.get_ylabel() == ("share of the step [%]" if relative else "time [ms]")


def test_breakdown_takes_labels_of_its_own_and_refuses_too_many_bars(evaluator: mr.StepEvaluator) -> None:
    two = evaluator.evaluate(mr.StepBatch.uniform(decode_batch=[1, 2], decode_context=[5, 6]))
    ax = plots.breakdown(two, x=["idle", "busy"], xlabel="load")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["idle", "busy"] and ax.get_xlabel() == "load"
    with pytest.raises(InputError, match="x: found 1 values"):
        plots.breakdown(two, x=[1])
    with pytest.raises(InputError, match="0 steps"):
        plots.breakdown(evaluator.evaluate(mr.StepBatch.uniform(decode_batch=[])))


def test_step_heatmap_shows_times_and_hatches_what_is_not_measured(evaluator: mr.StepEvaluator) -> None:
    batch, context = [1, 16, 4096], [100, 200_000]
    ax = plots.step_heatmap(evaluator, batch, context)
    b, c = (grid.ravel() for grid in np.meshgrid(batch, context, indexing="ij"))
    result = evaluator.evaluate(mr.StepBatch.uniform(b, c))
    npt.assert_allclose(np.ravel(ax.collections[0].get_array()), result.step_time_s * 1e3)
    assert (result.source > mr.Source.INTERPOLATED).any()  # so there is something to hatch
    assert legend_texts(ax) == ["beyond the measurements"]
    inside = plots.step_heatmap(evaluator, [1, 2], [100, 200])
    assert inside.get_legend() is None


def test_tornado_is_what_if(evaluator: mr.StepEvaluator) -> None:
    from mfuroof.sensitivity import what_if

    batch = mr.StepBatch.uniform(decode_batch=[8], decode_context=2047)
    ax = plots.tornado(evaluator, batch, change=0.5)
    names = [t.get_text() for t in ax.get_yticklabels()]
    slower, faster = ([bar.get_width() for bar in container] for container in ax.containers)
    at = names.index("hbm")
    time = evaluator.step_time(batch)[0]
    assert faster[at] == pytest.approx((what_if(evaluator, hbm=1.5).step_time(batch)[0] / time - 1) * 100)
    assert slower[at] == pytest.approx((what_if(evaluator, hbm=1 / 1.5).step_time(batch)[0] / time - 1) * 100)
    assert slower == sorted(slower) and all(f <= 0 <= s for f, s in zip(faster, slower, strict=True))
    with pytest.raises(InputError, match="change"):
        plots.tornado(evaluator, batch, change=0)


# ---------------------------------------------------------------------------------------------------- tables

LENGTHS, TIMES_S = [10, 1000, 10, 1000, 10], np.arange(1.0, 6.0) * 1e-6
RAGGED = Table2D(("batch_size", "kv_len"), [1, 10, 20], [0, 2, 4, 5], LENGTHS, TIMES_S)


def test_table_heatmap_shows_points_values_and_gaps() -> None:
    ax = plots.table_heatmap(RAGGED)
    npt.assert_array_equal(points(scatters(ax)[0]), [[10, 1], [1000, 1], [10, 10], [1000, 10], [10, 20]])
    mesh = ax.collections[0].get_array()
    assert np.ma.count_masked(mesh) > 0  # beyond the last row's only point
    assert mesh.min() >= 1.0 and mesh.max() <= 4.0  # microseconds
    assert ax.get_xlabel() == "KV length [tokens]" and ax.get_ylabel() == "batch [sequences]"
    assert legend_texts(ax) == ["beyond the measurements"]


def test_table_heatmap_of_mfu() -> None:
    whole = Table2D(("batch_size", "kv_len"), [1, 10], [0, 2, 4], [10, 1000, 10, 1000], [1e-6] * 4)
    ax = plots.table_heatmap(whole, flops=lambda b, kv: b * kv, peak_flops_per_s=1e12)
    mesh = ax.collections[0].get_array()
    assert 0.009 < mesh.max() <= 0.01 and ax.get_legend() is None  # 10,000 FLOPs in a microsecond of 1e6
    with pytest.raises(InputError, match="both for MFU"):
        plots.table_heatmap(whole, peak_flops_per_s=1e12)
    with pytest.raises(InputError, match="two or more"):
        plots.table_heatmap(Table2D(("a", "b"), [1], [0, 2], [1, 2], [1.0, 2.0]))


def test_kernel_heatmap_of_gemms_has_the_mfu_of_the_table() -> None:
    tables = mr.load_tables(GPU)
    ax = plots.kernel_heatmap(tables, "gemm", mfu_of=mr.get_hardware(GPU), dtype="bf16", k=4096)
    rows = tables.family("gemm", dtype="bf16", k=4096)
    m, n, t = (rows.column(c).to_numpy().astype(float) for c in ("m", "n", "latency_s"))
    best = (2 * m * n * 4096 / t / mr.get_hardware(GPU).peak("bf16")).max()
    # Cells lie between measured points, where the MFU of a blended latency is no larger than about the best of them.
    assert 0.9 * best < ax.collections[0].get_array().max() < 1.02 * best
    assert len(points(scatters(ax)[0])) == rows.num_rows
    with pytest.raises(InputError, match="Add k="):
        plots.kernel_heatmap(tables, "gemm", dtype="bf16")
    with pytest.raises(InputError, match="no heat map"):
        plots.kernel_heatmap(tables, "gemm", axes=["m"], dtype="bf16", k=4096, n=4096)
    with pytest.raises(InputError, match="FLOPs are not known"):
        plots.kernel_heatmap(tables, "comm", axes=("num_gpus", "elements"), mfu_of=mr.get_hardware(GPU), **COMM)


COMM = {"op": "all_reduce", "backend": "nccl", "dtype": "fp16"}


def test_table_ratio_has_a_panel_a_family_and_says_the_median() -> None:
    a = np.array([1.1e-6, 2.2e-6, 6.6e-6])
    figure = plots.table_ratio(
        {"gemm": (a, a / 1.1, np.array(["x", "y", "x"])), "moe": (a * 1e4, a * 1e4, np.array([""] * 3))}, ("A", "B")
    )
    gemm, moe = figure.axes
    npt.assert_allclose(np.concatenate([points(c) for c in scatters(gemm)]), [[1, 1.1], [6, 1.1], [2, 1.1]])
    assert gemm.get_title(loc="left") == "gemm: median 1.1, n = 3"
    assert gemm.get_xlabel() == "time of B [us]" and moe.get_xlabel() == "time of B [ms]"
    assert moe.get_legend() is None
    with pytest.raises(InputError, match="positive and finite"):
        plots.table_ratio({"gemm": (a, a * 0, np.array([""] * 3))}, ("A", "B"))


def test_table_ratio_calls_small_groups_others() -> None:
    group = np.array([f"g{i:02d}" for i in range(10)] + ["g00"])
    figure = plots.table_ratio({"gemm": (np.ones(11), np.ones(11), group)}, ("A", "B"))
    assert len(scatters(figure.axes[0])) == len(COLOURS) + 1
    assert legend_texts(figure.axes[0])[-1] == "others" and "g00" in legend_texts(figure.axes[0])


# ---------------------------------------------------------------------------------------------------- choices


def test_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 12, 60).astype(float), rng.integers(0, 12, 60).astype(float)
    for better in (("higher", "higher"), ("lower", "higher"), ("higher", "lower"), ("lower", "lower")):
        u, v = (1 if better[0] == "higher" else -1) * x, (1 if better[1] == "higher" else -1) * y
        beaten = [any((u >= a) & (v >= b) & ((u > a) | (v > b))) for a, b in zip(u, v, strict=True)]
        expected = {(a, b) for a, b, bad in zip(x, y, beaten, strict=True) if not bad}
        found = front(x, y, better)  # type: ignore[arg-type]
        assert {(a, b) for a, b in zip(x[found], y[found], strict=True)} == expected
        assert (np.diff(x[found]) > 0).all()


def test_pareto_draws_candidates_and_fronts_of_groups() -> None:
    ax = plots.pareto([1, 2, 3, 1, np.nan], [3, 1, 2, 4, 9], groups=list("aaabb"), xlabel="x [s]", ylabel="y [s]")
    npt.assert_array_equal(ax.lines[0].get_xydata(), [[1, 3], [3, 2]])
    npt.assert_array_equal(ax.lines[1].get_xydata(), [[1, 4]])
    assert [len(points(c)) for c in scatters(ax)] == [3, 1]
    assert legend_texts(ax) == ["a", "b"] and ax.get_xlabel() == "x [s]"
    with pytest.raises(InputError, match="no candidate"):
        plots.pareto([0], [1])


def test_crossings_are_between_the_points_that_enclose_them() -> None:
    x = np.array([1.0, 4.0, 16.0])
    assert crossovers(x, np.ones(3), np.array([0.5, 2.0, 2.0])) == pytest.approx([2.0])  # half way in both logarithms
    assert crossovers(x, np.ones(3), np.array([0.5, 0.6, 0.7])) == []
    ax = plots.crossover(x, {"bf16": np.ones(3) * 1e-3, "w4": np.array([0.5, 2.0, 2.0]) * 1e-3}, xlabel="batch")
    npt.assert_allclose(ax.lines[1].get_ydata(), [0.5, 2.0, 2.0])
    assert ax.lines[2].get_xdata()[0] == pytest.approx(2.0)
    assert "w4 = bf16 at 2" in [t.get_text() for t in ax.texts] and ax.get_ylabel() == "time [ms]"
    with pytest.raises(InputError, match="w4: found 2 values"):
        plots.crossover(x, {"bf16": np.ones(3), "w4": np.ones(2)})


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_figures_are_files_of_the_same_bytes_each_time(tmp_path: Path, suffix: str, magic: bytes) -> None:
    first, second = (plots.save_figure(plots.pareto([1, 2], [2, 1]), tmp_path / f"{i}{suffix}") for i in range(2))
    assert first.read_bytes().startswith(magic) and first.read_bytes() == second.read_bytes()


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    ax = plots.pareto([1, 2], [2, 1])
    with pytest.raises(UnknownNameError, match="figure format"):
        plots.save_figure(ax, tmp_path / "a.gif")
    with pytest.raises(OutputError, match="no folder"):
        plots.save_figure(ax, tmp_path / "nowhere" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_remedy_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MfuroofError, match=r"pip install 'mfuroof\[plot\]'"):
        plots.pareto([1], [1])
    assert main(["plot", "steps", MODEL, "--gpu", GPU, "-o", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err == "mfuroof: error: plots need matplotlib: pip install 'mfuroof[plot]'\n"


def test_importing_plots_does_not_import_matplotlib() -> None:
    code = "import mfuroof.plots, mfuroof.cli.app, sys; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


STEP = [MODEL, "--gpu", GPU]
COMMANDS = (
    ["roofline", *STEP],
    ["breakdown", *STEP, "--decode-batch", "1,64", "--prefill-tokens", "100", "--relative"],
    ["heatmap", "gemm", "--gpu", GPU, "dtype=bf16", "k=4096", "--mfu"],
    ["steps", *STEP, "--decode-batch", "1,2", "--decode-context", "1,2"],
    ["pareto", *STEP, "--tp", "1", "--concurrency", "1,8"],
    ["sensitivity", *STEP, "--decode-batch", "1,64"],
    ["crossover", *STEP, "--decode-batch", "1,64"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_commands_write_files(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figure.svg"
    assert main(["plot", *command, "--out", str(path), "--title", "A title", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": str(path), "bytes": path.stat().st_size}
    assert pyplot.get_fignums() == []


def test_commands_say_what_is_wrong_before_they_compute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "steps", "no-such-model", "--gpu", GPU, "-o", str(tmp_path / "a.gif")]) == 2
    assert "figure format" in capsys.readouterr().err
    assert main(["plot", "heatmap", "gemm", "--gpu", GPU, "dtype=bf16", "q=1", "-o", str(tmp_path / "a.png")]) == 2
    assert "'q'" in capsys.readouterr().err
