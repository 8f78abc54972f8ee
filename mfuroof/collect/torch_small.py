"""Elementwise kernels and launches in torch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mfuroof.collect.backend import Kernel, Samples
from mfuroof.collect.point import Point

if TYPE_CHECKING:
    from mfuroof.collect.torch_backend import TorchBackend

__all__ = ["elementwise", "launch"]

TOLERANCE = 1e-2
CHECKED_ROWS = 32
VOCABULARY = 32_768
"""Rows of the table that a gather reads."""


def elementwise(backend: TorchBackend, point: Point) -> Kernel:
    """Return an addition, a norm, a gather of embeddings or a gated activation over rows."""
    torch = backend.torch
    op, width, tokens = point.variant, int(point.keys["width"]), int(point.keys["tokens"])
    sets = backend.sets(6.0 * width * tokens)
    wide = 2 * width if op == "silu_mul" else width
    x = backend.random(sets, tokens, wide)
    y = backend.random(sets, tokens, width) if op == "add" else backend.random(width)
    table = backend.random(VOCABULARY if backend.on_gpu else 256, width) if op == "gather" else None
    rows = torch.randint(0, len(table), (sets, tokens), device=backend.place) if table is not None else None

    def apply(a: Any, b: Any, i: int) -> Any:
        if op == "add":
            return a + b[i]
        if op == "rms_norm":
            return torch.nn.functional.rms_norm(a, (width,), b, 1e-6)
        if op == "gather":
            assert table is not None and rows is not None
            return torch.index_select(table, 0, rows[i])
        return torch.nn.functional.silu(a[:, :width]) * a[:, width:]

    def check() -> float:
        found = apply(x[0], y, 0)
        if not bool(torch.isfinite(found).all()):
            return float("nan")
        some = torch.linspace(0, tokens - 1, min(tokens, CHECKED_ROWS)).long().to(backend.place)
        if op == "gather":
            assert table is not None and rows is not None
            reference = table[rows[0][some]].float().cpu().double()
        else:
            other = y[:1, some] if op == "add" else y
            reference = apply(x[0][some].float().cpu().double(), other.float().cpu().double(), 0)
        return float((found[some].float().cpu().double() - reference).norm() / reference.norm())

    return Kernel(lambda i: apply(x[i % sets], y, i % sets), sets, check, TOLERANCE)


def launch(backend: TorchBackend, point: Point) -> Kernel:
    """Return a kernel that does next to nothing, started one by one from Python or within a graph."""
    torch = backend.torch
    number = torch.zeros(1, device=backend.place)

    def run(i: int) -> Any:
        return number.add_(1.0)

    def check() -> float:
        number.zero_()
        run(0)
        return abs(float(number.item()) - 1.0)

    def eager(calls: int, samples: int) -> Samples:
        seconds = []
        for _ in range(samples):
            backend.synchronize()
            start = time.perf_counter()
            for i in range(calls):
                run(i)
            backend.synchronize()
            seconds.append((time.perf_counter() - start) / calls)
        return Samples(tuple(seconds), "clock")

    return Kernel(run, 64, check, 0.0, eager if point.variant == "eager" else None)
