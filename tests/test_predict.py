"""Predictions for tables: good rows are answered, bad ones say why, and files come out whole."""

from __future__ import annotations

import pyarrow as pa
import pytest

import mfuroof as mr
from mfuroof.cli.main import main
from mfuroof.errors import InputError
from mfuroof.predict import read_table, write_table

STEPS = {
    "model": ["meta-llama/Llama-3.1-8B", "no-such-model", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B", None],
    "gpu": ["h100_sxm", "h100", "H200", "b200", "h100"],
    "tp": [1, 1, 3, 2, 1],
    "weight_dtype": ["fp8", "", None, "", ""],
    "decode_batch": [32, 1, 2, -4, 1],
    "decode_context": [100, 1, 2, 3, 5],
}


def test_steps_answers_good_rows_and_explains_bad_ones() -> None:
    found = mr.predict_steps(pa.table(STEPS)).to_pylist()
    evaluator = mr.StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm", weight_dtype="fp8")
    batch = mr.StepBatch.uniform(decode_batch=32, decode_context=100)
    assert found[0]["step_time_s"] == evaluator.step_time(batch)[0]
    assert found[0]["error"] is None
    parts = [v for k, v in found[0].items() if k.endswith("_s") and k != "step_time_s" and v is not None]
    assert sum(parts) == pytest.approx(found[0]["step_time_s"], rel=1e-12)
    for row, word in zip(found[1:], ("no-such-model", "tp_size", "decode_batch", "model"), strict=True):
        assert row["step_time_s"] is None
        assert row["source"] is None
        assert word in row["error"]


def test_lists_of_requests_equal_their_ragged_spelling() -> None:
    table = pa.table(
        {
            "model": ["Qwen/Qwen3-8B"] * 2,
            "gpu": ["h100_sxm"] * 2,
            "decode_contexts": [[1, 2, 3000], []],
            "prefill_contexts": ["[0]", "[0, 128]"],
            "prefill_tokens": ["[512]", "[100, 200]"],
        }
    )
    batch = mr.StepBatch.ragged(prefill=[[(0, 512)], [(0, 100), (128, 200)]], decode=[[1, 2, 3000], []])
    expected = mr.StepEvaluator("Qwen/Qwen3-8B", "h100_sxm").step_time(batch)
    assert mr.predict_steps(table).column("step_time_s").to_pylist() == expected.tolist()


@pytest.mark.parametrize(
    "columns",
    [
        {"model": ["a"]},
        {"model": ["a"], "gpu": ["b"]},
        {"model": ["a"], "gpu": ["b"], "decode_batch": [1], "decode_contexts": [[1]]},
    ],
)
def test_a_table_without_a_shape_is_refused(columns: dict[str, list[object]]) -> None:
    with pytest.raises(InputError, match=r"column|columns"):
        mr.predict_steps(pa.table(columns))


def test_serving_answers_good_rows_and_explains_bad_ones() -> None:
    table = pa.table(
        {
            "model": ["meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B", "Qwen/Qwen3-32B", "x"],
            "gpu": ["h100_sxm", "h100_sxm", "h200_sxm", "h100"],
            "tp": [1, 1, 2, 1],
            "engine": ["vllm", "vllm", "sglang", None],
            "input_len": [1000, 1000, 2000, 1],
            "output_len": [100, 100, 200, 1],
            "concurrency": [8, 8, 32, 1],
            "max_batch_tokens": [None, None, 4096, None],
        }
    )
    good, full, other, unknown = mr.predict_serving(table).to_pylist()
    for row in (good, other):
        assert row["error"] is None
        assert 0 < row["tpot_s"] < row["ttft_s"]
        assert row["kv_limited"] is False
        assert row["bound"] in ("compute", "memory", "comm", "overhead")
    assert full["ttft_s"] is None
    assert "fit" in full["error"]
    assert "unknown model" in unknown["error"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_round_trip_through_the_command(tmp_path, suffix, capsys) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    row = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "input_len": 512, "output_len": 64, "concurrency": 4}
    write_table(pa.Table.from_pylist([row]), source)
    assert main(["predict", "serving", str(source), str(target)]) == 0
    assert read_table(target).column("tpot_s")[0].as_py() > 0
    capsys.readouterr()
