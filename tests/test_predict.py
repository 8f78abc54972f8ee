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


def test_a_bad_length_is_named_once_and_as_it_is() -> None:
    row = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "output_len": 1, "concurrency": 1}
    table = pa.Table.from_pylist([{**row, "input_len": -5}, {**row, "input_len": None}])
    below, blank = mr.predict_serving(table).column("error").to_pylist()
    assert "found -5" in below
    assert "blank" not in below
    assert "input_len: found a blank" in blank


# ---------------------------------------------------------------- what is blank, and what is wrong


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"decode_batch": None, "decode_context": None}, "decode_batch: found blanks"),
        ({"decode_batch": None, "decode_context": 100}, "found blanks"),
        ({"decode_contexts": None}, "decode_contexts: found blanks"),
        ({"decode_contexts": " "}, "found blanks"),
        ({"decode_contexts": "[1, two]"}, "found '[1, two]'"),
        ({"decode_contexts": "7"}, "found '7'"),
        ({"decode_contexts": "[true]"}, "found '[true]'"),
        ({"decode_contexts": "[NaN]"}, "found '[NaN]'"),
        ({"decode_contexts": "{}"}, "found '{}'"),
        ({"decode_contexts": "[" * 100_000}, "expected a list"),
        ({"decode_batch": float("nan")}, "decode_batch: found nan"),
        ({"decode_batch": 1, "decode_context": float("nan")}, "decode_context: found nan"),
    ],
)
def test_a_wrong_shape_is_an_error_and_no_empty_step(row: dict[str, object], says: str) -> None:
    found = mr.predict_steps(pa.Table.from_pylist([{"model": "Qwen/Qwen3-8B", "gpu": "h100_sxm", **row}])).to_pylist()
    assert found[0]["step_time_s"] is None
    assert says in found[0]["error"]
    assert "None" not in found[0]["error"]


@pytest.mark.parametrize("row", [{"decode_batch": 0}, {"decode_contexts": []}, {"decode_contexts": "[]"}])
def test_an_empty_step_that_is_meant_takes_no_time(row: dict[str, object]) -> None:
    found = mr.predict_steps(pa.Table.from_pylist([{"model": "Qwen/Qwen3-8B", "gpu": "h100_sxm", **row}])).to_pylist()
    assert found[0]["step_time_s"] == 0.0
    assert found[0]["error"] is None


def test_prompts_are_one_unless_said_otherwise() -> None:
    row = {"model": ["Qwen/Qwen3-8B"] * 3, "gpu": ["h100_sxm"] * 3, "prefill_new_tokens": [512] * 3}
    found = mr.predict_steps(pa.table({**row, "prefill_batch": [None, 1, 2]})).column("step_time_s").to_pylist()
    assert found[0] == found[1] < found[2]
    assert mr.predict_steps(pa.table(row)).column("step_time_s")[0].as_py() == found[0]


def test_a_csv_cell_that_is_no_number_is_reported(tmp_path) -> None:
    source = tmp_path / "in.csv"
    lines = ["model,gpu,tp,decode_batch,kv_dtype", "Qwen/Qwen3-8B,h100_sxm,1,nan,", "Qwen/Qwen3-8B,h100_sxm,,4,"]
    source.write_text("\n".join([*lines, "Qwen/Qwen3-8B,h100_sxm,1,4,null"]))
    table = read_table(source)
    wrong, right, dtype = mr.predict_steps(table).to_pylist()
    assert "decode_batch: found nan" in wrong["error"]
    assert right["error"] is None
    assert right["step_time_s"] > 0
    assert "'null'" in dtype["error"]


def test_two_columns_of_one_name_are_refused() -> None:
    table = pa.table([["Qwen/Qwen3-8B"], ["h100"], ["h200"]], names=["model", "gpu", "gpu"])
    with pytest.raises(InputError, match="more than one column gpu"):
        mr.predict_steps(table)


def test_no_rows_give_no_answers() -> None:
    table = pa.schema([("model", pa.string()), ("gpu", pa.string()), ("decode_batch", pa.int64())]).empty_table()
    found = mr.predict_steps(table)
    assert found.num_rows == 0
    assert {"step_time_s", "bound", "source", "note", "error"} <= set(found.schema.names)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("link", [False, True])
def test_the_input_is_never_overwritten(tmp_path, capsys, link: bool) -> None:
    source = tmp_path / "in.csv"
    source.write_text("model,gpu,decode_batch\nQwen/Qwen3-8B,h100,1\n")
    target = source
    if link:
        target = tmp_path / "out.csv"
        target.hardlink_to(source)
    before = source.read_text()
    assert main(["predict", "steps", str(source), str(target)]) == 2
    assert "the input itself" in capsys.readouterr().err
    assert source.read_text() == before


@pytest.mark.parametrize(("target", "code"), [("/nonexistent/out.csv", 4), ("out.txt", 2), ("/dev/null.d/x.csv", 4)])
def test_a_bad_target_is_said_before_the_work(tmp_path, capsys, target: str, code: int) -> None:
    assert main(["predict", "steps", str(tmp_path / "no-such-input.csv"), target]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no-such-input" not in err


def test_lists_survive_csv(tmp_path) -> None:
    table = pa.table({"decode_contexts": [[1, 2], []], "names": [["a"], [None]]})
    write_table(table, tmp_path / "x.csv")
    assert read_table(tmp_path / "x.csv").to_pydict() == {
        "decode_contexts": ["[1, 2]", "[]"],
        "names": ['["a"]', "[null]"],
    }


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_round_trip_through_the_command(tmp_path, suffix, capsys) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    row = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "input_len": 512, "output_len": 64, "concurrency": 4}
    write_table(pa.Table.from_pylist([row]), source)
    assert main(["predict", "serving", str(source), str(target)]) == 0
    assert read_table(target).column("tpot_s")[0].as_py() > 0
    capsys.readouterr()
