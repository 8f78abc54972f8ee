"""Which measured tables stand for a GPU and an engine: its own, or those of its nearest relative."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

from mfuroof.engines import engine_profile
from mfuroof.errors import MfuroofWarning, MissingTableError
from mfuroof.hardware import Hardware, get_hardware, known_hardware
from mfuroof.tables.store import KernelTables, available, bench_data_root, load_tables

__all__ = ["reference_hardware", "tables_for"]

UNRELATED = 2


def tables_for(hardware: Hardware, engine: str, *, missing: str = "raise") -> KernelTables:
    """Return the embedded tables of a GPU and engine, or of the GPU's nearest relative that was measured.

    A relative is of the same generation (major compute capability), and the nearest in peak rate and bandwidth. What
    is read from it is scaled by the rooflines of both GPUs and marked SUBSTITUTED. An engine that was not measured on
    the GPU is replaced by vLLM, with a warning.

    Raises
    ------
    UnknownNameError
        No such engine.
    MissingTableError
        No GPU of that generation was measured and ``missing`` is ``"raise"``.
    """
    name = engine_profile(engine).tables
    own = hardware.tables or hardware.name
    embedded = available()
    if own in embedded:
        if name in embedded[own]:
            return _open(own, name)
        if not embedded[own]:
            raise MissingTableError(f"any engine on {own}", ())
        other = "vllm" if "vllm" in embedded[own] else next(iter(embedded[own]))
        warnings.warn(
            f"{name} was not measured on {own}: the kernels of {other} stand in", MfuroofWarning, stacklevel=4
        )
        return _open(own, other)
    related = [
        gpu
        for gpu in embedded
        if name in embedded[gpu] and gpu in known_hardware() and _kinship(hardware, get_hardware(gpu)) < UNRELATED
    ]
    if not related and missing != "raise":
        return KernelTables(bench_data_root() / own, own, name)  # an empty folder: everything in it is missing
    if not related:
        measured = sorted(gpu for gpu in embedded if name in embedded[gpu])
        raise MissingTableError(
            f"{hardware.name} ({hardware.arch or 'unknown generation'}), {name}",
            measured,
            'cost="constant_mfu" needs no tables; `tables=` takes those of another GPU.',
        )

    def remoteness(gpu: str) -> tuple[int, float]:
        other = get_hardware(gpu)
        return _kinship(hardware, other), _distance(hardware, other)

    return _open(min(related, key=remoteness), name)


@lru_cache(maxsize=8)
def _open(gpu: str, engine: str) -> KernelTables:
    """Return embedded tables, the same object to every evaluator: what one has read, the next need not read again."""
    return load_tables(gpu, engine)


def reference_hardware(tables: KernelTables, hardware: Hardware) -> Hardware:
    """Return the GPU on which tables were measured: the catalogue's of that name, else the one that is asked for."""
    return get_hardware(tables.gpu) if tables.gpu in known_hardware() else hardware


def _kinship(a: Hardware, b: Hardware) -> int:
    """Return how far apart two GPUs are in kind: 0 one chip family, 1 one generation by name or number, else 2."""
    if a.compute_capability is None or b.compute_capability is None or not a.arch or not b.arch:
        return UNRELATED
    by_name = a.arch.split()[0] == b.arch.split()[0]
    by_number = a.compute_capability[0] == b.compute_capability[0]
    return 2 - int(by_name) - int(by_number)


def _distance(a: Hardware, b: Hardware) -> float:
    """Octaves between two GPUs in bandwidth and 16-bit rate."""
    return math.hypot(
        math.log2(a.hbm_bytes_per_s / b.hbm_bytes_per_s), math.log2(a.peak("bf16") / b.peak("bf16"))
    )
