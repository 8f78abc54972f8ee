"""What ``mfuroof sweep`` prints when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfuroof.cli.output import count, print_table

if TYPE_CHECKING:
    import pyarrow as pa

    from mfuroof.sweep import SweepSummary

__all__ = ["print_result", "print_summary"]

_MOST_CASES = 24
_MOST_REASONS = 8
_MOST_ROWS = 20
_ALWAYS = ("bound", "source", "distance_octaves", "reason")


def print_summary(summary: SweepSummary, written: str) -> None:
    """Print the best and the fastest row of each case, and what binds."""
    from mfuroof.costs.base import RESOURCES
    from mfuroof.units import MS

    best: list[tuple[str, ...]] = []
    fastest: list[tuple[str, ...]] = []
    shares: list[tuple[str, ...]] = []
    for name, case in zip(_names(summary), summary.cases, strict=True):
        if case.best is None or case.fastest is None or len(best) == _MOST_CASES:
            continue
        star = "*" if case.best.fits is False else ""
        rate = count(case.best.tokens_per_s_per_gpu) + star
        best.append((name, rate, f"{case.best.time_s / MS:.2f}", _shape(case.best.shape)))
        fastest.append((name, f"{case.fastest.time_s / MS:.2f}", _shape(case.fastest.shape)))
        fit = "-" if case.rows_that_fit is None else _percent(case.rows_that_fit / case.rows)
        shares.append((name, *(_percent(share) for share in case.bound_shares.values()), fit))
    priced = sum(case.best is not None for case in summary.cases)
    serving = any("input_len" in case.best.shape for case in summary.cases if case.best)
    time, what = ("tpot_ms", "load") if serving else ("time_ms", "step")
    print(f"{count(summary.rows)} {what}s in {summary.seconds:.2f} s{written}")
    if summary.partitions_done_before:
        print(f"{summary.partitions_done_before} of {summary.partitions} partitions were done before")
    if best:
        print()
        print_table("Highest throughput", ("case", "tokens/s/GPU", time, what), best)
        if any(row[1].endswith("*") for row in best):
            print("* nothing of this case fits into GPU memory")
        print()
        print_table("Lowest TPOT" if serving else "Fastest step", ("case", time, what), fastest)
        if serving:
            print("load: requests in flight x (input + output tokens)")
        else:
            print("step: decode requests x context + prefill requests x new tokens")
    if shares and len(shares[0]) > 2:
        print()
        print_table(f"Share of {what}s by what binds them, and that fit", ("case", *RESOURCES, "fit"), shares)
    if priced > len(best):
        print(f"and {priced - len(best)} more cases")
    _print_reasons(summary)
    if summary.best is not None and summary.best.best is not None:
        print()
        print(f"best: {summary.best.case.title}, {count(summary.best.best.tokens_per_s_per_gpu)} tokens/s per GPU")


def _print_reasons(summary: SweepSummary) -> None:
    unanswered = sum(case.rows_without_answer for case in summary.cases if case.best is not None)
    if unanswered:
        print(f"{count(unanswered)} rows have no answer (NaN): no table covers them")
    without = [case for case in summary.cases if case.best is None and case.reason]
    for case in without[:_MOST_REASONS]:
        print(f"not priced: {case.case.title}: {case.reason}")
    if len(without) > _MOST_REASONS:
        print(f"not priced: {len(without) - _MOST_REASONS} more cases")


def print_result(name: str, table: pa.Table, by: tuple[str, ...]) -> None:
    """Print the first rows of a reduction; columns that are the same in all of them are left out."""
    shown = table.slice(0, _MOST_ROWS).to_pylist()
    columns = [c for c in table.column_names if c not in _ALWAYS or c in by]
    if len(shown) > 1:
        columns = [c for c in columns if c in by or any(row[c] != shown[0][c] for row in shown)]
    columns = columns or table.column_names
    print()
    print_table(name, columns, [[_cell(row[c]) for c in columns] for row in shown], numbers=_numbers(table, columns))
    if table.num_rows > len(shown):
        print(f"and {count(table.num_rows - len(shown))} more rows")


def _numbers(table: pa.Table, columns: list[str]) -> list[int]:
    import pyarrow as pa

    return [i for i, c in enumerate(columns) if not pa.types.is_dictionary(table.schema.field(c).type)]


def _percent(share: float) -> str:
    """Return a share in whole percent, in which a few rows are neither none nor all."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def _cell(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _names(summary: SweepSummary) -> list[str]:
    """Name each case by what differs between cases."""
    labels = [case.case.labels for case in summary.cases]
    differing = [key for key in labels[0] if len({row[key] for row in labels}) > 1] or ["gpu"]
    prefix = {"kv_dtype": "kv ", "attention_dtype": "attention ", "moe_dtype": "experts "}
    prefix |= {f"{d}_size": d for d in ("tp", "pp", "ep", "dp")}
    return [" ".join(f"{prefix.get(key, '')}{row[key]}" for key in differing) for row in labels]


def _shape(shape: dict[str, int]) -> str:
    if "input_len" in shape:
        return f"{shape['concurrency']}x({shape['input_len']}+{shape['output_len']})"
    text = f"{shape['decode_batch']}x{shape['decode_context']}"
    if shape["prefill_batch"] and shape["prefill_new_tokens"]:
        text += f"+{shape['prefill_batch']}x{shape['prefill_new_tokens']}"
    return text
