"""Array aliases shared by every layer."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["F64", "I16", "I64", "U8", "ArrayLike", "freeze"]

F64: TypeAlias = NDArray[np.floating[Any]]  # float64 in fact; numpy types 2.0 ** arange no closer
I64: TypeAlias = NDArray[np.int64]
I16: TypeAlias = NDArray[np.int16]
U8: TypeAlias = NDArray[np.uint8]


def freeze(values: ArrayLike, dtype: type = np.float64) -> NDArray[Any]:
    """Return a C-contiguous read-only view of ``values``; the caller's array stays writable.

    One spelling of every array keeps each kernel at one compiled specialisation, and makes a write inside a
    kernel a compile-time error.
    """
    view: NDArray[Any] = np.ascontiguousarray(values, dtype=dtype).view()
    view.flags.writeable = False
    return view
