"""Matrix products in torch: weights at 16 bit and FP8, large squares as ceilings, grouped products of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof.collect.backend import Kernel, KernelUnsupportedError
from mfuroof.collect.point import Point
from mfuroof.collect.routing import expert_loads

if TYPE_CHECKING:
    from mfuroof.collect.torch_backend import TorchBackend

__all__ = ["ceiling", "experts", "gemm", "product_variants"]

TOLERANCE = {"bf16": 1e-2, "fp8": 3e-2}
"""Rounding of the result to bf16; FP8 tensor cores of Hopper accumulate with about 14 bits on top of it."""
EXPERTS_TOLERANCE = 2e-2
"""Two products and an activation, each rounded to bf16."""
CHECKED_ROWS, CHECKED_COLUMNS = 16, 64
"""Part of a result that is compared with float64."""
FIRST_FP8 = (8, 9)
"""Compute capability of the first GPUs with FP8 tensor cores."""


def product_variants(backend: TorchBackend, family: str) -> tuple[str, ...]:
    """Return the products that this device and torch have."""
    torch = backend.torch
    able = not backend.on_gpu or tuple(torch.cuda.get_device_capability(0)) >= FIRST_FP8
    fp8 = able and hasattr(torch, "_scaled_mm") and hasattr(torch, "float8_e4m3fn")
    if family == "moe":
        return ("grouped_mm",) if hasattr(torch, "_grouped_mm") else ()
    if family == "ceiling":
        return ("copy", "matmul_bf16", *(("matmul_fp8",) if fp8 else ()))
    return ("bf16", *(("fp8_tensor", "fp8_row") if fp8 else ()))


def gemm(backend: TorchBackend, point: Point) -> Kernel:
    """Y[m, n] = X[m, k] W[n, k]^T, as a linear layer stores its weights.

    FP8 includes the conversion of X from bf16 with a scale that is known; finding it at run time is not in it.
    """
    n, k, m = (int(point.keys[name]) for name in ("n", "k", "m"))
    return _product(backend, point.variant, n, k, m)


def ceiling(backend: TorchBackend, point: Point) -> Kernel:
    """Return a large copy on the device, or a large square product."""
    torch, size = backend.torch, int(point.keys["size"])
    if point.keys["op"] == "matmul":
        variant = "bf16" if point.keys["dtype"] == "bf16" else "fp8_ready"
        return _product(backend, variant, size, size, size)
    source = backend.random(size // 2)
    target = torch.empty_like(source)

    def check() -> float:
        target.fill_(float("nan"))
        target.copy_(source)
        return 0.0 if bool(torch.equal(target, source)) else float("inf")

    return Kernel(lambda i: target.copy_(source), 1, check, 0.0)


def _product(backend: TorchBackend, variant: str, n: int, k: int, m: int) -> Kernel:
    torch = backend.torch
    fp8 = variant.startswith("fp8")
    sets = backend.sets((1.0 if fp8 else 2.0) * n * k)
    x = backend.random(m, k)
    if not fp8:
        weights = backend.random(sets, n, k)
        out = torch.empty(m, n, device=backend.place, dtype=torch.bfloat16)

        def run(i: int) -> Any:
            return torch.mm(x, weights[i % sets].t(), out=out)

        def check() -> float:
            out.fill_(float("nan"))
            return _error(torch, run(0), x, weights[0])

        return Kernel(run, sets, check, TOLERANCE["bf16"])
    narrow = backend.random(sets, n, k).to(torch.float8_e4m3fn)
    ready = x.to(torch.float8_e4m3fn)
    by_row = variant == "fp8_row"
    scale_x = torch.ones((m, 1) if by_row else (), device=backend.place)
    scale_w = torch.ones((1, n) if by_row else (), device=backend.place)

    def run_fp8(i: int) -> Any:
        left = ready if variant == "fp8_ready" else x.to(torch.float8_e4m3fn)
        right = narrow[i % sets].t()
        return torch._scaled_mm(left, right, scale_x, scale_w, out_dtype=torch.bfloat16, use_fast_accum=backend.on_gpu)

    return Kernel(run_fp8, sets, lambda: _error(torch, run_fp8(0), ready, narrow[0]), TOLERANCE["fp8"])


def _error(torch: Any, found: Any, x: Any, weight: Any) -> float:
    """Return the relative error of a sample of x w^T against float64, NaN where any element is not finite."""
    if not bool(torch.isfinite(found).all()):
        return float("nan")
    rows = torch.linspace(0, x.shape[0] - 1, min(CHECKED_ROWS, x.shape[0])).long().to(x.device)
    columns = torch.linspace(0, weight.shape[0] - 1, min(CHECKED_COLUMNS, weight.shape[0])).long().to(x.device)
    wide = [t.to(torch.float32).cpu().double() for t in (x[rows], weight[columns])]
    reference = wide[0] @ wide[1].t()
    part = found[rows][:, columns].to(torch.float32).cpu().double()
    return float((part - reference).norm() / reference.norm())


def experts(backend: TorchBackend, point: Point) -> Kernel:
    """Return both grouped products of the busiest rank's experts and the gated activation between them.

    Tokens are sorted by expert already; choosing experts, sorting and adding up are not in it.
    """
    torch, keys = backend.torch, point.keys
    num, top_k, hidden = (int(keys[n]) for n in ("num_experts", "num_experts_per_tok", "hidden_size"))
    width = int(keys["moe_intermediate_size"]) // int(keys["tp_size"])
    loads = expert_loads(int(keys["tokens"]), num, top_k, int(keys["ep_size"]), str(keys["distribution"]))
    if hidden % 8 or width % 8:
        raise KernelUnsupportedError("grouped products want rows of a multiple of 16 bytes")
    ends = np.cumsum(loads)
    offsets = torch.tensor(ends, dtype=torch.int32, device=backend.place)
    x = backend.random(int(ends[-1]), hidden)
    sets = backend.sets(6.0 * loads.size * hidden * width)
    up = backend.random(sets, loads.size, 2 * width, hidden) * hidden**-0.5
    down = backend.random(sets, loads.size, hidden, width) * width**-0.5

    def run(i: int) -> Any:
        both = torch._grouped_mm(x, up[i % sets].transpose(-2, -1), offs=offsets)
        gated = torch.nn.functional.silu(both[:, :width]).mul_(both[:, width:])
        return torch._grouped_mm(gated, down[i % sets].transpose(-2, -1), offs=offsets)

    def check() -> float:
        found = run(0)
        if not bool(torch.isfinite(found).all()):
            return float("nan")
        busy = np.flatnonzero(loads)
        chosen = busy[np.unique(np.linspace(0, busy.size - 1, min(busy.size, 8)).astype(int))]
        error = norm = 0.0
        for expert in chosen:  # first and last row of some experts: an offset that is off by one shows
            for row in {int(ends[expert] - loads[expert]), int(ends[expert]) - 1}:
                wide = [t.float().cpu().double() for t in (x[row], up[0, expert], down[0, expert], found[row])]
                both = wide[1] @ wide[0]
                reference = wide[2] @ (torch.nn.functional.silu(both[:width]) * both[width:])
                error += float((wide[3] - reference).norm() ** 2)
                norm += float(reference.norm() ** 2)
        return float((error / norm) ** 0.5)

    return Kernel(run, sets, check, EXPERTS_TOLERANCE)
