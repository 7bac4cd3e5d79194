"""Forms for targets that lack an operator of the normal form: the same law read from right to left.

Seen in:   targets ``standard`` (no Attention, below opset 20 no Gelu) and ``ort-contrib`` (com.microsoft operators).
Computes:  what ``attention``, ``gelu`` and ``residual`` compute.
Numerics:  rounding only (tolerance row "reassociate").
Source:    ONNX operators Attention and Gelu (their function bodies); com.microsoft.MultiHeadAttention and BiasGelu.
"""

from __future__ import annotations

import math

import numpy as np

from onnxfuse.fusions.gelu import CUBIC, INVERSE_SQRT2, SQRT_2_OVER_PI
from onnxfuse.rewrite import Match, NoMatch, Op, Rule


def attention(op, q, k, v, n, n_kv, scale, mask=None):
    return op.Attention(q, k, v, mask, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def guard_heads(match: Match) -> dict:
    size = match.need_number(match.need_shape("q", rank=3)[2], "the hidden size") // match["n"]
    scale = match["scale"]
    return {"size": size, "factor": 1 / math.sqrt(size) if scale is None else scale, "dtype": match.fact("q").dtype}


def decomposed(op: Op, q, k, v, mask, n, size, factor, dtype, **_):
    split = op.constant([0, 0, n, size], "split")
    query, value = (op.Transpose(op.Reshape(x, split), perm=[0, 2, 1, 3]) for x in (q, v))
    key = op.Transpose(op.Reshape(k, split), perm=[0, 2, 3, 1])
    scores = op.Mul(op.MatMul(query, key), op.constant(np.array(factor, dtype=dtype.numpy()), "scale"))
    scores = scores if mask is None else op.Add(scores, mask)
    context = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), value), perm=[0, 2, 1, 3])
    return op.Reshape(context, op.constant([0, 0, n * size], "merge"))


def multi_head(op: Op, q, k, v, mask, n, factor, **_):
    inputs = (q, k, v) if mask is None else (q, k, v, None, None, mask)
    return op.MultiHeadAttention(*inputs, num_heads=n, scale=factor, _domain="com.microsoft")


def gelu(op, x, approximate):
    return op.Gelu(x, approximate=approximate)


def guard_gelu(match: Match) -> dict:
    kind = match.fact("x").dtype
    if kind is None:
        raise NoMatch("the type is not known", match["x"])
    return {"dtype": kind.numpy()}


def elementwise_gelu(op: Op, x, approximate, dtype):
    def number(value: float, name: str):
        return op.constant(np.array(value, dtype=dtype), name)
    if approximate == "tanh":
        bent = op.Add(x, op.Mul(op.Pow(x, number(3.0, "three")), number(CUBIC, "cubic")))
        bend = op.Tanh(op.Mul(bent, number(SQRT_2_OVER_PI, "inner")))
    else:
        bend = op.Erf(op.Mul(x, number(INVERSE_SQRT2, "inner")))
    return op.Mul(op.Mul(x, op.Add(bend, number(1.0, "one"))), number(0.5, "half"))


def biased_gelu(op, x, bias):
    return op.Gelu(op.Add(x, bias))


def guard_bias(match: Match) -> None:
    match.need_constant("bias")
    match.need(match.need_shape("bias") == match.need_shape("x")[-1:], "the bias is not one row", match["bias"])


def bias_gelu(op: Op, x, bias):
    return op.BiasGelu(x, bias, _domain="com.microsoft")


def linear(op, x, weight, bias):
    return op.Add(op.MatMul(x, weight), bias)


def guard_linear(match: Match) -> dict:
    match.need_shape("x", rank=3)
    match.need_constant("weight")
    match.need_constant("bias")
    rows, width = match.need_shape("weight", rank=2)
    match.need(match.need_shape("bias") == (width,), "the bias is not one row", match["bias"])
    numbers = [match.need_number(size, "a width") for size in (rows, width)]
    return {"depth": numbers[0], "width": numbers[1]}


def gemm(op: Op, x, weight, bias, depth, width):
    """Gemm takes two dimensions; the first two come back from the input's own shape. (ONNX Runtime 1.31 infers a wrong one from
    Shape with an end, so that a Slice cuts it.)"""
    flat = op.Gemm(op.Reshape(x, op.constant([-1, depth], "rows")), weight, bias)
    lead = op.Slice(op.Shape(x), op.constant([0], "first"), op.constant([2], "second"))
    return op.Reshape(flat, op.Concat(lead, op.constant([width], "width"), axis=0))


BIAS_IN_LINEAR = (Rule("bias-in-linear", linear, guard_linear, gemm),)
DECOMPOSED = (Rule("attention-decomposed", attention, guard_heads, decomposed),)
MULTI_HEAD = (Rule("attention-multi-head", attention, guard_heads, multi_head),)
ELEMENTWISE_GELU = (Rule("gelu-elementwise", gelu, guard_gelu, elementwise_gelu),)
BIAS_GELU = (Rule("gelu-bias", biased_gelu, guard_bias, bias_gelu),)
