"""Reference pages that are generated: the command line, table families, GPUs, models."""

from __future__ import annotations

from typing import Any

from mfuroof.cli.app import app
from mfuroof.hardware import get_hardware, known_hardware
from mfuroof.hardware.describe import rows
from mfuroof.models import get_model, known_models
from mfuroof.models.describe import count_text
from mfuroof.tables.schema import FAMILIES
from mfuroof.tables.store import available


def command_line() -> str:
    """Return a page with every command, its options and its examples."""
    import typer

    root = typer.main.get_command(app)
    lines = ["# Command line", "", *(root.help or "").splitlines(), ""]
    lines += ["Errors are one line with the remedy; `--debug` shows the traceback. `--json` prints base units.", ""]
    return "\n".join([*lines, *_commands("mfuroof", root)])


def _commands(path: str, command: Any) -> list[str]:
    lines: list[str] = []
    for name, child in command.commands.items():
        full = f"{path} {name}"
        if hasattr(child, "commands"):
            lines += [f"## {full}", "", child.help or "", "", *_commands(full, child)]
            continue
        arguments = " ".join(p.metavar or p.name.upper() for p in child.params if p.param_type_name == "argument")
        examples = [line.strip() for line in (child.epilog or "").splitlines() if line.strip().startswith("mfuroof")]
        lines += [f"## {full}", "", f"`{full} {arguments}`", "", child.help or "", "", "| option | meaning | default |"]
        lines.append("|---|---|---|")
        for option in child.params:
            if option.param_type_name == "option":
                shown = "" if option.default in (None, False, ()) or callable(option.default) else f"`{option.default}`"
                names = ", ".join(f"`{n}`" for n in option.opts)
                lines.append(f"| {names} | {_cell(option.help or '')} | {shown} |")
        lines += ["", "```sh", *examples, "```", ""]
    return lines


def table_families() -> str:
    """Return a page with the columns of every family, and what is embedded."""
    lines = ["# Table families", "", "One row per measured shape: key columns first, latency last.", ""]
    for family in FAMILIES.values():
        lines += [f"## {family.name}", "", family.meaning, ""]
        lines += ["| column | kind | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.kind} | {c.unit} | {_cell(c.meaning)} |" for c in family.columns]
        lines.append("")
    lines += ["## Embedded", "", "| GPU | engine | families |", "|---|---|---|"]
    for gpu, engines in available().items():
        lines += [f"| `{gpu}` | {engine} | {', '.join(families)} |" for engine, families in engines.items()]
    return "\n".join([*lines, ""])


def gpus() -> str:
    """Return a page with every device and the source of each figure."""
    lines = ["# GPUs", "", "Dense rates; bandwidths as specified, links in one direction.", ""]
    for name in known_hardware():
        lines += [f"## {name}", "", "| figure | value | source |", "|---|---|---|"]
        lines += [f"| {label} | {value} | {_cell(source)} |" for label, value, source in rows(get_hardware(name))]
        lines.append("")
    return "\n".join(lines)


def models() -> str:
    """Return a page with every model of the registry."""
    lines = ["# Models", "", "Any other model is read from its `config.json`.", ""]
    lines.append("| model | parameters | active | layers | weights | KV cache [bytes/token] |")
    lines.append("|---|---|---|---|---|---|")
    for name in known_models():
        m = get_model(name)
        active = count_text(m.active_params) if m.is_moe else ""
        cells = (f"`{name}`", count_text(m.total_params), active, m.num_hidden_layers, m.quantization.method)
        lines.append(f"| {' | '.join(map(str, cells))} | {m.kv_bytes_per_token:,.0f} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"cli.md": command_line, "tables.md": table_families, "gpus.md": gpus, "models.md": models}
"""File under ``reference/`` to the function that makes it."""
