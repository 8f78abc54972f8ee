"""MFU tables as the mfu_table cost asks for them: one GPU of a `BenchData`, under one lookup rule."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mfuroof._types import F64, I64, ArrayLike
from mfuroof.core.sources import MISSING, ROOFLINE, SUBSTITUTED
from mfuroof.costs.token_op import TokenOp
from mfuroof.errors import InputError, MfuroofWarning, MissingTableError, Problem, UnknownNameError
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.lookup import Details
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS, Format
from mfuroof.tables.bench import BenchData
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.bench_layout import FOLDERS
from mfuroof.tables.load import load_bench_data
from mfuroof.tables.peer_blis import ZERO

__all__ = ["PEER_RULES", "TableSource", "open_tables", "or_policy", "without_time"]

PEER_RULES = ("blis_v2", "blis_floor", "infersim")
"""Rules that read the MFU column as written."""


SAME_FIGURE = 2e-4
"""Datasheets round: an H100 has 989.4 or 989.5 TFLOP/s."""


def _fold(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


@dataclass(frozen=True, eq=False)
class TableSource:
    """MFU of kernels on one GPU.

    Attributes
    ----------
    data, gpu
        Tables, and the GPU of them that stands for the hardware.
    hardware, reference
        The GPU that is asked for, and the one the tables were measured on: where they differ, utilisation is held.
    rule
        Rule of `BenchData`: ``params.lookup_rule``, with "linear" (times) for "latency".
    missing, transfer
        Of `CostParams`: what an unmeasured shape gets, and whether the nearest attention configuration stands in.
    gemm_labels
        For tables made of kernels: (format, GPU name its GEMMs are filed under, format that was measured).
    expert_stand_ins
        Grouped GEMMs that were not measured in this shape and dtype but borrowed from others.
    """

    data: BenchData
    gpu: str
    hardware: Hardware
    reference: Hardware
    rule: str
    missing: str
    transfer: bool
    gemm_labels: tuple[tuple[str, str, str], ...] = ()
    expert_stand_ins: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was compiled; read-only mappings become dicts."""
        files = [{f.name: getattr(file, f.name) for f in fields(file)} for file in self.data.files]
        for file in files:
            file["columns"], file["decimals"] = dict(file["columns"]), dict(file["decimals"])
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**own, "data": (self.data.folder, files, self.data.unread, self.data.peaks)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        folder, files, unread, peaks = state["data"]
        for file in files:
            file["columns"], file["decimals"] = MappingProxyType(file["columns"]), MappingProxyType(file["decimals"])
        state["data"] = BenchData(folder, tuple(BenchFile(**file) for file in files), unread, peaks)
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @property
    def peer(self) -> bool:
        """Whether the rule is a peer's own."""
        return self.rule in PEER_RULES

    def gemm_label(self, fmt: Format) -> str:
        """Return the GPU name whose GEMM table serves a storage format."""
        return next((label for name, label, _ in self.gemm_labels if name == fmt.name), self.gpu)

    def measured_format(self, op: TokenOp) -> Format:
        """Return the storage format of the kernels that stand for an operation's."""
        if not self.gemm_labels:
            return FORMATS["fp8"]  # the layout's GEMMs, single and grouped
        measured = {name: other for name, _, other in self.gemm_labels}
        return op.fmt if op.experts is not None else FORMATS[measured.get(op.fmt.name, op.fmt.name)]

    def gemm_peak(self, op: TokenOp) -> float:
        """Return the rate that the recomputed MFU of an operation is relative to. [FLOP/s]"""
        return self.data.peak(self.gpu if op.experts is not None else self.gemm_label(op.fmt), "fp8")

    def gemm(self, fmt: Format, m: ArrayLike, k: int, n: int) -> Details:
        """Return the MFU of Y[m, n] = X[m, k] W[k, n], with source and distance."""
        found = self._details(self.data.gemm_mfu(self.gemm_label(fmt), m, k, n, self.rule, details=True))
        measured = next((other for name, _, other in self.gemm_labels if name == fmt.name), fmt.name)
        return found if measured == fmt.name else _substituted(found)

    def gemm_tokens(self, fmt: Format) -> F64:
        """Return the token counts at which any GEMM was measured, ascending."""
        files = self.data.select(self.gemm_label(fmt), "gemm")
        return np.unique(np.concatenate([f.count("m") for f in files])) if files else np.array([1.0])

    def gemm_blends(self, fmt: Format, k: int, n: int) -> bool:
        """Return whether the MFU is linear between measured token counts: v2 on a site without repeats and zeros."""
        files = self.data.select(self.gemm_label(fmt), "gemm")
        if self.rule != "blis_v2" or not files:
            return False
        rows_k, rows_n, mfu = files[0].count("k"), files[0].count("n"), files[0].columns["mfu"]
        covering = (rows_k >= k) & (rows_n >= n)
        apart = np.where(covering, (rows_k - k) ** 2 + (rows_n - n) ** 2, np.inf)
        size = rows_k**2 + rows_n**2
        site = apart == apart.min() if covering.any() else size == size.max()
        m = files[0].count("m")[site]
        return np.unique(m).size == m.size and float(mfu[site].min()) >= ZERO

    def grouped(self, phase: str, key: dict[str, int], tokens: ArrayLike) -> Details:
        """Return the MFU (2, n) of the experts' up and down projections, with source and distance."""
        found = self.data.grouped_gemm_mfu(self.gpu, phase, **key, tokens=tokens, rule=self.rule, details=True)
        return _substituted(self._details(found)) if self.expert_stand_ins else self._details(found)

    def grouped_tokens(self) -> F64:
        """Return the token counts at which any grouped GEMM was measured, ascending."""
        files = [f for phase in ("prefill", "decode") for f in self.data.select(self.gpu, "grouped_gemm", phase)]
        counts = [f.count(f.layout.axes[0]) for f in files]
        return np.unique(np.concatenate(counts)) if counts else np.array([1.0])

    def _details(self, found: Any) -> Details:
        return Details(np.asarray(found.values, np.float64), np.asarray(found.source), np.asarray(found.distance))


