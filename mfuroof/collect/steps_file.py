"""Measured steps as a CSV file that `mfuroof validate`, `mfuroof predict steps` and people read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from mfuroof.collect.outliers import best_results

__all__ = ["SHAPE", "steps_csv"]

SHAPE = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")


def steps_csv(results: Sequence[dict[str, Any]], gpu: str) -> bytes:
    """Return the steps that were measured: columns of `predict steps`, and the measured ``step_time_s``. [s]"""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "gpu", "engine", "tp", *SHAPE, "step_time_s", "spread"))
    for result in best_results(results).values():
        if result["family"] == "steps" and result["status"] == "ok":
            shape = result["shape"]
            row = (shape["model"], gpu, "own", 1, *(shape[name] for name in SHAPE))
            writer.writerow((*row, repr(result["latency_s"]), f"{result['spread']:.5f}"))
    return text.getvalue().encode()
