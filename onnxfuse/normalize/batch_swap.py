"""Normal form of the batch: [S,B,D] becomes [B,S,D].

Encoders built from torch.nn's modules swap batch and sequence around attention, or stand that way throughout. What works row by
row does not mind: the swap moves behind it, until it meets its opposite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from onnxfuse.rewrite import Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE

SWAP = [1, 0, 2]
"""The permutation between [B,S,D] and [S,B,D]."""


def swap(op: Op, x: ir.Value) -> ir.Value:
    return op.Transpose(x, perm=SWAP)


def agree(match: Match) -> None:
    """Nothing to ask: the equation always holds."""


# f(swap(x)) = swap(f(x)) for what works on each element, or on each row


def elementwise(name: str) -> Rule:
    def before(op: Pattern, x: Var) -> Term:
        return op.named(name)(op.Transpose(x, perm=SWAP))

    def after(op: Op, x: ir.Value) -> ir.Value:
        return swap(op, op.named(name)(x))

    return Rule("swap-sinks", before, agree, after, shared=True, exact=True)


def gelu(op: Pattern, x: Var, approximate: Var) -> Term:
    return op.Gelu(op.Transpose(x, perm=SWAP), approximate=approximate)


def gelu_swapped(op: Op, x: ir.Value, approximate: str) -> ir.Value:
    return swap(op, op.Gelu(x, approximate=approximate))


def norm(op: Pattern, x: Var, gain: Var, axis: Var, epsilon: Var, bias: Var | None = None) -> Term:
    return op.LayerNormalization(op.Transpose(x, perm=SWAP), gain, bias, axis=axis, epsilon=epsilon)


def guard_norm(match: Match) -> None:
    match.need(match["axis"] in (-1, 2), "the norm is over more than the last dimension", match.output)


def norm_swapped(op: Op, x: ir.Value, gain: ir.Value, bias: ir.Value | None, axis: int, epsilon: float) -> ir.Value:
    return swap(op, op.LayerNormalization(x, gain, bias, axis=axis, epsilon=epsilon))


def both(name: str) -> Rule:
    def before(op: Pattern, x: Var, y: Var) -> Term:
        return op.named(name)(op.Transpose(x, perm=SWAP), op.Transpose(y, perm=SWAP))

    def after(op: Op, x: ir.Value, y: ir.Value) -> ir.Value:
        return swap(op, op.named(name)(x, y))

    return Rule("swap-sinks", before, agree, after, shared=True, exact=True)


def same(name: str) -> Rule:
    def before(op: Pattern, x: Var) -> Term:
        swapped = op.Transpose(x, perm=SWAP)
        return op.named(name)(swapped, swapped)

    def after(op: Op, x: ir.Value) -> ir.Value:
        return swap(op, op.named(name)(x, x))

    return Rule("swap-sinks", before, agree, after, shared=True, exact=True)


def guard_row(match: Match) -> None:
    """The other operand is the same for each row, so that it does not matter in which order they come."""
    shape = match.need_shape("c")
    match.need(len(shape) <= len(SWAP) and set(shape[:-1]) <= {ONE}, "the other operand differs from row to row", match["c"])


def with_row(name: str) -> Rule:
    def before(op: Pattern, x: Var, c: Var) -> Term:
        return op.named(name)(op.Transpose(x, perm=SWAP), c)

    def after(op: Op, x: ir.Value, c: ir.Value) -> ir.Value:
        return swap(op, op.named(name)(x, c))

    return Rule("swap-sinks", before, guard_row, after, shared=True, exact=True)


def row_with(name: str) -> Rule:
    def before(op: Pattern, x: Var, c: Var) -> Term:
        return op.named(name)(c, op.Transpose(x, perm=SWAP))

    def after(op: Op, x: ir.Value, c: ir.Value) -> ir.Value:
        return swap(op, op.named(name)(c, x))

    return Rule("swap-sinks", before, guard_row, after, shared=True, exact=True)


def product(op: Pattern, x: Var, weight: Var) -> Term:
    return op.MatMul(op.Transpose(x, perm=SWAP), weight)


def guard_product(match: Match) -> None:
    match.need_shape("weight", rank=2)


def product_swapped(op: Op, x: ir.Value, weight: ir.Value) -> ir.Value:
    return swap(op, op.MatMul(x, weight))


def mean(op: Pattern, x: Var, axes: Var, keepdims: Var) -> Term:
    return op.ReduceMean(op.Transpose(x, perm=SWAP), axes, keepdims=keepdims)


def guard_mean(match: Match) -> Learned:
    axes = match.info("axes").data or ()
    match.need(len(axes) == 1, "the mean is not over one dimension", match["axes"])
    axis = match.need_number(axes[0], "its dimension") % len(SWAP)
    match.need(match["keepdims"] or axis < 2, "the last dimension goes", match.output)
    return {"axis": SWAP[axis]}


def mean_swapped(op: Op, x: ir.Value, axis: int, keepdims: int, **_: Any) -> ir.Value:
    result = op.ReduceMean(x, op.constant([axis], "axis"), keepdims=keepdims)
    return swap(op, result) if keepdims else result


# Split(swap(x))[i] = swap(Split(x)[i]) along the last dimension


def part(at: int) -> Callable[..., Term]:
    def before(op: Pattern, x: Var, axis: Var, num_outputs: Var, sizes: Var | None = None) -> Term:
        return op.Split(op.Transpose(x, perm=SWAP), sizes, axis=axis, num_outputs=num_outputs, _output=at)

    return before


def guard_part(at: int) -> Callable[[Match], Learned]:
    def guard(match: Match) -> Learned:
        match.need(match["axis"] in (-1, 2), "another dimension than the last is split", match.output)
        return {"at": at, "count": len(match.root.outputs)}

    return guard


def part_swapped(op: Op, x: ir.Value, num_outputs: int | None, sizes: ir.Value | None, at: int, count: int, **_: Any) -> ir.Value:
    return swap(op, op.many("Split", count, x, sizes, axis=-1, num_outputs=num_outputs)[at])


# Reshape(swap(x), [S, B, N, H]) = Transpose(Reshape(x, [B, S, N, H])), and likewise through it where B and N are then merged


def split_swapped(op: Pattern, x: Var, shape: Var, zero: Var) -> Term:
    return op.Reshape(op.Transpose(x, perm=SWAP), shape, allowzero=zero)


def guard_split(match: Match) -> Learned:
    b, s, d = match.need_shape("x", rank=3)
    wanted = match.need_shape(match.output)
    match.need(wanted, "a scalar", match.output)
    match.need(wanted != (s, b, d), "nothing is split", match.output)
    heads = d.divide(wanted[-1]) or ONE
    merged = wanted == (s, b * heads, wanted[-1])
    match.need(merged or wanted[:2] == (s, b), "the Reshape does not split the last dimension", match.output)
    sizes = (heads, wanted[-1]) if merged else wanted[2:]
    return {"sizes": [match.need_number(size, "a size") for size in sizes], "merged": merged}


def swapped_split(op: Op, x: ir.Value, sizes: list[int], merged: bool, **_: Any) -> ir.Value:
    split = op.Reshape(x, op.constant([0, 0, *sizes], "split"))
    swapped = op.Transpose(split, perm=[1, 0, *range(2, 2 + len(sizes))])
    return op.Reshape(swapped, op.constant([0, -1, sizes[-1]], "merged")) if merged else swapped


# Reshape(Transpose(x[B, N, S, H], 2 0 1 3), [S, B, N*H]) = swap(Reshape(Transpose(x, 0 2 1 3), [B, S, N*H]))


def swapped_context(op: Pattern, x: Var, shape: Var, zero: Var) -> Term:
    return op.Reshape(op.Transpose(x, perm=[2, 0, 1, 3]), shape, allowzero=zero)


def guard_context(match: Match) -> Learned:
    b, n, s, h = match.need_shape("x", rank=4)
    match.need(match.need_shape(match.output) == (s, b, n * h), "the heads are not merged to [S,B,D]", match.output)
    return {"width": match.need_number(n * h, "the width")}


def context_swapped(op: Op, x: ir.Value, width: int, **_: Any) -> ir.Value:
    return swap(op, op.Reshape(op.Transpose(x, perm=[0, 2, 1, 3]), op.constant([0, 0, width], "merge")))


UNARY = ("Relu", "Erf", "Tanh", "Sigmoid", "Sqrt", "Reciprocal", "Neg", "Exp", "Abs", "Softplus")
BINARY = ("Add", "Sub", "Mul", "Div")
PARTS = 3
"""Query, key and value."""

RULES = (
    *(elementwise(name) for name in UNARY),
    Rule("swap-sinks", gelu, agree, gelu_swapped, shared=True, exact=True),
    Rule("swap-sinks", norm, guard_norm, norm_swapped, shared=True, exact=True),
    Rule("swap-sinks", product, guard_product, product_swapped, shared=True),
    Rule("swap-sinks", mean, guard_mean, mean_swapped, shared=True),
    *(both(name) for name in BINARY),
    *(same(name) for name in ("Add", "Mul")),
    *(with_row(name) for name in (*BINARY, "Pow")),
    *(row_with(name) for name in ("Sub", "Div")),
    *(Rule("swap-sinks", part(at), guard_part(at), part_swapped, shared=True, exact=True) for at in range(PARTS)),
    Rule("swap-sinks", split_swapped, guard_split, swapped_split, shared=True, exact=True),
    Rule("swap-sinks", swapped_context, guard_context, context_swapped, shared=True, exact=True),
)
