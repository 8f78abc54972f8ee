"""The layer table holds: imports go strictly downwards, and a few rules about who may name what."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "mfuroof"

# Lowest first. A module may import from the rows above its own, and from its own package; never from below.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "units", "_types", "_version"),
    ("core",),
    ("_boundary", "_files", "_html", "expressions"),
    ("precision",),
    ("hardware", "models", "parallel", "params", "engines", "batch", "tables.schema", "tables.compiled"),
    ("lookup",),
    ("tables",),
    ("ops", "mfu_database"),
    ("costs",),
    ("breakdown", "capacity"),
    ("step",),
    ("calibration", "repairs", "sensitivity", "serving", "embedding", "regime"),
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


def modules() -> dict[str, Path]:
    out = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
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
    return found


def own(found: set[str]) -> set[str]:
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
