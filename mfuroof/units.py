"""The only place that holds conversion factors. In memory everything is base SI: seconds, bytes, FLOP/s."""

from __future__ import annotations

__all__ = ["GB", "GIB", "KIB", "MIB", "MS", "NS", "TB", "TERA", "US"]

MS = 1e-3
US = 1e-6
NS = 1e-9
KIB = 2**10
MIB = 2**20
GIB = 2**30
GB = 1e9
TB = 1e12
TERA = 1e12
