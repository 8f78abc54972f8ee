"""Adapters against contract doubles: small stand-ins written from what the simulators ask for, not the simulators."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import types
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import numpy as np
import pytest

from mfuroof.adapters import vidur
from mfuroof.adapters.splitwise import MfuroofPerformanceModel
from mfuroof.adapters.sr_sim import MfuroofGpuProfile
from mfuroof.adapters.vidur_parts import SLOTS
from mfuroof.batch import StepBatch
from mfuroof.embedding import MIN_STEP_S, Embedded
from mfuroof.errors import InputError, MfuroofError, UnknownNameError
from mfuroof.step import StepEvaluator

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
LLAMA = StepEvaluator(MODEL, GPU)

# ------------------------------------------------------------- a double of microsoft/vidur, the upstream dialect


class DoubleExecutionTime:
    """Twenty positional arguments, milliseconds of one layer; the sums as upstream forms them."""

    def __init__(
        self,
        num_layers_per_pipeline_stage: int,
        attention_rope_execution_time: float,
        attention_kv_cache_save_execution_time: float,
        attention_decode_execution_time: float,
        attention_prefill_execution_time: float,
        attention_layer_pre_proj_execution_time: float,
        attention_layer_post_proj_execution_time: float,
        mlp_layer_up_proj_execution_time: float,
        mlp_layer_down_proj_execution_time: float,
        mlp_layer_act_execution_time: float,
        attn_norm_time: float,
        mlp_norm_time: float,
        add_time: float,
        tensor_parallel_communication_time: float,
        pipeline_parallel_communication_time: float,
        schedule_time: float,
        sampler_e2e_time: float,
        prepare_inputs_e2e_time: float,
        process_model_outputs_time: float,
        ray_comm_time: float,
    ) -> None:
        values = dict(locals())
        layers, pp = values.pop("num_layers_per_pipeline_stage"), values.pop("pipeline_parallel_communication_time")
        self.terms = {k: v for k, v in values.items() if k != "self"}
        cpu = schedule_time + sampler_e2e_time + prepare_inputs_e2e_time + process_model_outputs_time + ray_comm_time
        block = sum(self.terms.values()) - cpu + tensor_parallel_communication_time  # counted twice a layer
        self.total_time = (block * layers + pp) * 1e-3 + cpu * 1e-3


class DoublePredictor:
    """The base class: stores what it is given, and has abstract methods that nothing here calls."""

    __abstractmethods__ = frozenset({"_get_attention_rope_execution_time"})

    def __init__(self, predictor_config: Any, replica_config: Any, replica_scheduler_config: Any, metrics_config: Any):
        self._config, self._replica_config = predictor_config, replica_config


class DoubleRegistry:
    found: dict[Any, Any] = {}  # noqa: RUF012

    @classmethod
    def register(cls, key: Any, value: Any) -> None:
        cls.found.setdefault(key, value)


def double(**more: Any) -> Record:
    model = Record(
        num_layers=32,
        num_q_heads=32,
        num_kv_heads=8,
        embedding_dim=4096,
        mlp_hidden_dim=14336,
        vocab_size=128256,
        use_gated_mlp=True,
        **more,
    )
    return Record(
        model_name="m",
        model_config=model,
        tensor_parallel_size=1,
        num_pipeline_stages=1,
        device="h100",
        network_device="",
    )


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules named as Vidur's, with the doubles in them."""
    base_config = type("BaseExecutionTimePredictorConfig", (), {})
    modules = {
        "vidur": {},
        "vidur.config": {"BaseExecutionTimePredictorConfig": base_config},
        "vidur.entities": {"ExecutionTime": DoubleExecutionTime},
        "vidur.execution_time_predictor": {
            "BaseExecutionTimePredictor": DoublePredictor,
            "ExecutionTimePredictorRegistry": DoubleRegistry,
        },
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    vidur.register.cache_clear()
    DoubleRegistry.found.clear()
    yield vidur.register()
    vidur.register.cache_clear()


def request(context: int, prompt: int) -> Record:
    return Record(_num_processed_tokens=context, _is_prefill_complete=context >= prompt, _num_prefill_tokens=prompt)


def predictor(registered: Any, replica: Record, **fields: str) -> Any:
    config_class, cls = registered
    others = {"replica_scheduler_config": None, "metrics_config": None}
    return cls(predictor_config=config_class(**fields), replica_config=replica, **others)


BATCH = Record(
    requests=[request(2047, 1000), request(900, 500), request(512, 1500), request(0, 300)], num_tokens=[1, 1, 512, 300]
)


@pytest.mark.parametrize("cost", ["kernels", "mfu_table", "constant_mfu"])
@pytest.mark.parametrize(("tp", "stages"), [(1, 1), (2, 1), (1, 2)])
def test_upstream_stages_add_up_to_our_step(upstream: Any, cost: str, tp: int, stages: int) -> None:
    replica = double()
    replica.tensor_parallel_size, replica.num_pipeline_stages = tp, stages
    p = predictor(upstream, replica, cost=cost, model=MODEL)
    bound = StepEvaluator(MODEL, GPU, tp, stages, cost=cost)  # type: ignore[arg-type]
    batch = StepBatch.ragged(prefill=[[(512, 512), (0, 300)]], decode=[[2047, 900]], emits=[[False, True]])
    total = sum(p.get_execution_time(BATCH, stage).total_time for stage in range(stages))
    assert total == pytest.approx(bound.step_time(batch)[0], rel=1e-9)


def test_upstream_times_are_python_floats_and_the_same_each_time(upstream: Any) -> None:
    p = predictor(upstream, double())
    first, second = p.get_execution_time(BATCH, 0), p.get_execution_time(BATCH, 0)
    assert type(first.total_time) is float and first.total_time == second.total_time
    assert all(type(v) is float and np.isfinite(v) and v >= 0 for v in first.terms.values())
    assert first.terms["attention_decode_execution_time"] > 0 < first.terms["attention_prefill_execution_time"]
    empty = p.get_execution_time(Record(requests=[], num_tokens=[]), 0)
    assert empty.total_time == pytest.approx(MIN_STEP_S)


def test_upstream_registration(upstream: Any) -> None:
    config_class, cls = upstream
    assert DoubleRegistry.found == {"mfuroof": cls} and str(config_class.get_type()) == "mfuroof"
    assert config_class.get_type() == config_class().get_type() and hash(config_class.get_type())
    assert vidur.register() == upstream
    assert set(SLOTS) and config_class().cost == "kernels"


def test_upstream_devices_and_models(upstream: Any) -> None:
    replica = double()
    p = predictor(upstream, replica)
    assert (
        p.embedded.evaluator.hardware.name == GPU
        and p.embedded.evaluator.model.total_params == LLAMA.model.total_params
    )
    replica.device = "a40"
    with pytest.raises(UnknownNameError, match="config_hardware"):
        predictor(upstream, replica)
    assert predictor(upstream, replica, hardware="a100_sxm").to_dict()["hardware"] == "a100_sxm"


def test_groups_of_a_parallel_batch_take_the_slowest(upstream: Any) -> None:
    p = predictor(upstream, double())
    small = Record(requests=[request(100, 50)], num_tokens=[1])
    both = Record(batch_mapping={0: small, 1: BATCH})
    assert p.get_execution_time(both, 0).total_time == p.get_execution_time(BATCH, 0).total_time


@pytest.mark.skipif(importlib.util.find_spec("vidur") is not None, reason="Vidur is installed")
def test_without_vidur_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    vidur.register.cache_clear()
    with pytest.raises(MfuroofError, match="pip install"):
        vidur.register()
    assert vidur.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# -------------------------------------------------------------------------------------- a double of splitwise-sim


class PromptTask:
    def __init__(self, request: Record) -> None:
        self.request = request


class TokenTask:
    def __init__(self, request: Record, token_size: int = 1) -> None:
        self.request, self.token_size = request, token_size


def instance(model: str = MODEL, gpu: str = GPU, tp: int = 1) -> Record:
    parallelism = Record(tensor_parallelism=tp, pipeline_parallelism=1)
    return Record(model=Record(name=model, parallelism=parallelism), processors=[Record(name=gpu)])


def test_splitwise_iterations() -> None:
    model = MfuroofPerformanceModel()
    prompt = PromptTask(Record(prompt_size=700, generated_tokens=0))
    token = TokenTask(Record(prompt_size=1000, generated_tokens=5))
    t = model.get_iteration_duration([prompt, token], instance())
    assert t == LLAMA.step_time(StepBatch.ragged(prefill=[[(0, 700)]], decode=[[1004]]))[0] and type(t) is float
    assert model.get_iteration_duration([], instance()) > 0
    assert model.get_iteration_duration([token], instance(tp=2)) != model.get_iteration_duration([token], instance())
    assert len(model._bound) == 2


def test_splitwise_whole_tasks() -> None:
    model = MfuroofPerformanceModel(model=MODEL, hardware=GPU)
    here = instance("llama-8b", "h100-80gb")
    prompt = PromptTask(Record(prompt_size=700, generated_tokens=0))
    assert model.get_duration(prompt, [prompt] * 3, here) == LLAMA.step_time_scalar(0, 0, 3, 700)
    token = TokenTask(Record(prompt_size=700, generated_tokens=1), token_size=20)
    steps = [LLAMA.step_time_scalar(2, 700 + i) for i in range(20)]
    assert model.get_duration(token, [token, token], here) == pytest.approx(sum(steps), rel=1e-9)
    with pytest.raises(UnknownNameError):
        MfuroofPerformanceModel().get_duration(prompt, [prompt], instance("no-such-model"))


def test_splitwise_finds_the_model_in_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("performance_model")
    module.get_iteration_duration = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "performance_model", module)
    model = MfuroofPerformanceModel()
    assert module.performance_model is model  # type: ignore[attr-defined]


