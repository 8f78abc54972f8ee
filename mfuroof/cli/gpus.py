"""``mfuroof gpus``: the catalogue of GPUs."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mfuroof.hardware import Hardware

__all__ = ["EXAMPLES", "gpus"]

EXAMPLES = ("mfuroof gpus", "mfuroof gpus h100_sxm", "mfuroof gpus --json")


def gpus(
    name: Annotated[str | None, typer.Argument(help="One GPU in full.", autocompletion=o.complete_gpu)] = None,
    json: o.Json = False,
) -> None:
    """List the GPUs of the catalogue, or one with the source of each figure; dense rates, bandwidths as specified."""
    from mfuroof.hardware import get_hardware, known_hardware

    if name is not None:
        gpu = get_hardware(name)
        if json:
            print_json(_record(gpu))
        else:
            _print_one(gpu)
        return
    devices = [get_hardware(known) for known in known_hardware()]
    if json:
        print_json([_record(gpu) for gpu in devices])
    else:
        _print_all(devices)


def _record(gpu: Hardware) -> dict[str, Any]:
    record = {f.name: getattr(gpu, f.name) for f in fields(gpu)}
    return {key: dict(value) if hasattr(value, "keys") else value for key, value in record.items()}


def _print_all(devices: list[Hardware]) -> None:
    from mfuroof.units import GB, GIB, TB, TERA

    def rate(gpu: Hardware, dtype: str) -> str:
        return f"{gpu.peak_flops_per_s[dtype] / TERA:.0f}" if dtype in gpu.peak_flops_per_s else "-"

    rows = [
        (
            gpu.name,
            rate(gpu, "bf16"),
            rate(gpu, "fp8"),
            rate(gpu, "fp4"),
            f"{gpu.hbm_bytes_per_s / TB:.2f}",
            f"{gpu.hbm_bytes / GIB:.0f}" if gpu.hbm_bytes else "-",
            f"{gpu.nvlink_bytes_per_s / GB:.0f}" if gpu.nvlink_bytes_per_s else "-",
            "yes" if gpu.tables else "-",
        )
        for gpu in devices
    ]
    print_table("", ("gpu", "bf16", "fp8", "fp4", "TB/s", "GiB", "link", "tables"), rows)
    print("rates: dense, 1e12 FLOP/s; TB/s, GiB: memory; link: GB/s in")
    print("one direction; tables: kernel measurements are embedded")


def _print_one(gpu: Hardware) -> None:
    from mfuroof.hardware.describe import rows, title

    print_table(title(gpu), ("figure", "value", "source"), rows(gpu), numbers=(1,))
