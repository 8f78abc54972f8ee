"""`export`: a bound model as a file that another simulator reads."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from mfuroof._boundary import Problems, choice
from mfuroof.errors import InputError, Problem
from mfuroof.step import StepEvaluator

__all__ = ["FORMATS", "Format", "export"]


class Format(NamedTuple):
    """One format: the module and function that write it, what it is, and what the function calls the limits."""

    module: str
    function: str
    about: str
    limits: tuple[str, str, str]
    """Most new tokens of a step, longest context, most requests of a step; empty where it has no such limit."""


FORMATS = {
    "npz": Format(
        "table",
        "export_table",
        "our own tables, for readers in any language (docs/export-format.md)",
        ("max_tokens", "max_context", "max_decode_batch"),
    ),
    "dynamo": Format(
        "dynamo",
        "export_dynamo",
        "NVIDIA Dynamo's planner profile, an npz of five arrays",
        ("max_prefill_tokens", "max_context", ""),
    ),
    "llmservingsim": Format(
        "llmservingsim",
        "export_llmservingsim",
        "LLMServingSim's bundle of CSV files, a folder",
        ("max_tokens", "max_kv", "max_sequences"),
    ),
    "splitwise": Format(
        "splitwise", "export_splitwise", "splitwise-sim's table, a CSV file", ("max_prompt", "", "max_batch")
    ),
    "vidur": Format(
        "vidur_tables",
        "export_vidur",
        "Vidur's prediction tables, a folder of csv.xz files",
        ("max_tokens", "max_context", "max_batch"),
    ),
}
"""The formats by name."""


def export(evaluator: StepEvaluator, format: str, path: str | Path, **options: Any) -> Path:
    """Write a bound model in one of `FORMATS`.

    Parameters
    ----------
    format
        ``"npz"``, ``"dynamo"``, ``"llmservingsim"``, ``"splitwise"`` or ``"vidur"``.
    path
        The file, or the folder for formats of several files.
    options
        Limits and names of the format's own function, such as `mfuroof.adapters.dynamo.export_dynamo`.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    UnknownNameError
        No such format.
    InputError
        An option the format does not have or that is out of range, or a cost without the parts it needs.
    MissingTableError
        A shape has no time.
    OutputError
        A file cannot be written; nothing half-written is left.
    """
    form = FORMATS[choice("export format", format, FORMATS)]
    problems = Problems()
    found: object = evaluator
    if not isinstance(found, StepEvaluator):
        problems.add("evaluator", type(found).__name__, "a StepEvaluator")
    problems.raise_if_any()
    function = getattr(importlib.import_module(f"mfuroof.adapters.{form.module}"), form.function)
    try:
        return Path(function(evaluator, path, **options))
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        word = str(error).rpartition("argument ")[2]
        raise InputError(Problem("options", word, f"an option of {form.function}; see its documentation")) from error
