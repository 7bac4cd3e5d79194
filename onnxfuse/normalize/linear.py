"""Normal form of linear layers: MatMul, then Add of the bias."""

from __future__ import annotations

from onnxfuse.rewrite import Match, Op, Rule


def gemm(op, x, weight, swapped, bias=None):
    return op.Gemm(x, weight, bias, transB=swapped)


def guard_gemm(match: Match) -> None:
    """alpha, beta and transA at their defaults follow from the pattern."""
    weight = match.need_constant("weight")
    match.need(not match["swapped"] or len(weight.uses()) == 1, "the weight is read elsewhere as it is", weight)


def linear(op: Op, x, weight, swapped, bias):
    weight = op.Transpose(weight, perm=[1, 0]) if swapped else weight
    product = op.MatMul(x, weight)
    return product if bias is None else op.Add(product, bias)


RULES = (Rule("gemm-linear", gemm, guard_gemm, linear),)
