# %% [markdown]
# # Step time: breakdown, roofline, sensitivity
#
# Where does the time of a step go, which resource binds it, and what would better hardware change?

# %%
from importlib.util import find_spec

import numpy as np

import mfuroof as mr
from mfuroof.sensitivity import sensitivity, what_if

DRAW = find_spec("matplotlib") is not None
if DRAW:
    from mfuroof import plots

# %% [markdown]
# ## Three kinds of step
#
# Decoding alone, a prompt alone, and both together. `op_time_s`, `op_flops` and `op_bytes` hold one array a component.

# %%
evaluator = mr.StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
shapes = mr.StepBatch.uniform(
    decode_batch=[64, 0, 64], decode_context=2048, prefill_batch=[0, 1, 1], prefill_new_tokens=2048
)
result = evaluator.evaluate(shapes)
for name in result.components:
    print(f"{name:<18}", *(f"{t * 1e3:8.3f}" for t in result.op_time_s[name]), "ms")
print(result.bound_names)
decode, prompt, both = result.step_time_s
assert result.bound_names[:2] == ["memory", "compute"]
assert max(decode, prompt) < both < decode + prompt  # riding together is cheaper than one after the other

# %% [markdown]
# ## The roofline, operation by operation
#
# An operation that does few FLOPs per byte cannot be faster than memory allows; one that does many is held by the peak
# rate. Decode attention sits far to the left: it reads the KV cache of every request for itself, so a larger batch does
# not raise its intensity, while that of the GEMMs grows with every request.

# %%
sizes = evaluator.evaluate(mr.StepBatch.uniform(decode_batch=[1, 64], decode_context=2048))
intensity = {n: sizes.op_flops[n] / sizes.op_bytes[n] for n in ("attention_decode", "gate_up_gemm")}
for name, per_byte in intensity.items():
    print(f"{name:<18} {per_byte[0]:6.1f} FLOP/byte for one request, {per_byte[1]:6.1f} for 64")
print(f"the ridge is at {evaluator.hardware.ridge_point('bf16'):.0f}")
assert intensity["gate_up_gemm"][1] > 50 * intensity["gate_up_gemm"][0]
assert abs(intensity["attention_decode"][1] / intensity["attention_decode"][0] - 1) < 0.05

# %%
if DRAW:
    plots.roofline(result, evaluator.hardware, step=2, title="64 decode requests and a prompt of 2,048")
    over_batch = evaluator.evaluate(mr.StepBatch.uniform(decode_batch=2 ** np.arange(10), decode_context=2048))
    plots.breakdown(over_batch, relative=True)

# %% [markdown]
# ## What would help
#
# Elasticity: by how many per cent the time grows when a resource gets one per cent slower. Together with what nothing
# changes (launches, link latency) the shares add up to one.

# %%
s = sensitivity(evaluator, shapes)
print(s)
total = sum(s.elasticity.values()) + s.fixed
assert np.allclose(total, 1.0)
assert s.elasticity["hbm"][0] > 0.8 and s.elasticity["peak_bf16"][1] > 0.5

# %% [markdown]
# A device with twice the bandwidth, everything else as it is: decode gains much, the prompt little.

# %%
faster = what_if(evaluator, hbm=2.0)
gain = evaluator.step_time(shapes) / faster.step_time(shapes)
print(f"twice the bandwidth: decode x {gain[0]:.2f}, prompt x {gain[1]:.2f}")
assert gain[0] > 1.6 > 1.3 > gain[1] >= 1.0

# %%
if DRAW:
    plots.tornado(evaluator, shapes, title="Llama-3.1-8B on H100: decode, prompt, both")
