"""A name for this version of the compiled kernels."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from mfuroof._version import __version__

__all__ = ["kernel_stamp"]


@cache
def kernel_stamp() -> str:
    """Return a name of this version of the compiled kernels: package version and a digest of `mfuroof.core`.

    numba's disk cache knows the date of the caller's own file only: ``@njit(cache=True)`` code of yours that calls
    our kernels goes on with the old ones after an upgrade. Close over this text, or give each stamp a cache folder
    of its own (`docs/embedding.md` shows both).
    """
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / "core").glob("*.py")):
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"