def _substituted(found: Details) -> Details:
    return Details(found.values, np.maximum(found.source, np.uint8(SUBSTITUTED)), found.distance)


def open_tables(
    tables: Any, model: ModelConfig, hardware: Hardware, parallel: Parallel, engine: str, params: CostParams
) -> TableSource:
    """Return the MFU tables of a GPU.

    Parameters
    ----------
    tables
        A `BenchData`, a folder in its layout, a `KernelTables` or a folder of one, or None for the embedded ones;
        measured kernels are turned into MFU tables.

    Raises
    ------
    InputError
        Something else was given.
    UnknownNameError, MissingTableError
        The tables do not have this GPU.
    """
    rule = "linear" if params.lookup_rule == "latency" else params.lookup_rule
    policies = rule, params.missing, params.transfer
    if isinstance(tables, str | Path) and _is_bench_folder(Path(tables)):
        tables = load_bench_data(tables)
    if isinstance(tables, BenchData):
        gpu = _gpu_of(tables, hardware)
        reference = _reference(gpu, hardware)
        if tables.peaks is None and _same_gpu(gpu, reference.name):
            figures = {**reference.peak_flops_per_s, "hbm_bytes_per_s": reference.hbm_bytes_per_s}
            tables = replace(tables, peaks={gpu: figures}, cache={})
        return TableSource(tables, gpu, hardware, reference, *policies)
    from mfuroof.costs.derived_tables import derive
    from mfuroof.engines import engine_profile
    from mfuroof.ops.siblings import reference_hardware, tables_for
    from mfuroof.tables.store import KernelTables, load_tables

    if tables is None:
        tables = tables_for(hardware, engine, missing=params.missing)
    elif isinstance(tables, str | Path):
        tables = load_tables(tables, engine_profile(engine).tables)
    if not isinstance(tables, KernelTables):
        expected = "MFU tables (load_bench_data), kernel tables (load_tables), a folder of either, or None"
        raise InputError(Problem("tables", type(tables).__name__, expected))
    reference = reference_hardware(tables, hardware)
    if params.lookup_rule != "latency" and reference.name != hardware.name:
        # At a seventh of the peak rate (H20 against H100) the MFU of a decode step is not the same: it is memory's.
        missing = f"the {params.lookup_rule} rules on {hardware.name}"
        there = (f"kernels of {tables.gpu}, whose MFU does not carry over",)
        remedy = "Give tables= of this GPU, or take lookup_rule='latency', which holds the resource that binds"
        raise MissingTableError(missing, there, remedy)
    made = derive(tables, model, reference, parallel, params)
    return TableSource(
        made.data, tables.gpu, hardware, reference, *policies, made.gemm_labels, made.expert_stand_ins
    )


