"""The device `cuda`: kernels of torch on an NVIDIA GPU; on CPU tensors (`torch-cpu`) the same code tests itself."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mfuroof.collect.backend import Clocks, Device, Kernel, KernelOutOfMemoryError, KernelUnsupportedError, Samples
from mfuroof.collect.clocks import GpuWatch
from mfuroof.collect.point import Point
from mfuroof.errors import InputError, Problem
from mfuroof.units import GIB, KIB, MIB, MS

__all__ = ["TorchBackend"]

ROTATE = 3.0
"""Buffers of one kernel together, in last-level caches."""
MAX_SETS = 2048
MAX_SHARE = 0.3
"""Of the memory, for all sets of buffers of one kernel."""
INSTALL = "Install a GPU build of torch: pip install 'mfuroof[collect]'."
SELF_TEST_MEMORY, SELF_TEST_CACHE = 4.0 * GIB, 64.0 * KIB
"""Of CPU tensors: enough to go through all code, quickly. [bytes]"""
NO_ROOM = ("out of memory", "can't allocate memory", "not enough memory")
NO_KERNEL = (
    *("no available kernel", "no viable", "not supported"),
    *("not implemented", "unsupported", "only supports", "not available"),
)


class TorchBackend:
    """torch on one device.

    Parameters
    ----------
    kind
        ``"cuda"``, or ``"torch-cpu"`` for CPU tensors.

    Raises
    ------
    InputError
        torch is missing, or sees no GPU; the text says what to do.
    """

    def __init__(self, kind: str = "cuda") -> None:
        try:
            import torch
        except ImportError as error:
            raise InputError(Problem(f"device {kind}", "no torch", "torch with a GPU build", INSTALL)) from error
        self.torch: Any = torch
        self.on_gpu = kind == "cuda"
        if self.on_gpu and not torch.cuda.is_available():
            built = f"torch {torch.__version__} (CUDA {torch.version.cuda or 'left out of the build'})"
            remedy = f"Does nvidia-smi list a GPU, is this a GPU build? {INSTALL} --device cpu shows how it works."
            raise InputError(Problem(f"device {kind}", f"{built} that sees no GPU", "an NVIDIA GPU", remedy))
        self.place = torch.device("cuda:0" if self.on_gpu else "cpu")
        torch.manual_seed(0)
        torch.set_grad_enabled(False)
        if not self.on_gpu:
            torch.set_num_threads(1)  # many threads on tiny shapes wait for one another
        self._watch = GpuWatch(_uuid(torch)) if self.on_gpu else None
        self._device = self._describe(kind)
        self._graph: tuple[Kernel, int, Any] | None = None
        self._eager: Kernel | None = None
        self._comm: Any = None
        self.kept: dict[str, Any] = {}  # what makers keep from point to point: a decoder

    @property
    def device(self) -> Device:
        """The GPU, or this processor under torch."""
        return self._device

    @property
    def families(self) -> tuple[str, ...]:
        """All families; collectives where there are several GPUs, launches on a GPU only."""
        some = ("ceiling", "gemm", "attn_prefill", "attn_decode", "attn_extend", "moe", "elementwise", "steps")
        return (*some, *(("launch",) if self.on_gpu else ()), *(("comm",) if self.device.count > 1 else ()))

    def variants(self, family: str) -> tuple[str, ...]:
        """Kernels that this build of torch, and packages beside it, have."""
        from mfuroof.collect.torch_attention import attention_variants
        from mfuroof.collect.torch_products import product_variants

        if family.startswith("attn_"):
            return attention_variants(self, family)
        if family in ("gemm", "ceiling", "moe"):
            return product_variants(self, family)
        own = {
            "elementwise": ("add", "rms_norm", "gather", "silu_mul"),
            "launch": ("eager", "graph"),
            "comm": ("nccl_fp16",),
        }
        return own.get(family, ("torch",))

    def prepare(self, point: Point) -> Kernel:
        """Allocate and fill what a point needs."""
        from mfuroof.collect import torch_attention, torch_comm, torch_products, torch_small, torch_steps

        makers: dict[str, Callable[[TorchBackend, Point], Kernel]] = {
            "ceiling": torch_products.ceiling,
            "gemm": torch_products.gemm,
            "moe": torch_products.experts,
            "attn_prefill": torch_attention.attention,
            "attn_decode": torch_attention.attention,
            "attn_extend": torch_attention.attention,
            "elementwise": torch_small.elementwise,
            "launch": torch_small.launch,
            "comm": torch_comm.collective,
            "steps": torch_steps.step,
        }
        with self._named_errors():
            kernel = makers[point.family](self, point)

        def check() -> float:
            with self._named_errors():
                return kernel.check()

        return replace(kernel, check=check)

    def time(self, kernel: Kernel, calls: int, samples: int) -> Samples:
        """Time replays of a graph of ``calls`` calls, or calls in a row where the kernel cannot be captured."""
        if not self.on_gpu:
            return self._clocked(kernel, calls, samples)
        with self._named_errors():
            graph = self._captured(kernel, calls)
            replay = graph.replay if graph is not None else lambda: _in_a_row(kernel, calls)
            event = self.torch.cuda.Event
            marks = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(samples)]
            for start, end in marks:  # queued without waiting, so that no sample sees an idle GPU
                start.record()
                replay()
                end.record()
            self.synchronize()
            seconds = tuple(start.elapsed_time(end) * MS / calls for start, end in marks)
        return Samples(seconds, "events" if graph is None else "graph")

    def clocks(self) -> Clocks | None:
        """Return the state of the GPU now."""
        return None if self._watch is None else self._watch.read()

    def alive(self) -> bool:
        """Tell whether the device still computes: an illegal access leaves it unusable for this process."""
        try:
            return bool((self.torch.ones(8, device=self.place) + 1.0).sum().item() == 16.0)
        except Exception:
            return False

    def release(self) -> None:
        """Free the captured graph and, where little memory is left, the caches of the allocator."""
        self._graph = self._eager = None
        if self.on_gpu:
            try:
                if self.torch.cuda.memory_reserved() > 0.5 * self.device.memory_bytes:
                    self.torch.cuda.empty_cache()
            except RuntimeError:  # the device is gone; `alive` says so
                return

    def close(self) -> None:
        """End the processes of collectives."""
        if self._comm is not None:
            self._comm.close()
            self._comm = None

    def comm(self, world: int) -> Any:
        """Return the processes of a collective, started anew for another number of ranks."""
        from mfuroof.collect.torch_comm import Ranks

        if self._comm is None or self._comm.world != world:
            self.close()
            self._comm = Ranks(world, "nccl" if self.on_gpu else "gloo")
        return self._comm

    # ---------------------------------------------------------------- what makers use

    def random(self, *shape: int, dtype: str = "bfloat16") -> Any:
        """Return normal random numbers on the device."""
        return self.torch.randn(*shape, device=self.place, dtype=getattr(self.torch, dtype))

    def sets(self, bytes_of_one: float) -> int:
        """Return how many sets of buffers exceed the last-level cache well, as far as memory allows. [1]"""
        wanted = -(-ROTATE * self.device.cache_bytes // max(bytes_of_one, 1.0))
        room = MAX_SHARE * self.device.memory_bytes // max(bytes_of_one, 1.0)
        return int(max(1, min(wanted, room, MAX_SETS)))

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            self.torch.cuda.synchronize()

    # ---------------------------------------------------------------- timing

    def _clocked(self, kernel: Kernel, calls: int, samples: int) -> Samples:
        seconds = []
        for _ in range(samples):
            start = time.perf_counter()
            _in_a_row(kernel, calls)
            seconds.append((time.perf_counter() - start) / calls)
        return Samples(tuple(seconds), "clock")

    def _captured(self, kernel: Kernel, calls: int) -> Any:
        """Return a graph of ``calls`` calls; None where the kernel cannot be captured."""
        if self._eager is kernel:
            return None
        if self._graph is not None and self._graph[0] is kernel and self._graph[1] == calls:
            return self._graph[2]
        torch = self.torch
        self._graph = None
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate their workspaces outside the capture
            _in_a_row(kernel, min(calls, 3))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                _in_a_row(kernel, calls)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:
            self.synchronize()
            self._eager = kernel
            return None
        graph.replay()
        self._graph = (kernel, calls, graph)
        return graph

    # ---------------------------------------------------------------- what it is

    def _describe(self, kind: str) -> Device:
        torch = self.torch
        software: dict[str, Any] = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "system": platform.platform(),
        }
        if not self.on_gpu:
            software["threads"] = torch.get_num_threads()
            name = platform.processor() or platform.machine()
            return Device(name, kind, SELF_TEST_MEMORY, SELF_TEST_CACHE, 1, software)
        found = torch.cuda.get_device_properties(0)
        software |= {
            "driver": self._watch.driver() if self._watch is not None else "",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(str(n) for n in torch.cuda.nccl.version()) if torch.cuda.device_count() > 1 else None,
            "compute_capability": f"{found.major}.{found.minor}",
            "multiprocessors": found.multi_processor_count,
        }
        cache = float(getattr(found, "L2_cache_size", 64 * MIB))
        return Device(found.name, kind, float(found.total_memory), cache, torch.cuda.device_count(), software)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Tell a lack of memory and a missing kernel from everything else that torch raises."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # torch says of every kernel why another was not taken
                yield
        except (KernelOutOfMemoryError, KernelUnsupportedError):
            raise
        except (self.torch.cuda.OutOfMemoryError, MemoryError) as error:
            raise KernelOutOfMemoryError(str(error)) from error
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            text = str(error).lower()
            if any(mark in text for mark in NO_ROOM):
                raise KernelOutOfMemoryError(str(error)) from error
            if isinstance(error, NotImplementedError) or any(mark in text for mark in NO_KERNEL):
                raise KernelUnsupportedError(str(error)) from error
            raise


def _in_a_row(kernel: Kernel, calls: int) -> None:
    for i in range(calls):
        kernel.run(i)


def _uuid(torch: Any) -> str:
    """Return the driver's identifier of the first visible GPU; "" where torch does not tell."""
    uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    return "" if uuid is None else f"GPU-{str(uuid).removeprefix('GPU-')}"
