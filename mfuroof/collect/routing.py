"""How many tokens each expert of the busiest rank gets: balanced, or as a power law has it.

Loads of a power law are its quantiles, not samples, so that two collections measure the same.
"""

from __future__ import annotations

import numpy as np

from mfuroof._types import F64, I64

__all__ = ["expert_loads"]

SEED = 20
"""Of the order in which skewed experts are spread over ranks."""
MAX_LOAD_SHARE = 0.8
"""Upper end of the power law as a share of the tokens: hardly any expert is visited by all of them."""


def expert_loads(tokens: int, num_experts: int, top_k: int, ep_size: int, distribution: str) -> I64:
    """Return the tokens of each expert of the rank that has the most.

    Parameters
    ----------
    tokens
        Tokens entering the layer, over all ranks.
    num_experts, top_k, ep_size
        Experts over all ranks, experts a token visits, ranks the experts are spread over.
    distribution
        ``"balanced"``, or ``"power_law_<alpha>"``: loads follow the density x^-alpha on [1, 0.8 tokens].

    Returns
    -------
    ndarray of int64, shape (num_experts / ep_size,)
        With ``ep_size`` 1 their sum is ``tokens * top_k``; none exceeds ``tokens``.
    """
    if distribution == "balanced":
        weight: F64 = np.ones(num_experts)
        order = np.arange(num_experts).reshape(-1, ep_size).T.ravel()  # remainders fall on all ranks in turn
    else:
        weight = _power_law(num_experts, float(distribution.rpartition("_")[2]), max(MAX_LOAD_SHARE * tokens, 2.0))
        order = np.random.default_rng(SEED).permutation(num_experts)
    loads = _whole(weight * (tokens * top_k / weight.sum()), tokens, tokens * top_k)
    ranks = loads[order].reshape(ep_size, -1)
    busiest: I64 = ranks[int(np.argmax(ranks.sum(axis=1)))]
    return busiest


def _power_law(count: int, alpha: float, largest: float) -> F64:
    """Return quantiles of the density x^-alpha on [1, largest] in the middles of ``count`` equal parts, falling."""
    share = (np.arange(count)[::-1] + 0.5) / count
    if alpha == 1.0:
        return np.asarray(largest**share)
    return np.asarray((1.0 + share * (largest ** (1.0 - alpha) - 1.0)) ** (1.0 / (1.0 - alpha)))


def _whole(loads: F64, most: int, total: int) -> I64:
    """Round to whole tokens of that total, none above ``most``: what is cut off goes to the others in proportion."""
    over = loads > most
    while over.any() and not over.all():
        room = total - most * int(over.sum())
        loads = np.where(over, most, loads * (room / loads[~over].sum()))
        grown = loads > most
        if (grown == over).all() or not (grown & ~over).any():
            break
        over |= grown
    whole = np.minimum(np.floor(loads + 1e-9).astype(np.int64), most)
    rest = loads - whole
    while (missing := total - int(whole.sum())) > 0:
        free = np.flatnonzero(whole < most)
        take = free[np.argsort(-rest[free], kind="stable")][:missing]
        whole[take] += 1
        rest[take] -= 1.0
    return whole
