"""From the arguments of a `BenchData` method to flat queries of the files that answer them.

Arguments broadcast. Queries of one configuration (heads, widths, ranks) share a file; they are answered together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof import lookup
from mfuroof._boundary import Problems, choice, count_array, spread
from mfuroof._types import F64, ArrayLike
from mfuroof.core.sources import MISSING, SUBSTITUTED
from mfuroof.errors import InputError, MissingTableError, Problem
from mfuroof.precision import canonical_dtype
from mfuroof.tables import peer_blis, peer_infersim
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.bench_read import compile_file, read_mfu
from mfuroof.tables.compile import compile_1d
from mfuroof.tables.work import rank_key

if TYPE_CHECKING:
    from mfuroof.tables.bench import BenchData

__all__ = ["PEER_RULES", "attention", "gated_delta_net", "gemm", "grouped"]

PEER_RULES = ("blis_floor", "blis_v2", "infersim")
MISSING_POLICIES = ("raise", "nearest", "nan")
OPTIONS = {"outside": "clamp", "missing": "raise", "peak_dtype": None, "default_mfu": None, "details": False}


def attention(
    data: BenchData,
    family: str,
    phase: str,
    gpu: str,
    shape: Mapping[str, ArrayLike],
    rule: str,
    dtypes: Mapping[str, str],
    options: Mapping[str, Any],
) -> Any:
    """Answer a query of an attention family; ``shape`` is heads, two widths, tp, then the axes."""
    rules = (*lookup.RULES, *(PEER_RULES if family == "mha" else ("infersim",)))
    rule, chosen = choice("rule", rule, rules), _options(options)
    dtypes = {name: canonical_dtype(dtype) for name, dtype in dtypes.items()}
    columns, form = _counts(shape, minimum={"heads": 1, "tp": 1})
    files = data.select(gpu, family, phase)
    peak = None if rule in PEER_RULES else data.peak(gpu, chosen["peak_dtype"] or "bf16")
    details = chosen["details"]

    def answer(config: tuple[int, ...], at: Sequence[F64]) -> lookup.Details:
        heads, first, second, tp = config
        key = (heads, first, second)
        if rule in PEER_RULES and rule != "infersim":
            return peer_blis.attention(data, gpu, phase, key, tp, at, rule, details)
        if rule == "infersim":
            ranked = (heads // tp, first // tp if family == "mha" else first, second)
            return peer_infersim.attention(data, family, phase, gpu, ranked, at, dtypes, chosen["default_mfu"], details)
        if heads % tp:
            raise InputError(Problem("tp", str(tp), f"a divisor of the {heads} heads"))
        assert peak is not None
        return _generic_attention(data, files, key, tp, at, rule, dtypes, peak, chosen, gpu)

    return _by_configuration(columns, form, 4, answer, details)


def _generic_attention(
    data: BenchData,
    files: tuple[BenchFile, ...],
    key: tuple[int, ...],
    tp: int,
    at: Sequence[F64],
    rule: str,
    dtypes: Mapping[str, str],
    peak: float,
    options: Mapping[str, Any],
    gpu: str,
) -> lookup.Details:
    usable = [f for f in files if not dtypes or f.select(**dtypes).any()]
    file, distance = _file_for(usable, key, tp, options["missing"])
    if file is None and options["missing"] == "nan":
        return _nothing(at[0].size, options["details"])
    if file is None:
        of = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        sought = f"{gpu} attention {'-'.join(map(str, key))} at tp {tp}" + (f" with {of}" if of else "")
        raise MissingTableError(sought, [f.path for f in usable], 'missing="nearest" takes the nearest configuration')
    measured = _measured(data, file, "latency_us", dtypes, {})
    found = read_mfu(measured, at, rule, options["outside"], peak, lambda: data.bandwidth(gpu), options["details"])
    return found if distance == 0.0 or not options["details"] else _substituted(found, distance)


def _file_for(
    files: list[BenchFile], key: tuple[int, ...], tp: int, missing: str
) -> tuple[BenchFile | None, float]:
    """Return the file of a configuration: of this model and tp, else of the same rank, else the nearest."""
    sharded = 2 if files and files[0].layout.family == "mha" else 1
    rank = tuple(max(1, value // tp) if i < sharded else value for i, value in enumerate(key))
    for file in files:
        if file.tp == tp and file.key == key:
            return file, 0.0
    for file in files:
        if rank_key(file) == rank:
            return file, 0.0
    if missing != "nearest" or not files:
        return None, 0.0
    # The nearest configuration by unweighted Euclid over the numbers of one rank; the first by name on a tie.
    distances = [sum((a - b) ** 2 for a, b in zip(rank_key(file), rank, strict=True)) for file in files]
    best = files[int(np.argmin(distances))]
    octaves = [abs(float(np.log2(max(a, 1) / max(b, 1)))) for a, b in zip(rank_key(best), rank, strict=True)]
    return best, max(octaves)


def gemm(data: BenchData, gpu: str, shape: Mapping[str, ArrayLike], rule: str, options: Mapping[str, Any]) -> Any:
    """Answer a query of GEMMs at (m, k, n)."""
    rule, chosen = choice("rule", rule, (*lookup.RULES, *PEER_RULES)), _options(options)
    columns, form = _counts(shape)
    at = [column.astype(np.float64) for column in columns]
    files = data.select(gpu, "gemm")
    if rule == "infersim":
        found = peer_infersim.gemm(data, gpu, at, chosen["default_mfu"], chosen["details"])
    elif rule in PEER_RULES:
        found = peer_blis.gemm(data, gpu, at, rule, chosen["details"])
    elif not files:
        raise MissingTableError(f"{gpu} GEMM", [])
    else:
        measured = _measured(data, files[0], "latency_us", {}, {})
        peak = data.peak(gpu, chosen["peak_dtype"] or "fp8")
        found = read_mfu(measured, at, rule, chosen["outside"], peak, lambda: data.bandwidth(gpu), chosen["details"])
    return _shaped(found, form, chosen["details"])


def grouped(
    data: BenchData,
    gpu: str,
    phase: str,
    key: Mapping[str, int],
    tokens: ArrayLike,
    rule: str,
    options: Mapping[str, Any],
) -> Any:
    """Answer a query of grouped GEMMs: both projections, stacked."""
    rule, chosen = choice("rule", rule, (*lookup.RULES, "infersim")), _options(options)
    phase = choice("phase", phase, ("prefill", "decode"))
    columns, form = _counts({"tokens": tokens})
    problems = Problems()
    whole = {name: problems.positive_int(name, value) for name, value in key.items()}
    problems.raise_if_any()
    at = [columns[0].astype(np.float64)]
    tp = whole.pop("tp")
    local = whole["num_experts"] // max(1, whole["num_gpus"] // tp)
    constants = {**whole, "num_local_experts": local, "intermediate_size": whole["intermediate_size"] // tp}
    files = data.select(gpu, "grouped_gemm", phase)
    both = []
    for projection in ("up", "down"):
        if rule == "infersim":
            default, wanted = chosen["default_mfu"], chosen["details"]
            both.append(peer_infersim.grouped(data, gpu, phase, constants, projection, at, default, wanted))
            continue
        measured = _measured(data, files[0], f"{projection}_proj_us", {}, constants) if files else None
        if measured is not None:
            peak, outside = data.peak(gpu, chosen["peak_dtype"] or "fp8"), chosen["outside"]
            both.append(read_mfu(measured, at, rule, outside, peak, lambda: data.bandwidth(gpu), chosen["details"]))
        elif chosen["missing"] == "nan":
            both.append(_nothing(at[0].size, chosen["details"]))
        else:
            sought = f"{gpu} grouped GEMM {phase} of " + ", ".join(f"{k} {v}" for k, v in constants.items())
            raise MissingTableError(sought, _grouped_keys(files), "the key is exact")
    stacked = lookup.Details(*(np.concatenate(parts) for parts in zip(*both, strict=True)))
    return _shaped(stacked, (2, *form), chosen["details"])


def _grouped_keys(files: tuple[BenchFile, ...]) -> list[str]:
    names = ("num_experts", "num_gpus", "num_local_experts", "num_experts_per_tok", "hidden_size", "intermediate_size")
    keys = {tuple(row) for f in files for row in np.column_stack([f.columns[n] for n in names]).tolist()}
    return ["-".join(map(str, key)) for key in sorted(keys)]


def gated_delta_net(
    data: BenchData,
    gpu: str,
    phase: str,
    key: tuple[int, ...],
    tokens: ArrayLike,
    rule: str,
    options: Mapping[str, Any],
) -> Any:
    """Answer a query of gated delta nets, in seconds."""
    rule, chosen = choice("rule", rule, (*lookup.RULES, "infersim")), _options({"outside": "hold", **options})
    phase = choice("phase", phase, ("prefill", "decode"))
    columns, form = _counts({"tokens": tokens}, minimum={"tokens": 1})
    at = columns[0].astype(np.float64)
    files = data.select(gpu, "gdn", phase)
    file = next((f for f in files if f.key == tuple(key)), None)
    if file is None:
        raise MissingTableError(f"{gpu} gated delta net {phase} {'-'.join(map(str, key))}", [f.path for f in files])
    if rule == "infersim":
        return _shaped(peer_infersim.gated_delta_net(file, at, chosen["details"]), form, chosen["details"])
    total = sum(file.latency_s(c.name) for c in file.layout.columns if c.kind == "time")
    table = compile_1d(file.layout.axes[0], file.count(file.layout.axes[0]), total)
    in_proportion = np.asarray  # the roofline of time in proportion to tokens
    found = lookup.read(table, at, rule=rule, outside=chosen["outside"], roofline=in_proportion, details=True)
    return _shaped(found, form, chosen["details"])


def _measured(
    data: BenchData, file: BenchFile, latency: str, dtypes: Mapping[str, str], constants: Mapping[str, float]
) -> Any:
    key = ("measured", file.path, latency, *sorted(dtypes.items()), *sorted(constants.items()))
    return data.once(key, lambda: compile_file(file, latency, dtypes, constants))


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        choice("option", name, OPTIONS)
    chosen = {**OPTIONS, **given}
    choice("missing policy", chosen["missing"], MISSING_POLICIES)
    if chosen["outside"] is not None:
        choice("outside policy", chosen["outside"], [name for name in lookup.POLICIES if name])
    if chosen["peak_dtype"] is not None:
        chosen["peak_dtype"] = canonical_dtype(chosen["peak_dtype"])
    if chosen["default_mfu"] is not None:
        problems = Problems()
        chosen["default_mfu"] = problems.number("default_mfu", chosen["default_mfu"], 0.0, open_low=True)
        problems.raise_if_any()
    return chosen


def _counts(
    shape: Mapping[str, ArrayLike], minimum: Mapping[str, int] | None = None
) -> tuple[list[np.ndarray[Any, np.dtype[np.int64]]], tuple[int, ...]]:
    """Return every argument as flat int64 of the common shape, and that shape."""
    problems = Problems()
    low = {"heads": 1, **(minimum or {})}
    flat = {name: count_array(name, value, problems, minimum=low.get(name, 0)) for name, value in shape.items()}
    problems.raise_if_any()
    whole, form = spread({name: flat[name].reshape(np.shape(value)) for name, value in shape.items()})
    return list(whole.values()), form


def _by_configuration(
    columns: list[np.ndarray[Any, np.dtype[np.int64]]],
    form: tuple[int, ...],
    width: int,
    answer: Callable[[tuple[int, ...], Sequence[F64]], lookup.Details],
    details: bool,
) -> Any:
    """Answer queries configuration by configuration; the first ``width`` columns are the configuration."""
    size = columns[0].size
    at = [column.astype(np.float64) for column in columns[width:]]
    if size and all((column == column[0]).all() for column in columns[:width]):
        return _shaped(answer(tuple(int(column[0]) for column in columns[:width]), at), form, details)
    out = _nothing(size, details)
    configs, index = np.unique(np.column_stack(columns[:width]), axis=0, return_inverse=True)
    for i, config in enumerate(configs):
        rows = np.flatnonzero(index.reshape(-1) == i)
        found = answer(tuple(int(c) for c in config), [column[rows] for column in at])
        for into, part in zip(out if details else out[:1], found, strict=False):
            into[rows] = part
    return _shaped(out, form, details)


def _nothing(size: int, details: bool) -> lookup.Details:
    described = size if details else 0
    return lookup.Details(np.full(size, np.nan), np.full(described, MISSING, np.uint8), np.full(described, np.nan))


def _substituted(found: lookup.Details, distance: float) -> lookup.Details:
    source = np.where(found.source == MISSING, found.source, np.maximum(found.source, SUBSTITUTED)).astype(np.uint8)
    return lookup.Details(found.values, source, np.fmax(found.distance, distance))


def _shaped(found: Any, form: tuple[int, ...], details: bool) -> Any:
    if not details:
        return np.reshape(found.values, form)[()]
    return lookup.Details(*(np.reshape(part, form)[()] for part in found))
