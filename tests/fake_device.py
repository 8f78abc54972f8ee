"""A device whose clock follows a formula: what `mfuroof.collect` does with it can be said in advance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from mfuroof.collect import Clocks, CpuBackend, Kernel, Point, Samples
from mfuroof.collect.backend import KernelOutOfMemoryError, KernelUnsupportedError
from mfuroof.collect.grids import CPU

ERROR = 1e-6
"""Of every right result against its reference."""
LAUNCH_S = 5e-6
PEAK_FLOPS_PER_S = 1e11
BYTES_PER_S = 1e10
GRIDS = replace(CPU, copies=(2**18,), products=(192,), kv_lens=((16, 64, 256),), prompts=((1, 16, 64, 256),))


def model_time_s(point: Point) -> float:
    """Launch and roofline of a point, from its shape alone; experts and elementwise kernels are their tokens."""
    k = point.keys
    if point.family == "ceiling":
        size = k["size"]
        return LAUNCH_S + (2 * size / BYTES_PER_S if k["op"] == "copy" else 2 * size**3 / PEAK_FLOPS_PER_S)
    if point.family == "gemm":
        moved = 2 * (k["n"] * k["k"] + k["m"] * (k["n"] + k["k"]))
        return LAUNCH_S + max(2 * k["m"] * k["n"] * k["k"] / PEAK_FLOPS_PER_S, moved / BYTES_PER_S)
    if point.family.startswith("attn"):
        new = k.get("new_tokens", 1)
        total = k.get("kv_len", new + k.get("context_len", 0))
        pairs = new * (total - (new - 1) / 2)
        flops = k["batch_size"] * 4 * k["num_attention_heads"] * k["head_dim"] * pairs
        return LAUNCH_S + flops / (PEAK_FLOPS_PER_S / 8)
    return LAUNCH_S + 1e-8 * k["tokens"]


class FakeDevice(CpuBackend):
    """The cpu pseudo-device with kernels that do nothing and a made-up clock.

    Parameters
    ----------
    oom, wrong, unsupported, broken
        Which points meet that fate.
    factor
        On the time of a point at its n-th visit.
    state
        What `clocks` answers, then nothing.
    dead
        Whether the device computes no more after a failure.
    """

    def __init__(
        self,
        *,
        oom: Callable[[Point], bool] = lambda p: False,
        wrong: Callable[[Point], bool] = lambda p: False,
        unsupported: Callable[[Point], bool] = lambda p: False,
        broken: Callable[[Point], bool] = lambda p: False,
        factor: Callable[[Point, int], float] = lambda p, visit: 1.0,
        state: Iterable[Clocks | None] = (),
        dead: bool = False,
    ) -> None:
        super().__init__(cache_bytes=1.0)
        self.fates = {"oom": oom, "wrong": wrong, "unsupported": unsupported, "broken": broken}
        self.factor, self.state, self.dead = factor, list(state), dead
        self.visits: dict[str, int] = {}
        self.prepared: list[str] = []
        self.released = 0

    def prepare(self, point: Point) -> Kernel:
        self.prepared.append(point.name)
        self.now = point
        self.visits[point.name] = self.visits.get(point.name, 0) + 1
        if self.fates["oom"](point):
            raise KernelOutOfMemoryError("tried to allocate 9 GiB")
        if self.fates["unsupported"](point):
            raise KernelUnsupportedError("no kernel of that kind")
        if self.fates["broken"](point):
            raise RuntimeError("illegal something\nsecond line")
        error = float("nan") if self.fates["wrong"](point) else ERROR
        return Kernel(lambda i: None, 1, lambda: error, 1e-4)

    def time(self, kernel: Kernel, calls: int, samples: int) -> Samples:
        seconds = model_time_s(self.now) * self.factor(self.now, self.visits[self.now.name])
        return Samples((seconds,) * samples, "formula")

    def clocks(self) -> Clocks | None:
        return self.state.pop(0) if self.state else None

    def alive(self) -> bool:
        return not self.dead

    def release(self) -> None:
        self.released += 1
