"""Normal form of the batch: [B*N,S,H] becomes [B,N,S,H].

Encoders built from torch.nn's modules multiply heads as one batch. What works on each matrix of the batch does not mind: the
Reshape that merges two dimensions moves behind it, until it meets its opposite.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxfuse.normalize.batch_swap import SWAP
from onnxfuse.normalize.scale import need_float, scalar_like
from onnxfuse.normalize.shapes import joins
from onnxfuse.rewrite import Learned, Match, NoMatch, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE, Shape

# Transpose(Reshape(x, [S, B*N, H]), 1 0 2) = merge(Transpose(Reshape(x, [S, B, N, H]), 1 2 0 3))


def split_into_batch(op: Pattern, x: Var, shape: Var, perm: Var, zero: Var) -> Term:
    return op.Transpose(op.Reshape(x, shape, allowzero=zero), perm=perm)


def guard_into_batch(match: Match) -> Learned:
    s, b, d = match.need_shape("x", rank=3)
    split = match.need_shape(next(node.outputs[0] for node in match.nodes if node.op_type == "Reshape"), rank=3)
    match.need(match["perm"] in ([1, 0, 2], [1, 2, 0]), "the merged dimension does not come first", match.output)
    heads = d.divide(split[2]) or ONE
    match.need(heads != ONE and split[:2] == (s, b * heads), "the Reshape does not split the last dimension", match.output)
    return {"sizes": [match.need_number(size, "a size") for size in (heads, split[2])]}


def heads_into_batch(op: Op, x: ir.Value, perm: list[int], sizes: list[int], **_: Any) -> ir.Value:
    heads = op.Reshape(x, op.constant([0, 0, *sizes], "split"))
    return merge(op, op.Transpose(heads, perm=[1, 2, 0, 3] if perm == SWAP else [1, 2, 3, 0]))


# Transpose(merge(x)) = merge(Transpose(x)), where merge makes one dimension of two


def merged_transpose(op: Pattern, x: Var, shape: Var, perm: Var, zero: Var) -> Term:
    return op.Transpose(op.Reshape(x, shape, allowzero=zero), perm=perm)


def _merged(match: Match, name: str) -> tuple[int, Shape]:
    """Which dimension of four became one with the next, and the four; refuses another Reshape."""
    source = match.need_shape(name)
    reshape = next(node for node in match.nodes if node.inputs[0] is match[name])
    at = joins(source, match.need_shape(reshape.outputs[0]))
    if at is None:
        raise NoMatch("the Reshape does not merge two of four dimensions", reshape.outputs[0])
    return at, source


def guard_merged_transpose(match: Match) -> Learned:
    at, _ = _merged(match, "x")
    perm = match["perm"] or [2, 1, 0]
    match.need(perm.index(at) < 2, "the merged dimension moves last", match.output)
    parts = [[0, 1], [2], [3]] if at == 0 else [[0], [1, 2], [3]]
    return {"wide": [part for i in perm for part in parts[i]], "to": perm.index(at)}


def transpose_merged(op: Op, x: ir.Value, wide: list[int], to: int, **_: Any) -> ir.Value:
    return merge(op, op.Transpose(x, perm=wide), to)


def merge(op: Op, x: ir.Value, at: int = 0) -> ir.Value:
    """Four dimensions with number ``at`` and the next as one."""
    return op.Reshape(x, op.Concat(op.Shape(x, end=at), op.constant([-1], "merged"), op.Shape(x, start=at + 2), axis=0))


# merge(x) @ merge(y) = merge(x @ y)


def merged_product(op: Pattern, x: Var, y: Var, to_x: Var, to_y: Var, zero_x: Var, zero_y: Var) -> Term:
    return op.MatMul(op.Reshape(x, to_x, allowzero=zero_x), op.Reshape(y, to_y, allowzero=zero_y))


def guard_merged_product(match: Match) -> None:
    (at_x, x), (at_y, y) = _merged(match, "x"), _merged(match, "y")
    match.need(at_x == at_y == 0, "the products' dimensions are merged, not their batch", match.output)
    match.need(x[:2] == y[:2], "the operands have other batches", match.output)


def product_merged(op: Op, x: ir.Value, y: ir.Value, **_: Any) -> ir.Value:
    return merge(op, op.MatMul(x, y))


# merge(x) + merge(y) = merge(x + y); merge(x) + y = merge(x + y) for a y that is the same for the whole batch; likewise a factor


def merged_sum(op: Pattern, x: Var, y: Var, to_x: Var, to_y: Var, zero_x: Var, zero_y: Var) -> Term:
    return op.Add(op.Reshape(x, to_x, allowzero=zero_x), op.Reshape(y, to_y, allowzero=zero_y))


def guard_merged_sum(match: Match) -> Learned:
    (at_x, x), (at_y, y) = _merged(match, "x"), _merged(match, "y")
    match.need(at_x == at_y and x[at_x : at_x + 2] == y[at_y : at_y + 2], "the operands are merged otherwise", match.output)
    return {"at": at_x}


def sum_merged(op: Op, x: ir.Value, y: ir.Value, at: int, **_: Any) -> ir.Value:
    return merge(op, op.Add(x, y), at)


def merged_mask(op: Pattern, x: Var, y: Var, shape: Var, zero: Var) -> Term:
    return op.Add(op.Reshape(x, shape, allowzero=zero), y)


def guard_merged_mask(match: Match) -> Learned:
    at, _ = _merged(match, "x")
    y = match.need_shape("y")
    match.need(
        len(y) <= 2 - at or (len(y) == 3 and y[: at + 1] == (ONE,) * (at + 1)),
        "the mask differs in the merged dimension",
        match["y"],
    )
    return {"at": at}


def merged_factor(op: Pattern, x: Var, c: Var, shape: Var, zero: Var) -> Term:
    return op.Mul(op.Reshape(x, shape, allowzero=zero), c)


def guard_merged_factor(match: Match) -> Learned:
    at, _ = _merged(match, "x")
    return {"at": at, "factor": match.scalar("c"), "dtype": need_float(match, match["c"])}


def factor_merged(op: Op, x: ir.Value, factor: float, dtype: ir.DataType, at: int, **_: Any) -> ir.Value:
    return merge(op, op.Mul(x, scalar_like(op, factor, dtype)), at)


RULES = (
    Rule("merge-sinks", split_into_batch, guard_into_batch, heads_into_batch, shared=True, exact=True),
    Rule("merge-sinks", merged_transpose, guard_merged_transpose, transpose_merged, shared=True, exact=True),
    Rule("merge-sinks", merged_product, guard_merged_product, product_merged, shared=True),
    Rule("merge-sinks", merged_sum, guard_merged_sum, sum_merged, shared=True, exact=True),
    Rule("merge-sinks", merged_mask, guard_merged_mask, sum_merged, shared=True, exact=True),
    Rule("merge-sinks", merged_factor, guard_merged_factor, factor_merged, shared=True, exact=True),
)
