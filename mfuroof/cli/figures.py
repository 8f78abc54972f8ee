"""What the commands that draw share: an evaluator from options, its name, and a figure that becomes a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli.output import print_json

if TYPE_CHECKING:
    from mfuroof.step import StepEvaluator

__all__ = ["Out", "Title", "evaluator_of", "given_keys", "name_of", "write_figure"]


def checked(path: Path) -> Path:
    """Return the path of a figure; what is wrong with it is said before anything is computed.

    Raises
    ------
    UnknownNameError
        The path does not end in the suffix of a format.
    MfuroofError
        matplotlib is not installed.
    """
    from mfuroof._boundary import choice
    from mfuroof.plots.save import FORMATS
    from mfuroof.plots.style import pyplot_of

    choice("figure format", path.suffix.lower(), FORMATS)
    pyplot_of().switch_backend("agg")  # a command opens no window
    return path


Out = Annotated[Path, typer.Option("--out", "-o", help="File to write: .png, .svg or .pdf.", callback=checked)]
Title = Annotated[str | None, typer.Option("--title", help="What stands above; says what is drawn if left out.")]


def write_figure(path: Path, drawn: Any, *, json: bool) -> None:
    """Write a figure, or the one that holds some axes, to ``path``, and say so.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    from mfuroof.plots.save import save_figure
    from mfuroof.plots.style import pyplot_of

    try:
        written = save_figure(drawn, path)
    finally:
        pyplot_of().close(drawn.figure)
    if json:
        print_json({"file": str(written), "bytes": written.stat().st_size})
    else:
        print(written)


def evaluator_of(
    model: str, gpu: str, tp: int, engine: str, weight_dtype: str | None, kv_dtype: str | None
) -> StepEvaluator:
    """Return the evaluator of the kernels cost that the options describe."""
    from mfuroof.step import StepEvaluator

    return StepEvaluator(model, gpu, tp_size=tp, engine=engine, weight_dtype=weight_dtype, kv_dtype=kv_dtype)


def name_of(evaluator: StepEvaluator) -> str:
    """Return what a title says of a model on a GPU."""
    degrees = f", tp {evaluator.parallel.tp_size}" if evaluator.parallel.tp_size > 1 else ""
    return f"{evaluator.model.name.rpartition('/')[2]} on {evaluator.hardware.name}{degrees} ({evaluator.engine})"


def given_keys(family: str, texts: list[str]) -> dict[str, Any]:
    """Return KEY=VALUE arguments as key columns of a family, numbers where the column holds numbers.

    Raises
    ------
    UnknownNameError
        No such family or key column.
    InputError
        No pair, or no number where one is due.
    """
    from mfuroof.cli.lookup import pairs_of
    from mfuroof.cli.lookups import key_value
    from mfuroof.tables.schema import family as family_of

    spec = family_of(family)
    return {key: key_value(spec.column(key).kind, key, value) for key, value in pairs_of(texts).items()}
