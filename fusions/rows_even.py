"""An even number of tokens where it is odd: one more that nobody reads.

Seen in:   image encoders, whose class token makes their tokens odd: 197 in ViT, 257 in CLIP and DINOv2, 577 of 384 pixels.
Computes:  f(x) = cut(f(pad(x))) for what works on each token by itself, where pad adds a token of zeros and cut takes it off;
           attention(q, k, v) = cut(attention(pad(q), k, v)).
Shapes:    x [B,S,D], S a known odd number; inside [B,S+1,D].
Numerics:  rounding only (tolerance row "reassociate"): a product with more rows may sum in another order.
Refuses:   few tokens; attention with a mask, whose rows are the queries'; where tokens are read in another way it is cut off.
Source:    oneDNN, in OpenVINO 2026.4, blocks the rows of a product by a divisor of their number: on AMD EPYC with VNNI and
           2 threads, ViT's linear layers in int8 take 25.6 ms at 197 rows and 22.7 at 198.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Learned, Lowering, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE

FEWEST = 32
"""Tokens from which one more is a small part of the work."""

NAME = "even-rows"


def _need_cut(match: Match, suffix: str = "") -> int:
    """The tokens [B,S,D] that are left of one more; refuses another Slice."""
    tokens = match.need_number(match.need_shape(f"y{suffix}", rank=3)[1], "the number of tokens")
    cut = [match.need_array(f"{name}{suffix}").tolist() for name in ("start", "end", "axis")]
    match.need(cut == [[0], [tokens - 1], [1]], "it is another Slice", match[f"y{suffix}"])
    return tokens - 1


def _need_one_row(match: Match, name: str) -> None:
    if match[name] is not None:
        shape = match.need_shape(name)
        match.need(len(shape) <= 3 and set(shape[:-1]) <= {ONE}, f"{name} has more than one row", match[name])


def padded(op: Op, x: ir.Value, dtype: ir.DataType) -> ir.Value:
    return op.Pad(x, op.constant([0, 0, 0, 0, 1, 0], "one-more"), op.constant(np.zeros((), dtype.numpy()), "zero"))


# Where it begins: a linear layer


def linear(op: Pattern, x: Var, weight: Var) -> Term:
    return op.MatMul(x, weight)


def guard_begin(match: Match) -> Learned:
    tokens = match.need_number(match.need_shape("x", rank=3)[1], "the number of tokens")
    match.need(tokens % 2 == 1 and tokens >= FEWEST, f"there are {tokens} tokens", match["x"])
    match.need_shape(match.need_constant("weight"), rank=2)
    made = match["x"].producer()
    match.need(made is None or made.op_type != "Slice", "a token was cut off", match["x"])
    return {"tokens": tokens, "dtype": match.need_type("x")}


def begin(op: Op, x: ir.Value, weight: ir.Value, tokens: int, dtype: ir.DataType) -> ir.Value:
    cut = (op.constant([0], "first"), op.constant([tokens], "tokens"), op.constant([1], "axis"))
    return op.Slice(op.MatMul(padded(op, x, dtype), weight), *cut)


# What works on each token by itself


def of_linear(op: Pattern, y: Var, start: Var, end: Var, axis: Var, weight: Var) -> Term:
    return op.MatMul(op.Slice(y, start, end, axis), weight)


def guard_linear(match: Match) -> None:
    _need_cut(match)
    match.need_shape("weight", rank=2)


def after_linear(op: Op, y: ir.Value, start: ir.Value, end: ir.Value, axis: ir.Value, weight: ir.Value) -> ir.Value:
    return op.Slice(op.MatMul(y, weight), start, end, axis)


def of_norm(op: Pattern, y: Var, start: Var, end: Var, axis: Var, gain: Var, epsilon: Var, bias: Var | None = None) -> Term:
    return op.LayerNormalization(op.Slice(y, start, end, axis), gain, bias, axis=-1, epsilon=epsilon)


def guard_norm(match: Match) -> None:
    match.need_single_output()
    _need_cut(match)
    _need_one_row(match, "gain")
    _need_one_row(match, "bias")


def after_norm(
    op: Op,
    y: ir.Value,
    start: ir.Value,
    end: ir.Value,
    axis: ir.Value,
    gain: ir.Value,
    epsilon: float,
    bias: ir.Value | None,
) -> ir.Value:
    return op.Slice(op.LayerNormalization(y, gain, bias, axis=-1, epsilon=epsilon), start, end, axis)


def of_gelu(op: Pattern, y: Var, start: Var, end: Var, axis: Var, approximate: Var) -> Term:
    return op.Gelu(op.Slice(y, start, end, axis), approximate=approximate)


def guard_rows(match: Match) -> None:
    _need_cut(match)


def after_gelu(op: Op, y: ir.Value, start: ir.Value, end: ir.Value, axis: ir.Value, approximate: str) -> ir.Value:
    return op.Slice(op.Gelu(y, approximate=approximate), start, end, axis)


def guard_scaled(match: Match) -> None:
    _need_cut(match)
    _need_one_row(match, "b")


def guard_both(match: Match) -> None:
    match.need(_need_cut(match) == _need_cut(match, "2"), "the operands have other tokens", match.output)
    match.need(match.need_shape("y") == match.need_shape("y2"), "an operand broadcasts", match["y2"])


def guard_whole(match: Match) -> Learned:
    _need_cut(match)
    match.need(match.need_shape("x", rank=3) == match.need_shape(match.output), "an operand broadcasts", match["x"])
    return {"dtype": match.need_type("x")}


def elementwise(name: str) -> tuple[Rule, ...]:
    """Rules for an operator of two operands: a row for all tokens beside them, two of tokens, or one that is whole still."""

    def of_scaled(op: Pattern, y: Var, start: Var, end: Var, axis: Var, b: Var) -> Term:
        return op.named(name)(op.Slice(y, start, end, axis), b)

    def scaled(op: Op, y: ir.Value, start: ir.Value, end: ir.Value, axis: ir.Value, b: ir.Value) -> ir.Value:
        return op.Slice(op.named(name)(y, b), start, end, axis)

    def of_both(op: Pattern, y: Var, start: Var, end: Var, axis: Var, y2: Var, start2: Var, end2: Var, axis2: Var) -> Term:
        return op.named(name)(op.Slice(y, start, end, axis), op.Slice(y2, start2, end2, axis2))

    def both(op: Op, y: ir.Value, y2: ir.Value, start: ir.Value, end: ir.Value, axis: ir.Value, **_: Any) -> ir.Value:
        return op.Slice(op.named(name)(y, y2), start, end, axis)

    def of_whole(op: Pattern, x: Var, y: Var, start: Var, end: Var, axis: Var) -> Term:
        return op.named(name)(x, op.Slice(y, start, end, axis))

    def whole(op: Op, x: ir.Value, y: ir.Value, start: ir.Value, end: ir.Value, axis: ir.Value, dtype: ir.DataType) -> ir.Value:
        return op.Slice(op.named(name)(padded(op, x, dtype), y), start, end, axis)

    return (
        Rule(NAME, of_both, guard_both, both, shared=True),
        Rule(NAME, of_scaled, guard_scaled, scaled, shared=True),
        Rule(NAME, of_whole, guard_whole, whole, shared=True),
    )


def unary(name: str) -> Rule:
    """The rule for an operator of one operand."""

    def before(op: Pattern, y: Var, start: Var, end: Var, axis: Var) -> Term:
        return op.named(name)(op.Slice(y, start, end, axis))

    def after(op: Op, y: ir.Value, start: ir.Value, end: ir.Value, axis: ir.Value) -> ir.Value:
        return op.Slice(op.named(name)(y), start, end, axis)

    return Rule(NAME, before, guard_rows, after, shared=True)


def part(at: int) -> Rule:
    """The rule for one part of a Split by columns; equal Splits are merged behind it."""

    def before(op: Pattern, y: Var, start: Var, end: Var, axis: Var, sizes: Var, over: Var) -> Term:
        return op.Split(op.Slice(y, start, end, axis), sizes, axis=over, _output=at)

    def after(
        op: Op, y: ir.Value, start: ir.Value, end: ir.Value, axis: ir.Value, sizes: ir.Value, over: int, parts: int
    ) -> ir.Value:
        return op.Slice(op.many("Split", parts, y, sizes, axis=over)[at], start, end, axis)

    return Rule(NAME, before, guard_split, after, shared=True)


def guard_split(match: Match) -> Learned:
    _need_cut(match)
    match.need(match["over"] in (-1, 2), "the split is over another dimension", match.output)
    return {"parts": len(match.root.outputs)}


# Attention, whose keys and values stay as they are; and what picks tokens


def of_attention(op: Pattern, y: Var, start: Var, end: Var, axis: Var, k: Var, v: Var, n: Var, n_kv: Var, scale: Var) -> Term:
    return op.Attention(op.Slice(y, start, end, axis), k, v, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def guard_attention(match: Match) -> None:
    match.need_single_output()
    _need_cut(match)


def after_attention(
    op: Op,
    y: ir.Value,
    start: ir.Value,
    end: ir.Value,
    axis: ir.Value,
    k: ir.Value,
    v: ir.Value,
    n: int,
    n_kv: int,
    scale: float | None,
) -> ir.Value:
    return op.Slice(op.Attention(y, k, v, q_num_heads=n, kv_num_heads=n_kv, scale=scale), start, end, axis)


def of_pick(op: Pattern, y: Var, start: Var, end: Var, axis: Var, index: Var) -> Term:
    return op.Gather(op.Slice(y, start, end, axis), index, axis=1)


def guard_pick(match: Match) -> None:
    tokens = _need_cut(match)
    index = match.need_array("index")
    match.need(((index >= 0) & (index < tokens)).all(), "it counts from the end", match["index"])


def after_pick(op: Op, y: ir.Value, index: ir.Value, **_: Any) -> ir.Value:
    return op.Gather(y, index, axis=1)


RULES = (
    Rule(NAME, of_linear, guard_linear, after_linear, shared=True),
    Rule(NAME, linear, guard_begin, begin),
    Rule(NAME, of_norm, guard_norm, after_norm, shared=True),
    Rule(NAME, of_gelu, guard_rows, after_gelu, shared=True),
    *(unary(name) for name in ("Sigmoid", "Tanh", "Relu", "Erf")),
    *(rule for name in ("Add", "Mul") for rule in elementwise(name)),
    *(part(at) for at in range(3)),
    Rule(NAME, of_attention, guard_attention, after_attention, shared=True),
    Rule(NAME, of_pick, guard_pick, after_pick, shared=True),
)
LOWERINGS = (Lowering("rows", "given"), Lowering("rows", "even", RULES, early=True))
