"""Which reader reads which ``model_type``."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from mfuroof.errors import MfuroofWarning
from mfuroof.models.families.generic import read_generic
from mfuroof.models.families.parts import Architecture
from mfuroof.models.families.traits import TRAITS
from mfuroof.models.fields import Fields

__all__ = ["READERS", "read_architecture"]

Reader = Callable[[Fields], Architecture]

READERS: dict[str, Reader] = dict.fromkeys(TRAITS, read_generic)


def read_architecture(f: Fields) -> Architecture:
    """Return the architecture of a config by its ``model_type``.

    A type that is not in the table is read by its keys with a warning; structural keys that nobody read make it an
    error, so that nothing exotic passes for a plain transformer.
    """
    kind = f.text("model_type")
    reader = READERS.get(kind)
    if reader is None:
        arch = read_generic(f, TRAITS[""], exact=False)
        f.finish()
        text = f"model_type {kind!r} is not known; it was read by its keys, biases and norms may be off"
        warnings.warn(text, MfuroofWarning, stacklevel=4)
        return arch
    arch = reader(f)
    f.finish()
    return arch
