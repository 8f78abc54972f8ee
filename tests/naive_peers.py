"""What InferSim and BLIS answer, in plain Python over the text of their files, one query at a time.

Rows are lists of strings in file order, without the first line, which both programs take for a header. Nothing here
is fast, and nothing is ours.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_left

DEFAULT = {"h20": 0.6, "h800": 0.35, "h200": 0.4, "gb200": 0.5}
ZERO = 0.0001


def body(path):
    with open(path, newline="", encoding="utf-8-sig") as f:
        return [row for row in csv.reader(f) if row][1:]


# --- InferSim -------------------------------------------------------------------------------------------------------


def infersim_decode(rows, kv_dtype, batch, kv_len):
    own = [r for r in rows if r[1] == kv_dtype]
    best = own[0]
    for r in own:
        if abs(int(r[2]) - batch) + abs(int(r[3]) - kv_len) < abs(int(best[2]) - batch) + abs(int(best[3]) - kv_len):
            best = r
    return round(float(best[5]), 3)


def infersim_until_longer(pairs, default, tokens):
    """pairs: (length, mfu) in file order; the last one before the first that is longer."""
    answer = default
    for length, mfu in pairs:
        if length > tokens:
            break
        answer = mfu
    return round(answer, 3)


def infersim_prefill(rows, default, seq_len):
    return infersim_until_longer([(int(r[1]), float(r[3])) for r in rows], default, seq_len)


def infersim_gemm(rows, default, m, k, n):
    best, site = 1e9, (0, 0)
    for r in rows:
        rk, rn = int(r[1]), int(r[2])
        if rk >= k and rn >= n and (rk - k) ** 2 + (rn - n) ** 2 < best:
            best, site = (rk - k) ** 2 + (rn - n) ** 2, (rk, rn)
    answer = default
    for r in rows:
        if (int(r[1]), int(r[2])) == site and int(r[0]) <= m:
            answer = float(r[4])
    return round(answer, 3)


def infersim_grouped(rows, phase, key, default, tokens):
    """key: experts, GPUs, local experts, top k, hidden size, intermediate size of a rank."""
    own = [r for r in rows if tuple(int(x) for x in r[:6]) == key]
    if phase == "prefill":
        return tuple(
            infersim_until_longer([(int(r[6]), float(r[c])) for r in own], default, tokens) for c in (9, 11)
        )
    if not own:
        return round(default, 3), round(default, 3)
    best = min(own, key=lambda r: abs(int(r[6]) - tokens))
    return round(float(best[9]), 3), round(float(best[11]), 3)


def infersim_gdn_us(rows, tokens):
    at, best = 0, 1e9
    for i, r in enumerate(rows):
        if abs(int(r[0]) - tokens) < best:
            at, best = i, abs(int(r[0]) - tokens)
    ratio, total = int(rows[at][0]) / tokens, 0
    for cell in rows[at][1:]:
        total += float(cell) / ratio
    return total


# --- BLIS -----------------------------------------------------------------------------------------------------------


def blis_configuration(stems, heads, kv_heads, head_dim):
    """stems: names of the prefill files in the order of a directory listing."""
    if f"{heads}-{kv_heads}-{head_dim}" in stems:
        return f"{heads}-{kv_heads}-{head_dim}"
    best, distance = None, math.inf
    for stem in stems:
        a, b, c = (int(x) for x in stem.split("-")[:3])
        d = math.sqrt((a - heads) ** 2 + (b - kv_heads) ** 2 + (c - head_dim) ** 2)
        if d < distance:
            best, distance = stem, d
    return best


def blis_tp(available, tp, rule):
    """Which tp file is read; None if there is none."""
    if tp in available:
        return tp
    if rule == "blis_floor":
        return 1 if 1 in available else None
    return min(sorted(available), key=lambda t: abs(t - tp), default=None)


def nearest_nonzero(points, query):
    """points: (coordinates, mfu) in file order."""
    best, distance = None, math.inf
    for at, mfu in points:
        d = math.sqrt(sum((float(a) - q) ** 2 for a, q in zip(at, query, strict=True)))
        if mfu >= ZERO and d < distance:
            best, distance = mfu, d
    return best


def blis_floor_attention(points, query):
    """Prefill with one coordinate, decode with two; None where the program gives up."""
    below = [p for p in points if all(a <= q for a, q in zip(p[0], query, strict=True))]
    best, distance = None, math.inf
    for at, mfu in below or points:
        d = math.sqrt(sum((float(a) - q) ** 2 for a, q in zip(at, query, strict=True)))
        if d < distance:
            best, distance = mfu, d
    return best if best >= ZERO else nearest_nonzero(points, query)


def bracket(axis, x):
    if x <= axis[0]:
        return 0, 0
    if x >= axis[-1]:
        return len(axis) - 1, len(axis) - 1
    hi = bisect_left(axis, x)
    return (hi, hi) if axis[hi] == x else (hi - 1, hi)


def lerp(a, b, t):
    return a + (b - a) * t


def along(pairs, x):
    """Clamped linear blend over (coordinate, mfu), repeats in file order."""
    ordered = sorted(pairs, key=lambda p: p[0])
    axis = [p[0] for p in ordered]
    lo, hi = bracket(axis, x)
    if lo == hi:
        return ordered[lo][1]
    return lerp(ordered[lo][1], ordered[hi][1], (x - axis[lo]) / (axis[hi] - axis[lo]))


def blis_v2_prefill(points, seq_len):
    mfu = along([(at[0], mfu) for at, mfu in points], seq_len)
    return mfu if mfu >= ZERO else nearest_nonzero(points, (seq_len,)) or ZERO


def blis_v2_decode(points, batch, kv_len):
    cells = dict(points)
    batches, lengths = sorted({at[0] for at in cells}), sorted({at[1] for at in cells})
    b0, b1 = (batches[i] for i in bracket(batches, batch))
    k0, k1 = (lengths[i] for i in bracket(lengths, kv_len))
    at_k0, at_k1 = cells.get((b0, k0), 0.0), cells.get((b0, k1), 0.0)
    if b0 != b1:
        t = (batch - b0) / (b1 - b0)
        at_k0, at_k1 = lerp(at_k0, cells.get((b1, k0), 0.0), t), lerp(at_k1, cells.get((b1, k1), 0.0), t)
    mfu = at_k0 if k0 == k1 else lerp(at_k0, at_k1, (kv_len - k0) / (k1 - k0))
    return mfu if mfu >= ZERO else nearest_nonzero(points, (batch, kv_len)) or ZERO


def blis_site(rows, k, n, otherwise):
    best, site = math.inf, None
    for _, rk, rn, _ in rows:
        if rk >= k and rn >= n and (rk - k) ** 2 + (rn - n) ** 2 < best:
            best, site = (rk - k) ** 2 + (rn - n) ** 2, (rk, rn)
    return site or otherwise


def blis_gemm(rule, rows, m, k, n):
    """rows: (m, k, n, mfu) in file order."""
    if rule == "blis_floor":
        site = blis_site(rows, k, n, rows[-1][1:3])
        own = [r for r in rows if r[1:3] == site]
        mfu = None
        for r in own:
            if r[0] <= m:
                mfu = r[3]
        if mfu is None:
            mfu = min(own, key=lambda r: r[0])[3]
        return mfu if mfu >= ZERO else next((r[3] for r in rows if r[3] >= ZERO), None)
    pairs = list(dict.fromkeys(r[1:3] for r in rows))
    site = blis_site(rows, k, n, max(pairs, key=lambda s: s[0] ** 2 + s[1] ** 2))
    mfu = along([(r[0], r[3]) for r in rows if r[1:3] == site], m)
    if mfu >= ZERO:
        return mfu
    best, distance = ZERO, math.inf
    for rm, rk, rn, value in rows:
        d = (rm - m) ** 2 + (rk - k) ** 2 + (rn - n) ** 2
        if value >= ZERO and d < distance:
            best, distance = value, d
    return best
