"""A journal becomes tables: `<out>/<gpu>/<family>/<engine>.parquet` with provenance, and what surrounds them."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfuroof._boundary import choice
from mfuroof._files import write_atomically
from mfuroof.collect.outliers import best_results
from mfuroof.collect.point import TABLE_FAMILIES
from mfuroof.collect.steps_file import steps_csv
from mfuroof.collect.summary import (
    ceilings,
    counts,
    device_document,
    elementwise_constants,
    is_processor,
    measured_hardware,
    noise,
)
from mfuroof.errors import OutputError
from mfuroof.tables.quality import beaten_rows
from mfuroof.tables.schema import LATENCY, family, validate
from mfuroof.tables.write import write_table

__all__ = ["ENGINE", "FP8_SCALINGS", "Compiled", "compile_journal"]

ENGINE = "own"
"""Engine name of collected tables."""
FP8_SCALINGS = ("tensor", "row")
"""Which scaling the rows named fp8 are of; the other one stays in the journal."""
MOST_LISTED = 50


@dataclass(frozen=True)
class Compiled:
    """What a journal was compiled into.

    Attributes
    ----------
    folder
        Folder of the GPU: what `tables=` and `load_tables` take.
    rows
        Rows of each table.
    counts
        Points by family and status.
    summary
        What stands in ``collection.json``.
    """

    folder: Path
    rows: dict[str, int]
    counts: dict[str, dict[str, int]]
    summary: dict[str, Any]


def compile_journal(
    records: Sequence[Mapping[str, Any]],
    out: Path,
    gpu: str,
    *,
    fp8_scaling: str = "tensor",
) -> Compiled:
    """Write the tables of a journal's records; repeated with more records, it replaces them.

    Parameters
    ----------
    records
        Lines of a journal, sessions and results.
    out
        Folder of GPU folders.
    gpu
        Name of the GPU's folder: that of the catalogue, for a GPU it knows.
    fp8_scaling
        One of `FP8_SCALINGS`.

    Raises
    ------
    OutputError
        A file cannot be written.
    UnknownNameError
        No such scaling.
    """
    scaling = choice("fp8 scaling", fp8_scaling, FP8_SCALINGS)
    results = [dict(r) for r in records if "status" in r]
    sessions = [dict(r) for r in records if "journal" in r]
    folder = out / gpu
    _make(folder)
    rows: dict[str, int] = {}
    for name in TABLE_FAMILIES:
        mine = [r for r in results if r["family"] == name]
        table, used = _table(mine, name, scaling)
        if table.num_rows:
            record = _provenance(name, gpu, table, used, mine, sessions)
            write_table(table, record, folder / name, ENGINE)
            rows[name] = table.num_rows
    device = sessions[-1]["device"]
    hardware = measured_hardware(results, device, gpu, every_product=is_processor(device))
    if hardware is not None:
        _write_json(folder / "device.json", device_document(hardware))
    if any(r["family"] == "steps" for r in results):
        write_atomically(folder / "steps.csv", steps_csv(results, gpu))
    summary = _summary(results, sessions, gpu, rows)
    write_atomically(folder / "points.parquet", _points(results))
    _write_json(folder / "collection.json", summary)
    return Compiled(folder, rows, counts(results), summary)


def _table(results: list[dict[str, Any]], name: str, scaling: str) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Return the table of a family, and the results that stand in it: of several kernels the fastest."""
    spec = family(name)
    fastest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for result in best_results(results).values():
        wanted = not result["variant"].startswith("fp8_") or result["variant"] == f"fp8_{scaling}"
        if result["status"] == "ok" and wanted:
            key = tuple(result["shape"][column] for column in spec.keys)
            if key not in fastest or result["latency_s"] < fastest[key]["latency_s"]:
                fastest[key] = result
    keys = sorted(fastest)
    columns = {column: [key[i] for key in keys] for i, column in enumerate(spec.keys)}
    used = [fastest[key] for key in keys]
    columns[LATENCY] = [r["latency_s"] for r in used]
    types = {c.name: pa.string() if c.kind == "name" else c.arrow_type for c in spec.columns}
    table = pa.table({c: pa.array(values, types[c]) for c, values in columns.items()})
    return validate(table, name, f"collected {name}"), used


