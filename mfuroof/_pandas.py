"""Arrow tables as pandas DataFrames, where pandas is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfuroof.errors import MfuroofError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["data_frame"]


def data_frame(table: pa.Table) -> Any:
    """Return a table as a pandas DataFrame.

    Raises
    ------
    MfuroofError
        pandas is not installed.
    """
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise MfuroofError("to_pandas needs pandas; install it, or use to_arrow") from error
    return table.to_pandas()
