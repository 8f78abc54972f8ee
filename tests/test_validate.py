"""The validation harness: scores, layouts it reads, and what it says about rows it cannot answer."""

from __future__ import annotations

import json
import math

import naive_serving as naive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof import StepBatch, StepEvaluator
from mfuroof.errors import InputError, TableFormatError, UnknownNameError
from mfuroof.serving import estimate
from mfuroof.validate import (
    PEERS,
    Report,
    batch_bins,
    leave_one_out,
    score,
    validate_requests,
    validate_runs,
    validate_serving,
    validate_steps,
)

MODEL = "meta-llama/Llama-3.1-8B"
values = st.floats(0.1, 10) | st.just(math.nan) | st.just(math.inf)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=30))
def test_scores_equal_their_definition(pairs):
    predicted, measured = zip(*pairs, strict=True)
    s = score(predicted, measured)
    count, failed, mean, median, bias = naive.relative_errors(predicted, measured)
    assert (s.count, s.failed) == (count, failed)
    assert [s.mean, s.median, s.bias] == pytest.approx([mean, median, bias], nan_ok=True)


def test_batch_bins_sort_as_numbers():
    assert batch_bins([1, 2, 4, 5, 8, 9, 128, 129]).tolist() == [
        "000-001",
        "002-004",
        "002-004",
        "005-008",
        "005-008",
        "009-016",
        "065-128",
        "129-",
    ]


def points(**changes) -> dict:
    table = {
        "model": [MODEL] * 3,
        "gpu": ["h100_sxm"] * 3,
        "input_len": [1000, 1000, 2000],
        "output_len": [200, 200, 100],
        "concurrency": [1, 8, 32],
    }
    evaluator = StepEvaluator(MODEL, "h100_sxm")
    r = estimate(evaluator, table["input_len"], table["output_len"], table["concurrency"])
    return {**table, "ttft_s": r.ttft_s, "tpot_ms": r.tpot_s * 1e3, **changes}


def test_its_own_estimates_have_no_error(tmp_path):
    for source in (points(), pa.table(points()), pa.table(points()).to_batches()[0]):
        report = validate_serving(source)
        assert report.score("ttft").mean == pytest.approx(0, abs=1e-12) and report.score("tpot").p99 < 1e-12
        assert report.answered == 1.0 and len(report) == 3
    pq.write_table(pa.table(points()), tmp_path / "points.parquet")
    assert validate_serving(tmp_path / "points.parquet").score("tpot").count == 3


def test_rows_without_an_answer_are_counted_with_the_reason():
    table = points(model=[MODEL, "no-such/model", MODEL], gpu=["h100_sxm"] * 3, concurrency=[1, 8, None], tp=[1, 1, 1])
    report = validate_serving(table)
    assert report.score("tpot").failed == 2 and report.score("tpot").count == 3
    assert report.errors[0] == "" and "unknown model" in report.errors[1] and "concurrency" in report.errors[2]
    assert report.answered == pytest.approx(1 / 3)
    out = report.to_dict(["model"])
    assert sum(out["errors"].values()) == 2 and out["metrics"]["tpot"]["all"]["failed"] == 2
    json.dumps(out)
    assert "33.3% answered" in report.to_text(["model"]) and report.to_arrow().column("error").null_count == 1


def test_what_does_not_fit_fails_by_name():
    with pytest.warns(match="does not fit"):
        report = validate_serving(points(model=["meta-llama/Llama-3.1-70B"] * 3))
    assert set(report.errors) == {"does not fit the memory"} and report.score("ttft").failed == 3


def test_reports_group_and_refuse_unknown_names():
    report = Report({"tpot": ([1.1, 2.0, math.nan], [1.0, 2.0, 4.0])}, {"gpu": ["a", "b", "b"]}, ["", "", "no table"])
    by = report.by("tpot", "gpu")
    assert by[("a",)].bias == pytest.approx(0.1) and (by[("b",)].count, by[("b",)].failed) == (2, 1)
    assert report.by("tpot")[()].count == 3
    with pytest.raises(UnknownNameError, match="tpot"):
        report.score("tpto")
    with pytest.raises(UnknownNameError, match="gpu"):
        report.by("tpot", "gpus")
    assert math.isnan(Report({}, {}).answered) and "gpu" not in repr(Report({}, {}))


