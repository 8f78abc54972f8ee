"""The catalogue: devices by name, with aliases, embedded or a user's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mfuroof.errors import InputError, MfuroofWarning, Problem, UnknownNameError, nearest_names
from mfuroof.hardware.parse import FIGURES, FORMAT, Entry, read_entries
from mfuroof.hardware.record import Hardware
from mfuroof.units import GB, GIB, TB, TERA

__all__ = ["EMBEDDED", "Catalogue", "catalogue_document", "get_hardware", "known_hardware", "load_catalogue"]

EMBEDDED = Path(__file__).with_name("gpus.json")
"""File of the embedded devices."""
_SPARSE_RATIO = 3.0
"""FP8 above this multiple of bf16 is the figure with 2:4 sparsity: dense FP8 is never more than twice bf16."""


class Catalogue(Mapping[str, Hardware]):
    """Devices by identifier; `find` also knows aliases and ignores case and punctuation.

    Parameters
    ----------
    entries
        Devices with their aliases and notes.
    origin
        Where they come from, for messages.

    Raises
    ------
    InputError
        If two devices answer to one name.
    """

    def __init__(self, entries: Iterable[Entry], origin: str = "catalogue") -> None:
        self.origin = origin
        self._entries = {e.hardware.name: e for e in entries}
        self._ids: dict[str, str] = {}
        for name, entry in self._entries.items():
            for alias in (name, *entry.aliases):
                other = self._ids.setdefault(_fold(alias), name)
                if other != name:
                    raise InputError(
                        Problem(f"{origin}: {name}", f"the name {alias!r}", f"one that {other} does not have")
                    )

    def __getitem__(self, name: str) -> Hardware:
        return self._entries[name].hardware

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str) -> Hardware | None:
        """Return the device of that name or alias, None if there is none."""
        device = self._ids.get(_fold(str(name)))
        return None if device is None else self[device]

    def near(self, name: str) -> tuple[str, ...]:
        """Return the devices that have a name or alias like ``name``."""
        names = {alias: device for device in self for alias in (device, *self.aliases(device))}
        return tuple(dict.fromkeys(names[n] for n in nearest_names(name, names)))

    def aliases(self, name: str) -> tuple[str, ...]:
        """Return the other names of a device."""
        return self._entries[name].aliases

    def notes(self, name: str) -> tuple[str, ...]:
        """Return the remarks on a device."""
        return self._entries[name].notes

    def __repr__(self) -> str:
        return f"Catalogue({self.origin}: {', '.join(self)})"


@cache
def _embedded() -> Catalogue:
    return Catalogue(read_entries(EMBEDDED), "embedded catalogue")


def known_hardware() -> tuple[str, ...]:
    """Return the identifiers of the embedded devices."""
    return tuple(_embedded())


def get_hardware(name: str | Hardware, catalogue: Catalogue | str | Path | None = None) -> Hardware:
    """Return a device by name or alias, whatever the case and punctuation.

    Parameters
    ----------
    name
        For instance ``"h100_sxm"``, ``"H100"``, ``"A100-80"`` or the name that a driver reports; a `Hardware` is
        returned as it is.
    catalogue
        A user's catalogue (or the path of one) to be searched before the embedded one.

    Returns
    -------
    Hardware
        Figures as in datasheets; change any of them with `dataclasses.replace`.

    Raises
    ------
    UnknownNameError
        If neither catalogue has it; names the nearest.

    Examples
    --------
    >>> get_hardware("A100-80").name
    'a100_sxm'
    """
    if isinstance(name, Hardware):
        return name
    own = load_catalogue(catalogue) if isinstance(catalogue, str | Path) else catalogue
    for devices in (own, _embedded()):
        found = None if devices is None or not isinstance(name, str) else devices.find(name)
        if found is not None:
            return found
    sought = [devices for devices in (own, _embedded()) if devices is not None]
    known = [device for devices in sought for device in devices]
    near = [device for devices in sought for device in devices.near(str(name))]
    raise UnknownNameError("hardware", name, known, "" if nearest_names(str(name), known) else _hint(near))


def _hint(devices: list[str]) -> str:
    return f"(a name of {', '.join(devices)} is near)" if devices else ""


def load_catalogue(path: str | Path) -> Catalogue:
    """Read a user's catalogue, in the layout of the embedded ``gpus.json``.

    Warns
    -----
    MfuroofWarning
        If an FP8 rate looks like the figure with 2:4 sparsity.

    Raises
    ------
    InputError
        If there is no such file, or two devices answer to one name.
    TableFormatError
        If it is no catalogue: names file, device and field of every problem.
    """
    devices = Catalogue(read_entries(path), Path(path).name)
    for name, gpu in devices.items():
        ratio = gpu.peak("fp8") / gpu.peak("bf16")
        if ratio > _SPARSE_RATIO:
            warnings.warn(
                f"{devices.origin}: {name}: fp8_tflops_per_s {gpu.peak('fp8') / TERA:g} is {ratio:.1f} times bf16: "
                "that looks like the sparse figure; it was taken as dense",
                MfuroofWarning,
                stacklevel=2,
            )
    return devices


def catalogue_document(devices: Iterable[Hardware]) -> dict[str, Any]:
    """Return devices in the layout of a catalogue file, ready for `json.dump`; the inverse of `load_catalogue`."""
    return {"format": FORMAT, "devices": {gpu.name: _document(gpu) for gpu in devices}}


def _document(gpu: Hardware) -> dict[str, Any]:
    scale = {"hbm_tb_per_s": TB, "hbm_gib": GIB, "nvlink_gb_per_s": GB, "network_gb_per_s": GB, "pcie_gb_per_s": GB}
    figures: dict[str, Any] = {}
    for key, field in FIGURES.items():
        if field.startswith("peak_flops_per_s."):
            dtype = field.partition(".")[2]
            value = gpu.peak_flops_per_s[dtype] / TERA if dtype in gpu.peak_flops_per_s else None
        else:
            value = getattr(gpu, field)
            value = value / scale[key] if key in scale else value
        if value is not None or field in gpu.sources:
            figures[key] = {"value": value, "sources": list(gpu.sources.get(field, ()))}
    capability = None if gpu.compute_capability is None else list(gpu.compute_capability)
    return {
        "vendor": gpu.vendor,
        "arch": gpu.arch,
        "compute_capability": capability,
        "tables": gpu.tables,
        "aliases": [],
        "figures": figures,
    }


def _fold(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
