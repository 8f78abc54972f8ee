"""The command line: real commands, JSON that parses, one-line errors with the documented exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer

from mfuroof.adapters.export import FORMATS as EXPORT_FORMATS
from mfuroof.batch import StepBatch
from mfuroof.capacity import kv_capacity
from mfuroof.cli import app as commands
from mfuroof.cli import gpus, kv, lookup, main, models, step
from mfuroof.cli.costs import PRESETS
from mfuroof.cli.running import stoppable
from mfuroof.engines import ENGINES
from mfuroof.hardware import known_hardware
from mfuroof.models import get_model, known_models
from mfuroof.params import CostParams
from mfuroof.precision import PRESETS as RUNTIME_PRESETS
from mfuroof.step import COSTS, StepEvaluator

ROOT = Path(__file__).resolve().parents[1]
MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
STEP = ["step", MODEL, "--gpu", GPU]
DECODE = ["--decode-batch", "32", "--decode-context", "2047"]
SWEEP = ["sweep", MODEL, "--gpu", GPU, "--decode-batch", "1:16:x2", "--decode-context", "0,1000"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command that succeeds prints."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(run(capsys, *arguments, "--json"), parse_constant=no_constant)


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["stepp"], 2, "step"),
        ([*STEP[:2], *DECODE], 2, "--gpu"),
        ([*STEP], 2, "--decode-batch or --prefill-tokens"),
        ([*STEP, *DECODE, "--tp", "x"], 2, "--tp"),
        ([*STEP, *DECODE, "--frobnicate"], 2, "mfuroof step --help"),
        ([*STEP, *DECODE, "--tp", "7"], 2, "attention heads"),
        ([*STEP, "--decode-batch", "-1"], 2, "decode_batch"),
        ([*STEP, "--decode-batch", "9999999999999999999"], 2, "2**40"),
        ([*STEP, *DECODE, "--cost", "kernel"], 2, "kernels"),
        ([*STEP, *DECODE, "--preset", "blis-2"], 2, "blis"),
        ([*STEP, *DECODE, "--preset", "blis", "--cost", "kernels"], 2, "constant_mfu"),
        ([*STEP, *DECODE, "--overlap-penalty", "0.5"], 2, "--cost constant_mfu"),
        ([*STEP, *DECODE, "--cost", "constant_mfu", "--overlap-penalty", "1.5"], 2, "overlap_penalty"),
        ([*STEP, *DECODE, "--missing", "guess"], 2, "roofline"),
        ([*STEP, *DECODE, "--weight-dtype", "fp88"], 2, "fp8"),
        (["step", MODEL, "--gpu", "h100_sxn", *DECODE], 2, "h100_sxm"),
        (["step", "meta-llama/Llama-3.1-8C", "--gpu", GPU, *DECODE], 2, "meta-llama/"),
        (["step", "/nonexistent/config.json", "--gpu", GPU, *DECODE], 2, "config.json"),
        ([*SWEEP, "--prefill-tokens", "1:8:2"], 2, "1:512:x2"),
        ([*SWEEP, "--tp", "0"], 2, "tp_size"),
        ([*SWEEP, "--out", "/nonexistent/steps.parquet"], 4, "cannot write /nonexistent/steps.parquet"),
        ([*SWEEP, "--out", "/dev/null"], 4, "no regular file"),
        ([*SWEEP, "--detail", "everything"], 2, "components"),
        (["gpus", "h1000"], 2, "h100"),
        (["models", "Llama-9"], 2, "model"),
        (["kv", MODEL, "--gpu", GPU, "--tp", "5"], 2, "attention heads"),
        (["lookup", "gem", "--gpu", GPU], 2, "gemm"),
        (["lookup", "gemm", "--gpu", GPU, "m"], 2, "KEY=VALUE"),
        (["lookup", "gemm", "--gpu", GPU, "m=1", "k=4096", "n=4096"], 2, "dtype"),
        (["lookup", "gemm", "--gpu", GPU, "m=1", "q=4096"], 2, "key column of gemm"),
        (["lookup", "gemm", "--gpu", GPU, "m=x", "k=1", "n=1", "dtype=bf16"], 2, "m"),
        (["lookup", "gemm", "--gpu", GPU, "m=1", "k=9", "n=9", "dtype=bf17"], 3, "bf16"),
        (["lookup", "gemm", "--gpu", GPU, "--data", "/nonexistent", "m=1"], 2, "folder"),
        (["ingest", "aiconfigurator", "/nonexistent", "--gpu", GPU, "--out", "/tmp"], 3, "pip install"),
    ],
)
def test_errors_are_one_line_with_the_remedy(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("mfuroof: error: ")
    assert says in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--debug", "gpus", "h1000"], ["gpus", "h1000", "--debug"]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("mfuroof: error: unknown")


def test_a_defect_is_called_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("mfuroof.hardware.known_hardware", broken)
    assert main(["gpus"]) == 1
    assert "RuntimeError: oops (a defect of mfuroof" in capsys.readouterr().err


def test_standard_output_that_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mfuroof.cli", "gpus"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 4
    assert done.stderr.startswith("mfuroof: error: cannot write: ")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m mfuroof.cli models --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


# ---------------------------------------------------------------------------------------------------- help


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    heavy = "print(sorted({'numba', 'numpy', 'pyarrow'} & set(sys.modules)))"
    code = f"import sys; from mfuroof.cli import main; main(['--help']); {heavy}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Exit codes" in done.stdout


NAMES = [c.name for c in commands.app.registered_commands if c.name]


@pytest.mark.parametrize("name", [*NAMES, "ingest aiconfigurator", "predict steps"])
def test_help_has_examples_and_fits_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = run(capsys, *name.split(), "--help")
    assert max(map(len, out.splitlines())) <= 80
    examples = out.split("Examples:")[1].strip().splitlines()
    begun = [line for before, line in pairwise(["", *examples]) if not before.rstrip().endswith("\\")]
    assert begun[0].strip().startswith(f"mfuroof {name}")
    assert all(line.strip().startswith("mfuroof ") for line in begun)


RUNNABLE = [line for module in (step, kv, gpus, models, lookup) for line in module.EXAMPLES if " DIR" not in line]


@pytest.mark.parametrize("line", RUNNABLE)
def test_examples_run(capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert run(capsys, *shlex.split(line)[1:])


def options_of(command: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (command, its options by first spelling) of a command and all below it."""
    for word, below in getattr(command, "commands", {}).items():
        yield from options_of(below, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, {p.opts[0]: p for p in command.params if p.param_type_name == "option"}


def test_options_are_spelt_alike_and_name_what_there_is() -> None:
    programs = dict(options_of(typer.main.get_command(commands.app)))
    assert len(programs) > 30
    for name, options in programs.items():
        assert "--json" in options, name
        for option, short in (("--out", "-o"), ("--input-len", "--isl"), ("--output-len", "--osl")):
            assert option not in options or short in options[option].opts, (name, option)
        if "--missing" in options and "--cost" in options:
            assert "--calibration" in options, name
    step_options, format_option = programs["step"], programs["export"]["--format"]
    for option, known in (
        (step_options["--engine"], ENGINES),
        (step_options["--preset"], [preset.replace("_", "-") for preset in PRESETS]),
        (step_options["--cost"], COSTS),
        (step_options["--precision"], RUNTIME_PRESETS),
        (format_option, EXPORT_FORMATS),
    ):
        assert all(re.search(rf"\b{re.escape(word)}\b", option.help) for word in known), option.help


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from mfuroof import __version__

    assert run(capsys, "--version") == f"mfuroof {__version__}\n"


def test_completion_offers_gpus_and_models() -> None:
    from mfuroof.cli.options import complete_gpu, complete_model

    assert complete_gpu("h100_") == [name for name in known_hardware() if name.startswith("h100_")]
    assert MODEL.replace("Llama", "Meta-Llama") in complete_model("meta-llama/")


def test_shell_completion_of_the_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mfuroof.cli"]

    def offered(words: str, at: int) -> list[str]:
        asked = {"_MFUROOF_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | asked)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert offered("mfuroof gp", 1) == ["gpus"]
    assert "h100_sxm" in offered("mfuroof gpus h100", 2)
    home = os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    # the program asks which shell started it; `exit` keeps bash there until it has ended
    asked = ["bash", "-c", f"{' '.join(command)} --show-completion; exit $?"]
    shown = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, env=home)
    assert shown.returncode == 0 and "complete -o default" in shown.stdout


@pytest.mark.parametrize("columns", ["40", "60", "120"])
def test_a_narrow_terminal_cuts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = run(capsys, "kv", "meta-llama/Llama-3.1-70B", "--gpu", GPU, "--tp", "2,8", "--seq-len", "8192")
    heads = ("weights GiB", "beside GiB", "KV tokens", "KV blocks", "sequences", "fits")
    assert all(head in out for head in heads)
    room = kv_capacity("meta-llama/Llama-3.1-70B", GPU, [2, 8], seq_len=8192)
    assert all(f"{n:,} " in out for n in (*room.kv_capacity_tokens, *room.num_kv_blocks, *room.max_sequences))
    assert out.count(" yes") == 2 and "of the memory" in " ".join(out.split())
    listed = run(capsys, "models", "--sizes").splitlines()
    assert listed[0].split() == ["model", "params_B", "active_B", "weights_GB", "KV_KiB/token", "layers"]
    assert not any("\x1b" in line for line in listed)  # no colours where there is no terminal


# ---------------------------------------------------------------------------------------------------- step


def test_step_is_what_the_evaluator_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, *STEP, *DECODE, "--prefill-tokens", "512", "--prefill-context", "64")
    evaluator = StepEvaluator(MODEL, GPU)
    result = evaluator.evaluate(StepBatch.uniform(32, 2047, 1, 512, 64))
    assert found["step_time_s"] == result.step_time_s[0]
    assert found["prefill_batch"] == 1
    assert found["tokens_per_s_per_gpu"] == pytest.approx(33 / found["step_time_s"])
    assert {name: part["time_s"] for name, part in found["components"].items()} == {
        name: float(part[0]) for name, part in result.op_time_s.items()
    }
    assert sum(part["share"] for part in found["components"].values()) == pytest.approx(1, abs=1e-6)
    assert found["bound"] == result.bound_names[0]
    assert found["fits"] is True


