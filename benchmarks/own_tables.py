"""Whole steps that `mfuroof collect` has timed, against predictions from own and from embedded tables.

    python benchmarks/own_tables.py STEPS OWN [--gpu GPU] [--json OUT]

STEPS is the folder of a GPU with a ``steps.csv`` (``mfuroof collect --families steps``), OWN the folder of the same GPU
with collected tables. The timed decoder does what an engine does on the GPU and nothing around it, so that engines'
overheads are left out of every prediction; nothing is fitted to the steps. Where ``attn_extend`` was collected, the
rule for prompts behind a cached prefix is judged too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq

import mfuroof as mr
from mfuroof.collect.plan_steps import known_model
from mfuroof.collect.steps_file import SHAPE
from mfuroof.tables.store import KernelTables, available, load_tables
from mfuroof.validate import Report, score

PLAIN = mr.CostParams(engine_overheads=False)


def sources(own: Path, gpu: str) -> Iterator[tuple[str, KernelTables, mr.CostParams]]:
    """Yield what predicts: a name, tables and parameters."""
    mine = load_tables(own, "own")
    yield "own tables", mine, PLAIN
    constants = json.loads((own / "collection.json").read_text(encoding="utf-8"))["cost_params"]
    if constants:
        yield "own tables, own elementwise constants", mine, replace(PLAIN, **constants)
    for engine in available().get(gpu, {}):
        yield f"embedded, {engine}", load_tables(gpu, engine), PLAIN


def judged(steps: Any, hardware: mr.Hardware, tables: KernelTables, params: mr.CostParams) -> Report:
    """Return predictions of every step beside what was measured."""
    shape = {name: steps.column(name).to_numpy() for name in SHAPE}
    model = np.array(steps.column("model").to_pylist())
    predicted, errors = np.full(steps.num_rows, np.nan), [""] * steps.num_rows
    for name in np.unique(model):
        rows = np.flatnonzero(model == name)
        try:
            llm = known_model(str(name))
            evaluator = mr.StepEvaluator(llm, hardware, tables=tables, engine=tables.engine, params=params)
            predicted[rows] = evaluator.step_time(mr.StepBatch.uniform(**{k: v[rows] for k, v in shape.items()}))
        except mr.MfuroofError as error:
            for i in rows:
                errors[i] = str(error)
    decode, prefill = shape["decode_batch"] > 0, shape["prefill_batch"] > 0
    phase = np.where(decode & prefill, "mixed", np.where(prefill, "prefill", "decode"))
    return Report({"step": (predicted, steps.column("step_time_s").to_numpy())}, {"phase": phase}, errors)


def prefix_rule(own: Path, hardware: mr.Hardware) -> Any:
    """Return the score of the rule for chunks behind a prefix on measured ones; None where none were measured."""
    points = pq.read_table(own / "points.parquet")
    rows = [r for r in points.to_pylist() if r["family"] == "attn_extend" and r["status"] == "ok"]
    predicted, measured = [], []
    for row in rows:
        k = json.loads(row["shape"])
        heads, kv_heads, dim = (k[n] for n in ("num_attention_heads", "num_key_value_heads", "head_dim"))
        model = mr.ModelConfig(
            hidden_size=heads * dim,
            num_hidden_layers=1,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=dim,
            intermediate_size=4 * heads * dim,
            vocab_size=32_000,
        )
        params = replace(PLAIN, missing="roofline")
        evaluator = mr.StepEvaluator(model, hardware, tables=load_tables(own, "own"), engine="own", params=params)
        batch = mr.StepBatch.uniform(
            prefill_batch=1, prefill_new_tokens=k["new_tokens"], prefill_context=k["context_len"]
        )
        predicted.append(float(evaluator.evaluate(batch).op_time_s["attention_prefill"][0]))
        measured.append(row["latency_s"])
    return score(predicted, measured) if rows else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("steps", type=Path)
    parser.add_argument("own", type=Path)
    parser.add_argument("--gpu", help="GPU of the catalogue; by default the name of the folder OWN")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    gpu = arguments.gpu or arguments.own.name
    known = gpu in mr.known_hardware()
    hardware = mr.get_hardware(gpu) if known else mr.load_catalogue(arguments.own / "device.json")[gpu]
    steps = csv.read_csv(arguments.steps / "steps.csv")
    out = {}
    for name, tables, params in sources(arguments.own, gpu):
        report = judged(steps, hardware, tables, params)
        out[name] = report.to_dict(("phase",))
        print(f"{name}\n{report.to_text(('phase',))}\n")
    rule = prefix_rule(arguments.own, hardware)
    if rule is not None:
        print(f"attention behind a prefix: {rule.count} shapes, median {rule.median:.1%}, p95 {rule.p95:.1%}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
