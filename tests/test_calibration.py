"""Calibration: planted overheads come back, doubts are said, folds are honest, files and tables are checked."""

from __future__ import annotations

import functools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pyarrow as pa
import pyarrow.csv as csv
import pytest

from mfuroof.batch import StepBatch
from mfuroof.calibration import PARAMETERS, Calibration, Measured, calibrate
from mfuroof.cli import main
from mfuroof.errors import InputError, MfuroofWarning, OutputError, TableFormatError, UnknownNameError
from mfuroof.params import CostParams
from mfuroof.predict import predict_serving, predict_steps
from mfuroof.predict.calibrate import calibrate_table
from mfuroof.step import StepEvaluator
from mfuroof.tables.store import load_tables

SMALL, LARGE = "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-32B"  # 32 and 64 layers
PLANTED = {
    "kernel_time_factor": 1.12,
    "step_overhead_s": 1.3e-3,
    "layer_overhead_s": 2.5e-5,
    "sequence_overhead_s": 1.1e-5,
}
TRUTH = CostParams(engine_overheads=False, **PLANTED)
SHAPES: dict[str, Any] = {
    "decode_batch": np.tile([1, 4, 16, 64, 200, 0, 8, 32], 3),
    "decode_context": np.repeat([100, 1000, 4000], 8),
    "prefill_batch": np.tile([0, 0, 0, 0, 0, 1, 1, 2], 3),
    "prefill_new_tokens": np.tile([0, 0, 0, 0, 0, 2048, 512, 700], 3),
}
BATCH = StepBatch.uniform(**SHAPES)


@functools.cache
def bound(model: str, gpu: str, params: CostParams | None = None) -> StepEvaluator:
    return StepEvaluator(model, gpu, params=params)


def measured(model: str, gpu: str, times: Any = None, group: str = "", **options: Any) -> Measured:
    """Steps of a planted truth, seen with an evaluator that does not know it."""
    if times is None:
        truth = StepEvaluator(model, gpu, params=TRUTH, **options) if options else bound(model, gpu, TRUTH)
        times = truth.step_time(BATCH)
    own = StepEvaluator(model, gpu, **options) if options else bound(model, gpu)
    return Measured(own, BATCH, times, group or model, options.get("tables"))


@functools.cache
def steps_table(params: CostParams, gpus: tuple[str, ...] = ("h100_sxm",), column: str = "step_time_s") -> pa.Table:
    n = len(BATCH)
    rows: dict[str, list[Any]] = {"model": [], "gpu": []}
    for model in (SMALL, LARGE):
        for gpu in gpus:
            rows["model"] += [model] * n
            rows["gpu"] += [gpu] * n
    shapes = {name: np.tile(values, 2 * len(gpus)) for name, values in SHAPES.items()}
    table = pa.table({**rows, **shapes})
    times = predict_steps(table, params=params).column("step_time_s").to_numpy()
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[column.rsplit("_", 1)[1]]
    return table.append_column(column, pa.array(times * scale))


def test_planted_overheads_come_back() -> None:
    """Exactly but for the solver's tolerance, though repaired curves are not quite linear in the overheads."""
    found = calibrate([measured(SMALL, "h100_sxm"), measured(LARGE, "a100_sxm")], PARAMETERS, origin="here")
    for name, value in PLANTED.items():
        assert found.values[name] == pytest.approx(value, rel=1e-6), name
    assert not found.undetermined and found.errors["all"]["mean"] < 1e-6
    assert found.uncalibrated["all"]["mean"] > 0.05
    assert {"origin": "here", "points": 48, "fitted": list(PARAMETERS)}.items() <= found.provenance.items()
    assert found.provenance["gpu"] == ["h100_sxm", "a100_sxm"]


def test_what_is_applied_prices_what_was_measured(tmp_path: Path) -> None:
    found = calibrate([measured(SMALL, "h100_sxm"), measured(LARGE, "h100_sxm")], PARAMETERS)
    path = tmp_path / "calibration.json"
    found.save(path)
    again = Calibration.load(path)
    assert again == found
    params = again.apply()
    assert not params.engine_overheads and params.step_overhead_s == found.values["step_overhead_s"]
    own = StepEvaluator(SMALL, "a100_sxm", params=params).step_time(BATCH)
    npt.assert_allclose(own, bound(SMALL, "a100_sxm", TRUTH).step_time(BATCH), rtol=1e-6)
    kept = found.apply(CostParams(monotone=False, layer_overhead_s=1.0))
    assert not kept.monotone and kept.layer_overhead_s == found.values["layer_overhead_s"]


