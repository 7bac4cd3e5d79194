"""Normal form of masks that are another for each query or head: a window, the future, a bias of relative position."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.scale import need_float
from onnxfuse.rewrite import Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE


def leaves_zeros(match: Match, mask: str) -> bool:
    """Whether single queries may be without a key, and PyTorch's repair gives zeros for them.

    A mask of keys alone leaves whole rows of the batch without one, which have no right answer (docs/exact.md). One that hides
    keys from single queries (a window, the future) may leave padding's queries without one, in rows that have tokens.
    """
    shape = match.analysis.shape(match[mask])
    repaired = any(node.op_type == "IsNaN" for node in match.output.consumers())
    return repaired and (shape is None or len(shape) < 2 or shape[-2] != ONE)


# Where(IsNaN(p), 0, p) @ v = Where(sum(keep) > 0, q @ v, 0) for p = Softmax(x + Where(keep, 0, -inf)), q with the lowest number


def cleared_context(op: Pattern, x: Var, keep: Var, none: Var, infinity: Var, zero: Var, v: Var, axis: Var) -> Term:
    softmax = op.Softmax(op.Add(x, op.Where(keep, none, infinity)), axis=axis)
    return op.MatMul(op.Where(op.IsNaN(softmax), zero, softmax), v)


def guard_cleared_context(match: Match) -> Learned:
    match.need_scalar("none", 0.0)
    match.need_scalar("zero", 0.0)
    match.need(match.scalar("infinity") == -math.inf, "the fill value is finite", match["infinity"])
    rank = len(match.need_shape(match.output))
    match.need(match["axis"] in (-1, rank - 1), "the softmax is not over the keys", match.output)
    match.need(len(match.need_shape("keep")) == rank, "the mask has other dimensions than the scores", match["keep"])
    dtype = need_float(match, match["infinity"])
    return {"lowest": np.array(dtype.min, dtype=dtype.numpy())}


def context_cleared(
    op: Op, x: ir.Value, keep: ir.Value, none: ir.Value, zero: ir.Value, v: ir.Value, axis: int, lowest: np.ndarray, **_: Any
) -> ir.Value:
    weights = op.Softmax(op.Add(x, op.Where(keep, none, op.constant(lowest, "lowest"))), axis=axis)
    keys = op.ReduceSum(op.Cast(keep, to=ir.DataType.FLOAT), op.constant([-1], "axes"), keepdims=1)
    some = op.Greater(keys, op.constant(np.array(0, dtype=np.float32), "none"))
    return op.Where(some, op.MatMul(weights, v), zero)


# merge(Where(some, c, 0)) = Where(some, merge(c), 0) for heads that are merged: [B,N,S,H] to [B,S,N*H], some [B,1,S,1]


def cleared_heads(op: Pattern, some: Var, c: Var, zero: Var, shape: Var) -> Term:
    return op.Reshape(op.Transpose(op.Where(some, c, zero), perm=[0, 2, 1, 3]), shape)


def guard_cleared_heads(match: Match) -> None:
    b, _, s, _ = match.need_shape("c", rank=4)
    some = match.need_shape("some", rank=4)
    match.need(some[1:] == (ONE, s, ONE) and some[0] in (ONE, b), "not one condition for each query", match["some"])
    match.need(match.need_shape("zero") == (), "the other branch has a shape of its own", match["zero"])
    merged = match.need_shape(match.output)
    match.need(len(merged) == 3 and merged[:2] == (b, s), "the heads are not merged")


def heads_cleared(op: Op, some: ir.Value, c: ir.Value, zero: ir.Value, shape: ir.Value) -> ir.Value:
    kept = op.Reshape(some, op.constant([0, -1, 1], "queries"))
    return op.Where(kept, op.Reshape(op.Transpose(c, perm=[0, 2, 1, 3]), shape), zero)


# Softmax((x + b) + m) = Softmax(x + (b + m)) for a bias b that is the same in every row of the batch: one sum serves all layers


def biased_scores(op: Pattern, q: Var, k: Var, b: Var, m: Var, axis: Var) -> Term:
    return op.Softmax(op.Add(op.Add(op.MatMul(q, k), b), m), axis=axis)


def biased_scaled_scores(op: Pattern, q: Var, k: Var, scale: Var, b: Var, m: Var, axis: Var) -> Term:
    return op.Softmax(op.Add(op.Add(op.Mul(op.MatMul(q, k), scale), b), m), axis=axis)


def guard_bias(match: Match) -> None:
    bias, mask, full = match.need_shape("b"), match.need_shape("m"), match.need_shape(match.output)
    match.need(len(full) == 4 and (len(bias) < 4 or bias[0] == ONE), "the bias is another in each row of the batch", match["b"])
    match.need(bias[-1:] == mask[-1:] == full[-1:], "the bias or the mask is not over the keys", match["b"])


def masked_by_both(
    op: Op, q: ir.Value, k: ir.Value, b: ir.Value, m: ir.Value, axis: int, scale: ir.Value | None = None
) -> ir.Value:
    scores = op.MatMul(q, k)
    return op.Softmax(op.Add(scores if scale is None else op.Mul(scores, scale), op.Add(b, m)), axis=axis)


RULES = (
    Rule("context-cleared", cleared_context, guard_cleared_context, context_cleared, shared=True),
    Rule("heads-cleared", cleared_heads, guard_cleared_heads, heads_cleared),
    Rule("bias-mask", biased_scores, guard_bias, masked_by_both),
    Rule("bias-mask", biased_scaled_scores, guard_bias, masked_by_both),
)
