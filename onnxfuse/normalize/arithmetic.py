"""Normal form of arithmetic: powers as products, reciprocals as divisions, signs in the constant."""

from __future__ import annotations

from onnxfuse.normalize.scale import need_float, scalar_like
from onnxfuse.rewrite import Match, Op, Rule
from onnxfuse.rewrite.facts import is_constant

# x ** 2 = x * x, x ** 3 = x * x * x


def power(op, x, exponent):
    return op.Pow(x, exponent)


def guard_power(match: Match) -> dict:
    exponent = match.scalar("exponent")
    match.need(exponent in (2, 3), f"the exponent is {exponent}, wanted 2 or 3", match["exponent"])
    need_float(match, match["x"])
    match.need(match.need_shape("x") == match.need_shape(match.output), "the exponent has more dimensions", match["exponent"])
    return {"cube": exponent == 3}


def product(op: Op, x, cube, **_):
    square = op.Mul(x, x)
    return op.Mul(square, x) if cube else square


# 1 / x = Reciprocal(x)


def one_over(op, one, x):
    return op.Div(one, x)


def guard_one(match: Match) -> None:
    match.need_scalar("one", 1.0)
    need_float(match, match["x"])
    match.need(match.need_shape("x") == match.need_shape(match.output), "the 1 has more dimensions", match["one"])


def reciprocal(op: Op, x, **_):
    return op.Reciprocal(x)


# x * Reciprocal(y) = x / y


def times_reciprocal(op, x, y):
    return op.Mul(x, op.Reciprocal(y))


def guard_quotient(match: Match) -> None:
    match.need(not is_constant(match["y"]), "a constant expression", match["y"])


def quotient(op: Op, x, y):
    return op.Div(x, y)


# -x * c = x * -c


def negated(op, x, c):
    return op.Mul(op.Neg(x), c)


def guard_negated(match: Match) -> dict:
    return {"factor": -match.scalar("c"), "dtype": need_float(match, match["c"])}


def multiply(op: Op, x, factor, dtype, **_):
    return op.Mul(x, scalar_like(op, factor, dtype))


RULES = (
    Rule("power-product", power, guard_power, product),
    Rule("one-over", one_over, guard_one, reciprocal),
    Rule("reciprocal-division", times_reciprocal, guard_quotient, quotient),
    Rule("sign-in-factor", negated, guard_negated, multiply, exact=True),
)
