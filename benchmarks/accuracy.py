"""Accuracy of step and serving estimates on measured data, beside what other systems reach.

    python benchmarks/accuracy.py FOLDER [--json OUT] [--plot FOLDER] [--no-holdout]

FOLDER holds measured tables; those that are not there are skipped: silicon_dev.csv (serving points),
servingsim_requests_dev.csv and blis_requests_dev.csv (traces), blis_experiments_dev.csv (runs), blis_steps_dev.csv
(decode steps), splitwise_steps_dev.csv (prefill and decode steps of BLOOM). The hold-outs choose everything that was
fitted (step and sequence overheads of the engines, launches and request overheads of the serving view) without the
model or the GPU that is judged.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mfuroof.errors import MfuroofWarning
from mfuroof.validate import (
    PEERS,
    PeerScore,
    Report,
    leave_each_out,
    validate_requests,
    validate_runs,
    validate_serving,
    validate_steps,
)

# The first request of these traces came to a cold cache and took 1318 ms for 2998 tokens, those after it two thirds of
# that: about 1024 tokens of every prompt were shared.
CACHED = {"jan20-codellama-prefill-1": 1024, "jan20-prefill-llama7b-tp1-1": 1024}
GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "serving": (("engine",), ("engine", "gpu"), ("engine", "model", "gpu", "precision"), ("engine", "batch")),
    "held out": (("engine",), ("engine", "model", "gpu")),
    "traces": (("dataset",),),
    "runs": (("model",),),
    "steps": (("phase", "batch"),),
    "phases": (("phase",), ("phase", "batch")),
}


@cache
def held_out(path: Path) -> dict[str, Report]:
    """Return both hold-outs of a table from one set of predictions."""
    return leave_each_out(path, ("model", "gpu"))


def splitwise_steps(path: Path) -> Report:
    """Return BLOOM's prefill steps, and its decode steps at the mean context of a generation, against predictions."""
    from pyarrow import csv

    rows = [row for row in csv.read_csv(path).to_pylist() if not row["suspect"]]
    steps: dict[str, list[Any]] = {name: [] for name in STEP_COLUMNS}
    for row in rows:
        batch, prompt, context = row["batch_size"], row["prompt_size"], row["prompt_size"] + row["token_size"] // 2
        common = ("bigscience/bloom", "h100_sxm", "vllm_2023", row["tensor_parallel"])
        prefill, decode = (0, 0, batch, prompt, row["prefill_ms"]), (batch, context, 0, 0, row["tpot_ms"])
        for values in ((*common, *prefill), (*common, *decode)):
            for name, value in zip(STEP_COLUMNS, values, strict=True):
                steps[name].append(value)
    return validate_steps(steps)


STEP_COLUMNS = (
    "model", "gpu", "engine", "tp", "decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens",
    "step_time_ms",
)  # fmt: skip
Check = tuple[str, str, str, Callable[[Path], Report]]
CHECKS: tuple[Check, ...] = (
    ("serving points, in sample", "serving", "silicon_dev.csv", validate_serving),
    ("serving points, leave one model out", "held out", "silicon_dev.csv", lambda p: held_out(p)["model"]),
    ("serving points, leave one GPU out", "held out", "silicon_dev.csv", lambda p: held_out(p)["gpu"]),
    ("trace replay, vLLM on RTX PRO 6000", "traces", "servingsim_requests_dev.csv", validate_requests),
    (
        "trace replay, vLLM on H100",
        "traces",
        "blis_requests_dev.csv",
        lambda p: validate_requests(p, cached_prefix_len=CACHED),
    ),
    ("runs, vLLM on H100", "runs", "blis_experiments_dev.csv", validate_runs),
    ("decode steps, vLLM on H100", "steps", "blis_steps_dev.csv", validate_steps),
    ("BLOOM-176B, vLLM of 2023 on H100, in sample", "phases", "splitwise_steps_dev.csv", splitwise_steps),
)


def beside(title: str, report: Report) -> PeerScore:
    """Return a report of serving points in the form in which those of others are listed."""
    tpot, ttft = report.score("tpot"), report.score("ttft")
    rows = f"{title}: {tpot.count - tpot.failed} of {tpot.count} answered"
    return PeerScore("mfuroof", rows, tpot.mean, tpot.median, ttft.median)


def peers_text(ours: Sequence[PeerScore]) -> str:
    """Return what we and others reach, one line each."""
    lines = [f"{'system':<34}{'TPOT mean':>10}{'median':>8}{'TTFT median':>13}  rows"]
    for p in (*ours, *PEERS):
        figures = ["-" if x is None else f"{x:.1%}" for x in (p.tpot_mean, p.tpot_median, p.ttft_median)]
        lines.append(f"{p.system:<34}{figures[0]:>10}{figures[1]:>8}{figures[2]:>13}  {p.rows}")
    return "\n".join(lines)


def picture(report: Report, by: str, title: str, folder: Path) -> None:
    """Write predictions over measurements as a PNG file named after the check."""
    from mfuroof.cli.validate import draw
    from mfuroof.plots.save import save_figure
    from mfuroof.plots.style import pyplot_of

    pyplot_of().switch_backend("agg")  # no window
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw(report, by, title=title)
    print(f"written: {save_figure(figure, folder / (title.replace(',', '').replace(' ', '-') + '.png'))}")
    pyplot_of().close(figure)


def main() -> None:
    """Run every check whose table is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the measured tables lie")
    parser.add_argument("--json", type=Path, help="write all scores to this file")
    parser.add_argument("--plot", type=Path, help="draw predictions against measurements into this folder")
    parser.add_argument("--no-holdout", action="store_true", help="leave out the checks that refit constants")
    options = parser.parse_args()
    warnings.simplefilter("ignore", MfuroofWarning)  # rows that do not fit are counted in the report
    out: dict[str, Any] = {"peers": [p._asdict() for p in PEERS]}
    ours: list[PeerScore] = []
    for title, kind, name, check in CHECKS:
        path = options.folder / name
        if not path.exists() or (options.no_holdout and kind == "held out"):
            continue
        start = time.perf_counter()
        report = check(path)
        print(f"\n== {title} ({name}, {time.perf_counter() - start:.1f} s)\n{report.to_text(*GROUPS[kind])}")
        out[title] = report.to_dict(*GROUPS[kind])
        if kind in ("serving", "held out"):
            ours.append(beside(title, report))
        if options.plot and len(report) > 1:
            picture(report, GROUPS[kind][0][0], title, options.plot)
    print("\n" + peers_text(ours))
    if options.json:
        options.json.write_text(json.dumps(out, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
