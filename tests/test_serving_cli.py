"""``mfuroof serve`` and ``mfuroof validate`` as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from mfuroof import StepBatch, StepEvaluator
from mfuroof.cli.main import BAD_INPUT, main
from mfuroof.predict import predict_serving, read_table, write_table
from mfuroof.serving import Speculation, disaggregated, estimate

MODEL = "meta-llama/Llama-3.1-8B"
SERVE = ("serve", MODEL, "--gpu", "h100_sxm")
SHAPE = ("--input-len", "1000", "--output-len", "200")


@pytest.fixture(scope="module")
def evaluator() -> StepEvaluator:
    return StepEvaluator(MODEL, "h100_sxm")


def run(capsys, *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def records(capsys, *arguments: str) -> list[dict]:
    return json.loads(run(capsys, *arguments, "--json"))


def test_json_is_what_the_estimate_says(capsys, evaluator):
    found = records(capsys, *SERVE, *SHAPE, "--concurrency", "1:64:x8", "--lengths", "uniform")
    r = estimate(evaluator, 1000, 200, [1, 8, 64], length_distribution="uniform")
    assert [x["ttft_s"] for x in found] == r.ttft_s.tolist()
    assert [x["concurrency_given"] for x in found] == [1, 8, 64] and found[0]["input_len_given"] == 1000
    assert [x["limit"] for x in found] == r.limit_names and found[0]["first_limit"] == r.first_limit_names[0]
    low, high = r.interval("tpot_s")
    assert [x["tpot_low_s"] for x in found] == low.tolist() and [x["tpot_high_s"] for x in found] == high.tolist()
    assert found[0]["requests_per_s_low"] < found[0]["requests_per_s"] < found[0]["requests_per_s_high"]
    assert found[0]["bound"] == "memory" and found[0]["model"].endswith("8B") and found[0]["num_gpus"] == 1


def test_options_reach_the_estimate(capsys, evaluator):
    def one(*more: str) -> dict:
        return records(capsys, *SERVE, *SHAPE, "--concurrency", "16", *more)[0]

    plain = one()
    cached = one("--cached-prefix-len", "900")
    assert cached["ttft_s"] < plain["ttft_s"]
    assert one("--cached-prefix-len", "900", "--requests-per-client", "inf")["ttft_s"] < cached["ttft_s"]
    eight_bit = one("--kvcache-dtype", "fp8", "--weight-dtype", "fp8")
    assert eight_bit["runtime"]["kvcache_dtype"] == "fp8" and eight_bit["tpot_s"] < plain["tpot_s"]
    assert eight_bit["max_running_batch"] > 1.9 * plain["max_running_batch"]
    guess = one("--draft-tokens", "3", "--acceptance", "0.8")
    expected = estimate(evaluator, 1000, 200, 16, speculation=Speculation(3, 0.8))
    assert guess["tpot_s"] == float(expected.tpot_s) and guess["tokens_per_decode_step"] == pytest.approx(2.952)
    draft = one("--draft-tokens", "3", "--acceptance", "0.8", "--draft-model", MODEL, "--max-num-seqs", "4")
    assert draft["tpot_s"] > guess["tpot_s"] and draft["limit"] == "max_num_seqs"
    roofline = one("--cost", "constant_mfu")
    assert roofline["source"] == "roofline" and "tpot_low_s" not in roofline


def test_pools_and_rates(capsys, evaluator):
    pools = ("--num-prefill", "2", "--num-decode", "1", "--link-gb-per-s", "100")
    found = records(capsys, *SERVE, *SHAPE, "--rate", "2,4", *pools)
    r = disaggregated(
        evaluator, evaluator, 1000, 200, arrival_rate=[2, 4], num_prefill=2, num_decode=1, link_bytes_per_s=100e9
    )
    assert [x["ttft_s"] for x in found] == r.ttft_s.tolist()
    assert "balanced at" in run(capsys, *SERVE, *SHAPE, "--rate", "2", *pools)
    opened = records(capsys, *SERVE, *SHAPE, "--rate", "2,100000")
    assert opened[0]["requests_per_s"] == 2 and opened[1]["ttft_s"] is None  # not finite
    assert "endless" in run(capsys, *SERVE, *SHAPE, "--rate", "100000")


@pytest.mark.parametrize("columns", ["60", "120"])
def test_text_fits_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    one = run(capsys, *SERVE, *SHAPE, "--concurrency", "64")
    for word in ("TTFT", "80 %", "TPOT", "running batch", "KV cache", "next limit", "memory bound"):
        assert word in one
    table = run(capsys, *SERVE, *SHAPE, "--tp", "1,2", "--concurrency", "1,64", "--max-num-seqs", "32")
    lines = table.splitlines()
    assert lines[1].split()[:4] == ["tp", "conc", "TTFT", "ms"]
    assert len(lines) == 8 and lines[3].split()[-1] == "batch" and lines[2].split()[-1] == "-"
    assert max(map(len, lines[1:6])) <= 60


def test_what_does_not_fit_is_said(capsys):
    text = ("serve", "meta-llama/Llama-3.1-70B", "--gpu", "h100_sxm", *SHAPE)
    assert "do not fit" in " ".join(run(capsys, *text).split())
    assert "no fit" in run(capsys, *text, "--concurrency", "1,2")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--rate", "a"), "--rate"),
        (("--rate", "1", "--concurrency", "1"), "one of them"),
        (("--draft-model", MODEL), "--draft-tokens"),
        (("--num-prefill", "1", "--draft-tokens", "2"), "one pool"),
        (("--precision", "fast"), "fast"),
        (("--lengths", "wild"), "uniform"),
        (("--concurrency", "0"), "concurrency"),
    ],
)
def test_bad_serving_options_are_named(capsys, arguments, text):
    said = run(capsys, *SERVE, *SHAPE, *arguments, code=BAD_INPUT)
    assert text in said and said.count("\n") == 1


@pytest.fixture(scope="module")
def measured(tmp_path_factory, evaluator) -> dict:
    """Files of measurements 10 % above what is predicted, each with one row that cannot be predicted."""
    folder = tmp_path_factory.mktemp("measured")
    r = estimate(evaluator, 1000, 200, [1, 8, 32])
    serving = {
        "model": [MODEL] * 3 + ["no/model"],
        "gpu": ["h100_sxm"] * 4,
        "input_len": [1000] * 4,
        "output_len": [200] * 4,
        "concurrency": [1, 8, 32, 1],
        "measured_ttft_s": [*(1.1 * r.ttft_s), 1.0],
        "tpot_ms": [*(1100 * r.tpot_s), 1.0],
        "e2e_latency_s": [*(1.1 * r.e2e_latency_s), 1.0],
        "output_tokens_per_s_per_gpu": [*(r.output_tokens_per_s_per_gpu / 1.1), 1.0],
    }
    shape = {"decode_batch": [8, 0, 8, 8], "decode_context": [500, 0, 500, 5], "prefill_new_tokens": [0, 900, 900, 0]}
    times = evaluator.step_time(StepBatch.uniform(**shape, prefill_batch=[0, 1, 1, 0]))
    steps = {"model": [MODEL] * 3 + ["no/model"], "gpu": ["h100_sxm"] * 4, **shape, "step_time_s": times / 0.9}
    ragged = {**{k: steps[k] for k in ("model", "gpu")}, "decode_contexts": ["[500, 500]", "[]", "[500]", "[5]"]}
    batch = StepBatch.ragged(decode=[[500, 500], [], [500], [5]], prefill=[[], [(0, 900)], [], []])
    ragged |= {"prefill_tokens": ["[]", "[900]", "[]", "[]"], "prefill_contexts": ["[]", "[0]", "[]", "[]"]}
    ragged["measured_step_time_ms"] = evaluator.step_time(batch) * 1e3
    files = {}
    for name, table in {"serving": serving, "steps": steps, "ragged": ragged}.items():
        files[name] = str(folder / f"{name}.csv")
        write_table(pa.table(table), files[name])
    return files


def test_errors_are_measured_and_failures_counted(capsys, measured):
    out = json.loads(run(capsys, "validate", measured["serving"], "--by", "engine,batch", "--json"))
    assert out["kind"] == "serving" and out["rows"] == 4 and sum(out["errors"].values()) == 1
    for metric in ("ttft", "tpot", "e2e", "throughput"):
        score = out["metrics"][metric]["all"]
        assert (score["count"], score["failed"]) == (4, 1)
        bias = 0.1 if metric == "throughput" else 1 / 1.1 - 1
        assert score["bias"] == pytest.approx(bias, rel=1e-6) and score["p99"] == pytest.approx(abs(bias), rel=1e-6)
    assert [g["count"] for g in out["metrics"]["tpot"]["engine batch"]] == [2, 1, 1]
    text = run(capsys, "validate", measured["serving"])
    assert "batch 17-32" in text and "1 failed: UnknownNameError" in text and "+10.0%" in text


def test_steps_are_compared_by_phase_and_joined(capsys, measured, tmp_path):
    joined = tmp_path / "joined.parquet"
    text = run(capsys, "validate", measured["steps"], "--out", str(joined))
    assert all(phase in text for phase in ("decode", "mixed", "prefill")) and "-10.0%" in text
    table = read_table(joined)
    assert table.num_rows == 4 and {"decode_batch", "step_predicted", "error"} <= set(table.column_names)
    good = np.array(table["step_predicted"].to_pylist()[:3]) / np.array(table["step_time_s"].to_pylist()[:3])
    assert good == pytest.approx(0.9) and "no/model" in table["error"][3].as_py()
    exact = json.loads(run(capsys, "validate", measured["ragged"], "--json"))
    assert exact["metrics"]["step"]["all"]["p99"] < 1e-12
    assert [g["phase"] for g in exact["metrics"]["step"]["phase"]] == ["decode", "prefill"]


@pytest.mark.slow
def test_a_figure_is_written(capsys, measured, tmp_path):
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    picture = tmp_path / "points.png"
    assert str(picture) in run(capsys, "validate", measured["serving"], "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nowhere.csv",), "nowhere.csv"),
        (("SERVING", "--by", "colour"), "colour"),
        (("SERVING", "--kind", "traces"), "requests"),
        (("SERVING", "--kind", "steps"), "step_time_s"),
        (("SERVING", "--out", "SERVING"), "the input itself"),
    ],
)
def test_bad_validations_are_named(capsys, measured, arguments, text):
    known = [measured["serving"] if a == "SERVING" else a for a in arguments]
    assert text in run(capsys, "validate", *known, code=BAD_INPUT)


def test_a_table_without_measurements_is_refused(capsys, tmp_path):
    path = tmp_path / "bare.csv"
    write_table(pa.table({"model": [MODEL], "gpu": ["h100_sxm"]}), path)
    assert "measured column" in run(capsys, "validate", str(path), code=BAD_INPUT)


def test_predicted_tables_have_intervals(evaluator):
    row = {"model": MODEL, "gpu": "h100_sxm", "input_len": 1000, "output_len": 200, "concurrency": 8}
    answered, failed = predict_serving(pa.Table.from_pylist([row, {**row, "model": "no/model"}])).to_pylist()
    r = estimate(evaluator, 1000, 200, 8)
    for name in ("ttft", "tpot"):
        low, high = r.interval(f"{name}_s")
        assert (answered[f"{name}_low_s"], answered[f"{name}_high_s"]) == (float(low), float(high))
        assert failed[f"{name}_low_s"] is failed[f"{name}_high_s"] is None
