"""Files for other simulators: what they hold, that they stay physical, that other languages read them."""

from __future__ import annotations

import csv
import io
import json
import lzma
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mfuroof.adapters.csv_text import csv_bytes
from mfuroof.adapters.dynamo import dynamo_arrays, export_dynamo
from mfuroof.adapters.export import FORMATS, export
from mfuroof.adapters.grids import octaves, profiled_counts
from mfuroof.adapters.llmservingsim import llmservingsim_tables
from mfuroof.adapters.splitwise import splitwise_columns
from mfuroof.adapters.table import export_table, read_table, step_from_table
from mfuroof.adapters.vidur_tables import vidur_tables
from mfuroof.batch import StepBatch
from mfuroof.embedding import Embedded
from mfuroof.errors import InputError, OutputError, UnknownNameError
from mfuroof.step import StepEvaluator

DOCS = Path(__file__).resolve().parents[1] / "docs"
LLAMA = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
TP2 = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm", tp_size=2)
MIXTRAL = StepEvaluator("mistralai/Mixtral-8x7B-v0.1", "h100_sxm", tp_size=2)
ROOFLINE = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm", cost="constant_mfu")
TABLE = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm", cost="mfu_table")
SMALL = {
    "npz": {"max_tokens": 512, "max_context": 2048, "max_decode_batch": 16},
    "dynamo": {"max_prefill_tokens": 512, "max_context": 2048, "max_kv_tokens": 8192},
    "llmservingsim": {"max_tokens": 64, "max_kv": 256, "max_sequences": 8},
    "splitwise": {"max_prompt": 512, "max_batch": 4},
    "vidur": {"max_tokens": 64, "max_context": 512, "max_batch": 4, "max_chunk": 64},
}