def test_what_was_not_fitted_is_neutral_in_fit_and_use() -> None:
    truth = CostParams(engine_overheads=False, step_overhead_s=2e-3)
    times = StepEvaluator(SMALL, "h100_sxm", params=truth).step_time(BATCH)
    given = StepEvaluator(SMALL, "h100_sxm", params=CostParams(layer_overhead_s=1e-3, kernel_time_factor=3.0))
    found = calibrate([Measured(given, BATCH, times, "one")], ["step_overhead_s"])
    assert found.values == {"step_overhead_s": pytest.approx(2e-3, rel=1e-6)}
    npt.assert_allclose(
        StepEvaluator(SMALL, "h100_sxm", params=found.apply(given.params)).step_time(BATCH), times, rtol=1e-6
    )


def test_outliers_do_not_dominate_and_overheads_are_not_negative() -> None:
    rng = np.random.default_rng(3)
    pair = [measured(SMALL, "h100_sxm"), measured(LARGE, "h100_sxm")]
    wild = [
        measured(m.evaluator.model.name, "h100_sxm", m.step_time_s * np.where(rng.random(24) < 0.1, 0.3, 1.0))
        for m in pair
    ]
    found, clean = (calibrate(these).apply() for these in (wild, pair))
    for m in pair:  # a tenth of the times is a third of the truth: by least squares all would come out too fast
        own, other = (StepEvaluator(m.evaluator.model, "h100_sxm", params=p).step_time(BATCH) for p in (found, clean))
        assert np.median(np.abs(own / other - 1.0)) < 0.04
    fast = [measured(m.evaluator.model.name, "h100_sxm", 0.3 * m.step_time_s) for m in pair]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MfuroofWarning)
        assert all(value == 0.0 for value in calibrate(fast).values.values())


def test_own_tables_are_kept() -> None:
    """An evaluator bound to other tables than its GPU's is rebound to them."""
    tables = load_tables("a100_sxm")
    one = measured(SMALL, "h100_sxm", tables=tables)
    names = ["kernel_time_factor", "step_overhead_s", "sequence_overhead_s"]
    assert calibrate([one], names).errors["all"]["mean"] < 1e-6
    other = Measured(one.evaluator, one.batch, one.step_time_s, "one")
    assert calibrate([other], names).errors["all"]["mean"] > 0.005


def test_undetermined_parameters_are_named() -> None:
    one = measured(SMALL, "h100_sxm")
    with pytest.warns(MfuroofWarning, match="cannot tell step_overhead_s and layer_overhead_s apart") as said:
        found = calibrate([one])
    assert len(said) == 1 and set(found.undetermined) == {"step_overhead_s", "layer_overhead_s"}
    assert "sequence_overhead_s" in found.standard_errors and "step_overhead_s" not in found.standard_errors
    assert "(undetermined)" in found.text()
    chunks = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=[64, 512, 4096, 8000], emits=False)
    times = StepEvaluator(SMALL, "h100_sxm", params=TRUTH).step_time(chunks)
    silent = Measured(one.evaluator, chunks, times, "chunks")
    with pytest.warns(MfuroofWarning, match="sequence_overhead_s has no effect"):
        found = calibrate([silent], ["step_overhead_s", "sequence_overhead_s"])
    assert found.values["sequence_overhead_s"] == 0.0
    few, noise = BATCH.slice(0, 4), np.array([0.4, 1.8, 1.0, 0.6])
    with pytest.warns(MfuroofWarning, match="leave kernel_time_factor open"):
        found = calibrate([Measured(one.evaluator, few, one.step_time_s[:4] * noise, "one")], ["kernel_time_factor"])
    assert found.standard_errors["kernel_time_factor"] > 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate([measured(SMALL, "h100_sxm"), measured(LARGE, "h100_sxm")])


