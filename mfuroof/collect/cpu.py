"""The pseudo-device `cpu`: numpy in one process, for tests of everything around the measuring and for a first try.

Numbers are float32 and stand under the 16-bit names of the tables, because numpy has no fast 16-bit products; every
provenance record says so. Its tables describe this processor under numpy and nothing else.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfuroof.collect.backend import Clocks, Device, Kernel, KernelOutOfMemoryError, KernelUnsupportedError, Samples
from mfuroof.collect.point import Point
from mfuroof.collect.routing import expert_loads
from mfuroof.units import GIB, MIB

__all__ = ["CpuBackend"]

F32 = NDArray[np.float32]
TOLERANCE = 1e-4
"""float32 against float64: rounding of sums over some thousand products."""
MAX_SETS = 512
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
POOL = 99_991
"""Random numbers drawn; a prime, so that rows of large arrays differ."""


class CpuBackend:
    """numpy on this processor.

    Parameters
    ----------
    cache_bytes
        Buffers of one kernel rotate over this much memory. [bytes]
    clock
        Seconds, monotone; tests hand in their own.
    """

    def __init__(self, cache_bytes: float = 4 * MIB, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._pool = np.random.default_rng(0).standard_normal(POOL, dtype=np.float32)
        threads = {k: v for k in THREADS if (v := os.environ.get(k))}
        software = {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "system": platform.platform(),
            "threads": threads or "as many as the library likes",
            "numbers": "float32, named as the 16-bit format of the tables",
        }
        self._device = Device(_processor(), "cpu", _memory_bytes(), cache_bytes, 1, software)

    @property
    def device(self) -> Device:
        """The processor."""
        return self._device

    @property
    def families(self) -> tuple[str, ...]:
        """All but collectives, launches and whole steps."""
        return ("ceiling", "gemm", "attn_prefill", "attn_decode", "attn_extend", "moe", "elementwise")

    def variants(self, family: str) -> tuple[str, ...]:
        """One kernel each; two ceilings and three elementwise operations."""
        own = {"ceiling": ("copy", "matmul_bf16"), "gemm": ("bf16",), "elementwise": ("add", "rms_norm", "silu_mul")}
        return own.get(family, ("numpy",))

    def prepare(self, point: Point) -> Kernel:
        """Allocate and fill what a point needs."""
        try:
            return _MAKERS[point.family](self, point)
        except MemoryError as error:
            raise KernelOutOfMemoryError(str(error)) from error

    def time(self, kernel: Kernel, calls: int, samples: int) -> Samples:
        """Time calls with the clock of the process."""
        seconds = []
        at = 0
        for _ in range(samples):
            start = self._clock()
            for i in range(at, at + calls):
                kernel.run(i)
            seconds.append((self._clock() - start) / calls)
            at += calls
        return Samples(tuple(seconds), "clock")

    def clocks(self) -> Clocks | None:
        """Return nothing: there is no portable way to read them."""
        return None

    def alive(self) -> bool:
        """Return True: a processor that does not compute says nothing."""
        return True

    def release(self) -> None:
        """Do nothing: arrays go with the kernel."""

    def close(self) -> None:
        """Do nothing."""

    def random(self, *shape: int) -> F32:
        """Return normal random numbers, the same ones over again; `MemoryError` where half the memory is too small."""
        size = math.prod(shape)
        if 4.0 * size > 0.5 * self.device.memory_bytes:  # the system might grant it, and end the process later
            raise MemoryError(f"{4.0 * size / GIB:.3g} GiB for one array")
        self._pool = np.roll(self._pool, 12_345)  # two arrays of a kernel must differ
        return np.resize(self._pool, size).reshape(shape)

    def sets(self, bytes_of_one: float) -> int:
        """Return how many sets of buffers fill the cache. [1]"""
        return int(np.clip(np.ceil(self.device.cache_bytes / max(bytes_of_one, 1.0)), 1, MAX_SETS))

    def copy(self, point: Point) -> Kernel:
        """Copy ``size`` bytes."""
        size = int(point.keys["size"]) // 4
        source, target = self.random(size), np.empty(size, np.float32)
        return Kernel(lambda i: np.copyto(target, source), 1, lambda: _poisoned(target, source, source), 0.0)

    def matmul(self, n: int, k: int, m: int) -> Kernel:
        """Multiply (m, k) by (k, n)."""
        sets = self.sets(4.0 * n * k)
        x, out, weights = self.random(m, k), np.empty((m, n), np.float32), self.random(sets, k, n)

        def run(i: int) -> object:
            return np.matmul(x, weights[i % sets], out=out)

        def check() -> float:
            out.fill(np.nan)
            run(0)
            return relative_error(out, x.astype(np.float64) @ weights[0].astype(np.float64))

        return Kernel(run, sets, check, TOLERANCE)

    def attention(self, point: Point) -> Kernel:
        """Attend causally: ``new`` queries behind ``context`` cached tokens."""
        keys = point.keys
        heads, kv_heads = int(keys["num_attention_heads"]), int(keys["num_key_value_heads"])
        batch, dim = int(keys["batch_size"]), int(keys["head_dim"])
        new = int(keys.get("new_tokens", 1))
        total = int(keys["kv_len"]) if "kv_len" in keys else new + int(keys.get("context_len", 0))
        group = heads // kv_heads
        sets = self.sets(8.0 * batch * kv_heads * total * dim)
        query = self.random(batch, kv_heads, group * new, dim)
        cache = self.random(2, sets, batch, kv_heads, total, dim)
        hidden = np.arange(total)[None, :] > np.arange(total - new, total)[:, None]
        mask = np.where(np.tile(hidden, (group, 1)), np.float32(-np.inf), np.float32(0.0)) if new > 1 else None

        def attend(q: NDArray[np.floating], k: NDArray[np.floating], v: NDArray[np.floating]) -> NDArray[np.floating]:
            scores = q @ k.swapaxes(-1, -2)
            scores *= scores.dtype.type(dim**-0.5)
            if mask is not None:
                scores += mask
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            return np.asarray(scores @ v)

        def check() -> float:
            reference = attend(*(a.astype(np.float64) for a in (query, cache[0, 0], cache[1, 0])))
            return relative_error(attend(query, cache[0, 0], cache[1, 0]), reference)

        return Kernel(lambda i: attend(query, cache[0, i % sets], cache[1, i % sets]), sets, check, TOLERANCE)

    def experts(self, point: Point) -> Kernel:
        """Run the busiest rank's experts one after another."""
        keys = point.keys
        num, top_k, hidden = (int(keys[n]) for n in ("num_experts", "num_experts_per_tok", "hidden_size"))
        width = int(keys["moe_intermediate_size"]) // int(keys["tp_size"])
        loads = expert_loads(int(keys["tokens"]), num, top_k, int(keys["ep_size"]), str(keys["distribution"]))
        ends = np.cumsum(loads)
        x = self.random(int(ends[-1]), hidden)
        up = self.random(loads.size, hidden, 2 * width) * np.float32(hidden**-0.5)  # keeps exp() in range
        down = self.random(loads.size, width, hidden)
        out = np.empty_like(x)

        def layer(rows: NDArray[np.floating], e: int) -> NDArray[np.floating]:
            both = rows @ up[e].astype(rows.dtype, copy=False)
            gate = both[:, :width]
            return np.asarray(gate / (1 + np.exp(-gate)) * both[:, width:] @ down[e].astype(rows.dtype, copy=False))

        def run(i: int) -> object:
            for e in np.flatnonzero(loads):
                rows = slice(ends[e] - loads[e], ends[e])
                out[rows] = layer(x[rows], int(e))
            return out

        def check() -> float:
            out.fill(np.nan)
            run(0)
            starts = ends - loads
            wide = [layer(x[starts[e] : ends[e]].astype(np.float64), e) for e in range(loads.size)]
            return relative_error(out, np.concatenate(wide))

        return Kernel(run, 1, check, TOLERANCE)

    def elementwise(self, point: Point) -> Kernel:
        """Add, normalise or gate rows."""
        op, width, tokens = point.variant, int(point.keys["width"]), int(point.keys["tokens"])
        sets = self.sets(12.0 * width * tokens)
        x, y = self.random(sets, tokens, 2 * width), self.random(sets, tokens, width)

        def apply(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
            gate, other = a[:, :width], a[:, width:]
            if op == "add":
                return gate + b
            if op == "rms_norm":
                return np.asarray(gate / np.sqrt((gate * gate).mean(axis=1, keepdims=True) + 1e-6))
            return np.asarray(gate / (1 + np.exp(-gate)) * other)

        def check() -> float:
            return relative_error(apply(x[0], y[0]), apply(x[0].astype(np.float64), y[0].astype(np.float64)))

        return Kernel(lambda i: apply(x[i % sets], y[i % sets]), sets, check, TOLERANCE)


def relative_error(found: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Return ||found - reference|| / ||reference||; NaN where anything was left unwritten."""
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def _poisoned(target: F32, source: F32, reference: F32) -> float:
    target.fill(np.nan)
    np.copyto(target, source)
    return relative_error(target, reference)


def _gemm(backend: CpuBackend, point: Point) -> Kernel:
    keys = point.keys
    if keys["dtype"] != "bf16":
        raise KernelUnsupportedError(f"numpy has no {keys['dtype']} products")
    return backend.matmul(int(keys["n"]), int(keys["k"]), int(keys["m"]))


def _ceiling(backend: CpuBackend, point: Point) -> Kernel:
    size = int(point.keys["size"])
    return backend.copy(point) if point.keys["op"] == "copy" else backend.matmul(size, size, size)


_MAKERS: dict[str, Callable[[CpuBackend, Point], Kernel]] = {
    "ceiling": _ceiling,
    "gemm": _gemm,
    "attn_prefill": CpuBackend.attention,
    "attn_decode": CpuBackend.attention,
    "attn_extend": CpuBackend.attention,
    "moe": CpuBackend.experts,
    "elementwise": CpuBackend.elementwise,
}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return 8.0 * 2**30
