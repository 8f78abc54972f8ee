"""What a step of the kernels cost takes, in plain Python: the slowest obvious way, importing nothing of ours.

Grids are lists of rows: batch 2**i, length 2**j. A curve is (knots, values, slope beyond the last knot). ``prompts``
are tuples (count, context, new tokens, emits), ``decoding`` tuples (count, context). Bound tables are a dict:

    tokens, sequences   lists of curves (one a component)
    decode              grid of decode attention over batch and KV length
    prefill             list of dicts: launch (by batch), time (grid), window (None without), kv_read_s, query_s
    blend               "affine_rate" or "sqrt" between measured prompt lengths
    spread              whether decode attention is a mean of five KV lengths
"""

from __future__ import annotations

import math

# ------------------------------------------------------------------ curves


def between(x0, x1, y0, y1, x):
    if x == x1:
        return y1
    return y0 + (x - x0) / (x1 - x0) * (y1 - y0)


def line(curve, x):
    """Nothing below the first knot, straight between knots, on with the last slope."""
    knots, values, beyond = curve
    if x < knots[0]:
        return 0.0
    if x >= knots[-1]:
        return values[-1] + beyond * (x - knots[-1])
    i = max(i for i, knot in enumerate(knots) if knot <= x)
    return between(knots[i], knots[i + 1], values[i], values[i + 1], x)


