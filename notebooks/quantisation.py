# %% [markdown]
# # Quantisation is not a free lunch
#
# "INT4 weights are a quarter of the bytes, so decoding is four times as fast." Sometimes it is, nearly. This notebook
# starts from MLSysim's tutorial on the subject, reproduces its numbers with its own conventions, changes the
# conventions one by one, and ends with measured kernels: what each format really buys, from which batch on it stops
# paying, what it costs in accuracy, and how to launch it.
#
# Run it: `python notebooks/quantisation.py` (some seconds), or open it in an editor that knows `# %%` cells. Numbers
# in the text are asserted in the code.

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import mfuroof as mr
from mfuroof.quant import (
    Conventions,
    Workload,
    compare,
    compress,
    crossover_batch,
    format_gains,
    gemm_ridge_tokens,
    generation,
    launch_args,
    regimes,
    roofline,
)
from mfuroof.units import GB, MS

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a small table."""
    cells = [list(head), *([f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for first, *others in cells:
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  " + "  ".join([first.ljust(widths[0]), *right]))


# %% [markdown]
# ## 1. The tutorial's numbers
#
# MLSysim (0.1 and 0.3 agree here) prices a decode step as (weights + cache) / bandwidth, a prompt as FLOPs over half
# the peak rate, and adds 10 us a layer. `Conventions.mlsysim` says the same through parameters, and the published
# figures come out: 5.194, 2.757 and 1.539 ms a token, 70.97, 35.47 and 70.97 ms to the first one.

# %%
tutorial = replace(mr.get_hardware(GPU), peak_flops_per_s={"bf16": 989e12, "fp16": 989e12, "int8": 1979e12})
theirs = Conventions.mlsysim(dispatch_s=10e-6)
published = {"fp16": (70.97, 5.194), "int8": (35.47, 2.757), "int4_wo": (70.97, 1.539)}
rows = []
for dtype, (ttft_ms, itl_ms) in published.items():
    found = generation(MODEL, tutorial, 1, 2048, dtype, theirs, bits="nominal")
    prompt, token = float(found.prefill.time_s) / MS, float(found.decode.time_s) / MS
    rows.append((dtype, prompt, token))
    assert abs(prompt - ttft_ms) < 0.011
    assert round(token, 3) == itl_ms
show("Llama-3.1-8B on an H100, batch 1, 2048 tokens, MLSysim's conventions", ("weights", "TTFT ms", "token ms"), rows)

# %% [markdown]
# Two things can be read off. The text beside those figures says "roughly 4 x" for INT4; the figures say 3.38 x, because
# the time of the layers does not shrink. And INT4 does nothing for the first token: an H100 has no INT4 tensor cores,
# so the weights are expanded and multiplied at the 16-bit rate. That is right, and our catalogue says the same.

# %%
wide, narrow = rows[0], rows[2]
assert abs(wide[2] / narrow[2] - 3.38) < 0.005
assert wide[1] == narrow[1]
device = mr.get_hardware(GPU)
assert device.peak("int4_wo") == device.peak("bf16")
assert device.peak("fp8") == device.peak("int8")
assert not device.native("nvfp4")

# %% [markdown]
# ## 2. One convention at a time
#
# The tutorial asks at which batch the gain of INT4 falls below 2 x. With its formulas it never does: it *rises*, from
# 3.38 x at batch 1 to 3.92 x at batch 512, for two reasons that are conventions, not physics. The cache shrinks with
# the weights, though engines keep it at 16 bits unless told otherwise; and decoding has no compute roof. Group scales
# (one per 128 weights here, 3 % more bytes) are left out too.
#
# With contexts of 2048 it is the cache that decides: at batch 512 it holds 8.6 times the bytes of the weights. With
# contexts of 128 it is the compute roof: the gain at batch 512 goes from 1.9 x to nothing.

# %%
batch = np.array([1, 64, 512])


def int4_gain(how: Conventions, bits: str, context: int) -> np.ndarray:
    """Return how many times faster a token is with INT4 weights, by closed formulas."""
    sixteen, four = (
        generation(MODEL, tutorial, batch, context, d, how, bits=bits).decode.time_s  # type: ignore[arg-type]
        for d in ("fp16", "int4_wo")
    )
    return np.asarray(sixteen / four)


own_cache = replace(theirs, kv_bits_follow_weights=False)
roofed = replace(own_cache, decode_computes=True)
ladder = (
    ("as published", theirs, "nominal"),
    ("cache stays 16-bit", own_cache, "nominal"),
    ("scales count", own_cache, "effective"),
    ("decode has a compute roof", roofed, "effective"),
)
for context in (2048, 128):
    table = [(what, *map(float, int4_gain(how, bits, context))) for what, how, bits in ladder]
    show(f"gain of INT4 at context {context}, by batch", ("convention", *map(str, batch)), table)

rising = int4_gain(theirs, "nominal", 2048)
assert np.allclose(rising, [3.38, 3.66, 3.92], atol=0.01)
cache = int4_gain(own_cache, "nominal", 2048)
assert np.allclose(cache, [3.25, 1.54, 1.08], atol=0.01)
model = mr.get_model(MODEL)
assert round(512 * 2048 * model.kv_bytes_per_token / model.weight_bytes, 1) == 8.6
unroofed, physical = int4_gain(own_cache, "effective", 128)[-1], int4_gain(roofed, "effective", 128)[-1]
assert unroofed > 1.5 > 1.2 > physical  # with short contexts it is arithmetic that the weights wait for

# %% [markdown]
# ## 3. Measured kernels
#
# Closed formulas still assume that every kernel reaches its roofline. `format_gains` prices decode steps from measured
# kernels and adds a tenth to products that compute binds and whose weights have to be expanded (an assumption, the
# parameter `dequantisation`). At batch 1 the gain of INT4 is 2.2 x rather than 3.4 x: LM head, norms, launches and the
# engine's overhead stay as they are. FP8 gives 1.35 x there, but keeps a gain where INT4 has none.

# %%
batches, contexts = [1, 8, 32, 64, 128, 256, 512], [128, 2048]
gains = format_gains(MODEL, GPU, ("fp8", "int4_wo", "nvfp4"), batches, contexts)
for j, context in enumerate(contexts):
    table = [
        (b, float(gains.base_s[i, j]) / MS, *(float(gains.speedup[f][i, j]) for f in gains.speedup))
        for i, b in enumerate(batches)
    ]
    head = ("batch", "16-bit ms", *(f if gains.native[f] else f"{f} (expanded)" for f in gains.speedup))
    show(f"measured kernels at context {context}: times faster", head, table)

int4, fp8 = gains.speedup["int4_wo"], gains.speedup["fp8"]
assert 2.0 < int4[0, 1] < 2.5
assert 1.25 < fp8[0, 1] < 1.5
assert int4[-1, 0] < 1.02 < 1.1 < fp8[-1, 0]  # 512 sequences of 128 tokens: INT4 is no faster, FP8 still is
assert (np.diff(int4, axis=0) <= 0.01).all()

# %% [markdown]
# So the exercise has an answer, and it depends on the context, because a longer cache dilutes any gain on weights:
# below 2 x from about batch 50 on (context 128) or 8 (context 2048), below 1.5 x from about 120 or 50.

# %%
for context, expected in ((128, (50, 120)), (2048, (8, 50))):
    for factor, near in zip((2.0, 1.5), expected, strict=True):
        found = crossover_batch(MODEL, GPU, "int4_wo", factor, context, limit=256)
        print(f"context {context}: below {factor} x from batch {found.batch_size} on")
        assert found.batch_size is not None and 0.7 * near <= found.batch_size <= 1.4 * near

# %% [markdown]
# ## 4. Why: which side of the ridge
#
# A product of m tokens with an (n, k) matrix does 2 m FLOP per weight. Below the ridge point of the device it waits for
# memory and narrower weights help; above it waits for tensor cores, and only a faster *rate* helps. Narrower weights
# move the ridge: with INT4 the down projection is compute-bound from 84 tokens on instead of 326, with FP8 from 363
# on, at twice the rate.

# %%
ridge = {d: gemm_ridge_tokens(device.ridge_point(d), 4096, 14336, w) for d, w in
         (("bf16", 2.0), ("int4_wo", 0.5156), ("fp8", 1.0))}  # fmt: skip
show("tokens from which the down projection is bound by compute", ("format", "tokens"), list(ridge.items()))
assert [round(t) for t in ridge.values()] == [326, 84, 363]

evaluator = mr.StepEvaluator(MODEL, GPU)
shapes = mr.StepBatch.uniform(
    decode_batch=[1, 64, 64, 0], decode_context=[2048, 2048, 16384, 0], prefill_batch=[0, 0, 0, 1],
    prefill_new_tokens=4096,
)  # fmt: skip
names = ("batch 1", "batch 64", "batch 64, 16k", "prompt 4096")
kinds = regimes(evaluator, shapes)
show("what binds a step", ("", *names), [("", *kinds.step.tolist())])
assert kinds.step.tolist() == ["memory", "memory", "memory", "compute"]

# %% [markdown]
# What to narrow follows from where the bytes are. At batch 1 they are weights; with long contexts they are cache, and
# INT4 weights gain 1.1 x where an FP8 cache gains 1.6 x; in prompts no bytes matter, only rates.

# %%
before = evaluator.step_time(shapes)
ideas = {
    "INT4 weights": {"weight_dtype": "int4_wo"},
    "FP8 weights": {"weight_dtype": "fp8"},
    "FP8 cache": {"kv_dtype": "fp8"},
    "both FP8": {"weight_dtype": "fp8", "kv_dtype": "fp8"},
}
after = {idea: before / mr.StepEvaluator(MODEL, GPU, **dtypes).step_time(shapes) for idea, dtypes in ideas.items()}
show("times faster", ("", *names), [(idea, *map(float, gain)) for idea, gain in after.items()])
assert max(after, key=lambda idea: after[idea][0]) == "INT4 weights"
assert after["FP8 cache"][2] > 1.4 > 1.2 > after["INT4 weights"][2]
assert after["FP8 weights"][3] > 1.15 > 1.05 > after["INT4 weights"][3]

# %% [markdown]
# ## 5. Not only language models
#
# The same roofline core takes any work given by FLOPs and bytes. MLSysim's ResNet-50 on an A100 at batch 256 comes out
# as published: 7.243 ms, 3.879 ms with INT8 (version 0.1), or 13.971 and 7.243 ms once a multiply-add counts as two
# operations (version 0.3). INT8 gains 1.9 x, where the text calls it negligible.

# %%
a100 = "a100_sxm"
for flops, figures in ((4.1e9, (7.243, 3.879)), (8.2e9, (13.971, 7.243))):
    network = Workload(flops=flops, weight_params=25.6e6, num_layers=50)
    times = [float(roofline(network, a100, 256, d, Conventions.mlsysim()).time_s) / MS for d in ("fp16", "int8")]
    assert [round(t, 3) for t in times] == list(figures)
    print(f"ResNet-50, {flops / 1e9:.1f} GFLOP an image: {times[0]:.3f} ms, INT8 {times[1]:.3f} ms")

# %% [markdown]
# What is missing there is the traffic of activations: 11.1 million outputs of convolutions an image (the count that
# model listings give for ResNet-50), each written and read once. With 16-bit activations the network sits near the
# ridge point, and INT8 rates turn it memory-bound: the gain is 1.2 x, in training as well as in inference. Only if the
# activations shrink too, to 8 bits, is it nearly 2 x.

# %%
activations = 11.1e6 * 2 * 2  # numbers, 2 bytes, written and read [bytes]
network = Workload(flops=8.2e9, weight_params=25.6e6, num_layers=50, bytes_per_sample=activations)
for name, work in (("inference", network), ("training", network.training())):
    full, int8 = (roofline(work, a100, 256, d) for d in ("fp16", "int8"))
    gain = float(full.time_s / int8.time_s)
    print(f"{name}: {float(full.time_s) / MS:.2f} ms, {full.bound}; INT8 weights {gain:.2f} x, {int8.bound}")
    assert (str(full.bound), str(int8.bound)) == ("compute", "memory")
    assert 1.15 < gain < 1.25
halved = replace(network, bytes_per_sample=activations / 2)
assert float(roofline(network, a100, 256, "fp16").time_s / roofline(halved, a100, 256, "int8").time_s) > 1.9

# %% [markdown]
# ## 6. Size, and what it may cost
#
# "Eight times smaller" counts from 32 bits, leaves out scales, and quantises the embedding. From 16 bits, with scales,
# and with embedding and LM head as checkpoints really keep them, INT4 makes this model 2.8 x smaller. The loss of
# accuracy is a range with its source, a rule of thumb and never a prediction: evaluate on your own task.

# %%
rows = []
for dtype in ("fp8", "int8", "int4_wo", "nvfp4"):
    exact, simple = compress(MODEL, dtype), compress(MODEL, dtype, convention="mlsysim")
    rows.append((dtype, exact.weight_bytes / GB, exact.ratio, simple.ratio))
    print(f"{dtype}: {exact.risk}")
show("size of Llama-3.1-8B", ("weights", "GB", "from 16 bits", "MLSysim's ratio"), rows)
assert abs(compress(MODEL, "int4_wo").ratio - 2.82) < 0.01
assert compress(MODEL, "int4_wo", convention="mlsysim").ratio == 8.0

# %% [markdown]
# Pruning has the same trap. Half of the weights gone in no pattern halves nothing in time (no kernel skips them) and
# costs a bit per weight to say which are left; 2:4 doubles the rate at most; whole rows and heads give their full share
# and hurt the most.

# %%
for pattern in ("unstructured", "n:m", "structured"):
    pruned = compress(MODEL, "bf16", 0.5, pattern)  # type: ignore[arg-type]
    print(f"{pattern}: {pruned.ratio:.2f} x smaller, products at most {pruned.gemm_speedup_limit:.0f} x faster")
assert compress(MODEL, "bf16", 0.5).gemm_speedup_limit == 1.0
assert compress(MODEL, "bf16", 0.5, "n:m").ratio < 2.0

# %% [markdown]
# ## 7. The decision
#
# What an engine can be told at launch are four fields: linear layers, cache, attention, experts. `compare` prices the
# presets with TTFT, TPOT, memory and capacity, and stars what cannot be launched. `aggressive-moe` is the fastest row
# and no engine starts it from 16-bit weights: such a checkpoint has to be made first.

# %%
presets = compare("Qwen/Qwen3-30B-A3B", GPU, concurrency=64)
print(f"\n{presets}")
by_name = {row["name"]: row for row in presets.rows}
assert [name for name, row in by_name.items() if not row["launchable"]] == ["aggressive-moe"]
assert by_name["dynamic-fp8"]["speedup"] > 1.3 > 1.1 > by_name["kv-cache-fp8"]["speedup"]
assert by_name["kv-cache-fp8"]["kv_capacity_tokens"] == 2 * by_name["default"]["kv_capacity_tokens"]

launch = launch_args("vllm", "dynamic-fp8", {"max_model_len": 8192}, checkpoint="Qwen/Qwen3-30B-A3B", hardware=GPU)
print(f"\n{launch.command('Qwen/Qwen3-30B-A3B')}")
assert launch.to_shell() == "--quantization fp8_per_tensor --kv-cache-dtype fp8_e4m3 --max-model-len 8192"
