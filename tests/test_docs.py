"""What the documentation shows is executed."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if ">>> " in p.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_examples_of_a_page_run(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def test_readme_names_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for mark in ("<!-- main-command -->", "<!-- test-command -->"):
        line = readme.split(mark)[1].split("```")[1].splitlines()[1]
        assert line.startswith("python3 -m venv .venv && ")


def test_the_readme_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python")[1].split("```")[0]
    exec(compile(code, "README.md", "exec"), {})
    assert "step" in capsys.readouterr().out


def test_the_readme_shows_files_that_are_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", readme)
    assert "docs/images/breakdown.svg" in targets
    assert [t for t in targets if "://" not in t and not (ROOT / t).exists()] == []


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SPEED = {
    "machine": {"processor": "x86", "threads": 2, "python": "3.12", "numpy": "2.0"},
    "rows": [
        {"group": "steps", "case": "mixed", "way": "mfuroof", "unit": "steps", "per_s": 3.21e8},
        {"group": "steps", "case": "mixed", "way": "a", "unit": "steps", "per_s": 1e6, "ours_is_times_as_fast": 321.0},
        {"group": "steps", "case": "mixed", "way": "b", "unit": "steps", "per_s": 2e9, "ours_is_times_as_fast": 0.16},
        {"group": "binding", "case": "bind", "way": "mfuroof", "unit": "s", "seconds": 0.0213},
    ],
}


def test_the_table_of_speed(report: ModuleType) -> None:
    lines = report.speed(SPEED).splitlines()
    assert lines[2:5] == [
        "| mixed | 321 M steps/s | a: 1 M steps/s | 321 |",
        "|  |  | b: 2 G steps/s | 0.16 |",
        "| bind | 21.3 ms |  |  |",
    ]
    assert "2 threads of x86" in lines[-1]
    assert "bind" not in report.speed(SPEED, ("steps",))


def test_the_table_of_accuracy(report: ModuleType) -> None:
    scores = {"mean": 0.071, "median": 0.056, "count": 10, "failed": 1}
    peer = {"system": "Other", "rows": 9, "tpot_mean": 0.148, "tpot_median": None, "ttft_median": 0.43}
    lines = report.accuracy({"peers": [peer], "points": {"metrics": {"tpot_s": {"all": scores}}}}).splitlines()
    assert lines[2:] == [
        "| points | TPOT | 7.1% | 5.6% | 9 of 10 |",
        "| *Other* | TPOT | 14.8% |  | 9 |",
        "|  | TTFT |  | 43.0% | 9 |",
    ]
    again = peer | {"rows": 8}
    brief = report.accuracy({"peers": [peer, again], "points": {"metrics": {"tpot_s": {"all": scores}}}}, brief=True)
    assert brief.splitlines()[2:] == lines[3:]  # ten rows are too few, and a system is named once


def test_a_table_goes_between_its_markers(report: ModuleType) -> None:
    page = "before\n<!-- speed -->\nold\n<!-- /speed -->\nafter"
    assert report.filled(page, "speed", "| new |") == "before\n<!-- speed -->\n\n| new |\n\n<!-- /speed -->\nafter"
    with pytest.raises(ValueError, match="expected one"):
        report.filled(page, "accuracy", "")


def test_pages_are_what_was_saved() -> None:
    run = subprocess.run([sys.executable, "benchmarks/report.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the docs extra is not installed")
    pytest.importorskip("mkdocstrings", reason="the docs extra is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    gallery = (tmp_path / "site" / "gallery" / "index.html").read_text(encoding="utf-8")
    assert gallery.count("<img") >= 9 and "StepEvaluator" in gallery
    reference = (tmp_path / "site" / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    assert "step_time_scalar" in reference  # methods are documented, not names alone
