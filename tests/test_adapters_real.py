"""Our model inside the simulators themselves, where they are installed: run with ``-m slow``."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mfuroof.adapters.dynamo import export_dynamo
from mfuroof.adapters.sr_sim import MfuroofGpuProfile
from mfuroof.adapters.vidur_tables import vidur_tables
from mfuroof.step import StepEvaluator

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
LLAMA = StepEvaluator(MODEL, GPU)
ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def needs(module: str, package: str) -> None:
    try:
        found = importlib.util.find_spec(module) is not None
    except ImportError:
        found = False
    if not found:
        pytest.skip(f"{package} is not installed")


# Vidur numbers its entities in globals of the process: one process a run. The clock and each time are written down.
VIDUR = """
import json, sys
from mfuroof.adapters import vidur, vidur_predictor
calls, clock, price = [], [], vidur_predictor.VidurPredictor.get_execution_time
def watched(self, batch, pipeline_stage):
    time = price(self, batch, pipeline_stage)
    if not hasattr(batch, "batch_mapping"):
        step = self.embedded.step(*vidur_predictor.requests_of(batch))
        attention = time.attention_decode_execution_time + time.attention_prefill_execution_time
        calls.append([time.total_time, step, attention, type(time.total_time) is float])
    return time
vidur_predictor.VidurPredictor.get_execution_time = watched
import vidur.simulator
tick = sys.modules["vidur.simulator"].Simulator._set_time
def watch(self, time):
    clock.append([float(time), type(time).__name__])
    return tick(self, time)
