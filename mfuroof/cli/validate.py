"""``mfuroof validate``: predictions against your own measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.figures import checked
from mfuroof.cli.output import count, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from mfuroof.validate import Report, Score

__all__ = ["EXAMPLES", "draw", "print_report", "validate"]

EXAMPLES = (
    "mfuroof validate steps.csv",
    "mfuroof validate serving.parquet --by model,gpu --by batch --plot predicted.png --out joined.csv",
    "mfuroof validate steps.csv --preset blis --json",
)
_SHOWN = 5
"""Reasons of failures that are shown."""
_UNITS = {"throughput": "tokens/s per GPU"}


def _figure(path: Path | None) -> Path | None:
    return None if path is None else checked(path)


def validate(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or Parquet table of measurements.")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="steps, serving, requests or runs; told by the columns.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="Columns to group by, such as model,gpu; several times for several groupings."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw predicted against measured: .png, .svg or .pdf.", callback=_figure),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the rows with predictions: .csv or .parquet.")
    ] = None,
    cost: o.CostName = None,
    preset: o.Preset = None,
    missing: o.Missing = None,
    calibration: o.Calibration = None,
    memory_utilization: o.MemoryUtilization = 0.9,
    json: o.Json = False,
) -> None:
    """Compare predictions with a table of measurements, and show the errors by model, GPU, engine, batch and phase.

    Rows are configurations as in mfuroof predict, with a measured step_time_s, or ttft_s, tpot_s, itl_s,
    e2e_latency_s, output_tokens_per_s_per_gpu (or measured_ttft_s and so on; times also in _ms). Tables of requests
    with arrivals and of BLIS's runs and steps are recognised too. Errors are predicted / measured - 1; a row that
    cannot be predicted is counted as failed and enters no error. Measured values that are not positive and finite are
    left out and named.
    """
    import warnings

    from mfuroof.cli.costs import cost_and_params
    from mfuroof.errors import MfuroofWarning
    from mfuroof.predict import check_target, read_table, write_table
    from mfuroof.validate import GROUPS, joined, kind_of, validate_table
    from mfuroof.validate.tables import Columns

    if out is not None:
        check_target(out, source)
    family, params = cost_and_params(cost, preset, missing, calibration=calibration)
    table = read_table(source)
    kind = kind or kind_of(Columns(table))
    with warnings.catch_warnings():  # what does not fit or is odd about a row is counted, row by row
        warnings.simplefilter("ignore", MfuroofWarning)
        report = validate_table(table, kind, cost=family, params=params, memory_utilization=memory_utilization)
    default = [(name,) for name in GROUPS[kind]]
    groupings = [tuple(text.replace(" ", "").split(",")) for text in by] if by else default
    for names in groupings:
        report.by(next(iter(report.metrics)), *names)  # an unknown column is said before anything is written
    written: dict[str, str] = {}
    if out is not None:
        write_table(joined(table, report), out)
        written["out"] = str(out)
    if plot is not None:
        from mfuroof.plots.save import save_figure
        from mfuroof.plots.style import pyplot_of

        figure = draw(report, GROUPS[kind][0], title=source.name)
        try:
            written["plot"] = str(save_figure(figure, plot))
        finally:
            pyplot_of().close(figure)
    if json:
        print_json({"kind": kind, **report.to_dict(*groupings), **written})
        return
    print_report(report, groupings, every=bool(by))
    for path in written.values():
        print(f"written: {path}")


def draw(report: Report, by: str, *, title: str = "") -> Figure:
    """Return a figure of predictions over measurements, one panel a metric that was measured.

    Raises
    ------
    InputError
        No row has both a measurement and a prediction.
    MfuroofError
        matplotlib is not installed.
    """
    import numpy as np

    from mfuroof.errors import InputError, Problem
    from mfuroof.plots import predicted_measured
    from mfuroof.plots.style import pyplot_of

    drawn = {
        name: pair
        for name, pair in report.metrics.items()
        if (np.isfinite(pair[0]) & np.isfinite(pair[1]) & (pair[0] > 0) & (pair[1] > 0)).any()
    }
    if not drawn:
        raise InputError(Problem("rows", "none with a measurement and a prediction", "at least one"))
    figure, axes = pyplot_of().subplots(1, len(drawn), figsize=(5.4 * len(drawn), 5.4), squeeze=False)
    for ax, (name, (predicted, measured)) in zip(axes[0], drawn.items(), strict=True):
        label = name.upper() if name in ("ttft", "tpot", "itl") else name
        unit = _UNITS.get(name, "ms")
        predicted_measured(measured, predicted, groups=report.columns[by], ax=ax, unit=unit, title=label)
    if title:
        figure.suptitle(title)
    figure.tight_layout()
    return figure


def print_report(report: Report, groupings: Sequence[Sequence[str]], *, every: bool) -> None:
    """Print one table a metric; groupings that tell nothing apart are left out unless ``every`` one is wanted."""
    failed = sum(bool(e) for e in report.errors)
    n = len(report)
    print(f"{count(n)} row{'s' * (n != 1)}, {count(failed)} without a prediction; errors are predicted / measured - 1")
    head = ("", "rows", "fail", "mean", "P50", "P95", "P99", "bias")
    for metric in report.metrics:
        whole = report.score(metric)
        if not whole.count:
            continue
        rows = [["all", *_cells(whole)]]
        for names in groupings:
            groups = report.by(metric, *names)
            if len(groups) > 1 or every:
                rows += [[_label(names, key), *_cells(score)] for key, score in groups.items()]
        label = metric.upper() if metric in ("ttft", "tpot", "itl") else metric
        print_table(label, head, rows)
    reasons: dict[str, int] = {}
    for text in filter(None, report.errors):
        first = text.splitlines()[0]
        reasons[first] = reasons.get(first, 0) + 1
    for text, times in sorted(reasons.items(), key=lambda item: -item[1])[:_SHOWN]:
        print(f"{count(times)} failed: {text}")
    if len(reasons) > _SHOWN:
        print(f"and for {len(reasons) - _SHOWN} other reasons; --json has them all")
    _print_left_out(report)


def _print_left_out(report: Report) -> None:
    """Say how many measured values were left out, in which rows, and what is wrong with the first few."""
    rows = [(i, text.split("; ")) for i, text in enumerate(report.left_out, 1) if text]
    if not rows:
        return
    values = sum(len(texts) for _, texts in rows)
    named = ", ".join(str(i) for i, _ in rows[:_SHOWN]) + (" ..." if len(rows) > _SHOWN else "")
    plural, of_rows = "s" * (values != 1), "s" * (len(rows) != 1)
    print(f"{count(values)} measured value{plural} left out: row{of_rows} {named}")
    for i, texts in rows[:_SHOWN]:
        for text in texts:
            print(f"  row {i}, {text}")


def _label(names: Sequence[str], key: Sequence[str]) -> str:
    """Return what a group is called: ``batch 5-8`` for the bin ``005-008``, other values by themselves."""
    words = []
    for name, value in zip(names, key, strict=True):
        ends = [end.lstrip("0") for end in value.split("-")]
        words.append(f"batch {'-'.join(e or '0' for e in ends[:1])}{'-' + ends[1]}" if name == "batch" else value)
    return " ".join(words)


def _cells(s: Score) -> list[Any]:
    figures = ("-" if x != x else f"{x:.1%}" for x in (s.mean, s.median, s.p95, s.p99))
    return [count(s.count), count(s.failed), *figures, "-" if s.bias != s.bias else f"{s.bias:+.1%}"]