def _reference(gpu: str, hardware: Hardware) -> Hardware:
    """Return the GPU whose name a folder has: the catalogue's, or ``hardware`` where that has the same figures."""
    try:
        known = get_hardware(gpu)
    except UnknownNameError:
        return hardware
    figures = [(known.peak(d), hardware.peak(d)) for d in ("bf16", "fp8")]
    figures.append((known.hbm_bytes_per_s, hardware.hbm_bytes_per_s))
    same = all(abs(a / b - 1.0) < SAME_FIGURE for a, b in figures)
    return hardware if same and _same_gpu(gpu, hardware.name) else known


def _is_bench_folder(folder: Path) -> bool:
    csv = [f for root in (folder, folder / "bench_data") for name in FOLDERS for f in (root / name).glob("**/*.csv")]
    return bool(csv)


def _same_gpu(folder: str, name: str) -> bool:
    return _fold(name).startswith(_fold(folder))


def _gpu_of(data: BenchData, hardware: Hardware) -> str:
    """Return the GPU folder that stands for the hardware: the longest its name begins with, or the only one."""
    fitting = [gpu for gpu in data.gpus if _same_gpu(gpu, hardware.name)]
    if fitting:
        return max(fitting, key=len)
    if len(data.gpus) == 1:
        text = f"the tables are of {data.gpus[0]}, not of {hardware.name}: its utilisation is held on these peaks"
        warnings.warn(text, MfuroofWarning, stacklevel=5)
        return data.gpus[0]
    raise UnknownNameError("GPU of the MFU tables", hardware.name, data.gpus)


def or_policy(source: TableSource, read: Any, size: tuple[int, ...]) -> Details:
    """Call ``read``; where no table answers, hold to ``source.missing``: raise, MFU 1 (the roofline), or NaN."""
    try:
        return read()
    except MissingTableError:
        if source.missing == "raise":
            raise
    value, code = (np.nan, MISSING) if source.missing == "nan" else (1.0, ROOFLINE)
    return Details(np.full(size, value), np.full(size, code, np.uint8), np.full(size, np.nan))


def without_time(source: TableSource, found: Details, zero: I64, cell: str) -> Details:
    """Answer queries whose MFU is printed as zero, which gives no time, as ``source.missing`` says.

    Parameters
    ----------
    zero
        Which of the answers.
    cell
        The first of the table's cells that says so, for the report.

    Raises
    ------
    MissingTableError
        ``missing`` is ``"raise"``.

    Warns
    -----
    MfuroofWarning
        Otherwise, once a cell.
    """
    text = f"the MFU of {cell} is printed as 0"
    if source.missing == "raise":
        remedy = 'The tool divides by it; missing="roofline" or "nan" answers, lookup_rule="latency" reads the latency'
        raise MissingTableError(f"a time where {text}", [f"{source.gpu}: a latency in that row"], remedy)
    value, code, what = (np.nan, MISSING, "NaN") if source.missing == "nan" else (1.0, ROOFLINE, "the roofline")
    said: list[str] = source.data.once(("printed as 0", source.missing), list)
    if cell not in said:
        said.append(cell)
        warnings.warn(f"{text}: steps that read it get {what}", MfuroofWarning, stacklevel=4)
    values, sources, distance = (np.array(part) for part in found)
    values[zero] = value
    if sources.size:
        sources[zero], distance[zero] = code, np.nan
    return Details(values, sources, distance)
