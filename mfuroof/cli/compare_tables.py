"""``mfuroof compare-tables``: two tables of one GPU side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import count, print_json, print_table

if TYPE_CHECKING:
    from mfuroof.collect.compare import Comparison, FamilyComparison

__all__ = ["EXAMPLES", "compare_tables"]

EXAMPLES = (
    "mfuroof compare-tables h200_sxm:vllm h200_sxm:sglang",
    "mfuroof compare-tables mine/h200_sxm h200_sxm --plot ratio.png",
)


def _checked(path: Path | None) -> Path | None:
    """Refuse a figure that cannot be written before anything is compared."""
    if path is None:
        return None
    from mfuroof.cli.figures import checked

    return checked(path)


def compare_tables(
    a: Annotated[str, typer.Argument(metavar="A", help="GPU or folder of one, with :ENGINE.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; what A is compared with.")],
    family: Annotated[list[str] | None, typer.Option("--family", help="Only this family; may be repeated.")] = None,
    groups: Annotated[bool, typer.Option("--groups", help="Show the ratio by dtype, heads and so on too.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the ratios into this .png, .svg or .pdf.", callback=_checked),
    ] = None,
    json: o.Json = False,
) -> None:
    """Compare the times of two kernel tables on the shapes that both have.

    A ratio is the time in A over the time in B: above 1, A is slower. "short" and "long" are the ratios of the
    shapes that take least and longest; "scatter" is what no constant factor explains. "rough" says how far a time
    lies from the blend of its neighbours: noise of each table, and curvature where its grid is coarse.
    """
    from mfuroof.collect.compare import compare_tables as compare
    from mfuroof.collect.compare import open_tables

    found = compare(open_tables(a), open_tables(b), family)
    if plot is not None:
        _draw(found, plot)
    if json:
        print_json(found.to_dict())
        return
    _print(found, groups)
    if plot is not None:
        print(f"drawn to {plot}")


def _print(found: Comparison, groups: bool) -> None:
    print(f"A: {found.names[0]}\nB: {found.names[1]}")
    rows = [(f.family, count(f.rows_a), count(f.rows_b), count(f.both)) for f in found.families]
    print_table("shapes", ("family", "in A", "in B", "in both"), rows)
    head = ("family", "A / B", "p5", "p95", "short", "long", "scatter")
    ratios = [
        (f.family, *map(_ratio, (f.median, f.low, f.high, f.short, f.long)), _share(f.scatter)) for f in _met(found)
    ]
    print_table("time in A over time in B", head, ratios)
    noise = [(f.family, *map(_share, (f.roughness_a, f.roughness_b, f.beaten_a, f.beaten_b))) for f in found.families]
    print_table("noise", ("family", "rough A", "rough B", "falls A", "falls B"), noise)
    for f in _met(found) if groups else ():
        groups_of = [(label, count(n), *map(_ratio, three)) for label, n, *three in f.groups]
        print_table(f.family, ("group", "shapes", "A / B", "p5", "p95"), groups_of)
    for f in _met(found):
        worst = {k: v for k, v in (f.worst or {}).items() if k not in ("time_a_s", "time_b_s", "ratio")}
        shape = ", ".join(f"{k} {v}" for k, v in worst.items())
        print(f"farthest apart in {f.family}: {_ratio((f.worst or {})['ratio'])} at {shape}")
    for name, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            print(f"only in {name}: {', '.join(only)}")


def _met(found: Comparison) -> list[FamilyComparison]:
    return [f for f in found.families if f.both]


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.1%}"


def _draw(found: Comparison, path: Path) -> None:
    from mfuroof.errors import MissingTableError
    from mfuroof.plots import save_figure, table_ratio
    from mfuroof.plots.style import pyplot_of

    series = {f.family: (f.time_a_s, f.time_b_s, f.labels) for f in _met(found)}
    if not series:
        raise MissingTableError("a shape that both tables have", [f.family for f in found.families])
    figure = table_ratio(series, found.names)
    try:
        save_figure(figure, path)
    finally:
        pyplot_of().close(figure)
