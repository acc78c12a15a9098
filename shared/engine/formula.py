"""Formulas of a graph's math nodes: which are let in, as nothing stops one that computes for hours. Pure.

ComfyMathExpression evaluates its text with simpleeval 1.0, which knows texts and lists as well as numbers, and lets a
whole number grow without end. What is let in here works on numbers only, and its results have an end.
"""

import ast

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
        case ast.Compare(left=left, comparators=others):
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