def test_a_group_left_out_is_judged_by_the_others_alone() -> None:
    """One model is a third slower than its like: the fold that holds it out shows it, and equals a fit without it."""
    slow = StepEvaluator(LARGE, "h100_sxm", params=TRUTH).step_time(BATCH) * 1.3
    parts = [measured(SMALL, "h100_sxm"), measured("Qwen/Qwen3-8B", "h100_sxm"), measured(LARGE, "h100_sxm", slow)]
    names = ["step_overhead_s", "sequence_overhead_s"]
    found = calibrate(parts, names)
    assert set(found.held_out) == {SMALL, "Qwen/Qwen3-8B", LARGE}
    assert set(found.folds) == {"model"} and set(found.folds["model"]) == {m.evaluator.model.name for m in parts}
    rest = calibrate(parts[:2], names)
    predicted = StepEvaluator(LARGE, "h100_sxm", params=rest.apply()).step_time(BATCH)
    error = predicted / slow - 1.0
    fold = found.held_out[LARGE]
    assert fold["mean"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert fold["median"] == pytest.approx(np.median(np.abs(error)), rel=1e-4)
    assert fold["bias"] == pytest.approx(error.mean(), rel=1e-4) and fold["bias"] < -0.2
    assert fold["count"] == len(BATCH) and found.errors[LARGE]["mean"] < fold["mean"]
    assert not calibrate(parts[:1], names).held_out


def test_tables_of_steps_in_any_unit() -> None:
    names = ["step_overhead_s", "sequence_overhead_s"]
    truth = {"engine_overheads": False, "step_overhead_s": 1.3e-3, "sequence_overhead_s": 1.1e-5}
    table = steps_table(CostParams(**truth), ("h100_sxm", "a100_sxm"), "step_time_ms")
    found = calibrate_table(table, names, origin="steps.csv")
    for name in names:
        assert found.values[name] == pytest.approx(truth[name], rel=1e-3), name
    assert set(found.errors) == {"all"} | {f"{m} {g} vllm" for m in ("Llama-3.1-8B", "Qwen3-32B")
                                           for g in ("h100_sxm", "a100_sxm")}  # fmt: skip
    assert {name: len(folds) for name, folds in found.folds.items()} == {"model": 2, "gpu": 2}
    assert found.provenance["quantities"] == ["step_time"] and found.provenance["origin"] == "steps.csv"


def test_tables_of_serving_points() -> None:
    """TPOT is not quite linear in the overheads: they come back to a few percent, the predictions to a thousandth."""
    shapes = {"input_len": [500, 2000], "output_len": [300, 300]}
    rows = [(m, i, o, c) for m in (SMALL, LARGE) for i, o in zip(*shapes.values(), strict=True) for c in (1, 8, 64)]
    model, input_len, output_len, concurrency = (list(column) for column in zip(*rows, strict=True))
    table = pa.table({"model": model, "gpu": ["h100_sxm"] * len(rows), "tp": [1 if m == SMALL else 2 for m in model],
                      "input_len": input_len, "output_len": output_len, "concurrency": concurrency})  # fmt: skip
    truth = CostParams(engine_overheads=False, step_overhead_s=2e-3, sequence_overhead_s=3e-5)
    answer = predict_serving(table, params=truth)
    seen = table.append_column("tpot_us", pa.array(answer.column("tpot_s").to_numpy() * 1e6))
    seen = seen.append_column("ttft_s", pa.array(3.0 * answer.column("ttft_s").to_numpy()))
    names = ["step_overhead_s", "sequence_overhead_s"]
    found = calibrate_table(seen, names)
    assert found.values["step_overhead_s"] == pytest.approx(2e-3, rel=0.03)
    assert found.values["sequence_overhead_s"] == pytest.approx(3e-5, rel=0.1)
    assert found.errors["all"]["mean"] < 2e-3 and found.errors["all"]["count"] == len(rows)
    assert found.provenance["points"] == len(rows) and found.provenance["quantities"] == ["tpot"]
    assert found.errors["Qwen3-32B h100_sxm vllm ttft"]["bias"] == pytest.approx(-2 / 3, abs=0.01)  # only reported


def test_rows_that_cannot_be_predicted_are_left_out_aloud() -> None:
    table = steps_table(TRUTH)
    names = table.column("model").to_pylist()
    names[0] = "no-such-model"
    table = table.set_column(0, "model", pa.array(names))
    with pytest.warns(MfuroofWarning, match=r"1 of 48 measured rows .* row 1: .*no-such-model"):
        found = calibrate_table(table)
    assert found.provenance["points"] == 47
    blank = table.set_column(table.schema.names.index("step_time_s"), "step_time_s", pa.nulls(48, pa.float64()))
    with pytest.raises(InputError, match="no row"):
        calibrate_table(blank)
    nobody = table.set_column(0, "model", pa.array(["no-such-model"] * 48))
    with pytest.raises(InputError, match=r"no row that can be predicted \(row 1: .*no-such-model"):
        calibrate_table(nobody)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "measured nothing"),
        ({"ttft_s": 1.0}, "measured ttft"),
        ({"step_time_s": 1.0, "step_time_ms": 1.0}, "one of them"),
        ({"step_time_s": 1.0, "tpot_s": 1.0}, "steps or serving points"),
        ({"step_time_s": -1.0}, "row 1: found -1.0"),
        ({"step_time_s": 0.0}, "row 1: found 0.0"),
        ({"step_time_s": float("nan")}, "row 1: found nan"),
        ({"step_time_s": "fast"}, "row 1: found 'fast'"),
    ],
)
def test_bad_tables(columns: dict[str, Any], words: str) -> None:
    given = {"model": SMALL, "gpu": "h100_sxm", "decode_batch": 1, **columns}
    table = pa.table({name: [value] for name, value in given.items()})
    with pytest.raises(InputError, match=words):
        calibrate_table(table)