def silicon(**changes) -> dict:
    return {
        "model_path": ["meta-llama/Llama-3.1-70B"] * 3,
        "system": ["h100_sxm", "b200_sxm", "h100_sxm"],
        "backend": ["vllm", "vllm", "trtllm"],
        "precision": ["fp8", "fp4", "fp8"],
        "tp_size": [4, 2, 4],
        "moe_ep_size": [1, 1, None],
        "attention_dp_size": [1, None, 1],
        "isl": [1024, 1024, 1024],
        "osl": [512, 512, 512],
        "len_factor": [0.9, 0.9, 1.0],
        "concurrency": [16, 16, 16],
        "silicon_ttft_ms": [120.0, 110.0, 200.0],
        "silicon_tpot_ms": [13.0, 9.5, 12.0],
        "source": ["x", "x", "y"],
        **changes,
    }


def test_silicon_tables_are_recognised():
    report = validate_serving(silicon())
    assert report.answered == 1.0 and set(report.columns["precision"]) == {"fp8", "fp4"}
    evaluator = StepEvaluator("meta-llama/Llama-3.1-70B", "h100_sxm", tp_size=4, weight_dtype="fp8", kv_dtype="bf16")
    r = estimate(evaluator, 1024, 512, 16, length_distribution="uniform")
    assert report.metrics["tpot"][0][0] == pytest.approx(float(r.tpot_s))
    assert report.metrics["tpot"][1].tolist() == pytest.approx([0.013, 0.0095, 0.012])


def test_constants_are_chosen_without_what_they_are_judged_on():
    table = silicon(system=["h100_sxm"] * 3, backend=["vllm"] * 3, precision=["fp8"] * 3)
    table["model_path"] = ["meta-llama/Llama-3.1-70B", "Qwen/Qwen3-32B", "Qwen/Qwen3-32B"]
    grid = {"launches_s": (0.0, 2e-4), "overheads_s": (0.01, 0.03), "steps_s": (4e-4,), "sequences_s": (0.0, 1e-3)}
    report = leave_one_out(table, "model", **grid)
    assert len(report) == 3 and set(report.columns["layer_launch_s"]) <= set(grid["launches_s"])
    full = validate_serving(table)
    assert report.metrics["tpot"][1].tolist() == full.metrics["tpot"][1].tolist()
    # the overheads of the engine are refitted: 1 ms a sequence, 16 ms a step, is far from what was measured
    assert set(report.columns["step_overhead_s"]) == {4e-4} and set(report.columns["sequence_overhead_s"]) == {0.0}
    with pytest.raises(InputError, match="two or more"):
        leave_one_out(table, "gpu", **grid)


def test_traces_are_replayed():
    trace = {
        "dataset": ["d"] * 6,
        "model": [MODEL] * 6,
        "gpu": ["H100-80GB (guessed)"] * 6,
        "engine": ["vllm 0.11.0 V1"] * 6,
        "arrival_s": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
        "prompt_tokens": [500] * 6,
        "completion_tokens": [50] * 6,
        "max_num_batched_tokens": [2048] * 6,
        "ttft_ms": [40.0] * 6,
        "tpot_ms": [8.0] * 6,
        "e2e_ms": [430.0] * 6,
    }
    report = validate_requests(trace)
    assert len(report) == 1 and report.errors == [""] and report.columns["requests"].tolist() == [6]
    assert report.score("tpot").mean < 0.5
    cached = validate_requests(trace, cached_prefix_len={"d": 400})
    assert cached.metrics["ttft"][0][0] < report.metrics["ttft"][0][0]
    failed = validate_requests({**trace, "model": ["no/model"] * 6})
    assert "unknown model" in failed.errors[0] and failed.score("e2e").failed == 1


def test_runs_leave_summaries_and_repeats_out():
    runs = {
        "model": [MODEL] * 3,
        "gpu": ["H100"] * 3,
        "tp": [1] * 3,
        "precision": ["FP16"] * 3,
        "engine": ["vllm 0.15"] * 3,
        "rate_rps": [5.0, None, 5.0],
        "system_prompt_len": [100] * 3,
        "question_len": [400] * 3,
        "output_len": [200] * 3,
        "max_num_batched_tokens": [2048] * 3,
        "max_num_seqs": [128] * 3,
        "same_run_as": [None, None, "other"],
        "ttft_mean_ms": [25.0] * 3,
        "tpot_mean_ms": [7.0] * 3,
        "e2e_mean_ms": [1400.0] * 3,
    }
    report = validate_runs(runs)
    assert len(report) == 1 and report.score("tpot").mean < 0.3


