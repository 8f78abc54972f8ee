"""``mfuroof crossover``: from which batch on a precision, GPU or rank count gains less, or more, than another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.answers import print_answer

if TYPE_CHECKING:
    from mfuroof._types import F64

__all__ = ["EXAMPLES", "crossover"]

EXAMPLES = (
    "mfuroof crossover meta-llama/Llama-3.1-8B --gpu h100_sxm --other-weight-dtype int4_wo --below 2,1.5",
    "mfuroof crossover Qwen/Qwen3-32B --gpu h100_sxm --tp 2 --other-tp 4 --above 1 --per gpu",
    "mfuroof crossover Qwen/Qwen3-32B --gpu h100_sxm --other-gpu h200_sxm --above 1 --per price"
    " --price h100_sxm=2.5,h200_sxm=3.2 --decode-context 1024:32768:x2",
    "mfuroof crossover meta-llama/Llama-3.1-70B --gpu h100_sxm --tp 4 --bound compute",
)

_OTHER = "What it is compared with"


def crossover(
    model: o.Model,
    gpu: o.Gpu,
    tp: o.Tp = 1,
    weight_dtype: o.WeightDtype = None,
    other_gpu: Annotated[
        str | None,
        typer.Option("--other-gpu", help="GPU.", autocompletion=o.complete_gpu, rich_help_panel=_OTHER),
    ] = None,
    other_tp: Annotated[int | None, typer.Option("--other-tp", help="Ranks.", rich_help_panel=_OTHER)] = None,
    other_weight_dtype: Annotated[
        str | None, typer.Option("--other-weight-dtype", help="Weight format.", rich_help_panel=_OTHER)
    ] = None,
    below: Annotated[
        str | None, typer.Option("--below", help="Where the other gains less than these factors.", metavar="NUMBERS")
    ] = None,
    above: Annotated[
        str | None, typer.Option("--above", help="Where the other gains more than these factors.", metavar="NUMBERS")
    ] = None,
    bound: Annotated[
        str | None, typer.Option("--bound", help="In their place: where compute, memory, comm or overhead binds.")
    ] = None,
    per: Annotated[str, typer.Option("--per", help="Compare by step, by gpu or by price.")] = "step",
    price: Annotated[
        list[str] | None, typer.Option("--price", help="Price of a GPU-hour, GPU=PRICE; may be repeated.")
    ] = None,
    decode_context: Annotated[
        str, typer.Option("--decode-context", help="Tokens each has in the KV cache.", metavar="RANGE")
    ] = "1024",
    most: Annotated[int, typer.Option("--most", help="Largest decode batch looked at.")] = 2048,
    engine: o.Engine = "vllm",
    kv_dtype: o.KvDtype = None,
    json: o.Json = False,
) -> None:
    """Find the decode batch from which on one thing gains less, or more, than a factor over another.

    A gain of 2 is a step twice as fast; --per gpu and --per price weigh the time with the GPUs a step occupies, or
    their price. What is not said of the other side is as on this side. Every batch up to --most is priced.
    """
    from mfuroof.cli.quantities import prices_of
    from mfuroof.errors import InputError, Problem
    from mfuroof.queries import bound_crossover
    from mfuroof.queries import crossover as crossed
    from mfuroof.step import StepEvaluator
    from mfuroof.sweep import axis_values

    contexts = axis_values("--decode-context", decode_context)
    sides = (other_gpu, other_tp, other_weight_dtype)
    given = [name for name, v in (("--below", below), ("--above", above), ("--bound", bound)) if v is not None]
    if len(given) != 1:
        raise InputError(Problem("--below, --above, --bound", " and ".join(given) or "none", "one of them"))
    options = {"engine": engine, "kv_dtype": kv_dtype}
    base = StepEvaluator(model, gpu, tp, weight_dtype=weight_dtype, **options)  # type: ignore[arg-type]
    if bound is not None:
        if any(side is not None for side in sides):
            raise InputError(
                Problem("--bound", "beside another side", "one side", "Leave the options --other-... out.")
            )
        print_answer(bound_crossover(base, bound, decode_context=contexts, most=most), json=json)
        return
    if all(side is None for side in sides):
        expected = "one of --other-gpu, --other-tp and --other-weight-dtype"
        raise InputError(Problem("the other side", "nothing that differs", expected))
    other = StepEvaluator(
        model,
        other_gpu or gpu,
        tp if other_tp is None else other_tp,
        weight_dtype=other_weight_dtype or weight_dtype,
        **options,  # type: ignore[arg-type]
    )
    found = crossed(
        base,
        other,
        _factors(below if below is not None else above or "")[:, None],
        when="below" if below is not None else "above",
        per=per,  # type: ignore[arg-type]
        prices=prices_of("--price", price or ()),
        most=most,
        decode_context=contexts,
    )
    print_answer(found, json=json)


def _factors(text: str) -> F64:
    """Return comma-separated numbers as an array."""
    import numpy as np

    from mfuroof.errors import InputError, Problem

    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise InputError(Problem("--below, --above", repr(text), "numbers above 0, comma-separated")) from None
