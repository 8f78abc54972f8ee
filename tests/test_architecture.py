"""The layer table holds: imports go strictly downwards, and a few rules about who may name what."""

from __future__ import annotations

import ast
import itertools
import re
import statistics
from collections.abc import Set
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "mfuroof"
PAGE = ROOT.parent / "docs" / "architecture.md"

# Lowest first. A module may import from the rows above its own, and from its own package; never from below.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "units", "_types", "_version"),
    ("core",),
    ("_boundary", "_files", "_html", "_pandas", "_table_files", "expressions"),
    ("precision",),
    ("hardware", "models", "parallel", "params", "engines", "batch", "tables.schema", "tables.compiled"),
    ("lookup",),
    ("tables",),
    ("ops", "mfu_database"),
    ("costs",),
    ("breakdown", "capacity"),
    ("step",),
    ("calibration", "repairs", "sensitivity", "serving", "embedding"),
    ("sweep", "predict"),
    ("queries", "validate"),
    ("ingest", "adapters", "collect", "plots", "quant"),
    ("cli",),
    ("",),  # the package itself hands names on
)
STRANGERS = (("hardware", "models"), ("hardware", "tables"), ("models", "tables"))
"""Records that meet in `ops` and `step` only."""
CORE_MAY_IMPORT = {"mfuroof._types", "numpy", "numba", "llvmlite"}
HEAVY = {"scipy", "pandas", "matplotlib", "torch", "dask", "distributed", "transformers", "aiconfigurator_core"}


def rank(module: str) -> int:
    """Return the row of the most specific entry that covers ``module`` (without the package's own name)."""
    best = max(
        ((len(entry), row) for row, entries in enumerate(LAYERS) for entry in entries
         if module == entry or module.startswith(entry + ".") or entry == ""),
    )
    return best[1] if best[0] or module == "" else -1


@cache
def modules() -> dict[str, Path]:
    out = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


@cache
def imports(path: Path, *, top_level_only: bool = False) -> frozenset[str]:
    """Return every module imported by a file; `if TYPE_CHECKING` and function bodies are left out on request."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if top_level_only and (
                isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            ):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                found.add(child.module or "")
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            visit(child)

    visit(tree)
    return frozenset(found)


def own(found: Set[str]) -> set[str]:
    """Return the modules of this package among imports, without its name."""
    known = modules()
    names = {name.removeprefix("mfuroof").removeprefix(".") for name in found if name.split(".")[0] == "mfuroof"}
    return {name for name in names if name in known}


@pytest.mark.parametrize("module", [m for m in modules() if m])
def test_imports_go_downwards(module: str) -> None:
    assert rank(module) >= 0, f"{module} stands in no layer"
    for target in own(imports(modules()[module])) - {""}:
        same_package = target.split(".")[0] == module.split(".")[0]
        assert rank(target) < rank(module) or (same_package and rank(target) <= rank(module)), (
            f"{module} (row {rank(module)}) imports {target} (row {rank(target)})"
        )


def test_rank_tells_layers_apart() -> None:
    assert rank("core.step") < rank("batch") < rank("tables.store") < rank("ops.gemm") < rank("step") < rank("cli")
    assert rank("tables.schema") < rank("tables.store")
    assert rank("nowhere") == -1


def test_every_entry_of_the_table_exists() -> None:
    assert {entry for row in LAYERS for entry in row} <= set(modules())


def test_the_page_has_the_same_layers() -> None:
    table = PAGE.read_text(encoding="utf-8").split("| layer | modules |")[1].split("\n\n")[0]
    rows = [line.split("|")[2] for line in table.splitlines()[2:]]
    entries = [[e.rstrip("/").replace("/", ".") for e in re.findall(r"`([^`]+)`", row)] for row in rows]
    assert sorted(itertools.chain(*entries)) == sorted(entry for row in LAYERS for entry in row if entry)
    ranks = [{rank(entry) for entry in row} for row in entries]
    assert all(max(above) < min(below) for above, below in itertools.pairwise(ranks))


def test_the_diagram_of_the_page_says_what_is_imported() -> None:
    """Drawn arrows and real imports between what is drawn lead from each part to the same others."""
    block = PAGE.read_text(encoding="utf-8").split("```mermaid\nflowchart TD\n")[1].split("```")[0]
    drawn: dict[str, set[str]] = {}
    for line in block.splitlines():
        part, _, below = line.partition("-->")
        drawn.setdefault(part.strip(), set()).update(name.strip() for name in below.split("&"))
    parts = {*drawn, *(name for below in drawn.values() for name in below)}
    assert {module.split(".")[0] for module in modules() if "." in module} <= parts
    real: dict[str, set[str]] = {part: set() for part in parts}
    shared = {"tables.schema", "tables.compiled"}  # records, a layer of their own
    for module, path in modules().items():
        part = module.split(".")[0]
        if part in parts and module not in shared:
            real[part] |= {t.split(".")[0] for t in own(imports(path)) - shared} & parts - {part}
    assert {part: reached(drawn, part) for part in parts} == {part: reached(real, part) for part in parts}


def reached(edges: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        new = edges.get(left.pop(), set()) - found
        found |= new
        left.extend(new)
    return found


@pytest.mark.parametrize("module", list(modules()))
def test_records_do_not_know_one_another(module: str) -> None:
    top = module.split(".")[0]
    targets = {t.split(".")[0] for t in own(imports(modules()[module]))}
    for a, b in STRANGERS:
        assert not (top == a and b in targets), f"{module} imports {b}"
        assert not (top == b and a in targets), f"{module} imports {a}"


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("core")])
def test_core_imports_only_arrays_and_the_compiler(module: str) -> None:
    for name in imports(modules()[module]) - {"__future__", "__future__.annotations"}:
        top = name.split(".")[0]
        allowed = name.startswith(("mfuroof.core", "mfuroof._types")) or top in CORE_MAY_IMPORT
        standard = top in {"typing", "math", "os", "enum", "collections", "dataclasses"}
        assert allowed or standard, f"{module} imports {name}"


def test_only_one_module_names_the_compiler() -> None:
    naming = {m for m, path in modules().items() if any(i.split(".")[0] == "numba" for i in imports(path))}
    assert naming == {"core._jit"}


@pytest.mark.parametrize("module", list(modules()))
def test_heavy_packages_are_imported_inside_functions(module: str) -> None:
    named = {name.split(".")[0] for name in imports(modules()[module], top_level_only=True)}
    assert not named & HEAVY, f"{module} imports {named & HEAVY} at the top"


def test_files_are_small() -> None:
    lines = {m: len(path.read_text(encoding="utf-8").splitlines()) for m, path in modules().items()}
    assert statistics.median(lines.values()) <= 150
    assert {m: n for m, n in lines.items() if n > 500} == {}
