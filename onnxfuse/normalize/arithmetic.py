"""Normal form of arithmetic: powers as products, reciprocals as divisions, signs in the constant."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxfuse.normalize.scale import need_float, scalar_like
from onnxfuse.rewrite import Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import is_constant

AXES_INPUT = 18
"""The first opset whose reductions take their axes as an input; before, they are an attribute."""

# x ** 2 = x * x, x ** 3 = x * x * x


def power(op: Pattern, x: Var, exponent: Var) -> Term:
    return op.Pow(x, exponent)


def guard_power(match: Match) -> Learned:
    exponent = match.scalar("exponent")
    match.need(exponent in (2, 3), f"the exponent is {exponent}, wanted 2 or 3", match["exponent"])
    need_float(match, match["x"])
    match.need(match.need_shape("x") == match.need_shape(match.output), "the exponent has more dimensions", match["exponent"])
    return {"cube": exponent == 3}


def product(op: Op, x: ir.Value, cube: bool, **_: Any) -> ir.Value:
    square = op.Mul(x, x)
    return op.Mul(square, x) if cube else square


# 1 / x = Reciprocal(x)


def one_over(op: Pattern, one: Var, x: Var) -> Term:
    return op.Div(one, x)


def guard_one(match: Match) -> None:
    match.need_scalar("one", 1.0)
    need_float(match, match["x"])
    match.need(match.need_shape("x") == match.need_shape(match.output), "the 1 has more dimensions", match["one"])


def reciprocal(op: Op, x: ir.Value, **_: Any) -> ir.Value:
    return op.Reciprocal(x)


# x * Reciprocal(y) = x / y


def times_reciprocal(op: Pattern, x: Var, y: Var) -> Term:
    return op.Mul(x, op.Reciprocal(y))


def guard_quotient(match: Match) -> None:
    match.need(not is_constant(match["y"]), "a constant expression", match["y"])


def quotient(op: Op, x: ir.Value, y: ir.Value) -> ir.Value:
    return op.Div(x, y)


# -x * c = x * -c


def negated(op: Pattern, x: Var, c: Var) -> Term:
    return op.Mul(op.Neg(x), c)


def guard_negated(match: Match) -> Learned:
    return {"factor": -match.scalar("c"), "dtype": need_float(match, match["c"])}


def multiply(op: Op, x: ir.Value, factor: float, dtype: ir.DataType, **_: Any) -> ir.Value:
    return op.Mul(x, scalar_like(op, factor, dtype))


# -x * y = -(x * y), x + -y = x - y, x - y * c = x + y * -c: a sign goes outwards until an addition or a constant takes it


def negated_factor(op: Pattern, x: Var, y: Var) -> Term:
    return op.Mul(op.Neg(x), y)


def guard_activations(match: Match) -> None:
    need_float(match, match["x"])
    match.need(not is_constant(match["y"]), "the constant takes the sign", match["y"])


def negated_product(op: Op, x: ir.Value, y: ir.Value) -> ir.Value:
    return op.Neg(op.Mul(x, y))


def plus_negated(op: Pattern, x: Var, y: Var) -> Term:
    return op.Add(x, op.Neg(y))


def guard_float(match: Match) -> None:
    need_float(match, match["x"])


def minus(op: Op, x: ir.Value, y: ir.Value) -> ir.Value:
    return op.Sub(x, y)


def minus_scaled(op: Pattern, x: Var, y: Var, c: Var) -> Term:
    return op.Sub(x, op.Mul(y, c))


def plus_scaled(op: Op, x: ir.Value, y: ir.Value, factor: float, dtype: ir.DataType, **_: Any) -> ir.Value:
    return op.Add(x, op.Mul(y, scalar_like(op, factor, dtype)))


# The mean over given axes does not depend on what it is over none


def reduce_mean(op: Pattern, x: Var, axes: Var, keepdims: Var, noop: Var) -> Term:
    return op.ReduceMean(x, axes, keepdims=keepdims, noop_with_empty_axes=noop)


def guard_axes(match: Match) -> None:
    match.need(match["noop"], "it is already the default")
    match.need(match.info("axes").data, "the axes are not known to be any", match["axes"])


def mean(op: Op, x: ir.Value, axes: ir.Value, keepdims: int, **_: Any) -> ir.Value:
    return op.ReduceMean(x, axes, keepdims=keepdims)


# GlobalAveragePool(x) = ReduceMean(x) over all but the first two dimensions


def global_pool(op: Pattern, x: Var) -> Term:
    return op.GlobalAveragePool(x)


def guard_pool(match: Match) -> Learned:
    return {"axes": list(range(2, len(match.need_shape("x")))), "listed": match.analysis.opset < AXES_INPUT}


def mean_of_rest(op: Op, x: ir.Value, axes: list[int], listed: bool) -> ir.Value:
    return op.ReduceMean(x, axes=axes) if listed else op.ReduceMean(x, op.constant(axes, "axes"))


RULES = (
    Rule("pool-mean", global_pool, guard_pool, mean_of_rest),
    Rule("mean-over-axes", reduce_mean, guard_axes, mean, exact=True),
    Rule("power-product", power, guard_power, product),
    Rule("one-over", one_over, guard_one, reciprocal),
    Rule("reciprocal-division", times_reciprocal, guard_quotient, quotient),
    Rule("sign-in-factor", negated, guard_negated, multiply, exact=True),
    Rule("sign-in-factor", minus_scaled, guard_negated, plus_scaled, exact=True),
    Rule("sign-outwards", negated_factor, guard_activations, negated_product, exact=True),
    Rule("sign-outwards", plus_negated, guard_float, minus, exact=True),
)
