"""``mfuroof shards``: how far the folders of a sweep are, and several of them put together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.command import add_command
from mfuroof.cli.output import count, print_json, print_table

if TYPE_CHECKING:
    from mfuroof.sweep import FolderState

__all__ = ["app", "merge", "verify"]

app = typer.Typer(help="Folders of sweeps: how far they are, and several put together.", no_args_is_help=True)

VERIFY_EXAMPLES = ("mfuroof shards verify steps",)
MERGE_EXAMPLES = ("mfuroof shards merge steps part1 part2 part3",)

Quick = Annotated[bool, typer.Option("--quick", help="Trust files whose size and time stamp are the journal's.")]


def verify(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Folders that mfuroof sweep wrote.")],
    quick: Quick = False,
    json: o.Json = False,
) -> None:
    """Check every partition of a sweep against its checksum, and say what is missing.

    The exit code is 1 where something is missing or damaged; the sweep's command, given again, makes it anew.
    """
    from mfuroof.sweep import folder_state

    states = [folder_state(folder, not quick) for folder in folders]
    _print(states, json)
    if not all(state.complete for state in states):
        raise typer.Exit(1)


def merge(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to put them into.")],
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Folders of the shards of one sweep.")],
    json: o.Json = False,
) -> None:
    """Put the shards of a sweep into one folder, each file checked; results of reductions are written.

    The exit code is 1 while partitions are missing: give the command again when their shards are done.
    """
    from mfuroof.sweep import merge_shards

    state = merge_shards(folders, output)
    _print([state], json)
    if not state.complete:
        raise typer.Exit(1)


add_command(app, "verify", verify, VERIFY_EXAMPLES)
add_command(app, "merge", merge, MERGE_EXAMPLES)


def _print(states: list[FolderState], json: bool) -> None:
    if json:
        print_json([state.to_dict() for state in states])
        return
    rows = [
        (s.path, s.kind, f"{count(len(s.done))} of {count(s.partitions)}", count(len(s.damaged)), count(s.rows))
        for s in states
    ]
    print_table("", ("folder", "kind", "done", "damaged", "rows"), rows, numbers=(2, 3, 4))
    for state in states:
        if state.missing:
            first = ", ".join(map(str, state.missing[:8]))
            print(f"{state.path}: missing partitions {first}{' ...' if len(state.missing) > 8 else ''}")
