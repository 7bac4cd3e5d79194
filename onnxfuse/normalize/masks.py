"""Normal form of masks: one bias of the smallest shape, made by Where from two numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.scale import FLOATS, need_float, scalar_like
from onnxfuse.rewrite import Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE

# And(x, true) = x, expanded to the common shape


def and_true(op: Pattern, x: Var, true: Var) -> Term:
    return op.And(x, true)


def where_true(op: Pattern, true: Var, x: Var, other: Var) -> Term:
    return op.Where(true, x, other)


def where_false(op: Pattern, false: Var, other: Var, x: Var) -> Term:
    return op.Where(false, other, x)


def guard_false(match: Match) -> None:
    match.need(match.info("false").uniform is False, "the condition is not always false", match["false"])
    match.need(match.need_shape("x") == match.need_shape(match.output), "the condition decides the shape", match["false"])


def itself(op: Op, x: ir.Value, **_: Any) -> ir.Value:
    return x


def guard_true(match: Match) -> None:
    match.need(match.info("true").uniform is True, "the other side is not always true", match["true"])
    same = match.need_shape("x") == match.need_shape(match.output)
    if "other" in match.bindings:
        match.need(same or match.info("other").shape == (), "the other branch has a shape of its own", match["other"])


def expanded(op: Op, x: ir.Value, true: ir.Value, **_: Any) -> ir.Value:
    return op.Expand(x, op.Shape(true))


# Where(Transpose(c), s, Transpose(x)) = Transpose(Where(c, s, x))


def where_transposed(op: Pattern, c: Var, s: Var, x: Var, perm: Var) -> Term:
    return op.Where(op.Transpose(c, perm=perm), s, op.Transpose(x, perm=perm))


def guard_transposed(match: Match) -> None:
    match.need(match.need_shape("s") == (), "the other branch has a shape of its own", match["s"])
    match.need(match.need_shape("x", rank=len(match.need_shape("c"))), "a scalar", match["x"])


def transpose_where(op: Op, c: ir.Value, s: ir.Value, x: ir.Value, perm: list[int]) -> ir.Value:
    return op.Transpose(op.Where(c, s, x), perm=perm)


# Where(c, s, x) = Where(c, s, number) for an x that is the same number everywhere, and adds no dimension


def where_any(op: Pattern, c: Var, yes: Var, no: Var) -> Term:
    return op.Where(c, yes, no)


def guard_uniform(match: Match) -> Learned:
    """Zeros like the mask; shape arithmetic keeps its vectors."""
    condition, wanted = match.need_shape("c"), match.need_shape(match.output)
    match.need(condition == wanted, "a branch decides the shape", match.output)
    branches = {name: match.info(name) for name in ("yes", "no")}
    wide = {
        name: np.array(info.uniform, dtype=info.dtype.numpy())
        for name, info in branches.items()
        if info.uniform is not None and info.shape != () and info.dtype in FLOATS
    }
    match.need(wide, "no branch is one number in a shape", match.output)
    return {"numbers": wide}


def where_numbers(op: Op, c: ir.Value, numbers: dict[str, np.ndarray], **branches: Any) -> ir.Value:
    return op.Where(c, *(op.constant(numbers[name], name) if name in numbers else branches[name] for name in ("yes", "no")))


# Reshape(Where(c, s, t)) = Where(Reshape(c), s, t) for two numbers


def reshaped_where(op: Pattern, c: Var, yes: Var, no: Var, shape: Var, zero: Var) -> Term:
    return op.Reshape(op.Where(c, yes, no), shape, allowzero=zero)


def guard_numbers(match: Match) -> Learned:
    match.need(match.need_shape("yes") == match.need_shape("no") == (), "a branch has a shape of its own", match.output)
    match.need(match.need_shape("c"), "a scalar", match["c"])
    return {}


def where_reshaped(op: Op, c: ir.Value, yes: ir.Value, no: ir.Value, shape: ir.Value, zero: int) -> ir.Value:
    return op.Where(op.Reshape(c, shape, allowzero=zero), yes, no)


# f(Expand(x)) = Expand(f(x)) for elementwise f; Add(y, Expand(x)) = Add(y, x) where y has the full shape


def expand_where(op: Pattern, x: Var, shape: Var, yes: Var, no: Var) -> Term:
    return op.Where(op.Expand(x, shape), yes, no)


def guard_scalar_branches(match: Match) -> None:
    rank = len(match.need_shape("x"))
    for name in ("yes", "no"):
        shape = match.need_shape(name)
        match.need(len(shape) <= rank and set(shape) <= {ONE}, f"branch {name!r} has a shape of its own", match[name])


def where_expand(op: Op, x: ir.Value, shape: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
    return op.Expand(op.Where(x, yes, no), shape)


def expand_cast(op: Pattern, x: Var, shape: Var, to: Var) -> Term:
    return op.Cast(op.Expand(x, shape), to=to)


def cast_expand(op: Op, x: ir.Value, shape: ir.Value, to: int) -> ir.Value:
    return op.Expand(op.Cast(x, to=to), shape)


def expand_not(op: Pattern, x: Var, shape: Var) -> Term:
    return op.Not(op.Expand(x, shape))


def not_expand(op: Op, x: ir.Value, shape: ir.Value) -> ir.Value:
    return op.Expand(op.Not(x), shape)


def expand_scaled(op: Pattern, x: Var, shape: Var, c: Var) -> Term:
    return op.Mul(op.Expand(x, shape), c)


def guard_scaled(match: Match) -> Learned:
    return {"factor": match.scalar("c"), "dtype": need_float(match, match["c"])}


def scaled_expand(op: Op, x: ir.Value, shape: ir.Value, factor: float, dtype: ir.DataType, **_: Any) -> ir.Value:
    return op.Expand(op.Mul(x, scalar_like(op, factor, dtype)), shape)


def agree(match: Match) -> None:
    """Nothing to ask: the equation always holds."""


def expanded_with(name: str, *, last: bool) -> Rule:
    """Expand(x) and a number, or the number first."""

    def before(op: Pattern, x: Var, shape: Var, c: Var) -> Term:
        wide = op.Expand(x, shape)
        return op.named(name)(*((c, wide) if last else (wide, c)))

    def after(op: Op, x: ir.Value, shape: ir.Value, c: ir.Value) -> ir.Value:
        return op.Expand(op.named(name)(*((c, x) if last else (x, c))), shape)

    return Rule("expand-number", before, guard_number, after, shared=True, exact=True)


def guard_number(match: Match) -> None:
    match.need(match.need_shape("c") == (), "the other operand has a shape of its own", match["c"])
    match.need(match.need_shape("x"), "a scalar", match["x"])


def where_both_expanded(op: Pattern, c: Var, x: Var, to_c: Var, to_x: Var, number: Var) -> Term:
    return op.Where(op.Expand(c, to_c), number, op.Expand(x, to_x))


def where_expanded_both(op: Pattern, c: Var, x: Var, to_c: Var, to_x: Var, number: Var) -> Term:
    return op.Where(op.Expand(c, to_c), op.Expand(x, to_x), number)


def guard_both(match: Match) -> None:
    match.need(match.need_shape("number") == (), "the other branch has a shape of its own", match["number"])
    wide = {match.analysis.shape(node.outputs[0]) for node in match.nodes}
    match.need(len(wide) == 1 and None not in wide, "they are expanded to different shapes", match.output)


def number_or_expanded(op: Op, c: ir.Value, x: ir.Value, to_c: ir.Value, number: ir.Value, **_: Any) -> ir.Value:
    return op.Expand(op.Where(c, number, x), to_c)


def expanded_or_number(op: Op, c: ir.Value, x: ir.Value, to_c: ir.Value, number: ir.Value, **_: Any) -> ir.Value:
    return op.Expand(op.Where(c, x, number), to_c)


def add_expanded(op: Pattern, y: Var, x: Var, shape: Var) -> Term:
    return op.Add(y, op.Expand(x, shape))


def and_expanded(op: Pattern, y: Var, x: Var, shape: Var) -> Term:
    return op.And(y, op.Expand(x, shape))


def guard_absorbed(match: Match) -> None:
    """Where the expansion adds nothing to the shape of the result, the operator's own broadcasting does the same."""
    match.need(match.need_shape("y") == match.need_shape(match.output), "the expansion decides the shape", match["x"])


