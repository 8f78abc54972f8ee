"""Built-in models: architecture facts of public checkpoints, usable offline."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from mfuroof.errors import UnknownNameError
from mfuroof.models.config import ModelConfig
from mfuroof.models.expand import expand_names

__all__ = ["entry", "get_model", "known_models"]

_SUFFIX = re.compile(r"[-_](instruct|chat|hf|base|it|v0\.1)$", re.IGNORECASE)


@cache
def _data() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for file in sorted(files("mfuroof.models").joinpath("data").iterdir(), key=lambda p: p.name):
        if file.name.endswith(".json"):
            entries.update(json.loads(file.read_text(encoding="utf-8"))["models"])
    return entries


@cache
def _index() -> dict[str, str]:
    """Every spelling, folded, onto its id; exact ids first, then declared aliases, then names without organisation."""
    index = {_fold(i): i for i in _data()}
    for name, e in _data().items():
        for alias in e.get("aliases", ()):
            index.setdefault(_fold(alias), name)
            index.setdefault(_fold(alias.rpartition("/")[2]), name)
    for name in _data():
        short = _fold(name.rpartition("/")[2])
        index.setdefault(short, name)
        for spelling in (short.removeprefix("meta-"), _SUFFIX.sub("", short), _SUFFIX.sub("", _fold(name))):
            index.setdefault(spelling, name)
    return index


def _fold(name: str) -> str:
    return re.sub(r"[-_\s]+", "-", name.strip().lower())


def known_models() -> tuple[str, ...]:
    """Return the ids of all built-in models, sorted."""
    return tuple(sorted(_data(), key=str.lower))


def resolve(name: str) -> str:
    """Return the id of a built-in model from any spelling.

    Case does not matter, the organisation may be left out, and suffixes that do not change the architecture
    (``-Instruct``, ``-Chat``, ``-hf``, ``-Base``, ``-it``) are ignored.

    Raises
    ------
    UnknownNameError
        Nothing of that name; the nearest ids are given.
    """
    index, key = _index(), _fold(name)
    while True:
        for candidate in (key, key.rpartition("/")[2]):
            if candidate in index and (candidate == key or "/" not in key or _same_owner(key, index[candidate])):
                return index[candidate]
        shorter = _SUFFIX.sub("", key)
        if shorter == key:
            known = (*known_models(), *(i.rpartition("/")[2] for i in known_models()))
            raise UnknownNameError("model", name, known, "A folder or a config.json works too.")
        key = shorter


def _same_owner(key: str, name: str) -> bool:
    owners = {name.partition("/")[0].lower(), *(a.partition("/")[0].lower() for a in _data()[name].get("aliases", ()))}
    return key.partition("/")[0] in owners


def entry(name: str) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """Return (id, config, sidecar or None) of a built-in model."""
    found = resolve(name)
    e = _data()[found]
    side = e.get("sidecar")
    return found, expand_names(e["config"]), None if side is None else expand_names(side)


@cache
def _cached(name: str) -> ModelConfig:
    return ModelConfig.from_hf(name)


def get_model(name: str) -> ModelConfig:
    """Return a built-in model by id or alias; built once per process.

    Raises
    ------
    UnknownNameError
        Nothing of that name; the nearest ids are given.
    """
    return _cached(resolve(str(name)))
