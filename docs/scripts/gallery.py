"""The figures of the gallery: each a title, a sentence, and a function that draws it from the embedded tables.

``python docs/scripts/gallery.py FOLDER`` writes them all; ``--readme`` writes the one that README.md shows.
"""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mfuroof as mr
from mfuroof import plots
from mfuroof.ops.slices import slice_of
from mfuroof.tables.compiled import Table1D

ROOT = Path(__file__).resolve().parents[2]
README_FIGURE = ROOT / "docs" / "images" / "breakdown.svg"
LLAMA, SMALL, GPU = "meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-8B", "h100_sxm"


class Figure(NamedTuple):
    """One entry of the gallery."""

    title: str
    text: str
    draw: Callable[[], Any]

    @property
    def name(self) -> str:
        """Name of its file, without a suffix."""
        return self.draw.__name__

    @property
    def code(self) -> str:
        """What its function does, without the ``def`` and the ``return``."""
        lines = inspect.getsource(self.draw).splitlines()[1:]
        return textwrap.dedent("\n".join(lines)).replace("return plots.", "plots.")


def roofline() -> Any:
    evaluator = mr.StepEvaluator(LLAMA, GPU, tp_size=4)
    result = evaluator.evaluate(mr.StepBatch.uniform(256, 4096, prefill_batch=1, prefill_new_tokens=512))
    return plots.roofline(result, evaluator.hardware, title="256 decode requests and a prompt of 512")


def breakdown() -> Any:
    evaluator = mr.StepEvaluator(LLAMA, GPU, tp_size=4)
    batch = mr.StepBatch.uniform(decode_batch=2 ** np.arange(10), decode_context=4096)
    return plots.breakdown(evaluator.evaluate(batch), title="Llama-3.1-70B on four H100, context 4,096")


def gemm_mfu() -> Any:
    tables, gpu = mr.load_tables(GPU), mr.get_hardware(GPU)
    return plots.kernel_heatmap(tables, "gemm", mfu_of=gpu, dtype="bf16", k=4096, title="MFU of bf16 GEMMs, k = 4,096")


def attention() -> Any:
    tables = mr.load_tables(GPU)
    shape = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "sliding_window": 0}
    return plots.kernel_heatmap(tables, "attn_decode", attn_dtype="bf16", kv_dtype="bf16", **shape)


def steps() -> Any:
    evaluator = mr.StepEvaluator(LLAMA, GPU, tp_size=4)
    batch, context = np.unique(np.geomspace(1, 1024, 64).astype(int)), np.geomspace(64, 131_072, 64).astype(int)
    return plots.step_heatmap(evaluator, batch, context, title="Llama-3.1-70B on four H100")


def crossover() -> Any:
    batch = mr.StepBatch.uniform(decode_batch=np.unique(np.geomspace(1, 1024, 40).astype(int)), decode_context=1024)
    formats = {"bf16": None, "fp8": "fp8", "w4a16": "int4_wo"}
    times = {name: mr.StepEvaluator(SMALL, GPU, weight_dtype=f).step_time(batch) for name, f in formats.items()}
    return plots.crossover(batch.decode_batch, times, xlabel="decode requests of a step", title="Llama-3.1-8B on H100")


def pareto() -> Any:
    speed, throughput, gpus = [], [], []
    for gpu in ("h100_sxm", "h200_sxm", "b200_sxm"):
        for tp_size in (2, 4, 8):
            evaluator = mr.StepEvaluator(LLAMA, gpu, tp_size=tp_size)
            load = mr.serving.estimate(evaluator, input_len=1024, output_len=256, concurrency=2 ** np.arange(10))
            speed.append(1 / load.tpot_s)
            throughput.append(load.output_tokens_per_s_per_gpu)
            gpus += [gpu] * len(load)
    axes = {"xlabel": "speed of a stream [tokens/s]", "ylabel": "throughput [generated tokens/s per GPU]"}
    return plots.pareto(np.concatenate(speed), np.concatenate(throughput), groups=gpus, title="Llama-3.1-70B", **axes)


def tornado() -> Any:
    evaluator = mr.StepEvaluator(LLAMA, GPU, tp_size=4)
    batch = mr.StepBatch.uniform([1, 64, 256], 4096, prefill_batch=1, prefill_new_tokens=512)
    return plots.tornado(evaluator, batch, title="Llama-3.1-70B on four H100: three mixed steps")


def lookup_rules() -> Any:
    measured = slice_of(mr.load_tables(GPU), "gemm", dtype="bf16", k=4096, n=6144).table
    kept = np.isin(measured.grid, 2.0 ** np.arange(6, 14))
    coarse = Table1D("m", measured.grid[kept], measured.values[kept])
    between = ~kept & (measured.grid > 64) & (measured.grid < 8192)
    m, times = measured.grid[between], measured.values[between]
    read = {rule: mr.lookup.read(coarse, m, rule=rule) for rule in ("linear", "floor")}
    groups = np.repeat(list(read), m.size)
    return plots.predicted_measured(np.tile(times, 2), np.concatenate([*read.values()]), groups=groups, unit="us")


GALLERY = (
    Figure("Roofline of a step", "Marks grow with the share of the step an operation takes.", roofline),
    Figure("Breakdown over batch", "What a decode step is made of, from one request to 512.", breakdown),
    Figure("MFU of a measured table", "Dots are measured shapes.", gemm_mfu),
    Figure("Latency and coverage", "Decode attention; nothing was measured where it is hatched.", attention),
    Figure("Step times", "Over batch and context; hatched where attention is extrapolated.", steps),
    Figure("Where quantisation stops paying", "Dashed lines mark the crossings with the first format.", crossover),
    Figure("Speed against throughput", "Each line is the best a GPU offers over degrees and load.", pareto),
    Figure("Where to invest", "What a resource 1.2 times slower or faster does to the time of three steps.", tornado),
    Figure(
        "Lookup rules against measurements",
        "A GEMM at the token counts between powers of two, read from the powers of two alone.",
        lookup_rules,
    ),
)


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where to write all figures as PNG")
    parser.add_argument("--readme", action="store_true", help=f"write {README_FIGURE.relative_to(ROOT)}")
    options = parser.parse_args()
    if options.readme:
        print(plots.save_figure(breakdown(), README_FIGURE))
    for figure in GALLERY if options.folder else ():
        print(plots.save_figure(figure.draw(), options.folder / f"{figure.name}.png"))


if __name__ == "__main__":
    main()
