"""Writing files so that nothing half-written ever stands under a final name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mfuroof.errors import OutputError

__all__ = ["refuse_irregular", "write_atomically"]


def refuse_irregular(path: Path) -> None:
    """Raise `OutputError` where something that is no regular file stands: a rename would replace a device or a pipe."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OutputError(f"{path}: is no regular file. Choose another place for the output.")


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and rename it into place.

    Raises
    ------
    OutputError
        The file cannot be written; what stood under the name before still does.
    """
    path = Path(path)
    refuse_irregular(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the contents
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # its folder may be the very thing that is wrong
            partial.unlink(missing_ok=True)
        reason = f"{path}: cannot be written: {error.strerror}. Choose another place for the output."
        raise OutputError(reason) from error