def _provenance(
    name: str,
    gpu: str,
    table: pa.Table,
    used: list[dict[str, Any]],
    results: list[dict[str, Any]],
    sessions: list[dict[str, Any]],
) -> dict[str, Any]:
    statuses = best_results(results).values()
    left_out = [r for r in statuses if r["status"] != "ok"]
    dates = sorted(r["at"] for r in used)
    return {
        "gpu": gpu,
        "engine": ENGINE,
        "family": name,
        "rows": table.num_rows,
        "status": "measured",
        "device": sessions[-1]["device"],
        "mfuroof": sorted({s["mfuroof"] for s in sessions}),
        "commands": list(dict.fromkeys(s["command"] for s in sessions if "command" in s)),
        "first": dates[0],
        "last": dates[-1],
        "kernels": dict(Counter(r["variant"] for r in used).most_common()),
        "methods": dict(Counter(r["method"] for r in used).most_common()),
        "largest_error_against_reference": max(r.get("error", 0.0) for r in used),
        "noise": noise(used),
        "measured_again": sum(r["retries"] > 0 or bool(r.get("again")) for r in used),
        "clocks": _clocks(used),
        "left_out": dict(Counter(r["status"] for r in left_out)),
        "left_out_points": [f"{r['point']}: {r['status']} {r.get('text', '')}".strip() for r in left_out][:MOST_LISTED],
        "quality": beaten_rows(table, name),
    }


def _clocks(used: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the range of the clocks seen, and how often the device was held back; "unreadable" where none were."""
    seen = [r["clocks"] for r in used if r.get("clocks")]
    if not seen:
        return {"sm_mhz": "unreadable"}
    out: dict[str, Any] = {}
    for name in ("sm_mhz", "memory_mhz", "power_w", "temperature_c"):
        values = [c[name] for c in seen if c[name] is not None]
        if values:
            low, median, high = np.percentile(values, (0, 50, 100))
            out[name] = {"lowest": float(low), "median": float(median), "highest": float(high)}
    out["throttle"] = dict(Counter(reason for c in seen for reason in c["throttle"]).most_common())
    return out


def _summary(
    results: list[dict[str, Any]], sessions: list[dict[str, Any]], gpu: str, rows: dict[str, int]
) -> dict[str, Any]:
    found = ceilings(results, every_product=is_processor(sessions[-1]["device"]))
    launches = [r for r in best_results(results).values() if r["family"] == "launch" and r["status"] == "ok"]
    return {
        "gpu": gpu,
        "engine": ENGINE,
        "device": sessions[-1]["device"],
        "sessions": [{k: v for k, v in s.items() if k != "device"} for s in sessions],
        "tables": rows,
        "points": counts(results),
        "noise": noise(results),
        "ceilings": None if found is None else asdict(found),
        "launch_s": {r["variant"]: r["latency_s"] for r in launches},
        "cost_params": elementwise_constants(results, found.bytes_per_s) if found is not None else None,
    }


def _points(results: list[dict[str, Any]]) -> bytes:
    """Return every result as a row of a Parquet file; shapes and clocks are JSON texts."""
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "point": (pa.string(), [r["point"] for r in results]),
        "family": (pa.string(), [r["family"] for r in results]),
        "variant": (pa.string(), [r["variant"] for r in results]),
        "shape": (pa.string(), [json.dumps(r["shape"]) for r in results]),
        "status": (pa.string(), [r["status"] for r in results]),
        LATENCY: (pa.float64(), [r.get(LATENCY) for r in results]),
        "spread": (pa.float64(), [r.get("spread") for r in results]),
        "retries": (pa.int32(), [r.get("retries") for r in results]),
        "error": (pa.float64(), [r.get("error") for r in results]),
        "method": (pa.string(), [r.get("method") for r in results]),
        "clocks": (pa.string(), [json.dumps(r["clocks"]) if r.get("clocks") else None for r in results]),
        "at": (pa.string(), [r["at"] for r in results]),
        "text": (pa.string(), [r.get("text") for r in results]),
    }
    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(v, t) for name, (t, v) in columns.items()}), sink, compression="zstd")
    return sink.getvalue()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror or error}. Choose another folder.") from error


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
