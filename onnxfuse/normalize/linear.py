"""Normal form of linear layers: MatMul, then Add of the bias, on [B,S,D] as it comes."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from onnxfuse.normalize.shapes import constant_target, need_target
from onnxfuse.rewrite import Dim, Learned, Match, NoMatch, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE, is_constant

# Gemm(x, w, b) = MatMul(x, w) + b


def gemm(op: Pattern, x: Var, weight: Var, swapped: Var, bias: Var | None = None) -> Term:
    return op.Gemm(x, weight, bias, transB=swapped)


def guard_gemm(match: Match) -> None:
    """alpha, beta and transA at their defaults follow from the pattern."""
    weight = match.need_constant("weight")
    match.need(not match["swapped"] or len(weight.uses()) == 1, "the weight is read elsewhere as it is", weight)


def linear(op: Op, x: ir.Value, weight: ir.Value, swapped: int, bias: ir.Value | None) -> ir.Value:
    weight = op.Transpose(weight, perm=[1, 0]) if swapped else weight
    product = op.MatMul(x, weight)
    return product if bias is None else op.Add(product, bias)


# Reshape(Reshape(x, [-1, D]) @ w + b, [B, S, ...]) = Reshape(Reshape(x, [B, S, D]) @ w + b, [B, S, ...])


def flat_with_bias(op: Pattern, x: Var, flat: Var, weight: Var, bias: Var, back: Var, zero: Var, inner_zero: Var) -> Term:
    return op.Reshape(op.Add(op.MatMul(op.Reshape(x, flat, allowzero=inner_zero), weight), bias), back, allowzero=zero)


def flat(op: Pattern, x: Var, flat: Var, weight: Var, back: Var, zero: Var, inner_zero: Var) -> Term:
    return op.Reshape(op.MatMul(op.Reshape(x, flat, allowzero=inner_zero), weight), back, allowzero=zero)


def guard_flat(match: Match) -> Learned:
    """The leading dimensions that stay are those which both Reshapes leave whole: all but what makes up D, and the result."""
    match.need_constant("weight")
    depth, width = match.need_shape("weight", rank=2)
    source, wanted = match.need_shape("x"), match.need_shape(match.output)
    inner = next(node for node in match.nodes if node.inputs[0] is match["x"])
    match.need_shape(inner.outputs[0], rank=2)
    kept = next((at for at in range(len(source)) if math.prod(source[at:], start=ONE) == depth), None)
    if kept is None or kept < 2:
        raise NoMatch("the first Reshape does not keep the last dimension", match["x"])
    match.need(math.prod((*source, *wanted), start=ONE) != Dim(0), "it is empty", match["x"])
    lead, rest = source[:kept], math.prod(wanted[kept:], start=ONE)
    match.need(wanted[:kept] == lead and rest == width, "the last Reshape does not restore the first ones", match.output)
    if "bias" in match.bindings:
        match.need_constant("bias")
        match.need(match.need_shape("bias") == (width,), f"the bias is not [{width}]", match["bias"])
    for node in match.nodes:
        value = node.outputs[0]
        single = len(value.uses()) == 1 and not value.is_graph_output()
        match.need(single or node is match.root or node is inner, "the flat product is read elsewhere", value)
    behind = None if wanted == (*lead, width) else constant_target((*lead, width), wanted)
    return {"before": constant_target(source, (*lead, depth)), "behind": behind}


def whole(
    op: Op, x: ir.Value, weight: ir.Value, before: list[int], behind: list[int] | None, bias: ir.Value | None = None, **_: Any
) -> ir.Value:
    product = op.MatMul(op.Reshape(x, op.constant(before, "before")), weight)
    result = product if bias is None else op.Add(product, bias)
    return result if behind is None else op.Reshape(result, op.constant(behind, "behind"))


# Reshape(x, [B, S, N, H]) + b[N, H] = Reshape(x + Reshape(b, [N*H]), [B, S, N, H])


def biased_heads(op: Pattern, x: Var, shape: Var, bias: Var, zero: Var) -> Term:
    return op.Add(op.Reshape(x, shape, allowzero=zero), bias)


def guard_heads(match: Match) -> Learned:
    match.need_constant("bias")
    source, wanted = match.need_shape("x"), match.need_shape(match.output)
    bias = match.need_shape("bias", rank=2)
    match.need(wanted == (*source[:-1], *bias), "the Reshape does not split the last dimension as the bias is", match.output)
    width = match.need_number(source[-1], "the width")
    return {"width": width, "target": need_target(match, match["x"])}


def heads_of_biased(op: Op, x: ir.Value, bias: ir.Value, width: int, target: list[int], **_: Any) -> ir.Value:
    return op.Reshape(op.Add(x, op.Reshape(bias, op.constant([width], "width"))), op.constant(target, "heads"))


# Transpose(a @ b) = Transpose(b) @ Transpose(a), the last two dimensions swapped, for products of activations


def transposed_product(op: Pattern, a: Var, b: Var, perm: Var) -> Term:
    return op.Transpose(op.MatMul(a, b), perm=perm)


def guard_transposed_product(match: Match) -> Learned:
    rank = len(match.need_shape("a"))
    swap = [*range(rank - 2), rank - 1, rank - 2]
    match.need(match["perm"] == swap and rank >= 3, "other dimensions than the last two are swapped", match.output)
    match.need_shape("b", rank=rank)
    for name in ("a", "b"):
        match.need(not is_constant(match[name]), f"{name} is a weight", match[name])
    return {"swap": swap}


def product_transposed(op: Op, a: ir.Value, b: ir.Value, swap: list[int], **_: Any) -> ir.Value:
    return op.MatMul(op.Transpose(b, perm=swap), op.Transpose(a, perm=swap))


RULES = (
    Rule("gemm-linear", gemm, guard_gemm, linear),
    Rule("flat-linear", flat_with_bias, guard_flat, whole, shared=True),
    Rule("flat-linear", flat, guard_flat, whole, shared=True),
    Rule("bias-of-heads", biased_heads, guard_heads, heads_of_biased, exact=True),
    Rule("matmul-transposed", transposed_product, guard_transposed_product, product_transposed),
)
