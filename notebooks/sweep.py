# %% [markdown]
# # Ten million configurations, and the few that are worth choosing from
#
# A sweep spans models, GPUs, degrees, formats and step shapes. Its rows need not be written anywhere: reductions keep
# what a question asks for, in a fixed amount of memory.

# %%
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import mfuroof as mr
from mfuroof.sweep import Pareto, Sweep, TopK, reduce_sweep

DRAW = find_spec("matplotlib") is not None

# %% [markdown]
# ## What is swept
#
# One model on three GPUs, four degrees and two weight formats, times 425,984 step shapes: more than ten million.

# %%
sweep = Sweep(
    "Qwen/Qwen3-32B",
    ["h100_sxm", "h200_sxm", "b200_sxm"],
    tp_size="1,2,4,8",
    weight_dtype=["own", "fp8"],
    decode_batch="1:256",
    decode_context="1024:32768:+1024",
    prefill_new_tokens="0:16128:+315",
)

# %% [markdown]
# ## What is asked
#
# The highest throughput of each GPU among steps that fit and take no more than 50 ms; and the front of throughput
# against step time for decode steps at a context of 8,192.

# %%
questions = {
    "best": TopK("tokens_per_s_per_gpu", by="gpu", where="fits and step_time_s <= 0.05"),
    "front": Pareto(
        {"tokens_per_s_per_gpu": "max", "step_time_s": "min"},
        by="gpu",
        where="fits and prefill_new_tokens == 0 and decode_context == 8192",
    ),
}
began = time.perf_counter()
kept = reduce_sweep(sweep, questions)
seconds = time.perf_counter() - began
print(f"{kept.summary.rows:,} configurations in {seconds:.1f} s")
assert kept.summary.rows > 10_000_000
best = kept.tables["best"].to_pylist()
for row in best:
    print(
        f"{row['gpu']:<9} tp {row['tp_size']} {row['weight_dtype']:<4} {row['decode_batch']:>4} requests at"
        f" {row['decode_context']:,}: {row['tokens_per_s_per_gpu']:,.0f} tokens/s per GPU"
    )
assert len(best) == 3 and all(row["fits"] and row["step_time_s"] <= 0.05 for row in best)

# %% [markdown]
# Each front is what nothing else beats: along it, more tokens per second and GPU cost a longer step.

# %%
front = kept.tables["front"]
for gpu in ("h100_sxm", "h200_sxm", "b200_sxm"):
    rows = [row for row in front.to_pylist() if row["gpu"] == gpu]
    rows.sort(key=lambda row: row["step_time_s"])
    rates = [row["tokens_per_s_per_gpu"] for row in rows]
    assert rates == sorted(rates) and len(rates) > 10
    shortest, longest = (rows[end]["step_time_s"] * 1e3 for end in (0, -1))
    print(f"{gpu:<9} {len(rows):>4} points, {shortest:.1f} to {longest:.1f} ms")

# %%
if DRAW:
    from mfuroof import plots

    plots.pareto(
        front["step_time_s"].to_numpy() * 1e3,
        front["tokens_per_s_per_gpu"].to_numpy(),
        groups=front["gpu"].to_pylist(),
        better=("lower", "higher"),
        xlabel="step time [ms]",
        ylabel="throughput [tokens/s per GPU]",
        title="Qwen3-32B, decode at 8,192 tokens",
    )

# %% [markdown]
# ## Rows in a file
#
# Where the rows themselves are wanted, `run_sweep` writes one Parquet file, complete or not there. Here a slice of the
# same sweep, read back and checked against the evaluator.

# %%
small = Sweep("Qwen/Qwen3-32B", "h100_sxm", tp_size=2, decode_context="1024:32768:x2", prefill_new_tokens="0,512")
with tempfile.TemporaryDirectory() as folder:
    import pyarrow.parquet as pq

    summary = mr.run_sweep(small, Path(folder) / "steps.parquet")
    steps = pq.read_table(Path(folder) / "steps.parquet")
print(f"{summary.rows:,} rows, columns: {', '.join(steps.column_names[-8:])}")
shape = {n: steps[n].to_numpy() for n in ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens")}
again = mr.StepEvaluator("Qwen/Qwen3-32B", "h100_sxm", tp_size=2).step_time(mr.StepBatch.uniform(**shape))
assert np.array_equal(again, steps["step_time_s"].to_numpy())  # the same bits, whatever the chunks and threads