def isotonic(values):
    """The non-decreasing fit of least squares: the largest of the smallest means of the runs around each point."""

    def mean(a, b):
        return math.fsum(values[a : b + 1]) / (b - a + 1)

    n = len(values)
    return [max(min(mean(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]


def isotonic_grid(grid, rounds, tolerance):
    """Rows and columns in turn until nothing moves, then a running maximum."""
    grid = [list(row) for row in grid]
    for _ in range(rounds):
        before = [list(row) for row in grid]
        moved = 0.0
        for turn in range(2):
            lines = grid if turn == 0 else [list(column) for column in zip(*grid, strict=True)]
            fitted = [isotonic(values) for values in lines]
            moves = [abs(f - v) / abs(v) for a, b in zip(fitted, lines, strict=True) for f, v in zip(a, b, strict=True)]
            moved = max(moved, *moves)
            grid = fitted if turn == 0 else [list(row) for row in zip(*fitted, strict=True)]
        if moved <= tolerance or grid == before:
            break
    return [
        [max(grid[a][b] for a in range(i + 1) for b in range(j + 1)) for j in range(len(grid[0]))]
        for i in range(len(grid))
    ]


# ------------------------------------------------------------------ attention


def cell(size, x):
    """Index of the cell of a power-of-two axis that holds x; the last one goes on for ever."""
    j = 0
    while j < size - 2 and 2 ** (j + 1) <= x:
        j += 1
    return j


def decode(grid, batch, kv_len):
    if batch == 0:
        return 0.0
    i, j = cell(len(grid), batch), cell(len(grid[0]), kv_len)
    low, high = (between(2**j, 2 ** (j + 1), row[j], row[j + 1], kv_len) for row in (grid[i], grid[i + 1]))
    return between(2**i, 2 ** (i + 1), low, high, batch)


def decode_at(tables, batch, kv_len):
    if not tables["spread"]:
        return decode(tables["decode"], batch, kv_len)
    low, high = math.floor(0.9 * kv_len), math.floor(1.1 * kv_len)
    points = [max(low + math.floor(i * (high - low) / 4), 1) for i in range(5)]
    return sum(decode(tables["decode"], batch, kv) for kv in points) / 5


def decode_mixed(tables, decoding):
    """A batch is at least as slow as any set of its requests of at least 2**j tokens, taken at their mean length."""
    slowest = 0.0
    for j in range(64):
        longest = [(count, context + 1) for count, context in decoding if context + 1 >= 2**j and count > 0]
        if longest:
            n = sum(count for count, _ in longest)
            slowest = max(slowest, decode_at(tables, n, sum(count * kv for count, kv in longest) / n))
    return slowest


def pairs(context, new, window):
    """Query-key pairs of ``new`` tokens behind ``context``: the integral of min(position, window)."""
    end = context + new
    if window is None:
        return (end - context) * (end + context) / 2
    low, high = min(context, window), min(end, window)
    return (high - low) * (high + low) / 2 + window * ((end - context) - (high - low))


def prefill_part(part, blend, batch, context, new):
    """Launch and area of ``batch`` prompts as long as context and chunk together; the area shrinks with the prefix."""
    if batch == 0 or new == 0:
        return 0.0
    window = part["window"]
    context = min(context, math.inf if window is None else window)  # a layer does not see beyond its window
    length = context + new
    i, j = cell(len(part["time"]), batch), cell(len(part["time"][0]), length)
    by_row = []
    for row in (i, i + 1):
        t0, t1, launch = part["time"][row][j], part["time"][row][j + 1], part["launch"][row]
        if blend == "sqrt":  # the root is straight between lengths, and nothing of it is launch
            at_length = between(2**j, 2 ** (j + 1), math.sqrt(t0), math.sqrt(t1), length)
            by_row.append((0.0, at_length * at_length))
        else:  # the time a token beyond the launch is straight between lengths
            rate = between(2**j, 2 ** (j + 1), (t0 - launch) / 2**j, (t1 - launch) / 2 ** (j + 1), length)
            by_row.append((launch, length * rate))
    (launch0, area0), (launch1, area1) = by_row
    launch = between(2**i, 2 ** (i + 1), launch0, launch1, batch)
    area = between(2**i, 2 ** (i + 1), area0, area1, batch)
    time = launch + area * pairs(context, new, window) / pairs(0, length, window)
    return max(time, batch * (part["kv_read_s"] * length + part["query_s"] * new))


def prefill_like(tables, batch, context, new):
    return sum(prefill_part(part, tables["blend"], batch, context, new) for part in tables["prefill"])


def prefill_mixed(tables, prompts):
    """A prompt is priced as one of as many like it as make up the new tokens of all prompts."""
    present = [(count, context, new) for count, context, new, _ in prompts if new > 0 and count > 0]
    tokens = sum(count * new for count, _, new in present)
    total = 0.0
    for count, context, new in present:
        like = tokens / new
        total += count * prefill_like(tables, like, context, new) / like
    return total


# ------------------------------------------------------------------ steps


def parts(tables, tokens, sequences, prefill, decoding):
    by_tokens, by_sequences = (
        [line(c, x) for c in tables[k]] for k, x in (("tokens", tokens), ("sequences", sequences))
    )
    return [*by_tokens, *by_sequences, prefill, decoding]


def uniform(tables, decode_batch, decode_context, prefill_batch, new, context, emits):
    """Parts of a step: token curves, sequence curves, prefill attention, decode attention."""
    prompts = prefill_batch if new > 0 else 0
    prefill = prefill_like(tables, prompts, context, new)
    decoding = decode_at(tables, decode_batch, decode_context + 1) if decode_batch else 0.0
    return parts(tables, decode_batch + prompts * new, decode_batch + prompts * emits, prefill, decoding)


def ragged(tables, decoding, prompts):
    present = [p for p in prompts if p[2] > 0]
    requests = sum(count for count, _ in decoding)
    tokens = requests + sum(count * new for count, _, new, _ in present)
    sequences = requests + sum(count * emits for count, _, _, emits in present)
    return parts(tables, tokens, sequences, prefill_mixed(tables, prompts), decode_mixed(tables, decoding))


# ------------------------------------------------------------------ measured tables to curves and grids


def roofline(m, n, k, gpu):
    """``gpu``: bytes per weight, bytes per activation, peak rate, bandwidth."""
    weight, activation, peak, bandwidth = gpu
    return max(2 * m * n * k / peak, (weight * n * k + activation * m * (n + k)) / bandwidth)


def gemm_site(sites, site, m, gpu):
    """A measured site at m; nothing is faster than its roofline."""
    points = {at: max(t, roofline(at, *site, gpu)) for at, t in sorted(sites[site].items())}
    return line((list(points), list(points.values()), 0.0), m)


def gemm(sites, n, k, m, gpu, neighbours=0, reach=2.0):
    """Time at a measured m; sites are {(n, k): {m: latency}}. A shape that was not measured borrows utilisation."""
    if (n, k) in sites:
        return gemm_site(sites, (n, k), m, gpu)
    used = {site: roofline(m, *site, gpu) / gemm_site(sites, site, m, gpu) for site in sites}
    corners = {} if neighbours else gemm_corners(sites, n, k)
    if corners:  # the geometric mean over the corners of the cell
        blend = math.exp(sum(w * math.log(used[s]) for s, w in corners.items()) / sum(corners.values()))
    else:
        far = {site: math.hypot(math.log2(site[0] / n), math.log2(site[1] / k)) for site in sorted(sites)}
        near = sorted(far, key=far.get)[: neighbours or 4]
        near = [s for s in near if far[s] <= reach] or near[:1]
        blend = sum(used[s] / far[s] ** 2 for s in near) / sum(1 / far[s] ** 2 for s in near)
    return roofline(m, n, k, gpu) / blend


def gemm_corners(sites, n, k):
    """Measured corners of the cell around (n, k) and their shares, linear in the logarithm of either axis."""

    def around(lines, x):
        low = max((v for v in lines if v <= x), default=min(lines))
        high = min((v for v in lines if v >= x), default=max(lines))
        share = 0.0 if low >= high else math.log(x / low) / math.log(high / low)
        return [(low, 1.0 - share), (high, share)]

    rows, columns = around({n for n, _ in sites}, n), around({k for _, k in sites}, k)
    return {(r, c): a * b for r, a in rows for c, b in columns if (r, c) in sites and a * b > 0}


def collective(sizes, latency, elements_per_token, tokens):
    """Straight between message sizes, held below the smallest, in proportion beyond the largest."""
    message = tokens * elements_per_token
    if message <= sizes[0]:
        return latency[0]
    if message >= sizes[-1]:
        return latency[-1] * message / sizes[-1]
    return line((sizes, latency, 0.0), message)


def decode_frontier(measured, rows, columns):
    """Fill a grid of decode attention from {(batch exponent, length exponent): time}; batch 1 was measured."""
    longest = max(j for _, j in measured)
    grid = []
    for i in range(rows):
        known = sorted(j for b, j in measured if b == i)
        row = []
        for j in range(columns):
            if not known:  # twice the requests take twice the time
                row.append(2 * grid[i - 1][j])
            elif j <= known[0]:  # launch-bound
                row.append(measured[i, known[0]])
            elif j <= known[-1]:  # measured, or a hole between measurements
                a, b = max(x for x in known if x < j), min(x for x in known if x >= j)
                row.append(between(2**a, 2**b, measured[i, a], measured[i, b], 2**j))
            elif i == 0 or j > longest:  # the slope of the last octave
                row.append(row[j - 1] + 2 * max(row[j - 1] - row[j - 2], 0))
            else:  # as the next smaller batch grows there, for twice the requests
                row.append(row[known[-1]] + 2 * max(grid[i - 1][j] - grid[i - 1][known[-1]], 0))
        grid.append(row)
    return grid


def prefill_frontier(measured, rows, columns, blend):
    """Fill a grid of prefill attention from {(batch exponent, length exponent): time}; batch 1 was measured."""
    measured = dict(measured)
    lengths = sorted({j for _, j in measured if (0, j) in measured})
    for i in range(1, rows):  # two half batches where a batch was not measured at all
        if not any(b == i for b, _ in measured):
            measured |= {(i, j): 2 * measured[i - 1, j] for j in lengths if (i - 1, j) in measured}
    for j in lengths:
        largest = max(i for i, x in measured if x == j)
        for i in range(largest + 1, rows):  # two half batches
            measured[i, j] = 2 * measured[i - 1, j]
    grid = []
    for i in range(rows):
        known = [j for j in lengths if (i, j) in measured]
        first, last = known[0], known[-1]
        row = []
        for j in range(columns):
            if j > last:  # the square of the length
                row.append(measured[i, last] * 4.0 ** (j - last))
            elif j <= first:
                row.append(measured[i, first])
            else:
                a, b = max(x for x in known if x < j), min(x for x in known if x >= j)
                t0, ta, tb = measured[i, first], measured[i, a], measured[i, b]
                if blend == "sqrt":
                    row.append(between(2**a, 2**b, math.sqrt(ta), math.sqrt(tb), 2**j) ** 2)
                else:
                    row.append(t0 + 2**j * between(2**a, 2**b, (ta - t0) / 2**a, (tb - t0) / 2**b, 2**j))
        grid.append(row)
    return grid


def distinct_experts(experts, chosen, tokens):
    """Experts that at least one of the tokens visits, each of which picks ``chosen`` of them evenly."""
    hit = 0.0
    for _ in range(experts):
        unvisited = (experts - chosen) / experts
        hit += 1.0 - unvisited**tokens
    return hit


def lattice_source(codes, away, batch, length, interpolated, extrapolated):
    """Worst code and distance of a read of an octave lattice: of the points less than an octave away on both axes."""
    row, column = math.log2(batch), math.log2(length)
    last_row, last_column = len(codes) - 1, len(codes[0]) - 1
    rows = [i for i in range(last_row + 1) if abs(min(row, last_row) - i) < 1]
    columns = [j for j in range(last_column + 1) if abs(min(column, last_column) - j) < 1]
    found = [codes[i][j] for i in rows for j in columns]
    if row > last_row or column > last_column:
        found.append(extrapolated)
    elif row % 1 or column % 1:
        found.append(interpolated)
    return max(found), min(away[i][j] + math.hypot(row - i, column - j) for i in rows for j in columns)
