"""What the benchmarks compare is comparable: rivals that claim our answers give them, at a small size."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest

HERE = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def cases():
    specification = importlib.util.spec_from_file_location("cases", HERE / "cases.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["cases"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["cases"]


def test_every_case_answers_and_rivals_called_the_same_agree(cases):
    names = []
    for case in cases.all_cases(2_000, threads=2):
        ours = np.array(case.ours.run(), copy=True)
        assert ours.size == case.ours.count or case.unit == "requests", case.name
        assert np.isfinite(ours).all(), case.name
        assert (ours > 0).all(), case.name
        for rival in case.rivals:
            theirs = rival.run()
            if rival.same is not None:
                theirs = np.ravel(theirs)
                npt.assert_allclose(ours.ravel()[: theirs.size], theirs, rtol=rival.same, atol=0, err_msg=rival.name)
        names.append(case.name)
    assert len(set(names)) == len(names)


def test_one_step_at_a_time_gives_the_answers_of_the_batch(cases):
    one = next(c for c in cases.step_cases(2_000, 1) if c.name.startswith("one step"))
    together = next(c for c in cases.step_cases(2_000, 1) if c.name.startswith("mixed steps"))
    alone, loop = np.array(one.ours.run()), one.rivals[0]
    npt.assert_allclose(alone, np.array(together.ours.run())[: alone.size], rtol=1e-12)
    npt.assert_allclose(loop.run(), alone[::20], rtol=1e-12)
