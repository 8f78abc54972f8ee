"""Where the measured tables of a sweep come from, for the metadata of its file."""

from __future__ import annotations

from typing import Any

from mfuroof.errors import MfuroofError
from mfuroof.sweep.definition import Sweep
from mfuroof.tables.store import load_tables

__all__ = ["table_provenance"]

_FIELDS = ("engine_version", "package", "package_version", "license", "homepage", "date", "rows")


def table_provenance(sweep: Sweep) -> dict[str, Any]:
    """Return ``<gpu>/<family>/<engine>`` -> engine version, source package, licence and date of each table at hand.

    Empty where the cost reads no kernel tables.
    """
    out: dict[str, Any] = {}
    if sweep.cost == "constant_mfu":
        return out
    for gpu in sweep.gpu:
        for engine in sweep.engine:
            try:
                tables = load_tables(gpu.tables or gpu.name, engine)
                for family in tables.families:
                    record = tables.provenance(family)
                    out[f"{tables.gpu}/{family}/{engine}"] = {k: record[k] for k in _FIELDS if k in record}
            except MfuroofError:
                continue  # no such tables: the case says so when its turn comes
    return out
