"""``mfuroof predict``: prediction columns for a table of configurations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import count, print_json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EXAMPLES", "SERVING_EXAMPLES", "serving", "steps"]

EXAMPLES = (
    "mfuroof predict steps configurations.csv predicted.parquet",
    "mfuroof predict steps in.parquet out.csv --preset aiconfigurator",
)


SERVING_EXAMPLES = ("mfuroof predict serving configurations.csv predicted.csv",)


def steps(
    source: Annotated[Path, typer.Argument(metavar="IN", help="CSV or Parquet table of configurations.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="CSV or Parquet table to write, by its suffix.")],
    cost: o.CostName = None,
    preset: o.Preset = None,
    missing: o.Missing = None,
    calibration: o.Calibration = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads.")] = 1,
    json: o.Json = False,
) -> None:
    """Add step times, components, what binds and the source to each row of a table.

    Required columns: model, gpu and a shape, either decode_batch, decode_context, prefill_batch, prefill_new_tokens,
    prefill_context or the lists decode_contexts, prefill_contexts, prefill_tokens. Optional: engine, tp, pp, ep, dp,
    weight_dtype, kv_dtype, and what the engine is launched with: runtime (a preset of mfuroof quant), gemm_dtype,
    kvcache_dtype, attention_dtype, moe_dtype. A row that cannot be answered gets nulls and an error text; the others
    are answered, with a note where something of the row does not apply.
    """
    from mfuroof.cli.costs import cost_and_params
    from mfuroof.predict import check_target, predict_steps, read_table, write_table

    check_target(target, source)
    family, params = cost_and_params(cost, preset, missing, calibration=calibration)
    result = predict_steps(read_table(source), cost=family, params=params, threads=threads)
    write_table(result, target)
    _report(result, target, json)


def serving(
    source: Annotated[Path, typer.Argument(metavar="IN", help="CSV or Parquet table of configurations.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="CSV or Parquet table to write, by its suffix.")],
    missing: o.Missing = None,
    calibration: o.Calibration = None,
    json: o.Json = False,
) -> None:
    """Add TTFT, TPOT and throughput under load to each row of a table.

    Required columns: model, gpu, input_len, output_len, concurrency. Optional: engine, tp, pp, ep, attention_dp,
    weight_dtype, kv_dtype, max_batch_tokens, cached_prefix_len, and what the engine is launched with: runtime (a
    preset of mfuroof quant), gemm_dtype, kvcache_dtype, attention_dtype, moe_dtype. A row that cannot be answered gets
    nulls and an error text; the others are answered, with a note where something of the row does not apply.
    """
    from mfuroof.cli.costs import cost_and_params
    from mfuroof.predict import check_target, predict_serving, read_table, write_table

    check_target(target, source)
    family, params = cost_and_params(None, None, missing, calibration=calibration)
    result = predict_serving(read_table(source), cost=family, params=params)
    write_table(result, target)
    _report(result, target, json)


def _report(result: pa.Table, target: Path, json: bool) -> None:
    failed, noted = (result.num_rows - result.column(name).null_count for name in ("error", "note"))
    if json:
        print_json({"rows": result.num_rows, "rows_without_answer": failed, "rows_noted": noted, "path": str(target)})
    else:
        without = f", {count(failed)} without an answer (see the column error)" if failed else ""
        besides = f", {count(noted)} with a remark (see the column note)" if noted else ""
        print(f"{count(result.num_rows)} rows{without}{besides}, written to {target}")
