"""The commands of queries, descriptions of files, and the page that shows them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mfuroof as mr
from mfuroof.cli import main
from mfuroof.cli.quantities import prices_of, seconds
from mfuroof.errors import InputError, MfuroofWarning, TableFormatError
from mfuroof.queries import best, describe
from mfuroof.sweep import write_sweep

ROOT = Path(__file__).resolve().parents[1]
MODEL = "meta-llama/Llama-3.1-8B"
LOAD = ["best", MODEL, "--gpu", "h100_sxm,l40s", "--input-len", "512", "--output-len", "64"]


@pytest.fixture(scope="module")
def sweep() -> mr.Sweep:
    return mr.Sweep(
        MODEL, "h100_sxm,l40s", decode_batch="1:64:x2", decode_context="1000,2000", prefill_new_tokens="0,512"
    )


@pytest.fixture(scope="module")
def steps(sweep: mr.Sweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steps") / "steps.parquet"
    mr.run_sweep(sweep, path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(run(capsys, *arguments, "--json"))


# ------------------------------------------------------------------ best


def test_best_of_a_file(capsys: pytest.CaptureFixture[str], steps: Path) -> None:
    asked = [
        "best",
        str(steps),
        "--maximize",
        "tokens_per_s_per_gpu",
        "--where",
        "step_time_ms <= 60 and fits",
        "--by",
        "gpu",
    ]
    found = run_json(capsys, *asked)
    answer = best(steps, "max tokens_per_s_per_gpu", "step_time_ms <= 60 and fits", by="gpu")
    assert found["rows"] == answer.table.to_pylist()
    assert found["sentence"] == answer.sentence
    text = run(capsys, *asked)
    assert text.startswith(answer.sentence)
    assert "decode_batch" in text and "l40s" in text
    one = run(capsys, *asked[:-2])
    assert "decode_context        " in one and "\n\n" in one


def test_front_of_a_file_and_prices(capsys: pytest.CaptureFixture[str], steps: Path) -> None:
    both = ["--maximize", "tokens_per_s_per_gpu", "--minimize", "step_time_s", "--where", "fits"]
    rows = run_json(capsys, "best", str(steps), *both)["rows"]
    times = [row["step_time_s"] for row in rows]
    assert len(rows) > 3 and times == sorted(times, reverse=True)
    priced = ["--minimize", "price_per_million_tokens", "--price", "h100=1000", "--price", "l40s=1"]
    assert run_json(capsys, "best", str(steps), *priced)["rows"][0]["gpu"] == "l40s"


def test_best_deployment_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--tpot-limit", "15ms", "--ttft-limit", "1s", "--concurrency", "1:64", "--tp", "1,2"]
    rows = run_json(capsys, *LOAD, *limits)["rows"]
    assert [(row["gpu"], row["tp_size"]) for row in rows] == [("h100_sxm", 1), ("h100_sxm", 2), ("l40s", 2)]
    evaluator = mr.StepEvaluator(MODEL, "h100_sxm")
    result = mr.serving.estimate(evaluator, 512, 64, range(1, 65))
    good = (result.tpot_s <= 0.015) & (result.ttft_s <= 1)
    assert rows[0]["output_tokens_per_s_per_gpu"] == result.output_tokens_per_s_per_gpu[good].max()
    cheap = run_json(capsys, *LOAD, *limits, "--price", "h100_sxm=100,l40s=1", "--by", "engine")["rows"]
    assert [row["gpu"] for row in cheap] == ["l40s"]
    assert "price_per_million_output_tokens" in cheap[0]


def test_what_is_printed_fits_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = run(capsys, *LOAD, "--concurrency", "1:8", "--tpot-limit", "40ms", "--price", "h100_sxm=2,l40s=1")
    table = text.split("\n\n")[1].splitlines()
    assert max(map(len, table[:-1])) <= 60
    assert [line.split()[0] for line in table[:-1]][-2:] == ["h100_sxm", "l40s"]
    none = run(capsys, *LOAD, "--concurrency", "1", "--tpot-limit", "1us")
    assert none == "None of 2 rows can be chosen with tpot_s <= 1e-06 (met by 0).\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["best", "nowhere.parquet", "--maximize", "x"], "no such file"),
        (["best", "STEPS"], "--maximize, --minimize"),
        (["best", "STEPS", "--maximize", "fits +"], "objective"),
        (["best", "STEPS", "--maximize", "tp_size", "--gpu", "l40s"], "--where"),
        (["best", "STEPS", "--maximize", "tp_size", "--minimize", "tp_size", "--top", "2"], "--top"),
        (["best", MODEL, "--gpu", "l40s"], "--input-len, --output-len left out"),
        (["crossover", MODEL, "--gpu", "l40s"], "one of them"),
        (["crossover", MODEL, "--gpu", "l40s", "--below", "2"], "--other-gpu"),
        (["crossover", MODEL, "--gpu", "l40s", "--bound", "compute", "--other-tp", "2"], "--bound"),
        (["largest", MODEL, "--gpu", "l40s", "--limit", "soon"], "--limit"),
        (["describe", "nowhere"], "no such file"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], steps: Path, arguments: list[str], says: str) -> None:
    code = main([str(steps) if a == "STEPS" else a for a in arguments])
    err = capsys.readouterr().err.splitlines()
    assert code == 2
    assert err[-1].startswith("mfuroof: error: ")
    assert says in err[-1]


@pytest.mark.parametrize(("text", "found"), [("30ms", 0.03), ("0.5 s", 0.5), (" 20us", 2e-5), (".5s", 0.5)])
def test_times_have_units(text: str, found: float) -> None:
    assert seconds("--limit", text) == pytest.approx(found, rel=1e-15)


def test_times_and_prices_that_are_none() -> None:
    for text in ("30", "0ms", "ms", "-1s", "1h", "1e3s", "nan s", ""):
        with pytest.raises(InputError, match="30ms"):
            seconds("--limit", text)
    assert prices_of("--price", []) is None
    assert prices_of("--price", ["a=1, b=2.5", "c=3"]) == {"a": 1.0, "b": 2.5, "c": 3.0}
    for wrong in ("a", "a=", "=1", "a=x", "a=1,a=2", ""):
        with pytest.raises(InputError, match="GPU=PRICE"):
            prices_of("--price", [wrong])


def test_crossings_and_the_largest(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["crossover", MODEL, "--gpu", "h100_sxm", "--other-weight-dtype", "int4_wo", "--below", "2,1.5"]
    rows = run_json(capsys, *asked, "--decode-context", "128,1024")["rows"]
    assert [(r["threshold"], r["decode_context"]) for r in rows] == [(2, 128), (2, 1024), (1.5, 128), (1.5, 1024)]
    assert rows[0]["decode_batch"] < rows[2]["decode_batch"]
    assert "is less than 2 times as fast as" in run(capsys, *asked)
    bound = run(capsys, "crossover", MODEL, "--gpu", "h100_sxm", "--bound", "compute", "--decode-context", "0")
    assert "is compute-bound from" in bound
    asked = ["largest", MODEL, "--gpu", "h100_sxm", "--limit", "20ms", "--decode-context", "1000,100000", "--fit"]
    rows = run_json(capsys, *asked)["rows"]
    assert rows[0]["decode_batch"] > rows[1]["decode_batch"] > 0
    assert rows[0]["step_time_s"] <= 0.02
    assert "goes from" in run(capsys, *asked)
    peer = run(capsys, "largest", MODEL, "--gpu", "h100_sxm", "--limit", "20ms", "--preset", "blis", "--most", "99")
    assert "every value was priced" in peer


# ------------------------------------------------------------------ describe


def test_a_sweep_describes_itself(capsys: pytest.CaptureFixture[str], steps: Path) -> None:
    found = run_json(capsys, "describe", str(steps))
    columns = {c["name"]: c for c in found["columns"]}
    table = pq.read_table(steps)
    assert found["rows"] == table.num_rows
    assert [columns["step_time_s"][k] for k in ("unit", "unit_from", "nulls")] == ["s", "schema", 0]
    times = table.column("step_time_s").to_pylist()
    assert (columns["step_time_s"]["min"], columns["step_time_s"]["max"]) == (min(times), max(times))
    assert (columns["gpu"]["min"], columns["gpu"]["max"]) == ("h100_sxm", "l40s")
    assert found["provenance"]["sweep"]["decode_batch"] == [1, 2, 4, 8, 16, 32, 64]
    assert found["lacks"] == []
    text = run(capsys, "describe", str(steps))
    assert "decode requests of the step, one new token each" in text
    assert "lacks" not in text


def test_unfinished_folders_are_told(sweep: mr.Sweep, tmp_path: Path) -> None:
    write_sweep(sweep, tmp_path / "s", partition_rows=10, shard="1/2")
    note = describe(tmp_path / "s")
    total = int(note.lacks[0].split(" of ")[1].split()[0])
    assert note.lacks[0].startswith(f"{total - note.files} of {total} partitions")
    with pytest.warns(MfuroofWarning, match="run its sweep again"):
        best(tmp_path / "s", "max step_time_s")
    write_sweep(sweep, tmp_path / "s", partition_rows=10)
    assert describe(tmp_path / "s").lacks == ()
    assert best(tmp_path / "s", "max step_time_s").rows_seen == describe(tmp_path / "s").rows == 56


def test_embedded_tables_say_where_they_come_from() -> None:
    found = describe(ROOT / "bench_data" / "h100_sxm" / "gemm" / "vllm.parquet")
    assert found.provenance["gpu"] == "h100_sxm"
    assert found.provenance["family"] == "gemm"
    assert {c.name: c.unit for c in found.columns}["latency_s"] == "s"
    assert found.lacks == ()


def test_foreign_tables_are_told_what_they_lack(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "tpot_s": [0.01, None],
            "speed": [1, 2],
            "who": ["b", "a"],
            "none": pa.nulls(2),
            "lists": [[1], [2]],
            "dates": pa.array([1, 2], pa.date32()),
        }
    )
    pq.write_table(rows, tmp_path / "f.parquet", row_group_size=1)
    found = describe(tmp_path / "f.parquet")
    spans = {c.name: c.span for c in found.columns}
    assert spans == {
        "tpot_s": "0.01",
        "speed": "1 .. 2",
        "who": "a .. b",
        "none": "-",
        "lists": "-",
        "dates": "1970-01-02 .. 1970-01-03",
    }
    assert {c.name: c.nulls for c in found.columns if c.name in ("tpot_s", "speed")} == {"tpot_s": 1, "speed": 0}
    assert found.lacks == (
        "a unit of speed",
        "units in its schema; those of tpot_s are read off the names",
        "a meaning of all columns",
        "provenance: who made it, when and how",
    )
    assert "lacks a unit of speed" in repr(found)
    pq.write_table(rows, tmp_path / "bare.parquet", write_statistics=False)
    assert {c.span for c in describe(tmp_path / "bare.parquet").columns} == {"-"}
    (tmp_path / "t.csv").write_text("gpu,tpot_s,empty\na,1.5,\nb,0.5,\n")
    csv = describe(tmp_path / "t.csv")
    assert [(c.name, c.span) for c in csv.columns] == [("gpu", "a .. b"), ("tpot_s", "0.5 .. 1.5"), ("empty", "-")]
    assert (csv.rows, csv.files) == (2, 1)
    empty = pa.table({"x": pa.array([], pa.int64())})
    pq.write_table(empty, tmp_path / "e.parquet")
    assert describe(tmp_path / "e.parquet").columns[0].span == "-"


def test_damaged_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(TableFormatError):
        describe(tmp_path / "d.parquet")
    (tmp_path / "p.parquet").write_bytes(b"")
    with pytest.raises(TableFormatError):
        describe(tmp_path)
    for name in ("nowhere", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(InputError):
            describe(tmp_path / name)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "g.parquet")
    (tmp_path / "g.provenance.json").write_text("{")
    assert "cannot be read" in describe(tmp_path / "g.parquet").provenance["provenance file"]


# ------------------------------------------------------------------ the page


def test_pandas_reads_folders_as_the_page_says(sweep: mr.Sweep, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    code = page.split("<!-- pandas -->")[1].split("```python")[1].split("```")[0]
    write_sweep(sweep, tmp_path / "steps", partition_rows=20)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        names: dict[str, Any] = {"folder": tmp_path / "steps"}
        exec(compile(code, "docs/sweeps.md", "exec"), names)
    ours = best(tmp_path / "steps", "max tokens_per_s_per_gpu", "fits and step_time_s <= 0.030", by="gpu").table
    assert names["best"]["decode_batch"].tolist() == ours.column("decode_batch").to_pylist()
    assert "h100_sxm" in said.getvalue()
