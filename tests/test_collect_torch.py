"""The torch backend: its timing against a simulated GPU, and everything else on CPU tensors where torch is there."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import naive_collect as naive
import numpy as np
import pytest

from mfuroof.collect import Device, Effort, Kernel, Point, collect
from mfuroof.collect.backend import KernelOutOfMemoryError, KernelUnsupportedError
from mfuroof.collect.decoder import ROTARY_BASE, Decoder, StepShape, check_decoder
from mfuroof.collect.grids import CPU
from mfuroof.collect.plan_steps import known_model
from mfuroof.collect.torch_backend import TorchBackend
from mfuroof.errors import ConfigError
from mfuroof.models import get_model

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
GQA = {
    "attn_dtype": "bf16",
    "kv_dtype": "bf16",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 0,
}
MOE = {
    "dtype": "bf16",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "hidden_size": 32,
    "moe_intermediate_size": 64,
    "tp_size": 2,
    "ep_size": 2,
    "tokens": 37,
}


# ------------------------------------------------------------------ timing, without torch


class OutOfMemoryError(RuntimeError):
    pass


class Gpu:
    """Just enough of `torch.cuda`: kernels take a microsecond each, within a graph as well as outside."""

    def __init__(self) -> None:
        self.now_us = 0.0
        self.capturing: list[int] | None = None
        self.captured = self.replayed = 0
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                assert gpu.capturing is None
                self.at = gpu.now_us

            def elapsed_time(self, end: Event) -> float:
                return (end.at - self.at) / 1e3

        class CUDAGraph:
            def __init__(self) -> None:
                self.kernels: list[int] = []

            def replay(self) -> None:
                gpu.replayed += 1
                gpu.now_us += len(self.kernels)

        @contextmanager
        def graph(captured):
            gpu.capturing = captured.kernels
            gpu.captured += 1
            try:
                yield
            finally:
                gpu.capturing = None

        stream = SimpleNamespace(wait_stream=lambda other: None)
        self.cuda = SimpleNamespace(
            Event=Event,
            CUDAGraph=CUDAGraph,
            graph=graph,
            Stream=lambda: stream,
            stream=lambda s: nullcontext(),
            current_stream=lambda: stream,
            synchronize=lambda: None,
            OutOfMemoryError=OutOfMemoryError,
            memory_reserved=lambda: 0,
            empty_cache=lambda: None,
        )

    def kernel(self, i: int) -> None:
        if self.capturing is None:
            self.now_us += 1.0
        else:
            self.capturing.append(i)


def backend_on(gpu: Gpu) -> TorchBackend:
    backend = object.__new__(TorchBackend)
    backend.torch, backend.on_gpu = SimpleNamespace(cuda=gpu.cuda), True
    backend._graph = backend._eager = backend._watch = backend._comm = None
    backend._device = Device("simulated", "cuda", 8e9, 5e7)
    return backend


def test_calls_are_captured_once_and_replayed_over_all_sets():
    gpu = Gpu()
    backend = backend_on(gpu)
    kernel = Kernel(gpu.kernel, 3, lambda: 0.0, 0.0)
    found = backend.time(kernel, 6, 5)
    assert found.method == "graph" and found.seconds == pytest.approx([1e-6] * 5)
    assert backend._graph[2].kernels == [0, 1, 2, 3, 4, 5]
    backend.time(kernel, 6, 2)
    assert gpu.captured == 1 and gpu.replayed == 1 + 5 + 2
    backend.time(kernel, 7, 1)
    assert gpu.captured == 2
    backend.release()
    assert backend._graph is None


def test_what_cannot_be_captured_is_timed_by_events():
    gpu = Gpu()

    def stubborn(i: int) -> None:
        if gpu.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        gpu.kernel(i)

    backend = backend_on(gpu)
    kernel = Kernel(stubborn, 1, lambda: 0.0, 0.0)
    found = backend.time(kernel, 4, 3)
    assert found.method == "events" and found.seconds == pytest.approx([1e-6] * 3)
    backend.time(kernel, 4, 3)
    assert gpu.captured == 1  # tried once


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate"), KernelOutOfMemoryError),
        (RuntimeError("CUDA error: out of memory"), KernelOutOfMemoryError),
        (MemoryError(), KernelOutOfMemoryError),
        (RuntimeError("No available kernel. Aborting execution."), KernelUnsupportedError),
        (NotImplementedError("Could not run on this backend"), KernelUnsupportedError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_errors_of_torch_are_told_apart(error, kind):
    def fail(i: int) -> None:
        raise error

    with pytest.raises(kind) as caught:
        backend_on(Gpu()).time(Kernel(fail, 1, lambda: 0.0, 0.0), 1, 1)
    assert type(caught.value) is kind


def test_buffers_outgrow_the_cache_but_not_the_memory():
    backend = backend_on(Gpu())
    assert backend.sets(1e6) == 150  # three caches of 50 MB
    assert backend.sets(4e9) == 1
    assert backend.sets(1.0) == 2048


def test_decoders_are_plain():
    check_decoder(get_model("meta-llama/Llama-3.1-8B"))
    for name in ("deepseek-ai/DeepSeek-V3", "mistralai/Mixtral-8x7B-v0.1"):
        with pytest.raises(ConfigError, match="grouped-query"):
            check_decoder(get_model(name))


# ------------------------------------------------------------------ kernels, on CPU tensors


@pytest.fixture(scope="module")
def on_cpu() -> TorchBackend:
    pytest.importorskip("torch", reason="torch is not installed")
    return TorchBackend("torch-cpu")


POINTS = [
    Point.of("ceiling", "copy", 0, op="copy", dtype="", size=4096),
    Point.of("ceiling", "matmul_fp8", 0, op="matmul", dtype="fp8", size=64),
    Point.of("gemm", "bf16", 1, dtype="bf16", n=48, k=80, m=7),
    Point.of("gemm", "fp8_tensor", 1, dtype="fp8", n=48, k=80, m=7),
    Point.of("gemm", "fp8_row", 1, dtype="fp8", n=48, k=80, m=7),
    Point.of("attn_prefill", "sdpa", 1, **GQA, batch_size=3, new_tokens=21),
    Point.of("attn_decode", "sdpa", 1, **GQA, batch_size=3, kv_len=33),
    Point.of("attn_extend", "sdpa", 1, **GQA, batch_size=1, context_len=18, new_tokens=5),
    Point.of("moe", "grouped_mm", 1, **MOE, distribution="balanced"),
    Point.of("moe", "grouped_mm", 1, **MOE, distribution="power_law_1.2"),
    *(Point.of("elementwise", op, 1, op=op, width=40, tokens=9) for op in ("add", "rms_norm", "gather", "silu_mul")),
]


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{p.family}-{p.variant}")
def test_kernels_equal_their_reference(on_cpu, point):
    kernel = on_cpu.prepare(point)
    assert kernel.check() <= kernel.tolerance
    for i in range(2 * kernel.sets if kernel.sets < 4 else 4):
        kernel.run(i)


@needs_torch
@pytest.mark.slow
def test_wrong_kernels_are_noticed(on_cpu, monkeypatch):
    import torch

    from mfuroof.collect import torch_attention

    product = on_cpu.prepare(POINTS[2])
    real = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, out: real(a, b, out=out).mul_(1.05))
    assert product.check() > product.tolerance
    monkeypatch.setattr(torch, "mm", lambda a, b, out: out)  # writes nothing: the poison stays
    assert not product.check() <= product.tolerance
    query, key, value = (torch.randn(1, 8, 2, 16, dtype=torch.bfloat16) for _ in range(3))
    right = torch_attention.attend_of(torch, "sdpa")(query, key, value)
    assert torch_attention._error(torch, right, query, key, value) < torch_attention.TOLERANCE
    shifted = torch_attention.attend_of(torch, "sdpa")(query, key.roll(1, 1), value)
    assert torch_attention._error(torch, shifted, query, key, value) > torch_attention.TOLERANCE


@needs_torch
@pytest.mark.slow
def test_attention_of_the_reference_is_the_definition(on_cpu):
    import torch

    from mfuroof.collect import torch_attention

    query, key, value = torch.randn(1, 4, 4, 8), torch.randn(1, 9, 2, 8), torch.randn(1, 9, 2, 8)
    found = torch_attention.attend_of(torch, "sdpa")(query, key, value)
    for head in range(4):
        lists = [t[0, :, h].tolist() for t, h in ((query, head), (key, head // 2), (value, head // 2))]
        assert np.allclose(found[0, :, head].numpy(), naive.attention(*lists), atol=1e-5)


@needs_torch
@pytest.mark.slow
def test_the_decoder_computes_what_a_decoder_computes(on_cpu):
    """Two requests decode, one prompt goes on behind its prefix: each token against a token-by-token definition."""
    import torch

    from mfuroof.collect.torch_attention import attend_of

    model = known_model("tiny")
    decoder = Decoder(model, torch, torch.device("cpu"), room_tokens=64)
    for layer in decoder.layers:  # float32, so that the comparison is sharp
        layer.update({name: tensor.float() for name, tensor in layer.items()})
    for name in ("embedding", "head", "norm"):
        setattr(decoder, name, getattr(decoder, name).float())
    shape = StepShape(decode_batch=2, decode_context=3, prefill_batch=1, prefill_new_tokens=4, prefill_context=2)
    ids = torch.arange(shape.tokens) * 7 % model.vocab_size
    before = [{n: layer[n].clone() for n in ("keys", "values")} for layer in decoder.layers]
    logits = decoder.logits(shape, ids, attend_of(torch, "sdpa"))
    assert logits.shape == (3, model.vocab_size)
    weights = [{n: layer[n].tolist() for n in ("qkv", "o", "gate_up", "down")} for layer in decoder.layers]
    sizes = (model.num_attention_heads, model.num_key_value_heads, model.head_dim, ROTARY_BASE)
    requests = (([0], 0, 3), ([1], 4, 3), ([2, 3, 4, 5], 8, 2))  # rows, first slot, cached tokens
    for at, (rows, first, cached) in enumerate(requests):
        caches = [tuple(b[n][first : first + cached].tolist() for n in ("keys", "values")) for b in before]
        for i, row in enumerate(rows):
            embedding, head = decoder.embedding.tolist(), decoder.head.tolist()
            wanted = naive.decoder_token(weights, embedding, head, int(ids[row]), cached + i, caches, *sizes)
        assert np.allclose(logits[at].numpy(), wanted, rtol=0.05, atol=0.05)  # angles are bf16 in both embeddings


@needs_torch
@pytest.mark.slow
def test_a_collection_on_cpu_tensors(on_cpu, tmp_path):
    quick = Effort(sample_s=1e-5, samples=3, retries=0)
    families = ["gemm", "attn_decode", "attn_prefill", "moe"]
    few = replace(CPU, sites=((64,),), tokens=((1, 16),), batches=((1, 2),), kv_lens=((16, 64),), prompts=((16, 64),))
    found = collect(on_cpu, tmp_path / "k", gpu="mine", families=families, levels=1, grids=few, effort=quick)
    assert set(found.progress.counts) == {"ok"}
    assert found.compiled.rows == {"gemm": 4, "attn_decode": 4, "attn_prefill": 4, "moe": 4}
    record = json.loads((found.compiled.folder / "gemm/own.provenance.json").read_text())
    assert record["device"]["software"]["torch"] and record["largest_error_against_reference"] < 1e-2
    steps = collect(on_cpu, tmp_path / "s", gpu="mine", families=["steps"], effort=quick)
    assert steps.compiled.counts == {"steps": {"ok": 3}}
    header, *rows = (steps.compiled.folder / "steps.csv").read_text().splitlines()
    assert header.startswith("model,gpu,engine,tp,decode_batch") and len(rows) == 3
    with pytest.raises(Exception, match="steps alone"):
        collect(on_cpu, tmp_path / "x", families=["steps", "gemm"])


@needs_torch
@pytest.mark.slow
def test_a_paged_cache_is_read_through_its_table(on_cpu, monkeypatch):
    """The package is replaced by a definition: gather each sequence's pages, then attend."""
    import torch

    from mfuroof.collect import torch_attention

    plain = torch_attention.attend_of(torch, "sdpa")

    def with_cache(query, keys, values, cache_seqlens, causal, block_table):
        rows = []
        for b, (pages, length) in enumerate(zip(block_table.long(), cache_seqlens, strict=True)):
            k, v = (store[pages].flatten(0, 1)[None, :length] for store in (keys, values))
            rows.append(plain(query[b : b + 1], k, v))
        return torch.cat(rows)

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_with_kvcache=with_cache))
    for kv_len in (5, 256, 700):
        kernel = on_cpu.prepare(Point.of("attn_decode", "fa2_paged", 1, **GQA, batch_size=3, kv_len=kv_len))
        assert kernel.check() <= kernel.tolerance


