"""Normal form of masks: one additive bias of the smallest shape, and no repair of rows or weights behind the softmax."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.scale import FLOATS, need_float, scalar_like
from onnxfuse.rewrite import Match, Op, Rule
from onnxfuse.rewrite.analysis import ONE, Analysis, lowest_fill

# And(x, true) = x, expanded to the common shape


def and_true(op, x, true):
    return op.And(x, true)


def where_true(op, true, x, other):
    return op.Where(true, x, other)


def where_false(op, false, other, x):
    return op.Where(false, other, x)


def guard_false(match: Match) -> None:
    match.need(match.info("false").uniform is False, "the condition is not always false", match["false"])
    match.need(match.need_shape("x") == match.need_shape(match.output), "the condition decides the shape", match["false"])


def itself(op: Op, x, **_):
    return x


def guard_true(match: Match) -> None:
    match.need(match.info("true").uniform is True, "the other side is not always true", match["true"])
    same = match.need_shape("x") == match.need_shape(match.output)
    if "other" in match.bindings:
        match.need(same or match.info("other").shape == (), "the other branch has a shape of its own", match["other"])


def expanded(op: Op, x, true, **_):
    return op.Expand(x, op.Shape(true))


# Where(Transpose(c), s, Transpose(x)) = Transpose(Where(c, s, x))


def where_transposed(op, c, s, x, perm):
    return op.Where(op.Transpose(c, perm=perm), s, op.Transpose(x, perm=perm))


def guard_transposed(match: Match) -> None:
    match.need(match.need_shape("s") == (), "the other branch has a shape of its own", match["s"])
    match.need(match.need_shape("x", rank=len(match.need_shape("c"))), "a scalar", match["x"])


def transpose_where(op: Op, c, s, x, perm):
    return op.Transpose(op.Where(c, s, x), perm=perm)


# Where(c, s, x) = Where(c, s, number) for an x that is the same number everywhere, and adds no dimension


def where_any(op, c, yes, no):
    return op.Where(c, yes, no)


def guard_uniform(match: Match) -> dict:
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


def where_numbers(op: Op, c, numbers, **branches):
    return op.Where(c, *(op.constant(numbers[name], name) if name in numbers else branches[name] for name in ("yes", "no")))


# Reshape(Where(c, s, t)) = Where(Reshape(c), s, t) for two numbers


def reshaped_where(op, c, yes, no, shape, zero):
    return op.Reshape(op.Where(c, yes, no), shape, allowzero=zero)


def guard_numbers(match: Match) -> dict:
    match.need(match.need_shape("yes") == match.need_shape("no") == (), "a branch has a shape of its own", match.output)
    match.need(match.need_shape("c"), "a scalar", match["c"])
    return {}


def where_reshaped(op: Op, c, yes, no, shape, zero):
    return op.Where(op.Reshape(c, shape, allowzero=zero), yes, no)


# f(Expand(x)) = Expand(f(x)) for elementwise f; Add(y, Expand(x)) = Add(y, x) where y has the full shape


def expand_where(op, x, shape, yes, no):
    return op.Where(op.Expand(x, shape), yes, no)


def guard_scalar_branches(match: Match) -> None:
    rank = len(match.need_shape("x"))
    for name in ("yes", "no"):
        shape = match.need_shape(name)
        match.need(len(shape) <= rank and set(shape) <= {ONE}, f"branch {name!r} has a shape of its own", match[name])


def where_expand(op: Op, x, shape, yes, no):
    return op.Expand(op.Where(x, yes, no), shape)


def expand_cast(op, x, shape, to):
    return op.Cast(op.Expand(x, shape), to=to)


def cast_expand(op: Op, x, shape, to):
    return op.Expand(op.Cast(x, to=to), shape)


def expand_not(op, x, shape):
    return op.Not(op.Expand(x, shape))


def not_expand(op: Op, x, shape):
    return op.Expand(op.Not(x), shape)


def expand_scaled(op, x, shape, c):
    return op.Mul(op.Expand(x, shape), c)


def guard_scaled(match: Match) -> dict:
    return {"factor": match.scalar("c"), "dtype": need_float(match, match["c"])}


def scaled_expand(op: Op, x, shape, factor, dtype, **_):
    return op.Expand(op.Mul(x, scalar_like(op, factor, dtype)), shape)


def agree(match: Match) -> None:
    """Nothing to ask: the equation always holds."""


def expanded_with(name: str, *, last: bool) -> Rule:
    """Expand(x) and a number, or the number first."""

    def before(op, x, shape, c):
        wide = op.Expand(x, shape)
        return getattr(op, name)(*((c, wide) if last else (wide, c)))

    def after(op: Op, x, shape, c):
        return op.Expand(getattr(op, name)(*((c, x) if last else (x, c))), shape)

    return Rule("expand-number", before, guard_number, after, shared=True, exact=True)


def guard_number(match: Match) -> None:
    match.need(match.need_shape("c") == (), "the other operand has a shape of its own", match["c"])
    match.need(match.need_shape("x"), "a scalar", match["x"])


def where_both_expanded(op, c, x, to_c, to_x, number):
    return op.Where(op.Expand(c, to_c), number, op.Expand(x, to_x))


def where_expanded_both(op, c, x, to_c, to_x, number):
    return op.Where(op.Expand(c, to_c), op.Expand(x, to_x), number)


def guard_both(match: Match) -> None:
    match.need(match.need_shape("number") == (), "the other branch has a shape of its own", match["number"])
    wide = {match.analysis.shape(node.outputs[0]) for node in match.nodes}
    match.need(len(wide) == 1 and None not in wide, "they are expanded to different shapes", match.output)


def number_or_expanded(op: Op, c, x, to_c, number, **_):
    return op.Expand(op.Where(c, number, x), to_c)


def expanded_or_number(op: Op, c, x, to_c, number, **_):
    return op.Expand(op.Where(c, x, number), to_c)


def add_expanded(op, y, x, shape):
    return op.Add(y, op.Expand(x, shape))


def and_expanded(op, y, x, shape):
    return op.And(y, op.Expand(x, shape))


def guard_absorbed(match: Match) -> None:
    """Where the expansion adds nothing to the shape of the result, the operator's own broadcasting does the same."""
    match.need(match.need_shape("y") == match.need_shape(match.output), "the expansion decides the shape", match["x"])


