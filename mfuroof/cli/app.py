"""The commands put together."""

from __future__ import annotations

from typing import Annotated

import typer

from mfuroof.cli import (
    audit,
    best,
    calibrate,
    collect,
    compare_tables,
    crossover,
    describe,
    export,
    gpus,
    ingest,
    invest,
    kv,
    largest,
    lookup,
    models,
    plot,
    predict,
    quant,
    serve,
    shards,
    step,
    sweep,
    validate,
    warmup,
)
from mfuroof.cli.command import add_command

__all__ = ["app"]

HELP = (
    "How long LLM-serving steps take, for millions of batch shapes at once, from measured kernel tables.\n\n"
    "Exit codes: 0 done, 1 findings of an audit or a defect of mfuroof, 2 bad input, 3 measured data missing or "
    "damaged, 4 output that cannot be written, 130 interrupted."
)

app = typer.Typer(
    name="mfuroof",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from mfuroof._version import __version__

        typer.echo(f"mfuroof {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Declare what needs no command; ``--debug`` is read in `mfuroof.cli.main` wherever it stands."""


COMMANDS = (
    step,
    invest,
    serve,
    sweep,
    best,
    describe,
    largest,
    crossover,
    lookup,
    kv,
    gpus,
    models,
    audit,
    validate,
    calibrate,
    collect,
    compare_tables,
    export,
    warmup,
)

for module in COMMANDS:
    name = module.__name__.rpartition(".")[2]
    add_command(app, name.replace("_", "-"), getattr(module, name), module.EXAMPLES)

for title, name, function, lines in (
    ("Convert measurements of other projects.", "ingest", ingest.aiconfigurator, ingest.EXAMPLES),
    ("Add predictions to a table of configurations.", "predict", predict.steps, predict.EXAMPLES),
):
    group = typer.Typer(help=title, no_args_is_help=True)
    add_command(group, function.__name__, function, lines)
    if name == "predict":
        add_command(group, "serving", predict.serving, predict.SERVING_EXAMPLES)
    app.add_typer(group, name=name)

app.add_typer(quant.app, name="quant")
app.add_typer(plot.app, name="plot")
app.add_typer(shards.app, name="shards")
