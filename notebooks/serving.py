# %% [markdown]
# # Serving under load, and validation
#
# From step times to what clients see; a discrete simulation beside the closed form; and how predictions are judged.

# %%
from importlib.util import find_spec

import numpy as np

import mfuroof as mr
from mfuroof.validate import Report

DRAW = find_spec("matplotlib") is not None
if DRAW:
    from mfuroof import plots

# %% [markdown]
# ## Load
#
# Clients that each keep one request in flight: 1,024 tokens in, 256 out. As they get more, each stream gets slower and
# the GPU gets busier, until the KV cache or the engine's limit on running requests stops it.

# %%
evaluator = mr.StepEvaluator("Qwen/Qwen3-32B", "h100_sxm", tp_size=2)
clients = 2 ** np.arange(10)
load = mr.serving.estimate(evaluator, input_len=1024, output_len=256, concurrency=clients)
print(load)
assert (np.diff(load.tpot_s) > 0).all() and (np.diff(load.output_tokens_per_s_per_gpu[:9]) > 0).all()
in_flight = load.requests_per_s * load.e2e_latency_s
assert np.allclose(in_flight, clients, rtol=0.01)  # Little's law

# %% [markdown]
# ## The trade
#
# Speed of a stream against throughput, over degrees of parallelism: more GPUs make streams faster and each GPU less
# productive. The front is what is worth choosing from.

# %%
speed, throughput, degree = [], [], []
for tp_size in (1, 2, 4, 8):
    replica = mr.StepEvaluator("Qwen/Qwen3-32B", "h100_sxm", tp_size=tp_size)
    r = mr.serving.estimate(replica, input_len=1024, output_len=256, concurrency=clients)
    speed.append(1.0 / r.tpot_s)
    throughput.append(r.output_tokens_per_s_per_gpu)
    degree += [f"tp {tp_size}"] * clients.size
assert speed[2][0] > 1.5 * speed[0][0] and throughput[2][0] < throughput[0][0]

# %%
if DRAW:
    plots.pareto(
        np.concatenate(speed),
        np.concatenate(throughput),
        groups=degree,
        xlabel="speed of a stream [tokens/s]",
        ylabel="throughput [generated tokens/s per GPU]",
        title="Qwen3-32B on H100",
    )

# %% [markdown]
# ## A trace
#
# `serving.replay` runs the engine's scheduler request by request on the same step times. The closed form above is an
# average; the replay keeps every queue.

# %%
rng = np.random.default_rng(1)
arrivals = np.cumsum(rng.exponential(1 / 4.0, 400))
prompts, outputs = rng.integers(200, 2000, 400), rng.integers(50, 400, 400)
trace = mr.serving.replay(evaluator, prompts, outputs, arrivals)
print(f"TTFT {np.median(trace.ttft_s) * 1e3:.0f} ms, TPOT {np.median(trace.tpot_s) * 1e3:.1f} ms (medians)")
mean = mr.serving.estimate(evaluator, prompts.mean(), outputs.mean(), arrival_rate=4.0)
print(f"closed form: TPOT {float(mean.tpot_s) * 1e3:.1f} ms")
assert abs(float(mean.tpot_s) / trace.tpot_s.mean() - 1.0) < 0.2

# %% [markdown]
# ## Judging predictions
#
# A `Report` pairs predictions with measurements and scores them by group. Here the measurements are made up: the
# predictions of another engine's kernels with noise of 5 %, so that the figures have something to show. With your own,
# `mfuroof.validate.validate_steps` and `validate_serving` take tables of measured rows.

# %%
batch = np.tile([1, 4, 16, 64, 256], 20)
shape = mr.StepBatch.uniform(decode_batch=batch, decode_context=rng.integers(100, 8000, batch.size))
predicted = evaluator.step_time(shape)
other = mr.StepEvaluator("Qwen/Qwen3-32B", "h100_sxm", tp_size=2, engine="sglang")
measured = other.step_time(shape) * rng.lognormal(0.0, 0.05, batch.size)
report = Report({"step": (predicted, measured)}, {"requests": batch})
print(report.to_text(["requests"]))
score = report.score("step")
assert score.count == 100 and score.failed == 0 and 0.02 < score.mean < 0.5

# %%
if DRAW:
    plots.predicted_measured(measured, predicted, groups=[f"{n} requests" for n in batch], unit="ms")