def test_step_prints_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = run(capsys, *STEP, *DECODE)
    assert "32 decode at context 2047" in out
    for name in StepEvaluator(MODEL, GPU).components:
        assert f"{name} " in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_step_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    own = run_json(capsys, *STEP, *DECODE)["step_time_s"]
    assert run_json(capsys, *STEP, *DECODE, "--weight-dtype", "fp8")["step_time_s"] < own
    assert run_json(capsys, *STEP, *DECODE, "--tp", "2")["step_time_s"] < own
    constant = [*STEP, *DECODE, "--cost", "constant_mfu"]
    plain = run_json(capsys, *constant)["step_time_s"]
    assert run_json(capsys, *constant, "--overlap-penalty", "1")["step_time_s"] > plain
    assert run_json(capsys, *constant, "--weight-bytes-per-param", "1")["step_time_s"] < plain
    mixed = [*constant, "--prefill-tokens", "4096"]
    slowed = run_json(capsys, *mixed, "--mixed-batch-penalty", "1")["step_time_s"]
    assert slowed > run_json(capsys, *mixed)["step_time_s"]


def test_step_of_experts_spread_over_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    moe = ["step", "Qwen/Qwen3-30B-A3B", "--gpu", GPU, *DECODE]
    found = run_json(capsys, *moe, "--tp", "2", "--ep", "4", "--dp", "2", "--pp", "2")
    evaluator = StepEvaluator("Qwen/Qwen3-30B-A3B", GPU, 2, 2, 4, 2)
    assert found["step_time_s"] == evaluator.step_time(StepBatch.uniform(32, 2047))[0]
    assert found["tokens_per_s_per_gpu"] == pytest.approx(32 * 2 / 8 / found["step_time_s"])
    assert found["fits"] is True
    assert "tp 2, pp 2, ep 4, dp 2" in run(capsys, *moe, "--tp", "2", "--ep", "4", "--dp", "2", "--pp", "2")


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "infersim"])
def test_presets_bring_their_cost(capsys: pytest.CaptureFixture[str], preset: str) -> None:
    found = run_json(capsys, *STEP, *DECODE, "--preset", preset.replace("_", "-"))
    assert found["cost"] == PRESETS[preset]
    assert found["params"] == json.loads(json.dumps(getattr(CostParams, preset)().changed()))
    assert found["step_time_s"] > 0


