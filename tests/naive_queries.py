"""Definitions of queries in plain Python: rows are dictionaries, a missing value is None."""

from __future__ import annotations


def evaluate(tree, row):
    """Value of an expression tree for one row: ("column", name), ("value", x), (operator, parts ...)."""
    kind, *parts = tree
    if kind == "column":
        return row[parts[0]]
    if kind == "value":
        return parts[0]
    if kind == "not":
        inner = evaluate(parts[0], row)
        return None if inner is None else not inner
    values = [evaluate(part, row) for part in parts]
    if kind == "and":
        return False if False in values else None if None in values else True
    if kind == "or":
        return True if True in values else None if None in values else False
    if None in values:
        return None
    a, b = values
    return {
        "+": lambda: a + b,
        "-": lambda: a - b,
        "*": lambda: a * b,
        "<": lambda: a < b,
        "<=": lambda: a <= b,
        ">": lambda: a > b,
        ">=": lambda: a >= b,
        "==": lambda: a == b,
        "!=": lambda: a != b,
    }[kind]()


def text(tree):
    """The expression as it is written."""
    kind, *parts = tree
    if kind == "column":
        return parts[0]
    if kind == "value":
        return repr(parts[0])
    if kind == "not":
        return f"(not {text(parts[0])})"
    return f"({f' {kind} '.join(map(text, parts))})"


def order(row):
    """What decides between rows that are equally good: all columns in turn, missing ones last."""
    return [(value is None, value if value is not None else 0) for value in row.values()]


def best(rows, sign, value, holds, by, count):
    groups = {}
    for row in rows:
        if holds(row) is True and value(row) is not None:
            groups.setdefault(tuple(order({b: row[b] for b in by})), []).append(row)
    out = []
    for key in sorted(groups):
        out += sorted(groups[key], key=lambda row: (-sign * value(row), order(row)))[:count]
    return out


def dominates(a, b, goals):
    """Whether row a is at least as good as b in every goal (name, sign) and better in one."""
    gains = [sign * (a[name] - b[name]) for name, sign in goals]
    return all(g >= 0 for g in gains) and any(g > 0 for g in gains)


def front(rows, goals, by):
    there = [row for row in rows if all(row[name] is not None for name, _ in goals)]
    return [
        row
        for row in there
        if not any(dominates(other, row, goals) for other in there if all(other[b] == row[b] for b in by))
    ]


def last(meets, low, most):
    """Largest number in [low, most] that meets a condition; None where none does."""
    return next((n for n in range(most, low - 1, -1) if meets(n)), None)


def first(meets, low, most):
    return next((n for n in range(low, most + 1) if meets(n)), None)
