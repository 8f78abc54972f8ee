"""What a notebook shows: HTML tables that hold the figures, escaped and well formed."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from typing import Any

import pytest

import mfuroof as mr
from mfuroof._html import Share, html_table
from mfuroof.validate import Report


class Table(HTMLParser):
    """Reads the cells of a table and checks that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def cells(shown: Any) -> list[list[str]]:
    table = Table(shown._repr_html_())
    assert len({len(row) for row in table.rows}) <= 1
    return table.rows


def test_table_escapes_and_shows_shares() -> None:
    text = html_table("<b>", ("a & b", "share"), [("<script>", Share(0.25))], notes=["x < y"])
    assert Table(text).rows == [["a & b", "share"], ["<script>", "25.0%"]]
    assert "<script>" not in text and "<b>" not in text and "x &lt; y" in text and " 25.0%," in text


@pytest.fixture(scope="module")
def evaluator() -> mr.StepEvaluator:
    return mr.StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")


def test_step_result(evaluator: mr.StepEvaluator) -> None:
    result = evaluator.evaluate(mr.StepBatch.uniform(decode_batch=[8, 16], decode_context=2047))
    head, *rows = cells(result)
    assert head == ["component", "time [ms]", "share", "TFLOP/GPU", "GB/GPU"]
    assert [row[0] for row in rows] == [*result.components, "step"]
    times = [float(row[1]) for row in rows]
    assert sum(times[:-1]) == pytest.approx(times[-1], abs=5e-5 * len(times))  # four decimals each
    assert times[-1] == pytest.approx(result.step_time_s[0] * 1e3, abs=5e-5)
    assert "2 steps" in result._repr_html_() and "bound: memory" in result._repr_html_()
    assert cells(evaluator.evaluate(mr.StepBatch.uniform(decode_batch=[]))) == []
    assert cells(evaluator.evaluate(mr.StepBatch.uniform()))[-1][1] == "0.0000"


def test_step_result_of_a_cost_without_work_by_component() -> None:
    coarse = mr.StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm", cost="constant_mfu")
    rows = {row[0]: row for row in cells(coarse.evaluate(mr.StepBatch.uniform(decode_batch=1, decode_context=10)))}
    assert rows["compute"][3:] == ["-", "-"]


def test_model_and_hardware(evaluator: mr.StepEvaluator) -> None:
    model = dict(map(tuple, cells(evaluator.model)))  # type: ignore[arg-type]
    assert model["parameters"].startswith("8,030,261,248") and model["hidden size"] == "4096"
    gpu = {row[0]: row[1:] for row in cells(evaluator.hardware)}
    assert gpu["HBM TB/s"][0] == "3.35" and gpu["bf16 TFLOP/s"][1]
    plain = dataclasses.replace(evaluator.hardware, nvlink_bytes_per_s=0.0)
    assert {row[0]: row[1] for row in cells(plain)}["link GB/s"] == "-"


def test_capacity(evaluator: mr.StepEvaluator) -> None:
    room = mr.kv_capacity(evaluator.model, evaluator.hardware, [1, 2], seq_len=4096)
    head, *rows = cells(room)
    assert [row[head.index("tokens")] for row in rows] == [f"{n:,}" for n in room.kv_capacity_tokens]
    many = mr.kv_capacity(evaluator.model, evaluator.hardware, [1] * 21)
    assert len(cells(many)) == 21 and "... 1 more" in many._repr_html_()
    assert cells(mr.kv_capacity(evaluator.model, evaluator.hardware, [])) == []


def test_serving(evaluator: mr.StepEvaluator) -> None:
    answer = mr.serving.estimate(evaluator, 1024, 128, concurrency=[1, 16])
    head, *rows = cells(answer)
    tpot = [float(row[head.index("tpot_ms")]) for row in rows]
    assert tpot == pytest.approx(list(answer.tpot_s * 1e3), rel=1e-3)  # four digits are shown
    assert rows[0][-1] == answer.limit_names[0]


def test_validation() -> None:
    report = Report({"tpot": ([1.1, 2.0], [1.0, 2.0])}, {"gpu": ["a", "b"]})
    head, row = cells(report)
    assert dict(zip(head, row, strict=True))["mean"] == "5.0%" and row[0] == "tpot"