@needs_torch
@pytest.mark.slow
def test_the_code_for_gpus_goes_through_a_collection(tmp_path, monkeypatch):
    """CPU tensors stand in for the GPU, replays of a graph for the time of its kernels."""
    import torch

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.at = 0.0

        def record(self) -> None:
            self.at = time.perf_counter()

        def elapsed_time(self, end: Event) -> float:
            return (end.at - self.at) * 1e3

    simulated = Gpu().cuda
    simulated.Event = Event
    simulated.CUDAGraph = lambda: SimpleNamespace(replay=lambda: time.sleep(1e-4))
    simulated.graph = lambda graph: nullcontext()
    simulated.is_available = lambda: True
    simulated.device_count = lambda: 1
    simulated.get_device_capability = lambda i: (9, 0)
    simulated.get_device_properties = lambda i: SimpleNamespace(
        name="NVIDIA H200", major=9, minor=0, multi_processor_count=132, total_memory=4e9, L2_cache_size=2**16, uuid="u"
    )
    place = torch.device("cpu")
    for name, value in vars(simulated).items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "device", lambda name: place)
    backend = TorchBackend("cuda")
    assert backend.device.name == "NVIDIA H200" and "launch" in backend.families
    few = replace(CPU, sites=((64,), (64,)), tokens=((1, 16),), batches=((1, 2),), kv_lens=((16, 64),))
    few = replace(few, prompts=((16,),), copies=(2**12,), products=(64,))
    quick = Effort(sample_s=1e-5, samples=3, retries=0)
    found = collect(backend, tmp_path, grids=few, models=(), levels=2, effort=quick)
    assert found.compiled.folder.name == "h200_sxm"
    counts = found.compiled.counts
    for family in ("ceiling", "launch", "gemm", "moe", "elementwise"):
        assert set(counts[family]) == {"ok"}, family
    for family in ("attn_prefill", "attn_decode", "attn_extend"):  # their kernels exist on GPUs alone
        assert set(counts[family]) == {"unsupported"}, family
    record = json.loads((found.compiled.folder / "gemm/own.provenance.json").read_text())
    assert record["methods"] == {"graph": record["rows"]} and record["kernels"] == {"bf16": 2, "fp8_tensor": 2}


@needs_torch
@pytest.mark.slow
def test_collectives_between_processes(on_cpu):
    from mfuroof.collect.torch_comm import Ranks

    ranks = Ranks(2, "gloo")
    try:
        for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
            assert max(ranks.ask("check", op, 1024, "bf16")) < 5e-3
            one, other = ranks.ask("time", op, 1024, "bf16", 2, 3)
            assert len(one) == len(other) == 3 and min(*one, *other) > 0
        with pytest.raises(RuntimeError):
            ranks.ask("check", "all_reduce", 1024, "no such type")
    finally:
        ranks.close()
