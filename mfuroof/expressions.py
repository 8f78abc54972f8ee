"""Expressions over named columns: ``decode_batch >= 8 and tpot_ms <= 30``, for filters, constraints and objectives.

A text is parsed once and then read on arrays; nothing is ever executed. Numbers are float64, so that a product of
counts cannot wrap around; a missing value (NaN, null) makes what depends on it missing, and a condition that is
missing does not hold, as in SQL.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfuroof.errors import InputError, Problem, UnknownNameError
from mfuroof.units import GB, GIB, KIB, MIB, MS, NS, TERA, US

__all__ = ["SCALED", "SPELLING", "Column", "Expression", "Texts", "scaled_name"]

SPELLING = "numbers, 'texts', columns, + - * / // % **, comparisons, and, or, not, in (...), abs, min, max"
"""What an expression may hold, for help and error texts."""

SCALED: tuple[tuple[str, str, float], ...] = (
    ("_tflops_per_s", "_flops_per_s", TERA),
    ("_gb_per_s", "_bytes_per_s", GB),
    ("_ms", "_s", MS),
    ("_us", "_s", US),
    ("_ns", "_s", NS),
    ("_kib", "_bytes", KIB),
    ("_mib", "_bytes", MIB),
    ("_gib", "_bytes", GIB),
)
"""Suffix of a scaled name, suffix of the column it reads, and how many of the column's units one of it is."""

_LONGEST = 4000
Bools: TypeAlias = NDArray[np.bool_]


class Texts(NamedTuple):
    """A column of texts as positions in a list of distinct ones; -1 is missing."""

    codes: NDArray[Any]
    names: tuple[str, ...]


Column: TypeAlias = "NDArray[Any] | Texts | tuple[Bools, Bools]"
"""Numbers (NaN is missing), booleans, booleans with a mask of those that are there, or `Texts`."""


class _Condition(NamedTuple):
    """Truth of each row, and where it is not known (None: nowhere)."""

    true: Any
    missing: Any


def scaled_name(name: str, known: Collection[str]) -> tuple[str, float] | None:
    """Return the column that a scaled name reads and the unit to divide it by; None where there is none.

    Only plain quantities are scaled: ``tpot_ms`` reads ``tpot_s``, but ``tokens_per_ms`` reads nothing.
    """
    for suffix, base, unit in SCALED:
        stem = name.removesuffix(suffix)
        if stem != name and not stem.endswith("_per") and stem + base in known:
            return stem + base, unit
    return None