def test_steps_are_compared_by_phase():
    evaluator = StepEvaluator(MODEL, "h100_sxm")
    shape = {"decode_batch": [8, 0, 8], "decode_context": [500, 0, 500], "prefill_batch": [0, 1, 1]}
    shape |= {"prefill_new_tokens": [0, 1000, 1000], "prefill_context": [0, 0, 0]}
    table = {"model": [MODEL] * 3, "gpu": ["h100_sxm"] * 3, **shape}
    report = validate_steps({**table, "step_time_s": evaluator.step_time(StepBatch.uniform(**shape))})
    assert report.score("step").p99 < 1e-12
    assert [key for (key,) in report.by("step", "phase")] == ["decode", "mixed", "prefill"]
    blis = {
        "model": [MODEL] * 3,
        "gpu": ["H100"] * 3,
        "step_cycle_ms": [8.0, 9.0, 99.0],
        "num_decode": [16, 20, 16],
        "running": [16, 20, 16],
        "kv_tokens_in_use": [16000, 20000, 16000],
        "clean_decode": [1, 1, 1],
        "outlier": [0, 0, 1],
    }
    assert validate_steps(blis).score("step").count == 2


def test_damaged_tables_are_named(tmp_path):
    with pytest.raises(TableFormatError, match="nowhere"):
        validate_serving(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="input_len"):
        validate_serving({"model": [MODEL], "gpu": ["h100_sxm"]})
    with pytest.raises(InputError, match="tpot_s"):
        validate_serving({k: v for k, v in points().items() if k not in ("ttft_s", "tpot_ms")})
    with pytest.raises(InputError, match="table"):
        validate_serving(17)
    with pytest.raises(InputError, match="columns of one length"):
        validate_serving({"model": [MODEL], "gpu": []})
    with pytest.raises(InputError, match="concurrency"):
        validate_serving(points(concurrency=["a", "b", "c"]))


def test_peers_are_fractions():
    assert all(0 < x < 1 for p in PEERS for x in (p.tpot_mean, p.tpot_median, p.ttft_median) if x is not None)


@pytest.mark.filterwarnings("ignore::mfuroof.errors.MfuroofWarning")
def test_development_points_are_met(shared):
    path = shared / "groundtruth" / "silicon_dev.csv"
    if not path.exists():
        pytest.skip("no serving measurements")
    report = validate_serving(path)
    tpot, ttft = report.score("tpot"), report.score("ttft")
    assert report.answered >= 0.98
    assert tpot.mean <= 0.10 and tpot.median <= 0.07
    assert ttft.median <= 0.25
    assert not np.isinf(report.metrics["ttft"][0]).any()


def test_counts_follow_the_rule_of_predict_and_impossible_measurements_are_named(tmp_path, capsys):
    from mfuroof.cli import main

    rows = ["8,8,60,1", "1.5,8,60,1", "8,0,nan,1", "8,8,,1", "8,8,60,1.5"]
    source, out = tmp_path / "s.csv", tmp_path / "joined.parquet"
    head = "model,gpu,input_len,output_len,concurrency,tpot_ms,ttft_ms,tp"
    source.write_text("\n".join([head, *(f"{MODEL},h100_sxm,1024,128,{row}" for row in rows)]) + "\n")
    assert main(["validate", str(source), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "5 rows, 2 without a prediction" in text and "2 measured values left out: row 3" in text
    errors = pq.read_table(out).column("error").to_pylist()
    assert "concurrency: found 1.5, expected a whole number" in errors[1] and "tp: found 1.5" in errors[4]
    assert "ttft_ms: found nan" in errors[2] and "tpot_ms: found 0" in errors[2]
    assert errors[0] is None and errors[3] is None
    assert main(["validate", str(source), "--json"]) == 0
    assert [entry["row"] for entry in json.loads(capsys.readouterr().out)["left_out"]] == [3]


def test_a_measured_step_of_no_time_is_left_out_and_named():
    table = pa.table({"model": [MODEL] * 3, "gpu": ["h100_sxm"] * 3, "decode_batch": [1, 2, 3],
                      "decode_context": [9, 9, 9], "step_time_s": [0.01, -1.0, None]})  # fmt: skip
    report = validate_steps(table)
    assert report.left_out == ["", "step_time_s: found -1.0, expected a positive finite number", ""]
    assert report.score("step").count == 1 and not any(report.errors)
