"""Serving figures as records, and as text: one deployment as a list, several as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof.cli.output import print_pairs, print_table
from mfuroof.units import MS

if TYPE_CHECKING:
    from mfuroof.precision import QuantConfig
    from mfuroof.serving import ServingResult, Speculation
    from mfuroof.step import StepEvaluator

__all__ = ["pool_records", "print_records", "records"]

_AXES = {
    "tp_size": "tp",
    "input_len_given": "in",
    "output_len_given": "out",
    "concurrency_given": "conc",
    "arrival_rate": "rate",
}
"""What tells rows of a table apart, and the heads of its columns."""
_BINDS = {
    "load": "the load offered: no limit of the engine",
    "kv_cache": "the KV cache: requests wait for room",
    "max_num_seqs": "the running batch: requests wait for a place",
    "token_budget": "the token budget of a step: prompts wait",
    "does_not_fit": "the memory: the weights or one such request do not fit",
}
_SHORT = {"load": "-", "kv_cache": "KV", "max_num_seqs": "batch", "token_budget": "tokens", "does_not_fit": "no fit"}
"""The same in tables; a dash where only the load offered keeps throughput down."""


def records(
    evaluator: StepEvaluator, arguments: dict[str, Any], speculation: Speculation | None, asked: QuantConfig | None
) -> list[dict[str, Any]]:
    """Return one record a configuration, in base units."""
    from mfuroof.core.sources import Source
    from mfuroof.costs.base import RESOURCES
    from mfuroof.serving import estimate
    from mfuroof.serving.interval import FIGURES

    result = estimate(evaluator, **arguments, speculation=speculation)
    head, given = _head(evaluator, asked), _given(arguments, result.ttft_s.shape)
    columns = {name: column.to_pylist() for name, column in _columns(result).items()}
    for figure in FIGURES if evaluator.cost == "kernels" else ():
        for end, values in zip(("low", "high"), result.interval(figure), strict=True):
            columns[_end_name(figure, end)] = values.ravel().tolist()
    if speculation is not None:
        head["draft_tokens"], head["acceptance"] = speculation.num_draft_tokens, speculation.acceptance
        head["tokens_per_decode_step"] = speculation.tokens_per_step
    out = []
    for i in range(len(result)):
        row = {**head, **{name: values[i] for name, values in given.items()}}
        row |= {name: values[i] for name, values in columns.items()}
        row["bound"] = RESOURCES[int(result.bound.ravel()[i])]
        row["source"] = Source(int(result.source.ravel()[i])).name.lower()
        out.append(row)
    return out


def pool_records(
    prefill: StepEvaluator, decode: StepEvaluator, arguments: dict[str, Any], asked: QuantConfig | None
) -> list[dict[str, Any]]:
    """Return one record a configuration of two pools, in base units."""
    from mfuroof.serving import disaggregated

    given_as = {name: value for name, value in arguments.items() if value is not None}
    result = disaggregated(prefill, decode, **given_as)
    head = {**_head(decode, asked), "num_prefill": arguments["num_prefill"], "num_decode": arguments["num_decode"]}
    head |= {"prefill_gpu": prefill.hardware.name, "prefill_tp_size": prefill.parallel.tp_size}
    given = _given(arguments, result.ttft_s.shape)
    columns = {name: column.to_pylist() for name, column in zip(*_arrow(result), strict=True)}
    return [
        {**head, **{n: v[i] for n, v in given.items()}, **{n: v[i] for n, v in columns.items()}}
        for i in range(len(result))
    ]


def _end_name(figure: str, end: str) -> str:
    """Return ``ttft_low_s`` for the lower end of ``ttft_s``, ``requests_per_s_low`` for that of ``requests_per_s``."""
    rate = not figure.endswith("_s") or figure.endswith("per_s")
    return f"{figure}_{end}" if rate else f"{figure.removesuffix('_s')}_{end}_s"


def _arrow(result: Any) -> tuple[list[str], list[Any]]:
    table = result.to_arrow()
    return table.column_names, table.columns


def _columns(result: ServingResult) -> dict[str, Any]:
    return dict(zip(*_arrow(result), strict=True))


def _head(evaluator: StepEvaluator, asked: QuantConfig | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": evaluator.model.name,
        "gpu": evaluator.hardware.name,
        **asdict(evaluator.parallel),
        "num_gpus": evaluator.parallel.num_gpus,
        "engine": evaluator.engine,
        "cost": evaluator.cost,
        "params": evaluator.params.changed(),
        "runtime": {"name": asked.name, **asked.precision.to_dict()} if asked else None,
    }


def _given(arguments: dict[str, Any], shape: tuple[int, ...]) -> dict[str, list[Any]]:
    """Return the axes as they were given: lengths may be the ends of a distribution, whose means are the answer."""
    names = {"input_len": "input_len_given", "output_len": "output_len_given", "concurrency": "concurrency_given"}
    columns = {names.get(name, name): arguments[name] for name in (*names, "arrival_rate") if name in arguments}
    return {name: np.broadcast_to(np.asarray(values), shape).ravel().tolist() for name, values in columns.items()}


def print_records(found: list[dict[str, Any]]) -> None:
    """Print one record as a list of figures, several as a table."""
    one = found[0]
    degrees = [f"{name} {one[f'{name}_size']}" for name in ("pp", "ep", "dp") if one[f"{name}_size"] != 1]
    several_tp = len({r["tp_size"] for r in found}) > 1
    spread = ", ".join([*([] if several_tp else [f"tp {one['tp_size']}"]), *degrees])
    print(f"{one['model']} on {one['gpu']}, {spread}{', ' if spread else ''}{one['cost']} ({one['engine']})")
    if one["runtime"]:
        print(f"launched with {one['runtime']['name']}")
    if "num_prefill" in one:
        where = f"{one['prefill_gpu']}, tp {one['prefill_tp_size']}"
        print(f"prefill: {one['num_prefill']} engines ({where}); decode: {one['num_decode']}")
    if len(found) == 1:
        print_pairs("", _pairs(one))
    else:
        _print_table(found)


def _pairs(r: dict[str, Any]) -> list[tuple[str, Any]]:
    clients = r.get("concurrency_given", 0)
    load = f"{r['arrival_rate']:g} requests/s" if "arrival_rate" in r else f"{clients} client{'s' * (clients != 1)}"
    rows: list[tuple[str, Any]] = [
        ("requests", f"{r['input_len_given']} tokens in, {r['output_len_given']} out, {load}")
    ]
    if np.isnan(r["ttft_s"]):
        return [*rows, ("limit", _BINDS["does_not_fit"])]
    rows += [("TTFT", _time(r, "ttft_s")), ("TPOT", _time(r, "tpot_s"))]
    if "draft_tokens" in r:
        rows.append(("ITL", f"{_time(r, 'itl_s')}, {r['tokens_per_decode_step']:.2f} tokens each"))
    rows.append(("end to end", _time(r, "e2e_latency_s")))
    if "num_prefill" in r:
        parts = ("prefill_wait_s", "prefill_s", "transfer_s", "decode_wait_s")
        shown = ", ".join(f"{name.removesuffix('_s').replace('_', ' ')} {_ms(r[name])}" for name in parts)
        able = [f"{pool} {_number(r[f'{pool}_limit_per_s'])}" for pool in ("prefill", "decode")]
        rows += [
            ("of the TTFT", shown),
            ("output", f"{_number(r['output_tokens_per_s_per_gpu'])} tokens/s per GPU"),
            ("served", f"{_number(r['requests_per_s'])} requests/s"),
            ("pools could", f"{', '.join(able)} requests/s"),
            ("balanced at", f"{_number(r['balance'])} prefill engines a decode engine"),
            ("decode batch", _number(r["decode_batch"])),
        ]
        return rows
    if r["queue_s"] and np.isfinite(r["queue_s"]):
        rows.append(("of the TTFT", f"{_ms(r['queue_s'])} waiting for a place"))
    rows += [
        ("output", f"{_number(r['output_tokens_per_s_per_gpu'])} tokens/s per GPU"),
        ("in and out", f"{_number(r['tokens_per_s_per_gpu'])} tokens/s per GPU"),
        ("served", f"{_number(r['requests_per_s'])} requests/s by {r['num_gpus']} GPU{'s' * (r['num_gpus'] > 1)}"),
        ("running batch", f"{_number(r['running_batch'])} of at most {_number(r['max_running_batch'])}"),
        ("KV cache", f"{_share(r['kv_utilization'])} in use"),
        ("limit", _BINDS[r["limit"]]),
        ("next limit", _BINDS[r["first_limit"]].split(":")[0]),
        ("decode step", f"{_ms(r['decode_step_s'])}, {r['bound']} bound, {r['source']}"),
        ("mixed step", _ms(r["mixed_step_s"])),
    ]
    return rows if r["limit"] == "load" else [row for row in rows if row[0] != "next limit"]


def _print_table(found: list[dict[str, Any]]) -> None:
    axes = {name: head for name, head in _AXES.items() if len({r.get(name) for r in found}) > 1}
    pools = "num_prefill" in found[0]
    head = [*axes.values(), "TTFT ms", "TPOT ms", "tok/s/GPU", *(("batch",) if pools else ("batch", "KV", "limit"))]
    rows = []
    for r in found:
        row = [f"{r[name]:g}" for name in axes]
        row += [_number(r["ttft_s"] / MS), _number(r["tpot_s"] / MS), _number(r["output_tokens_per_s_per_gpu"])]
        batch = r["decode_batch"] if pools else r["running_batch"]
        rows.append([*row, _number(batch), *([] if pools else [_share(r["kv_utilization"]), _SHORT[r["limit"]]])])
    print_table("", head, rows, numbers=range(len(head)))
    fixed = {name: head for name, head in _AXES.items() if name in found[0] and name not in axes}
    fixed.pop("tp_size", None)
    if fixed:
        print(", ".join(f"{head} {found[0][name]:g}" for name, head in fixed.items()))
    print("tok/s/GPU: output tokens; batch: requests in flight" + ("" if pools else "; limit: what requests wait for"))


def _time(r: dict[str, Any], name: str) -> str:
    low, high = (r.get(_end_name(name, end)) for end in ("low", "high"))
    if low is None or high is None or not np.isfinite([low, high]).all():
        return _ms(r[name])
    return f"{_ms(r[name])} (80 %: {_number(low / MS)} to {_number(high / MS)})"


def _ms(seconds: float) -> str:
    return f"{_number(seconds / MS)} ms" if np.isfinite(seconds) else _number(seconds)


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-" if np.isnan(value) else "endless"
    return f"{value:.4g}" if value < 1e4 else f"{value:,.0f}"


def _share(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.1%}"
