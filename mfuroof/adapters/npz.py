"""npz files that small readers in any language can read, byte for byte the same from the same numbers."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._files import write_atomically
from mfuroof._types import ArrayLike

__all__ = ["write_npz"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: no clock in the file


def write_npz(path: str | Path, arrays: Mapping[str, ArrayLike], meta: Mapping[str, Any] | None = None) -> Path:
    """Write arrays as little-endian float64 in C order, stored without compression, and ``meta`` as ``meta.json``.

    The sizes stand in each local header and there is no zip64 record (numpy's own ``savez`` writes one), so a reader
    may walk the file from its first byte.

    Raises
    ------
    OutputError
        The file cannot be written; what stood there before still does.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(values, dtype="<f8"), version=(1, 0))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
        if meta is not None:
            text = json.dumps(dict(meta), indent=1, sort_keys=True)
            archive.writestr(zipfile.ZipInfo("meta.json", _EPOCH), text.encode("ascii"))
    write_atomically(path, buffer.getvalue())
    return Path(path)
