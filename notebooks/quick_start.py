# %% [markdown]
# # Quick start
#
# How long does one step of an LLM server take, what is it made of, and what does that mean under load? Cells are
# separated by `# %%`: open this file as a notebook (jupytext), or run it: `python notebooks/quick_start.py`.

# %%
from importlib.util import find_spec

import numpy as np

import mfuroof as mr

DRAW = find_spec("matplotlib") is not None  # figures are optional: pip install 'mfuroof[plot]'

# %% [markdown]
# ## An evaluator is a model on a GPU
#
# Making one reads measured kernel tables and compiles them into a few arrays. In a notebook, model and GPU show
# themselves as tables.

# %%
evaluator = mr.StepEvaluator("meta-llama/Llama-3.1-70B", "h100_sxm", tp_size=4)
print(evaluator.model)
print(evaluator.hardware)

# %% [markdown]
# ## Steps
#
# Decode steps from one request to 512, each with 4,096 tokens in the KV cache. Sixteen requests cost 1.2 times as much
# as one: the weights are read once for all of them. That is what batching buys.

# %%
batch_sizes = 2 ** np.arange(10)
result = evaluator.evaluate(mr.StepBatch.uniform(decode_batch=batch_sizes, decode_context=4096))
print(result)
for size, time in zip(batch_sizes, result.step_time_s, strict=True):
    print(f"{size:>4} requests  {time * 1e3:7.2f} ms  {size / time / 4:8.0f} tokens/s per GPU")
assert 1.0 < result.step_time_s[4] / result.step_time_s[0] < 1.3

# %%
if DRAW:
    from mfuroof import plots

    plots.breakdown(result, title="Llama-3.1-70B on four H100, context 4,096")

# %% [markdown]
# ## Where the numbers come from
#
# Every step says how it was obtained (`source`), how far the nearest measurement is (`distance_octaves`, in factors of
# two) and how wide an interval of 80 % around it should be.

# %%
for size, code, far, half in zip(
    batch_sizes, result.source, result.distance_octaves, result.relative_half_width, strict=True
):
    print(f"{size:>4} requests  {mr.Source(code).name.lower():<13} {far:4.1f} octaves  +- {half:.0%}")
assert result.source[0] == mr.Source.INTERPOLATED

# %% [markdown]
# ## A million shapes
#
# Shapes are arrays. Nothing is looked up by name any more, so a million mixed steps take a fraction of a second.

# %%
import time

rng = np.random.default_rng(0)
many = mr.StepBatch.uniform(
    decode_batch=rng.integers(1, 256, 1_000_000),
    decode_context=rng.integers(1, 16_384, 1_000_000),
    prefill_batch=1,
    prefill_new_tokens=rng.integers(0, 2048, 1_000_000),
)
evaluator.step_time(many)
began = time.perf_counter()
times = evaluator.step_time(many)
print(f"{len(many):,} steps in {time.perf_counter() - began:.3f} s")
assert np.isfinite(times).all() and (times > 0).all()

# %% [markdown]
# ## What fits, and what clients see
#
# KV capacity beside the weights, and from step times to TTFT, TPOT and throughput.

# %%
print(mr.kv_capacity(evaluator.model, evaluator.hardware, tp_size=[2, 4, 8], seq_len=8192))
load = mr.serving.estimate(evaluator, input_len=2048, output_len=256, concurrency=[1, 8, 32, 128])
print(load)
assert (np.diff(load.tpot_s) > 0).all()
