"""Arguments that a user gives to an engine beside ours, in any spelling."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from mfuroof.errors import InputError, MfuroofWarning, Problem

__all__ = ["UserArgs", "flag_key", "read_user_args", "tokens_of"]

UserArgs = Mapping[str, Any] | Iterable[str] | str | None
"""A mapping from options to values, a list of words, or a line of a shell."""


def flag_key(name: str) -> str:
    """Return what two spellings of an option have in common: ``--a-b``, ``a-b``, ``a_b`` and ``--A_B=`` are one.

    Dotted keys (``--quantization-config.moe``) are those of the option they belong to.
    """
    return name.strip().lstrip("-").partition("=")[0].partition(".")[0].replace("_", "-").lower()


def read_user_args(given: UserArgs, separator: str = "-") -> dict[str, Any]:
    """Return options by the spelling they are passed on with; True stands for an option without value.

    Raises
    ------
    InputError
        A value without an option before it, an empty name, one option twice with different values in a mapping, or
        something that is no mapping, list or text.

    Warns
    -----
    MfuroofWarning
        An option twice with different values in a list: the last one counts, as in argument parsers.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return _of_mapping(given, separator)
    if isinstance(given, str):
        try:
            words = shlex.split(given)
        except ValueError as error:
            raise InputError(Problem("user arguments", repr(given), f"a line a shell can read: {error}")) from error
    elif isinstance(given, Iterable):
        words = [str(word) for word in given]
    else:
        raise InputError(Problem("user arguments", type(given).__name__, "a mapping, a list of words, or a text"))
    return _of_words(words)


def tokens_of(args: Mapping[str, Any]) -> list[str]:
    """Return words of a command line: False and None are left out, mappings become JSON, lists several words."""
    words: list[str] = []
    for flag, value in args.items():
        if value is None or value is False:
            continue
        words.append(flag)
        if value is True:
            continue
        if isinstance(value, Mapping):
            words.append(json.dumps(value, separators=(",", ":")))
        elif isinstance(value, list | tuple):
            words += [str(v) for v in value]
        else:
            words.append(str(value))
    return words


def _of_mapping(given: Mapping[str, Any], separator: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for name, value in given.items():
        bare = str(name).strip().lstrip("-")
        if not bare:
            raise InputError(Problem("user arguments", repr(name), "the name of an option"))
        whole = bare.replace("_", "-").lower()
        if whole in seen:
            if out[seen[whole]] != value:
                raise InputError(Problem(str(name), f"{value!r} and {out[seen[whole]]!r}", "one value for one option"))
            continue
        flag = str(name).strip() if str(name).strip().startswith("-") else "--" + _joined(bare, separator)
        seen[whole] = flag
        out[flag] = value
    return out


def _joined(bare: str, separator: str) -> str:
    head, dot, tail = bare.partition(".")
    return head.replace("_" if separator == "-" else "-", separator) + dot + tail


def _of_words(words: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    seen: dict[str, str] = {}
    flag = ""
    for word in words:
        if not _is_flag(word):
            if not flag:
                raise InputError(Problem("user arguments", repr(word), "an option before its value"))
            before = out[flag]
            out[flag] = word if before is True else [*before, word] if isinstance(before, list) else [before, word]
            continue
        flag, equals, value = word.partition("=")
        if not flag.strip("-"):
            raise InputError(Problem("user arguments", repr(word), "the name of an option"))
        whole = flag.lstrip("-").replace("_", "-").lower()
        if whole in seen:
            out.pop(seen[whole])
            text = f"{flag} is given twice; the last value counts"
            warnings.warn(text, MfuroofWarning, stacklevel=4)
        seen[whole] = flag
        out[flag] = value if equals else True
    return out


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not word.lstrip("-")[:1].isdigit() and word.lstrip("-.")[:1] != "" and (
        not word[1:2].isdigit() and word[1:2] != "."
    )
