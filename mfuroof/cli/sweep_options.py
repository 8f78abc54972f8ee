"""Options of ``mfuroof sweep`` by panel of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["degree", "keep", "load", "run", "shape"]


def _in_panel(panel: str, metavar: str | None = None) -> Any:
    def option(names: str, what: str, **more: Any) -> Any:
        return typer.Option(*names.split("/"), help=what, rich_help_panel=panel, **{"metavar": metavar, **more})

    return option


degree = _in_panel("Parallelism", "RANGE")
shape = _in_panel("Step shapes", "RANGE")
load = _in_panel("Loads, in place of step shapes", "RANGE")
keep = _in_panel("Keep only what you ask for")
run = _in_panel("Run, resume, distribute")

Zip = Annotated[
    list[str] | None,
    typer.Option("--zip", metavar="AXES", help="Axes that advance together, such as tp,pp; may be repeated."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="EXPR", help="Condition on axes and labels, such as 'decode_batch * decode_context <= 2e6'."
    ),
]
Cases = Annotated[
    Path | None,
    typer.Option("--cases", metavar="FILE", help="Table (.csv, .parquet) whose columns are axes, a combination a row."),
]
Best = Annotated[
    str | None,
    keep("--best", "Column: rows with the most of it; COLUMN:min for the least.", metavar="COLUMN"),
]
Top = Annotated[int, keep("--top", "Rows of each group with --best.", metavar="K")]
ParetoOf = Annotated[
    str | None, keep("--pareto", "Columns with :max or :min: rows that no other beats in all.", metavar="COLUMNS")
]
HistogramOf = Annotated[
    list[str] | None,
    keep("--histogram", "COLUMN=FROM:TO:linN or logN: rows by value; may be repeated.", metavar="SPEC"),
]
By = Annotated[str, keep("--by", "Columns that make groups, for instance gpu,tp_size.", metavar="COLUMNS")]
Having = Annotated[
    str | None, keep("--having", "Condition on results, such as 'fits and step_time_ms <= 30'.", metavar="EXPR")
]
EvenIfUnfit = Annotated[bool, keep("--even-if-unfit", "Choose also among rows that do not fit the memory.")]
ShardOf = Annotated[
    str | None, run("--shard", "Do part i of n, to share the work out; n decides how finely it is cut.", metavar="I/N")
]
DaskWorkers = Annotated[int | None, run("--dask-workers", "Start a Dask cluster of N processes here.", metavar="N")]
Scheduler = Annotated[str | None, run("--scheduler", "Use a running Dask cluster.", metavar="ADDRESS")]
Restart = Annotated[bool, run("--restart", "Remove another sweep that the folder holds.")]
Verify = Annotated[bool, run("--verify", "Read the checksum of every file before going on.")]
MaxRows = Annotated[
    float | None, run("--max-rows", "Rows that are meant: 1e9 written or 1e11 reduced by default.", metavar="N")
]
Threads = Annotated[int | None, run("--threads", "Threads; all processors.", metavar="N")]
PartitionRows = Annotated[
    int | None, run("--partition-rows", "Rows of a file in a folder; 2^18 to 2^22 by default.", metavar="N")
]
