"""The one place that names numba's options and its extension interface.

Kernels are serial, release the GIL, keep IEEE arithmetic (no fastmath: results must equal the plain-Python
definitions) and are compiled lazily. Explicit signatures are not used: they reject read-only arrays.
``MFUROOF_NUMBA_CACHE=0`` switches the disk cache off.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import config
from numba.extending import intrinsic

__all__ = ["inlined", "jit", "octave", "read"]

F = TypeVar("F", bound=Callable[..., Any])

_CACHE = os.environ.get("MFUROOF_NUMBA_CACHE", "1") != "0"


def jit(function: F) -> F:
    """Compile ``function`` on its first call; cached on disk where the file system allows it."""
    return _compile(function)


def inlined(function: F) -> F:
    """Compile ``function`` into whatever calls it: for the scalar helpers of hot loops.

    Left to itself, LLVM stops inlining at a size that the step kernels exceed, and a call with a dozen arguments a
    step costs a factor of three.
    """
    return _compile(function, forceinline=True)


def _compile(function: F, **more: Any) -> F:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", **more}
    try:
        return numba.njit(cache=_CACHE, **options)(function)
    except RuntimeError:  # no cache locator for this file (for instance inside a zip): compile in each process
        return numba.njit(cache=False, **options)(function)


@inlined
def read(values: Any, at: Any) -> Any:
    """values[at] for ``at`` >= 0: an unsigned index spares the test for a negative one, which costs half the speed."""
    return values[np.uint64(at)]


@intrinsic
def _octave_compiled(typingctx: Any, x: Any) -> Any:
    """Exponent field of a double, unbiased: two instructions where a search would take a dozen."""
    from llvmlite import ir

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(64))
        exponent = builder.ashr(bits, ir.Constant(ir.IntType(64), 52))
        return builder.sub(exponent, ir.Constant(ir.IntType(64), 1023))

    return numba.int64(numba.float64), codegen


def _octave_python(x: float) -> int:
    return -1023 if x == 0.0 else math.frexp(x)[1] - 1


if getattr(config, "DISABLE_JIT", 0):
    octave = _octave_python
else:

    @inlined
    def octave(x: float) -> int:
        """Return floor(log2(x)) for a normal positive ``x``, and -1023 for zero."""
        return _octave_compiled(x)  # type: ignore[call-arg]
