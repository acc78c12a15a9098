"""Checks and evaluates the formulas of a graph's math nodes, because nothing stops one that runs for hours. Pure.

ComfyMathExpression evaluates its text with simpleeval 1.0, which also knows texts and lists, and lets integers grow
without limit. The formulas allowed here work on numbers alone, and their results are bounded.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

LONGEST = 1_000
MAX_EXPONENT = 8
# Bits of an integer. The value of a variable is at most the largest float.
MAX_BITS, VARIABLE_BITS = 100_000, 1_024
# Digits to which `round` may round: it computes ten to their power.
MAX_DIGITS = 100
# The list of all variables, and the prefix of the inputs that set them.
VARIABLES = "values"
ON_LISTS = {"sum", "min", "max"}
FUNCTIONS = ON_LISTS | {"abs", "round", "pow", "sqrt", "ceil", "floor", "log", "log2", "log10"}
FUNCTIONS |= {"sin", "cos", "tan", "int", "float"}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)


class _Refused(Exception):
    """The reason why a formula is refused, as the end of a sentence that begins with "it"."""


def why_refused_formula(text: str) -> str | None:
    """Why a formula is refused, as the end of a sentence that begins with "it"; None if it is allowed."""
    if len(text) > LONGEST:
        return f"has {len(text)} characters; {LONGEST} are allowed"
    try:
        _bits(ast.parse(text.strip(), mode="eval").body)
    except _Refused as refused:
        return str(refused)
    except (SyntaxError, ValueError):
        return "is not a formula, such as (a + b) * 2"
    except (RecursionError, MemoryError):
        return "is nested too deeply"
    return None


def _bits(node: ast.expr) -> float:
    """The most bits that the value of an expression can have. Raises _Refused if the expression is not allowed."""
    bits = _bits_of(node)
    if bits > MAX_BITS:
        raise _Refused(f"computes numbers of more than {MAX_BITS} bits")
    return bits


def _bits_of(node: ast.expr) -> float:  # noqa: PLR0911 - one for each kind of expression
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return float(max(int(value).bit_length() if isinstance(value, int) else VARIABLE_BITS, 1))
        case ast.Name(id=name) if name != VARIABLES:
            return VARIABLE_BITS
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
        case [ast.Name(id="values")] if name in ON_LISTS:
            return VARIABLE_BITS + 8
        case [base, exponent] if name == "pow":
            return _power(base, exponent)
        case [number, digits] if name == "round":
            if abs(_literal(digits, "the digits of round")) > MAX_DIGITS:
                raise _Refused(f"rounds to more than {MAX_DIGITS} digits")
            return _bits(number) + 4 * MAX_DIGITS
    return sum(map(_bits, args)) + len(args)


def _power(base: ast.expr, exponent: ast.expr) -> float:
    most = abs(_literal(exponent, "an exponent"))
    if most > MAX_EXPONENT:
        raise _Refused(f"has the exponent {ast.unparse(exponent)[:20]}; up to {MAX_EXPONENT} is allowed")
    return _bits(base) * max(most, 1)


def _literal(node: ast.expr, noun: str) -> float:
    """The value of a number literal, with or without a sign."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
            return value
    raise _Refused(f"computes {noun}, which must be a number: {ast.unparse(node)[:60]}")


def evaluate(text: str, names: Mapping[str, float]) -> float | None:
    """The value of an allowed formula, as the engine computes it; None if it has none, or `names` lacks a variable.

    Integers stay integers, because a float would lose digits of a large one.
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


def _value(node: ast.expr, names: Mapping[str, float]) -> Any:  # noqa: PLR0911 - one for each kind of expression
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
            results = [_value(operand, names) for operand in values]
            wanted = isinstance(op, ast.Or)
            return next((result for result in results if bool(result) is wanted), results[-1])
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_value(side, names) for side in [left, *others]]
            return all(_COMPARE[type(op)](*pair) for op, pair in zip(ops, pairwise(sides), strict=True))
        case ast.Call(func=ast.Name(id=name), args=[ast.Name(id="values")]):
            return _CALLS[name](list(names.values())) if name != "sum" else sum(names.values())
        case ast.Call(func=ast.Name(id=name), args=args):
            return _CALLS[name](*(_value(arg, names) for arg in args))
    raise ValueError(ast.dump(node))
