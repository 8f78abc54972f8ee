"""Where the AIConfigurator files come from: a folder, a wheel, or an installed package that is never imported."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mfuroof.errors import MissingTableError, Problem, TableFormatError

__all__ = ["PackageSource", "SourceFile", "open_source"]

_PACKAGE = "aiconfigurator_core"
_DISTRIBUTION = "aiconfigurator-core"


@dataclass(frozen=True)
class SourceFile:
    """One file of the package as read: its table, its path inside the package and its SHA-256."""

    table: pa.Table
    path: str
    sha256: str


@dataclass(frozen=True)
class PackageSource:
    """Read access to the package's ``systems`` folder by relative path.

    Attributes
    ----------
    root
        The ``systems`` folder, or the wheel file.
    version
        Version of the package, ``"unknown"`` where nothing says it.
    """

    root: Path
    version: str

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of ``systems/<path>``, or None where there is no such file."""
        try:
            if self.root.is_dir():
                return (self.root / path).read_bytes()
            with zipfile.ZipFile(self.root) as wheel:
                return wheel.read(f"{_PACKAGE}/systems/{path}")
        except (FileNotFoundError, NotADirectoryError, KeyError):
            return None
        except (OSError, zipfile.BadZipFile) as error:
            raise _damaged(f"{self.root}: {path}", str(error)) from error

    def read_table(self, path: str) -> SourceFile | None:
        """Return the parquet file ``systems/<path>``, or None where there is none.

        Raises
        ------
        TableFormatError
            The file is there and is no parquet file.
        """
        content = self.read_bytes(path)
        if content is None:
            return None
        try:
            table = pq.read_table(pa.BufferReader(content))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, str(error)) from error
        return SourceFile(table, f"{_PACKAGE}/systems/{path}", hashlib.sha256(content).hexdigest())

    def nccl_version(self, gpu: str) -> str | None:
        """Return the NCCL version the system file of ``gpu`` names, or None."""
        content = self.read_bytes(f"{gpu}.yaml")
        match = re.search(rb"^\s*nccl_version:\s*['\"]?([\w.]+)", content or b"", re.MULTILINE)
        return match.group(1).decode() if match else None


def open_source(path_or_package: str | Path, package_version: str | None = None) -> PackageSource:
    """Find the measurements of AIConfigurator.

    Parameters
    ----------
    path_or_package
        A folder (the package, its ``systems`` folder, or the folder that holds the package), a wheel file, or the name
        of an installed package; the package is located, not imported.
    package_version
        Version to record where the place itself does not say it.

    Raises
    ------
    MissingTableError
        Nothing there looks like the package.
    """
    path = Path(path_or_package)
    if path.is_file():
        match = re.match(rf"{_PACKAGE}-([^-]+)-.*\.whl$", path.name)
        if not match or not zipfile.is_zipfile(path):
            raise _absent(path_or_package)
        return PackageSource(path, match.group(1))
    if path.is_dir():
        for systems in (path, path / "systems", path / _PACKAGE / "systems"):
            if (systems / "data").is_dir():
                return PackageSource(systems, package_version or _version_beside(systems.parent))
        raise _absent(path_or_package)
    systems_folder = _installed(str(path_or_package))
    if systems_folder is None:
        raise _absent(path_or_package)
    return PackageSource(systems_folder, package_version or _version_installed())


def _installed(name: str) -> Path | None:
    module = name.replace("-", "_")
    if not module.isidentifier():
        return None
    spec = importlib.util.find_spec(module)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "systems" / "data").is_dir():
            return Path(place) / "systems"
    return None


def _version_installed() -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _version_beside(package: Path) -> str:
    for info in sorted(package.parent.glob(f"{_PACKAGE}-*.dist-info")):
        return info.name.removeprefix(f"{_PACKAGE}-").removesuffix(".dist-info")
    return "unknown"


def _absent(sought: object) -> MissingTableError:
    remedy = f"Give its folder or its wheel, or install it: pip install {_DISTRIBUTION}"
    return MissingTableError(f"{_DISTRIBUTION} at {str(sought)!r}", (), remedy)


def _damaged(where: str, reason: str) -> TableFormatError:
    first = reason.splitlines()[0] if reason else "empty"
    return TableFormatError(Problem(where, f"an unreadable file ({first})", "a parquet file"))
