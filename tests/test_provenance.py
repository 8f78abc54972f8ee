"""Where the numbers of a step come from: the worst code and the distance, against a plain-Python definition."""

from __future__ import annotations

import naive_step
import numpy as np
import numpy.testing as npt
import pytest
from step_strategies import evaluator

from mfuroof.batch import StepBatch
from mfuroof.core.provenance import raise_by_lattice
from mfuroof.core.sources import EXACT, EXTRAPOLATED, INTERPOLATED, Source
from mfuroof.costs.uncertainty import LOOKUP_HALF_WIDTH, MODEL_HALF_WIDTH, PER_OCTAVE, relative_half_width


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 4), (5, 6), (6, 8)])
def test_lattice_reads_match_definition(shape):
    rng = np.random.default_rng(5)
    for batches, lengths in (((1, 2, 4), (1, 4, 8)), ((1, 3, 4, 5, 9, 11, 70), (1, 2, 3, 5, 8, 9, 21, 30, 200))):
        codes = rng.choice([int(s) for s in Source], shape).astype(np.uint8)
        away = rng.uniform(0, 3, shape)
        batch, length = (a.ravel().astype(float) for a in np.meshgrid(batches, lengths))
        count, step = rng.integers(0, 4, batch.size).astype(float), rng.permutation(batch.size) // 2
        source, distance = np.full(batch.size, EXACT, np.uint8), np.zeros(batch.size)
        raise_by_lattice(codes, away, batch, length, count, step, source, distance)
        expected = [(EXACT, 0.0)] * batch.size
        for b, x, n, i in zip(batch, length, count, step, strict=True):
            if n > 0:
                found = naive_step.lattice_source(codes.tolist(), away.tolist(), b, x, INTERPOLATED, EXTRAPOLATED)
                expected[i] = max(expected[i][0], found[0]), max(expected[i][1], found[1])
        npt.assert_array_equal(source, [code for code, _ in expected])
        npt.assert_allclose(distance, [far for _, far in expected], rtol=1e-12)


def test_reads_of_nothing_count_for_nothing():
    codes, away = np.full((2, 2), Source.ROOFLINE, np.uint8), np.ones((2, 2))
    batch, length, count = np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0])
    source, distance = np.full(1, EXACT, np.uint8), np.zeros(1)
    raise_by_lattice(codes, away, batch, length, count, np.zeros(3, np.int64), source, distance)
    assert (source[0], distance[0]) == (EXACT, 0.0)


def test_mixed_prompts_are_read_where_they_are_priced():
    """Each of two prompts with as many new tokens is one of two like it, whatever stands before it."""
    bound = evaluator()
    mixed = StepBatch.ragged(prefill=[[(0, 1024), (7 * 1024, 1024)]], decode=[[]])
    alike = StepBatch.uniform(prefill_batch=2, prefill_new_tokens=1024, prefill_context=[0, 7 * 1024])
    found, expected = bound.evaluate(mixed), bound.evaluate(alike)
    assert found.source[0] == expected.source.max()
    assert found.distance_octaves[0] == expected.distance_octaves.max()


def test_half_width_grows_with_the_source_and_the_distance():
    source = np.array([Source.EXACT, Source.EXACT, Source.ROOFLINE, Source.MISSING], np.uint8)
    found = relative_half_width(source, np.array([0.3, 2.5, 0.0, 0.0]))
    near, roofline = LOOKUP_HALF_WIDTH[Source.EXACT], LOOKUP_HALF_WIDTH[Source.ROOFLINE]
    expected = [(near**2 + MODEL_HALF_WIDTH**2) ** 0.5, ((near + 2 * PER_OCTAVE) ** 2 + MODEL_HALF_WIDTH**2) ** 0.5]
    npt.assert_allclose(found, [*expected, (roofline**2 + MODEL_HALF_WIDTH**2) ** 0.5, np.nan], rtol=1e-12)
    result = evaluator().evaluate(StepBatch.uniform(decode_batch=[1, 4096], decode_context=[1023, 2**17]))
    npt.assert_array_equal(result.relative_half_width, relative_half_width(result.source, result.distance_octaves))
