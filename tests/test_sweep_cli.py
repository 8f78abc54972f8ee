"""``mfuroof sweep`` to folders and reductions, ``mfuroof shards``: errors are one line, nothing starts by slip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mfuroof.cli import main

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
SWEEP = ["sweep", MODEL, "--gpu", GPU, "--decode-batch", "1:16:x2", "--decode-context", "0,1000"]
SWEEP += ["--cost", "constant_mfu"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(arguments) == code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([*SWEEP, "--tp", "1:100000"], 2, "tp_size: found 100,000 values, expected 1 to 256"),
        ([*SWEEP, "--decode-context", "1:1000000", "--decode-batch", "1:10000"], 2, "--max-rows"),
        (["sweep", MODEL], 2, "gpu"),
        (["sweep", "--gpu", GPU], 2, "model"),
        ([*SWEEP, "--where", "decode_bach > 1"], 2, "decode_batch"),
        ([*SWEEP, "--zip", "tp,pp", "--tp", "1,2"], 2, "2 values of tp_size, 1 values of pp_size"),
        ([*SWEEP, "--cases", "/nonexistent.csv"], 2, "no such file"),
        ([*SWEEP, "--precision", "dynamic-fp9"], 2, "dynamic-fp8"),
        ([*SWEEP, "--by", "gpu"], 2, "--best"),
        ([*SWEEP, "--best", "tokens_per_s"], 2, "tokens_per_s_per_gpu"),
        ([*SWEEP, "--best", "step_time_s:least"], 2, ":max or :min"),
        ([*SWEEP, "--pareto", "step_time_s"], 2, ":max or :min"),
        ([*SWEEP, "--pareto", "step_time_s:min"], 2, "at least two"),
        ([*SWEEP, "--histogram", "step_time_s"], 2, "COLUMN=FROM:TO:linN"),
        ([*SWEEP, "--histogram", "step_time_s=0:1:log9"], 2, "above 0 for log"),
        ([*SWEEP, "--best", "step_time_s", "--out", "x.parquet"], 2, "a folder"),
        ([*SWEEP, "--out", "full.csv"], 2, "found suffix .csv, expected .parquet or a folder"),
        ([*SWEEP, "--best", "step_time_s", "--out", "full.json"], 2, "found suffix .json"),
        ([*SWEEP, "--even-if-unfit"], 2, "--best or --pareto"),
        ([*SWEEP, "--shard", "1/2"], 2, "--out FOLDER"),
        ([*SWEEP, "--restart", "--out", "x.parquet"], 2, "--out FOLDER"),
        ([*SWEEP, "--dask-workers", "1", "--scheduler", "x", "--out", "folder"], 2, "one of them"),
        (["shards", "verify", "/nonexistent"], 2, "no _manifest.json"),
    ],
)
def test_errors_are_one_short_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("mfuroof: error: ")
    assert says in err
    assert len(err) < 400
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_on_and_refuses_another_sweep(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = str(tmp_path / "steps")
    command = [*SWEEP, "--prefill-tokens", "0,64", "--out", folder, "--partition-rows", "5"]
    out = run(capsys, *command)
    assert "20 steps in" in out and "partitions in" in out and "done before" not in out
    assert "1 of 1 partitions were done before" in run(capsys, *command)
    assert main([*command, "--tp", "2"]) == 2
    assert "tp_size: 1 there, 2 here" in capsys.readouterr().err
    run(capsys, *command, "--tp", "2", "--restart")
    found = json.loads(run(capsys, *command, "--tp", "2", "--json"))
    assert (found["rows"], found["partitions"]) == (20, 1)


def test_reductions_are_printed_and_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    keep = ["--best", "tokens_per_s_per_gpu", "--by", "tp_size", "--having", "step_time_ms <= 20"]
    more = ["--pareto", "tokens_per_s_per_gpu:max,step_time_s:min", "--histogram", "step_time_s=0.001:0.1:log5"]
    command = [*SWEEP, "--tp", "1,2", *keep, *more]
    out = run(capsys, *command)
    assert list(tmp_path.iterdir()) == []
    for part in ("best", "pareto", "histogram_step_time_s", "tp_size"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 60
    found = json.loads(run(capsys, *command, "--out", "kept", "--json"))
    assert [row["tp_size"] for row in found["results"]["best"]] == [1, 2]
    assert pq.read_table(tmp_path / "kept" / "best.parquet").to_pylist() == found["results"]["best"]


def test_shards_are_verified_and_merged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = [*SWEEP, "--tp", "1:256", "--infeasible", "drop", "--detail", "times"]
    command += ["--prefill-tokens", "0", "--where", "tp_size in (1, 2, 4, 8)"]
    for i in ("1", "2"):
        run(capsys, *command, "--shard", f"{i}/2", "--partition-rows", "10", "--out", str(tmp_path / i))
    out = run(capsys, "shards", "verify", str(tmp_path / "1"), code=1)
    assert "2 of 4" in out and "missing partitions 1, 3" in out
    merged = str(tmp_path / "all")
    assert "2 of 4" in run(capsys, "shards", "merge", merged, str(tmp_path / "1"), code=1)
    found = json.loads(run(capsys, "shards", "merge", merged, str(tmp_path / "1"), str(tmp_path / "2"), "--json"))
    assert found[0]["complete"] and found[0]["rows"] == 40
    path = tmp_path / "all" / "part-00000000.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert json.loads(run(capsys, "shards", "verify", merged, "--json", code=1))[0]["damaged"] == [0]


@pytest.mark.parametrize("name", ["verify", "merge"])
def test_help_fits_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = run(capsys, "shards", name, "--help")
    assert max(map(len, out.splitlines())) <= 80
    assert f"mfuroof shards {name}" in out


def test_loads_are_swept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = run(
        capsys, "sweep", MODEL, "--gpu", GPU, "--input-len", "128,1024", "--output-len", "64", "--concurrency", "1,8",
        "--out", str(tmp_path / "loads.parquet"),
    )  # fmt: skip
    assert "4 loads in" in out and "Lowest TPOT" in out
    found: dict[str, Any] = pq.read_table(tmp_path / "loads.parquet").to_pydict()
    assert found["concurrency"] == [1, 8, 1, 8]


def test_shards_cut_what_is_one_partition(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = [*SWEEP, "--prefill-tokens", "0,64", "--detail", "times"]
    rows = [
        json.loads(run(capsys, *command, "--shard", f"{i}/3", "--out", str(tmp_path / f"{i}"), "--json"))["rows"]
        for i in (1, 2, 3)
    ]
    assert min(rows) > 0 and sum(rows) == 20
    merged = run(
        capsys, "shards", "merge", str(tmp_path / "all"), *(str(tmp_path / f"{i}") for i in (1, 2, 3)), "--json"
    )
    assert json.loads(merged)[0]["complete"]
    run(capsys, *command, "--shard", "1/3", "--out", str(tmp_path / "one"))
    assert json.loads(run(capsys, *command, "--out", str(tmp_path / "one"), "--json"))["rows"] == 20
    assert main([*command, "--shard", "2/3", "--partition-rows", "100", "--out", str(tmp_path / "few")]) == 0
    err = capsys.readouterr().err
    assert "shard 2/3 has nothing to do: the sweep is cut into 1 partition. " in err and "--partition-rows" in err


def test_best_is_among_what_fits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["sweep", "meta-llama/Llama-3.1-70B", "--gpu", GPU, "--tp", "2", "--cost", "constant_mfu"]
    command += ["--decode-batch", "1,256", "--decode-context", "8192", "--prefill-tokens", "0"]
    keep = ["--best", "tokens_per_s_per_gpu", "--pareto", "tokens_per_s_per_gpu:max,decode_batch:max"]

    def batches(*more: str) -> list[int]:
        found = json.loads(run(capsys, *command, *keep, *more, "--json"))["results"]
        assert found["best"][0] in found["pareto"]
        return [row["decode_batch"] for row in found["best"]]

    assert batches() == [1]
    assert batches("--even-if-unfit") == batches("--having", "fits or not fits") == [256]
    steps = str(tmp_path / "steps.parquet")
    run(capsys, *command, "--out", steps)
    asked = ["best", steps, "--maximize", "tokens_per_s_per_gpu", "--json"]
    found = [json.loads(run(capsys, *asked, *more))["rows"][0]["decode_batch"] for more in ([], ["--even-if-unfit"])]
    assert found == [1, 256]


def test_few_rows_are_neither_none_nor_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["sweep", "meta-llama/Llama-3.1-70B", "--gpu", GPU, "--tp", "2", "--cost", "constant_mfu"]
    command += ["--decode-batch", "1,1000:1998", "--decode-context", "8192", "--prefill-tokens", "0"]
    assert "<1%" in run(capsys, *command, "--out", str(tmp_path / "steps.parquet"))
