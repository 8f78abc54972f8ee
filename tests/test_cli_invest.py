"""``mfuroof invest``: the figures are those of the library, and what it prints can be read."""

from __future__ import annotations

import json
import shlex

import pytest

import mfuroof as mr
from mfuroof.cli import invest
from mfuroof.cli.main import main
from mfuroof.sensitivity import what_if, where_to_invest

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
AT = ["invest", MODEL, "--gpu", GPU]


def run(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def test_a_step_and_latencies_and_another_gpu(capsys):
    words = ["--decode-batch", "8", "--decode-context", "99", "--isl", "512", "--osl", "8", "--improvement", "0.5"]
    found = json.loads(run(capsys, *AT, *words, "--to", "h200", "--json"))
    evaluator = mr.StepEvaluator(MODEL, GPU)
    batch = mr.StepBatch.uniform(decode_batch=8, decode_context=99)
    expected = where_to_invest(evaluator, batch, 0.5)
    assert found["times"]["step"] == {"time_s": expected.time_s, "resources": expected.to_dict()}
    assert found["times"]["step"]["resources"][0]["resource"] == "hbm"
    served = mr.serving.estimate(evaluator, 512, 8, 1)
    assert found["times"]["TTFT"]["time_s"] == float(served.ttft_s)
    assert found["times"]["TPOT"]["time_s"] == float(served.tpot_s)
    other = found["other"]
    assert other["gpu"] == "h200_sxm"
    assert other["same_utilisation_s"]["step"] == what_if(evaluator, "h200_sxm").step_time(batch)[0]
    assert other["own_tables_s"]["step"] == mr.StepEvaluator(MODEL, "h200_sxm").step_time(batch)[0]


def test_the_precision_of_the_launch_counts(capsys):
    step = [*AT, "--decode-batch", "8", "--json"]
    fp8 = json.loads(run(capsys, *step, "--gemm-dtype", "fp8"))
    assert fp8["runtime"]["name"] == "gemm fp8"
    assert fp8["times"]["step"]["time_s"] < json.loads(run(capsys, *step))["times"]["step"]["time_s"]


def test_what_is_printed_fits_sixty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = run(capsys, *AT, "--decode-batch", "8", "--decode-context", "99", "--to", "h200")
    table = out.splitlines()[1:6]
    assert all(len(line.rstrip()) <= 60 for line in table)
    assert "h200_sxm, as measured: step " in out
    assert table[0].split()[:3] == ["resource", "of", "step"]
    assert "no effect: " in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (AT, "--input-len"),
        ([*AT, "--isl", "0"], "input_len"),
        ([*AT, "--isl", "10", "--concurrency", "0"], "concurrency"),
        ([*AT, "--decode-batch", "8", "--improvement", "nan"], "improvement"),
        ([*AT, "--decode-batch", "8", "--to", "h2000"], "h200"),
        (["invest", "meta-llama/Llama-3.1-70B", "--gpu", GPU, "--isl", "8"], "--tp"),
    ],
)
def test_errors_are_one_line(capsys, arguments, says):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.slow
@pytest.mark.parametrize("line", invest.EXAMPLES)
def test_examples_run_and_fit_a_line_of_help(capsys, line):
    assert len(line) <= 76
    assert run(capsys, *shlex.split(line)[1:])
