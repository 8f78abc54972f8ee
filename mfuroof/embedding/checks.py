"""Reading arguments: the fast way where they are whole numbers already, and the careful way that says what is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mfuroof._boundary import MAX_COUNT, Problems, count_array
from mfuroof._types import F64, I64, ArrayLike

__all__ = ["SUMS", "check_columns", "check_sums", "reread", "sum_rows", "whole"]


def whole(values: ArrayLike) -> np.ndarray | None:
    """Return the values as an array if they are whole numbers without further ado; None where a look is needed."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        return None
    if array.dtype.kind in "iub" and not isinstance(values, np.ma.MaskedArray):
        return array
    return array.astype(np.int64) if array.size == 0 and array.ndim == 1 else None


def reread(context: ArrayLike, new: ArrayLike, is_decode: ArrayLike | None, emits: ArrayLike | None) -> Any:
    """Read arguments that need care (whole floats, lists of anything), with every problem reported at once."""
    problems = Problems()
    given = {"context_lens": context, "new_tokens": new, "is_decode": is_decode, "emits": emits}
    columns: list[I64 | None] = []
    for name, values in given.items():
        if values is None and name in ("is_decode", "emits"):
            columns.append(None)
            continue
        found, values = len(problems), _no_arrow(values)  # type: ignore[arg-type]
        columns.append(count_array(name, values, problems, flags=name in ("is_decode", "emits")))
        if len(problems) == found and np.ndim(values) != 1:
            problems.add(name, f"{np.ndim(values)} dimensions", "one: a value for each request")
    problems.raise_if_any()
    check_columns(*columns)  # type: ignore[arg-type]
    return columns


def _no_arrow(values: ArrayLike) -> ArrayLike:
    """Return Arrow arrays as numpy's, nulls as NaN; anything else as it is."""
    return (
        values.to_numpy(zero_copy_only=False)
        if hasattr(values, "null_count") and hasattr(values, "to_numpy")
        else values
    )


def check_columns(context: I64, new: I64, is_decode: I64 | None, emits: I64 | None) -> None:
    """Raise `InputError` for columns of different lengths, and decode requests with several tokens."""
    problems = Problems()
    for name, column in (("new_tokens", new), ("is_decode", is_decode), ("emits", emits)):
        if column is not None and column.size != context.size:
            problems.add(name, f"{column.size} values", f"{context.size} as in context_lens")
    problems.raise_if_any()
    if is_decode is not None and (wrong := np.flatnonzero((is_decode != 0) & (new > 1))).size:
        at, remedy = int(wrong[0]), "A request that verifies draft tokens is a prefill request."
        problems.add(f"new_tokens[{at}]", int(new[at]), "1 for a decode request", remedy)
    problems.raise_if_any()


SUMS = (
    "num_decode",
    "decode_kv_tokens",
    "longest_context",
    "prefill_tokens",
    "prefill_area",
    "num_prefill",
    "emits",
)


def sum_rows(*columns: ArrayLike) -> F64:
    """Return the sums as rows of one array (7, n)."""
    problems = Problems()
    rows: list[Any] = []
    for name, values in zip(SUMS, columns, strict=True):
        if name == "prefill_area":
            try:
                rows.append(np.asarray(values, np.float64).ravel())
            except (TypeError, ValueError):
                problems.add(name, type(values).__name__, "numbers")
        else:
            rows.append(count_array(name, values, problems, flags=name == "emits"))
    problems.raise_if_any()
    n = next((row.size for row in rows if row.size != 1), 1)
    for name, row in zip(SUMS, rows, strict=True):
        if row.size not in (1, n):
            problems.add(name, f"{row.size} values", f"{n} as in the others, or one")
    problems.raise_if_any()
    return np.ascontiguousarray(np.stack([np.broadcast_to(row, (n,)) for row in rows]), np.float64)


def check_sums(sums: F64) -> None:
    """Say what is wrong with the first step whose sums no batch has."""
    problems = Problems()
    for i in range(sums.shape[1]):
        row = dict(zip(SUMS, sums[:, i].tolist(), strict=True))
        for name, value in row.items():
            high = 2.0**80 if name == "prefill_area" else float(MAX_COUNT)
            problems.number(f"{name}[{i}]", value, 0.0, high)
            if name != "prefill_area" and value != math.floor(value if math.isfinite(value) else 0.0):
                problems.add(f"{name}[{i}]", value, "a whole number")
        n, kv, longest = row["num_decode"], row["decode_kv_tokens"], row["longest_context"]
        tokens, prompts = row["prefill_tokens"], row["num_prefill"]
        if not problems:
            if n == 0 and (kv or longest):
                problems.add(f"num_decode[{i}]", n, "decode requests, or no decode_kv_tokens and longest_context")
            elif n and kv < n:
                problems.add(f"decode_kv_tokens[{i}]", kv, f"at least one token for each of {n:.0f} requests")
            elif n and (longest > kv - n or 0 < n * (longest + 1) < kv):
                problems.add(f"longest_context[{i}]", longest, f"the longest of {n:.0f} that sum up to {kv:.0f}")
            if tokens == 0 and (row["prefill_area"] or prompts):
                problems.add(f"prefill_tokens[{i}]", tokens, "tokens, or no prefill_area and num_prefill")
            elif prompts > tokens:
                problems.add(f"num_prefill[{i}]", prompts, f"at most the {tokens:.0f} prefill_tokens")
            elif tokens and 0 < row["prefill_area"] < 0.5 * tokens**2 / max(prompts, 1.0):
                least = 0.5 * tokens**2 / max(prompts, 1.0)
                problems.add(
                    f"prefill_area[{i}]", row["prefill_area"], f"at least {least:g}: prompts without a context"
                )
        problems.raise_if_any()