@dataclass(frozen=True)
class Expression:
    """A parsed expression; make one with `parse`.

    Attributes
    ----------
    text
        As it was written.
    names
        Columns it reads, each once, in order of appearance.
    """

    text: str
    names: tuple[str, ...]
    _tree: ast.expr
    _scaled: Mapping[str, tuple[str, float]]

    @classmethod
    def parse(cls, text: str, known: Collection[str], where: str = "expression") -> Expression:
        """Parse a text.

        Parameters
        ----------
        text
            The expression; see `SPELLING`. ``name_ms``, ``_us``, ``_gib`` ... read the column of base units.
        known
            Names of the columns.
        where
            What the text is, for errors.

        Raises
        ------
        InputError
            It is no expression, or uses what is not in the language.
        UnknownNameError
            A column that is not known; the nearest are named.

        Examples
        --------
        >>> e = Expression.parse("tpot_ms <= 30 and gpu in ('h100_sxm',)", ("tpot_s", "gpu"))
        >>> e.names
        ('tpot_s', 'gpu')
        """
        try:
            if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
                raise SyntaxError
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # of Python, about texts that are refused below
                tree = ast.parse(text.strip(), mode="eval").body
            used = _names(tree, where, text)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(Problem(where, repr(text)[:200], "an expression", f"It may hold {SPELLING}.")) from None
        read: dict[str, None] = {}
        scaled: dict[str, tuple[str, float]] = {}
        for name in used:
            if name in known:
                read[name] = None
                continue
            found = scaled_name(name, known)
            if found is None:
                raise UnknownNameError("column", name, known)
            scaled[name] = found
            read[found[0]] = None
        return cls(text.strip(), tuple(read), tree, scaled)

    def evaluate(self, columns: Mapping[str, Column]) -> NDArray[Any]:
        """Return the numbers of each row as float64, NaN where one is missing; of a condition 1 or 0.

        Raises
        ------
        InputError
            Texts and numbers are mixed up.
        """
        found = self._value(self._tree, columns)
        if isinstance(found, _Condition):
            return np.where(_or(found.missing, False), np.nan, np.asarray(found.true, np.float64))
        if isinstance(found, Texts | str):
            raise self._wrong(self._tree, "a number")
        return np.asarray(found, np.float64)

    def test(self, columns: Mapping[str, Column]) -> Bools:
        """Return whether the condition holds in each row; False where it is missing.

        Raises
        ------
        InputError
            The expression is no condition, or mixes up texts and numbers.
        """
        found = self._condition(self._tree, columns)
        true = np.asarray(found.true, np.bool_)
        return true if found.missing is None else true & ~found.missing

    # ------------------------------------------------------------------ the tree

    def _value(self, node: ast.expr, columns: Mapping[str, Column]) -> Any:
        with np.errstate(all="ignore"):  # a division by zero is an infinity or NaN, as in the columns
            if isinstance(node, ast.Constant):
                return self._constant(node.value)
            if isinstance(node, ast.Name):
                return self._column(node.id, columns)
            if isinstance(node, ast.BinOp):
                left, right = (self._number(side, columns) for side in (node.left, node.right))
                return _ARITHMETIC[type(node.op)](left, right)
            if isinstance(node, ast.Call):
                values = [self._number(a, columns) for a in node.args]
                return _FUNCTIONS[node.func.id](values)  # type: ignore[attr-defined]
            if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
                value = self._number(node.operand, columns)
                return -value if isinstance(node.op, ast.USub) else value
            return self._condition(node, columns)

    def _constant(self, value: Any) -> Any:
        if isinstance(value, bool):
            return _Condition(np.bool_(value), None)
        return value if isinstance(value, str) else np.float64(value)

    def _column(self, name: str, columns: Mapping[str, Column]) -> Any:
        base, unit = self._scaled.get(name, (name, None))
        column = columns[base]
        if isinstance(column, Texts):
            return column
        if isinstance(column, tuple):
            return _Condition(column[0], ~column[1])
        if column.dtype.kind == "b":
            return _Condition(column, None)
        numbers = np.asarray(column, np.float64)
        return numbers if unit is None else numbers / unit

    def _number(self, node: ast.expr, columns: Mapping[str, Column]) -> Any:
        value = self._value(node, columns)
        if isinstance(value, Texts | str | _Condition):
            raise self._wrong(node, "a number")
        return value

    def _condition(self, node: ast.expr, columns: Mapping[str, Column]) -> _Condition:
        if isinstance(node, ast.BoolOp):
            parts = [self._condition(v, columns) for v in node.values]
            both = isinstance(node.op, ast.And)
            found = parts[0]
            for part in parts[1:]:
                found = _joined(found, part, both)
            return found
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self._condition(node.operand, columns)
            return _Condition(~np.asarray(inner.true, np.bool_), inner.missing)
        if isinstance(node, ast.Compare):
            left, found = node.left, _Condition(np.True_, None)
            for op, right in zip(node.ops, node.comparators, strict=True):
                found = _joined(found, self._compared(op, left, right, columns), True)
                left = right
            return found
        value = self._value(node, columns) if isinstance(node, ast.Name | ast.Constant) else None
        if isinstance(value, _Condition):
            return value
        raise self._wrong(node, "a condition, such as tpot_s <= 0.03")

    def _compared(self, op: ast.cmpop, left: ast.expr, right: ast.expr, columns: Mapping[str, Column]) -> _Condition:
        if isinstance(op, ast.In | ast.NotIn):
            choices = [ast.Compare(left, [ast.Eq()], [c]) for c in right.elts]  # type: ignore[attr-defined]
            found = self._condition(ast.BoolOp(ast.Or(), list(choices)), columns)
            return found if isinstance(op, ast.In) else _Condition(~np.asarray(found.true, np.bool_), found.missing)
        a, b = self._value(left, columns), self._value(right, columns)
        if isinstance(a, Texts | str) != isinstance(b, Texts | str):
            raise self._wrong(right, "a text beside a text, a number beside a number")
        if isinstance(a, Texts | str):
            return self._same_text(op, a, b, right)
        missing = None
        sides = []
        for side in (a, b):
            if isinstance(side, _Condition):
                sides.append(np.asarray(side.true, np.float64))
                missing = _or(missing, side.missing)
            else:
                sides.append(side)
                unknown = np.isnan(side)
                missing = _or(missing, unknown if unknown.any() else None)
        return _Condition(_COMPARISONS[type(op)](*sides), missing)

    def _same_text(self, op: ast.cmpop, a: Texts | str, b: Texts | str, node: ast.expr) -> _Condition:
        if not isinstance(op, ast.Eq | ast.NotEq):
            raise self._wrong(node, "== or != or in (...) between texts")
        if isinstance(a, str) and isinstance(b, str):
            return _Condition(np.bool_((a == b) == isinstance(op, ast.Eq)), None)
        if isinstance(a, Texts) and isinstance(b, Texts):
            other = {name: i for i, name in enumerate(b.names)}
            place = np.array([other.get(name, -2) for name in a.names] + [-1], np.int64)
            same, missing = place[a.codes] == b.codes, (a.codes < 0) | (b.codes < 0)
        else:
            column, text = (a, b) if isinstance(a, Texts) else (b, a)
            assert isinstance(column, Texts)
            code = column.names.index(text) if text in column.names else -2
            same, missing = column.codes == code, column.codes < 0
        return _Condition(same if isinstance(op, ast.Eq) else ~same, missing if missing.any() else None)

    def _wrong(self, node: ast.expr, expected: str) -> InputError:
        part = ast.unparse(node)
        where = f"expression {self.text!r}"
        return InputError(Problem(where, part if part != self.text else "the whole of it", expected))