sys.modules["vidur.simulator"].Simulator._set_time = watch
from mfuroof.adapters.vidur import main
code = main(sys.argv[2:])
json.dump({"code": code, "calls": calls, "clock": clock}, open(sys.argv[1], "w"))
"""


@pytest.mark.parametrize(
    ("scheduler", "stages"),
    [("sarathi", 1), ("sarathi", 2), ("vllm", 1), ("orca", 1), ("mnemosyne_fcfs_fixed_chunk", 1), ("mnemosyne_edf", 1)],
)
def test_vidur_runs_on_our_times(tmp_path: Path, scheduler: str, stages: int) -> None:
    needs("vidur", "vidur")
    options = [
        *("--replica_scheduler_config_type", scheduler),
        *("--replica_config_num_pipeline_stages", str(stages)),
        *("--replica_config_tensor_parallel_size", "1"),
        *("--synthetic_request_generator_config_num_requests", "25"),
        "--no-metrics_config_enable_chrome_trace",
        "--no-metrics_config_write_metrics",
    ]
    run = subprocess.run(
        [sys.executable, "-c", VIDUR, str(tmp_path / "seen.json"), *options],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["code"] == 0 and len(seen["calls"]) > 50
    stage, step, attention, is_float = (np.array(c) for c in zip(*seen["calls"], strict=True))
    np.testing.assert_allclose(stage * stages, step, rtol=1e-9)
    assert is_float.all() and (stage > 0).all() and (attention > 0).all()
    times = np.array([t for t, _ in seen["clock"]])
    assert (np.diff(times) >= 0).all() and times[-1] > 0
    assert {kind for _, kind in seen["clock"]} <= {"float", "int"}


def test_module_runs_vidur(tmp_path: Path) -> None:
    needs("vidur", "vidur")
    command = [sys.executable, "-m", "mfuroof.adapters.vidur", "--help"]
    run = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert "--mfuroof_execution_time_predictor_config_hardware" in run.stdout


def test_vidur_native_predictor_reads_our_tables() -> None:
    needs("vidur", "vidur")
    config = importlib.import_module("vidur._native.config")
    predictors = importlib.import_module("vidur._native.execution_time_predictor")
    entities = importlib.import_module("vidur._native.entities")
    tables = vidur_tables(LLAMA, max_tokens=1024, max_context=4096, max_batch=64, max_chunk=1024)
    keys = [[(int(k[0]), int(k[1]) if k.size > 1 else -1) for k in table[0]] for table in tables.values()]
    native = predictors.ExecutionTimePredictor(
        config=config.ExecutionTimePredictorConfig(
            kv_cache_prediction_granularity=256,
            prediction_max_prefill_chunk_size=1024,
            prediction_max_batch_size=64,
            prediction_max_tokens_per_request=4096,
            attention_decode_batching_overhead_fraction=0.0,
            nccl_cpu_launch_overhead_ms=0.0,
            nccl_cpu_skew_overhead_per_device_ms=0.0,
            use_native_execution_time_predictor=True,
            disable_kvp_communication=True,
            cache_dir="",
        ),
        replica_config=config.ReplicaConfig(num_pipeline_stages=1, tensor_parallel_size=1, kv_parallel_size=1),
        model_config=config.ModelConfig(
            num_layers=32,
            num_q_heads=32,
            num_kv_heads=8,
            embedding_dim=4096,
            mlp_hidden_dim=14336,
            max_model_len=8192,
            use_gated_mlp=True,
            use_bias=False,
            use_qkv_bias=False,
            post_attn_norm=True,
            vocab_size=128256,
        ),
        prediction_ops=list(tables),
        prediction_keys=keys,
        prediction_values=[table[1].tolist() for table in tables.values()],
        hash="h",
    )

    def time(new: list[int], kv: list[int]) -> float:
        batch = entities.Batch(
            replica_id=0,
            num_requests=len(new),
            num_q_tokens=new,
            num_kv_tokens=kv,
            num_active_kvp_groups=[],
            kvp_group_id=0,
        )
        return float(native.get_execution_time_batch(batch, 0).total_time)

    assert time([1] * 32, [1024] * 32) == pytest.approx(LLAMA.step_time_scalar(32, 1023), rel=1e-6)
    assert time([512], [1024]) == pytest.approx(LLAMA.step_time_scalar(0, 0, 1, 512, 512), rel=1e-6)


def test_dynamo_replays_our_profile(tmp_path: Path) -> None:
    needs("dynamo._core", "ai-dynamo-runtime")
    core = importlib.import_module("dynamo._core")
    path = export_dynamo(LLAMA, tmp_path / "perf_data.npz")
    timing = {"type": "external", "provider": "dynamo_profile", "config": {"path": str(path)}}
    engine = {"backend": "vllm", "num_gpu_blocks": 20_000, "block_size": 16, "timing_model": timing}
    arguments = core._normalize_mocker_config({"engine": engine})
    replay = core.run_mocker_synthetic_trace_replay(
        1024, 128, 8, extra_engine_args=arguments, arrival_interval_ms=3000.0, capture_per_request=True
    )
    summary = replay.summary
    assert summary["completed_requests"] == 8
    one = LLAMA.step_time_scalar(0, 0, 1, 1024) + sum(LLAMA.step_time_scalar(1, 1024 + i) for i in range(127))
    # unloaded requests, 3 s apart: the last one ends one request after its arrival
    assert summary["duration_ms"] == pytest.approx(1e3 * (7 * 3.0 + one), rel=0.005)


def test_sr_sim_fleet_serves_on_our_times() -> None:
    needs("fleet_sim", "vllm-sr-sim")
    fleets = importlib.import_module("fleet_sim.core.fleet")
    requests = importlib.import_module("fleet_sim.core.request")
    protocol = importlib.import_module("fleet_sim.gpu_profiles.protocol")
    profile = MfuroofGpuProfile(LLAMA, cost_per_hr=4.0)
    assert isinstance(profile, protocol.GpuProfile)
    rng, clock, arrivals = np.random.default_rng(0), 0.0, []
    for i in range(400):
        clock += float(rng.exponential(0.05))
        shape = {"l_in": int(rng.integers(50, 3000)), "l_out": int(rng.integers(10, 400))}
        arrivals.append((clock, requests.Request(req_id=i, arrival_time=clock, **shape)))
    pool = fleets.PoolConfig("all", profile, 4, 8192)
    fleet = fleets.Fleet(fleets.FleetConfig([pool], "LengthRouter", {"threshold": 8192}))
    fleet.run(arrivals)
    done = fleet._completed
    assert len(done) == 400
    for r in done:
        assert r.arrival_time <= r.start_time < r.first_token_time < r.physical_end_time
        assert type(r.physical_end_time) is float
    ends = [r.end_time for r in done]
    assert np.isfinite(ends).all()
    first = done[0]
    assert first.first_token_time - first.start_time >= LLAMA.step_time_scalar(0, 0, 1, 1)
