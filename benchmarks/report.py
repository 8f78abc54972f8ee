"""Write the tables of README.md and docs/speed.md from what the benchmarks have saved; nothing is typed by hand.

    python benchmarks/speed.py --json benchmarks/results/speed.json
    python benchmarks/accuracy.py FOLDER --json benchmarks/results/accuracy.json
    python benchmarks/report.py [--check]

A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``. With ``--check`` nothing is written, and the exit code
is 1 where a page is not what the saved figures say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README_GROUPS = ("steps", "lookups", "peers")
ENOUGH = 30
"""Rows that a brief table asks of a check."""
METRICS = {"tpot": "TPOT", "ttft": "TTFT", "step": "step time", "e2e": "end to end", "itl": "ITL"}


def rate(row: dict[str, Any]) -> str:
    """Return a rate with three digits and its unit."""
    value = float(row["per_s"])
    for scale, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter} {row['unit']}/s"
    return f"{value:.3g} {row['unit']}/s"


def speed_rows(saved: dict[str, Any], groups: tuple[str, ...] | None) -> list[tuple[str, ...]]:
    """Return (what, ours, beside it, times as fast) for each rival, and once for what has none."""
    ours = {row["case"]: row for row in saved["rows"] if row["way"] == "mfuroof"}
    out = []
    for case, own in ours.items():
        if groups is not None and own["group"] not in groups:
            continue
        if "seconds" in own:
            out.append((case, f"{own['seconds'] * 1e3:.3g} ms", "", ""))
            continue
        rivals = [row for row in saved["rows"] if row["case"] == case and row["way"] != "mfuroof"]
        for rival in rivals:
            out.append((case, rate(own), f"{rival['way']}: {rate(rival)}", f"{rival['ours_is_times_as_fast']:.3g}"))
        if not rivals and groups is None:
            out.append((case, rate(own), "", ""))
    return out


def speed(saved: dict[str, Any], groups: tuple[str, ...] | None = None) -> str:
    """Return a table of rates, ours and others', with the machine they were measured on."""
    about = saved["machine"]
    where = f"{about['threads']} threads of {about['processor']}, Python {about['python']}, numpy {about['numpy']}"
    head = ("what", "mfuroof", "beside it, in the same run", "times as fast")
    return f"{table(head, speed_rows(saved, groups))}\n\nMeasured on {where}."


def accuracy(saved: dict[str, Any], *, brief: bool = False) -> str:
    """Return a table of errors, ours by check and others' below; in brief, of enough rows and once a system."""
    rows = []
    for title, report in saved.items():
        if isinstance(report, dict) and "metrics" in report:
            for metric, entry in report["metrics"].items():
                s = entry["all"]
                if brief and s["count"] < ENOUGH:
                    continue
                figures = (f"{s['mean']:.1%}", f"{s['median']:.1%}", f"{s['count'] - s['failed']} of {s['count']}")
                rows.append((title, METRICS.get(metric.removesuffix("_s"), metric), *figures))
    systems = set()
    for peer in saved.get("peers", ()):
        if brief and peer["system"] in systems:
            continue
        systems.add(peer["system"])
        for metric in ("tpot", "ttft"):
            mean, median = peer.get(f"{metric}_mean"), peer.get(f"{metric}_median")
            if mean is not None or median is not None:
                shown = tuple("" if x is None else f"{x:.1%}" for x in (mean, median))
                rows.append((f"*{peer['system']}*", METRICS[metric], *shown, str(peer["rows"])))
    return table(("data", "figure", "mean error", "median error", "rows"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table; what repeats the line above is left blank."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    before = ("",) * len(head)
    for row in rows:
        same = row[0] == before[0]
        shown = [("" if same and i < 2 and row[i] == before[i] else cell) for i, cell in enumerate(row)]
        lines.append(f"| {' | '.join(shown)} |")
        before = row
    return "\n".join(lines)


PLACES: tuple[tuple[str, str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("README.md", "speed", "speed.json", lambda saved: speed(saved, README_GROUPS)),
    ("docs/speed.md", "speed", "speed.json", speed),
    ("README.md", "accuracy", "accuracy.json", lambda saved: accuracy(saved, brief=True)),
)
"""Page, name of the markers, saved figures, and what makes a table of them."""


def filled(text: str, name: str, content: str) -> str:
    """Return a page with ``content`` between the markers of that name.

    Raises
    ------
    ValueError
        The page does not have one pair of them.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"expected one <!-- {name} --> ... <!-- /{name} -->")
    return pattern.sub(lambda m: f"{m[1]}\n{content}\n\n{m[2]}", text)


def main() -> int:
    """Fill every page whose figures were saved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a page is out of date")
    options = parser.parse_args()
    stale = []
    for page, name, source, make in PLACES:
        path, saved = ROOT / page, RESULTS / source
        if not saved.is_file():
            print(f"{page}, {name}: no {saved.relative_to(ROOT)}, left as it is")
            continue
        old = path.read_text(encoding="utf-8")
        new = filled(old, name, make(json.loads(saved.read_text(encoding="utf-8"))))
        if new != old:
            stale.append(f"{page}, {name}")
            if not options.check:
                path.write_text(new, encoding="utf-8")
    for place in stale:
        print(f"{place}: {'is not what was saved' if options.check else 'written'}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