def test_own_tables(capsys: pytest.CaptureFixture[str], shared: Path, tmp_path: Path) -> None:
    """InferSim's rules know no embedded GPU: they need the files they were made for."""
    own = ["--tables", str(shared / "bench_data" / "infersim")]
    at = ["step", MODEL, "--gpu", "h20", *DECODE, "--preset", "infersim"]
    assert run_json(capsys, *at, *own)["step_time_s"] > 0.005
    assert main(at) != 0
    capsys.readouterr()
    kernels = ["--tables", str(ROOT / "bench_data" / "h200_sxm")]
    assert run_json(capsys, *STEP, *DECODE, *kernels) != run_json(capsys, *STEP, *DECODE)
    out = ["--out", str(tmp_path / "steps.parquet")]
    sweep = ["sweep", MODEL, "--gpu", "h20", "--preset", "infersim", "--decode-batch", "1,2", "--prefill-tokens", "0"]
    assert run_json(capsys, *sweep, *own, *out)["rows"] == 64


def test_an_empty_step_takes_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, *STEP, "--decode-batch", "0")["step_time_s"] == 0
    assert "an empty step" in run(capsys, *STEP, "--decode-batch", "0")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["step", "meta-llama/Llama-3.1-70B", "--gpu", GPU, *DECODE], "131.4 GiB"),
        ([*STEP, "--decode-batch", "512", "--decode-context", "100000"], "left per GPU"),
    ],
)
def test_what_does_not_fit_is_warned_of(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fits"] is False
    assert err.count("\n") == 1
    assert err.startswith("mfuroof: warning: ")
    assert says in err


# ---------------------------------------------------------------------------------------------------- sweep


def test_sweep_writes_and_sums_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    arguments = [*SWEEP, "--tp", "1,2", "--prefill-tokens", "0,256", "--out", str(path)]
    out = run(capsys, *arguments)
    table = pq.read_table(path)
    assert table.num_rows == 2 * 5 * 2 * 2
    assert "40 steps" in out
    for part in ("tp1", "Highest throughput", "Fastest step", "Share of steps"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 80 + len(str(path))
    assert table.schema.metadata[b"mfuroof.command"].decode() == shlex.join(["mfuroof", *arguments])
    found = run_json(capsys, *arguments)
    assert found["rows"] == 40
    best = max(found["cases"], key=lambda case: case["best"]["tokens_per_s_per_gpu"])
    assert best["best"]["tokens_per_s_per_gpu"] == max(table["tokens_per_s_per_gpu"].to_pylist())


def test_sweep_of_several_models_gpus_and_formats(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "steps.parquet"
    config = tmp_path / "config.json"
    fields = {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 16}
    more = {"num_key_value_heads": 4, "intermediate_size": 8192, "vocab_size": 32000, "torch_dtype": "bfloat16"}
    config.write_text(json.dumps(fields | more))
    found = run_json(
        capsys, "sweep", MODEL, str(config), "--gpu", "h100_sxm,h200_sxm", "--weight-dtype", "own,fp8",
        "--decode-batch", "1,8", "--decode-context", "100", "--prefill-tokens", "0", "--out", str(path),
        "--detail", "components", "--threads", "1",
    )  # fmt: skip
    table = pq.read_table(path)
    assert found["rows"] == table.num_rows == 2 * 2 * 2 * 2
    assert set(table["gpu"].to_pylist()) == {"h100_sxm", "h200_sxm"}
    assert set(table["weight_dtype"].to_pylist()) == {"own", "fp8"}
    assert len(set(table["model"].to_pylist())) == 2
    monkeypatch.setenv("COLUMNS", "60")
    arguments = ["sweep", MODEL, str(config), "--gpu", GPU, "--decode-batch", "1", "--out", str(path)]
    assert "Meta-Llama-3.1-8B" in run(capsys, *arguments)


def test_sweep_says_what_it_could_not_price(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path / "steps.parquet")
    assert main([*SWEEP, "--prefill-tokens", "0", "--tp", "1,3", "--out", out]) == 0
    printed, err = capsys.readouterr()
    assert "not priced: " in printed
    assert "tp3" in printed
    assert err.startswith("mfuroof: warning: ")


def test_the_command_of_the_readme_is_over_a_million_steps() -> None:
    from mfuroof.sweep import Sweep

    assert Sweep("meta-llama/Llama-3.1-70B", GPU, tp_size="1,2,4,8").grid().rows * 4 > 1_000_000


def test_the_command_has_the_defaults_of_the_definition(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mfuroof.sweep import Sweep

    out = str(tmp_path / "steps.parquet")
    found = run_json(capsys, "sweep", MODEL, "--gpu", GPU, "--out", out, "--detail", "times")
    meta = json.loads(pq.read_schema(out).metadata[b"mfuroof.sweep"])
    assert meta == json.loads(json.dumps(Sweep(MODEL, GPU, params=CostParams()).to_dict()))
    assert found["rows"] == 270_336


def endless(path: Path, **options: Any) -> subprocess.Popen[str]:
    shape = ["--decode-batch", "1:4096", "--decode-context", "1:65536", "--detail", "times", "--max-rows", "1e10"]
    command = [sys.executable, "-m", "mfuroof.cli", "sweep", MODEL, "--gpu", GPU, *shape, "--out", str(path)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **options)


def wait_for_rows(folder: Path) -> None:
    for _ in range(300):
        if any(p.stat().st_size > 1000 for p in folder.iterdir()):
            return
        time.sleep(0.05)
    raise AssertionError("the sweep writes nothing")


def test_an_interrupted_sweep_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    sweep = endless(path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_rows(tmp_path)
    sweep.send_signal(signal.SIGINT)
    out, err = sweep.communicate(timeout=30)
    assert list(tmp_path.iterdir()) == []
    assert (sweep.returncode, out) == (130, "")
    assert err == "mfuroof: stopped; nothing was left half-written\n"


def test_a_swallowed_interrupt_comes_again() -> None:
    done: list[int] = []
    with stoppable() as guard:
        advance = guard(lambda now, total: done.append(now))
        advance(1, 3)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            advance(2, 3)
    assert done == [1]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def read_until(terminal: int, text: bytes | None) -> bytes:
    """Return what a terminal shows until ``text`` is there, or until the other end is closed."""
    shown = b""
    while text is None or text not in shown:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    return shown


def test_progress_shows_on_a_terminal_and_termination_tidies_up(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    sweep = endless(path, stdout=subprocess.DEVNULL, stderr=follower, env=environment)
    os.close(follower)
    shown = read_until(leader, b"M steps/s")
    sweep.terminate()
    read_until(leader, None)
    os.close(leader)
    assert sweep.wait(timeout=30) == 130
    assert b"M steps/s" in shown
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- catalogues


def test_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    listed = run_json(capsys, "gpus")
    assert [gpu["name"] for gpu in listed] == list(known_hardware())
    one = run_json(capsys, "gpus", "H100")
    assert one["name"] == "h100_sxm"
    assert one["peak_flops_per_s"]["bf16"] == pytest.approx(989.4e12, rel=1e-3)
    assert all(name in run(capsys, "gpus") for name in known_hardware())
    assert "HBM TB/s" in run(capsys, "gpus", "h100_sxm")


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "models").split() == list(known_models())
    assert run_json(capsys, "models") == list(known_models())
    one = run_json(capsys, "models", MODEL)
    assert one["total_params"] == get_model(MODEL).total_params == 8030261248
    assert sum(one["params_by_component"].values()) == one["total_params"]
    assert run_json(capsys, "models", MODEL, "--weight-dtype", "fp8")["weight_bytes"] < one["weight_bytes"]
    assert "8,030,261,248" in run(capsys, "models", MODEL)


def test_kv(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "kv", MODEL, "--gpu", GPU, "--tp", "1,2", "--seq-len", "4096")
    room = kv_capacity(MODEL, GPU, [1, 2], seq_len=4096)
    assert [row["kv_capacity_tokens"] for row in found] == room.kv_capacity_tokens.tolist()
    assert room.max_sequences is not None
    assert [row["max_sequences"] for row in found] == room.max_sequences.tolist()
    assert found[0]["gpu"] == GPU and "hardware" not in found[0]
    assert f"{room.kv_capacity_tokens[0]:,}" in run(capsys, "kv", MODEL, "--gpu", GPU)


# ---------------------------------------------------------------------------------------------------- tables


def test_lookup_of_a_measured_point(capsys: pytest.CaptureFixture[str]) -> None:
    from mfuroof.tables.store import load_tables

    row = load_tables(GPU).family("gemm", dtype="bf16").slice(1000, 1).to_pylist()[0]
    at = [f"{key}={row[key]}" for key in ("dtype", "n", "k", "m")]
    point = run_json(capsys, "lookup", "gemm", "--gpu", GPU, *at)["points"][0]
    assert point == {
        "m": row["m"], "k": row["k"], "n": row["n"], "latency_s": row["latency_s"], "source": "exact",
        "distance_octaves": 0.0,
    }  # fmt: skip


def test_lookup_between_points_and_beyond(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["num_attention_heads=32", "num_key_value_heads=8", "kv_dtype=bf16", "head_dim=128", "sliding_window=0"]
    at = ["lookup", "attn_decode", "--gpu", GPU, *keys, "batch_size=3", "kv_len=1000,99999999"]
    inside, beyond = run_json(capsys, *at)["points"]
    assert inside["source"] == "interpolated"
    assert inside["distance_octaves"] > 0
    assert beyond["source"] == "missing"
    assert beyond["latency_s"] is None
    assert run_json(capsys, *at, "--outside", "clamp")["points"][1]["source"] == "clamped"
    assert "latency_us" in run(capsys, *at)
    assert main([*at, "--outside", "raise"]) == 2
    capsys.readouterr()
    assert "outside what was measured: kv_len 99999999, measured" in run(capsys, *at)


@pytest.mark.parametrize(("m", "rule"), [("100000", "linear"), ("0", "floor")])
def test_lookup_outside_names_coordinate_range_and_way_out(
    capsys: pytest.CaptureFixture[str], m: str, rule: str
) -> None:
    from mfuroof.tables.store import load_tables

    column = load_tables(GPU).family("gemm", dtype="bf16", n=4096, k=4096).column("m").to_pylist()
    at = ["lookup", "gemm", "--gpu", GPU, "dtype=bf16", "n=4096", "k=4096", f"m={m}", "--rule", rule]
    assert main(at) == 3
    out = capsys.readouterr().out
    assert f"outside what was measured: m {m}, measured {min(column)}" in out and "--outside clamp" in out
    assert main([*at, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["outside"][0].startswith(f"m {m}, measured")
    assert "outside" not in run(capsys, *at, "--outside", "clamp")


def test_a_known_gpu_without_tables_is_told_from_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["audit", "mi300x"], ["lookup", "gemm", "--gpu", "mi300x", "m=1", "n=1", "k=1", "dtype=bf16"]):
        assert main(command) == 3
        err = capsys.readouterr().err
        assert "mi300x is a known GPU without embedded tables" in err and "h100_sxm" in err


def test_a_step_far_from_data_is_no_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*STEP, "--decode-batch", str(10**12), "--decode-context", str(10**12)]) == 0
    err = capsys.readouterr().err
    assert "does not fit" in err and "octaves" in err and "no prediction" in err
    assert main([*STEP, "--decode-batch", "256", "--decode-context", "8000"]) == 0
    err = capsys.readouterr().err
    assert "does not fit" in err and "no prediction" not in err


def test_a_step_says_what_runs_beside_the_routed_experts(capsys: pytest.CaptureFixture[str]) -> None:
    at = ["step", "deepseek-ai/DeepSeek-V3", "--gpu", "h200_sxm", "--tp", "8", "--prefill-tokens", "2048"]
    assert "overlapped: shared experts" in run(capsys, *at)
    assert run_json(capsys, *STEP, *DECODE)["overlapped"] == []


def test_lookup_in_a_folder_of_mfu_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "mha" / "prefill" / "h20"
    folder.mkdir(parents=True)
    rows = ["dtype,seq_len,latency_us,mfu", "bf16,1024,100.0,0.5", "bf16,2048,300.0,0.6", "bf16,4096,1000.0,0.7"]
    (folder / "32-8-128.csv").write_text("\n".join(rows) + "\n")
    at = ["lookup", "attn_prefill", "--data", str(tmp_path), "--gpu", "h20", "heads=32", "kv_heads=8", "head_dim=128"]
    points = run_json(capsys, *at, "seq_len=1024,1500", "--rule", "blis_floor")["points"]
    assert [p["mfu"] for p in points] == [0.5, 0.5]
    assert [p["seq_len"] for p in points] == [1024, 1500]
    assert "mfu" in run(capsys, *at, "seq_len=1024", "--rule", "blis_floor")
    assert main([*at[:-1], "seq_len=1024"]) == 2
    assert "head_dim" in capsys.readouterr().err


def test_predict_steps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.parquet"
    source.write_text(f"model,gpu,tp,decode_batch,decode_context\n{MODEL},{GPU},1,32,2047\n{MODEL},nothing,1,32,2047\n")
    found = run_json(capsys, "predict", "steps", str(source), str(target))
    assert (found["rows"], found["rows_without_answer"]) == (2, 1)
    rows = pq.read_table(target).to_pylist()
    assert rows[0]["step_time_s"] == StepEvaluator(MODEL, GPU).step_time(StepBatch.uniform(32, 2047))[0]
    assert rows[1]["step_time_s"] is None
    assert "nothing" in rows[1]["error"]
    assert "1 without an answer" in run(capsys, "predict", "steps", str(source), str(target))
    assert main(["predict", "steps", str(source), str(tmp_path / "out.xlsx")]) == 2
    assert main(["predict", "steps", str(tmp_path / "none.csv"), str(target)]) == 2


def test_audit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "gemm" / "h20"
    folder.mkdir(parents=True)
    rows = [f"{m},4096,4096,{2e6 * m * 4096 * 4096 / (0.5 * 296e12):.2f},0.500" for m in (1024, 2048, 4096)]
    (folder / "data.csv").write_text("\n".join(["m,k,n,latency_us,mfu", *rows]) + "\n")
    assert main(["audit", str(tmp_path), "--fail-on", "error", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == 3
    assert report["counts"]["error"] == 0
    (folder / "data.csv").write_text("\n".join(["m,k,n,latency_us,mfu", *rows, "4096,4096,4096,1.0,9.0"]) + "\n")
    assert main(["audit", str(tmp_path)]) == 1
    assert "gemm/h20/data.csv" in capsys.readouterr().out
    assert main(["audit", str(tmp_path), "--fail-on", "never"]) == 2
    assert main(["audit", str(tmp_path / "nowhere")]) == 2


def test_warmup(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(run_json(capsys, "warmup")["seconds"]) == {"kernels", "mfu_table", "constant_mfu", "lookups"}


def test_the_module_runs_as_a_program_and_is_silent_in_a_pipe(tmp_path: Path) -> None:
    out = str(tmp_path / "steps.parquet")
    command = [sys.executable, "-m", "mfuroof.cli", *SWEEP, "--prefill-tokens", "0", "--out", out, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout)["path"] == out
