# %% [markdown]
# # Adding a GPU, a table, an operation, a quantisation format
#
# Four kinds of extension, each done once, without touching the package.

# %%
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import mfuroof as mr
from mfuroof.tables.schema import arrow_schema, validate

BATCH = mr.StepBatch.uniform(decode_batch=[1, 64], decode_context=2048)

# %% [markdown]
# ## A GPU
#
# From the figures of a datasheet, in its units. It has no tables of its own: `tables` names a relative, whose measured
# utilisation each kernel takes; the source of every answer says so.

# %%
import warnings

mine = mr.Hardware.from_figures(
    "my_gpu",
    bf16_tflops_per_s=600,
    fp8_tflops_per_s=1200,
    hbm_tb_per_s=2.5,
    hbm_gib=64,
    nvlink_gb_per_s=300,
    tables="h100_sxm",
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", mr.MfuroofWarning)
    theirs = mr.StepEvaluator("Qwen/Qwen3-8B", mine)
result = theirs.evaluate(BATCH)
print(result)
assert (result.source == mr.Source.SUBSTITUTED).all()
h100 = mr.StepEvaluator("Qwen/Qwen3-8B", "h100_sxm").step_time(BATCH)
slower = result.step_time_s / h100
print(f"slower than an H100 by {slower[0]:.2f}; its bandwidth is lower by {3.35 / 2.5:.2f}")
assert 1.0 < slower[0] < 3.35 / 2.5

# %% [markdown]
# A device of the catalogue with one figure changed is a what-if:

# %%
more = dataclasses.replace(mr.get_hardware("h100_sxm"), hbm_bytes_per_s=4.8e12)
gain = h100 / mr.StepEvaluator("Qwen/Qwen3-8B", more).step_time(BATCH)
assert (gain > 1.0).all() and (gain < 4.8 / 3.35).all()

# %% [markdown]
# ## A table
#
# A family of kernels is a Parquet file in a fixed schema: key columns, then the latency. Take the GEMMs of the H100 and
# make them all a tenth faster, as a new library might; the other families are copied as they are.

# %%
tables = mr.load_tables("h100_sxm")
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name) / "h100_sxm"
for family in tables.families:
    rows = tables.family(family)
    if family == "gemm":
        faster = pa.array(rows.column("latency_s").to_numpy() * 0.9)
        rows = rows.set_column(rows.schema.get_field_index("latency_s"), "latency_s", faster)
        rows = validate(rows.cast(arrow_schema("gemm")), "gemm", "my library")
    (folder / family).mkdir(parents=True)
    pq.write_table(rows, folder / family / "vllm.parquet")
own = mr.StepEvaluator("Qwen/Qwen3-8B", "h100_sxm", tables=folder).evaluate(BATCH)
before = mr.StepEvaluator("Qwen/Qwen3-8B", "h100_sxm").evaluate(BATCH)
ratio = own.op_time_s["gate_up_gemm"] / before.op_time_s["gate_up_gemm"]
print("gate and up projections, of the time before:", *(f"{r:.4f}" for r in ratio))
assert np.allclose(ratio, 0.9, atol=0.005)  # the sum of all operations is made monotone, which moves each a little
assert np.array_equal(own.op_time_s["attention_decode"], before.op_time_s["attention_decode"])

# %% [markdown]
# A table that is wrong is refused with the row that is wrong:

# %%
bad = tables.family("gemm", dtype="bf16", k=4096, n=6144)
negative = np.where(np.arange(bad.num_rows) == 3, -1.0, bad.column("latency_s").to_numpy())
bad = bad.set_column(bad.schema.get_field_index("latency_s"), "latency_s", pa.array(negative))
try:
    validate(bad, "gemm", "bad.parquet")
except mr.MfuroofError as error:
    print(error)
else:
    raise AssertionError("a negative latency was accepted")

# %% [markdown]
# ## An operation
#
# Inside the package an operation is an `Op` in the list of `mfuroof/ops/transformer.py`. From outside, what a step does
# beside the model's own kernels is added to its time. A LoRA adapter of rank 16 on the QKV projections, priced by the
# bytes and FLOPs it needs at the device's roofline (a lower bound: small kernels do worse):

# %%
model, gpu, rank, adapters = mr.get_model("Qwen/Qwen3-8B"), mr.get_hardware("h100_sxm"), 16, 8
tokens = np.array([1.0, 64.0])
out_width = model.num_attention_heads * model.head_dim + 2 * model.num_key_value_heads * model.head_dim
weights = 2.0 * rank * (model.hidden_size + out_width)  # bytes of one adapter in one layer
moved = np.minimum(tokens, adapters) * weights + 2.0 * tokens * (model.hidden_size + 2 * rank + out_width)
flops = 2.0 * tokens * rank * (model.hidden_size + out_width)
lora_s = model.num_hidden_layers * np.maximum(flops / gpu.peak("bf16"), moved / gpu.hbm_bytes_per_s)
total_s = before.step_time_s + lora_s
print("adapters add", *(f"{share:.1%}" for share in lora_s / before.step_time_s))
assert (lora_s > 0).all() and (lora_s < 0.05 * before.step_time_s).all()

# %% [markdown]
# ## A quantisation format
#
# Where only the size differs, one number does it: 3.25 bits a weight on average, scales included, expanded to 16 bits
# before the product. A format with kernels of its own gets an entry in `mfuroof/precision/formats.py`.

# %%
three_bits = mr.StepEvaluator("Qwen/Qwen3-8B", "h100_sxm", weight_bytes_per_param=3.25 / 8)
print(three_bits.model)
speed_up = before.step_time_s / three_bits.step_time(BATCH)
print(f"one request: x {speed_up[0]:.2f}, 64 requests: x {speed_up[1]:.2f}")
assert speed_up[0] > speed_up[1] > 0.9 and speed_up[0] > 1.3