def _names(tree: ast.expr, where: str, text: str) -> dict[str, None]:
    """Return the names of a tree in order; raise `InputError` naming what is not in the language."""
    found: dict[str, None] = {}

    def visit(node: ast.AST) -> None:
        plain = isinstance(node, ast.BoolOp | ast.Compare | ast.Name)
        arithmetic = isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC
        unary = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Not)
        constant = isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str)
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords
        if call:
            count = len(node.args)  # type: ignore[attr-defined]
            name = node.func.id  # type: ignore[attr-defined]
            call = (name == "abs" and count == 1) or (name in ("min", "max") and count >= 1)
        if isinstance(node, ast.Compare):
            for op, side in zip(node.ops, node.comparators, strict=True):
                listed = isinstance(side, ast.Tuple | ast.List) and bool(side.elts)
                fits = listed == isinstance(op, ast.In | ast.NotIn) and not isinstance(op, ast.Is | ast.IsNot)
                plain = plain and fits
        if not (plain or arithmetic or unary or constant or call):
            raise InputError(Problem(where, f"{ast.unparse(node)!r} in {text!r}", SPELLING))
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            float(node.value)  # an integer beyond any float is a ValueError or OverflowError of the text
        if isinstance(node, ast.Name):
            found[node.id] = None
        parts: list[ast.AST] = list(node.args) if isinstance(node, ast.Call) else []
        if not isinstance(node, ast.Call):
            for child in ast.iter_child_nodes(node):
                listed = isinstance(child, ast.Tuple | ast.List)
                parts += child.elts if listed else [child]  # type: ignore[attr-defined]
        for part in parts:
            if not isinstance(part, ast.operator | ast.unaryop | ast.cmpop | ast.boolop | ast.expr_context):
                visit(part)

    try:
        visit(tree)
    except OverflowError:
        raise SyntaxError from None
    return found


def _or(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a | b


def _joined(a: _Condition, b: _Condition, both: bool) -> _Condition:
    """Return ``a and b`` or ``a or b``; unknown unless one side decides alone."""
    x, y = np.asarray(a.true, np.bool_), np.asarray(b.true, np.bool_)
    true = x & y if both else x | y
    missing = _or(a.missing, b.missing)
    if missing is None:
        return _Condition(true, None)
    decided = np.zeros((), np.bool_)
    for side, unknown in ((x, a.missing), (y, b.missing)):
        deciding = ~side if both else side
        decided = decided | (deciding if unknown is None else deciding & ~unknown)
    return _Condition(np.where(decided, not both, true), missing & ~decided)


_ARITHMETIC: dict[type, Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARISONS: dict[type, Any] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}


def _fold(function: Any) -> Any:
    def folded(values: list[Any]) -> Any:
        found = values[0]
        for value in values[1:]:
            found = function(found, value)  # NaN wins: missing stays missing
        return found

    return folded


_FUNCTIONS: dict[str, Any] = {
    "abs": lambda values: np.abs(values[0]),
    "min": _fold(np.minimum),
    "max": _fold(np.maximum),
}
