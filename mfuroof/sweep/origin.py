"""Where the measured tables of a sweep come from, for the metadata of its file."""

from __future__ import annotations

import warnings
from typing import Any

from mfuroof.errors import MfuroofError, MfuroofWarning
from mfuroof.ops.siblings import tables_for
from mfuroof.sweep.definition import Sweep

__all__ = ["table_provenance"]

_FIELDS = ("engine_version", "package", "package_version", "license", "homepage", "date", "rows")


def table_provenance(sweep: Sweep) -> dict[str, Any]:
    """Return ``<gpu>/<family>/<engine>`` -> engine version, source package, licence and date of each table at hand.

    The GPU and engine are those that were measured, also where they stand in for others. Empty where the cost reads
    no tables, or a caller's own.
    """
    out: dict[str, Any] = {}
    if sweep.cost == "constant_mfu" or sweep.tables is not None:
        return out
    for gpu in sweep.gpu:
        for engine in sweep.engine:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", MfuroofWarning)  # the case itself warns
                    tables = tables_for(gpu, engine)
                for family in tables.families:
                    record = tables.provenance(family)
                    out[f"{tables.gpu}/{family}/{tables.engine}"] = {k: record[k] for k in _FIELDS if k in record}
            except MfuroofError:
                continue  # no such tables: the case says so when its turn comes
    return out
