"""`collect`: everything from a device to audited tables."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfuroof._boundary import Problems
from mfuroof.collect.audit import audit_collected
from mfuroof.collect.backend import Backend
from mfuroof.collect.compile import ENGINE, Compiled, compile_journal
from mfuroof.collect.grids import CPU, GPU, Grids
from mfuroof.collect.journal import Journal
from mfuroof.collect.measure import Effort
from mfuroof.collect.plan import DEFAULT_FAMILIES, LEVELS, plan
from mfuroof.collect.run import JOURNAL, Progress, check_families, run_points
from mfuroof.collect.shapes import ModelShapes, model_shapes
from mfuroof.collect.summary import is_processor, measured_hardware
from mfuroof.errors import InputError, OutputError, Problem, UnknownNameError
from mfuroof.hardware import get_hardware
from mfuroof.models import ModelConfig
from mfuroof.tables.audit_report import AuditReport
from mfuroof.tables.store import load_tables

__all__ = ["MODELS", "SHARDS", "Collection", "collect", "gpu_name"]

MODELS = ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B", "Qwen/Qwen3-32B")
"""Models whose matrices and heads are measured beside the canonical grid; of the first one before the others."""
SHARDS = (1, 2, 4, 8)
"""Tensor-parallel degrees of their shapes, from level 2 on."""


@dataclass(frozen=True)
class Collection:
    """What a call of `collect` has measured and written.

    Attributes
    ----------
    progress
        Points measured, and whether time ran out.
    compiled
        Tables of all sessions so far.
    audit
        What is wrong with them.
    """

    progress: Progress
    compiled: Compiled
    audit: AuditReport


def collect(
    backend: Backend,
    out: str | Path,
    *,
    families: Sequence[str] | None = None,
    minutes: float | None = None,
    resume: bool = False,
    gpu: str | None = None,
    models: Sequence[str | ModelConfig] = MODELS,
    levels: int = LEVELS,
    grids: Grids | None = None,
    fp8_scaling: str = "tensor",
    effort: Effort | None = None,
    session: Mapping[str, Any] | None = None,
    advance: Callable[[int, int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Collection:
    """Measure a device and write its tables.

    Parameters
    ----------
    backend
        The device.
    out
        Folder of the journal, and of a folder with the tables named after the GPU.
    families
        What to collect (`mfuroof.collect.point.FAMILIES`); None: all that the device has but whole steps.
    minutes
        Time to spend, the most valuable points first; None until all are measured. [min]
    resume
        Continue the collection in ``out``; without, a folder that holds one is refused.
    gpu
        Name of the tables' folder; by default the catalogue's name of the device, or its own.
    models
        Models whose shapes are measured; also those whose steps are.
    levels
        How fine the grids become, 0 to 3.
    grids
        Axes; by default those for a GPU, or the small ones for a processor.
    fp8_scaling
        Whether rows named fp8 are scaled per ``"tensor"`` or per ``"row"``.
    effort, session, advance, clock
        As in `mfuroof.collect.run.run_points`.

    Returns
    -------
    Collection
        Also after an interruption (Ctrl-C): tables of what there is.

    Raises
    ------
    InputError, UnknownNameError
        Arguments out of range; a family the device does not have; a collection in ``out`` without ``resume``, or of
        another device.
    OutputError
        The folder cannot be written.
    TableFormatError
        The journal in ``out`` is damaged.
    MfuroofError
        The device computes no more.
    """
    problems = Problems()
    levels = min(problems.positive_int("levels", levels, minimum=0), LEVELS)
    if minutes is not None:
        minutes = problems.number("minutes", minutes, 0.0, 1e6, open_low=True)
    problems.raise_if_any()
    folder = _folder(out, resume)
    name = gpu_name(backend.device.name) if gpu is None else _plain(gpu)
    chosen = check_families(backend, families, DEFAULT_FAMILIES)
    if "steps" in chosen and len(chosen) > 1:
        remedy = "A model's weights and caches leave no memory for anything else."
        raise InputError(Problem("families", ", ".join(chosen), "steps alone, in a run of its own", remedy))
    small = backend.device.kind != "cuda"
    configs = [m if isinstance(m, ModelConfig) else ModelConfig.from_hf(m) for m in models]
    shapes = (ModelShapes((), (), ()),) if small else _shapes(configs)
    steps = ("tiny",) if small else tuple(m.name for m in configs[:1])
    points = plan(chosen, backend, grids or (CPU if small else GPU), shapes, levels, steps)
    with Journal(folder / JOURNAL) as journal:
        try:
            progress = run_points(
                backend,
                points,
                journal,
                minutes=minutes,
                effort=effort,
                session=session,
                advance=advance,
                clock=clock,
            )
        finally:
            backend.close()
        compiled = compile_journal(journal.records, folder, name, fp8_scaling=fp8_scaling)
        device = backend.device.to_dict()
        hardware = measured_hardware(journal.results, device, name)
    report = AuditReport(str(compiled.folder), 0, 0, ())
    if compiled.rows:
        report = audit_collected(load_tables(compiled.folder, ENGINE), hardware, noisy_ceilings=is_processor(device))
    return Collection(progress, compiled, report)


def gpu_name(device: str) -> str:
    """Return the catalogue's name of a device, or a plain form of the driver's.

    Examples
    --------
    >>> gpu_name("NVIDIA H200"), gpu_name("Some (R) Thing 9000")
    ('h200_sxm', 'some_r_thing_9000')
    """
    for name in (device, re.sub(r"^NVIDIA\s+", "", device)):
        try:
            return get_hardware(name).name
        except UnknownNameError:
            continue
    return _plain(device)


def _plain(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")
    if not plain:
        raise InputError(Problem("gpu", repr(name), "a name with letters or digits"))
    return plain


def _shapes(configs: Sequence[ModelConfig]) -> tuple[ModelShapes, ModelShapes]:
    return model_shapes(configs[:1]), model_shapes(configs, SHARDS)


def _folder(out: str | Path, resume: bool) -> Path:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is no folder. Choose another place for the output.")
    if (folder / JOURNAL).exists() and not resume:
        remedy = "--resume (resume=True) continues it; else choose another folder."
        raise InputError(Problem(str(folder), "a collection", "a folder without one", remedy))
    if resume and not (folder / JOURNAL).exists():
        raise InputError(Problem(str(folder), f"no {JOURNAL}", "a collection to continue", "Leave --resume out."))
    return folder