def batches(number: int, seed: int = 5) -> list[tuple[list[int], list[int]]]:
    """Steps of a server: decode requests of lognormal lengths beside a few prompts, some behind a prefix."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(number):
        context = np.minimum(rng.lognormal(7.0, 1.0, rng.integers(0, 150)), 60_000).astype(int) + 1
        prompts = rng.integers(0, 4)
        both = np.append(context, rng.choice([0, 0, 777, 2048], prompts)).tolist()
        out.append((both, [1] * context.size + rng.integers(2, 4000, prompts).tolist()))
    return [b for b in out if b[0]]


def test_grids() -> None:
    assert octaves(1, 16).tolist() == [1, 2, 4, 8, 16]
    assert octaves(1, 100)[-2:].tolist() == [64, 100]
    assert octaves(1, 1).tolist() == [1]
    assert (np.diff(octaves(1, 4096, 8)) > 0).all()
    assert profiled_counts(20).tolist() == [*range(1, 17), 20] and profiled_counts(1).tolist() == [1]


# ------------------------------------------------------------------------------------------------------ our own


@pytest.mark.parametrize(
    ("evaluator", "mean", "largest"),
    [(LLAMA, 2e-4, 2e-3), (TP2, 2e-4, 2e-3), (MIXTRAL, 2e-4, 2e-3), (TABLE, 5e-3, 0.03)],
    ids=["kernels", "tp2", "moe", "mfu_table"],
)
def test_our_tables_price_any_batch(tmp_path: Path, evaluator: StepEvaluator, mean: float, largest: float) -> None:
    tables, sim = read_table(export_table(evaluator, tmp_path / "t.npz")), Embedded(evaluator)
    away = [abs(step_from_table(tables, *b) / sim.step(*b) - 1.0) for b in batches(60)]
    assert np.mean(away) < mean and max(away) < largest


def test_our_file_is_plain(tmp_path: Path) -> None:
    path = export(LLAMA, "npz", tmp_path / "t.npz", **SMALL["npz"])
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            assert member.compress_type == zipfile.ZIP_STORED and not member.extra and not member.flag_bits
        meta = json.loads(archive.read("meta.json"))
    assert meta["format"] == "mfuroof-step-table-2" and meta["hardware"] == "h100_sxm" and meta["tp_size"] == 1
    for array in read_table(path).values():
        assert array.dtype == np.dtype("<f8") and array.flags.c_contiguous and np.isfinite(array).all()
    again = export(LLAMA, "npz", tmp_path / "again.npz", **SMALL["npz"])
    assert again.read_bytes() == path.read_bytes()


def test_the_document_names_every_array(tmp_path: Path) -> None:
    text = (DOCS / "export-format.md").read_text()
    for name in read_table(export(LLAMA, "npz", tmp_path / "t.npz", **SMALL["npz"])):
        assert f"`{name}`" in text


@pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler: gcc is not on PATH")
def test_the_documented_reader_in_c_agrees(tmp_path: Path) -> None:
    text = (DOCS / "export-format.md").read_text()
    source = text.split("```c\n")[1].split("```")[0]
    assert len([line for line in source.splitlines() if line.strip()]) <= 75
    (tmp_path / "step.c").write_text(source)
    build = ["gcc", "-O1", "-Wall", "-Werror", "-o", str(tmp_path / "step"), str(tmp_path / "step.c"), "-lm"]
    subprocess.run(build, check=True)
    path = export(LLAMA, "npz", tmp_path / "t.npz")
    tables = read_table(path)
    for context, new in batches(12):
        words = [f"{c}:{n}" for c, n in zip(context, new, strict=True)]
        said = subprocess.run([tmp_path / "step", path, *words], capture_output=True, text=True, check=True).stdout
        assert float(said) == pytest.approx(step_from_table(tables, context, new), rel=1e-12)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip"])
def test_a_foreign_file_is_no_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz"):
        read_table(tmp_path / "x.npz")
    with pytest.raises(InputError, match="none"):
        read_table(tmp_path / "none")


def test_dynamo_file_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="export_table"):
        read_table(export(LLAMA, "dynamo", tmp_path / "d.npz", **SMALL["dynamo"]))


# ------------------------------------------------------------------------------------------------------- Dynamo


def line(x: np.ndarray, y: np.ndarray, at: float) -> float:
    """Linear between points and along the first and last segment outside: what Dynamo does."""
    i = min(max(int(np.searchsorted(x, at)) - 1, 0), x.size - 2)
    return float(y[i] + (y[i + 1] - y[i]) * (at - x[i]) / (x[i + 1] - x[i]))


@pytest.mark.parametrize("evaluator", [LLAMA, MIXTRAL, ROOFLINE, TABLE], ids=["kernels", "moe", "roofline", "table"])
def test_dynamo_stays_physical(evaluator: StepEvaluator) -> None:
    a = dynamo_arrays(evaluator)
    isl, ttft, kv, context, itl = a.values()
    assert ttft.shape == isl.shape and itl.shape == (kv.size, context.size)
    for axis in (isl, kv, context):
        assert (np.diff(axis) > 0).all()
    for values in (ttft, itl):
        assert np.isfinite(values).all() and (values > 0).all() and (np.diff(values, axis=0) >= 0).all()
    for at in (-5.0, 0.0, 1.0, 777.0, 1e6, 1e8):
        assert line(isl, ttft, at) > 0
        assert all(line(kv, column, at) > 0 for column in itl.T[::5])
        assert all(line(context, row, max(at, 0.0)) > 0 for row in itl[::5])


def test_dynamo_holds_our_times() -> None:
    isl, ttft, kv, context, itl = dynamo_arrays(LLAMA).values()
    for n in (1, 64, 1024, 8192):
        assert line(isl, ttft, n) == pytest.approx(1e3 * LLAMA.step_time_scalar(0, 0, 1, n), rel=1e-9)
    for n, length in ((1, 1024), (16, 1024), (64, 4096), (256, 512)):
        i, j = int(np.searchsorted(kv, n * length)), int(np.searchsorted(context, length))
        assert itl[i, j] == pytest.approx(1e3 * LLAMA.step_time_scalar(n, length - 1), rel=1e-9)
    i, j = int(np.searchsorted(kv, 64)), int(np.searchsorted(context, 4096))  # fewer KV tokens than one request has
    assert itl[i, j] == pytest.approx(1e3 * LLAMA.step_time_scalar(1, 4095), rel=1e-9)


def test_dynamo_file_has_five_arrays(tmp_path: Path) -> None:
    with np.load(export_dynamo(LLAMA, tmp_path / "d.npz")) as data:
        assert set(data.files) == {
            "prefill_isl",
            "prefill_ttft_ms",
            "decode_active_kv_tokens",
            "decode_context_length",
            "decode_itl",
        }
        assert {data[name].dtype for name in data.files} == {np.dtype(np.float64)}


# --------------------------------------------------------------------------------------------------------- CSVs


def read_csv(content: bytes) -> dict[str, list[str]]:
    rows = list(csv.reader(io.StringIO(content.decode())))
    return dict(zip(rows[0], (list(c) for c in zip(*rows[1:], strict=True)), strict=True))


def test_csv_reads_back() -> None:
    columns = {"a": ['x,"y"', "z"], "b": np.array([0.1, 1e-9]), "c": [1, 2]}
    back = read_csv(csv_bytes(columns))
    assert back == {"a": ['x,"y"', "z"], "b": ["0.1", "1e-09"], "c": ["1", "2"]}


@pytest.mark.parametrize("evaluator", [LLAMA, TP2, MIXTRAL], ids=["dense", "tp2", "moe"])
def test_llmservingsim_layers_add_up_to_a_step(evaluator: StepEvaluator) -> None:
    tables, layers = llmservingsim_tables(evaluator), evaluator.model.num_hidden_layers

    def pick(file: str, layer: str | None = None, **keys: int) -> float:
        t = tables[file]
        rows = np.ones(len(t["time_us"]), bool)
        for name, value in keys.items():
            rows &= np.asarray(t[name]) == value
        if layer:
            rows &= np.asarray(t["layer"]) == layer
        (at,) = np.flatnonzero(rows)
        return float(t["time_us"][at])

    names = set(tables["dense.csv"]["layer"])
    n, context = 64, 1024
    per_layer = ("qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj")
    total = sum(pick("dense.csv", name, tokens=n) for name in per_layer if name in names)
    total += 2 * pick("dense.csv", "layernorm", tokens=n)
    total += pick("attention.csv", prefill_chunk=0, kv_prefill=0, n_decode=n, kv_decode=context)
    if "moe.csv" in tables:
        total += pick("moe.csv", tokens=n, activated_experts=8)
    total = layers * total + pick("dense.csv", "embedding", tokens=n) + pick("dense.csv", "final_layernorm", tokens=n)
    total += pick("per_sequence.csv", "lm_head", sequences=n) + pick("per_sequence.csv", "sampler", sequences=n)
    step = evaluator.evaluate(StepBatch.uniform(decode_batch=n, decode_context=context))
    links = sum(float(t[0]) for name, t in step.op_time_s.items() if name in ("all_reduce", "all_to_all"))
    assert total == pytest.approx(1e6 * (step.step_time_s[0] - links), rel=1e-9)


def test_llmservingsim_bundle_on_disk(tmp_path: Path) -> None:
    home = export(LLAMA, "llmservingsim", tmp_path, hardware="H100", model="a/b", **SMALL["llmservingsim"])
    export(TP2, "llmservingsim", tmp_path, hardware="H100", model="a/b", **SMALL["llmservingsim"])
    assert home == tmp_path / "H100" / "a/b" / "bf16"
    assert "tp_degrees: [1, 2]" in (home / "meta.yaml").read_text()
    for rank in ("tp1", "tp2"):
        attention = read_csv((home / rank / "attention.csv").read_bytes())
        assert list(attention) == ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"]
        assert list(read_csv((home / rank / "dense.csv").read_bytes())) == ["layer", "tokens", "time_us"]
        assert list(read_csv((home / rank / "per_sequence.csv").read_bytes())) == ["layer", "sequences", "time_us"]
        assert min(map(float, attention["time_us"])) > 0


def test_splitwise_rows_are_steps() -> None:
    c = splitwise_columns(LLAMA, hardware="h100-80gb", model="llama")
    assert set(c["model"]) == {"llama"} and set(c["hardware"]) == {"h100-80gb"}
    i = int(np.flatnonzero((c["prompt_size"] == 1024) & (c["batch_size"] == 4) & (c["token_size"] == 128))[0])
    assert c["prompt_time"][i] == pytest.approx(1e3 * LLAMA.step_time_scalar(0, 0, 4, 1024))
    assert c["token_time"][i] == pytest.approx(1e3 * LLAMA.step_time_scalar(4, 1024 + 64))
    tokens = c["prompt_size"] * c["batch_size"]
    x = np.unique(tokens)
    for name in ("prompt_time", "token_time"):  # splitwise-sim: the median of each token count, a line outside
        y = np.array([np.median(c[name][tokens == t]) for t in x])
        assert line(x, y, 1.0) > 0


def test_vidur_tables_hold_our_times(tmp_path: Path) -> None:
    tables = vidur_tables(LLAMA, max_tokens=128, max_context=2048)
    per_layer = {
        name: dict(zip(map(tuple, keys.tolist()), values, strict=True)) for name, (keys, values) in tables.items()
    }
    n, kv = 64, 1024
    general = sum(v[(n,)] for name, v in per_layer.items() if not name.startswith("attn_decode") and (n,) in v)
    step = 1e3 * LLAMA.step_time_scalar(n, kv - 1)
    assert 32 * (general + per_layer["attn_decode"][(n, kv)]) == pytest.approx(step, rel=1e-9)
    assert "all_reduce" not in tables and "all_reduce" in vidur_tables(TP2, **SMALL["vidur"])
    folder = export(LLAMA, "vidur", tmp_path / "v", **SMALL["vidur"])
    back = read_csv(lzma.decompress((folder / "attn_decode.csv.xz").read_bytes()))
    assert list(back) == ["X_0", "X_1", "prediction"] and len(back["X_0"]) == 4 * 3


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="at least 1"):
        export(LLAMA, name, tmp_path / "x", **{next(iter(SMALL[name])): 0})
    with pytest.raises(InputError, match="colour"):
        export(LLAMA, name, tmp_path / "x", colour="red")
    (tmp_path / "file").write_text("kept")
    folder = name in ("llmservingsim", "vidur")
    with pytest.raises(OutputError):
        export(LLAMA, name, tmp_path / ("file" if folder else "none") / "below", **SMALL[name])
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "kept"
    with pytest.raises(InputError, match="StepEvaluator"):
        export("llama", name, tmp_path / "x")  # type: ignore[arg-type]


def test_costs_without_parts_and_mixed_layers_are_refused(tmp_path: Path) -> None:
    for name in ("npz", "vidur", "llmservingsim"):
        with pytest.raises(InputError, match="cost"):
            export(ROOFLINE, name, tmp_path / "x")
    with pytest.raises(UnknownNameError, match="dynamo"):
        export(LLAMA, "dynamoo", tmp_path / "x")


def test_no_partial_files_are_left(tmp_path: Path) -> None:
    for name in FORMATS:
        export(LLAMA, name, tmp_path / name, **SMALL[name])
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]


# ------------------------------------------------------------------------------------------------- command line


def command(*arguments: str) -> object:
    import typer

    from mfuroof.cli.command import add_command
    from mfuroof.cli.export import EXAMPLES
    from mfuroof.cli.export import export as run

    app = typer.Typer()
    app.callback()(lambda: None)
    add_command(app, "export", run, EXAMPLES)
    return app(["export", "meta-llama/Llama-3.1-8B", "--gpu", "h100_sxm", *arguments], standalone_mode=False)


def test_the_command_writes_what_the_function_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ("--max-tokens", "512", "--max-context", "2048", "--max-batch", "16")
    command("--format", "npz", "--out", str(tmp_path / "a.npz"), *limits)
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.npz")
    export(LLAMA, "npz", tmp_path / "b.npz", **SMALL["npz"])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    command("--format", "llmservingsim", "--out", str(tmp_path / "p"), "--max-tokens", "64", "--json")
    files = json.loads(capsys.readouterr().out)["files"]
    assert {Path(f).name for f in files} == {"meta.yaml", "dense.csv", "per_sequence.csv", "attention.csv"}


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="export format"):
        command("--format", "npy", "--out", str(tmp_path / "x"))
    with pytest.raises(InputError, match="--max-batch"):
        command("--format", "dynamo", "--out", str(tmp_path / "x"), "--max-batch", "3")
