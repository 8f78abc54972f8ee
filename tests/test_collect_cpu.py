"""The numpy kernels of the cpu pseudo-device compute what their names say, and their checks notice when they do not."""

from __future__ import annotations

import naive_collect as naive
import numpy as np
import pytest

from mfuroof.collect import CpuBackend, Effort, Point
from mfuroof.collect.backend import KernelOutOfMemoryError, KernelUnsupportedError
from mfuroof.collect.measure import measure
from mfuroof.collect.routing import expert_loads

GQA = {
    "attn_dtype": "bf16",
    "kv_dtype": "bf16",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 0,
}


class Recorder(CpuBackend):
    """Keeps the arrays that kernels are filled with."""

    def __init__(self) -> None:
        super().__init__(cache_bytes=1.0)
        self.arrays: list[np.ndarray] = []

    def random(self, *shape: int) -> np.ndarray:
        self.arrays.append(super().random(*shape))
        return self.arrays[-1]


def prepared(point: Point):
    device = Recorder()
    kernel = device.prepare(point)
    assert kernel.check() <= kernel.tolerance
    return np.array(kernel.run(0)), device.arrays


@pytest.mark.parametrize(
    ("family", "lengths", "new", "total"),
    [
        ("attn_prefill", {"new_tokens": 5}, 5, 5),
        ("attn_decode", {"kv_len": 7}, 1, 7),
        ("attn_extend", {"context_len": 4, "new_tokens": 3}, 3, 7),
    ],
)
def test_attention(family, lengths, new, total):
    found, (query, cache) = prepared(Point.of(family, "numpy", 1, **GQA, batch_size=2, **lengths))
    keys, values = cache[0, 0], cache[1, 0]
    for b in range(2):
        for kv in range(2):
            assert keys[b, kv].shape == (total, 8)
            for g in range(2):  # rows of a group lie one query head after another
                rows = slice(g * new, (g + 1) * new)
                wanted = naive.attention(*(a.tolist() for a in (query[b, kv, rows], keys[b, kv], values[b, kv])))
                assert np.allclose(found[b, kv, rows], wanted, atol=1e-5)


def test_products():
    found, (x, weights) = prepared(Point.of("gemm", "bf16", 1, dtype="bf16", n=6, k=5, m=3))
    wanted = [naive.matvec(weights[0].T.tolist(), row.tolist()) for row in x]
    assert np.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("distribution", ["balanced", "power_law_1.2"])
def test_experts(distribution):
    shape = (4, 2, 6, 8, 2, 1)
    names = ("num_experts", "num_experts_per_tok", "hidden_size", "moe_intermediate_size", "tp_size", "ep_size")
    keys = dict(zip(names, shape, strict=True))
    point = Point.of("moe", "numpy", 1, dtype="bf16", **keys, distribution=distribution, tokens=9)
    found, (x, up, down) = prepared(point)
    up = up * np.float32(6**-0.5)
    expert = np.repeat(np.arange(4), expert_loads(9, 4, 2, 1, distribution))
    for row, e, out in zip(x, expert, found, strict=True):
        both = naive.matvec(up[e].T.tolist(), row.tolist())
        gated = [naive.silu(g) * u for g, u in zip(both[:4], both[4:], strict=True)]
        assert np.allclose(out, naive.matvec(down[e].T.tolist(), gated), atol=1e-4)


def test_elementwise():
    for op in ("add", "rms_norm", "silu_mul"):
        found, (x, y) = prepared(Point.of("elementwise", op, 1, op=op, width=5, tokens=3))
        for row, other, out in zip(x[0], y[0], found, strict=True):
            left, right = row[:5].tolist(), row[5:].tolist()
            wanted = {
                "add": [a + b for a, b in zip(left, other.tolist(), strict=True)],
                "rms_norm": naive.rms_norm(left),
                "silu_mul": [naive.silu(a) * b for a, b in zip(left, right, strict=True)],
            }[op]
            assert np.allclose(out, wanted, atol=1e-5)


def test_copies_and_what_is_not_there():
    device = CpuBackend()
    copy = device.prepare(Point.of("ceiling", "copy", 0, op="copy", dtype="", size=4096))
    assert copy.check() == 0.0
    timing = measure(device, copy, Effort(sample_s=1e-5, samples=3, retries=0))
    assert timing.latency_s > 0 and timing.method == "clock" and timing.samples == 3
    with pytest.raises(KernelUnsupportedError, match="fp8"):
        device.prepare(Point.of("gemm", "fp8_tensor", 1, dtype="fp8", n=8, k=8, m=8))
    with pytest.raises(KernelOutOfMemoryError):
        device.prepare(Point.of("gemm", "bf16", 1, dtype="bf16", n=2**24, k=2**24, m=1))


def test_a_wrong_product_is_noticed(monkeypatch):
    kernel = CpuBackend().prepare(Point.of("gemm", "bf16", 1, dtype="bf16", n=16, k=16, m=4))
    real = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: np.multiply(real(a, b), 1.001, out=out))
    assert kernel.check() > kernel.tolerance
    monkeypatch.setattr(np, "matmul", lambda a, b, out: out)  # writes nothing: the poison stays
    assert not kernel.check() <= kernel.tolerance
