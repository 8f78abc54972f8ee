"""A table of runtime precisions side by side: its columns, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mfuroof.units import GIB, MS

__all__ = ["COLUMNS", "Comparison"]

COLUMNS: Mapping[str, str] = {
    "name": "configuration",
    "gemm_dtype": "format of the linear layers as it is priced",
    "kv_dtype": "format of the KV cache as it is priced",
    "moe_dtype": "format of the experts as it is priced; None without experts",
    "launchable": "whether the engine can be launched so with this checkpoint on this device",
    "engines": "names of all engines that can",
    "reason": "what the engine cannot do, or an empty text; the figures are those of a checkpoint made beforehand",
    "decode_step_s": "one step of `batch_size` decode requests in the middle of their output [s]",
    "prefill_step_s": "one step with one whole prompt [s]",
    "speedup": "decode step of the first configuration over this one's",
    "bound": "what binds the decode step",
    "source": "worst origin of its figures",
    "ttft_s": "time to first token at `concurrency` [s]; None where it was not estimated",
    "tpot_s": "time per output token [s]",
    "output_tokens_per_s_per_gpu": "throughput [tokens/s]",
    "weight_bytes": "of one GPU [bytes]",
    "kv_bytes_per_token": "of one GPU [bytes]",
    "kv_capacity_tokens": "tokens of all KV caches together",
    "max_concurrency": "sequences of input_len + output_len tokens that fit at once",
    "fits": "whether weights and one such sequence fit",
    "error": "why there is no estimate, or an empty text",
}
"""Columns of a comparison."""

HEAD = ("configuration", "decode", "gain", "prefill", "TTFT", "TPOT", "weights", "KV tokens", "seqs")
"""Columns of the printed table: times in ms, weights in GiB."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Configurations side by side.

    Attributes
    ----------
    model, hardware
        Names.
    engine
        What is launched and priced: engine, version, cost family and ranks, in words.
    workload
        Decode requests of a step, lengths and clients: ``batch_size, input_len, output_len, concurrency``.
    rows
        One record per configuration, with the keys of `COLUMNS`.
    notes
        By configuration: what does not apply, and what is not native on the device.
    """

    model: str
    hardware: str
    engine: str
    workload: Mapping[str, int]
    rows: tuple[Mapping[str, Any], ...]
    notes: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    def to_arrow(self) -> Any:
        """Return an Arrow table, one row per configuration."""
        import pyarrow as pa

        return pa.table({name: pa.array([row[name] for row in self.rows]) for name in COLUMNS})

    def title(self) -> str:
        """Return model, device and engine in one line."""
        return f"{self.model} on {self.hardware}, {self.engine}"

    def load(self) -> str:
        """Return the workload in words."""
        w = self.workload
        context = w["input_len"] + w["output_len"] // 2
        return (
            f"decode: a step of {w['batch_size']} at context {context}; prefill: one of {w['input_len']}; TTFT, TPOT: "
            f"{w['concurrency']} clients, {w['input_len']} tokens in, {w['output_len']} out"
        )

    def cells(self) -> list[list[str]]:
        """Return the printed table's rows, without `HEAD`; what cannot be launched has a star behind its name."""
        out = []
        for r in self.rows:
            row = [r["name"] + ("" if r["launchable"] else "*"), _scaled(r["decode_step_s"], MS)]
            row += [_scaled(r["speedup"], 1.0), *(_scaled(r[n], MS) for n in ("prefill_step_s", "ttft_s", "tpot_s"))]
            row += [_scaled(r["weight_bytes"], GIB), _count(r["kv_capacity_tokens"]), _count(r["max_concurrency"])]
            out.append(row)
        return out

    def remarks(self) -> list[str]:
        """Return what has to be said beside the table, one line each."""
        lines = []
        for r in self.rows:
            if not r["launchable"]:
                able = f"possible with {', '.join(r['engines'])}" if r["engines"] else "with no engine"
                lines.append(f"* {r['name']} cannot be launched so ({able}): {r['reason']}")
        lines += [f"{r['name']}: {r['error']}" for r in self.rows if r["error"]]
        origins: dict[str, list[str]] = {}
        for r in self.rows:
            if r["source"]:
                origins.setdefault(r["source"], []).append(r["name"])
        if set(origins) - {"exact", "interpolated"}:
            lines.append("decode step: " + "; ".join(f"{s} ({', '.join(names)})" for s, names in origins.items()))
        texts: dict[str, list[str]] = {}
        for name, said in self.notes.items():
            for text in said:
                texts.setdefault(text, []).append(name)
        return [*lines, *(f"{', '.join(names)}: {text}" for text, names in texts.items())]

    def __repr__(self) -> str:
        table = [list(HEAD), *self.cells()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in table
        ]
        units = "times in ms, weights in GiB per GPU, seqs: sequences that fit at once"
        return "\n".join([self.title(), self.load(), *lines, units, *self.remarks()])


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:,.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