def add(op: Op, y: ir.Value, x: ir.Value, **_: Any) -> ir.Value:
    return op.Add(y, x)


def and_(op: Op, y: ir.Value, x: ir.Value, **_: Any) -> ir.Value:
    return op.And(y, x)


RULES = (
    Rule("and-true", and_true, guard_true, expanded, exact=True),
    Rule("where-true", where_true, guard_true, expanded, exact=True),
    Rule("where-false", where_false, guard_false, itself, exact=True),
    Rule("where-transposed", where_transposed, guard_transposed, transpose_where, shared=True, exact=True),
    Rule("where-number", where_any, guard_uniform, where_numbers, shared=True, exact=True),
    Rule("where-reshaped", reshaped_where, guard_numbers, where_reshaped, shared=True, exact=True),
    Rule("expand-where", expand_where, guard_scalar_branches, where_expand, shared=True, exact=True),
    Rule("expand-cast", expand_cast, agree, cast_expand, shared=True, exact=True),
    Rule("expand-not", expand_not, agree, not_expand, shared=True, exact=True),
    Rule("expand-scaled", expand_scaled, guard_scaled, scaled_expand, shared=True, exact=True),
    expanded_with("Add", last=False),
    expanded_with("Sub", last=False),
    expanded_with("Sub", last=True),
    expanded_with("Equal", last=False),
    Rule("expand-both", where_both_expanded, guard_both, number_or_expanded, shared=True, exact=True),
    Rule("expand-both", where_expanded_both, guard_both, expanded_or_number, shared=True, exact=True),
    Rule("expand-add", add_expanded, guard_absorbed, add, shared=True, exact=True),
    Rule("expand-and", and_expanded, guard_absorbed, and_, shared=True, exact=True),
)