def add(op: Op, y, x, **_):
    return op.Add(y, x)


def and_(op: Op, y, x, **_):
    return op.And(y, x)


# Softmax(x + Where(keep, 0, -inf)) = Softmax(x + Where(keep, 0, lowest finite)) in every row that keeps something


def infinite_mask(op, x, keep, zero, infinity, axis):
    return op.Softmax(op.Add(x, op.Where(keep, zero, infinity)), axis=axis)


def infinite_hole(op, x, drop, zero, infinity, axis):
    return op.Softmax(op.Add(x, op.Where(drop, infinity, zero)), axis=axis)


def guard_infinite(match: Match) -> dict:
    match.need_scalar("zero", 0.0)
    match.need(match.scalar("infinity") == -math.inf, "the fill value is finite", match["infinity"])
    dtype = need_float(match, match["infinity"])
    return {"lowest": np.array(dtype.min, dtype=dtype.numpy())}


def finite_mask(op: Op, x, keep, zero, axis, lowest, **_):
    return op.Softmax(op.Add(x, op.Where(keep, zero, op.constant(lowest, "lowest"))), axis=axis)


def finite_hole(op: Op, x, drop, zero, axis, lowest, **_):
    return op.Softmax(op.Add(x, op.Where(drop, op.constant(lowest, "lowest"), zero)), axis=axis)


# Softmax(Where(keep, x, fill)) = Softmax(x + Where(keep, 0, fill)) for a fill so low that its weight is zero


def kept_scores(op, keep, x, fill, axis):
    return op.Softmax(op.Where(keep, x, fill), axis=axis)


def dropped_scores(op, drop, x, fill, axis):
    return op.Softmax(op.Where(drop, fill, x), axis=axis)


def guard_fill(match: Match) -> dict:
    """Rows that keep something are the same; one that keeps nothing has no right answer (see the README)."""
    fill = _need_shut(match, "fill")
    match.need(match.need_shape("x") == match.need_shape(match.output), "the mask widens the scores", match.output)
    dtype = need_float(match, match["fill"])
    return {"zero": np.array(0, dtype=dtype.numpy()), "lowest": np.array(max(fill, dtype.min), dtype=dtype.numpy())}


def _need_shut(match: Match, name: str) -> float:
    """A fill value so low that what is filled gets no weight; refuses another."""
    fill, highest = match.scalar(name), lowest_fill(match.info(name).dtype)
    match.need(fill <= highest, f"the fill value is {fill}, wanted at most {highest:g}", match[name])
    return fill


def kept_bias(op: Op, keep, x, axis, zero, lowest, **_):
    return op.Softmax(op.Add(x, op.Where(keep, op.constant(zero, "zero"), op.constant(lowest, "lowest"))), axis=axis)


def dropped_bias(op: Op, drop, x, axis, zero, lowest, **_):
    return op.Softmax(op.Add(x, op.Where(drop, op.constant(lowest, "lowest"), op.constant(zero, "zero"))), axis=axis)


# Softmax(x + c) = Softmax(x) for a number c, and so for Softmax(x + (m + c))


def shifted_scores(op, x, c, axis):
    return op.Softmax(op.Add(x, c), axis=axis)


def shifted_mask(op, x, m, c, axis):
    return op.Softmax(op.Add(x, op.Add(m, c)), axis=axis)


def guard_shift(match: Match) -> None:
    match.need(math.isfinite(match.scalar("c")), "the number is not finite", match["c"])
    match.need(match.need_shape("x") == match.need_shape(match.output), "the number has more dimensions", match.output)


def scores(op: Op, x, axis, **_):
    return op.Softmax(x, axis=axis)


def masked_scores(op: Op, x, m, axis, **_):
    return op.Softmax(op.Add(x, m), axis=axis)


