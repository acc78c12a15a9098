"""Formulas of a graph's math nodes: which are let in, as nothing stops one that computes for hours. Pure.

ComfyMathExpression evaluates its text with simpleeval 1.0, which knows texts and lists as well as numbers, and lets a
whole number grow without end. What is let in here works on numbers only, and its results have an end.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

LONGEST = 1_000
MAX_EXPONENT = 8
# Bits of a whole number. What is linked into a formula is at most as large as a float can be.
MAX_BITS, BITS_OF_INPUT = 100_000, 1_024
# Digits that `round` may be asked for: it computes ten to the power of them.
MAX_DIGITS = 100
# A list of all that is linked into the formula.
LIST = "values"
OF_A_LIST = {"sum", "min", "max"}
FUNCTIONS = OF_A_LIST | {"abs", "round", "pow", "sqrt", "ceil", "floor", "log", "log2", "log10"}
FUNCTIONS |= {"sin", "cos", "tan", "int", "float"}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)


class _Refused(Exception):
    """Says why, as the end of a sentence that begins with "it"."""


def why_no_formula(text: str) -> str | None:
    """Why a formula stays out, as the end of a sentence that begins with "it"; None if it is let in."""
    if len(text) > LONGEST:
        return f"has {len(text)} characters; {LONGEST} are allowed"
    try:
        _bits(ast.parse(text.strip(), mode="eval").body)
    except _Refused as refused:
        return str(refused)
    except (SyntaxError, ValueError):
        return "is no formula, such as (a + b) * 2"
    except (RecursionError, MemoryError):
        return "is nested too deeply"
    return None


def _bits(node: ast.expr) -> float:
    """The most bits that the value of an expression can have. Raises _Refused for what is not let in."""
    bits = _bits_of(node)
    if bits > MAX_BITS:
        raise _Refused(f"computes numbers of more than {MAX_BITS} bits")
    return bits


def _bits_of(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return float(max(int(value).bit_length() if isinstance(value, int) else BITS_OF_INPUT, 1))
        case ast.Name(id=name) if name != LIST:
            return BITS_OF_INPUT
        case ast.UnaryOp(operand=operand):
            return _bits(operand) + 1
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(left, right)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _OPERATORS):
            return _bits(left) + _bits(right) + 1
        case ast.BoolOp(values=values):
            return max(map(_bits, values))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            return max(map(_bits, [left, *others]))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return max(map(_bits, [test, body, orelse]))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return _call(name, args)
    raise _Refused(f"uses more than numbers, names, operators and functions: {ast.unparse(node)[:60]}")


def _call(name: str, args: list[ast.expr]) -> float:
    match args:
        case [ast.Name(id="values")] if name in OF_A_LIST:
            return BITS_OF_INPUT + 8
        case [base, exponent] if name == "pow":
            return _power(base, exponent)
        case [number, digits] if name == "round":
            if abs(_constant(digits, "the digits of round")) > MAX_DIGITS:
                raise _Refused(f"rounds to more than {MAX_DIGITS} digits")
            return _bits(number) + 4 * MAX_DIGITS
    return sum(map(_bits, args)) + len(args)


def _power(base: ast.expr, exponent: ast.expr) -> float:
    most = abs(_constant(exponent, "an exponent"))
    if most > MAX_EXPONENT:
        raise _Refused(f"has the exponent {ast.unparse(exponent)[:20]}; up to {MAX_EXPONENT} is allowed")
    return _bits(base) * max(most, 1)


def _constant(node: ast.expr, what: str) -> float:
    """The value of a number that is written there, with a sign or without."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
            return value
    raise _Refused(f"computes {what}, which must be a number: {ast.unparse(node)[:60]}")


def evaluate(text: str, names: Mapping[str, float]) -> float | None:
    """The value of a formula that is let in, as the engine computes it; None where it has none, or `names` lacks one.

    Whole numbers stay whole, for a float would lose what is added to a large one.
    """
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body, names)
        return value if math.isfinite(value) else None
    except (ArithmeticError, LookupError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CALLS: dict[str, Callable[..., Any]] = {
    **{name: getattr(math, name) for name in ("sqrt", "ceil", "floor", "log", "log2", "log10", "sin", "cos", "tan")},
    **{"abs": abs, "pow": pow, "int": int, "float": float, "round": round, "min": min, "max": max},
    "sum": lambda *numbers: sum(numbers),
}


def _value(node: ast.expr, names: Mapping[str, float]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, names))
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, names) else orelse, names)
        case ast.BoolOp(op=op, values=values):
            all_of = [_value(each, names) for each in values]
            wanted = isinstance(op, ast.Or)
            return next((each for each in all_of if bool(each) is wanted), all_of[-1])
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_value(each, names) for each in [left, *others]]
            return all(_COMPARE[type(op)](*pair) for op, pair in zip(ops, pairwise(sides), strict=True))
        case ast.Call(func=ast.Name(id=name), args=[ast.Name(id="values")]):
            return _CALLS[name](list(names.values())) if name != "sum" else sum(names.values())
        case ast.Call(func=ast.Name(id=name), args=args):
            return _CALLS[name](*(_value(each, names) for each in args))
    raise ValueError(ast.dump(node))
