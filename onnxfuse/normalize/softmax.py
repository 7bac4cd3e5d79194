"""Normal form of softmax: over rows as they come, its mask a finite bias, and no repair of rows or weights behind it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize import query_masks
from onnxfuse.normalize.scale import need_float
from onnxfuse.rewrite import Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import Analysis, lowest_fill

# Softmax(Reshape(x)) = Reshape(Softmax(x)) over a last dimension that stays


def reshaped_softmax(op: Pattern, x: Var, shape: Var, zero: Var, axis: Var) -> Term:
    return op.Softmax(op.Reshape(x, shape, allowzero=zero), axis=axis)


def flattened_softmax(op: Pattern, x: Var, at: Var, axis: Var) -> Term:
    return op.Softmax(op.Flatten(x, axis=at), axis=axis)


def guard_rows(match: Match) -> None:
    source, wanted = match.need_shape("x"), match.need_shape(match.output)
    match.need(match["axis"] in (-1, len(wanted) - 1), "the softmax is not over the last dimension", match.output)
    match.need(source[-1:] == wanted[-1:], "the Reshape does not keep the last dimension", match.output)


def softmax_reshaped(op: Op, x: ir.Value, shape: ir.Value, **_: Any) -> ir.Value:
    return op.Reshape(op.Softmax(x, axis=-1), shape)


def softmax_flattened(op: Op, x: ir.Value, at: int, **_: Any) -> ir.Value:
    return op.Flatten(op.Softmax(x, axis=-1), axis=at)


# Softmax(x + Where(keep, 0, -inf)) = Softmax(x + Where(keep, 0, lowest finite)) in every row that keeps something


def infinite_mask(op: Pattern, x: Var, keep: Var, zero: Var, infinity: Var, axis: Var) -> Term:
    return op.Softmax(op.Add(x, op.Where(keep, zero, infinity)), axis=axis)


def infinite_hole(op: Pattern, x: Var, drop: Var, zero: Var, infinity: Var, axis: Var) -> Term:
    return op.Softmax(op.Add(x, op.Where(drop, infinity, zero)), axis=axis)


def guard_infinite(match: Match) -> Learned:
    name = "keep" if "keep" in match.bindings else "drop"
    match.need(not query_masks.leaves_zeros(match, name), "rows without a key give zeros, which the next rule keeps", match[name])
    match.need_scalar("zero", 0.0)
    match.need(match.scalar("infinity") == -math.inf, "the fill value is finite", match["infinity"])
    dtype = need_float(match, match["infinity"])
    return {"lowest": np.array(dtype.min, dtype=dtype.numpy())}


def finite_mask(op: Op, x: ir.Value, keep: ir.Value, zero: ir.Value, axis: int, lowest: np.ndarray, **_: Any) -> ir.Value:
    return op.Softmax(op.Add(x, op.Where(keep, zero, op.constant(lowest, "lowest"))), axis=axis)


def finite_hole(op: Op, x: ir.Value, drop: ir.Value, zero: ir.Value, axis: int, lowest: np.ndarray, **_: Any) -> ir.Value:
    return op.Softmax(op.Add(x, op.Where(drop, op.constant(lowest, "lowest"), zero)), axis=axis)


# Softmax(Where(keep, x, fill)) = Softmax(x + Where(keep, 0, fill)) for a fill so low that its weight is zero


def kept_scores(op: Pattern, keep: Var, x: Var, fill: Var, axis: Var) -> Term:
    return op.Softmax(op.Where(keep, x, fill), axis=axis)


def dropped_scores(op: Pattern, drop: Var, x: Var, fill: Var, axis: Var) -> Term:
    return op.Softmax(op.Where(drop, fill, x), axis=axis)


def guard_fill(match: Match) -> Learned:
    """Rows that keep something are the same; one that keeps nothing has no right answer (see docs/how-it-works.md)."""
    fill = _need_shut(match, "fill")
    match.need(match.need_shape("x") == match.need_shape(match.output), "the mask widens the scores", match.output)
    dtype = need_float(match, match["fill"])
    lowest = fill if query_masks.leaves_zeros(match, "keep" if "keep" in match.bindings else "drop") else max(fill, dtype.min)
    return {"zero": np.array(0, dtype=dtype.numpy()), "lowest": np.array(lowest, dtype=dtype.numpy())}


def _need_shut(match: Match, name: str) -> float:
    """A fill value so low that what is filled gets no weight; refuses another."""
    fill, highest = match.scalar(name), lowest_fill(match.info(name).dtype)
    match.need(fill <= highest, f"the fill value is {fill}, wanted at most {highest:g}", match[name])
    return fill


def kept_bias(op: Op, keep: ir.Value, x: ir.Value, axis: int, zero: np.ndarray, lowest: np.ndarray, **_: Any) -> ir.Value:
    return op.Softmax(op.Add(x, op.Where(keep, op.constant(zero, "zero"), op.constant(lowest, "lowest"))), axis=axis)


def dropped_bias(op: Op, drop: ir.Value, x: ir.Value, axis: int, zero: np.ndarray, lowest: np.ndarray, **_: Any) -> ir.Value:
    return op.Softmax(op.Add(x, op.Where(drop, op.constant(lowest, "lowest"), op.constant(zero, "zero"))), axis=axis)


# Softmax(x + c) = Softmax(x) for a number c, and so for Softmax(x + (m + c))


def shifted_scores(op: Pattern, x: Var, c: Var, axis: Var) -> Term:
    return op.Softmax(op.Add(x, c), axis=axis)


def shifted_mask(op: Pattern, x: Var, m: Var, c: Var, axis: Var) -> Term:
    return op.Softmax(op.Add(x, op.Add(m, c)), axis=axis)


def guard_shift(match: Match) -> None:
    match.need(math.isfinite(match.scalar("c")), "the number is not finite", match["c"])
    match.need(match.need_shape("x") == match.need_shape(match.output), "the number has more dimensions", match.output)


def scores(op: Op, x: ir.Value, axis: int, **_: Any) -> ir.Value:
    return op.Softmax(x, axis=axis)


def masked_scores(op: Op, x: ir.Value, m: ir.Value, axis: int, **_: Any) -> ir.Value:
    return op.Softmax(op.Add(x, m), axis=axis)


# Where(keep, p, 0) = p for p = Softmax(x + Where(keep, 0, low)), in every row that keeps something


def cleared_weights(op: Pattern, x: Var, keep: Var, none: Var, low: Var, zero: Var, axis: Var) -> Term:
    return op.Where(keep, op.Softmax(op.Add(x, op.Where(keep, none, low)), axis=axis), zero)


def guard_cleared(match: Match) -> None:
    """As with a repair of NaN: a row that keeps nothing has no right answer (see docs/how-it-works.md)."""
    match.need_scalar("none", 0.0)
    match.need_scalar("zero", 0.0)
    _need_shut(match, "low")
    match.need(match["axis"] in (-1, len(match.need_shape(match.output)) - 1), "the softmax is not over the keys", match.output)
    match.need(match.need_shape("x") == match.need_shape(match.output), "the mask widens the scores", match.output)


def biased(op: Op, x: ir.Value, keep: ir.Value, none: ir.Value, low: ir.Value, axis: int, **_: Any) -> ir.Value:
    return op.Softmax(op.Add(x, op.Where(keep, none, low)), axis=axis)


# Where(IsNaN(p), 0, p) = p for p = Softmax(finite scores)


def nan_repair(op: Pattern, scores: Var, zero: Var, axis: Var) -> Term:
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


def softmax(op: Op, scores: ir.Value, axis: int, **_: Any) -> ir.Value:
    return op.Softmax(scores, axis=axis)


# Where(sum(keep) < 1, 0, p) = p for p = Softmax(x + (not keep) * low) or p = Softmax(...) @ v, in every row that keeps something


def no_key(op: Pattern, keep: Var, shape: Var, axes: Var, one: Var, to: Var) -> Term:
    return op.Less(op.ReduceSum(op.Expand(op.Cast(keep, to=to), shape), axes), one)


def masked_softmax(op: Pattern, x: Var, keep: Var, low: Var, axis: Var, mask_to: Var) -> Term:
    return op.Softmax(op.Add(x, op.Mul(op.Cast(op.Not(keep), to=mask_to), low)), axis=axis)


def repaired_weights(
    op: Pattern, x: Var, keep: Var, shape: Var, axes: Var, one: Var, zero: Var, low: Var, axis: Var, to: Var, mask_to: Var
) -> Term:
    return op.Where(no_key(op, keep, shape, axes, one, to), zero, masked_softmax(op, x, keep, low, axis, mask_to))


def repaired_context(
    op: Pattern, x: Var, v: Var, keep: Var, shape: Var, axes: Var, one: Var, zero: Var, low: Var, axis: Var, to: Var, mask_to: Var
) -> Term:
    return op.Where(no_key(op, keep, shape, axes, one, to), zero, op.MatMul(masked_softmax(op, x, keep, low, axis, mask_to), v))


def guard_row_repair(match: Match) -> None:
    """As with a repair of NaN: a row that keeps nothing has no right answer (see docs/how-it-works.md)."""
    match.need_scalar("one", 1.0)
    match.need_scalar("zero", 0.0)
    _need_shut(match, "low")
    rank = len(match.need_shape(match.output))
    match.need(match.need_array("axes").tolist() in ([-1], [rank - 1]), "the sum is not over the keys", match["axes"])
    match.need(match["axis"] in (-1, rank - 1), "the softmax is not over the keys", match.output)
    match.need(len(match.need_shape("keep")) == rank, "the mask has other dimensions than the scores", match["keep"])


def masked_weights(op: Op, x: ir.Value, keep: ir.Value, low: ir.Value, axis: int, mask_to: int, **_: Any) -> ir.Value:
    return op.Softmax(op.Add(x, op.Mul(op.Cast(op.Not(keep), to=mask_to), low)), axis=axis)


def masked_context(op: Op, v: ir.Value, **parts: Any) -> ir.Value:
    return op.MatMul(masked_weights(op, **parts), v)


RULES = (
    *query_masks.RULES,
    Rule("softmax-rows", reshaped_softmax, guard_rows, softmax_reshaped, shared=True, exact=True),
    Rule("softmax-rows", flattened_softmax, guard_rows, softmax_flattened, shared=True, exact=True),
    Rule("mask-finite", infinite_mask, guard_infinite, finite_mask, shared=True),
    Rule("mask-finite", infinite_hole, guard_infinite, finite_hole, shared=True),
    Rule("mask-where", kept_scores, guard_fill, kept_bias, shared=True),
    Rule("mask-where", dropped_scores, guard_fill, dropped_bias, shared=True),
    Rule("softmax-shift", shifted_scores, guard_shift, scores),
    Rule("softmax-shift", shifted_mask, guard_shift, masked_scores, shared=True),
    Rule("weights-cleared", cleared_weights, guard_cleared, biased, shared=True),
    Rule("nan-repair", nan_repair, guard_nan_repair, softmax),
    Rule("row-repair", repaired_weights, guard_row_repair, masked_weights, shared=True),
    Rule("row-repair", repaired_context, guard_row_repair, masked_context, shared=True),
)