# Where(keep, p, 0) = p for p = Softmax(x + Where(keep, 0, low)), in every row that keeps something


def cleared_weights(op, x, keep, none, low, zero, axis):
    return op.Where(keep, op.Softmax(op.Add(x, op.Where(keep, none, low)), axis=axis), zero)


def guard_cleared(match: Match) -> None:
    """As with a repair of NaN: a row that keeps nothing has no right answer (see the README)."""
    match.need_scalar("none", 0.0)
    match.need_scalar("zero", 0.0)
    _need_shut(match, "low")
    match.need(match["axis"] in (-1, len(match.need_shape(match.output)) - 1), "the softmax is not over the keys", match.output)
    match.need(match.need_shape("x") == match.need_shape(match.output), "the mask widens the scores", match.output)


def biased(op: Op, x, keep, none, low, axis, **_):
    return op.Softmax(op.Add(x, op.Where(keep, none, low)), axis=axis)


# Where(IsNaN(p), 0, p) = p for p = Softmax(finite scores)


def nan_repair(op, scores, zero, axis):
    softmax = op.Softmax(scores, axis=axis)
    return op.Where(op.IsNaN(softmax), zero, softmax)


def guard_nan_repair(match: Match) -> None:
    """A softmax row is NaN only when it holds nothing but -inf (or a NaN that was there before)."""
    match.need_scalar("zero", 0.0)
    finite = _finite(match, match["scores"])
    match.need(finite, "the mask may be -inf, so that a row without tokens is NaN", match["scores"])


PASSING = {"Add", "Mul", "Sub", "Expand", "Reshape", "Unsqueeze", "Transpose", "Cast", "Where"}
"""Operators that give finite numbers for such."""


def _finite(match: Match, value: ir.Value) -> bool:
    """Whether scores are finite for finite activations: products of them, with at most finite constants added."""
    node = value.producer()
    if node is None:
        array = match.array(value)
        return array is not None and bool(abs(array).max() < math.inf)
    if node.op_type in ("MatMul", "Gemm"):
        return True
    floats = (v for v in filter(None, node.inputs) if not _integral(match.analysis, v))
    return node.op_type in PASSING and all(_finite(match, v) for v in floats)


def _integral(analysis: Analysis, value: ir.Value) -> bool:
    return analysis[value].dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def softmax(op: Op, scores, axis, **_):
    return op.Softmax(scores, axis=axis)


# Where(sum(keep) < 1, 0, p) = p for p = Softmax(x + (not keep) * low) or p = Softmax(...) @ v, in every row that keeps something


def no_key(op, keep, shape, axes, one, to):
    return op.Less(op.ReduceSum(op.Expand(op.Cast(keep, to=to), shape), axes), one)


def masked_softmax(op, x, keep, low, axis, mask_to, **_):
    return op.Softmax(op.Add(x, op.Mul(op.Cast(op.Not(keep), to=mask_to), low)), axis=axis)


def repaired_weights(op, x, keep, shape, axes, one, zero, low, axis, to, mask_to):
    return op.Where(no_key(op, keep, shape, axes, one, to), zero, masked_softmax(op, x, keep, low, axis, mask_to))


def repaired_context(op, x, v, keep, shape, axes, one, zero, low, axis, to, mask_to):
    return op.Where(no_key(op, keep, shape, axes, one, to), zero, op.MatMul(masked_softmax(op, x, keep, low, axis, mask_to), v))


def guard_row_repair(match: Match) -> None:
    """As with a repair of NaN: a row that keeps nothing has no right answer (see the README)."""
    match.need_scalar("one", 1.0)
    match.need_scalar("zero", 0.0)
    _need_shut(match, "low")
    rank = len(match.need_shape(match.output))
    match.need(match.need_array("axes").tolist() in ([-1], [rank - 1]), "the sum is not over the keys", match["axes"])
    match.need(match["axis"] in (-1, rank - 1), "the softmax is not over the keys", match.output)
    match.need(len(match.need_shape("keep")) == rank, "the mask has other dimensions than the scores", match["keep"])


def masked_context(op: Op, v, **parts):
    return op.MatMul(masked_softmax(op, **parts), v)


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
    Rule("mask-finite", infinite_mask, guard_infinite, finite_mask, shared=True),
    Rule("mask-finite", infinite_hole, guard_infinite, finite_hole, shared=True),
    Rule("mask-where", kept_scores, guard_fill, kept_bias, shared=True),
    Rule("mask-where", dropped_scores, guard_fill, dropped_bias, shared=True),
    Rule("softmax-shift", shifted_scores, guard_shift, scores),
    Rule("softmax-shift", shifted_mask, guard_shift, masked_scores, shared=True),
    Rule("weights-cleared", cleared_weights, guard_cleared, biased, shared=True),
    Rule("nan-repair", nan_repair, guard_nan_repair, softmax),
    Rule("row-repair", repaired_weights, guard_row_repair, masked_softmax, shared=True),
    Rule("row-repair", repaired_context, guard_row_repair, masked_context, shared=True),
)
