"""Measure kernel tables on a device of one's own: plan, journal, tables with provenance, and how two tables compare."""

from mfuroof.collect.audit import audit_collected
from mfuroof.collect.backend import Backend, Clocks, Device, Kernel, Samples
from mfuroof.collect.collection import Collection, collect
from mfuroof.collect.cpu import CpuBackend
from mfuroof.collect.measure import Effort
from mfuroof.collect.point import FAMILIES, Point

__all__ = [
    "FAMILIES",
    "Backend",
    "Clocks",
    "Collection",
    "CpuBackend",
    "Device",
    "Effort",
    "Kernel",
    "Point",
    "Samples",
    "audit_collected",
    "collect",
]
