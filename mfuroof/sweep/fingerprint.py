"""What a sweep depends on, so that a run is only ever resumed by the same sweep on the same data."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from mfuroof._version import __version__
from mfuroof.errors import InputError, MfuroofError, MfuroofWarning, Problem
from mfuroof.models.serialize import to_dict
from mfuroof.ops.siblings import tables_for
from mfuroof.sweep.definition import Sweep
from mfuroof.sweep.values import CASE_AXES, label

__all__ = ["difference", "digest", "fingerprint"]

_FEW = 64


def fingerprint(sweep: Sweep, **output: Any) -> dict[str, Any]:
    """Return everything the rows depend on as plain JSON types: the definition, the tables' contents, the versions.

    Parameters
    ----------
    sweep
        The definition.
    **output
        What else decides what is written, such as the detail and the size of partitions.

    Raises
    ------
    InputError
        Tables that can be neither read as files nor serialised.
    """
    from importlib.metadata import version

    out: dict[str, Any] = {}
    for name in CASE_AXES:
        values = getattr(sweep, name)
        few = len(values) <= _FEW
        out[name] = [_named(name, value) for value in values] if few else _long(values, map(repr, values))
    for name, values in sweep.axes.items():
        out[name] = values.tolist() if values.size <= _FEW else _long(values, [values.tobytes()])
    out["together"] = [list(group) for group in sweep.together]
    out["where"] = list(sweep.where)
    out["table"] = None if sweep.table is None else f"{sweep.table.rows} rows #{sweep.table.digest[:16]}"
    out["cost"] = sweep.cost
    out["params"] = {} if sweep.params is None else {k: repr(v) for k, v in sweep.params.changed().items()}
    out["memory_utilization"] = sweep.memory_utilization
    out["measured tables"] = _tables(sweep)
    out["versions"] = {"mfuroof": __version__, **{name: version(name) for name in ("numpy", "numba")}}
    return json.loads(json.dumps(out | output, default=str))


def digest(print_: Mapping[str, Any]) -> str:
    """Return a fingerprint in 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(print_, sort_keys=True).encode()).hexdigest()[:16]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two fingerprints, a short text each."""
    told = []
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed = [k for k in dict.fromkeys((*old, *new)) if old.get(k) != new.get(k)]
            if name == "measured tables":
                told.append(f"{name}: {len(changed)} files changed, {changed[0]} among them")
                continue
            parts = [f"{k} {_short(old.get(k))} there, {_short(new.get(k))} here" for k in changed]
            told.append(f"{name}: {', '.join(parts)}")
        else:
            told.append(f"{name}: {_short(old)} there, {_short(new)} here")
    return told


def _short(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value)) or "none"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _hash(parts: Any) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else str(part).encode())
        whole.update(b"\0")
    return whole.hexdigest()[:16]


def _long(values: Any, parts: Any) -> str:
    return f"{len(values)} values, {values[0]} .. {values[-1]} #{_hash(parts)}"


def _named(name: str, value: Any) -> Any:
    """Return a value as its name, and for a record with a digest of its fields."""
    if value is None or isinstance(value, str | int):
        return label(name, value)
    if name == "model":
        return f"{label(name, value)} #{_hash([json.dumps(to_dict(value), sort_keys=True, default=str)])}"
    if name == "runtime":
        return f"{label(name, value)} #{_hash([sorted(value.precision.to_dict().items())])}"
    parts = []
    for f in fields(value):
        part = getattr(value, f.name)
        parts.append(f"{f.name}={sorted(part.items()) if isinstance(part, Mapping) else repr(part)}")
    return f"{label(name, value)} #{_hash(parts)}"


def _tables(sweep: Sweep) -> dict[str, str]:
    """Return file -> digest of the measured tables the sweep may read."""
    if sweep.cost == "constant_mfu":
        return {}
    source = sweep.tables
    folders: dict[str, Path] = {}
    if source is None:
        for gpu in sweep.gpu:
            for engine in sweep.engine:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", MfuroofWarning)  # the case itself warns
                        found = tables_for(gpu, engine)
                except MfuroofError:
                    continue  # the case says so when its turn comes
                folders[found.gpu] = found.folder
    elif hasattr(source, "folder"):
        folders[source.gpu] = Path(source.folder)
    elif isinstance(source, str | Path):
        folders[Path(source).name] = Path(source)
    else:
        try:
            return {type(source).__name__: _hash([pickle.dumps(source)])}
        except Exception as error:
            expected = "a folder of tables, or tables that can be pickled"
            raise InputError(Problem("tables", type(source).__name__, expected)) from error
    return {f"{name}/{file}": hashed for name, folder in sorted(folders.items()) for file, hashed in _files(folder)}


def _files(folder: Path) -> list[tuple[str, str]]:
    paths = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix in (".parquet", ".csv"))
    return [(str(p.relative_to(folder)) or p.name, _file(p, p.stat().st_size, p.stat().st_mtime_ns)) for p in paths]


@lru_cache(maxsize=4096)
def _file(path: Path, size: int, mtime_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
