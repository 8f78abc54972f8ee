"""`Lengths`: how the lengths of prompts and outputs vary about the ones given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems
from mfuroof.errors import InputError, Problem, UnknownNameError

__all__ = ["Lengths"]


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths relative to the ones given.

    Parameters
    ----------
    mean_fraction
        Mean length as a share of the one given. [fraction]
    variation
        Standard deviation over mean; 0 for lengths that are all the same. [fraction]

    Raises
    ------
    InputError
        A share that is not positive, or a negative variation.
    """

    mean_fraction: float = 1.0
    variation: float = 0.0

    def __post_init__(self) -> None:
        problems = Problems()
        mean = problems.number("mean_fraction", self.mean_fraction, 0.0, 1e6, open_low=True)
        variation = problems.number("variation", self.variation, 0.0, 1e6)
        problems.raise_if_any()
        object.__setattr__(self, "mean_fraction", mean)
        object.__setattr__(self, "variation", variation)

    @classmethod
    def uniform(cls, low: float = 0.8, high: float = 1.0) -> Lengths:
        """Return lengths spread evenly over ``low`` to ``high`` times the ones given.

        Raises
        ------
        InputError
            Not 0 <= low <= high, or high is 0.
        """
        if not (0.0 <= low <= high and 0.0 < high < math.inf):
            raise InputError(Problem("low, high", f"{low}, {high}", "0 <= low <= high, and high above 0"))
        mean = 0.5 * (low + high)
        return cls(mean, (high - low) / (math.sqrt(12.0) * mean))

    @classmethod
    def of(cls, samples: ArrayLike) -> Lengths:
        """Return the distribution of sampled lengths, relative to 1: give 1 for the length it is used with.

        Raises
        ------
        InputError
            No samples, or some that are no positive numbers.
        """
        try:
            lengths = np.asarray(samples, dtype=np.float64).ravel()
        except (TypeError, ValueError):
            lengths = np.empty(0)
        if not lengths.size or not np.isfinite(lengths).all() or (lengths <= 0).any():
            raise InputError(Problem("samples", f"{np.size(samples)} values", "positive lengths, at least one"))
        return cls(float(lengths.mean()), float(lengths.std() / lengths.mean()))

    @classmethod
    def named(cls, value: Any) -> Lengths:
        """Return ``value`` where it is a `Lengths`, ``"fixed"``, ``"uniform"`` (0.8 to 1) or an array of samples.

        Raises
        ------
        UnknownNameError
            Another name.
        InputError
            Samples that are no lengths.
        """
        if isinstance(value, Lengths):
            return value
        if isinstance(value, str):
            known = {"fixed": cls(), "uniform": cls.uniform()}
            if value not in known:
                raise UnknownNameError("length distribution", value, known)
            return known[value]
        if np.ndim(value) == 0:  # one number would be taken for a factor on every length
            expected = '"fixed", "uniform", a Lengths or an array of samples'
            raise InputError(Problem("length_distribution", repr(value), expected, "For instance Lengths(1.0, 0.1)."))
        return cls.of(value)
