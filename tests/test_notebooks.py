"""Notebooks run from top to bottom, and are text: cells with comments between them, no stored outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "notebooks").glob("*.py"))
NOTEBOOKS = [path for path in FILES if "# %%" in path.read_text(encoding="utf-8")]


def test_there_are_notebooks() -> None:
    known = {"quick_start", "mfu_tables", "step_time", "serving", "sweep", "extending"}
    assert known <= {path.stem for path in NOTEBOOKS}
    assert list((ROOT / "notebooks").glob("*.ipynb")) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_begins_with_a_title_and_states_what_it_shows(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    assert text.count("\nassert ") + text.count("\n    assert ") >= 3  # numbers in the text are checked


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert list(tmp_path.iterdir()) == []  # nothing is left where it was run