def test_splitwise_event_loop_moves_on() -> None:
    """An iteration-level loop as splitwise-sim's ORCA instance runs: prompts join, tokens follow, the clock rises."""
    model, here, clock, times = MfuroofPerformanceModel(), instance(), 0.0, []
    waiting = [Record(prompt_size=200 + 100 * i, generated_tokens=0, token_size=5 + i) for i in range(4)]
    running: list[Record] = []
    while waiting or running:
        batch = [TokenTask(r) for r in running]
        joined = [waiting.pop(0)] if waiting else []
        taken = model.get_iteration_duration([*batch, *map(PromptTask, joined)], here)
        clock += taken
        times.append(clock)
        running += joined
        for r in running:
            r.generated_tokens += 1
        running = [r for r in running if r.generated_tokens < r.token_size]
    assert type(clock) is float and (np.diff(times) > 0).all() and len(times) >= 8


# ------------------------------------------------------------------------------------------------------ vllm-sr-sim


def test_profile_prices_averages() -> None:
    g = MfuroofGpuProfile(LLAMA, cost_per_hr=4.0)
    assert g.iter_latency(32, 1000.0) == LLAMA.step_time_scalar(32, 999)
    assert g.prefill_iter_latency(512, 700.0, 5, 1000.0) == LLAMA.step_time_scalar(4, 999, 1, 512, 700)
    assert g.iter_latency(0) == MIN_STEP_S and type(g.iter_latency(np.int64(3), np.float32(10))) is float  # type: ignore[arg-type]
    assert g.total_kv_blks == Embedded(LLAMA).num_kv_blocks(16) > 10_000
    assert g.n_slots(16) == 256 and g.n_slots(8192) == g.total_kv_blks // 512 and g.n_slots(10**9) == 1
    assert g.service_time(1000, 100, 8192) > 100 * g.iter_latency(1, 1000.0)
    assert g.throughput(8192, 1000.0, 100.0) == g.n_slots(8192) / g.service_time(1000, 100, 8192)
    assert g.power_at_concurrency(10) == 0.0
    assert pickle.loads(pickle.dumps(g)).iter_latency(32, 1000.0) == g.iter_latency(32, 1000.0)


def test_profile_without_room_or_with_bad_numbers() -> None:
    for bad in ({"chunk": 0}, {"block_size": 0}, {"cost_per_hr": -1.0}, {"max_num_seqs": 0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            MfuroofGpuProfile(LLAMA, **bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="KV cache"):
        MfuroofGpuProfile(StepEvaluator("meta-llama/Llama-3.1-70B", GPU))


# ------------------------------------------------------------------------------------------------------ event loop


def test_the_example_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "notebooks")  # its cache names it by import
    module = importlib.import_module("event_loop")
    figures = module.main(requests=500, repeats=1)
    assert figures["steps"] > 500 and figures["ttft_p50_s"] > 0.005
    assert figures["tpot_mean_s"] > LLAMA.step_time_scalar(1, 100)