def test_bad_arguments() -> None:
    one = measured(SMALL, "h100_sxm")
    with pytest.raises(UnknownNameError, match="step_overhead_s"):
        calibrate([one], ["step_overhead"])
    with pytest.raises(UnknownNameError, match="tpot"):
        calibrate_table(steps_table(TRUTH), quantities=["tpott"])
    for measurements, fit in (([], ["step_overhead_s"]), ([one], [])):
        with pytest.raises(InputError, match=r"no steps|no parameter"):
            calibrate(measurements, fit)
    with pytest.raises(InputError, match="no parameter"):
        calibrate_table(steps_table(TRUTH), [])
    with pytest.raises(InputError, match="shape"):
        calibrate([Measured(one.evaluator, BATCH, one.step_time_s[1:], "one")])
    with pytest.raises(InputError, match="not positive"):
        calibrate([Measured(one.evaluator, BATCH, 0.0 * one.step_time_s, "one")])
    other = StepEvaluator(SMALL, "h100_sxm", cost="constant_mfu")
    with pytest.raises(InputError, match="kernels"):
        calibrate([Measured(other, BATCH, one.step_time_s, "one")])


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"values": {"step_overhead_s": -1e-3}},
        {"values": {"step_overhead_s": "1"}},
        {"values": {"step_overhead_s": True}},
        {"values": {"step_overhead_s": float("nan")}},
        {"values": {"speed": 1.0}},
        {"values": [1.0]},
        {"errors": None},
    ],
)
def test_bad_files(tmp_path: Path, change: dict[str, Any]) -> None:
    found = calibrate([measured(SMALL, "h100_sxm")], ["step_overhead_s"])
    path = tmp_path / "calibration.json"
    found.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(TableFormatError, match=r"calibration\.json"):
        Calibration.load(path)


def test_no_files(tmp_path: Path) -> None:
    for name, text in (("text", "hello"), ("list", "[1]"), ("deep", "[" * 100_000), ("binary", "\x00")):
        (tmp_path / name).write_text(text)
        with pytest.raises(TableFormatError, match=name):
            Calibration.load(tmp_path / name)
    with pytest.raises(TableFormatError, match="nowhere"):
        Calibration.load(tmp_path / "nowhere")
    found = calibrate([measured(SMALL, "h100_sxm")], ["step_overhead_s"])
    with pytest.raises(OutputError):
        found.save(tmp_path / "nowhere" / "calibration.json")


def test_command_and_its_file_in_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source, target, out = tmp_path / "steps.csv", tmp_path / "predicted.csv", tmp_path / "calibration.json"
    truth = CostParams(engine_overheads=False, step_overhead_s=1.3e-3)
    table = steps_table(truth)
    csv.write_csv(table, source)
    arguments = ["calibrate", str(source), "--out", str(out), "--fit", "step_overhead_s"]
    assert main([*arguments, "--json"]) == 0
    text = Calibration.load(out).text()
    assert "step_overhead_s      1.3 ms" in text and "left out: model" in text
    assert max(map(len, text.splitlines())) <= 60
    assert json.loads(capsys.readouterr().out)["values"]["step_overhead_s"] == pytest.approx(1.3e-3, rel=1e-4)
    step = ["step", SMALL, "--gpu", "h100_sxm", "--decode-batch", "64", "--decode-context", "1000", "--json"]
    assert main([*step, "--calibration", str(out)]) == 0
    calibrated = json.loads(capsys.readouterr().out)["step_time_s"]
    expected = StepEvaluator(SMALL, "h100_sxm", params=truth).step_time_scalar(64, 1000)
    assert calibrated == pytest.approx(expected, rel=1e-4)
    assert main(["predict", "steps", str(source), str(target), "--calibration", str(out)]) == 0
    predicted = csv.read_csv(target).column("step_time_s").to_numpy()
    npt.assert_allclose(predicted, table.column("step_time_s").to_numpy(), rtol=1e-4)
    capsys.readouterr()
    assert main([*step, "--calibration", str(source)]) == 3
    assert main([*step, "--calibration", str(out), "--cost", "constant_mfu"]) == 2
    assert "--calibration" in capsys.readouterr().err
    assert main(["calibrate", str(source), "--fit", "speed"]) == 2
    assert main(["calibrate", str(tmp_path / "none.csv")]) == 2
