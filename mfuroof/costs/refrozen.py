"""Pickling of bound evaluators: arrays come back read-only, so that no kernel is compiled a second time."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfuroof._types import freeze

__all__ = ["Refrozen"]


class Refrozen:
    """A frozen dataclass whose arrays are read-only again after it was pickled."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            array = freeze(value, value.dtype.type) if isinstance(value, np.ndarray) else value
            object.__setattr__(self, name, array)
