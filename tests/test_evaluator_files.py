"""Evaluators kept in files, and single steps of a cost that has no scalar kernel."""

from __future__ import annotations

import pickle

import numpy.testing as npt
import pytest
from step_strategies import evaluator

import mfuroof as mr
from mfuroof.errors import InputError, OutputError
from mfuroof.step import StepEvaluator

SHAPE = {"decode_batch": 7, "decode_context": 1000, "prefill_batch": 1, "prefill_new_tokens": 300}


def test_an_evaluator_comes_back_from_its_file(tmp_path):
    bound, path = evaluator(), tmp_path / "bound.bin"
    bound.save(path)
    again, step = StepEvaluator.load(path), mr.StepBatch.uniform(**SHAPE)
    npt.assert_array_equal(again.step_time(step), bound.step_time(step))
    assert repr(again) == repr(bound)
    with pytest.raises(OutputError, match="nowhere"):
        bound.save(tmp_path / "nowhere" / "bound.bin")


@pytest.mark.parametrize("content", [None, b"", b"no pickle", pickle.dumps(7), pickle.dumps(("x", "0", evaluator))])
def test_what_is_no_evaluator_of_this_version_is_refused(tmp_path, content):
    path = tmp_path / "other.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.bin.*has written"):
        StepEvaluator.load(path)


def test_one_step_of_any_cost():
    for cost in ("kernels", "mfu_table", "constant_mfu"):
        bound = StepEvaluator("meta-llama/Meta-Llama-3.1-8B", "h100_sxm", cost=cost)
        assert bound.step_time_scalar(**SHAPE) == bound.step_time(mr.StepBatch.uniform(**SHAPE))[0]
