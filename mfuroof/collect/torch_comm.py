"""Collectives: one process a GPU, started once for a number of ranks, told over pipes what to time."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfuroof.collect.backend import Kernel, KernelOutOfMemoryError, Samples
from mfuroof.collect.point import Point
from mfuroof.units import MS

if TYPE_CHECKING:
    from mfuroof.collect.torch_backend import TorchBackend

__all__ = ["Ranks", "collective"]

TOLERANCE = 5e-3
"""Sums of a few fp16 numbers."""
START_S = 120.0
"""Time for the processes to find one another. [s]"""


def collective(backend: TorchBackend, point: Point) -> Kernel:
    """Return a collective over the first GPUs of the machine; its time is that of the slowest rank."""
    keys = point.keys
    ranks = backend.comm(int(keys["num_gpus"]))
    what = (str(keys["op"]), int(keys["elements"]), str(keys["dtype"]))

    def check() -> float:
        return max(float(e) for e in ranks.ask("check", *what))

    def timed(calls: int, samples: int) -> Samples:
        answers = ranks.ask("time", *what, calls, samples)
        slowest = tuple(max(times) for times in zip(*answers, strict=True))
        return Samples(slowest, "events" if backend.on_gpu else "clock")

    return Kernel(lambda i: None, 1, check, TOLERANCE, timed)


class Ranks:
    """Processes that run collectives together.

    Parameters
    ----------
    world
        How many.
    library
        ``"nccl"`` on GPUs, ``"gloo"`` on a processor.
    """

    def __init__(self, world: int, library: str) -> None:
        import torch.multiprocessing as mp

        self.world = world
        context = mp.get_context("spawn")
        handle, self._meeting = tempfile.mkstemp(prefix="mfuroof-ranks-")
        os.close(handle)
        Path(self._meeting).unlink()  # the library creates it
        self._pipes, self._processes = [], []
        for rank in range(world):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world, library, self._meeting, theirs), daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)
        self._wait()

    def ask(self, *question: Any) -> list[Any]:
        """Send a question to all ranks and return their answers.

        Raises
        ------
        KernelOutOfMemoryError
            A rank has no room.
        RuntimeError
            A rank fails or is gone.
        """
        for pipe in self._pipes:
            pipe.send(question)
        return self._wait()

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(timeout=10)
            if process.is_alive():
                process.terminate()
        with contextlib.suppress(OSError):
            Path(self._meeting).unlink(missing_ok=True)

    def _wait(self) -> list[Any]:
        answers = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(START_S):
                self.close()
                raise RuntimeError(f"rank {rank} of {self.world} does not answer")
            try:
                answers.append(pipe.recv())
            except EOFError:
                self.close()
                raise RuntimeError(f"rank {rank} of {self.world} has ended") from None
        for kind, value in answers:
            if kind == "oom":
                raise KernelOutOfMemoryError(value)
            if kind == "error":
                raise RuntimeError(value)
        return [value for _, value in answers]


def _serve(rank: int, world: int, library: str, meeting: str, pipe: Any) -> None:
    """Answer questions until there are no more; runs in a process of its own."""
    import torch
    import torch.distributed as dist

    warnings.simplefilter("ignore")  # newer versions rename collectives; the parent has nobody to tell
    on_gpu = library == "nccl"
    place = torch.device(f"cuda:{rank}" if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    dist.init_process_group(library, init_method=f"file://{meeting}", rank=rank, world_size=world)
    pipe.send(("ready", None))
    while (question := pipe.recv()) is not None:
        task, op, elements, dtype, *more = question
        try:
            run, check = _collective(torch, dist, op, elements, dtype, world, rank, place)
            pipe.send(("done", check() if task == "check" else _times(torch, dist, run, on_gpu, *more)))
        except Exception as error:
            pipe.send(("oom" if "out of memory" in str(error).lower() else "error", str(error)))
    dist.destroy_process_group()


def _collective(
    torch: Any, dist: Any, op: str, elements: int, dtype: str, world: int, rank: int, place: Any
) -> tuple[Any, Any]:
    """Return a call of a collective, and a function that says how wrong its result is.

    ``elements`` is the whole vector; where ranks hold parts, each holds its share.
    """
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    share = max(elements // world, 1)

    def part(of_rank: int, size: int) -> Any:
        return torch.full((size,), 1.0 + of_rank, dtype=kind, device=place)

    total = sum(1.0 + r for r in range(world))
    if op == "all_reduce":
        whole = part(rank, elements)

        def check() -> float:
            whole.fill_(1.0 + rank)
            dist.all_reduce(whole)
            return float((whole.float() - total).abs().max()) / total

        numbers = torch.randn(elements, device=place).to(kind)
        # Sums of sums overflow; gloo has no mean.
        mean = dist.ReduceOp.AVG if place.type == "cuda" else dist.ReduceOp.SUM
        return (lambda: dist.all_reduce(numbers, mean)), check
    mine, gathered = part(rank, share), torch.empty(share * world, dtype=kind, device=place)
    if op == "all_gather":
        wanted = torch.cat([part(r, share) for r in range(world)])

        def gather() -> Any:
            return dist.all_gather_into_tensor(gathered, mine)

        return gather, lambda: _difference(gather, gathered, wanted)
    everything = torch.cat([part(rank, share) for _ in range(world)])
    if op == "reduce_scatter":
        result = torch.empty(share, dtype=kind, device=place)

        def scatter() -> Any:
            return dist.reduce_scatter_tensor(result, everything)

        return scatter, lambda: _difference(scatter, result, torch.full_like(result, total))

    def exchange() -> Any:
        return dist.all_to_all_single(gathered, everything)

    return exchange, lambda: _difference(exchange, gathered, torch.cat([part(r, share) for r in range(world)]))


def _difference(run: Any, result: Any, wanted: Any) -> float:
    result.fill_(float("nan"))
    run()
    return float((result.float() - wanted.float()).abs().max() / wanted.float().abs().max())


def _times(torch: Any, dist: Any, run: Any, on_gpu: bool, calls: int, samples: int) -> list[float]:
    """Return seconds of one call, ``samples`` of them; ranks begin each sample together."""
    seconds = []
    for _ in range(samples):
        dist.barrier()
        if on_gpu:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            run()  # fills the queue, so that the events stand between collectives
            start.record()
            for _ in range(calls):
                run()
            end.record()
            torch.cuda.synchronize()
            seconds.append(start.elapsed_time(end) * MS / calls)
        else:
            begun = time.perf_counter()
            for _ in range(calls):
                run()
            seconds.append((time.perf_counter() - begun) / calls)
    return seconds
