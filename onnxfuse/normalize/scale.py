"""Normal form of constant factors: division becomes multiplication, factors merge, and scores are scaled once, after MatMul."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.shapes import joins, need_target
from onnxfuse.rewrite import Learned, Match, NoMatch, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import is_constant

FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


def scalar_like(op: Op, number: float, dtype: ir.DataType) -> ir.Value:
    """A rank-0 constant of the given type."""
    return op.constant(np.array(number, dtype=dtype.numpy()), "scale")


def need_float(match: Match, value: ir.Value) -> ir.DataType:
    """The value's floating-point type, or a refusal."""
    dtype = match.analysis[value].dtype
    if dtype not in FLOATS:
        raise NoMatch(f"the type is {dtype}, wanted floating point", value)
    return dtype


# x / c = x * (1/c)


def divide(op: Pattern, x: Var, c: Var) -> Term:
    return op.Div(x, c)


def guard_divide(match: Match) -> Learned:
    divisor = match.scalar("c")
    match.need(divisor != 0, "division by zero", match["c"])
    match.need(not is_constant(match["x"]), "a constant expression", match["x"])
    return {"factor": 1 / divisor, "dtype": need_float(match, match["c"])}


def multiply(op: Op, x: ir.Value, factor: float, dtype: ir.DataType, **_: Any) -> ir.Value:
    return op.Mul(x, scalar_like(op, factor, dtype))


# (x * a) * b = x * (a*b)


def twice(op: Pattern, x: Var, a: Var, b: Var) -> Term:
    return op.Mul(op.Mul(x, a), b)


def guard_twice(match: Match) -> Learned:
    dtype = need_float(match, match["a"])
    match.need(not is_constant(match["x"]), "a constant expression", match["x"])
    return {"factor": match.scalar("a") * match.scalar("b"), "dtype": dtype}


# (a*c) @ b = (a @ b) * c, and a @ (b*c) likewise


def scaled_left(op: Pattern, a: Var, b: Var, c: Var) -> Term:
    return op.MatMul(op.Mul(a, c), b)


def scaled_right(op: Pattern, a: Var, b: Var, c: Var) -> Term:
    return op.MatMul(a, op.Mul(b, c))


def guard_scores(match: Match) -> Learned:
    """Only products of two activations (scores): a scaled input of a linear layer is left to its weights."""
    factor, dtype = match.scalar("c"), need_float(match, match["c"])
    for name in ("a", "b"):
        match.need(not is_constant(match[name]), f"{name} is a weight", match[name])
        match.need(len(match.need_shape(name)) >= 3, f"{name} is not batched", match[name])
    return {"factor": factor, "dtype": dtype}


def scale_scores(op: Op, a: ir.Value, b: ir.Value, factor: float, dtype: ir.DataType, **_: Any) -> ir.Value:
    return op.Mul(op.MatMul(a, b), scalar_like(op, factor, dtype))


# Transpose(x * c) = Transpose(x) * c


def scaled_transpose(op: Pattern, x: Var, c: Var, perm: Var) -> Term:
    return op.Transpose(op.Mul(x, c), perm=perm)


def guard_scaled_transpose(match: Match) -> Learned:
    match.need(match["perm"] != [1, 0, 2], "batch and sequence are swapped: that moves behind (normalize/batch.py)", match.output)
    return _factor(match)


def _factor(match: Match) -> Learned:
    return {"factor": match.scalar("c"), "dtype": need_float(match, match["c"])}


def scale_transpose(op: Op, x: ir.Value, perm: list[int], factor: float, dtype: ir.DataType, **_: Any) -> ir.Value:
    return op.Mul(op.Transpose(x, perm=perm), scalar_like(op, factor, dtype))


# Reshape(x * c) = Reshape(x) * c


def scaled_reshape(op: Pattern, x: Var, c: Var, shape: Var, zero: Var) -> Term:
    return op.Reshape(op.Mul(x, c), shape, allowzero=zero)


def guard_scaled_reshape(match: Match) -> Learned:
    match.need(match.need_shape("x"), "a scalar", match["x"])
    merged = joins(match.need_shape("x"), match.need_shape(match.output))
    match.need(merged is None, "heads are merged into the batch: that moves behind (normalize/batch.py)", match.output)
    return _factor(match) | {"target": need_target(match, match["x"])}


def scale_reshape(op: Op, x: ir.Value, target: list[int], factor: float, dtype: ir.DataType, **_: Any) -> ir.Value:
    return op.Mul(op.Reshape(x, op.constant(target, "shape")), scalar_like(op, factor, dtype))


RULES = (
    Rule("division-to-multiplication", divide, guard_divide, multiply, measured=True),
    Rule("factors-merge", twice, guard_twice, multiply),
    Rule("scale-left", scaled_left, guard_scores, scale_scores),
    Rule("scale-right", scaled_right, guard_scores, scale_scores),
    Rule("scale-transpose", scaled_transpose, guard_scaled_transpose, scale_transpose),
    Rule("scale-reshape", scaled_reshape, guard_scaled_reshape, scale_reshape),
)
