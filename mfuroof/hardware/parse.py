"""From a catalogue file to `Hardware` records: one JSON layout for the embedded devices and for a user's own.

The layout, with the units in the names (those of `Hardware.from_figures`)::

    {"format": "mfuroof-gpus-1",
     "devices": {
       "my_gpu": {"vendor": "...", "arch": "...", "compute_capability": [9, 0], "aliases": ["..."], "tables": null,
                  "figures": {"bf16_tflops_per_s": {"value": 400, "sources": ["..."]},
                              "hbm_tb_per_s": {"value": 2, "sources": ["..."]}}}}}

Only these two figures are required; a rate that is absent is not native; a plain number stands for one without sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mfuroof._boundary import Problems
from mfuroof.errors import InputError, Problem, TableFormatError, nearest_names
from mfuroof.hardware.record import Hardware

__all__ = ["FIGURES", "FORMAT", "Entry", "read_entries"]

FORMAT = "mfuroof-gpus-1"

FIGURES = {
    **{f"{d}_tflops_per_s": f"peak_flops_per_s.{d}" for d in ("bf16", "fp16", "fp8", "int8", "fp4", "tf32")},
    "hbm_tb_per_s": "hbm_bytes_per_s",
    "hbm_gib": "hbm_bytes",
    "nvlink_gb_per_s": "nvlink_bytes_per_s",
    "num_nvlink_gpus": "num_nvlink_gpus",
    "network_gb_per_s": "network_bytes_per_s",
    "pcie_gb_per_s": "pcie_bytes_per_s",
    "num_sms": "num_sms",
    "tdp_w": "tdp_w",
}
"""Names of figures in a file, and the field of `Hardware` each becomes."""

_REQUIRED = ("bf16_tflops_per_s", "hbm_tb_per_s")
_TEXTS = ("vendor", "arch", "compute_capability", "tables")
_KEYS = (*_TEXTS, "aliases", "notes", "figures")


class Entry(NamedTuple):
    """One device of a file: the record, its other names, and remarks."""

    hardware: Hardware
    aliases: tuple[str, ...]
    notes: tuple[str, ...]


def read_entries(path: str | Path) -> list[Entry]:
    """Read every device of a catalogue file.

    Raises
    ------
    InputError
        If there is no readable file of that name.
    TableFormatError
        If it is no catalogue; with every problem found, by file, device and field.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(Problem(str(path), f"{type(error).__name__}", "a readable catalogue file in UTF-8")) from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TableFormatError(Problem(str(path), f"no JSON ({error})", "a catalogue in JSON")) from error
    problems = Problems()
    devices = _devices(document, file.name, problems)
    entries = [_entry(name, raw, f"{file.name}: {name}", file.name, problems) for name, raw in devices.items()]
    problems.raise_if_any(TableFormatError)
    return [entry for entry in entries if entry is not None]


def _devices(document: Any, file: str, problems: Problems) -> Mapping[str, Any]:
    if not isinstance(document, dict) or not isinstance(document.get("devices"), dict):
        problems.add(file, type(document).__name__, 'an object with "format" and "devices"')
        return {}
    if document.get("format") != FORMAT:
        problems.add(f"{file}: format", document.get("format"), f'"{FORMAT}"')
    devices: dict[str, Any] = document["devices"]
    return devices


def _entry(name: str, raw: Any, where: str, file: str, problems: Problems) -> Entry | None:
    before = len(problems)
    if not isinstance(raw, dict) or not isinstance(raw.get("figures"), dict):
        problems.add(where, type(raw).__name__, 'an object with "figures"')
        return None
    _unknown_keys(raw, _KEYS, where, problems)
    _unknown_keys(raw["figures"], FIGURES, f"{where}: figures", problems)
    values, sources = _figures(raw["figures"], where, file, problems)
    aliases = _texts(raw.get("aliases", []), f"{where}: aliases", problems)
    notes = _texts(raw.get("notes", []), f"{where}: notes", problems)
    if len(problems) > before:
        return None
    other = {key: raw[key] for key in _TEXTS if raw.get(key) is not None}
    if "fp16_tflops_per_s" not in values:
        values["fp16_tflops_per_s"] = 0.0
    try:
        hardware = Hardware.from_figures(name, **values, **other, sources=sources)
    except InputError as error:
        problems.extend(Problem(f"{where}: {p.where}", p.found, p.expected, p.remedy) for p in error.problems)
        return None
    return Entry(hardware, aliases, notes)


def _figures(
    raw: Mapping[str, Any], where: str, file: str, problems: Problems
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    values: dict[str, Any] = {}
    sources: dict[str, tuple[str, ...]] = {}
    for key in _REQUIRED:
        if key not in raw:
            problems.add(f"{where}: figures.{key}", "nothing", "a figure")
    for key in FIGURES.keys() & raw.keys():
        spot = f"{where}: figures.{key}"
        item = raw[key] if isinstance(raw[key], dict) else {"value": raw[key], "sources": [f"catalogue file {file}"]}
        _unknown_keys(item, ("value", "sources"), spot, problems)
        value = item.get("value")
        optional = key in ("num_sms", "tdp_w")
        if (value is None and not optional) or isinstance(value, bool | str | list | dict):
            problems.add(spot, value, "a number")
            continue
        if value is not None:
            values[key] = value
        sources[FIGURES[key]] = _texts(item.get("sources", []), f"{spot}.sources", problems)
    return values, {field: sources[field] for field in FIGURES.values() if field in sources}


def _texts(value: Any, where: str, problems: Problems) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        problems.add(where, value, "a list of texts")
        return ()
    return tuple(value)


def _unknown_keys(raw: Mapping[str, Any], known: Any, where: str, problems: Problems) -> None:
    for key in raw:
        if key not in known:
            near = nearest_names(str(key), known, count=1)
            hint = f"Did you mean {near[0]}?" if near else ""
            problems.add(f"{where}.{key}", "an unknown key", f"one of {', '.join(known)}", hint)
